/* The life of descriptors: accept, connect, duplicates, reuse, ranges that are closed, and the library's own descriptors among them (I7). */
#include "check.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/fds.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/close_range.h>
#include <netinet/in.h>

static int listen_on_loopback(struct sockaddr_in *address) {
    socklen_t length = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    REQUIRE(bind(fd, (struct sockaddr *)address, sizeof *address) == 0 && listen(fd, 8) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)address, &length) == 0);
    return fd;
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

static void check_talk(int from, int to) {
    static char bytes[20000], back[20000];
    fixture_fill((uint8_t *)bytes, sizeof bytes, 1, 0);
    world_send_all(from, bytes, sizeof bytes);
    world_recv_all(to, back, sizeof back, 7000);
    CHECK_MEM_EQ(back, bytes, sizeof bytes);
}

static void accept_gives_address_and_flags_as_the_kernel_does(void) {
    struct sockaddr_in address, peer, own;
    socklen_t length = sizeof peer, own_length = sizeof own;
    int listening = listen_on_loopback(&address), client = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(odb_connect(&world, client, (struct sockaddr *)&address, sizeof address) == 0);
    int server = odb_accept(&world, listening, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    REQUIRE(server >= 0 && getsockname(client, (struct sockaddr *)&own, &own_length) == 0);
    CHECK_EQ(length, sizeof peer);
    CHECK_MEM_EQ(&peer, &own, sizeof own);
    CHECK((fcntl(server, F_GETFL) & O_NONBLOCK) && (fcntl(server, F_GETFD) & FD_CLOEXEC));
    CHECK(odb_fdtable_has(&world.fds, server));
    world_close(server);
    world_close(client);
    client = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(odb_connect(&world, client, (struct sockaddr *)&address, sizeof address) == 0);
    uint8_t small[4] = {0};
    length = 2; /* less room than the address takes: cut, and its full length told */
    server = odb_accept(&world, listening, (struct sockaddr *)(void *)small, &length, 0);
    CHECK_EQ(length, sizeof peer);
    CHECK(small[2] == 0 && small[3] == 0);
    CHECK(!(fcntl(server, F_GETFL) & O_NONBLOCK));
    world_close(server);
    world_close(client);
    world_nonblocking(listening);
    CHECK(odb_accept(&world, listening, NULL, NULL, 0) == -1 && errno == EAGAIN);
    world_close(listening);
    CHECK(odb_accept(&world, listening, NULL, NULL, 0) == -1 && errno == EBADF);
}

static void connection_that_is_refused_is_no_stream_and_may_be_tried_again(void) {
    struct sockaddr_in address, good;
    int closed = listen_on_loopback(&address), client = socket(AF_INET, SOCK_STREAM, 0);
    world_close(closed);
    CHECK(odb_connect(&world, client, (struct sockaddr *)&address, sizeof address) == -1 && errno == ECONNREFUSED);
    CHECK(!odb_fdtable_has(&world.fds, client));
    int listening = listen_on_loopback(&good);
    CHECK_EQ(odb_connect(&world, client, (struct sockaddr *)&good, sizeof good), 0);
    int server = odb_accept(&world, listening, NULL, NULL, 0);
    check_talk(client, server);
    world_close(client);
    world_close(server);
    world_close(listening);
}

/* As nginx does: into epoll and written to before the connection stands. */
static void connection_under_way_keeps_its_descriptor(void) {
    struct sockaddr_in address;
    int listening = listen_on_loopback(&address), client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event event;
    int set = world_set_made(), result = odb_connect(&world, client, (struct sockaddr *)&address, sizeof address);
    CHECK(result == 0 || errno == EINPROGRESS);
    CHECK(odb_fdtable_has(&world.fds, client));
    world_epoll(set, EPOLL_CTL_ADD, client, EPOLLIN | EPOLLOUT | EPOLLET);
    CHECK_EQ(world_wait(set, &event, 1, 5000), 1);
    CHECK(event.data.fd == client && (event.events & EPOLLOUT) && !(event.events & EPOLLIN));
    int server = odb_accept(&world, listening, NULL, NULL, 0);
    check_talk(client, server);
    world_close(client);
    world_close(server);
    world_close(set);
    world_close(listening);
}

static void datagram_sockets_are_left_alone(void) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(9)};
    int datagram = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK_EQ(odb_connect(&world, datagram, (struct sockaddr *)&address, sizeof address), 0);
    CHECK(!odb_fdtable_has(&world.fds, datagram));
    CHECK(odb_connect(&world, datagram, NULL, 0) == -1);
    world_close(datagram);
}

static void duplicates_share_position_in_one_stream(void) {
    int client, server;
    char bytes[6];
    world_connect(&client, &server);
    int same = odb_duplicated(&world, server, dup(server));
    world_send_all(client, "abcdef", 6);
    CHECK_EQ(world_recv(server, bytes, 2, 0), 2);
    CHECK_EQ(world_recv(same, bytes + 2, 2, 0), 2);
    world_close(server);
    CHECK_EQ(world_recv(same, bytes + 4, 2, 0), 2);
    CHECK_MEM_EQ(bytes, "abcdef", 6);
    check_talk(client, same);
    world_close(client);
    CHECK_EQ(world_recv(same, bytes, 1, 0), 0);
    world_close(same);
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
}

