/* dialogue.c: who speaks first, who ends first, and what the bytes look like: dialogue CASE. */
#include "scene.h"

enum { SIZE = 100000, SEED = 29 };

/* What a frame of the protocol begins with, to be found in payloads. */
static const uint8_t magic[] = {0x9d, 0x0b, 0x10, 0x00, 0x10, 0x00, 0x00, 0x00,
                                0xc5, 0x7e, 0x1b, 0x93, 0xaf, 0x60, 0xd2, 0x48};

static int take(int listener) {
    int fd = accept(listener, NULL, NULL);
    must(fd >= 0);
    return fd;
}

static void expect(int fd, size_t length, uint64_t seed) {
    char *bytes = malloc(length);
    recv_all(fd, bytes, length);
    must(holds(bytes, length, seed, 0));
    free(bytes);
}

/* A greeting before anything is asked, then bodies in both directions. */
static void greeting_server(int listener) {
    int fd = take(listener);
    send_all(fd, "220 hello\r\n", 11);
    expect(fd, SIZE, SEED);
    send_content(fd, SIZE, SEED + 1);
    shutdown(fd, SHUT_WR);
    await_end(fd);
}

static void greeting_client(uint16_t port) {
    char line[11];
    int fd = connect_to(port);
    recv_all(fd, line, sizeof line);
    must(memcmp(line, "220 hello\r\n", 11) == 0);
    send_content(fd, SIZE, SEED);
    expect(fd, SIZE, SEED + 1);
    await_end(fd);
    close(fd);
}

/* A body before anything is asked. */
static void unasked_server(int listener) {
    int fd = take(listener);
    send_content(fd, SIZE, SEED);
    shutdown(fd, SHUT_WR);
    await_end(fd);
}

static void unasked_client(uint16_t port) {
    int fd = connect_to(port);
    expect(fd, SIZE, SEED);
    await_end(fd);
    close(fd);
}

/* The client has said everything before it reads. */
static void half_closed_client_server(int listener) {
    int fd = take(listener);
    expect(fd, SIZE, SEED);
    await_end(fd);
    send_content(fd, SIZE, SEED + 1);
    close(fd);
}

