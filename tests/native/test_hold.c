/* Sends of an event loop that are held: what they become on the wire, and when they leave. */
#include "core/heap.h"
#include "core/sockopt.h"
#include "core/waiting.h"
#include "hold_fixture.h"

#include <netinet/in.h>
#include <linux/tcp.h>

#define P ((size_t)ODB_PAGE)

static void sends_of_a_turn_leave_as_one_segment_with_the_next_wait(void) {
    begin();
    unsigned before = world_segments(client);
    say("header, ");
    say("a little more, ");
    say("and an end");
    CHECK_EQ(world_segments(client), before);
    CHECK_EQ(held_now(), ODB_WIRE_HEADER_SIZE + strlen("header, a little more, and an end")); /* one frame */
    next_turn();
    CHECK_EQ(world_segments(client), before + 1);
    CHECK_EQ(world_count(ODB_STAT_sends_held), 3);
    hear("header, a little more, and an end");
    end();
}

static uint8_t *mapped(const struct odb_span *span, size_t from, size_t length) {
    uint8_t *pages = world_pages(length);
    struct odb_span part = odb_span_part(span, from, length);
    REQUIRE(odb_windows_map(&world.windows, pages, length, &part) == 0);
    return pages;
}

/* As an intermediary with small buffers sends what it has received into them. */
static void spans_that_go_on_become_one_descriptor(void) {
    enum { PARTS = 5 };
    struct odb_span span = world_payload(1, PARTS * 2 * P), other = world_payload(2, 2 * P);
    for (int coalesce = 1; coalesce >= 0; coalesce--) {
        world_set("coalesce", coalesce ? "on" : "off");
        begin();
        size_t frame = ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE;
        uint8_t *parts[PARTS + 1], *got = world_pages(PARTS * 2 * P);
        for (size_t i = 0; i < PARTS; i++) parts[i] = mapped(&span, i * 2 * P, 2 * P);
        parts[PARTS] = mapped(&other, 0, 2 * P);
        for (size_t i = 0; i <= PARTS; i++) CHECK_EQ(world_send(client, parts[i], 2 * P, 0), 2 * P);
        say("tail");
        CHECK_EQ(held_now(), (coalesce ? 2 : PARTS + 1) * frame + ODB_WIRE_HEADER_SIZE + 4);
        for (size_t i = 0; i <= PARTS; i++) odb_free(&world, parts[i]);
        next_turn();
        world_recv_all(server, got, PARTS * 2 * P, PARTS * 2 * P);
        CHECK(world_same(got, PARTS * 2 * P, 1, 0));
        world_recv_all(server, got, 2 * P, 2 * P);
        CHECK(world_same(got, 2 * P, 2, 0));
        hear("tail");
        odb_free(&world, got);
        end();
    }
    world_set("coalesce", "on");
}

static void spans_that_do_not_go_on_stay_apart(void) {
    struct odb_span span = world_payload(3, 8 * P);
    static const size_t from[] = {2, 4, 0, 4, 6};
    begin();
    uint8_t *got = world_pages(2 * P);
    for (size_t i = 0; i < 5; i++) {
        uint8_t *pages = mapped(&span, from[i] * P, 2 * P);
        CHECK_EQ(world_send(client, pages, 2 * P, 0), 2 * P);
        if (i == 3) say("between");
        odb_free(&world, pages);
    }
    next_turn();
    for (size_t i = 0; i < 5; i++) {
        world_recv_all(server, got, 2 * P, 2 * P);
        CHECK(world_same(got, 2 * P, 3, from[i] * P));
        if (i == 3) hear("between");
    }
    odb_free(&world, got);
    end();
}

static void large_send_takes_what_is_held_along(void) {
    static uint8_t large[200000], got[200000];
    begin();
    fixture_fill(large, sizeof large, 4, 0);
    say("header");
    CHECK(held_now() > 0);
    CHECK_EQ(world_send(client, large, sizeof large, 0), sizeof large);
    hear("header");
    world_recv_all(server, got, sizeof got, sizeof got);
    CHECK_MEM_EQ(got, large, sizeof large);
    CHECK_EQ(held_now(), 0);
    end();
}

