/* sharing.c: several processes, or threads, use one connection at the same time: sharing CASE. */
#include "scene.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

enum {
    SMALL = 300,
    BODY = 65536,
    PART = 20000,
    TURNS = 6,
    READERS = 4,
    MESSAGES = 120,
    LARGE = 24576,
    MOUTHFUL = 5000
};

static int end_of(pid_t child) {
    int status;
    must(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/* Reads and checks the next bytes of the content, from `at` on. */
static void take(int fd, size_t at, size_t length) {
    char *bytes = malloc(length);
    recv_all(fd, bytes, length);
    must(holds(bytes, length, 3, at));
    free(bytes);
}

/* Small pieces, bodies and parts of both go to parent and child in turns. */
static void serve_turns(int listener) {
    int fd = answer(listener);
    char *bytes = filled((SMALL + BODY) * TURNS, 3);
    for (size_t turn = 0; turn < TURNS; turn++) {
        send_all(fd, bytes + turn * (SMALL + BODY), SMALL);
        send_all(fd, bytes + turn * (SMALL + BODY) + SMALL, BODY);
    }
    free(bytes);
    await_end(fd);
    close(fd);
}

static void await_bytes(int fd) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    must(poll(&ready, 1, -1) == 1);
}

static void read_in_turns(uint16_t port) {
    int fd = call_up(port);
    size_t at = 0, end = (SMALL + BODY) * TURNS, steps[] = {100, 200, PART, BODY - PART - 7, 7 + SMALL, BODY};
    await_bytes(fd);
    for (int turn = 0; at < end; turn++) {
        size_t step = steps[turn % 6];
        step = end - at < step ? end - at : step;
        pid_t child = turn % 2 ? -1 : fork();
        if (child <= 0) take(fd, at, step);
        if (child == 0) _exit(0);
        if (child > 0) must(end_of(child) == 0);
        at += step;
    }
    say("parent and children had %zu bytes in turns\n", at);
    close(fd);
}

enum { MOUNTAIN = 8 << 20, HILL = 200000 };

/* A child fills the connection, says how much that was, and ends; its parent has the connection too, and does nothing with it. */
static void serve_and_leave(int listener) {
    int fd = answer(listener), other = answer(listener), made = file_of(BODY, 3), small = 16384, pipes[2];
    char name[32];
    uint32_t done = 0;
    char *bytes = filled(MOUNTAIN, 3);
    off_t at = 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", made);
    int file = open(
        name, O_RDONLY | O_CLOEXEC); /* that nobody writes it makes it a payload, for which there is a helper thread */
    must(file >= 0 && close(made) == 0 && pipe(pipes) == 0);
    must(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    must(sendfile(other, file, &at, BODY) == BODY);
    await(other);
    pid_t child = fork();
    if (child == 0) {
        alarm(PATIENCE);
        for (ssize_t put = 1; put > 0; done += put > 0 ? (uint32_t)put : 0) {
            must(done + HILL < MOUNTAIN);
            put = send(fd, bytes + done, HILL, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        must(errno == EAGAIN && write(pipes[1], &done, sizeof done) == sizeof done);
        _exit(0);
    }
    must(read(pipes[0], &done, sizeof done) == sizeof done && end_of(child) == 0);
    send_all(other, &done, sizeof done);
    await_end(other);
    close(fd);
    close(other);
    close(file);
    free(bytes);
}

static void read_what_is_left(uint16_t port) {
    int fd = call_up(port), other = call_up(port);
    uint32_t length;
    take(other, 0, BODY);
    tell(other);
    recv_all(other, &length, sizeof length);
    take(fd, 0, length);
    say("all that the child has sent is here\n");
    close(other);
    close(fd);
}

/* Two processes that both stay, and hand each other the turn over pipes. */
static void read_alternately(uint16_t port) {
    int fd = call_up(port), to[2], back[2];
    size_t end = (SMALL + BODY) * TURNS, step = 7321;
    char token = 0;
    await_bytes(fd);
    take(fd, 0, 50);
    must(pipe(to) == 0 && pipe(back) == 0);
    pid_t child = fork();
    int in = child ? back[0] : to[0], out = child ? to[1] : back[1];
    if (child == 0) close(to[1]), alarm(PATIENCE);
    for (size_t at = 50, turn = 0; at < end; at += step, turn++) {
        bool mine = (turn % 2 == 0) == (child != 0);
        if (!mine) {
            must(read(in, &token, 1) == 1);
            continue;
        }
        take(fd, at, end - at < step ? end - at : step);
        must(write(out, &token, 1) == 1);
    }
    if (child == 0) _exit(0);
    must(end_of(child) == 0);
    say("both had their turns\n");
    close(fd);
}

/* Messages of two writers arrive whole, and in the order of each. */
static void write_both(uint16_t port) {
    int fd = call_up(port);
    char message[200];
    pid_t child = fork();
    for (int i = 0; i < 60; i++) {
        memset(message, child ? i : i + 60, sizeof message);
        must(send(fd, message, sizeof message, 0) == sizeof message);
    }
    if (child == 0) _exit(0);
    must(end_of(child) == 0);
    char *body = filled(BODY, 5);
    child = fork();
    if (child == 0) send_all(fd, body, BODY), _exit(0);
    must(end_of(child) == 0);
    send_all(fd, body, BODY);
    must(shutdown(fd, SHUT_WR) == 0);
    await_end(fd);
    free(body);
    say("both have written\n");
    close(fd);
}

static void serve_writers(int listener) {
    int fd = answer(listener), next[2] = {0, 60};
    char message[200], *body = malloc(BODY);
    for (int i = 0; i < 120; i++) {
        recv_all(fd, message, sizeof message);
        for (size_t j = 1; j < sizeof message; j++) must(message[j] == message[0]);
        must(message[0] == next[message[0] >= 60]++);
    }
    for (int i = 0; i < 2; i++) {
        recv_all(fd, body, BODY);
        must(holds(body, BODY, 5, 0));
    }
    await_end(fd);
    free(body);
    say("every message was whole\n");
    close(fd);
}

/* Readers wait for one connection in different ways; what one leaves, another has to be woken for: every message is one value, and the next one comes when all of it is had. */
static size_t length_of(int message) {
    return message % 5 == 4 ? LARGE : SMALL;
}

static struct news {
    _Atomic size_t had;
    _Atomic int message;
} * news;

static size_t take_some(int fd, int way) {
    static _Thread_local char bytes[MOUTHFUL];
    for (;;) {
        if (way == 1) await_bytes(fd);
        ssize_t got = recv(fd, bytes, way == 2 ? 100 : sizeof bytes, way == 1 ? MSG_DONTWAIT : 0);
        if (got < 0 && errno == EAGAIN) continue;
        must(got >= 0);
        for (ssize_t i = 0; i < got; i++) must((uint8_t)bytes[i] == (uint8_t)atomic_load(&news->message));
        return (size_t)got;
    }
}

static void read_on(int fd, int way) {
    for (size_t got; (got = take_some(fd, way)) > 0;) {
        int message = atomic_load(&news->message);
        if (atomic_fetch_add(&news->had, got) + got == length_of(message)) tell(fd);
    }
}

static void serve_readers(int listener) {
    int fd = answer(listener);
    char *bytes = malloc(LARGE);
    for (int i = 0; i < MESSAGES; i++) {
        atomic_store(&news->had, 0);
        atomic_store(&news->message, i);
        memset(bytes, i, length_of(i));
        send_all(fd, bytes, length_of(i));
        await(fd);
    }
    free(bytes);
    must(shutdown(fd, SHUT_WR) == 0);
    await_end(fd);
    close(fd);
}

static void read_by_processes(uint16_t port) {
    pid_t children[READERS];
    int fd = call_up(port);
    for (int i = 0; i < READERS; i++) {
        children[i] = fork();
        if (children[i] == 0) alarm(PATIENCE), read_on(fd, i % 3), _exit(0);
    }
    for (int i = 0; i < READERS; i++) must(end_of(children[i]) == 0);
    say("processes had %d messages\n", MESSAGES);
    close(fd);
}

struct reader {
    pthread_t thread;
    int fd, way;
};

static void *run_reader(void *argument) {
    struct reader *reader = argument;
    read_on(reader->fd, reader->way);
    return NULL;
}

static void read_by_threads(uint16_t port) {
    struct reader readers[READERS];
    int fd = call_up(port);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.fd = fd, .way = i % 3};
        must(pthread_create(&readers[i].thread, NULL, run_reader, &readers[i]) == 0);
    }
    for (int i = 0; i < READERS; i++) must(pthread_join(readers[i].thread, NULL) == 0);
    say("threads had %d messages\n", MESSAGES);
    close(fd);
}

/* One thread sleeps, in recv or in poll, while another snatches half of what comes without waiting for it: the other half is the sleeper's. */
static struct {
    int fd, round;
    _Atomic pid_t sleeper;
} nap;

static void *sleep_and_take(void *nothing) {
    char bytes[100];
    atomic_store(&nap.sleeper, gettid());
    if (nap.round % 2) await_bytes(nap.fd);
    recv_all(nap.fd, bytes, sizeof bytes);
    return nothing;
}

static bool sleeps(pid_t thread) {
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    FILE *file = thread ? fopen(path, "re") : NULL;
    if (!file) return false;
    bool got = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    char *state = got ? strrchr(line, ')') : NULL;
    return state && state[2] == 'S';
}

static void snatch(uint16_t port) {
    char bytes[100];
    nap.fd = call_up(port);
    for (nap.round = 0; nap.round < MESSAGES; nap.round++) {
        pthread_t thread;
        atomic_store(&nap.sleeper, 0);
        must(pthread_create(&thread, NULL, sleep_and_take, NULL) == 0);
        while (!sleeps(atomic_load(&nap.sleeper))) sched_yield();
        tell(nap.fd);
        for (size_t had = 0; had < sizeof bytes;) {
            ssize_t got = recv(nap.fd, bytes, sizeof bytes - had, MSG_DONTWAIT);
            must(got > 0 || (got < 0 && errno == EAGAIN));
            had += got > 0 ? (size_t)got : 0;
        }
        must(pthread_join(thread, NULL) == 0);
    }
    say("both had their half %d times\n", MESSAGES);
    close(nap.fd);
}

static void serve_halves(int listener) {
    int fd = answer(listener);
    for (int i = 0; i < MESSAGES; i++) {
        await(fd);
        send_content(fd, 200, 3);
    }
    await_end(fd);
    close(fd);
}

static const struct {
    const char *name;
    void (*server)(int listener);
    void (*client)(uint16_t port);
} cases[] = {{"turns", serve_turns, read_in_turns},
             {"left", serve_and_leave, read_what_is_left},
             {"alternating", serve_turns, read_alternately},
             {"writers", serve_writers, write_both},
             {"processes", serve_readers, read_by_processes},
             {"threads", serve_readers, read_by_threads},
             {"snatching", serve_halves, snatch}};

int main(int argc, char **argv) {
    must(argc == 2);
    news = mmap(NULL, sizeof *news, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(news != MAP_FAILED);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argv[1], cases[i].name) == 0) return perform(cases[i].server, cases[i].client);
    return 2;
}
