/* Fetches that are begun when a descriptor arrives: all that one wait reports are under way before the first receive, and whatever the program does then, the bytes are the same. */
#include "check.h"
#include "core/early.h"
#include "core/heap.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#define P ((size_t)ODB_PAGE)

enum { STREAMS = 4, BODY = 5 * (int)ODB_PAGE + 300, LARGE = 2 * (int)ODB_EARLY_BYTES + 777 };

static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";

struct connection {
    int raw, fd;
    uint32_t seed;
    size_t length;
    struct odb_span span;
};

static int set;
static uint8_t *buffer; /* LARGE bytes of heap */

/* A peer has sent a header and the descriptor of a body. */
static struct connection begin_with(struct odb_span span, uint32_t seed) {
    struct connection connection = {.seed = seed, .length = span.length, .span = span};
    uint8_t wire[512];
    size_t length = world_hello(wire);
    length += world_real(wire + length, head, sizeof head - 1);
    length += world_virtual(wire + length, &span, seed, 0, 0);
    world_raw_client(&connection.raw, &connection.fd);
    world_nonblocking(connection.fd);
    world_epoll(set, EPOLL_CTL_ADD, connection.fd, EPOLLIN);
    REQUIRE(odb_real.send(connection.raw, wire, length, MSG_NOSIGNAL) == (ssize_t)length);
    return connection;
}

static struct connection begin(uint32_t seed, size_t length) {
    return begin_with(world_payload(seed, length), seed);
}

static void end(const struct connection *connection) {
    world_close(connection->raw);
    world_close(connection->fd);
}

static void await(int streams) {
    struct epoll_event events[2 * STREAMS];
    int ready;
    do ready = world_wait(set, events, 2 * STREAMS, -1);
    while (ready < streams);
}

