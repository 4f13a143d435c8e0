/* fortified.c: the names that a hardened build calls instead of read, recv, recvfrom, pread, poll, ppoll and fread. */
#undef _FORTIFY_SOURCE
#define _FORTIFY_SOURCE 2
#include "scene.h"

enum { BODY = 200000, SEED = 5 };

static volatile size_t chunk = 16384;

static void serve(int listener) {
    int fd = answer(listener);
    send_content(fd, BODY, SEED);
    shutdown(fd, SHUT_WR);
    await_end(fd);
}

static size_t by_turns(int fd, unsigned turn, size_t done) {
    static char still[16384];
    struct pollfd ready[1] = {{.fd = fd, .events = POLLIN}};
    volatile nfds_t one = 1;
    char *heap = malloc(16384);
    ssize_t got;
    must((turn % 2 ? poll(ready, one, -1) : ppoll(ready, one, NULL, NULL)) == 1);
    if (turn % 3 == 0) {
        got = keeping_errno(read(fd, still, chunk));
        must(got >= 0 && holds(still, (size_t)got, SEED, done));
    } else if (turn % 3 == 1) {
        char stack[16384];
        got = keeping_errno(recv(fd, stack, chunk, 0));
        must(got >= 0 && holds(stack, (size_t)got, SEED, done));
    } else {
        got = keeping_errno(recvfrom(fd, heap, chunk, 0, NULL, NULL));
        must(got >= 0 && holds(heap, (size_t)got, SEED, done));
    }
    free(heap);
    return (size_t)got;
}

/* The kernel and stdio write into memory that a window covers. */
static void into_a_window(uint16_t port) {
    int fd = call_up(port), file = file_of(BODY, SEED + 1);
    char *window = malloc(16384);
    recv_all(fd, window, 16384);
    must(pread(file, window, chunk - 6000, 77) == 10384);
    must(holds(window, 10384, SEED + 1, 77) && holds(window + 10384, 6000, SEED, 10384));
    recv_all(fd, window, 16384);
    FILE *stream = fdopen(file, "r");
    must(stream && fread(window, 1, chunk, stream) == 16384 && holds(window, 16384, SEED + 1, 0));
    close(fd);
}

static void consume(uint16_t port) {
    int fd = call_up(port);
    size_t done = 0, got;
    unsigned turn = 0;
    while ((got = by_turns(fd, turn++, done)) > 0) done += got;
    say("received %zu\n", done);
    close(fd);
    into_a_window(port);
    say("windows overwritten\n");
}

static void serve_twice(int listener) {
    serve(listener);
    int fd = answer(listener);
    send_content(fd, 32768, SEED);
    await_end(fd);
}

int main(void) {
    return perform(serve_twice, consume);
}
