/* The registry of listening sockets: whose entries count, and what makes them stale. */
#include "check.h"

#include "core/registry.h"
#include "os/real.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = "/tmp/odb-registry-XXXXXX";

static const uint8_t v4_loopback[16] = {[10] = 0xff, 0xff, 127, 0, 0, 1};
static const uint8_t v4_other[16] = {[10] = 0xff, 0xff, 127, 0, 0, 2};
static const uint8_t v6_loopback[16] = {[15] = 1};

static uint16_t port_of(int fd) {
    struct sockaddr_in6 local;
    socklen_t length = sizeof local;
    REQUIRE(getsockname(fd, (struct sockaddr *)&local, &length) == 0);
    return ntohs(local.sin6_port); /* in the same place for both families */
}

/* Port 0: any. */
static int listen_v4(uint32_t address, uint16_t port) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
    REQUIRE(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
    REQUIRE(bind(fd, (struct sockaddr *)&local, sizeof local) == 0 && listen(fd, 8) == 0);
    return fd;
}

static bool speaks(const uint8_t address[16], uint16_t port) {
    return odb_registry_speaks(directory, address, port);
}

static int count_entries(void) {
    char path[sizeof directory + 16];
    struct dirent *found;
    int count = 0;
    snprintf(path, sizeof path, "%s/listen", directory);
    DIR *open_directory = opendir(path);
    while (open_directory != NULL && (found = readdir(open_directory)) != NULL) {
        count += found->d_name[0] != '.' ? 1 : 0;
    }
    if (open_directory != NULL) {
        closedir(open_directory);
    }
    return count;
}

static void entry_path(char *out, size_t room, int listener) {
    struct stat space, socket_status;
    REQUIRE(stat("/proc/self/ns/net", &space) == 0 && fstat(listener, &socket_status) == 0);
    snprintf(out, room, "%s/listen/%llu.%u.%llu", directory, (unsigned long long)space.st_ino, port_of(listener),
             (unsigned long long)socket_status.st_ino);
}

static void entered_socket_speaks_until_it_leaves(void) {
    int fd = listen_v4(INADDR_LOOPBACK, 0);
    uint16_t port = port_of(fd);
    CHECK(!speaks(v4_loopback, port));
    int entry = odb_registry_enter(directory, fd);
    REQUIRE(entry >= 0);
    CHECK(speaks(v4_loopback, port));
    CHECK(!speaks(v4_other, port));
    CHECK(!speaks(v6_loopback, port));
    CHECK(!speaks(v4_loopback, (uint16_t)(port + 1)));
    odb_registry_leave(entry);
    CHECK(!speaks(v4_loopback, port));
    CHECK_EQ(count_entries(), 0);
    close(fd);
}

static void unspecified_address_stands_for_all(void) {
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    int fd = listen_v4(INADDR_ANY, 0), entry = odb_registry_enter(directory, fd);
    CHECK(speaks(v4_loopback, port_of(fd)));
    CHECK(speaks(v4_other, port_of(fd)));
    odb_registry_leave(entry);
    close(fd);
    fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) != 0 || listen(fd, 8) != 0) {
        CHECK_SKIP("no IPv6");
        return;
    }
    entry = odb_registry_enter(directory, fd);
    CHECK(speaks(v4_loopback, port_of(fd)));
    CHECK(speaks(v6_loopback, port_of(fd)));
    odb_registry_leave(entry);
    close(fd);
}

static void one_classic_socket_on_the_port_makes_it_a_no(void) {
    int fd = listen_v4(INADDR_ANY, 0), entry = odb_registry_enter(directory, fd);
    int classic = listen_v4(INADDR_ANY, port_of(fd));
    CHECK(!speaks(v4_loopback, port_of(fd)));
    close(classic);
    CHECK(speaks(v4_loopback, port_of(fd)));
    classic = listen_v4(INADDR_LOOPBACK + 1, port_of(fd));
    CHECK(speaks(v4_loopback, port_of(fd)));
    CHECK(!speaks(v4_other, port_of(fd)));
    close(classic);
    odb_registry_leave(entry);
    close(fd);
}

static void entry_of_a_socket_that_listens_no_more_is_worth_nothing(void) {
    int fd = listen_v4(INADDR_LOOPBACK, 0), entry = odb_registry_enter(directory, fd);
    uint16_t port = port_of(fd);
    close(fd);
    CHECK(!speaks(v4_loopback, port));
    fd = listen_v4(INADDR_LOOPBACK, port); /* the port has changed hands */
    CHECK(!speaks(v4_loopback, port));
    odb_registry_leave(entry);
    close(fd);
}

static void stale_entries_are_ignored_and_removed(void) {
    char path[256];
    int fd = listen_v4(INADDR_LOOPBACK, 0), entry = odb_registry_enter(directory, fd);
    odb_registry_leave(entry);
    entry_path(path, sizeof path, fd);
    FILE *stale = fopen(path, "w");
    REQUIRE(stale != NULL);
    fclose(stale);
    CHECK(!speaks(v4_loopback, port_of(fd)));
    CHECK_EQ(count_entries(), 0);
    snprintf(path, sizeof path, "%s/listen/1.2.3", directory);
    stale = fopen(path, "w");
    REQUIRE(stale != NULL);
    fclose(stale);
    entry = odb_registry_enter(directory, fd);
    CHECK_EQ(count_entries(), 2);
    odb_registry_prune(directory);
    CHECK_EQ(count_entries(), 1);
    CHECK(speaks(v4_loopback, port_of(fd)));
    odb_registry_leave(entry);
    close(fd);
}

