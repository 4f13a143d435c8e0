/* scene.h: what the programs of this directory share: two roles in two processes over loopback, a content that can be checked at any offset, and one report.
 *
 * A program prints its report and then the line "end", and waits for the end of its standard input with every role still alive, so that whoever started it can look at
 * the processes. The report depends on nothing but the behaviour of the calls: two runs of a program print the same.
 */
#ifndef SCENE_H
#define SCENE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define PAGE ((size_t)4096)
#ifdef __SANITIZE_THREAD__ /* which makes everything slower, and is not the only one at work */
enum { PATIENCE = 60 };
#else
enum { PATIENCE = 15 };
#endif
enum { ERRNO_BEFORE = 4711 };

static struct {
    const char *role;
    pid_t partner; /* the server, for the client */
    int report;    /* where the server's report goes */
    size_t used;
    char text[1 << 16];
} scene = {.role = "program", .report = -1};

static inline __attribute__((format(printf, 1, 2))) void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int made = vsnprintf(scene.text + scene.used, sizeof scene.text - scene.used, format, arguments);
    va_end(arguments);
    scene.used += made > 0 ? (size_t)made : 0;
}

static inline __attribute__((noreturn)) void give_up(const char *what, int line) {
    dprintf(STDERR_FILENO, "%s, line %d: not so: %s (errno %d, %s)\n%.*s", scene.role, line, what, errno,
            strerror(errno), (int)scene.used, scene.text);
    if (scene.partner > 0) kill(scene.partner, SIGKILL);
    _exit(1);
}

#define must(condition) ((condition) ? (void)0 : give_up(#condition, __LINE__))

/* A call that succeeds leaves errno alone. */
#define keeping_errno(call)                                                                                            \
    ({                                                                                                                 \
        errno = ERRNO_BEFORE;                                                                                          \
        __auto_type kept_result = (call);                                                                              \
        must(kept_result < 0 || errno == ERRNO_BEFORE);                                                                \
        kept_result;                                                                                                   \
    })

/* Out of a handler. A sanitizer that only watches the library is told, as instrumented programs tell it, that the frames which are jumped over are gone. */
void __asan_handle_no_return(void) __attribute__((weak));
static inline UNUSED __attribute__((noreturn)) void jump_back(sigjmp_buf back) {
    if (__asan_handle_no_return) __asan_handle_no_return();
    siglongjmp(back, 1);
}

/* Content: the byte at an offset of stream `seed`. */
static inline uint8_t content(uint64_t seed, size_t offset) {
    return (uint8_t)(((uint64_t)offset + seed * 1000003 + 1) * 0x9e3779b97f4a7c15u >> 56);
}

static inline UNUSED void fill(void *to, size_t length, uint64_t seed, size_t offset) {
    for (size_t i = 0; i < length; i++) ((uint8_t *)to)[i] = content(seed, offset + i);
}

static inline UNUSED bool holds(const void *memory, size_t length, uint64_t seed, size_t offset) {
    for (size_t i = 0; i < length; i++)
        if (((const volatile uint8_t *)memory)[i] != content(seed, offset + i)) {
            dprintf(STDERR_FILENO, "%s: wrong byte at %zu of %zu (content offset %zu)\n", scene.role, i, length,
                    offset + i);
            return false;
        }
    return true;
}

static inline UNUSED void *filled(size_t length, uint64_t seed) {
    void *memory = malloc(length);
    must(memory != NULL);
    fill(memory, length, seed, 0);
    return memory;
}

