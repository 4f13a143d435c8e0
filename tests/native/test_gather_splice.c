/* Parts of a pushed body that a loop relays to a plain connection: they stay on their channel and leave together, spliced; what goes wrong may cost a fetch, never a byte. */
#include "check.h"
#include "core/heap.h"
#include "core/transfer.h"
#include "os/clock.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>

enum { PART = 16384, PARTS = 4, BODY = PART * PARTS, LARGE = 2 * BODY, EDGE = 300, PATIENCE_MS = 30000 };

static int set, near, far;
static uint64_t fetches, spliced, splices, skipped;
static struct odb_span span;
static uint8_t *memory, edge[EDGE];

static struct odb_push *take_push(size_t length) {
    struct odb_span small = world_payload(1, 100);
    for (uint64_t since = odb_clock_ms();;) {
        uint8_t bytes[100];
        struct iovec iov = {bytes, sizeof bytes};
        struct odb_push *push = odb_pushes_take(&world.origin.pushes, 0, length);
        if (push) return push;
        CHECK_EQ(odb_channels_fetch(&world.channels, &small, &iov, 1), 0); /* makes us known */
        sched_yield();
        REQUIRE(odb_clock_ms() - since < PATIENCE_MS);
    }
}

static int channel_of(const struct odb_span *of) {
    return atomic_load(&world.channels.pushed.channel[of->push_channel % ODB_PUSHED_SLOTS].fd);
}

static void await_on_channel(int amount) {
    for (int there = 0; there < amount;) REQUIRE(ioctl(channel_of(&span), FIONREAD, &there) == 0);
}

/* A body is announced as pushed, of which `written` bytes are; its parts are windows. */
static void begin_body(uint32_t seed, size_t length, size_t written) {
    span = world_payload(seed, length);
    struct odb_push *push = take_push(length);
    struct odb_span part = odb_span_part(&span, 0, written);
    span.push_channel = push->number;
    span.push_position = push->position;
    odb_pushes_send(&world.origin.pushes, push, &part, true);
    await_on_channel(written < BODY ? (int)written : BODY); /* the kernel may leave the rest with its sender */
    memory = world_pages(length);
    world_plain(&near, &far);
    set = world_set_made();
    world_epoll(set, EPOLL_CTL_ADD, near, EPOLLOUT | EPOLLET);
    struct epoll_event event;
    CHECK(world_wait(set, &event, 1, 0) >= 0);
    fixture_fill(edge, EDGE, 99, 0);
    fetches = world_count(ODB_STAT_fetches);
    spliced = world_count(ODB_STAT_spliced_bytes);
    splices = world_count(ODB_STAT_splices);
    skipped = world_count(ODB_STAT_push_bytes_skipped);
}

static void begin_with(uint32_t seed, size_t written) {
    begin_body(seed, BODY, written);
}

static void begin(uint32_t seed) {
    begin_with(seed, BODY);
}

static void end(void) {
    odb_free(&world, memory);
    world_close(near);
    odb_real.close(far);
    world_close(set);
}

/* A stream has yielded something; is more of it at hand? */
static void received(bool more) {
    odb_gather_received(&world, -1, more);
}

/* The loop receives a part, as a window on it, and sends it. */
static void relay(int number, bool more) {
    struct odb_span part = odb_span_part(&span, (uint64_t)number * PART, PART);
    uint8_t *at = memory + (size_t)number * PART;
    REQUIRE(odb_windows_map(&world.windows, at, PART, &part) == 0);
    received(more);
    CHECK_EQ(world_send(near, at, PART, 0), PART);
}

static void relay_all(void) {
    for (int i = 0; i < PARTS; i++) relay(i, i + 1 < PARTS);
}

static void arrives(size_t length, uint32_t seed, uint64_t offset) {
    uint8_t *bytes = malloc(length);
    REQUIRE(odb_real.recv(far, bytes, length, MSG_WAITALL) == (ssize_t)length);
    CHECK(fixture_same(bytes, length, seed, offset));
    free(bytes);
}

static void check_counters(uint64_t more_fetches, uint64_t more_spliced) {
    CHECK_EQ(world_count(ODB_STAT_fetches) - fetches, more_fetches);
    CHECK_EQ(world_count(ODB_STAT_spliced_bytes) - spliced, more_spliced);
}

static size_t kept(void) {
    return atomic_load(&world.gather.length);
}

static void next_turn(void) {
    struct epoll_event event;
    CHECK(world_wait(set, &event, 1, 0) >= 0);
}

static void parts_are_spliced_together(void) {
    begin(2);
    for (int i = 0; i < PARTS; i++) {
        relay(i, i + 1 < PARTS);
        CHECK_EQ(kept(), i + 1 < PARTS ? (size_t)(i + 1) * PART : 0);
    }
    arrives(BODY, 2, 0);
    check_counters(0, BODY);
    CHECK_EQ(world_count(ODB_STAT_splices) - splices, 1);
    CHECK(fixture_same(memory, BODY, 2, 0)); /* whoever reads it after all fetches it */
    end();
}