static void entry_made_by_a_stranger_does_not_count(void) {
    char path[256];
    int fd = listen_v4(INADDR_LOOPBACK, 0), entry = odb_registry_enter(directory, fd);
    if (geteuid() != 0) {
        CHECK_SKIP("giving files away needs root");
        return;
    }
    entry_path(path, sizeof path, fd);
    REQUIRE(chown(path, 12345, 12345) == 0);
    CHECK(!speaks(v4_loopback, port_of(fd)));
    REQUIRE(chown(path, 0, 0) == 0);
    CHECK(speaks(v4_loopback, port_of(fd)));
    odb_registry_leave(entry);
    close(fd);
}

static void several_holders_keep_an_entry_together(void) {
    int fd = listen_v4(INADDR_LOOPBACK, 0);
    int first = odb_registry_enter(directory, fd), second = odb_registry_enter(directory, fd);
    odb_registry_leave(first);
    CHECK(speaks(v4_loopback, port_of(fd)));
    odb_registry_leave(second);
    CHECK(!speaks(v4_loopback, port_of(fd)));
    close(fd);
}

/* A child that holds what it inherited until its input ends; `program` is started in it first, if not null. */
static pid_t hold_in_child(int *input, int *output, const char *program) {
    int in[2], out[2];
    char byte = 'x';
    REQUIRE(pipe(in) == 0 && pipe(out) == 0);
    pid_t child = fork();
    if (child == 0) {
        close(in[1]);
        close(out[0]);
        if (program != NULL) {
            dup2(in[0], STDIN_FILENO);
            dup2(out[1], STDOUT_FILENO);
            execl(program, program, (char *)NULL);
            _exit(127);
        }
        _exit(write(out[1], &byte, 1) == 1 && read(in[0], &byte, 1) == 0 ? 0 : 1);
    }
    REQUIRE(child > 0);
    close(in[0]);
    close(out[1]);
    *input = in[1];
    *output = out[0];
    return child;
}

static void let_go(pid_t child, int input, int output) {
    int status;
    close(input);
    close(output);
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
}

static void child_of_fork_keeps_the_entry_of_a_parent_that_has_gone(void) {
    int input, output, fd = listen_v4(INADDR_LOOPBACK, 0), entry = odb_registry_enter(directory, fd);
    char byte;
    pid_t child = hold_in_child(&input, &output, NULL);
    REQUIRE(read(output, &byte, 1) == 1);
    odb_registry_leave(entry);
    CHECK(speaks(v4_loopback, port_of(fd)));
    let_go(child, input, output);
    CHECK(!speaks(v4_loopback, port_of(fd)));
    CHECK_EQ(count_entries(), 0);
    close(fd);
}

static void program_that_inherits_the_socket_alone_does_not_speak(void) {
    int input, output, fd = listen_v4(INADDR_LOOPBACK, 0), entry = odb_registry_enter(directory, fd);
    char byte = 'y';
    pid_t child = hold_in_child(&input, &output, "/bin/cat");
    REQUIRE(write(input, &byte, 1) == 1 && read(output, &byte, 1) == 1); /* exec has happened */
    CHECK(speaks(v4_loopback, port_of(fd)));
    odb_registry_leave(entry);
    CHECK(!speaks(v4_loopback, port_of(fd)));
    let_go(child, input, output);
    close(fd);
}

static void directory_that_cannot_be_used_leaves_sockets_unentered(void) {
    int fd = listen_v4(INADDR_LOOPBACK, 0);
    CHECK_EQ(odb_registry_enter("/proc/no-such-directory", fd), -1);
    CHECK(!odb_registry_speaks("/proc/no-such-directory", v4_loopback, port_of(fd)));
    odb_registry_prune("/proc/no-such-directory");
    close(fd);
}

static const struct check_case cases[] = {
    CHECK_CASE(entered_socket_speaks_until_it_leaves),
    CHECK_CASE(unspecified_address_stands_for_all),
    CHECK_CASE(one_classic_socket_on_the_port_makes_it_a_no),
    CHECK_CASE(entry_of_a_socket_that_listens_no_more_is_worth_nothing),
    CHECK_CASE(stale_entries_are_ignored_and_removed),
    CHECK_CASE(entry_made_by_a_stranger_does_not_count),
    CHECK_CASE(several_holders_keep_an_entry_together),
    CHECK_CASE(child_of_fork_keeps_the_entry_of_a_parent_that_has_gone),
    CHECK_CASE(program_that_inherits_the_socket_alone_does_not_speak),
    CHECK_CASE(directory_that_cannot_be_used_leaves_sockets_unentered),
};

int main(int argc, char **argv) {
    char path[sizeof directory + 16];
    alarm(60);
    REQUIRE(odb_real_load() && mkdtemp(directory) != NULL);
    int status = check_run(cases, sizeof cases / sizeof cases[0], argc, argv);
    snprintf(path, sizeof path, "%s/listen", directory);
    rmdir(path);
    rmdir(directory);
    return status;
}