/* Receives `length` bytes, `room` at most at a time. False: something else came. */
static bool receive(const struct connection *connection, size_t length, size_t room) {
    for (size_t done = 0; done < length;) {
        size_t wanted = length - done < room ? length - done : room;
        ssize_t got = world_recv(connection->fd, buffer + done, wanted, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            await(1);
        else if (got <= 0)
            return false;
        else
            done += (size_t)got;
    }
    return true;
}

static bool body_is_right(const struct connection *connection, size_t from, size_t length, size_t room) {
    return receive(connection, length, room) && world_same(buffer, length, connection->seed, from);
}

static bool all_is_right(const struct connection *connection, size_t room) {
    return receive(connection, sizeof head - 1, room) && memcmp(buffer, head, sizeof head - 1) == 0 &&
           body_is_right(connection, 0, connection->length, room);
}

static uint32_t under_way(void) {
    return atomic_load(&world.channels.early);
}

static void all_that_a_wait_reports_is_asked_for_before_the_first_receive(void) {
    struct connection connections[STREAMS];
    uint64_t fetches = world_count(ODB_STAT_fetches), bytes = world_count(ODB_STAT_fetch_bytes);
    for (uint32_t i = 0; i < STREAMS; i++) connections[i] = begin(i + 1, BODY);
    await(STREAMS);
    CHECK_EQ(world_count(ODB_STAT_fetches) - fetches, STREAMS);
    CHECK_EQ(under_way(), STREAMS);
    for (int i = 0; i < STREAMS; i++) CHECK(all_is_right(&connections[i], 4 * P));
    CHECK_EQ(world_count(ODB_STAT_fetches) - fetches, STREAMS);
    CHECK_EQ(world_count(ODB_STAT_fetch_bytes) - bytes, (uint64_t)STREAMS * BODY);
    CHECK_EQ(under_way(), 0);
    for (int i = 0; i < STREAMS; i++) end(&connections[i]);
}

static void bodies_of_any_length_arrive_in_buffers_of_any_size(void) {
    const size_t lengths[] = {P, P + 1, ODB_EARLY_BYTES, ODB_EARLY_BYTES + 1, LARGE};
    const size_t rooms[] = {4 * P, 4 * P - 258, 1000, LARGE};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (size_t j = 0; j < sizeof rooms / sizeof *rooms; j++) {
            struct connection connection = begin((uint32_t)(10 + i), lengths[i]);
            await(1);
            CHECK(all_is_right(&connection, rooms[j]));
            CHECK_EQ(under_way(), 0);
            end(&connection);
        }
}

/* On a connection that is new, and whose window the kernel would open only as bytes are taken. */
static void answer_comes_whole_before_any_of_it_is_taken(void) {
    odb_channels_after_fork_child(&world.channels);
    struct connection connection = begin(15, ODB_EARLY_BYTES);
    int channel = -1, queued = 0;
    await(1);
    for (size_t i = 0; i < ODB_CHANNEL_SLOTS && channel < 0; i++) channel = atomic_load(&world.channels.slots[i].fd);
    REQUIRE(channel >= 0);
    while (queued < (int)ODB_EARLY_BYTES) { /* nothing reports this; a test that hangs is ended */
        REQUIRE(odb_real.ioctl(channel, FIONREAD, &queued) == 0);
        sched_yield();
    }
    CHECK(all_is_right(&connection, 4 * P));
    end(&connection);
}

static void fetch_that_nobody_takes_ends_with_its_connection(void) {
    struct connection given_up = begin(20, BODY), kept = begin(21, BODY);
    await(2);
    CHECK_EQ(under_way(), 2);
    end(&given_up);
    CHECK_EQ(under_way(), 1);
    CHECK(all_is_right(&kept, 4 * P));
    end(&kept);
    struct connection next = begin(22, BODY);
    await(1);
    CHECK(all_is_right(&next, 4 * P));
    end(&next);
}

static void bytes_behind_skipped_ones_are_the_right_ones(void) {
    struct connection connection = begin(30, BODY);
    await(1);
    CHECK(receive(&connection, sizeof head - 1, 100));
    CHECK(body_is_right(&connection, 0, P, P));
    CHECK_EQ(world_recv(connection.fd, buffer, P, MSG_DONTWAIT | MSG_TRUNC), (ssize_t)P);
    CHECK(body_is_right(&connection, 2 * P, BODY - 2 * P, 3000));
    CHECK_EQ(under_way(), 0);
    end(&connection);
}

static void bytes_that_were_shown_come_again(void) {
    struct connection connection = begin(31, BODY);
    await(1);
    CHECK(receive(&connection, sizeof head - 1, 100));
    CHECK(world_recv(connection.fd, buffer, P, MSG_DONTWAIT | MSG_PEEK) > 0);
    CHECK(body_is_right(&connection, 0, BODY, 3 * P));
    CHECK_EQ(under_way(), 0);
    end(&connection);
}

/* As when the origin has closed an idle channel, or has been restarted. */
static void fetch_that_breaks_off_is_done_again(void) {
    struct connection connection = begin(40, BODY);
    await(1);
    CHECK(receive(&connection, sizeof head - 1, 100));
    CHECK(body_is_right(&connection, 0, P, P));
    for (size_t i = 0; i < ODB_CHANNEL_SLOTS; i++) {
        int fd = atomic_load(&world.channels.slots[i].fd);
        if (fd >= 0) odb_real.shutdown(fd, SHUT_RDWR);
    }
    CHECK(body_is_right(&connection, P, BODY - P, 2 * P));
    CHECK_EQ(under_way(), 0);
    end(&connection);
}

static void lost_payload_resets_the_connection(void) {
    struct connection connection = begin_with(world_unknown(BODY), 0);
    uint64_t resets = world_count(ODB_STAT_resets);
    await(1);
    CHECK(receive(&connection, sizeof head - 1, sizeof head - 1));
    CHECK(world_recv(connection.fd, buffer, 4 * P, MSG_DONTWAIT) == -1 && errno == ECONNRESET);
    CHECK_EQ(world_count(ODB_STAT_resets) - resets, 1);
    CHECK_EQ(under_way(), 0);
    end(&connection);
}

static void forked_child_leaves_its_parents_fetches_alone(void) {
    struct connection connection = begin(50, BODY);
    int status = -1;
    await(1);
    odb_runtime_before_fork(&world);
    pid_t child = fork();
    if (child == 0) {
        odb_runtime_after_fork_child(&world);
        world_close(connection.fd);
        _exit(under_way() == 0 ? 0 : 1);
    }
    odb_runtime_after_fork_parent(&world);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_EQ(under_way(), 1);
    CHECK(all_is_right(&connection, 4 * P));
    CHECK_EQ(under_way(), 0);
    end(&connection);
}

static void nothing_is_asked_for_where_bodies_are_mapped_or_pushed(void) {
    uint64_t fetches = world_count(ODB_STAT_fetches);
    const char *const others[][2] = {{"delivery", "window"}, {"strategy", "direct"}};
    for (size_t i = 0; i < 2; i++) {
        world_set(others[i][0], others[i][1]);
        struct connection connection = begin(60, BODY);
        await(1);
        CHECK_EQ(under_way(), 0);
        end(&connection);
        world_set("delivery", "fetch");
        world_set("strategy", "dynamic");
    }
    CHECK_EQ(world_count(ODB_STAT_fetches), fetches);
}

static const struct check_case cases[] = {
    CHECK_CASE(all_that_a_wait_reports_is_asked_for_before_the_first_receive),
    CHECK_CASE(bodies_of_any_length_arrive_in_buffers_of_any_size),
    CHECK_CASE(answer_comes_whole_before_any_of_it_is_taken),
    CHECK_CASE(fetch_that_nobody_takes_ends_with_its_connection),
    CHECK_CASE(bytes_behind_skipped_ones_are_the_right_ones),
    CHECK_CASE(bytes_that_were_shown_come_again),
    CHECK_CASE(fetch_that_breaks_off_is_done_again),
    CHECK_CASE(lost_payload_resets_the_connection),
    CHECK_CASE(forked_child_leaves_its_parents_fetches_alone),
    CHECK_CASE(nothing_is_asked_for_where_bodies_are_mapped_or_pushed),
};

int main(int argc, char **argv) {
    world_begin((const char *const[]){"strategy=dynamic", "delivery=fetch", NULL});
    set = world_set_made();
    buffer = world_pages(LARGE);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
