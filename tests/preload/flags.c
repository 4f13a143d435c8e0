/* flags.c: options and flags of receiving and sending: flags CASE. */
#include "scene.h"

#include <sys/ioctl.h>
#include <sys/time.h>
#include <time.h>

enum { BODY = 100000, SEED = 17 };

static void send_part(int fd, size_t from, size_t to) {
    char *bytes = malloc(to - from);
    fill(bytes, to - from, SEED, from);
    send_all(fd, bytes, to - from);
    free(bytes);
}

/* False: the client has seen enough. */
static bool asked(int fd) {
    char byte;
    return recv(fd, &byte, 1, 0) == 1;
}

/* Sends in parts, each when it is asked for; the last one in several calls. */
static void serve(int listener) {
    int fd = answer(listener);
    send_part(fd, 0, 10);
    if (!asked(fd)) return;
    send_part(fd, 10, 24);
    if (!asked(fd)) return;
    send_part(fd, 24, BODY);
    if (!asked(fd)) return;
    for (size_t at = 0; at < BODY; at += BODY / 5) send_part(fd, at, at + BODY / 5);
    await_end(fd);
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void receive_timeout(int fd) {
    char bytes[64];
    struct timeval patience = {0, 100000};
    must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    must(recv(fd, bytes, 10, MSG_WAITALL) == 10);
    int64_t before = now_ms();
    must(recv(fd, bytes, 10, 0) == -1 && errno == EAGAIN);
    must(now_ms() - before >= 90 && now_ms() - before < 3000);
    tell(fd);
    must(recv(fd, bytes, 20, MSG_WAITALL) == 14); /* all that comes in time */
    tell(fd);
    char *body = malloc(BODY);
    must(recv(fd, body, BODY, MSG_WAITALL) == BODY - 24 && holds(body, BODY - 24, SEED, 24));
    say("receive timeout\n");
    tell(fd);
    must(recv(fd, body, BODY, MSG_WAITALL) == BODY && holds(body, BODY, SEED, 0));
}

/* A program that looks ahead until a whole header is there. */
static void peek_until_complete(int fd) {
    char bytes[64];
    ssize_t got;
    must(recv(fd, bytes, sizeof bytes, MSG_PEEK) == 10);
    tell(fd);
    do got = recv(fd, bytes, sizeof bytes, MSG_PEEK);
    while (got == 10);
    must(got == 24 && holds(bytes, 24, SEED, 0));
    say("peeked %zd\n", got);
    must(recv(fd, bytes, 24, 0) == 24);
    tell(fd);
    char *body = malloc(BODY);
    recv_all(fd, body, BODY - 24);
    must(holds(body, BODY - 24, SEED, 24));
}

static void count_until_complete(int fd) {
    int queued = 0;
    tell(fd);
    while (queued < 24) must(keeping_errno(ioctl(fd, FIONREAD, &queued)) == 0);
    must(queued == 24);
    say("counted %d\n", queued);
    char bytes[64];
    must(recv(fd, bytes, sizeof bytes, 0) == 24);
    must(ioctl(fd, FIONREAD, &queued) == 0 && queued == 0);
    tell(fd);
    char *body = malloc(BODY);
    recv_all(fd, body, 50000);
    must(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1) == 1 && ioctl(fd, FIONREAD, &queued) == 0 &&
         queued > 0);
    recv_all(fd, body, (size_t)queued);
    must(holds(body, (size_t)queued, SEED, 50024));
}

static void wait_for_all_parts(int fd) {
    char head[24], *body = malloc(BODY);
    must(recv(fd, head, 10, MSG_WAITALL) == 10);
    tell(fd);
    tell(fd);
    struct iovec parts[3] = {{head, 14}, {body, 33333}, {body + 33333, BODY - 24 - 33333}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    ssize_t got = recvmsg(fd, &message, MSG_WAITALL);
    say("whole message %zd\n", got);
    must(got == BODY - 10 && holds(head, 14, SEED, 10) && holds(body, BODY - 24, SEED, 24));
    tell(fd);
    must(recv(fd, body, BODY, MSG_WAITALL) == BODY && holds(body, BODY, SEED, 0));
}

static void without_waiting(int fd) {
    char bytes[64];
    must(recv(fd, bytes, 10, MSG_WAITALL) == 10);
    must(recv(fd, bytes, 10, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    must(recv(fd, bytes, 10, MSG_DONTWAIT | MSG_WAITALL) == -1 && errno == EAGAIN);
    must(recv(fd, bytes, 10, MSG_DONTWAIT | MSG_PEEK) == -1 && errno == EAGAIN);
    must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && read(fd, bytes, 10) == -1 && errno == EAGAIN &&
         fcntl(fd, F_SETFL, 0) == 0);
    must(send(fd, bytes, 0, 0) == 0);
    say("no waiting\n");
    tell(fd);
    recv_all(fd, bytes, 14);
    must(holds(bytes, 14, SEED, 10));
}

/* recv into nothing with MSG_TRUNC throws bytes of a stream away. */
static void thrown_away(int fd) {
    must(recv(fd, NULL, 10, MSG_TRUNC | MSG_WAITALL) == 10);
    tell(fd);
    must(recv(fd, NULL, 14, MSG_TRUNC | MSG_WAITALL) == 14);
    tell(fd);
    char *body = malloc(BODY);
    for (size_t done = 0; done < 40000;) {
        ssize_t got = recv(fd, NULL, 40000 - done, MSG_TRUNC);
        must(got > 0);
        done += (size_t)got;
    }
    recv_all(fd, body, BODY - 40024);
    must(holds(body, BODY - 40024, SEED, 40024));
    say("thrown away\n");
}

static void bad_source(int fd) {
    must(send(fd, (void *)8, 100000, 0) == -1 && errno == EFAULT);
    must(send(fd, (void *)8, 100, 0) == -1 && errno == EFAULT);
    say("bad source refused\n");
}

static const struct {
    const char *name;
    void (*run)(int fd);
} cases[] = {{"receive_timeout", receive_timeout},
             {"peek_until_complete", peek_until_complete},
             {"count_until_complete", count_until_complete},
             {"wait_for_all_parts", wait_for_all_parts},
             {"without_waiting", without_waiting},
             {"thrown_away", thrown_away},
             {"bad_source", bad_source}};

static const char *chosen;

static void consume(uint16_t port) {
    int fd = call_up(port);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(chosen, cases[i].name) == 0) cases[i].run(fd);
    must(scene.used > 0);
    close(fd);
}

int main(int argc, char **argv) {
    must(argc == 2);
    chosen = argv[1];
    return perform(serve, consume);
}
