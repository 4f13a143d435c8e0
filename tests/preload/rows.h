/* rows.h: what the programs rows_*.c share. Each has a table of libc's functions with a case for every one, which is run twice: *intercepted*, on a connection that the
 * rules name or with memory that was received from one and not looked at, and *bypassed*, on a connection to another address or with memory like any other. The
 * functions are looked up by name, so that the many names of a call share a case.
 *
 * The server answers on two addresses of loopback. A connection begins with 'h'; then come commands, each a letter and a length in 4 bytes:
 *   b  send that many bytes of content   r  receive as many, answer '!' if they are right   p  the same with letters   e  end the own direction
 */
#ifndef ROWS_H
#define ROWS_H

#include "scene.h"

#include <dlfcn.h>
#include <pthread.h>

enum { BODY = 100000, SEED = 61 };
#define PLAIN_ADDRESS (INADDR_LOOPBACK + 1)

struct row {
    const char *name;
    void (*run)(const char *name, bool intercepted);
};

static uint16_t rows_port;

/* A function by the name of a row; TYPE is a declaration like its own. */
#define FUNCTION(type, name) ((__typeof__(type) *)function_named(name))

static inline UNUSED void *function_named(const char *name) {
    void *found = dlsym(RTLD_DEFAULT, name);
    if (!found) found = dlvsym(RTLD_DEFAULT, name, "GLIBC_2.2.5"); /* what only old programs can call */
    if (!found) dprintf(STDERR_FILENO, "%s: ", name);
    must(found != NULL);
    return found;
}

static inline UNUSED bool equal(const char *one, const char *other) {
    return strcmp(one, other) == 0;
}

static inline UNUSED bool within(const char *part, const char *whole) {
    return strstr(whole, part) != NULL;
}

static inline char letter_at(size_t offset) {
    return (char)('a' + offset % 26);
}

static inline bool spelled(const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != letter_at(i)) return false;
    return true;
}

static inline void *serve_connection(void *argument) {
    int fd = (int)(intptr_t)argument;
    struct __attribute__((packed)) {
        char letter;
        uint32_t length;
    } command;
    while (recv(fd, &command, sizeof command, MSG_WAITALL) == (ssize_t)sizeof command) {
        if (command.letter == 'b') send_content(fd, command.length, SEED);
        if (command.letter == 'e') shutdown(fd, SHUT_WR);
        if (command.letter != 'r' && command.letter != 'p') continue;
        char *bytes = malloc(command.length);
        if (recv(fd, bytes, command.length, MSG_WAITALL) == (ssize_t)command.length)
            send_all(fd,
                     (command.letter == 'r' ? holds(bytes, command.length, SEED, 0) : spelled(bytes, command.length))
                         ? "!"
                         : "?",
                     1);
        free(bytes);
    }
    close(fd);
    return NULL;
}

static inline int listen_on_plain_address(int like) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    must(getsockname(like, (struct sockaddr *)&address, &length) == 0);
    address.sin_addr.s_addr = htonl(PLAIN_ADDRESS);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, 128) == 0);
    return fd;
}

/* Until a connection says 'q'. */
static inline UNUSED void serve_rows(int listener) {
    struct pollfd listeners[2] = {{.fd = listener, .events = POLLIN}, {.events = POLLIN}};
    listeners[1].fd = listen_on_plain_address(listener);
    for (;;) {
        must(poll(listeners, 2, -1) >= 1);
        int fd = accept(listeners[0].revents ? listener : listeners[1].fd, NULL, NULL);
        char letter = 0;
        pthread_t thread;
        must(fd >= 0);
        if (recv(fd, &letter, 1, 0) == 1 && letter == 'q') {
            close(fd);
            return;
        }
        must(pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)fd) == 0);
        pthread_detach(thread);
    }
}

static inline UNUSED struct sockaddr_in address_of_server(bool intercepted) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(rows_port),
                                .sin_addr.s_addr = htonl(intercepted ? INADDR_LOOPBACK : PLAIN_ADDRESS)};
}

static inline UNUSED int open_stream(bool intercepted) {
    struct sockaddr_in address = address_of_server(intercepted);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    send_all(fd, "h", 1);
    return fd;
}

static inline UNUSED void command(int fd, char letter, size_t length) {
    uint32_t number = (uint32_t)length;
    char bytes[5] = {letter};
    memcpy(bytes + 1, &number, sizeof number);
    send_all(fd, bytes, sizeof bytes);
}

static inline UNUSED void confirm(int fd) {
    char byte = 0;
    must(recv(fd, &byte, 1, 0) == 1 && byte == '!');
}

/* A block with content, which is a window if intercepted. */
static inline UNUSED char *window(bool intercepted) {
    char *block = malloc(BODY);
    int fd = open_stream(intercepted);
    command(fd, 'b', BODY);
    must(block != NULL && recv(fd, block, BODY, MSG_WAITALL) == BODY);
    close(fd);
    return block;
}

static inline UNUSED char *first_page(char *block) {
    return (char *)(((uintptr_t)block + PAGE - 1) & ~(PAGE - 1));
}

static inline UNUSED void run_rows(const struct row *rows, size_t count, uint16_t port) {
    rows_port = port;
    int first = open_stream(true); /* answered when both listeners are there */
    command(first, 'b', 1);
    recv_all(first, (char[1]){0}, 1);
    close(first);
    for (size_t i = 0; i < count; i++)
        for (int intercepted = 1; intercepted >= 0; intercepted--) {
            say("%s %s", rows[i].name, intercepted ? "intercepted" : "bypassed");
            rows[i].run(rows[i].name, intercepted);
            say("\n");
        }
    int fd = connect_to(port);
    must(send(fd, "q", 1, MSG_NOSIGNAL) == 1);
    await_end(fd);
    close(fd);
}

#define ROWS(rows, port) run_rows(rows, sizeof(rows) / sizeof(rows)[0], port)

#endif
