/* pool.c: several threads wait on one epoll set and share its connections: pool ONESHOT|EDGE.
 *
 * EDGE: edge-triggered as well. A one-shot registration is one thread's from its event to its re-arming: two threads must never hold one connection.
 */
#include "scene.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { WORKERS = 4, CONNECTIONS = 6, MESSAGES = 400, MESSAGE = 300, BODY = 20000, EVERY = 20, FDS = 1024 };

static struct {
    int set;
    int over; /* readable for all of them when every connection has ended */
    uint32_t events;
    _Atomic int held[FDS]; /* how many threads have the connection */
    _Atomic int open;
    _Atomic bool shared;
    size_t at[FDS]; /* bytes received, by connection; whoever has it may change it */
} pool;

static size_t total(void) {
    return (size_t)MESSAGES * MESSAGE + (size_t)(MESSAGES / EVERY) * BODY;
}

/* Takes a part of what is there, so that much stays owed when the connection is given back. False: it has ended. */
static bool take_some(int fd) {
    static _Thread_local char bytes[7000];
    for (int turn = 0; turn < (pool.events & EPOLLONESHOT ? 1 + fd % 3 : 1000000); turn++) {
        ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN) return true;
        must(got >= 0);
        if (got == 0) return false;
        must(holds(bytes, (size_t)got, 3, pool.at[fd]));
        pool.at[fd] += (size_t)got;
    }
    return true;
}

static void *work(void *nothing) {
    for (;;) {
        struct epoll_event event;
        must(epoll_wait(pool.set, &event, 1, -1) == 1);
        int fd = event.data.fd;
        if (fd == pool.over) return nothing;
        if (atomic_fetch_add(&pool.held[fd], 1) != 0) atomic_store(&pool.shared, true);
        bool goes_on = take_some(fd);
        atomic_fetch_sub(&pool.held[fd], 1);
        if (goes_on) {
            struct epoll_event again = {.events = pool.events, .data.fd = fd};
            must(epoll_ctl(pool.set, EPOLL_CTL_MOD, fd, &again) == 0);
        } else {
            must(pool.at[fd] == total() && send(fd, "!", 1, MSG_NOSIGNAL) == 1);
            uint64_t one = 1;
            if (atomic_fetch_sub(&pool.open, 1) == 1) must(write(pool.over, &one, sizeof one) == sizeof one);
        }
    }
}

static void serve(int listener) {
    pthread_t workers[WORKERS];
    pool.set = epoll_create1(0);
    pool.over = eventfd(0, 0);
    struct epoll_event over = {.events = EPOLLIN, .data.fd = pool.over};
    must(pool.set >= 0 && epoll_ctl(pool.set, EPOLL_CTL_ADD, pool.over, &over) == 0);
    atomic_store(&pool.open, CONNECTIONS);
    for (int i = 0; i < WORKERS; i++) must(pthread_create(&workers[i], NULL, work, NULL) == 0);
    for (int i = 0; i < CONNECTIONS; i++) {
        struct epoll_event event = {.events = pool.events, .data.fd = answer(listener)};
        must(event.data.fd < FDS && epoll_ctl(pool.set, EPOLL_CTL_ADD, event.data.fd, &event) == 0);
    }
    for (int i = 0; i < WORKERS; i++) must(pthread_join(workers[i], NULL) == 0);
    must(!atomic_load(&pool.shared));
    say("every connection was one thread's at a time\n");
}

static void *pour(void *argument) {
    int fd = *(int *)argument;
    char *bytes = filled(total(), 3);
    size_t at = 0;
    for (int i = 1; i <= MESSAGES; i++) {
        size_t length = i % EVERY == 0 ? MESSAGE + BODY : MESSAGE;
        send_all(fd, bytes + at, length);
        at += length;
    }
    must(at == total() && shutdown(fd, SHUT_WR) == 0);
    await(fd);
    free(bytes);
    return NULL;
}

static void ask(uint16_t port) {
    pthread_t threads[CONNECTIONS];
    int fds[CONNECTIONS];
    for (int i = 0; i < CONNECTIONS; i++) fds[i] = call_up(port);
    for (int i = 0; i < CONNECTIONS; i++) must(pthread_create(&threads[i], NULL, pour, &fds[i]) == 0);
    for (int i = 0; i < CONNECTIONS; i++) must(pthread_join(threads[i], NULL) == 0);
    say("%d connections took everything\n", CONNECTIONS);
}

int main(int argc, char **argv) {
    must(argc == 2);
    pool.events = EPOLLIN | (strcmp(argv[1], "ONESHOT") == 0 ? EPOLLONESHOT : EPOLLONESHOT | EPOLLET);
    return perform(serve, ask);
}