/* What a relay with buffers of a page sends on in one turn is one frame in one system call. */
static void pages_that_are_relayed_in_one_turn_leave_together(void) {
    static uint8_t bytes[12 * 1024], got[12 * 1024];
    begin();
    fixture_fill(bytes, sizeof bytes, 6, 0);
    for (size_t done = 0; done < sizeof bytes; done += 4096) {
        CHECK_EQ(world_send(client, bytes + done, 4096, 0), 4096);
        CHECK_EQ(held_now(), ODB_WIRE_HEADER_SIZE + done + 4096);
    }
    next_turn();
    CHECK_EQ(held_now(), 0);
    world_recv_all(server, got, sizeof got, sizeof got);
    CHECK_MEM_EQ(got, bytes, sizeof bytes);
    end();
}

/* So that the next tier begins with a request while this one reads the next. */
static void next_connection_releases_the_last_one(void) {
    begin();
    int other_client, other_server;
    world_connect(&other_client, &other_server);
    world_nonblocking(other_client);
    world_epoll(set, EPOLL_CTL_ADD, other_client, EPOLLIN);
    CHECK_EQ(world_send(other_client, "!", 1, 0), 1); /* behind HELLO */
    char byte;
    world_recv_all(other_server, &byte, 1, 1);
    say("first, ");
    say("as a whole");
    CHECK(held_now() > 0);
    CHECK_EQ(world_send(other_client, "second", 6, 0), 6);
    CHECK_EQ(held_now(), 0);
    hear("first, as a whole");
    CHECK_EQ(atomic_load(&world.holds.count), 2); /* still in the list, nothing to send */
    say("third");
    char text[8];
    world_recv_all(other_server, text, 6, sizeof text);
    CHECK_MEM_EQ(text, "second", 6);
    CHECK(held_now() > 0);
    next_turn();
    hear("third");
    world_close(other_client);
    world_close(other_server);
    end();
}

/* Waiting for a second send that never comes would only keep the next tier waiting. */
static void who_says_all_in_one_call_is_not_held_for_a_while(void) {
    enum { TIMES = 200 };
    int held = 0, held_in_vain = 0;
    begin();
    for (int i = 0; i < TIMES; i++) {
        say("all");
        held += held_now() > 0;
        next_turn();
        hear("all");
    }
    CHECK(held >= 8 && held < 16);
    for (int i = 0; i < TIMES; i++) { /* and is found out when it says more */
        say("first, ");
        held_in_vain += held_now() == 0;
        say("then");
        next_turn();
        hear("first, then");
    }
    CHECK(held_in_vain <= 64);
    end();
}

/* The connection that a loop relays from, and of which it is told in its very next turn. */
static int from, origin;

static void begin_relay(void) {
    begin();
    world_connect(&origin, &from);
    world_nonblocking(from);
    world_epoll(set, EPOLL_CTL_ADD, from, EPOLLIN);
    world_send_all(origin, "header, body", 12);
    while (world_wait(set, events, 4, -1) < 1) {
    }
}

static void end_relay(void) {
    world_close(origin);
    world_close(from);
    end();
}

static void relay(const char *text) {
    char bytes[16];
    CHECK_EQ(world_recv(from, bytes, strlen(text), 0), strlen(text));
    CHECK_MEM_EQ(bytes, text, strlen(text));
    say(text);
}

static void what_goes_on_in_the_next_turn_leaves_with_it(void) {
    begin_relay();
    unsigned before = world_segments(client);
    relay("header, ");
    CHECK_EQ(world_wait(set, events, 4, 0), 1); /* there is more to relay */
    CHECK_EQ(world_segments(client), before);
    relay("body");
    next_turn();
    CHECK_EQ(world_segments(client), before + 1);
    hear("header, body");
    end_relay();
}

static void what_does_not_go_on_in_the_next_turn_leaves_all_the_same(void) {
    begin_relay();
    unsigned before = world_segments(client);
    relay("header, ");
    CHECK_EQ(world_wait(set, events, 4, 0), 1);
    CHECK_EQ(world_segments(client), before);
    CHECK(world_wait(set, events, 4, 0) >= 0); /* the loop leaves it at that */
    CHECK_EQ(world_segments(client), before + 1);
    hear("header, ");
    end_relay();
}

/* Nobody wakes a loop for what it has been told of already. */
static void nothing_outlasts_a_sleep(void) {
    begin_relay();
    unsigned before = world_segments(client);
    relay("header, ");
    world_epoll(set, EPOLL_CTL_DEL, from, 0);
    CHECK_EQ(world_wait(set, events, 4, 0), 0);
    CHECK_EQ(world_segments(client), before + 1);
    hear("header, ");
    end_relay();
}

