/* reads.c: files that are read and sent: reads CASE. */
#include "scene.h"

#include <pthread.h>
#include <sys/socket.h>

enum { CHUNK = 65536, LENGTH = 5 * CHUNK + 1234, SEED = 77, THREADS = 4, BLOCKS = 64 };

static const char *chosen;

static bool is(const char *name) {
    return strcmp(chosen, name) == 0;
}

/* A file that nobody can write to any more, at offset 0. */
static int settled_file(int flags) {
    char path[64];
    int made = file_of(LENGTH, SEED);
    snprintf(path, sizeof path, "/proc/self/fd/%d", made);
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    must(fd >= 0 && close(made) == 0);
    return fd;
}

static void forwarded(int out) {
    char *buffer = malloc(CHUNK);
    int file = settled_file(0);
    ssize_t got;
    while ((got = keeping_errno(read(file, buffer, CHUNK))) > 0) {
        send_all(out, buffer, (size_t)got);
        say("%zd to %lld\n", got, (long long)lseek(file, 0, SEEK_CUR));
    }
    must(got == 0 && close(file) == 0);
    free(buffer);
}

static void forwarded_at(int out) {
    char *buffer = malloc(CHUNK);
    int file = settled_file(0);
    ssize_t got;
    for (off_t at = 0; (got = keeping_errno(pread(file, buffer, CHUNK, at))) > 0; at += got)
        send_all(out, buffer, (size_t)got);
    must(got == 0 && lseek(file, 0, SEEK_CUR) == 0);
    must(pread(file, buffer, CHUNK, -1) == -1 && errno == EINVAL);
    must(pread(file, buffer, CHUNK, LENGTH + 5) == 0);
    close(file);
    free(buffer);
}

/* Three buffers that begin and end within pages, and a last read that fills them in part. */
static void scattered(int out) {
    int file = settled_file(0);
    char *buffer = malloc(4 * CHUNK);
    struct iovec parts[3] = {{buffer + 17, 40000}, {buffer + CHUNK, 30001}, {buffer + 2 * CHUNK + 4095, 50000}};
    ssize_t got;
    while ((got = keeping_errno(readv(file, parts, 3))) > 0) {
        say("%zd\n", got);
        for (int i = 0; i < 3 && got > 0; i++) {
            size_t part = (size_t)got < parts[i].iov_len ? (size_t)got : parts[i].iov_len;
            send_all(out, parts[i].iov_base, part);
            got -= (ssize_t)part;
        }
    }
    must(got == 0);
    close(file);
    free(buffer);
}

/* What is changed in the buffer is changed in what is sent, and nowhere else. */
static void modified(int out) {
    int file = settled_file(0);
    char *buffer = malloc(LENGTH), *again = malloc(LENGTH);
    must(read(file, buffer, LENGTH) == LENGTH);
    memset(buffer + 100000, 0x5a, 3);
    must(pread(file, again, LENGTH, 0) == LENGTH && holds(again, LENGTH, SEED, 0));
    must(memcmp(buffer + 100000, "ZZZ", 3) == 0);
    fill(buffer + 100000, 3, SEED, 100000);
    send_all(out, buffer, LENGTH);
    close(file);
    free(buffer);
    free(again);
}

/* The file is gone and its descriptor closed before the bytes are looked at and sent. */
static void outlived(int out) {
    int file = settled_file(0);
    char *buffer = malloc(LENGTH);
    must(read(file, buffer, LENGTH) == LENGTH && close(file) == 0);
    must(holds(buffer, CHUNK, SEED, 0));
    send_all(out, buffer, LENGTH);
    free(buffer);
}

static void inherited(int out) {
    int file = settled_file(0), status;
    char *buffer = malloc(LENGTH);
    must(read(file, buffer, LENGTH) == LENGTH);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) _exit(holds(buffer, LENGTH, SEED, 0) ? 0 : 1);
    send_all(out, buffer, LENGTH);
    must(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    must(holds(buffer, LENGTH, SEED, 0));
    close(file);
    free(buffer);
}

