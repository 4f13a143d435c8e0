/* hazards.c: clients that go away at any offset, buffers that change right after they were sent, calls that signals interrupt: hazards CASE. */
#include "scene.h"

#include <sys/ioctl.h>
#include <sys/time.h>

enum { SIZE = 3 * 4096 + 500, SEED = 41, ROUNDS = 60, LARGE = 45000 };

/* Sends SIZE bytes to every client, whatever becomes of it, until one that begins with 'q'. Nothing of this may end the server. */
static void serve_deserters(int listener) {
    char *bytes = filled(SIZE, SEED), first = '!';
    int served = 0;
    while (first == '!') {
        char byte;
        int fd = accept(listener, NULL, NULL);
        must(fd >= 0 && recv(fd, &first, 1, 0) == 1);
        for (ssize_t done = 0, put = 1; first == '!' && put > 0 && done < SIZE; done += put)
            put = send(fd, bytes + done, (size_t)(SIZE - done), MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        ssize_t end = recv(fd, &byte, 1, 0);
        must(end == 0 || (end < 0 && errno == ECONNRESET));
        must(close(fd) == 0);
        served++;
    }
    free(bytes);
    say("%d clients served\n", served);
}

/* How many bytes the client takes; `reset` makes its end a reset. */
static void desert(uint16_t port, size_t after, bool reset) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    int fd = call_up(port);
    char *bytes = malloc(SIZE);
    recv_all(fd, bytes, after);
    must(holds(bytes, after, SEED, 0));
    if (reset) must(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    must(close(fd) == 0);
    must(holds(bytes, after, SEED, 0)); /* what was received stays, connection or not */
    free(bytes);
}

static void abort_everywhere(uint16_t port) {
    int deserters = 0;
    for (size_t after = 0; after <= SIZE; after++) {
        size_t in_page = after % PAGE;
        if (after > 40 && in_page > 2 && in_page < PAGE - 2 && after < SIZE - 2 && after % 23 != 0) continue;
        desert(port, after, deserters++ % 2);
    }
    int fd = call_up(port);
    char *bytes = malloc(SIZE), byte;
    recv_all(fd, bytes, SIZE);
    must(holds(bytes, SIZE, SEED, 0) && recv(fd, &byte, 1, 0) == 0 && close(fd) == 0);
    fd = connect_to(port);
    must(send(fd, "q", 1, 0) == 1 && recv(fd, &byte, 1, 0) == 0 && close(fd) == 0);
    say("%d clients went away\n", deserters);
}

/* Sends each round from the same buffer, which holds something else as soon as the call returns. */
static void serve_from_one_buffer(int listener) {
    int fd = answer(listener);
    char *buffer = malloc(LARGE);
    for (int round = 0; round < ROUNDS; round++) {
        size_t offset = (size_t)round * 37 % 4096, length = LARGE - offset;
        fill(buffer + offset, length, (uint64_t)round, 0);
        for (size_t done = 0; done < length;) {
            struct iovec halves[2] = {
                {buffer + offset + done, (length - done) / 2},
                {buffer + offset + done + (length - done) / 2, length - done - (length - done) / 2}};
            ssize_t put =
                round % 3 == 0 ? writev(fd, halves, 2) : send(fd, buffer + offset + done, length - done, MSG_NOSIGNAL);
            must(put > 0);
            memset(buffer + offset + done, 0xee, (size_t)put);
            done += (size_t)put;
        }
        if (round % 5 == 4) {
            free(buffer);
            must((buffer = malloc(LARGE)) != NULL);
        }
    }
    await_end(fd);
    close(fd);
    free(buffer);
}

static void receive_rounds(uint16_t port) {
    int fd = call_up(port);
    char *bytes = malloc(LARGE);
    for (int round = 0; round < ROUNDS; round++) {
        size_t length = LARGE - (size_t)round * 37 % 4096;
        recv_all(fd, bytes, length);
        must(holds(bytes, length, (uint64_t)round, 0));
    }
    must(close(fd) == 0);
    free(bytes);
    say("%d rounds\n", ROUNDS);
}

/* The source and the sink of what the client passes on. */
static void serve_both_ends(int listener) {
    int source = answer(listener), sink = answer(listener);
    char *bytes = malloc(LARGE);
    for (int round = 0; round < ROUNDS; round++) {
        send_content(source, LARGE, (uint64_t)round);
        recv_all(sink, bytes, LARGE);
        must(holds(bytes, LARGE, (uint64_t)round, 0));
        tell(sink);
    }
    free(bytes);
    close(source);
    await_end(sink);
    close(sink);
}

/* What happens to the buffer between being sent and being received into again. */
static void spoil(char **buffer, int round) {
    if (round % 4 == 0) memset(*buffer, 0xee, LARGE);
    if (round % 4 == 1) (*buffer)[PAGE + 5] = 'x';
    if (round % 4 == 2) {
        free(*buffer);
        must((*buffer = malloc(LARGE)) != NULL);
        memset(*buffer, 0xdd, LARGE);
    }
}

static void pass_on(uint16_t port) {
    int source = call_up(port), sink = call_up(port);
    char *buffer = malloc(LARGE);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t done = 0; done < LARGE;) {
            ssize_t got = recv(source, buffer + done, LARGE - done, 0);
            must(got > 0);
            send_all(sink, buffer + done, (size_t)got);
            if (round % 8 == 7) memset(buffer + done, 0xcc, (size_t)got);
            done += (size_t)got;
        }
        spoil(&buffer, round);
        await(sink);
    }
    must(close(source) == 0 && close(sink) == 0);
    free(buffer);
    say("%d bodies passed on\n", ROUNDS);
}