static void bytes_that_are_held_are_bounded(void) {
    static uint8_t bytes[300 * 1000], got[300 * 1000];
    begin();
    fixture_fill(bytes, sizeof bytes, 5, 0);
    for (size_t done = 0; done < sizeof bytes; done += 1000) {
        CHECK_EQ(world_send(client, bytes + done, 1000, 0), 1000);
        CHECK(held_now() <= world.options.hold_max);
    }
    next_turn();
    world_recv_all(server, got, sizeof got, sizeof got);
    CHECK_MEM_EQ(got, bytes, sizeof bytes);
    end();
}

static void whatever_else_a_thread_turns_to_comes_after_what_it_holds(void) {
    char byte;
    struct pollfd entry = {.fd = -1, .events = POLLIN};
    struct timespec at_once = {0, 0};
    for (int way = 0; way < 4; way++) {
        begin();
        unsigned before = world_segments(client);
        say("word");
        CHECK_EQ(world_segments(client), before);
        if (way == 0) CHECK_EQ(odb_poll(&world, &entry, 1, &at_once, NULL), 0);
        if (way == 1) CHECK_EQ(odb_select(&world, 0, NULL, NULL, NULL, &at_once, NULL, NULL), 0);
        if (way == 2) odb_runtime_drain(&world);
        if (way == 3) CHECK_EQ(odb_shutdown(&world, client, SHUT_WR), 0);
        CHECK_EQ(world_segments(client), before + 1);
        hear("word");
        if (way == 3) CHECK_EQ(world_recv(server, &byte, 1, 0), 0);
        if (way == 3) CHECK(world_send(client, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
        end();
    }
}

static void only_what_the_thread_waits_for_is_held(void) {
    int elsewhere;
    begin();
    elsewhere = world_set_made();
    CHECK_EQ(world_wait(elsewhere, events, 4, 0), 0);
    say("now");
    CHECK_EQ(held_now(), 0);
    hear("now");
    next_turn();
    world_set("hold", "off");
    say("now");
    CHECK_EQ(held_now(), 0);
    world_set("hold", "on");
    hear("now");
    world_close(elsewhere);
    end();
}

static void options_about_waiting_are_the_runtimes(void) {
    int one = 1, zero = 0, found = -1;
    socklen_t length = sizeof found;
    begin();
    CHECK_EQ(odb_setsockopt(&world, client, IPPROTO_TCP, TCP_CORK, &one, sizeof one), 0);
    CHECK_EQ(odb_real.getsockopt(client, IPPROTO_TCP, TCP_CORK, &found, &length), 0);
    CHECK_EQ(found, 0);
    CHECK_EQ(odb_getsockopt(&world, client, IPPROTO_TCP, TCP_CORK, &found, &length), 0);
    CHECK_EQ(found, 1);
    CHECK_EQ(odb_setsockopt(&world, client, IPPROTO_TCP, TCP_NODELAY, &zero, sizeof zero), 0);
    CHECK_EQ(odb_real.getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &found, &length), 0);
    CHECK_EQ(found, 1);
    CHECK_EQ(odb_getsockopt(&world, client, IPPROTO_TCP, TCP_NODELAY, &found, &length), 0);
    CHECK_EQ(found, 0);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(sends_of_a_turn_leave_as_one_segment_with_the_next_wait),
    CHECK_CASE(spans_that_go_on_become_one_descriptor),
    CHECK_CASE(spans_that_do_not_go_on_stay_apart),
    CHECK_CASE(large_send_takes_what_is_held_along),
    CHECK_CASE(pages_that_are_relayed_in_one_turn_leave_together),
    CHECK_CASE(next_connection_releases_the_last_one),
    CHECK_CASE(who_says_all_in_one_call_is_not_held_for_a_while),
    CHECK_CASE(what_goes_on_in_the_next_turn_leaves_with_it),
    CHECK_CASE(what_does_not_go_on_in_the_next_turn_leaves_all_the_same),
    CHECK_CASE(nothing_outlasts_a_sleep),
    CHECK_CASE(bytes_that_are_held_are_bounded),
    CHECK_CASE(whatever_else_a_thread_turns_to_comes_after_what_it_holds),
    CHECK_CASE(only_what_the_thread_waits_for_is_held),
    CHECK_CASE(options_about_waiting_are_the_runtimes),
    CHECK_CASE(nothing_is_left_behind),
};

int main(int argc, char **argv) {
    begin_holding();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
