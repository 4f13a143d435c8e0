/* descriptors.c: descriptors that are duplicated, replaced, closed in bulk and used again: descriptors CASE. */
#include "scene.h"

#include <dirent.h>
#include <linux/close_range.h>
#include <sys/resource.h>

enum { SIZE = 40000, SEED = 19, MANY = 1000, OWN = 512 };

/* The client may go before it has read everything. */
static void serve_one(int fd, char first) {
    char *bytes = filled(SIZE, SEED), byte;
    for (ssize_t done = 0, put = 1; first == '!' && put > 0 && done < SIZE; done += put)
        put = send(fd, bytes + done, (size_t)(SIZE - done), MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    must(recv(fd, &byte, 1, 0) <= 0);
    free(bytes);
    close(fd);
}

/* Answers every connection with SIZE bytes until one that begins with 'q'. */
static void serve_all(int listener) {
    for (char first = '!'; first == '!';) {
        int fd = accept(listener, NULL, NULL);
        must(fd >= 0 && recv(fd, &first, 1, 0) == 1);
        serve_one(fd, first);
    }
}

static void quit(uint16_t port) {
    char byte;
    int fd = connect_to(port);
    must(send(fd, "q", 1, 0) == 1 && recv(fd, &byte, 1, 0) == 0);
    close(fd);
}

static void receive_rest(int fd, size_t from) {
    char *bytes = malloc(SIZE), byte;
    recv_all(fd, bytes, SIZE - from);
    must(holds(bytes, SIZE - from, SEED, from) && recv(fd, &byte, 1, 0) == 0);
    free(bytes);
}

static void receive_some(int fd, size_t from, size_t to) {
    char *bytes = malloc(SIZE);
    recv_all(fd, bytes, to - from);
    must(holds(bytes, to - from, SEED, from));
    free(bytes);
}

/* The position in the stream belongs to the connection, not to one of its descriptors. */
static void duplicates(uint16_t port) {
    int fd = call_up(port), copies[4];
    receive_some(fd, 0, 1000);
    must((copies[0] = keeping_errno(dup(fd))) >= 0 && (copies[1] = keeping_errno(fcntl(fd, F_DUPFD, 200))) >= 200);
    must((copies[2] = keeping_errno(fcntl(fd, F_DUPFD_CLOEXEC, 300))) >= 300 &&
         fcntl(copies[2], F_GETFD) == FD_CLOEXEC);
    must((copies[3] = keeping_errno(dup3(fd, 400, O_CLOEXEC))) == 400 && fcntl(400, F_GETFD) == FD_CLOEXEC);
    receive_some(copies[0], 1000, 11000);
    must(close(fd) == 0);
    receive_some(copies[1], 11000, 20500);
    must(close(copies[1]) == 0 && close(copies[0]) == 0);
    receive_some(copies[2], 20500, 30000);
    receive_rest(copies[3], 30000);
    must(close(copies[2]) == 0 && close(copies[3]) == 0);
    say("duplicates share the stream\n");
}

/* The old connection ends for its peer, the new one takes its number over; and the other way round a file does. */
static void replaced(uint16_t port) {
    int old = call_up(port), fresh = call_up(port), file = file_of(SIZE, 99);
    receive_some(old, 0, 5000);
    must(keeping_errno(dup2(fresh, old)) == old && close(fresh) == 0);
    receive_rest(old, 0);
    must(close(old) == 0);
    int other = call_up(port);
    receive_some(other, 0, 100);
    must(dup2(file, other) == other);
    char *bytes = malloc(SIZE);
    must(pread(other, bytes, SIZE, 0) == SIZE && holds(bytes, SIZE, 99, 0));
    must(lseek(other, 0, SEEK_SET) == 0 && read(other, bytes, SIZE) == SIZE && holds(bytes, SIZE, 99, 0));
    int third = call_up(port);
    must(dup2(third, other) == other && dup2(other, other) == other && close(third) == 0);
    receive_rest(other, 0);
    must(close(other) == 0);
    other = file;
    must(dup2(-1, other) == -1 && errno == EBADF && dup3(other, other, 0) == -1 && errno == EINVAL);
    say("replaced\n");
}

static void reused(uint16_t port) {
    int before = -1;
    for (int i = 0; i < 20; i++) {
        int fd = call_up(port);
        must(before < 0 || fd == before);
        before = fd;
        if (i % 3 == 0) receive_some(fd, 0, 9000);
        if (i % 3 == 1) receive_rest(fd, 0);
        must(close(fd) == 0 && close(fd) == -1 && errno == EBADF);
        int file = file_of(10000, 5);
        char *bytes = malloc(10000);
        must(file == before && read(file, bytes, 10000) == 10000 && holds(bytes, 10000, 5, 0) && close(file) == 0);
        free(bytes);
    }
    say("numbers are used again\n");
}

static int own_descriptors(void) {
    int count = 0;
    DIR *list = opendir("/proc/self/fd");
    must(list);
    for (struct dirent *entry; (entry = readdir(list));)
        count += entry->d_name[0] != '.' && atoi(entry->d_name) < OWN && atoi(entry->d_name) != dirfd(list);
    closedir(list);
    return count;
}

static int all_descriptors(void) {
    int count = 0;
    DIR *list = opendir("/proc/self/fd");
    must(list);
    while (readdir(list)) count++;
    closedir(list);
    return count;
}

static int before_many;

static void many(uint16_t port) {
    int own = own_descriptors(), all = 0;
    char *bytes = malloc(SIZE);
    for (int i = 0; i < MANY; i++) {
        int fd = call_up(port);
        recv_all(fd, bytes, SIZE);
        must(close(fd) == 0);
        if (i == 100) all = all_descriptors();
    }
    must(own_descriptors() == own);
    must(all_descriptors() <= all + 8); /* nor does the library collect some for itself */
    say("%d connections, no descriptor left\n", MANY);
}

static void serve_many(int listener) {
    before_many = own_descriptors();
    serve_all(listener);
    must(own_descriptors() == before_many);
    say("nor at the server\n");
}

/* A server that, in the middle of its work, closes everything but what it knows. */
static void close_strangers(int listener, int kept, int report) {
    struct rlimit limit;
    must(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int fd = 3; fd < (int)limit.rlim_cur && fd < 70000; fd++)
        if (fd != listener && fd != kept && fd != report) close(fd);
}

static const char *chosen;

static void close_in_bulk(int listener, int kept) {
    int high = listener < kept ? kept : listener;
    if (strcmp(chosen, "daemon_loop") == 0) {
        close_strangers(listener, kept, scene.report);
        return;
    }
    if (strcmp(chosen, "proc_loop") == 0) { /* what /proc lists */
        DIR *list = opendir("/proc/self/fd");
        int self = dirfd(list), fds[256], count = 0;
        for (struct dirent *entry; (entry = readdir(list)) && count < 256;) fds[count++] = atoi(entry->d_name);
        for (int i = 0; i < count; i++)
            if (fds[i] > 2 && fds[i] != self && fds[i] != listener && fds[i] != kept && fds[i] != scene.report)
                close(fds[i]);
        closedir(list);
        return;
    }
    if (scene.report > high) high = scene.report;
    if (strcmp(chosen, "closefrom") == 0) {
        closefrom(high + 1);
        return;
    }
    must(keeping_errno(close_range((unsigned)high + 1, ~0u, 0)) == 0);
    must(close_range((unsigned)high + 1, ~0u, CLOSE_RANGE_CLOEXEC) == 0);
    must(close_range(5, 4, 0) == -1 && errno == EINVAL);
}

static void serve_bulk(int listener) {
    int fd = answer(listener), extra = dup(fd);
    send_content(fd, SIZE, SEED);
    int file = open("/dev/null", O_RDONLY);
    (void)extra;
    close_in_bulk(listener, fd);
    must(fcntl(file, F_GETFD) == -1 && errno == EBADF);
    await(fd);
    send_content(fd, SIZE, SEED + 1);
    serve_one(fd, 'x');
    fd = answer(listener);
    serve_one(fd, '!');
}

/* The payloads are read only after the server has closed everything. */
static void bulk(uint16_t port) {
    int fd = call_up(port);
    char *bytes = malloc(SIZE), byte;
    must(recv(fd, &byte, 1, MSG_PEEK) == 1);
    tell(fd);
    recv_all(fd, bytes, SIZE);
    must(holds(bytes, SIZE, SEED, 0));
    recv_all(fd, bytes, SIZE);
    must(holds(bytes, SIZE, SEED + 1, 0) && recv(fd, &byte, 1, 0) == 0);
    close(fd);
    fd = call_up(port);
    receive_rest(fd, 0);
    say("%s: the server lives\n", chosen);
    close(fd);
}

static const struct {
    const char *name;
    void (*server)(int listener);
    void (*client)(uint16_t port);
} cases[] = {{"duplicates", serve_all, duplicates}, {"replaced", NULL, replaced},
             {"reused", serve_all, reused},         {"many", serve_many, many},
             {"daemon_loop", serve_bulk, bulk},     {"proc_loop", serve_bulk, bulk},
             {"closefrom", serve_bulk, bulk},       {"close_range", serve_bulk, bulk}};

static void (*chosen_client)(uint16_t port);

static void client_then_quit(uint16_t port) {
    chosen_client(port);
    quit(port);
}

/* One process per connection: the client holds several at once. */
static void serve_forking(int listener) {
    for (char first = '!'; first == '!';) {
        int fd = accept(listener, NULL, NULL);
        must(fd >= 0 && recv(fd, &first, 1, MSG_PEEK) == 1);
        pid_t child = fork();
        if (child == 0) {
            must(recv(fd, &first, 1, 0) == 1);
            serve_one(fd, first);
            exit(0);
        }
        close(fd);
    }
    while (wait(NULL) > 0) continue;
}

int main(int argc, char **argv) {
    must(argc == 2);
    chosen = argv[1];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(chosen, cases[i].name) == 0) {
            chosen_client = cases[i].client;
            bool quits = cases[i].server != serve_bulk;
            return perform(cases[i].server ? cases[i].server : serve_forking, quits ? client_then_quit : chosen_client);
        }
    return 2;
}
