/* Readiness in application bytes (I4): never a wait with bytes owed, never an event without bytes, never a loop that only burns time. */
#include "waiting_fixture.h"

static void level_triggered_bytes_are_reported_until_the_last_is_taken(void) {
    begin(EPOLLIN);
    put_real("abcdef");
    for (const char *at = "abcdef"; *at; at++) {
        char one[2] = {*at, 0};
        check_event(-1, EPOLLIN);
        check_event(0, EPOLLIN);
        take(one);
    }
    check_silent();
    put_real("g");
    check_event(-1, EPOLLIN);
    end();
}

static void edge_triggered_reader_that_stops_early_is_told_of_the_rest(void) {
    begin(EPOLLIN | EPOLLET);
    put_real("abcdef");
    check_event(-1, EPOLLIN);
    take("ab");
    check_event(0, EPOLLIN);
    take("cd");
    check_event(0, EPOLLIN);
    take("ef");
    take_nothing();
    check_silent();
    put_real("gh");
    check_event(-1, EPOLLIN);
    take("gh");
    end();
}

static void edge_that_comes_while_bytes_are_owed_is_not_lost(void) {
    begin(EPOLLIN | EPOLLET);
    put_real("abc");
    check_event(-1, EPOLLIN);
    take("a");
    put_real("def");
    struct pollfd arrived = {.fd = fd, .events = POLLIN};
    REQUIRE(odb_real.poll(&arrived, 1, 5000) == 1);
    check_event(0, EPOLLIN);
    take("bc");
    take("def");
    take_nothing();
    check_silent();
    end();
}

static void one_shot_fires_once_and_again_when_armed_again(void) {
    for (int edge = 0; edge < 2; edge++) {
        uint32_t interest = EPOLLIN | EPOLLONESHOT | (edge ? (uint32_t)EPOLLET : 0);
        begin(interest);
        put_real("abc");
        check_event(-1, EPOLLIN);
        check_silent();
        take("a");
        check_silent();
        world_epoll(set, EPOLL_CTL_MOD, fd, interest);
        check_event(0, EPOLLIN);
        check_silent();
        put_real("def");
        struct pollfd arrived = {.fd = fd, .events = POLLIN};
        REQUIRE(odb_real.poll(&arrived, 1, 5000) == 1);
        check_silent();
        take("bc");
        world_epoll(set, EPOLL_CTL_MOD, fd, interest);
        check_event(-1, EPOLLIN);
        take("def");
        take_nothing();
        world_epoll(set, EPOLL_CTL_MOD, fd, interest);
        check_silent();
        put_real("g");
        check_event(-1, EPOLLIN);
        end();
    }
}

/* HELLO, half a frame, a hint: the wait goes on, for the time that is left, in one kernel wait per wake-up. */
static void wake_up_without_application_bytes_is_absorbed(void) {
    static const uint32_t interests[] = {EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT};
    struct odb_wire_hint hint = {.buffer_size = 9000};
    uint8_t frame[ODB_WIRE_HINT_FRAME], half[64];
    for (int i = 0; i < 3; i++) {
        begin(interests[i]);
        odb_wire_hint_encode(frame, &hint);
        put(frame, sizeof frame);
        size_t length = world_real(half, "later", 5);
        put(half, 5);
        uint64_t before = odb_clock_ms();
        atomic_store(&kernel_waits, 0);
        CHECK_EQ(world_wait(set, events, 64, 60), 0);
        CHECK(odb_clock_ms() - before >= 55);
        CHECK(atomic_load(&kernel_waits) <= 4);
        put(half + 5, length - 5);
        check_event(-1, EPOLLIN);
        take("later");
        end();
    }
}