static void half_closed_client(uint16_t port) {
    int fd = connect_to(port);
    send_content(fd, SIZE, SEED);
    must(shutdown(fd, SHUT_WR) == 0);
    must(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    expect(fd, SIZE, SEED + 1);
    await_end(fd);
    close(fd);
}

static void half_closed_server_server(int listener) {
    int fd = answer(listener);
    send_content(fd, SIZE, SEED);
    must(shutdown(fd, SHUT_WR) == 0);
    expect(fd, SIZE, SEED + 1);
    await_end(fd);
    close(fd);
}

static void half_closed_server(uint16_t port) {
    int fd = call_up(port);
    expect(fd, SIZE, SEED);
    await_end(fd);
    send_content(fd, SIZE, SEED + 1);
    must(shutdown(fd, SHUT_RDWR) == 0);
    await_end(fd);
    must(shutdown(fd, SHUT_RDWR) == 0 || errno == ENOTCONN);
    close(fd);
}

/* Nothing at all is said. */
static void silent_server(int listener) {
    int fd = take(listener);
    await_end(fd);
    close(fd);
    fd = take(listener);
    must(shutdown(fd, SHUT_WR) == 0);
    await_end(fd);
    close(fd);
}

static void silent_client(uint16_t port) {
    int fd = connect_to(port);
    must(shutdown(fd, SHUT_WR) == 0);
    await_end(fd);
    close(fd);
    fd = connect_to(port);
    await_end(fd);
    close(fd);
}

/* One byte, one packet; then a body. */
static void slow_server(int listener) {
    int fd = take(listener);
    uint8_t byte;
    for (size_t i = 0; i < 200; i++)
        must(recv(fd, &byte, 1, 0) == 1 && byte == content(SEED, i) && send(fd, &byte, 1, 0) == 1);
    send_content(fd, SIZE, SEED);
    await_end(fd);
}

static void slow_client(uint16_t port) {
    int fd = connect_to(port);
    uint8_t byte;
    for (size_t i = 0; i < 200; i++) {
        uint8_t out = content(SEED, i);
        must(send(fd, &out, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1 && byte == out);
    }
    expect(fd, SIZE, SEED);
    close(fd);
}

static char *magical(size_t length) {
    char *bytes = malloc(length);
    for (size_t i = 0; i < length; i++) bytes[i] = (char)magic[i % sizeof magic];
    return bytes;
}

static void expect_magic(int fd, size_t length) {
    char *wanted = magical(length), *bytes = malloc(length);
    recv_all(fd, bytes, length);
    must(memcmp(wanted, bytes, length) == 0);
    free(wanted);
    free(bytes);
}

/* Content that looks like frames, in small parts and large ones, and a client whose first bytes nearly look like it. */
static void magic_server(int listener) {
    int fd = take(listener);
    expect_magic(fd, 15);
    char *bytes = magical(SIZE);
    tell(fd);
    for (size_t length = 1; length < 64; length++) send_all(fd, bytes, length);
    send_all(fd, bytes, SIZE);
    expect_magic(fd, SIZE);
    await_end(fd);
}

static void magic_client(uint16_t port) {
    int fd = connect_to(port);
    char *bytes = magical(SIZE);
    send_all(fd, bytes, 15);
    await(fd);
    for (size_t length = 1; length < 64; length++) expect_magic(fd, length);
    expect_magic(fd, SIZE);
    send_all(fd, bytes, SIZE);
    close(fd);
}

/* Both sides write more than the sockets hold before either reads; each has a process of its own for that. */
static void both_ways(int fd, uint64_t out, uint64_t in) {
    enum { LARGE = 3000001 };
    pid_t writer = fork();
    int status;
    if (writer == 0) {
        send_content(fd, LARGE, out);
        exit(0);
    }
    expect(fd, LARGE, in);
    must(waitpid(writer, &status, 0) == writer && status == 0);
}

static void crossing_server(int listener) {
    int fd = answer(listener);
    tell(fd);
    both_ways(fd, SEED, SEED + 1);
    shutdown(fd, SHUT_WR);
    await_end(fd);
}

static void crossing_client(uint16_t port) {
    int fd = call_up(port);
    await(fd);
    both_ways(fd, SEED + 1, SEED);
    shutdown(fd, SHUT_WR);
    await_end(fd);
}

/* More is written than anybody takes: a non-blocking writer is refused, and told when there is room again. The reader begins when the writer has been refused. */
enum { FULL = 20000000, BLOCK = 5000 };

static int refusal[2]; /* a pipe */

static void full_server(int listener) {
    int fd = answer(listener);
    char *bytes = filled(FULL, SEED);
    size_t done = 0, refused = 0;
    must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    while (done < FULL) {
        ssize_t put = send(fd, bytes + done, FULL - done < BLOCK ? FULL - done : BLOCK, 0);
        done += put > 0 ? (size_t)put : 0;
        if (put > 0) continue;
        must(put < 0 && errno == EAGAIN);
        if (refused++ == 0) must(write(refusal[1], "!", 1) == 1);
        must(poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1) == 1);
    }
    must(refused > 0 && shutdown(fd, SHUT_WR) == 0 && fcntl(fd, F_SETFL, 0) == 0);
    await_end(fd);
}

static void full_client(uint16_t port) {
    char byte;
    int fd = call_up(port);
    must(read(refusal[0], &byte, 1) == 1);
    expect(fd, FULL, SEED);
    await_end(fd);
    close(fd);
}

static const struct {
    const char *name;
    void (*server)(int listener);
    void (*client)(uint16_t port);
} cases[] = {{"greeting", greeting_server, greeting_client},
             {"unasked", unasked_server, unasked_client},
             {"half_closed_client", half_closed_client_server, half_closed_client},
             {"half_closed_server", half_closed_server_server, half_closed_server},
             {"silent", silent_server, silent_client},
             {"slow", slow_server, slow_client},
             {"magic", magic_server, magic_client},
             {"crossing", crossing_server, crossing_client},
             {"full", full_server, full_client}};

static size_t chosen;

static void client(uint16_t port) {
    cases[chosen].client(port);
    say("%s: all is said\n", cases[chosen].name);
}

/* More than a small stack holds: every thread of this program, the library's too, needs a large one. */
static _Thread_local volatile char large[1 << 20];

int main(int argc, char **argv) {
    large[argc] = 1;
    must(argc == 2 && pipe2(refusal, O_CLOEXEC) == 0);
    for (chosen = 0; chosen < sizeof cases / sizeof cases[0]; chosen++)
        if (strcmp(argv[1], cases[chosen].name) == 0) return perform(cases[chosen].server, client);
    return 2;
}
