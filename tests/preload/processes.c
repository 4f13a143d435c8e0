/* processes.c: fork, exec and the ends of processes while streams are open and windows alive: processes CASE. */
#include "scene.h"

#include <spawn.h>

enum { SIZE = 262144, SEED = 37 };

extern char **environ;

static void expect(int fd, size_t length, uint64_t seed) {
    char *bytes = malloc(length);
    recv_all(fd, bytes, length);
    must(holds(bytes, length, seed, 0));
    free(bytes);
}

static int end_of(pid_t child) {
    int status;
    must(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

static void serve_bodies(int listener) {
    for (int i = 0; i < 2; i++) {
        int fd = answer(listener);
        send_content(fd, SIZE, SEED);
        await_end(fd);
        close(fd);
    }
}

static char *receive_window(uint16_t port, int *fd) {
    char *memory = malloc(SIZE);
    *fd = call_up(port);
    recv_all(*fd, memory, SIZE);
    return memory;
}

/* Parent, children and grandchildren all look at what was received before; one frees it, one overwrites it. */
static void windows_and_fork(uint16_t port) {
    int fd, other;
    char *memory = receive_window(port, &fd);
    for (int way = 0; way < 4; way++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(PATIENCE);
            if (way == 1) free(memory), memory = calloc(1, SIZE), must(memory[SIZE - 1] == 0), _exit(9);
            if (way == 2) memset(memory, 1, SIZE), _exit(9);
            if (way == 3) {
                pid_t grandchild = fork();
                if (grandchild == 0) must(holds(memory, SIZE, SEED, 0)), exit(8);
                must(end_of(grandchild) == 8);
            }
            must(holds(memory, SIZE, SEED, 0));
            exit(9);
        }
        must(end_of(child) == 9);
    }
    must(holds(memory, SIZE, SEED, 0));
    close(fd);
    expect(other = call_up(port), SIZE, SEED);
    close(other);
}

/* A process per connection, which ends in its own way as soon as it has written. */
static const char *ending;

static void end_process(void) {
    if (strcmp(ending, "exit") == 0) exit(5);
    if (strcmp(ending, "underscore_exit") == 0) _exit(5);
    if (strcmp(ending, "Exit") == 0) _Exit(5);
    if (strcmp(ending, "quick_exit") == 0) quick_exit(5);
    must(strcmp(ending, "exec") == 0);
    execl("/bin/sh", "sh", "-c", "exit 5", NULL);
}

static void serve_and_end(int listener) {
    for (int i = 0; i < 2; i++) {
        int fd = accept(listener, NULL, NULL);
        must(fd >= 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
        pid_t child = fork();
        if (child == 0) {
            close(listener);
            await(fd);
            send_content(fd, SIZE, SEED);
            end_process();
        }
        close(fd);
        say("the child ended with %d\n", end_of(child));
    }
}

static void read_until_end(uint16_t port) {
    for (int i = 0; i < 2; i++) {
        int fd = call_up(port);
        expect(fd, SIZE, SEED);
        await_end(fd);
        close(fd);
    }
}

/* system, popen, posix_spawn and vfork leave the streams of their parent alone. */
static void other_programs(uint16_t port) {
    int fd;
    char *memory = receive_window(port, &fd), line[32], *arguments[] = {"sh", "-c", "exit 6", NULL};
    pid_t child;
    must(system("exit 3") == 3 << 8);
    FILE *pipe = popen("echo word; cat /dev/null", "r");
    must(pipe && fgets(line, sizeof line, pipe) && strcmp(line, "word\n") == 0 && pclose(pipe) == 0);
    must(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0 && end_of(child) == 6);
    child = vfork();
    if (child == 0) {
        close(fd);
        execv("/bin/sh", arguments);
        _exit(1);
    }
    must(end_of(child) == 6);
    pipe = popen("cat >/dev/null", "w");
    must(pipe && fwrite(memory, 1, SIZE, pipe) == SIZE && pclose(pipe) == 0);
    must(fcntl(fd, F_GETFD) >= 0 && holds(memory, SIZE, SEED, 0));
    close(fd);
    fd = call_up(port);
    expect(fd, SIZE, SEED);
    close(fd);
}

/* The server becomes a daemon between listening and its first connection. */
static void serve_as_daemon(int listener) {
    must(daemon(1, 1) == 0);
    alarm(PATIENCE);
    serve_bodies(listener);
}

static void read_bodies(uint16_t port) {
    for (int i = 0; i < 2; i++) {
        int fd = call_up(port);
        expect(fd, SIZE, SEED);
        close(fd);
    }
}

/* Some workers share one listener. */
static void serve_by_workers(int listener) {
    enum { WORKERS = 3 };
    pid_t workers[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = fork();
        if (workers[i] != 0) continue;
        for (;;) {
            char first;
            int fd = accept(listener, NULL, NULL);
            must(fd >= 0 && recv(fd, &first, 1, 0) == 1);
            if (first == '!') send_content(fd, SIZE, SEED);
            shutdown(fd, SHUT_WR);
            await_end(fd);
            close(fd);
            if (first != '!') exit(0);
        }
    }
    for (int i = 0; i < WORKERS; i++) must(end_of(workers[i]) == 0);
}

static void ask_workers(uint16_t port) {
    enum { CONNECTIONS = 12 };
    int fds[CONNECTIONS];
    for (int i = 0; i < 3; i++) fds[i] = call_up(port);
    for (int i = 0; i < CONNECTIONS; i++) {
        if (i >= 3) fds[i] = call_up(port);
        expect(fds[i], SIZE, SEED);
        await_end(fds[i]);
        close(fds[i]);
    }
    for (int i = 0; i < 3; i++) fds[i] = connect_to(port);
    for (int i = 0; i < 3; i++) must(send(fds[i], "q", 1, 0) == 1);
    for (int i = 0; i < 3; i++) await_end(fds[i]), close(fds[i]);
}

static const struct {
    const char *name;
    void (*server)(int listener);
    void (*client)(uint16_t port);
} cases[] = {{"windows_and_fork", serve_bodies, windows_and_fork},
             {"other_programs", serve_bodies, other_programs},
             {"as_daemon", serve_as_daemon, read_bodies},
             {"workers", serve_by_workers, ask_workers}};

int main(int argc, char **argv) {
    must(argc == 2);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(argv[1], cases[i].name) == 0) {
            say("%s\n", argv[1]);
            return perform(cases[i].server, cases[i].client);
        }
    ending = argv[1];
    return perform(serve_and_end, read_until_end);
}
