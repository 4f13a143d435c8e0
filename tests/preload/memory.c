/* memory.c: what programs do with memory that they have received into: memory OPERATION. */
#include "scene.h"

#include <dirent.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { SIZE = 65536, SEED = 11, ROUNDS = 4 };

/* Answers with SIZE bytes per connection, content ROUNDS seeds in turn. */
static void serve(int listener) {
    for (int round = 0; round < ROUNDS; round++) {
        int fd = answer(listener);
        send_content(fd, SIZE, SEED + (uint64_t)round);
        await_end(fd);
        close(fd);
    }
}

static uint16_t port_of_server;
static int received;

/* Receives the next SIZE bytes into `memory`; returns their seed. */
static uint64_t receive_into(void *memory) {
    int fd = call_up(port_of_server);
    must(recv(fd, memory, SIZE, MSG_WAITALL) == SIZE);
    close(fd);
    return SEED + (uint64_t)received++;
}

static void *receive_new(uint64_t *seed) {
    void *memory = malloc(SIZE);
    *seed = receive_into(memory);
    return memory;
}

static void realloc_grows(void) {
    uint64_t seed, other;
    char *memory = receive_new(&seed), *neighbour = receive_new(&other);
    memory = realloc(memory, SIZE * 20);
    must(memory && holds(memory, SIZE, seed, 0) && holds(neighbour, SIZE, other, 0));
    memset(memory + SIZE, 1, SIZE * 19);
    free(memory);
}

static void realloc_shrinks(void) {
    uint64_t seed;
    char *memory = receive_new(&seed);
    memory = realloc(memory, 5000);
    must(memory && holds(memory, 5000, seed, 0));
    memory = realloc(memory, SIZE);
    must(memory && holds(memory, 5000, seed, 0));
    memory = realloc(memory, 100);
    must(memory && holds(memory, 100, seed, 0));
    must(malloc_usable_size(memory) >= 100);
    free(memory);
}

static void freed_memory_is_ordinary(void) {
    uint64_t seed;
    for (int round = 0; round < ROUNDS; round++) {
        free(receive_new(&seed));
        char *zeros = calloc(SIZE / 16, 16), *plain = malloc(SIZE);
        for (int i = 0; i < SIZE; i++) must(zeros[i] == 0);
        fill(plain, SIZE, 99, 0);
        must(holds(plain, SIZE, 99, 0));
        free(zeros);
        free(plain);
    }
}

/* Calls whose work libc does by itself find no guarded memory in what malloc gives them. */
static void freed_memory_goes_to_libc(void) {
    uint64_t seed;
    char *kept[ROUNDS], directory[] = "/tmp/scene-XXXXXX", line[64], *cwd, name[64];
    for (int i = 0; i < ROUNDS; i++) kept[i] = receive_new(&seed);
    for (int i = 0; i < ROUNDS; i++) free(kept[i]);
    must(mkdtemp(directory));
    snprintf(name, sizeof name, "%s/entry", directory);
    FILE *file = fopen(name, "w+");
    must(file && setvbuf(file, NULL, _IOFBF, SIZE) == 0 && fputs("words\n", file) >= 0 && fflush(file) == 0);
    rewind(file);
    must(fgets(line, sizeof line, file) && strcmp(line, "words\n") == 0);
    DIR *listing = opendir(directory);
    int entries = 0;
    must(listing);
    errno = 0;
    while (readdir(listing)) entries++;
    must(errno == 0 && entries == 3 && closedir(listing) == 0 && fclose(file) == 0);
    cwd = malloc(SIZE);
    must(getcwd(cwd, SIZE) != NULL);
    struct stat *status = malloc(SIZE);
    must(stat(name, status + 100) == 0 && status[100].st_size == 6);
    must(unlink(name) == 0 && rmdir(directory) == 0);
    free(cwd);
    free(status);
}

static void *map(size_t size, int flags) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED);
    return memory;
}

