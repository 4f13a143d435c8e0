/* chain.c: origin, relay and client as processes of their own, so that each can run with or without the library.
 *
 *   chain origin          prints "port N" and answers requests
 *   chain relay PORT      prints "port N" and passes requests on to PORT
 *   chain client PORT     asks and checks
 *
 * A request is 8 bytes (length, seed), an answer the length again and the body. The first request comes one byte at a time. Origin and relay end with their standard input.
 */
#include "scene.h"

#include <sys/sendfile.h>

struct request {
    uint32_t length;
    uint32_t seed;
};

static const struct request requests[] = {{1, 1},      {4096, 2},  {8192, 3},    {65536, 4},
                                          {300001, 5}, {20000, 6}, {1000003, 7}, {12, 8}};
enum { REQUESTS = sizeof requests / sizeof requests[0], BUFFER = 32768 };

static int upstream_port;

/* Even seeds from memory, odd ones from a file. */
static void answer_requests(int fd) {
    struct request request;
    while (read_whole(fd, &request, sizeof request)) {
        send_all(fd, &request.length, sizeof request.length);
        if (request.seed % 2 == 0) {
            send_content(fd, request.length, request.seed);
            continue;
        }
        int file = file_of(request.length, request.seed);
        for (off_t at = 0; at < (off_t)request.length;) must(sendfile(fd, file, &at, request.length - (size_t)at) > 0);
        close(file);
    }
}

/* The buffer is overwritten as soon as it is sent, or given back, turn by turn. */
static void pass_body(int from, int to, size_t length) {
    char *buffer = malloc(BUFFER);
    for (size_t done = 0, turn = 0; done < length; turn++) {
        ssize_t got = recv(from, buffer, length - done < BUFFER ? length - done : BUFFER, 0);
        must(got > 0);
        send_all(to, buffer, (size_t)got);
        done += (size_t)got;
        if (turn % 3 == 1) memset(buffer, 0xee, BUFFER);
        if (turn % 3 == 2) {
            free(buffer);
            buffer = malloc(BUFFER);
        }
    }
    free(buffer);
}

static void pass_requests(int fd) {
    struct request request;
    uint32_t length;
    int upstream = connect_to((uint16_t)upstream_port);
    while (read_whole(fd, &request, sizeof request)) {
        send_all(upstream, &request, sizeof request);
        must(read_whole(upstream, &length, sizeof length));
        send_all(fd, &length, sizeof length);
        pass_body(upstream, fd, length);
    }
    close(upstream);
}

static int serve(void (*handle)(int fd)) {
    uint16_t port;
    int listener = listen_on_loopback(&port);
    struct pollfd waiting[2] = {{.fd = listener, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    printf("port %d\n", port);
    fflush(stdout);
    while (poll(waiting, 2, -1) > 0 && !waiting[1].revents) {
        int fd = accept(listener, NULL, NULL);
        must(fd >= 0);
        handle(fd);
        close(fd);
    }
    return 0;
}

static void ask(int fd, const struct request *request, bool slowly) {
    uint32_t length;
    const char *bytes = (const char *)request;
    for (size_t i = 0; i < sizeof *request; i++)
        if (slowly) send_all(fd, bytes + i, 1);
    if (!slowly) send_all(fd, request, sizeof *request);
    must(read_whole(fd, &length, sizeof length) && length == request->length);
    char *body = malloc(length);
    recv_all(fd, body, length);
    must(holds(body, length, request->seed, 0));
    free(body);
    say("%u bytes\n", length);
}

static int client(uint16_t port) {
    alarm(PATIENCE);
    for (int connection = 0; connection < 3; connection++) {
        int fd = connect_to(port);
        for (int i = 0; i < REQUESTS; i++) ask(fd, &requests[i], i == 0);
        close(fd);
    }
    finish_alone();
    return 0;
}

int main(int argc, char **argv) {
    must(argc >= 2);
    scene.role = argv[1];
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(argv[1], "origin") == 0) return serve(answer_requests);
    must(argc == 3);
    upstream_port = atoi(argv[2]);
    if (strcmp(argv[1], "relay") == 0) return serve(pass_requests);
    return client((uint16_t)upstream_port);
}
