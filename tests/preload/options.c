/* options.c: socket options and flags whose meaning on a stream the library has to imitate or refuse: options CASE. */
#include "scene.h"

#include <linux/tcp.h>
#include <sys/epoll.h>

enum { BODY = 200000, SEED = 31 };

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif

/* Sends 10 bytes, 20 more when asked, and the body when asked again. */
static void serve(int listener) {
    char *bytes = filled(BODY, SEED), byte;
    for (int fd; (fd = answer(listener)) >= 0; close(fd)) {
        send_all(fd, bytes, 10);
        if (recv(fd, &byte, 1, 0) != 1) continue;
        if (byte == 'q') {
            close(fd);
            break;
        }
        send_all(fd, bytes + 10, 20);
        if (recv(fd, &byte, 1, 0) != 1) continue;
        send_all(fd, bytes + 30, BODY - 30);
        while (recv(fd, &byte, 1, 0) == 1) continue;
    }
}

static uint16_t port;

static int get(int fd, int level, int option) {
    int value = 0;
    socklen_t length = sizeof value;
    must(keeping_errno(getsockopt(fd, level, option, &value, &length)) == 0 && length == sizeof value);
    return value;
}

static int set(int fd, int level, int option, int value) {
    return keeping_errno(setsockopt(fd, level, option, &value, sizeof value));
}

static bool readable(int fd, int milliseconds) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    return poll(&entry, 1, milliseconds) == 1 && (entry.revents & POLLIN);
}

/* A mark on a connected socket, and readiness by poll, select and epoll. */
static void low_water_mark_of_readiness(void) {
    int fd = call_up(port), poller = epoll_create1(0);
    char bytes[64], *body = malloc(BODY);
    struct epoll_event event = {.events = EPOLLIN};
    must(get(fd, SOL_SOCKET, SO_RCVLOWAT) == 1);
    must(readable(fd, -1));
    must(set(fd, SOL_SOCKET, SO_RCVLOWAT, 25) == 0 && get(fd, SOL_SOCKET, SO_RCVLOWAT) == 25);
    must(!readable(fd, 0) && epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) == 0 &&
         epoll_wait(poller, &event, 1, 50) == 0);
    must(recv(fd, bytes, 4, MSG_DONTWAIT) == 4); /* who does not wait takes what there is */
    tell(fd);
    must(epoll_wait(poller, &event, 1, -1) == 1 && readable(fd, -1));
    must(recv(fd, bytes + 4, 26, MSG_DONTWAIT) == 26 && holds(bytes, 30, SEED, 0));
    tell(fd);
    for (size_t done = 30; done < BODY;) {
        must(done > BODY - 25 || readable(fd, -1));
        ssize_t got = recv(fd, body, BODY, 0);
        must(got > 0 && holds(body, (size_t)got, SEED, done));
        done += (size_t)got;
    }
    must(shutdown(fd, SHUT_WR) == 0 && readable(fd, -1) && recv(fd, bytes, 1, 0) == 0); /* the end always counts */
    say("low water\n");
    close(fd);
}

/* A mark that was set before the connection, and receives that wait for it. */
static void low_water_mark_of_waiting(void) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char bytes[64];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(set(fd, SOL_SOCKET, SO_RCVLOWAT, 30) == 0);
    must(connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && get(fd, SOL_SOCKET, SO_RCVLOWAT) == 30);
    must(send(fd, "!!", 2, 0) == 2);
    ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    say("waited for %zd\n", got);
    must(got == 30 && holds(bytes, 30, SEED, 0));
    tell(fd);
    must(recv(fd, bytes, 5, 0) == 5 && holds(bytes, 5, SEED, 30)); /* no more than fits */
    close(fd);
}