static bool is_readable(const char *page) {
    char line[512], access[5];
    unsigned long start, end;
    bool is = false;
    FILE *maps = fopen("/proc/self/maps", "r");
    must(maps);
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %4s", &start, &end, access) == 3 && start <= (uintptr_t)page && (uintptr_t)page < end)
            is = access[0] == 'r';
    fclose(maps);
    return is;
}

static void serve_once(int listener) {
    int fd = answer(listener);
    send_content(fd, LARGE, SEED);
    await_end(fd);
    close(fd);
}

/* Nobody touches what was received, but it is not left at its origin for ever. */
static void keep(uint16_t port) {
    int fd = call_up(port);
    char *bytes = malloc(LARGE);
    recv_all(fd, bytes, LARGE);
    const char *inside = bytes + LARGE / 2;
    while (!is_readable(inside)) must(poll(NULL, 0, 20) == 0);
    must(holds(bytes, LARGE, SEED, 0) && close(fd) == 0);
    free(bytes);
    say("kept\n");
}

static _Atomic long ticks;

static void tick(int number) {
    (void)number;
    ticks++;
}

/* With SA_RESTART a signal may cut a transfer short, but no call fails with EINTR. Handlers of crashes, which come without, change nothing about that. */
static void start_ticking(void) {
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART}, crash = {.sa_handler = tick};
    struct itimerval often = {.it_interval = {.tv_usec = 200}, .it_value = {.tv_usec = 200}};
    must(sigaction(SIGPROF, &action, NULL) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    must(sigaction(SIGFPE, &crash, NULL) == 0 && sigaction(SIGBUS, &crash, NULL) == 0);
    must(setitimer(ITIMER_REAL, &often, NULL) == 0);
}

static void stop_ticking(void) {
    must(setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL) == 0);
}

static void serve_interrupted(int listener) {
    int fd = answer(listener), size = 20000;
    must(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    start_ticking();
    for (int round = 0; round < 6 * ROUNDS; round++) {
        size_t length = round % 3 == 0 ? LARGE : 4000;
        send_content(fd, length, (uint64_t)round);
    }
    await(fd);
    stop_ticking();
    close(fd);
}

/* Takes every second piece late, so that the server has to wait for room. */
static void receive_interrupted(uint16_t port) {
    int fd = call_up(port), queued = 0;
    char *bytes = malloc(LARGE);
    start_ticking();
    for (int round = 0; round < 6 * ROUNDS; round++) {
        size_t length = round % 3 == 0 ? LARGE : 4000;
        for (long until = ticks + 5; round % 2 == 1 && ticks < until;) must(ioctl(fd, FIONREAD, &queued) == 0);
        recv_all(fd, bytes, length);
        must(holds(bytes, length, (uint64_t)round, 0));
    }
    tell(fd);
    await_end(fd);
    stop_ticking();
    must(close(fd) == 0);
    free(bytes);
    say("%d rounds under signals\n", 6 * ROUNDS);
}

static const struct {
    const char *name;
    void (*server)(int listener);
    void (*client)(uint16_t port);
} cases[] = {{"abort", serve_deserters, abort_everywhere},
             {"reuse_after_send", serve_from_one_buffer, receive_rounds},
             {"reuse_after_passing", serve_both_ends, pass_on},
             {"keep", serve_once, keep},
             {"interrupted", serve_interrupted, receive_interrupted}};

int main(int argc, char **argv) {
    must(argc == 2);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argv[1], cases[i].name) == 0) return perform(cases[i].server, cases[i].client);
    return 2;
}
