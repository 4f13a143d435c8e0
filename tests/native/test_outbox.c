/* Sockets that are really full: parking, flushing by the helper thread, close and shutdown behind it, bounds, blocking writers (I5). */
#include "check.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/clock.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <pthread.h>
#include <sys/time.h>

enum { SMALL = 16 * 1024, LARGE = 4 << 20, PARKED_BOUND = (256 << 10) + 8 };

static uint8_t source[LARGE], target[LARGE];

static void small_buffers(int fd) {
    int size = SMALL;
    REQUIRE(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0);
}

static void connect_small(int *client, int *server) {
    world_connect(client, server);
    small_buffers(*client);
    small_buffers(*server);
}

/* Writes until the socket takes no more; returns what was accepted. */
static size_t fill(int fd, size_t per_call) {
    size_t done = 0;
    for (;;) {
        size_t length = LARGE - done < per_call ? LARGE - done : per_call;
        REQUIRE(length > 0);
        ssize_t sent = world_send(fd, source + done, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            CHECK_EQ(errno, EAGAIN);
            return done;
        }
        done += (size_t)sent;
    }
}

/* Everything up to the end; its length. */
static size_t drain(int fd) {
    size_t done = 0;
    for (;;) {
        ssize_t got = world_recv(fd, target + done, LARGE - done, 0);
        REQUIRE(got >= 0);
        if (got == 0) return done;
        done += (size_t)got;
    }
}

static void writer_that_is_not_read_is_stopped_within_a_bound(void) {
    for (size_t per_call = 100; per_call <= LARGE; per_call *= 200) {
        int client, server;
        connect_small(&client, &server);
        size_t accepted = fill(client, per_call);
        struct odb_outbox *out = &world_stream(client)->out;
        odb_lock_take(&out->lock);
        CHECK(out->end - out->begin <= PARKED_BOUND);
        odb_lock_drop(&out->lock);
        CHECK(accepted < (1 << 20));
        world_close(client);
        CHECK_EQ(drain(server), accepted);
        CHECK_MEM_EQ(target, source, accepted);
        world_close(server);
    }
}

static void socket_with_room_again_takes_more_in_order(void) {
    int client, server;
    size_t done = 0, got = 0;
    struct pollfd room;
    connect_small(&client, &server);
    room = (struct pollfd){.fd = client, .events = POLLOUT};
    while (done < LARGE) {
        ssize_t sent = world_send(client, source + done, LARGE - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            done += (size_t)sent;
            continue;
        }
        REQUIRE(errno == EAGAIN);
        do {
            ssize_t more = world_recv(server, target + got, 30000, 0);
            REQUIRE(more > 0);
            got += (size_t)more;
        } while (odb_real.poll(&room, 1, 0) == 0); /* I5: room is signalled again */
    }
    world_close(client);
    while (got < LARGE) {
        ssize_t more = world_recv(server, target + got, LARGE - got, 0);
        REQUIRE(more > 0);
        got += (size_t)more;
    }
    CHECK_EQ(world_recv(server, target, 1, 0), 0);
    CHECK_MEM_EQ(target, source, LARGE);
    world_close(server);
}

static void close_behind_parked_bytes_loses_none_of_them(void) {
    int client, server;
    connect_small(&client, &server);
    size_t accepted = fill(client, LARGE);
    CHECK(atomic_load(&world.fds.outboxes.waiting) > 0);
    world_close(client);
    CHECK_EQ(drain(server), accepted);
    CHECK_MEM_EQ(target, source, accepted);
    world_close(server);
}

static void descriptor_closed_behind_parked_bytes_can_be_another_connection_at_once(void) {
    int client, server, other, peer;
    char bytes[5];
    connect_small(&client, &server);
    size_t accepted = fill(client, LARGE);
    world_close(client);
    world_connect(&other, &peer);
    world_send_all(other, "other", 5);
    world_recv_all(peer, bytes, 5, 5);
    CHECK_MEM_EQ(bytes, "other", 5);
    CHECK_EQ(drain(server), accepted);
    CHECK_MEM_EQ(target, source, accepted);
    world_close(other);
    world_close(peer);
    world_close(server);
}

static void shutdown_behind_parked_bytes_comes_after_them(void) {
    int client, server;
    char byte;
    connect_small(&client, &server);
    size_t accepted = fill(client, LARGE);
    CHECK_EQ(odb_shutdown(&world, client, SHUT_WR), 0);
    CHECK_EQ(drain(server), accepted);
    CHECK_MEM_EQ(target, source, accepted);
    world_send_all(server, "!", 1); /* the other direction is still open */
    CHECK_EQ(world_recv(client, &byte, 1, 0), 1);
    world_close(client);
    world_close(server);
}

