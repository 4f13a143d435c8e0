/* buffers.c: a body is received into memory of every kind: buffers KIND OFFSET CHUNK; KIND is one of stack static heap mmap shared thread aligned. */
#include "scene.h"

#include <pthread.h>
#include <sys/mman.h>

enum { BODY = 150001, ROOM = 400000, GUARD = 512, SEED = 7 };

static const char *kind;
static size_t offset, chunk;

static void serve(int listener) {
    for (int round = 0; round < 2; round++) {
        int fd = answer(listener);
        send_content(fd, BODY, SEED);
        shutdown(fd, SHUT_WR);
        await_end(fd);
        close(fd);
    }
}

/* Every part is looked at as soon as it is there, and the buffer is used again. */
static void reuse(int fd, char *buffer) {
    size_t done = 0;
    ssize_t got;
    memset(buffer, 0x55, offset);
    while ((got = recv(fd, buffer + offset, chunk, 0)) > 0) {
        must(holds(buffer + offset, (size_t)got, SEED, done));
        done += (size_t)got;
    }
    for (size_t i = 0; i < offset; i++) must(buffer[i] == 0x55);
    say("reused: %zd, %zu bytes\n", got, done);
}

/* The parts land behind each other and are looked at last. */
static void append(int fd, char *buffer) {
    size_t done = 0;
    ssize_t got;
    memset(buffer, 0x33, ROOM);
    while ((got = recv(fd, buffer + offset + done, chunk, 0)) > 0) done += (size_t)got;
    must(holds(buffer + offset, done, SEED, 0));
    for (size_t i = 0; i < offset; i++) must(buffer[i] == 0x33);
    for (size_t i = offset + done; i < ROOM; i++) must(buffer[i] == 0x33);
    say("appended: %zd, %zu bytes\n", got, done);
}

struct job {
    void (*receive)(int fd, char *buffer);
    int fd;
};

static void *on_a_stack(void *argument) {
    struct job *job = argument;
    char buffer[ROOM + GUARD];
    job->receive(job->fd, buffer);
    return NULL;
}

static void in_a_thread(struct job *job) {
    pthread_t thread;
    must(pthread_create(&thread, NULL, on_a_stack, job) == 0);
    must(pthread_join(thread, NULL) == 0);
}

static void *allocate(void) {
    static char still[ROOM + GUARD];
    void *aligned = NULL;
    if (strcmp(kind, "static") == 0) return still;
    if (strcmp(kind, "heap") == 0) return malloc(ROOM + GUARD);
    if (strcmp(kind, "mmap") == 0)
        return mmap(NULL, ROOM + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (strcmp(kind, "shared") == 0)
        return mmap(NULL, ROOM + GUARD, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(strcmp(kind, "aligned") == 0 && posix_memalign(&aligned, 65536, ROOM + GUARD) == 0);
    return aligned;
}

static void receive(uint16_t port, void (*how)(int fd, char *buffer)) {
    struct job job = {how, call_up(port)};
    if (strcmp(kind, "stack") == 0)
        on_a_stack(&job);
    else if (strcmp(kind, "thread") == 0)
        in_a_thread(&job);
    else
        how(job.fd, allocate());
    close(job.fd);
}

static void consume(uint16_t port) {
    receive(port, reuse);
    receive(port, append);
}

int main(int argc, char **argv) {
    must(argc == 4);
    kind = argv[1];
    offset = strtoul(argv[2], NULL, 10);
    chunk = strtoul(argv[3], NULL, 10);
    must(offset + BODY + chunk <= ROOM);
    return perform(serve, consume);
}
