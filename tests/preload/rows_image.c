/* rows_image.c: the rows of hooks.def by which a program image begins or ends. With arguments it is the next image: rows_image rest FD FROM receives the rest of a body. */
#include "rows.h"

#include <limits.h>
#include <spawn.h>

extern char **environ;

static char self[PATH_MAX], digits[16], from[16];
static char *next_image[] = {self, (char[]){"rest"}, digits, from, NULL};

/* A connection on which the beginning of a body has been received; the rest is for the next image. */
static int begun(bool intercepted, bool inherited) {
    int fd = open_stream(intercepted);
    char bytes[100];
    command(fd, 'b', BODY);
    recv_all(fd, bytes, sizeof bytes);
    must(holds(bytes, sizeof bytes, SEED, 0));
    if (inherited) must(fcntl(fd, F_SETFD, 0) == 0);
    snprintf(digits, sizeof digits, "%d", fd);
    snprintf(from, sizeof from, "%zu", sizeof bytes);
    return fd;
}

static int receive_rest(int fd, size_t done) {
    size_t left = BODY - done;
    char *bytes = malloc(left);
    recv_all(fd, bytes, left);
    return holds(bytes, left, SEED, done) ? 0 : 1;
}

static void expect_good_end(pid_t child, int fd) {
    int status = -1;
    must(waitpid(child, &status, 0) == child);
    if (status != 0) say(" status %x", (unsigned)status);
    must(status == 0);
    close(fd);
}

static void become(const char *name) {
    if (equal(name, "execl")) FUNCTION(execl, name)(self, self, "rest", digits, from, (char *)NULL);
    if (equal(name, "execlp")) FUNCTION(execlp, name)(self, self, "rest", digits, from, (char *)NULL);
    if (equal(name, "execle")) FUNCTION(execle, name)(self, self, "rest", digits, from, (char *)NULL, environ);
    if (equal(name, "execv") || equal(name, "execvp")) FUNCTION(execv, name)(self, next_image);
    if (equal(name, "execve") || equal(name, "execvpe")) FUNCTION(execve, name)(self, next_image, environ);
    if (equal(name, "execveat")) FUNCTION(execveat, name)(AT_FDCWD, self, next_image, environ, 0);
    if (equal(name, "fexecve")) FUNCTION(fexecve, name)(open(self, O_RDONLY | O_CLOEXEC), next_image, environ);
}

static void executing(const char *name, bool intercepted) {
    int fd = begun(intercepted, true);
    pid_t child = fork();
    if (child == 0) {
        become(name);
        _exit(9);
    }
    expect_good_end(child, fd);
}

static void forking(const char *name, bool intercepted) {
    int fd = begun(intercepted, false);
    pid_t child = FUNCTION(fork, name)();
    if (child == 0) _exit(receive_rest(fd, 100));
    expect_good_end(child, fd);
}

static void spawning(const char *name, bool intercepted) {
    bool duplicated = within("adddup2", name);
    int fd = begun(intercepted, !duplicated);
    pid_t child;
    posix_spawn_file_actions_t actions;
    must(posix_spawn_file_actions_init(&actions) == 0);
    if (duplicated) {
        must(FUNCTION(posix_spawn_file_actions_adddup2, name)(&actions, fd, 57) == 0);
        snprintf(digits, sizeof digits, "57");
    }
    must(FUNCTION(posix_spawn, duplicated ? "posix_spawn" : name)(&child, self, &actions, NULL, next_image, environ) ==
         0);
    must(posix_spawn_file_actions_destroy(&actions) == 0);
    expect_good_end(child, fd);
}

static void by_shell(const char *name, bool intercepted) {
    int fd = begun(intercepted, true);
    char line[PATH_MAX + 64];
    snprintf(line, sizeof line, "'%s' rest %s %s", self, digits, from);
    if (equal(name, "system")) {
        must(FUNCTION(system, name)(line) == 0);
    } else {
        FILE *file = FUNCTION(popen, name)(line, "r");
        must(file != NULL && fgetc(file) == EOF && pclose(file) == 0);
    }
    close(fd);
}

/* What a child has sent arrives, however it ends. */
static void exiting(const char *name, bool intercepted) {
    int fd = open_stream(intercepted);
    command(fd, 'r', BODY);
    pid_t child = fork();
    if (child == 0) {
        send_content(fd, BODY, SEED);
        FUNCTION(_exit, name)(0);
    }
    confirm(fd);
    expect_good_end(child, fd);
}

/* The process that calls ends inside libc, after it has sent something; so does its child, which goes on. */
static void leaving(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), other = open_stream(intercepted);
    command(fd, 'r', BODY);
    command(other, 'r', BODY);
    pid_t child = fork();
    if (child == 0) {
        send_content(fd, BODY, SEED);
        must(FUNCTION(daemon, name)(1, 1) == 0);
        send_content(other, BODY, SEED);
        _exit(0);
    }
    confirm(fd);
    confirm(other);
    close(other);
    expect_good_end(child, fd);
}

static const struct row rows[] = {
    {"_exit", exiting},         {"_Exit", exiting},
    {"execve", executing},      {"execv", executing},
    {"execvp", executing},      {"execvpe", executing},
    {"fexecve", executing},     {"execveat", executing},
    {"execl", executing},       {"execlp", executing},
    {"execle", executing},      {"posix_spawn", spawning},
    {"posix_spawnp", spawning}, {"posix_spawn_file_actions_adddup2", spawning},
    {"system", by_shell},       {"popen", by_shell},
    {"_IO_popen", by_shell},    {"daemon", leaving},
    {"fork", forking},          {"__fork", forking},
};

static void consume(uint16_t port) {
    ROWS(rows, port);
}

int main(int argc, char **argv) {
    if (argc == 4 && equal(argv[1], "rest")) return receive_rest(atoi(argv[2]), (size_t)atoi(argv[3]));
    must(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    return perform(serve_rows, consume);
}