static void dup2_over_a_live_stream_replaces_it(void) {
    int client[2], server[2];
    world_connect(&client[0], &server[0]);
    world_connect(&client[1], &server[1]);
    world_send_all(client[0], "old", 3);
    CHECK_EQ(odb_dup2(&world, server[1], server[0], -1), server[0]);
    check_talk(client[1], server[0]);
    CHECK_EQ(odb_dup2(&world, server[0], server[0], -1), server[0]);
    check_talk(client[1], server[1]);
    CHECK(odb_dup2(&world, 999999, server[0], -1) == -1 && errno == EBADF);
    check_talk(server[0], client[1]);
    int plain = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK_EQ(odb_dup2(&world, plain, server[0], O_CLOEXEC), server[0]);
    CHECK(!odb_fdtable_has(&world.fds, server[0]));
    CHECK(world_recv(server[0], (char[1]){0}, 1, 0) == -1 && errno == ENOTSOCK);
    for (int i = 0; i < 2; i++) {
        world_close(client[i]);
        world_close(server[i]);
    }
    close(plain);
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
}

static void reused_number_is_a_new_connection(void) {
    for (int i = 0; i < 20; i++) {
        int client, server;
        world_connect(&client, &server);
        world_send_all(client, "left unread", 11);
        if (i % 2) CHECK_EQ(world_recv(server, (char[3]){0}, 3, 0), 3);
        world_close(server);
        world_close(client);
    }
    int ends[2];
    char byte;
    REQUIRE(pipe(ends) == 0);
    CHECK(!odb_fdtable_has(&world.fds, ends[0]) && !odb_fdtable_has(&world.fds, ends[1]));
    REQUIRE(odb_real.write(ends[1], "x", 1) == 1);
    struct iovec iov = {&byte, 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    CHECK_EQ(odb_receive(&world, ends[0], &message, 0, ODB_FILE_CALL), 1);
    close(ends[0]);
    close(ends[1]);
}

static int internals[4];

static void internal_descriptors_are_out_of_the_applications_reach(void) {
    (void)world_payload(1, 10); /* origin and helper thread run */
    internals[0] = world.driver.set;
    internals[1] = world.driver.wakeup;
    internals[2] = world.origin.listener.fd;
    internals[3] = world.store.memory.fd;
    for (int i = 0; i < 4; i++) {
        if (!CHECK(odb_fds_is_internal(internals[i]))) continue;
        CHECK(internals[i] > 700);
        CHECK(fcntl(internals[i], F_GETFD) & FD_CLOEXEC);
        CHECK(odb_close(&world, internals[i]) == -1 && errno == EBADF);
        CHECK(odb_dup2(&world, 0, internals[i], -1) == -1 && errno == EBUSY);
        CHECK(is_open(internals[i]));
    }
}

static void range_that_is_closed_spares_what_is_ours_and_ends_streams(void) {
    int client, server, low = dup(0), high = fcntl(0, F_DUPFD_CLOEXEC, 700);
    world_connect(&client, &server);
    REQUIRE(high >= 0);
    CHECK_EQ(odb_close_range(&world, (unsigned)low, ~0u, 0), 0);
    CHECK(!is_open(low) && !is_open(client) && !is_open(server) && !is_open(high));
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
    for (int i = 0; i < 4; i++) CHECK(is_open(internals[i]));
    world_connect(&client, &server);
    check_talk(client, server);
    CHECK_EQ(odb_close_range(&world, 3, ~0u, CLOSE_RANGE_CLOEXEC), 0);
    CHECK(fcntl(client, F_GETFD) & FD_CLOEXEC);
    check_talk(client, server);
    CHECK(odb_close_range(&world, 10, 5, 0) == -1 && errno == EINVAL);
    world_close(client);
    world_close(server);
}

static void closing_twice_says_EBADF(void) {
    int client, server;
    world_connect(&client, &server);
    world_close(client);
    CHECK(odb_close(&world, client) == -1 && errno == EBADF);
    CHECK(odb_close(&world, -1) == -1 && errno == EBADF);
    CHECK(odb_shutdown(&world, -1, SHUT_RD) == -1 && errno == EBADF);
    world_close(server);
}

static void calls_on_bad_descriptors_fail_as_without_us(void) {
    char byte = 0;
    off64_t offset = 0;
    CHECK(world_recv(-1, &byte, 1, 0) == -1 && errno == EBADF);
    CHECK(world_send(1 << 21, &byte, 1, 0) == -1 && errno == EBADF);
    CHECK(odb_sendfile(&world, -1, 0, &offset, 1) == -1 && errno == EBADF);
    CHECK(!odb_available(&world, -1, &(int){0}));
    CHECK_EQ(odb_duplicated(&world, 0, -1), -1);
}

static const struct check_case cases[] = {
    CHECK_CASE(accept_gives_address_and_flags_as_the_kernel_does),
    CHECK_CASE(connection_that_is_refused_is_no_stream_and_may_be_tried_again),
    CHECK_CASE(connection_under_way_keeps_its_descriptor),
    CHECK_CASE(datagram_sockets_are_left_alone),
    CHECK_CASE(duplicates_share_position_in_one_stream),
    CHECK_CASE(dup2_over_a_live_stream_replaces_it),
    CHECK_CASE(reused_number_is_a_new_connection),
    CHECK_CASE(internal_descriptors_are_out_of_the_applications_reach),
    CHECK_CASE(range_that_is_closed_spares_what_is_ours_and_ends_streams),
    CHECK_CASE(closing_twice_says_EBADF),
    CHECK_CASE(calls_on_bad_descriptors_fail_as_without_us),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