static void unmapped(void) {
    char *memory = map(SIZE, MAP_PRIVATE);
    receive_into(memory);
    must(munmap(memory, SIZE) == 0);
    char *again = mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    must(again == memory);
    for (int i = 0; i < SIZE; i++) must(again[i] == 0);
    uint64_t seed = receive_into(again);
    must(mmap(again, SIZE / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == again);
    for (int i = 0; i < SIZE / 2; i++) must(again[i] == 0);
    must(holds(again + SIZE / 2, SIZE / 2, seed, SIZE / 2));
}

static void remapped(void) {
    char *memory = map(SIZE, MAP_PRIVATE);
    uint64_t seed = receive_into(memory);
    map(SIZE, MAP_PRIVATE);
    memory = mremap(memory, SIZE, SIZE * 8, MREMAP_MAYMOVE);
    must(memory != MAP_FAILED && holds(memory, SIZE, seed, 0) && memory[SIZE * 8 - 1] == 0);
    memory = mremap(memory, SIZE * 8, PAGE, MREMAP_MAYMOVE);
    must(memory != MAP_FAILED && holds(memory, PAGE, seed, 0));
    char *target = map(SIZE, MAP_PRIVATE);
    receive_into(target);
    must(mremap(memory, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target && holds(target, PAGE, seed, 0));
}

static void heap_remapped(void) {
    uint64_t seed;
    char *memory = receive_new(&seed), *page = (char *)(((uintptr_t)memory + PAGE - 1) & ~(PAGE - 1));
    size_t skipped = (size_t)(page - memory), pages = (SIZE - skipped) / PAGE * PAGE;
    must(madvise(page, pages, MADV_WILLNEED) == 0 && mprotect(page, pages, PROT_READ) == 0);
    must(holds(memory, SIZE, seed, 0) && mprotect(page, pages, PROT_READ | PROT_WRITE) == 0);
    receive_into(memory);
    must(madvise(page, pages, MADV_DONTNEED) == 0);
    for (size_t i = 0; i < pages; i++) must(page[i] == 0);
    seed = receive_into(memory);
    must(mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0 && holds(memory, SIZE, seed, 0));
}

static void advised(void) {
    char *memory = map(SIZE, MAP_PRIVATE);
    receive_into(memory);
    must(madvise(memory, SIZE, MADV_DONTNEED) == 0);
    for (int i = 0; i < SIZE; i++) must(memory[i] == 0);
    uint64_t seed = receive_into(memory);
    must(madvise(memory, SIZE, MADV_WILLNEED) == 0 && holds(memory, SIZE, seed, 0));
}

static void protected(void) {
    char *memory = map(SIZE, MAP_PRIVATE);
    uint64_t seed = receive_into(memory);
    must(mprotect(memory, SIZE, PROT_READ) == 0 && holds(memory, SIZE, seed, 0));
    must(mprotect(memory, SIZE, PROT_READ | PROT_WRITE) == 0);
    fill(memory, SIZE, 77, 0);
    must(holds(memory, SIZE, 77, 0));
}

/* Another process sees what is received into memory that both share, be it anonymous or a file. */
static void shared(void) {
    int ask[2], tell_result[2], status, file = file_of(SIZE, 1);
    char *memory[2] = {map(SIZE, MAP_SHARED), mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)};
    must(pipe(ask) == 0 && pipe(tell_result) == 0 && memory[1] != MAP_FAILED);
    pid_t reader = fork();
    if (reader == 0) {
        uint64_t seeds[2];
        must(read_whole(ask[0], seeds, sizeof seeds));
        must(holds(memory[0], SIZE, seeds[0], 0) && holds(memory[1], SIZE, seeds[1], 0));
        _exit(7);
    }
    uint64_t seeds[2] = {receive_into(memory[0]), receive_into(memory[1])};
    write_whole(ask[1], seeds, sizeof seeds);
    must(waitpid(reader, &status, 0) == reader && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    char *bytes = malloc(SIZE);
    must(pread(file, bytes, SIZE, 0) == SIZE && holds(bytes, SIZE, seeds[1], 0));
}

static void back_from(int fd, uint64_t seed) {
    char *bytes = malloc(SIZE);
    must(read_whole(fd, bytes, SIZE) && holds(bytes, SIZE, seed, 0));
    free(bytes);
}

/* The kernel answers a write of guarded memory with a silent short count. */
static void written_to_a_file(void) {
    uint64_t seed;
    int file = file_of(1, 1);
    char *memory = receive_new(&seed);
    struct iovec halves[2] = {{memory, SIZE / 2}, {memory + SIZE / 2, SIZE / 2}};
    must(keeping_errno(write(file, memory, SIZE)) == SIZE);
    must(lseek(file, 0, SEEK_SET) == 0);
    back_from(file, seed);
    memory = receive_new(&seed);
    must(keeping_errno(pwrite(file, memory, SIZE, 5)) == SIZE && lseek(file, 5, SEEK_SET) == 5);
    back_from(file, seed);
    memory = receive_new(&seed);
    halves[0].iov_base = memory, halves[1].iov_base = memory + SIZE / 2;
    must(keeping_errno(pwritev(file, halves, 2, 9)) == SIZE && lseek(file, 9, SEEK_SET) == 9);
    back_from(file, seed);
    memory = receive_new(&seed);
    halves[0].iov_base = memory, halves[1].iov_base = memory + SIZE / 2;
    must(lseek(file, 0, SEEK_SET) == 0 && keeping_errno(writev(file, halves, 2)) == SIZE &&
         lseek(file, 0, SEEK_SET) == 0);
    back_from(file, seed);
}

/* Also when only the middle of the window is written, at odd addresses. */
static void written_in_part(void) {
    uint64_t seed;
    int file = file_of(1, 1);
    char *memory = receive_new(&seed), *bytes = malloc(SIZE);
    must(pwrite(file, memory + 4097, 8193, 0) == 8193 && pread(file, bytes, 8193, 0) == 8193);
    must(holds(bytes, 8193, seed, 4097));
    must(pwrite(file, memory + SIZE - 3, 3, 0) == 3 && holds(memory, SIZE, seed, 0));
}

static void read_from_a_file(void) {
    uint64_t seed;
    int file = file_of(SIZE, 50);
    char *memory = receive_new(&seed);
    must(keeping_errno(pread(file, memory + 5000, 20000, 3)) == 20000 && holds(memory + 5000, 20000, 50, 3));
    must(holds(memory, 5000, seed, 0) && holds(memory + 25000, SIZE - 25000, seed, 25000));
    memory = receive_new(&seed);
    must(read(file, memory, SIZE) == SIZE && holds(memory, SIZE, 50, 0));
    memory = receive_new(&seed);
    struct iovec parts[2] = {{memory + 1, 100}, {memory + 10000, 30000}};
    must(preadv(file, parts, 2, 0) == 30100 && holds(memory + 1, 100, 50, 0) && holds(memory + 10000, 30000, 50, 100));
    must(holds(memory + 101, 9899, seed, 101) && holds(memory, 1, seed, 0) &&
         holds(memory + 40000, SIZE - 40000, seed, 40000));
    memory = receive_new(&seed); /* a read that comes short leaves the rest of the window alone */
    must(pread(file, memory, SIZE, SIZE - 10) == 10 && holds(memory, 10, 50, SIZE - 10) &&
         holds(memory + 10, SIZE - 10, seed, 10));
}

static void through_stdio(void) {
    uint64_t seed;
    FILE *file = tmpfile();
    char *memory = receive_new(&seed);
    must(file && fwrite(memory, 1, SIZE, file) == SIZE && fflush(file) == 0 && fseek(file, 0, SEEK_SET) == 0);
    memory = receive_new(&seed);
    must(fread(memory, 1, SIZE, file) == SIZE && holds(memory, SIZE, SEED, 0));
    fclose(file);
}

static void reader_of(int fd, uint64_t seed, pid_t *child) {
    *child = fork();
    if (*child == 0) {
        back_from(fd, seed);
        _exit(7);
    }
}

static void to_others(void) {
    uint64_t seed;
    int pipes[2], pair[2], status;
    char *memory = receive_new(&seed);
    pid_t child;
    must(pipe(pipes) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    reader_of(pipes[0], seed, &child);
    must(write(pipes[1], memory, SIZE) == SIZE);
    must(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    memory = receive_new(&seed);
    reader_of(pair[0], seed, &child);
    must(send(pair[1], memory, SIZE, 0) == SIZE);
    must(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7);
    memory = receive_new(&seed);
    int datagrams[2];
    must(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) == 0);
    struct iovec parts[2] = {{memory, 20000}, {memory + 20000, 20000}};
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}},
                                  {.msg_hdr = {.msg_iov = parts + 1, .msg_iovlen = 1}}};
    must(sendmmsg(datagrams[0], messages, 2, 0) == 2);
    uint64_t first = seed;
    memory = receive_new(&seed);
    parts[0].iov_base = memory + 100, parts[1].iov_base = memory + 30000;
    must(recvmmsg(datagrams[1], messages, 2, 0, NULL) == 2 && messages[1].msg_len == 20000);
    must(holds(memory + 100, 20000, first, 0) && holds(memory + 30000, 20000, first, 20000) &&
         holds(memory, 100, seed, 0) && holds(memory + 50000, 15536, seed, 50000));
}