static void end_of_stream_and_reset_are_reported(void) {
    struct linger reset = {.l_onoff = 1};
    char byte;
    for (int i = 0; i < 2; i++) {
        begin(i == 0 ? EPOLLIN | EPOLLRDHUP : EPOLLIN | EPOLLRDHUP | EPOLLET);
        put_real("ab");
        check_event(-1, EPOLLIN);
        take("a");
        REQUIRE(shutdown(raw, SHUT_WR) == 0);
        CHECK(world_wait(set, events, 64, -1) == 1);
        take("b");
        check_event(-1, EPOLLIN);
        CHECK_EQ(world_recv(fd, &byte, 1, 0), 0);
        end();
    }
    begin(EPOLLIN);
    put_real("a");
    check_event(-1, EPOLLIN);
    REQUIRE(setsockopt(raw, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    REQUIRE(close(raw) == 0);
    raw = dup(0);
    take("a");
    check_event(-1, EPOLLIN);
    CHECK(world_recv(fd, &byte, 1, 0) == -1 && errno == ECONNRESET);
    end();
}

static void registration_of_a_stream_that_owes_already_is_told(void) {
    static const uint32_t interests[] = {EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT};
    for (int i = 0; i < 3; i++) {
        begin(EPOLLOUT | EPOLLONESHOT);
        put_real("abc");
        struct pollfd arrived = {.fd = fd, .events = POLLIN};
        struct timespec patience = {5, 0};
        REQUIRE(odb_poll(&world, &arrived, 1, &patience, NULL) == 1);
        take("a");
        world_epoll(set, EPOLL_CTL_DEL, fd, 0);
        world_epoll(set, EPOLL_CTL_ADD, fd, interests[i]);
        check_event(0, EPOLLIN);
        take("bc");
        end();
    }
}

static void registration_for_output_only_is_not_told_of_input(void) {
    begin(EPOLLOUT | EPOLLET);
    check_event(-1, EPOLLOUT);
    put_real("abc");
    struct pollfd arrived = {.fd = fd, .events = POLLIN};
    struct timespec patience = {5, 0};
    REQUIRE(odb_poll(&world, &arrived, 1, &patience, NULL) == 1);
    take("a");
    int count = world_wait(set, events, 64, 0);
    CHECK(count == 0 || (count == 1 && !(events[0].events & EPOLLIN)));
    end();
}

static void output_is_reported_beside_owed_input(void) {
    begin(EPOLLIN | EPOLLOUT);
    put_real("abc");
    do REQUIRE(world_wait(set, events, 64, -1) == 1);
    while (!(events[0].events & EPOLLIN));
    take("a");
    check_event(0, EPOLLIN | EPOLLOUT);
    end();
}

/* The peer speaks first, classic, on a connection on which we speak frames: the kernel knows best there. */
static void classic_input_on_a_connection_with_framed_output_is_reported(void) {
    static const uint32_t interests[] = {EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLONESHOT};
    for (int i = 0; i < 3; i++) {
        struct timespec patience = {2, 0};
        fd_set in;
        world_raw_server(&fd, &raw);
        world_nonblocking(fd);
        set = world_set_made();
        world_epoll(set, EPOLL_CTL_ADD, fd, interests[i]);
        world_send_all(fd, "hello", 5);
        for (int round = 0; round < 3; round++) {
            put("220 ready\r\n", 11);
            atomic_store(&kernel_waits, 0);
            check_event(2000, EPOLLIN);
            struct pollfd arrived = {.fd = fd, .events = POLLIN};
            CHECK_EQ(odb_poll(&world, &arrived, 1, &patience, NULL), 1);
            CHECK_EQ(arrived.revents, POLLIN);
            FD_ZERO(&in);
            FD_SET(fd, &in);
            CHECK_EQ(odb_select(&world, fd + 1, &in, NULL, NULL, &patience, NULL, NULL), 1);
            CHECK(atomic_load(&kernel_waits) <= 6);
            take("220 ready\r\n");
            take_nothing();
            if (interests[i] & EPOLLONESHOT) world_epoll(set, EPOLL_CTL_MOD, fd, interests[i]);
            check_silent();
        }
        end();
    }
}

static void closed_descriptor_takes_its_owed_bytes_along(void) {
    begin(EPOLLIN);
    put_real("abc");
    check_event(-1, EPOLLIN);
    take("a");
    int old = fd;
    world_close(fd);
    check_silent();
    world_close(raw);
    world_raw_client(&raw, &fd);
    if (raw == old) REQUIRE((raw = dup(old)) >= 0 && close(old) == 0);
    if (fd != old) {
        int other = fd;
        REQUIRE((fd = odb_dup2(&world, other, old, -1)) == old);
        world_close(other);
    }
    world_nonblocking(fd);
    world_epoll(set, EPOLL_CTL_ADD, fd, EPOLLIN);
    check_silent();
    end();
}

static void bytes_left_by_a_read_through_a_duplicate_are_reported(void) {
    begin(EPOLLIN);
    put_real("abc");
    check_event(-1, EPOLLIN);
    int same = odb_duplicated(&world, fd, dup(fd)), watched = fd;
    fd = same;
    take("a");
    fd = watched;
    check_event(0, EPOLLIN);
    take("b");
    fd = same;
    take("c");
    fd = watched;
    check_silent();
    world_close(same);
    end();
}

static void poll_and_select_know_owed_bytes_and_absorb_the_rest(void) {
    struct timespec nothing = {0, 0}, moment = {0, 60 * 1000 * 1000}, left;
    struct pollfd entries[3];
    fd_set in, out;
    begin(EPOLLOUT);
    entries[0] = (struct pollfd){.fd = -1, .events = POLLIN};
    entries[1] = (struct pollfd){.fd = fd, .events = POLLIN};
    entries[2] = (struct pollfd){.fd = fd, .events = POLLOUT};
    CHECK_EQ(odb_poll(&world, entries, 2, &nothing, NULL), 0);
    uint64_t before = odb_clock_ms();
    atomic_store(&kernel_waits, 0);
    CHECK_EQ(odb_poll(&world, entries, 2, &moment, NULL), 0);
    CHECK(odb_clock_ms() - before >= 55);
    FD_ZERO(&in);
    FD_SET(fd, &in);
    before = odb_clock_ms();
    CHECK_EQ(odb_select(&world, fd + 1, &in, NULL, NULL, &moment, NULL, &left), 0);
    CHECK(!FD_ISSET(fd, &in));
    CHECK(odb_clock_ms() - before >= 55);
    CHECK(left.tv_sec == 0 && left.tv_nsec == 0);
    CHECK(atomic_load(&kernel_waits) <= 4);
    put_real("abc");
    CHECK_EQ(odb_poll(&world, entries, 3, NULL, NULL), 2);
    CHECK(entries[0].revents == 0 && entries[2].revents == POLLOUT);
    while (!entries[1].revents) REQUIRE(odb_poll(&world, entries, 2, NULL, NULL) == 1);
    take("ab");
    CHECK_EQ(odb_poll(&world, entries, 3, NULL, NULL), 2);
    CHECK_EQ(entries[1].revents, POLLIN);
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    CHECK_EQ(odb_select(&world, fd + 1, &in, &out, NULL, NULL, NULL, NULL), 2);
    CHECK(FD_ISSET(fd, &in) && FD_ISSET(fd, &out));
    take("c");
    FD_ZERO(&in);
    FD_SET(fd, &in);
    CHECK_EQ(odb_select(&world, fd + 1, &in, NULL, NULL, &nothing, NULL, NULL), 0);
    CHECK_EQ(odb_poll(&world, entries, 2, &nothing, NULL), 0);
    end();
}

static void connections_without_streams_are_left_to_the_kernel(void) {
    int ends[2];
    struct pollfd entry;
    struct timespec nothing = {0, 0};
    REQUIRE(pipe(ends) == 0);
    entry = (struct pollfd){.fd = ends[0], .events = POLLIN};
    CHECK_EQ(odb_poll(&world, &entry, 1, &nothing, NULL), 0);
    REQUIRE(odb_real.write(ends[1], "x", 1) == 1);
    CHECK_EQ(odb_poll(&world, &entry, 1, NULL, NULL), 1);
    entry.fd = 999999;
    CHECK_EQ(odb_poll(&world, &entry, 1, NULL, NULL), 1);
    CHECK_EQ(entry.revents, POLLNVAL);
    close(ends[0]);
    close(ends[1]);
}

static const struct check_case cases[] = {
    CHECK_CASE(level_triggered_bytes_are_reported_until_the_last_is_taken),
    CHECK_CASE(edge_triggered_reader_that_stops_early_is_told_of_the_rest),
    CHECK_CASE(edge_that_comes_while_bytes_are_owed_is_not_lost),
    CHECK_CASE(one_shot_fires_once_and_again_when_armed_again),
    CHECK_CASE(wake_up_without_application_bytes_is_absorbed),
    CHECK_CASE(end_of_stream_and_reset_are_reported),
    CHECK_CASE(registration_of_a_stream_that_owes_already_is_told),
    CHECK_CASE(registration_for_output_only_is_not_told_of_input),
    CHECK_CASE(output_is_reported_beside_owed_input),
    CHECK_CASE(classic_input_on_a_connection_with_framed_output_is_reported),
    CHECK_CASE(closed_descriptor_takes_its_owed_bytes_along),
    CHECK_CASE(bytes_left_by_a_read_through_a_duplicate_are_reported),
    CHECK_CASE(poll_and_select_know_owed_bytes_and_absorb_the_rest),
    CHECK_CASE(connections_without_streams_are_left_to_the_kernel),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    count_kernel_waits();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
