/* waits.c: readiness tells the truth in application bytes: waits API.
 *
 * The server sends parts and waits, after each, for a word from the client, which reads in pieces far smaller than a part. So every byte must be announced without help
 * from new packets, and what is announced must be there.
 */
#include "scene.h"

#include <linux/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>

enum { SEED = 13, PIECE = 3000, BRIEF = 40000 };

static const size_t parts[] = {1, 70000, 10, 8192, 0, 131072, 5};
enum { PARTS = sizeof parts / sizeof parts[0] };

static const char *api;

static void serve(int listener) {
    int fd = answer(listener);
    size_t done = 0;
    for (int i = 0; i < PARTS; i++) {
        char *bytes = malloc(parts[i] + 1);
        fill(bytes, parts[i], SEED, done);
        send_all(fd, bytes, parts[i]);
        done += parts[i];
        free(bytes);
        await(fd);
    }
    shutdown(fd, SHUT_WR);
    await_end(fd);
}

static int set = -1;
static size_t wakeups;

static bool starts(const char *prefix) {
    return strncmp(api, prefix, strlen(prefix)) == 0;
}

static uint32_t epoll_flags(void) {
    return EPOLLIN | EPOLLRDHUP | (strstr(api, "edge") ? (uint32_t)EPOLLET : 0) |
           (strstr(api, "oneshot") ? (uint32_t)EPOLLONESHOT : 0);
}

static void watch(int fd, int operation) {
    struct epoll_event event = {.events = epoll_flags(), .data.u64 = strstr(api, "samedata") ? 0 : (uint64_t)fd};
    must(keeping_errno(epoll_ctl(set, operation, fd, &event)) == 0);
}

static int wait_epoll(int timeout) {
    struct epoll_event events[4];
    int count =
        strstr(api, "pwait2")
            ? epoll_pwait2(set, events, 4,
                           timeout < 0 ? NULL : &(struct timespec){timeout / 1000, timeout % 1000 * 1000000L}, NULL)
        : strstr(api, "pwait") ? epoll_pwait(set, events, 4, timeout, &(sigset_t){0})
                               : epoll_wait(set, events, 4, timeout);
    must(count >= 0 && count <= 1);
    if (count == 1) must((events[0].events & EPOLLIN) && !(events[0].events & (EPOLLERR | EPOLLHUP)));
    return count;
}

static int wait_select(int fd, int timeout) {
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fd, &in);
    struct timeval time = {timeout / 1000, timeout % 1000 * 1000};
    struct timespec precise = {timeout / 1000, timeout % 1000 * 1000000L};
    int count = starts("pselect") ? pselect(fd + 1, &in, &out, NULL, timeout < 0 ? NULL : &precise, NULL)
                                  : select(fd + 1, &in, &out, NULL, timeout < 0 ? NULL : &time);
    must(count >= 0 && (count == 1) == (FD_ISSET(fd, &in) != 0));
    return count;
}

static int wait_poll(int fd, int timeout) {
    struct pollfd entries[2] = {{.fd = -1, .events = POLLIN}, {.fd = fd, .events = POLLIN | POLLRDNORM}};
    struct timespec precise = {timeout / 1000, timeout % 1000 * 1000000L};
    int count = starts("ppoll") ? ppoll(entries, 2, timeout < 0 ? NULL : &precise, NULL) : poll(entries, 2, timeout);
    must(count >= 0 && (count == 1) == ((entries[1].revents & POLLIN) != 0) && entries[0].revents == 0);
    return count;
}

static int wait_for(int fd, int timeout) {
    wakeups++;
    if (starts("epoll")) return keeping_errno(wait_epoll(timeout));
    if (starts("poll") || starts("ppoll")) return keeping_errno(wait_poll(fd, timeout));
    must(starts("select") || starts("pselect"));
    return keeping_errno(wait_select(fd, timeout));
}

/* Reads until `end` bytes are there. Level: one piece per wake-up. Edge and one-shot: as the interface demands, until nothing is left. */
static size_t read_up_to(int fd, char *buffer, size_t done, size_t end) {
    bool drain = strstr(api, "edge") != NULL;
    while (done < end) {
        must(wait_for(fd, -1) == 1);
        do {
            ssize_t got = recv(fd, buffer, PIECE, 0);
            if (got < 0) {
                must(errno == EAGAIN && drain);
                break;
            }
            must(got > 0 && holds(buffer, (size_t)got, SEED, done));
            done += (size_t)got;
        } while (drain);
        if (strstr(api, "oneshot")) {
            must(wait_for(fd, 0) == 0);
            watch(fd, EPOLL_CTL_MOD);
        }
    }
    return done;
}