/* Memory that is partly overwritten by the program, and received into again in other places. */
static void overwritten(void) {
    uint64_t seed, other;
    char *memory = malloc(SIZE * 2);
    seed = receive_into(memory + 1000);
    memory[30000] = 'x';
    must(holds(memory + 1000, 29000, seed, 0) && memory[30000] == 'x' && holds(memory + 30001, 36535, seed, 29001));
    seed = receive_into(memory);
    other = receive_into(memory + 10001);
    must(holds(memory, 10001, seed, 0) && holds(memory + 10001, SIZE, other, 0));
    seed = receive_into(memory);
    memmove(memory + 12345, memory, SIZE);
    must(holds(memory + 12345, SIZE, seed, 0));
}

static const struct {
    const char *name;
    void (*run)(void);
} operations[] = {{"realloc_grows", realloc_grows},
                  {"realloc_shrinks", realloc_shrinks},
                  {"freed_memory_is_ordinary", freed_memory_is_ordinary},
                  {"freed_memory_goes_to_libc", freed_memory_goes_to_libc},
                  {"unmapped", unmapped},
                  {"remapped", remapped},
                  {"heap_remapped", heap_remapped},
                  {"advised", advised},
                  {"protected", protected},
                  {"shared", shared},
                  {"written_to_a_file", written_to_a_file},
                  {"written_in_part", written_in_part},
                  {"read_from_a_file", read_from_a_file},
                  {"through_stdio", through_stdio},
                  {"to_others", to_others},
                  {"overwritten", overwritten}};

static const char *operation;

static void consume(uint16_t port) {
    port_of_server = port;
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
        if (strcmp(operation, operations[i].name) == 0) {
            operations[i].run();
            say("%s: as it should be\n", operation);
        }
    must(scene.used > 0);
    while (received < ROUNDS) {
        free(receive_new(&(uint64_t){0}));
    }
}

int main(int argc, char **argv) {
    must(argc == 2);
    operation = argv[1];
    return perform(serve, consume);
}
