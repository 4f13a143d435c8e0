/* Streams that two processes have in common: what becomes of them when there is no second one after all, and when one believes that it ends and does not. */
#include "check.h"
#include "core/sharing.h"
#include "os/real.h"
#include "support/world.h"

#include <errno.h>
#include <sys/wait.h>

static void tell(int fd) {
    REQUIRE(odb_real.write(fd, "!", 1) == 1);
}

static void await(int fd) {
    char byte;
    REQUIRE(odb_real.read(fd, &byte, 1) == 1);
}

/* Both ends speak frames, and each has received. */
static void connect_used(int *client, int *server) {
    char bytes[2];
    world_connect(client, server);
    world_send_all(*client, "ab", 2);
    world_recv_all(*server, bytes, 2, 2);
    world_send_all(*server, "cd", 2);
    world_recv_all(*client, bytes, 2, 2);
}

static void exchange(int one, int other) {
    char bytes[3];
    world_send_all(one, "xyz", 3);
    world_recv_all(other, bytes, 3, 3);
    CHECK_MEM_EQ(bytes, "xyz", 3);
}

static void fork_that_fails_leaves_nothing_shared(void) {
    int client, server;
    connect_used(&client, &server);
    odb_runtime_before_fork(&world);
    odb_runtime_after_fork_parent(&world);
    CHECK(world_stream(client)->sharing && world_stream(server)->sharing);
    odb_sharing_after_failed_fork(&world.fds);
    exchange(client, server);
    exchange(server, client);
    CHECK(!world_stream(client)->sharing && !world_stream(server)->sharing);
    world_close(client);
    world_close(server);
}

/* In the child. 0: as it must be. */
static int fail_to_exec(int used, int unused, int from_parent, int to_parent) {
    char byte;
    odb_sharing_before_end(&world.fds);
    tell(to_parent);
    await(from_parent);
    odb_sharing_after_failed_exec(&world.fds);
    if (world_send(used, "?", 1, MSG_NOSIGNAL) != -1 || errno != ECONNRESET) return 1;
    if (world_recv(used, &byte, 1, MSG_DONTWAIT) != -1 || errno != ECONNRESET) return 2;
    return world_send(unused, "!", 1, MSG_NOSIGNAL) == 1 ? 0 : 3;
}

static void failed_exec_does_not_disturb_who_had_the_stream_alone_meanwhile(void) {
    int client, server, other, other_server, down[2], up[2], status;
    char byte;
    connect_used(&client, &server);
    connect_used(&other, &other_server);
    REQUIRE(pipe(down) == 0 && pipe(up) == 0);
    odb_runtime_before_fork(&world);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        odb_runtime_after_fork_child(&world);
        _exit(fail_to_exec(client, other, down[0], up[1]));
    }
    odb_runtime_after_fork_parent(&world);
    await(up[0]);
    exchange(client, server);
    exchange(server, client);
    CHECK(!world_stream(client)->sharing);
    CHECK(world_stream(other)->sharing != NULL);
    tell(down[1]);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    exchange(client, server);
    exchange(server, client);
    world_recv_all(other_server, &byte, 1, 1);
    CHECK_EQ(byte, '!');
    exchange(other, other_server);
    int fds[] = {client, server, other, other_server, down[0], down[1], up[0], up[1]};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) world_close(fds[i]);
}

static const struct check_case cases[] = {
    CHECK_CASE(fork_that_fails_leaves_nothing_shared),
    CHECK_CASE(failed_exec_does_not_disturb_who_had_the_stream_alone_meanwhile),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