static void error_is_told_once(void) {
    int fd = call_up(port);
    must(readable(fd, -1) && get(fd, SOL_SOCKET, SO_ERROR) == 0);
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    must(connect(fd, &nowhere, sizeof nowhere) == 0); /* dissolves the connection */
    close(fd);
    struct sockaddr_in closed = {
        .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    must(connect(fd, (struct sockaddr *)&closed, sizeof closed) == -1);
    int error = errno;
    if (error == EINPROGRESS) {
        struct pollfd entry = {.fd = fd, .events = POLLOUT};
        must(poll(&entry, 1, -1) == 1);
        error = get(fd, SOL_SOCKET, SO_ERROR);
    }
    say("error %d, then %d\n", error, get(fd, SOL_SOCKET, SO_ERROR));
    close(fd);
}

/* One byte beside the others. */
static void urgent_byte(void) {
    uint16_t other;
    int listener = listen_on_loopback(&other), to = connect_to(other), from = accept(listener, NULL, NULL);
    char bytes[64];
    must(send(to, "ab", 2, 0) == 2 && send(to, "cdU", 3, MSG_OOB) == 3);
    struct pollfd entry = {.fd = from, .events = POLLPRI};
    must(poll(&entry, 1, -1) == 1 && entry.revents == POLLPRI);
    must(recv(from, bytes, 1, MSG_OOB) == 1 && bytes[0] == 'U');
    must(send(to, "ef", 2, 0) == 2);
    for (size_t done = 0; done < 6;) {
        ssize_t got = recv(from, bytes + done, sizeof bytes - done, 0);
        must(got > 0);
        done += (size_t)got;
    }
    must(memcmp(bytes, "abcdef", 6) == 0);
    must(recv(from, bytes, 1, MSG_OOB) == -1 && errno == EINVAL);
    must(recv(from, bytes, 1, MSG_ERRQUEUE | MSG_DONTWAIT) == -1 && errno == EAGAIN);
    say("urgent\n");
}

/* With completion notices or without: the bytes arrive, and who was told that there are notices gets them. */
static void zero_copy(void) {
    uint16_t other;
    int listener = listen_on_loopback(&other);
    for (int early = 0; early < 2; early++) {
        struct sockaddr_in address = {
            .sin_family = AF_INET, .sin_port = htons(other), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int to = socket(AF_INET, SOCK_STREAM, 0), granted = -1;
        if (early) granted = set(to, SOL_SOCKET, SO_ZEROCOPY, 1);
        must(connect(to, (struct sockaddr *)&address, sizeof address) == 0);
        if (!early) granted = set(to, SOL_SOCKET, SO_ZEROCOPY, 1);
        must(granted == 0 || (!early && errno == ENOPROTOOPT));
        int from = accept(listener, NULL, NULL);
        char *bytes = filled(BODY, SEED), *body = malloc(BODY), control[256];
        must(send(to, bytes, 50000, granted == 0 ? MSG_ZEROCOPY : 0) == 50000);
        recv_all(from, body, 50000);
        must(holds(body, 50000, SEED, 0));
        struct msghdr notice = {.msg_control = control, .msg_controllen = sizeof control};
        struct pollfd entry = {.fd = to};
        if (granted == 0) must(poll(&entry, 1, -1) == 1 && recvmsg(to, &notice, MSG_ERRQUEUE) == 0);
        close(to);
        close(from);
    }
    say("zero copy\n");
}

static void kernel_tls_is_declined(void) {
    int fd = call_up(port);
    must(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "odb", 3) == -1 && errno == ENOENT); /* no kernel has that one */
    say("no such protocol\n");
    close(fd);
}

/* What comes out of a socket that speaks first is seen by whoever polls before it has said anything itself. */
static void greeting_is_seen(void) {
    uint16_t other;
    int listener = listen_on_loopback(&other), from = connect_to(other), to = accept(listener, NULL, NULL);
    char bytes[16];
    must(send(to, "hello", 5, 0) == 5);
    must(readable(from, -1) && recv(from, bytes, sizeof bytes, 0) == 5);
    must(!readable(from, 0) && send(to, "again", 5, 0) == 5);
    must(readable(from, -1) && recv(from, bytes, 2, 0) == 2 && readable(from, 0) && recv(from, bytes, 9, 0) == 3);
    must(send(from, "thanks", 6, 0) == 6 && readable(to, -1) && recv(to, bytes, sizeof bytes, 0) == 6);
    must(memcmp(bytes, "thanks", 6) == 0);
    must(send(to, "bye", 3, 0) == 3 && readable(from, -1) && recv(from, bytes, 9, 0) == 3);
    say("greeted\n");
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {{"low_water_mark_of_readiness", low_water_mark_of_readiness},
             {"low_water_mark_of_waiting", low_water_mark_of_waiting},
             {"error_is_told_once", error_is_told_once},
             {"urgent_byte", urgent_byte},
             {"zero_copy", zero_copy},
             {"kernel_tls_is_declined", kernel_tls_is_declined},
             {"greeting_is_seen", greeting_is_seen}};

static const char *chosen;

static void consume(uint16_t number) {
    port = number;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(chosen, cases[i].name) == 0) cases[i].run();
    must(scene.used > 0);
    int fd = call_up(port);
    must(send(fd, "q", 1, 0) == 1);
    while (recv(fd, &(char){0}, 1, 0) == 1) continue;
}

int main(int argc, char **argv) {
    must(argc == 2);
    chosen = argv[1];
    return perform(serve, consume);
}
