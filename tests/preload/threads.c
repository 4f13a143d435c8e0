/* threads.c: several threads receive, send and touch at once: threads CASE. */
#include "scene.h"

#include <pthread.h>
#include <threads.h>

enum { SIZE = 65536, SEED = 31, THREADS = 4, ROUNDS = 25 };

/* Every connection: ROUNDS bodies out, each followed by the same body back. */
static void *serve_connection(void *argument) {
    int fd = (int)(intptr_t)argument;
    uint32_t seed;
    char *bytes = malloc(SIZE);
    while (read_whole(fd, &seed, sizeof seed)) {
        send_content(fd, SIZE, seed);
        recv_all(fd, bytes, SIZE);
        must(holds(bytes, SIZE, seed + 1, 0));
    }
    free(bytes);
    close(fd);
    return NULL;
}

static void serve(int listener) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        int fd = accept(listener, NULL, NULL);
        must(fd >= 0 && pthread_create(&threads[i], NULL, serve_connection, (void *)(intptr_t)fd) == 0);
    }
    for (int i = 0; i < THREADS; i++) must(pthread_join(threads[i], NULL) == 0);
}

static uint16_t port_of_server;

static void *one_stream(void *argument) {
    uint32_t first = (uint32_t)(uintptr_t)argument * 1000;
    int fd = connect_to(port_of_server);
    for (uint32_t seed = first; seed < first + ROUNDS; seed++) {
        char *bytes = malloc(SIZE);
        send_all(fd, &seed, sizeof seed);
        recv_all(fd, bytes, SIZE);
        must(holds(bytes, SIZE, seed, 0));
        fill(bytes, SIZE, seed + 1, 0);
        send_all(fd, bytes, SIZE);
        free(bytes);
    }
    close(fd);
    return NULL;
}

static void streams(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) must(pthread_create(&threads[i], NULL, one_stream, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < THREADS; i++) must(pthread_join(threads[i], NULL) == 0);
}

struct shared {
    pthread_barrier_t barrier;
    char *bytes;
    uint32_t seed;
    bool over;
};

static void *look(void *argument) {
    struct shared *shared = argument;
    for (;;) {
        pthread_barrier_wait(&shared->barrier);
        if (shared->over) return NULL;
        must(holds(shared->bytes, SIZE, shared->seed, 0));
        pthread_barrier_wait(&shared->barrier);
    }
}

static int look_c11(void *argument) {
    look(argument);
    return 0;
}

/* All threads touch the same window at the same moment and see its bytes, nothing else. */
static void share(struct shared *shared) {
    int fd = connect_to(port_of_server), others[THREADS - 1];
    for (int i = 0; i < THREADS - 1; i++) others[i] = connect_to(port_of_server);
    for (shared->seed = 1; shared->seed <= ROUNDS; shared->seed++) {
        shared->bytes = malloc(SIZE);
        send_all(fd, &shared->seed, sizeof shared->seed);
        recv_all(fd, shared->bytes, SIZE);
        pthread_barrier_wait(&shared->barrier);
        must(holds(shared->bytes, SIZE, shared->seed, 0));
        pthread_barrier_wait(&shared->barrier);
        free(shared->bytes);
        send_content(fd, SIZE, shared->seed + 1);
    }
    shared->over = true;
    pthread_barrier_wait(&shared->barrier);
    close(fd);
    for (int i = 0; i < THREADS - 1; i++) close(others[i]);
}

static void one_window(void) {
    struct shared shared = {.over = false};
    pthread_t threads[THREADS - 1];
    must(pthread_barrier_init(&shared.barrier, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS - 1; i++) must(pthread_create(&threads[i], NULL, look, &shared) == 0);
    share(&shared);
    for (int i = 0; i < THREADS - 1; i++) must(pthread_join(threads[i], NULL) == 0);
}

static void one_window_c11(void) {
    struct shared shared = {.over = false};
    thrd_t threads[THREADS - 1];
    must(pthread_barrier_init(&shared.barrier, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS - 1; i++) must(thrd_create(&threads[i], look_c11, &shared) == thrd_success);
    share(&shared);
    for (int i = 0; i < THREADS - 1; i++) must(thrd_join(threads[i], NULL) == thrd_success);
}

struct duplex {
    int fd;
    size_t length;
};

static void *write_all(void *argument) {
    struct duplex *duplex = argument;
    send_content(duplex->fd, duplex->length, 2);
    return NULL;
}

/* One thread sends and another receives on one stream. */
static void duplex(void) {
    uint32_t seed = 1;
    char *bytes = malloc(SIZE);
    for (int i = 0; i < THREADS; i++) {
        int fd = connect_to(port_of_server);
        for (int round = 0; round < ROUNDS; round++) {
            struct duplex job = {fd, SIZE};
            pthread_t writer;
            send_all(fd, &seed, sizeof seed);
            must(pthread_create(&writer, NULL, write_all, &job) == 0);
            recv_all(fd, bytes, SIZE);
            must(holds(bytes, SIZE, seed, 0) && pthread_join(writer, NULL) == 0);
        }
        close(fd);
    }
}

/* Threads fork while others receive; each child looks at what its parent had received. */
static void *receive_and_fork(void *argument) {
    uint32_t first = (uint32_t)(uintptr_t)argument * 1000;
    int fd = connect_to(port_of_server), status;
    for (uint32_t seed = first; seed < first + ROUNDS; seed++) {
        char *bytes = malloc(SIZE);
        send_all(fd, &seed, sizeof seed);
        recv_all(fd, bytes, SIZE);
        pid_t child = seed % 5 ? -1 : fork();
        if (child == 0) {
            alarm(PATIENCE);
            must(holds(bytes, SIZE, seed, 0));
            char *more = malloc(SIZE * 3);
            memset(more, 1, SIZE * 3);
            free(more);
            _exit(0);
        }
        must(holds(bytes, SIZE, seed, 0));
        if (child > 0) must(waitpid(child, &status, 0) == child && status == 0);
        send_content(fd, SIZE, seed + 1);
        free(bytes);
    }
    close(fd);
    return NULL;
}

static void forks(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, receive_and_fork, (void *)(intptr_t)i) == 0);
    for (int i = 0; i < THREADS; i++) must(pthread_join(threads[i], NULL) == 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {{"streams", streams},
             {"one_window", one_window},
             {"one_window_c11", one_window_c11},
             {"duplex", duplex},
             {"forks", forks}};

static const char *chosen;

static void consume(uint16_t port) {
    port_of_server = port;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(chosen, cases[i].name) == 0) cases[i].run();
    say("%s: all bytes right\n", chosen);
}

int main(int argc, char **argv) {
    must(argc == 2);
    chosen = argv[1];
    return perform(serve, consume);
}