static void shutdown_of_an_empty_outbox_is_at_once(void) {
    int client, server;
    char bytes[3];
    world_connect(&client, &server);
    world_send_all(client, "abc", 3);
    CHECK_EQ(odb_shutdown(&world, client, SHUT_WR), 0);
    world_recv_all(server, bytes, 3, 3);
    CHECK_EQ(world_recv(server, bytes, 3, 0), 0);
    CHECK(world_send(client, "d", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    world_close(client);
    world_close(server);
}

static void peer_that_goes_away_is_reported_by_the_next_write(void) {
    int client, server;
    connect_small(&client, &server);
    fill(client, LARGE);
    world_close(server); /* with unread bytes: a reset */
    ssize_t sent;
    struct pollfd end = {.fd = client, .events = POLLOUT};
    REQUIRE(odb_real.poll(&end, 1, 5000) == 1);
    do sent = world_send(client, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent == -1 && errno == EAGAIN);
    CHECK(sent == -1 && (errno == EPIPE || errno == ECONNRESET));
    CHECK(world_send(client, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 && errno == EPIPE);
    world_close(client);
}

static void *write_blocking(void *context) {
    int fd = *(int *)context;
    struct iovec iov[3] = {
        {source, 1000}, {source + 1000, LARGE / 2}, {source + 1000 + LARGE / 2, LARGE - LARGE / 2 - 1000}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 3};
    CHECK_EQ(odb_send(&world, fd, &message, MSG_NOSIGNAL, ODB_SOCKET_CALL), LARGE);
    return NULL;
}

static void blocking_write_returns_when_all_is_accepted(void) {
    int client, server;
    pthread_t writer;
    connect_small(&client, &server);
    REQUIRE(pthread_create(&writer, NULL, write_blocking, &client) == 0);
    for (size_t got = 0; got < LARGE;) {
        ssize_t more = world_recv(server, target + got, 12345, 0);
        REQUIRE(more > 0);
        got += (size_t)more;
    }
    REQUIRE(pthread_join(writer, NULL) == 0);
    CHECK_MEM_EQ(target, source, LARGE);
    world_close(client);
    world_close(server);
}

static void send_timeout_ends_a_blocking_write(void) {
    int client, server;
    struct timeval patience = {.tv_usec = 30000};
    connect_small(&client, &server);
    REQUIRE(setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0);
    ssize_t sent = world_send(client, source, LARGE, MSG_NOSIGNAL);
    CHECK(sent > 0 && sent < LARGE);
    uint64_t before = odb_clock_ms();
    CHECK(world_send(client, source + sent, (size_t)(LARGE - sent), MSG_NOSIGNAL) == -1 && errno == EAGAIN);
    CHECK(odb_clock_ms() - before >= 20);
    world_close(client);
    CHECK_EQ(drain(server), sent);
    world_close(server);
}

static void process_that_ends_waits_until_parked_bytes_have_left(void) {
    int client, server;
    connect_small(&client, &server);
    fill(client, LARGE);
    world_set("drain_ms", "50");
    uint64_t before = odb_clock_ms();
    odb_runtime_drain(&world); /* nobody reads: not for ever */
    CHECK(odb_clock_ms() - before < 1000);
    CHECK(atomic_load(&world.fds.outboxes.waiting) > 0);
    world_close(client);
    drain(server);
    world_set("drain_ms", "2000");
    odb_runtime_drain(&world);
    CHECK_EQ(atomic_load(&world.fds.outboxes.waiting), 0);
    world_close(server);
}

static void nothing_is_left_behind(void) {
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
}

static const struct check_case cases[] = {
    CHECK_CASE(writer_that_is_not_read_is_stopped_within_a_bound),
    CHECK_CASE(socket_with_room_again_takes_more_in_order),
    CHECK_CASE(close_behind_parked_bytes_loses_none_of_them),
    CHECK_CASE(descriptor_closed_behind_parked_bytes_can_be_another_connection_at_once),
    CHECK_CASE(shutdown_behind_parked_bytes_comes_after_them),
    CHECK_CASE(shutdown_of_an_empty_outbox_is_at_once),
    CHECK_CASE(peer_that_goes_away_is_reported_by_the_next_write),
    CHECK_CASE(blocking_write_returns_when_all_is_accepted),
    CHECK_CASE(send_timeout_ends_a_blocking_write),
    CHECK_CASE(process_that_ends_waits_until_parked_bytes_have_left),
    CHECK_CASE(nothing_is_left_behind),
};

int main(int argc, char **argv) {
    world_begin((const char *const[]){"capture=file", NULL}); /* real bytes fill sockets */
    atomic_store(&world.windows.threads, true);
    fixture_fill(source, sizeof source, 1, 0);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