static void the_beginning_of_a_large_body_does_not_wait_for_the_rest(void) {
    int room = 4 * LARGE;
    begin_body(15, LARGE, LARGE);
    REQUIRE(odb_real.setsockopt(near, SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
    for (int i = 0; i <= PARTS; i++) relay(i, true);
    CHECK_EQ(kept(), PART);
    arrives(BODY, 15, 0);
    for (int i = PARTS + 1; i < 2 * PARTS; i++) relay(i, i + 1 < 2 * PARTS);
    CHECK_EQ(kept(), 0);
    arrives(BODY, 15, BODY);
    check_counters(0, LARGE);
    CHECK_EQ(world_count(ODB_STAT_splices) - splices, 2);
    end();
}

/* The kernel charges pages that are spliced with little more than their bytes, and copies with a third more. */
static void a_send_buffer_takes_more_of_what_is_spliced(void) {
    int room = (BODY + BODY / 16) / 2; /* the kernel doubles it */
    begin(16);
    REQUIRE(odb_real.setsockopt(near, SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
    received(true);
    CHECK_EQ(world_send(near, edge, EDGE, 0), EDGE);
    relay_all();
    arrives(EDGE, 99, 0);
    arrives(BODY, 16, 0);
    check_counters(0, BODY);
    CHECK_EQ(world_count(ODB_STAT_splices) - splices, 1);
    uint8_t *copied = malloc(PART);
    fixture_fill(copied, PART, 98, 0);
    for (int i = 0; i < PARTS; i++) {
        received(true);
        CHECK_EQ(world_send(near, copied, PART, 0), PART);
        CHECK_EQ(kept(), i + 1 < PARTS ? (size_t)(i + 1) * PART : 0);
    }
    for (int i = 0; i < PARTS; i++) arrives(PART, 98, 0);
    free(copied);
    end();
}

static void a_header_goes_before_and_other_bytes_behind(void) {
    begin(3);
    received(true);
    CHECK_EQ(world_send(near, edge, EDGE, 0), EDGE);
    for (int i = 0; i < PARTS; i++) relay(i, true);
    odb_gather_more = false;
    CHECK_EQ(world_send(near, edge, EDGE, 0), EDGE);
    CHECK_EQ(kept(), 0);
    arrives(EDGE, 99, 0);
    arrives(BODY, 3, 0);
    arrives(EDGE, 99, 0);
    check_counters(0, BODY);
    end();
}

static void the_next_wait_sends(void) {
    begin(4);
    relay(0, true);
    relay(1, true);
    next_turn();
    CHECK_EQ(kept(), 0);
    arrives(2 * PART, 4, 0);
    check_counters(0, 2 * PART);
    end();
}

static void the_end_of_a_body_is_taken_from_behind_what_is_kept(void) {
    begin(5);
    relay(0, true);
    relay(1, true);
    struct odb_span rest = odb_span_part(&span, 2 * PART, 2 * PART);
    struct iovec iov = {memory + 2 * PART, 2 * PART};
    odb_gather_make_way(&world);
    CHECK_EQ(kept(), 2 * PART);
    CHECK_EQ(odb_channels_fetch(&world.channels, &rest, &iov, 1), 0);
    received(false);
    CHECK_EQ(world_send(near, iov.iov_base, iov.iov_len, 0), 2 * PART);
    CHECK_EQ(kept(), 0);
    arrives(BODY, 5, 0);
    check_counters(0, 2 * PART);
    CHECK_EQ(world_count(ODB_STAT_push_bytes_skipped), skipped);
    end();
}

static void what_is_kept_leaves_rather_than_wait_for_the_channel_to_make_way(void) {
    begin_with(6, PART);
    REQUIRE(odb_real.shutdown(channel_of(&span), SHUT_RD) == 0);
    relay(0, true);
    relay(1, true);
    odb_gather_make_way(&world);
    CHECK_EQ(kept(), 0);
    arrives(2 * PART, 6, 0);
    check_counters(1, PART);
    end();
}

static void a_touch_of_what_is_kept_costs_a_fetch(void) {
    begin(7);
    relay(0, true);
    relay(1, true);
    CHECK_EQ(odb_windows_fault(&world.windows, memory + PART), 1);
    CHECK(fixture_same(memory, 2 * PART, 7, 0));
    next_turn();
    arrives(2 * PART, 7, 0);
    CHECK(world_count(ODB_STAT_fetches) > fetches);
    end();
}

static void a_channel_that_breaks_costs_a_fetch(void) {
    begin_with(8, 2 * PART);
    REQUIRE(odb_real.shutdown(channel_of(&span), SHUT_RD) == 0);
    relay_all();
    arrives(BODY, 8, 0);
    check_counters(1, 2 * PART);
    end();
}

static void a_body_that_is_lost_resets_the_connection(void) {
    uint8_t bytes[PART];
    ssize_t got;
    begin_with(9, PART);
    struct odb_span unknown = world_unknown(BODY);
    unknown.push_channel = span.push_channel;
    unknown.push_position = span.push_position;
    REQUIRE(odb_real.shutdown(channel_of(&span), SHUT_RD) == 0);
    span = unknown;
    relay_all();
    CHECK_EQ(world_send(near, edge, EDGE, 0), -1);
    CHECK_EQ(errno, ECONNRESET);
    while ((got = odb_real.recv(far, bytes, sizeof bytes, 0)) > 0) {
    }
    CHECK(got < 0 && errno == ECONNRESET);
    end();
}

static void set_sigpipe(sighandler_t handler) {
    signal(SIGPIPE, handler);
    odb_pushes_sigpipe_changed(&world.origin.pushes);
}

/* A splice has no MSG_NOSIGNAL, and the program would be killed in a call that is none of its sends. */
static void nothing_stays_on_a_channel_where_a_broken_pipe_kills(void) {
    begin(10);
    set_sigpipe(SIG_DFL);
    relay(0, true);
    CHECK_EQ(kept(), 0);
    arrives(PART, 10, 0);
    set_sigpipe(SIG_IGN);
    end();
}

static void a_socket_that_blocks_is_sent_its_parts_at_once(void) {
    begin(11);
    REQUIRE(odb_real.fcntl(near, F_SETFL, odb_real.fcntl(near, F_GETFL) & ~O_NONBLOCK) == 0);
    relay(0, true);
    CHECK_EQ(kept(), 0);
    arrives(PART, 11, 0);
    end();
}

static void windows_that_are_not_on_a_channel_go_as_they_are(void) {
    begin(12);
    span.push_channel = 0;
    relay(0, true);
    CHECK_EQ(kept(), 0);
    arrives(PART, 12, 0);
    check_counters(1, 0);
    end();
}

static void a_message_that_can_be_kept_in_part_is_not_kept(void) {
    begin(13);
    relay(0, true);
    struct odb_span part = odb_span_part(&span, PART, PART), other = part;
    other.push_channel = 0;
    REQUIRE(odb_windows_map(&world.windows, memory + PART, PART, &part) == 0);
    REQUIRE(odb_windows_map(&world.windows, memory + 2 * PART, PART, &other) == 0);
    received(true);
    CHECK_EQ(world_send(near, memory + PART, 2 * PART, 0), 2 * PART);
    CHECK_EQ(kept(), 0);
    arrives(2 * PART, 13, 0);
    arrives(PART, 13, PART);
    end();
}

static void a_client_that_is_gone_is_told_of(void) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    begin(14);
    relay(0, true);
    REQUIRE(odb_real.setsockopt(far, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    odb_real.close(far);
    struct pollfd gone = {.fd = near, .events = 0};
    REQUIRE(odb_real.poll(&gone, 1, PATIENCE_MS) == 1);
    next_turn();
    CHECK_EQ(world_send(near, edge, EDGE, 0), -1);
    CHECK_EQ(errno, ECONNRESET);
    far = odb_real.socket(AF_INET, SOCK_STREAM, 0);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(parts_are_spliced_together),
    CHECK_CASE(the_beginning_of_a_large_body_does_not_wait_for_the_rest),
    CHECK_CASE(a_send_buffer_takes_more_of_what_is_spliced),
    CHECK_CASE(a_header_goes_before_and_other_bytes_behind),
    CHECK_CASE(the_next_wait_sends),
    CHECK_CASE(the_end_of_a_body_is_taken_from_behind_what_is_kept),
    CHECK_CASE(what_is_kept_leaves_rather_than_wait_for_the_channel_to_make_way),
    CHECK_CASE(a_touch_of_what_is_kept_costs_a_fetch),
    CHECK_CASE(a_channel_that_breaks_costs_a_fetch),
    CHECK_CASE(a_body_that_is_lost_resets_the_connection),
    CHECK_CASE(nothing_stays_on_a_channel_where_a_broken_pipe_kills),
    CHECK_CASE(a_socket_that_blocks_is_sent_its_parts_at_once),
    CHECK_CASE(windows_that_are_not_on_a_channel_go_as_they_are),
    CHECK_CASE(a_message_that_can_be_kept_in_part_is_not_kept),
    CHECK_CASE(a_client_that_is_gone_is_told_of),
};

int main(int argc, char **argv) {
    world_begin((const char *const[]){NULL});
    signal(SIGPIPE, SIG_IGN);
    atomic_store(&world.holds.ticking, true); /* however slow this machine is: the timer counts as armed already */
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