static inline UNUSED int file_of(size_t length, uint64_t seed) {
    char name[] = "/tmp/scene-XXXXXX";
    int fd = mkstemp(name);
    must(fd >= 0 && unlink(name) == 0);
    char *bytes = filled(length, seed);
    for (size_t done = 0; done < length;) {
        ssize_t put = write(fd, bytes + done, length - done);
        must(put > 0);
        done += (size_t)put;
    }
    free(bytes);
    must(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static inline UNUSED void send_all(int fd, const void *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t put = send(fd, (const char *)bytes + done, length - done, MSG_NOSIGNAL);
        if (put < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            must(poll(&room, 1, -1) == 1);
            continue;
        }
        must(put > 0);
        done += (size_t)put;
    }
}

static inline UNUSED void send_content(int fd, size_t length, uint64_t seed) {
    char *bytes = filled(length, seed);
    send_all(fd, bytes, length);
    free(bytes);
}

static inline UNUSED void recv_all(int fd, void *to, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t got = recv(fd, (char *)to + done, length - done, 0);
        must(got > 0);
        done += (size_t)got;
    }
}

/* One byte each way: the roles wait for each other by events, never by time. */
static inline UNUSED void tell(int fd) {
    must(send(fd, "!", 1, MSG_NOSIGNAL) == 1);
}

static inline UNUSED void await(int fd) {
    char byte;
    must(recv(fd, &byte, 1, MSG_WAITALL) == 1 && byte == '!');
}

static inline UNUSED void await_end(int fd) {
    char byte;
    must(recv(fd, &byte, 1, 0) == 0);
}

static inline UNUSED int listen_on_loopback(uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, 128) == 0);
    must(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static inline UNUSED int connect_to(uint16_t port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(fd >= 0);
    must(keeping_errno(connect(fd, (struct sockaddr *)&address, sizeof address)) == 0);
    return fd;
}

/* The client's first words come with the connection, as in every protocol in which the client speaks first. */
static inline UNUSED int call_up(uint16_t port) {
    int fd = connect_to(port);
    tell(fd);
    return fd;
}

static inline UNUSED int answer(int listener) {
    int fd = keeping_errno(accept(listener, NULL, NULL));
    must(fd >= 0);
    await(fd);
    return fd;
}

static inline UNUSED void wait_for_harness(void) {
    char rest[64];
    alarm(0);
    while (read(STDIN_FILENO, rest, sizeof rest) > 0) continue;
}

static inline UNUSED void finish_alone(void) {
    fwrite(scene.text, 1, scene.used, stdout);
    puts("end");
    fflush(stdout);
    wait_for_harness();
}

struct report {
    size_t length;
};

static inline UNUSED void write_whole(int fd, const void *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t put = write(fd, (const char *)bytes + done, length - done);
        must(put > 0);
        done += (size_t)put;
    }
}

static inline UNUSED bool read_whole(int fd, void *to, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t got = read(fd, (char *)to + done, length - done);
        if (got <= 0) return false;
        done += (size_t)got;
    }
    return true;
}

static inline UNUSED void take_report(int fd) {
    struct report head;
    must(read_whole(fd, &head, sizeof head) && head.length <= sizeof scene.text - scene.used);
    must(read_whole(fd, scene.text + scene.used, head.length));
    scene.used += head.length;
}

/* Runs `server(listener)` in a child and `client(port)` here. Returns the exit status of the program. */
static inline UNUSED int perform(void (*server)(int listener), void (*client)(uint16_t port)) {
    int pipes[2], status;
    uint16_t port;
    int listener = listen_on_loopback(&port);
    must(pipe2(pipes, O_CLOEXEC) == 0);
    pid_t child = fork();
    must(child >= 0);
    alarm(PATIENCE);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a client that has run out of patience takes its server along */
        scene.role = "server";
        scene.report = pipes[1];
        close(pipes[0]);
        server(listener);
        write_whole(pipes[1], &(struct report){scene.used}, sizeof(struct report));
        write_whole(pipes[1], scene.text, scene.used);
        wait_for_harness();
        exit(0);
    }
    scene.role = "client";
    scene.partner = child;
    close(pipes[1]);
    close(listener);
    client(port);
    take_report(pipes[0]);
    finish_alone();
    must(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

#endif