/* Reads that are none of regular files, or that go past the page cache, are the kernel's. */
static void others(int out) {
    int pipes[2], pair[2], direct = settled_file(O_DIRECT);
    char *bytes = filled(CHUNK, SEED), *buffer = aligned_alloc(PAGE, CHUNK);
    must(pipe(pipes) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    must(write(pipes[1], bytes, 40000) == 40000 && read(pipes[0], buffer, CHUNK) == 40000);
    must(holds(buffer, 40000, SEED, 0));
    must(send(pair[1], bytes, 40000, 0) == 40000 && read(pair[0], buffer, CHUNK) > 0);
    if (direct >= 0) must(read(direct, buffer, CHUNK) == CHUNK && holds(buffer, CHUNK, SEED, 0));
    must(read(direct, NULL, 0) == 0 && read(-1, buffer, CHUNK) == -1 && errno == EBADF);
    int writer = open("/dev/null", O_WRONLY);
    must(read(writer, buffer, CHUNK) == -1 && errno == EBADF);
    forwarded(out);
    free(bytes);
    free(buffer);
}

static struct {
    int file;
    pthread_mutex_t lock;
    unsigned char seen[BLOCKS];
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Several threads read on in one open file: every block goes to exactly one of them. */
static void *read_blocks(void *unused) {
    char *buffer = malloc(CHUNK);
    ssize_t got;
    while ((got = read(shared.file, buffer, CHUNK)) > 0) {
        unsigned block;
        memcpy(&block, buffer, sizeof block);
        must(got == CHUNK && block < BLOCKS && (unsigned char)buffer[CHUNK - 1] == (unsigned char)block);
        pthread_mutex_lock(&shared.lock);
        shared.seen[block]++;
        pthread_mutex_unlock(&shared.lock);
    }
    must(got == 0);
    free(buffer);
    return unused;
}

static void shared_by_threads(int out) {
    char path[64], name[] = "/tmp/scene-XXXXXX", *bytes = malloc(CHUNK);
    int made = mkstemp(name);
    must(made >= 0 && unlink(name) == 0);
    for (unsigned block = 0; block < BLOCKS; block++) {
        memset(bytes, (int)block, CHUNK);
        memcpy(bytes, &block, sizeof block);
        must(write(made, bytes, CHUNK) == CHUNK);
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", made);
    shared.file = open(path, O_RDONLY);
    must(shared.file >= 0 && close(made) == 0);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) must(pthread_create(&threads[i], NULL, read_blocks, NULL) == 0);
    for (int i = 0; i < THREADS; i++) must(pthread_join(threads[i], NULL) == 0);
    for (int block = 0; block < BLOCKS; block++) must(shared.seen[block] == 1);
    must(lseek(shared.file, 0, SEEK_CUR) == (off_t)BLOCKS * CHUNK);
    free(bytes);
    forwarded(out);
}

static void serve(int listener) {
    static const struct {
        const char *name;
        void (*run)(int out);
    } cases[] = {{"forwarded", forwarded}, {"forwarded_at", forwarded_at}, {"scattered", scattered},
                 {"modified", modified},   {"outlived", outlived},         {"inherited", inherited},
                 {"others", others},       {"threads", shared_by_threads}};
    int fd = answer(listener);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (is(cases[i].name)) cases[i].run(fd);
    await_end(fd);
    close(fd);
}

static void consume(uint16_t port) {
    char *bytes = malloc(LENGTH);
    int fd = call_up(port);
    recv_all(fd, bytes, LENGTH);
    must(holds(bytes, LENGTH, SEED, 0));
    must(shutdown(fd, SHUT_WR) == 0);
    await_end(fd);
    say("%s: %d bytes\n", chosen, LENGTH);
    close(fd);
    free(bytes);
}

int main(int argc, char **argv) {
    must(argc == 2);
    chosen = argv[1];
    return perform(serve, consume);
}