static void consume(uint16_t port) {
    int fd = call_up(port);
    char *buffer = malloc(PIECE);
    size_t done = 0, end = 0;
    must(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
    set = epoll_create1(0);
    if (starts("epoll")) watch(fd, EPOLL_CTL_ADD);
    for (int i = 0; i < PARTS; i++) {
        end += parts[i];
        done = read_up_to(fd, buffer, done, end);
        must(done == end);
        if (!strstr(api, "edge")) must(wait_for(fd, 20) == 0); /* nothing is owed: no wake-up */
        tell(fd);
    }
    must(wait_for(fd, -1) == 1 && recv(fd, buffer, PIECE, 0) == 0);
    say("%s: %zu bytes\n", api, done);
    close(fd);
    must(wakeups < 200);
}

/* What was received before the descriptor came under watch is owed as well. */
static void consume_late(uint16_t port) {
    int fd = call_up(port);
    char *buffer = malloc(PIECE);
    size_t done = 0, end = 0;
    must(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
    for (int i = 0; i < PARTS; i++) {
        end += parts[i];
        if (end > done) {
            must(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1) == 1);
            must(recv(fd, buffer, 1, 0) == 1 && holds(buffer, 1, SEED, done++));
        }
        set = epoll_create1(EPOLL_CLOEXEC);
        watch(fd, EPOLL_CTL_ADD);
        done = read_up_to(fd, buffer, done, end);
        must(i % 2 ? close(set) == 0 : (epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) == 0 && close(set) == 0));
        tell(fd);
    }
    say("%s: %zu bytes\n", api, done);
    close(fd);
}

/* Whoever asks in another way takes nothing away from epoll. */
static void consume_mixed(uint16_t port) {
    int fd = call_up(port), queued = 0;
    char *buffer = malloc(PIECE);
    size_t done = 0, end = 0;
    must(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
    set = epoll_create1(0);
    watch(fd, EPOLL_CTL_ADD);
    for (int i = 0; i < PARTS; i++) {
        end += parts[i];
        if (parts[i] > 0 && i % 3 == 0) must(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1) == 1);
        while (parts[i] > 0 && i % 3 == 1 && queued <= 0) must(ioctl(fd, FIONREAD, &queued) == 0);
        while (parts[i] > 0 && i % 3 == 2 && recv(fd, buffer, 1, MSG_PEEK) != 1) continue;
        done = read_up_to(fd, buffer, done, end);
        tell(fd);
    }
    say("%s: %zu bytes\n", api, done);
    close(fd);
}

static uint64_t arrived(int fd) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    must(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
    return info.tcpi_bytes_received;
}

/* A descriptor in two sets, as of a program whose threads hand connections on: what a look at one of them finds is told to those who wait on the other. */
static void consume_moved(uint16_t port) {
    int fd = call_up(port), home = epoll_create1(0);
    char *buffer = malloc(PIECE);
    size_t done = 0, end = 0;
    uint64_t before = 0;
    must(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
    set = home;
    watch(fd, EPOLL_CTL_ADD);
    for (int i = 0; i < PARTS; i++) {
        set = epoll_create1(0);
        watch(fd, EPOLL_CTL_ADD);
        watch(fd, EPOLL_CTL_MOD);
        while (parts[i] > 0 && arrived(fd) == before) continue;
        wait_for(fd, 0);
        must(close(set) == 0);
        set = home;
        end += parts[i];
        done = read_up_to(fd, buffer, done, end);
        before = arrived(fd);
        tell(fd);
    }
    say("%s: %zu bytes\n", api, done);
    close(fd);
}

static void *nothing(void *argument) {
    return argument;
}

/* In a program that has had several threads: after the last connection is gone, nothing is left in the set that anybody would be told of. */
static void consume_gone(uint16_t port) {
    int fd = call_up(port), quiet[2];
    char *buffer = malloc(PIECE);
    pthread_t thread;
    must(pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0 && pipe(quiet) == 0);
    set = epoll_create1(0);
    watch(fd, EPOLL_CTL_ADD);
    watch(quiet[0], EPOLL_CTL_ADD);
    must(wait_for(fd, -1) == 1 && recv(fd, buffer, 1, 0) == 1);
    tell(fd);
    must(wait_for(fd, -1) == 1 && recv(fd, buffer, PIECE, 0) > 0);
    shutdown(fd, SHUT_WR);
    must(close(fd) == 0 && wait_for(fd, 20) == 0);
    must(write(quiet[1], "!", 1) == 1 && wait_for(fd, -1) == 1);
    say("%s\n", api);
}

/* Waits for two words at most: the client leaves. */
static void serve_briefly(int listener) {
    int fd = answer(listener);
    char *bytes = filled(BRIEF, SEED), byte;
    send_all(fd, bytes, 1);
    await(fd);
    send_all(fd, bytes + 1, BRIEF - 1);
    while (recv(fd, &byte, 1, 0) == 1) continue;
}

int main(int argc, char **argv) {
    must(argc == 2);
    api = argv[1];
    if (strstr(api, "gone")) return perform(serve_briefly, consume_gone);
    if (strstr(api, "moved")) return perform(serve, consume_moved);
    return perform(serve, strstr(api, "late") ? consume_late : strstr(api, "mixed") ? consume_mixed : consume);
}
