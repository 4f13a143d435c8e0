/* Readiness in application bytes (I4): never a wait with bytes owed, never an event without bytes, never a loop that only burns time. */
#include "check.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "core/waiting.h"
#include "os/clock.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <sys/socket.h>

/* Waits that reached the kernel: a busy loop shows here. */
static _Atomic unsigned kernel_waits;
static int (*genuine_pwait2)(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);
static int (*genuine_wait)(int, struct epoll_event *, int, int);
static int (*genuine_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static int (*genuine_pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *);

static int counted_pwait2(int set, struct epoll_event *events, int room, const struct timespec *timeout,
                          const sigset_t *mask) {
    atomic_fetch_add(&kernel_waits, 1);
    return genuine_pwait2(set, events, room, timeout, mask);
}

static int counted_wait(int from, struct epoll_event *into, int room, int timeout) {
    atomic_fetch_add(&kernel_waits, 1);
    return genuine_wait(from, into, room, timeout);
}

static int counted_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask) {
    atomic_fetch_add(&kernel_waits, 1);
    return genuine_ppoll(fds, count, timeout, mask);
}

static int counted_pselect(int count, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
                           const sigset_t *mask) {
    atomic_fetch_add(&kernel_waits, 1);
    return genuine_pselect(count, in, out, except, timeout, mask);
}

static int raw, fd, set;
static struct epoll_event events[64];

static void put(const void *bytes, size_t length) {
    REQUIRE(odb_real.send(raw, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
}

static void put_real(const char *text) {
    uint8_t frame[200];
    put(frame, world_real(frame, text, strlen(text)));
}

static void begin(uint32_t interest) {
    uint8_t hello[ODB_WIRE_HELLO_FRAME];
    world_raw_client(&raw, &fd);
    world_nonblocking(fd);
    set = world_set_made();
    world_epoll(set, EPOLL_CTL_ADD, fd, interest);
    put(hello, world_hello(hello));
}

static void end(void) {
    world_close(raw);
    world_close(fd);
    world_close(set);
}

static void take(const char *expected) {
    char bytes[64];
    size_t length = strlen(expected);
    CHECK_EQ(world_recv(fd, bytes, length, 0), length);
    CHECK_MEM_EQ(bytes, expected, length);
}

static void take_nothing(void) {
    char byte;
    CHECK(world_recv(fd, &byte, 1, 0) == -1 && errno == EAGAIN);
}

static void check_event(int patience_ms, uint32_t wanted) {
    CHECK_EQ(world_wait(set, events, 64, patience_ms), 1);
    CHECK_EQ(events[0].data.fd, fd);
    CHECK_EQ(events[0].events & wanted, wanted);
}

static void check_silent(void) {
    CHECK_EQ(world_wait(set, events, 64, 0), 0);
}

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

enum { MANY = 50 };

static void many_owed_connections_are_all_reported_whatever_room_there_is(void) {
    int raws[MANY], fds[MANY];
    static const int rooms[] = {1, 3, 33, 64};
    for (int k = 0; k < 4; k++) {
        char byte;
        set = world_set_made();
        for (int i = 0; i < MANY; i++) {
            uint8_t frame[64];
            world_raw_client(&raws[i], &fds[i]);
            world_nonblocking(fds[i]);
            world_epoll(set, EPOLL_CTL_ADD, fds[i], k % 2 ? EPOLLIN : EPOLLIN | EPOLLET);
            raw = raws[i];
            put(frame, world_hello(frame));
            put_real("abc");
        }
        for (int left = 3 * MANY; left > 0;) {
            int count = world_wait(set, events, rooms[k], 5000);
            REQUIRE(count > 0 && count <= rooms[k]);
            for (int i = 0; i < count; i++) {
                REQUIRE(world_recv(events[i].data.fd, &byte, 1, 0) == 1);
                left--;
            }
        }
        check_silent();
        for (int i = 0; i < MANY; i++) {
            world_close(raws[i]);
            world_close(fds[i]);
        }
        world_close(set);
    }
}

/* A connection that is always readable does not hide another, nor a listener, as it would not with the kernel alone. */
static void owed_connections_take_turns_with_each_other_and_with_the_kernels(void) {
    int raws[3], fds[3], seen[3] = {0}, ends[2], pipe_seen = 0;
    set = world_set_made();
    REQUIRE(pipe(ends) == 0);
    for (int i = 0; i < 3; i++) {
        uint8_t frame[64];
        world_raw_client(&raws[i], &fds[i]);
        world_nonblocking(fds[i]);
        world_epoll(set, EPOLL_CTL_ADD, fds[i], EPOLLIN);
        raw = raws[i];
        put(frame, world_hello(frame));
        put_real("abc");
        fd = fds[i];
        struct pollfd arrived = {.fd = fd, .events = POLLIN};
        struct timespec patience = {5, 0};
        REQUIRE(odb_poll(&world, &arrived, 1, &patience, NULL) == 1);
        take("a");
    }
    world_epoll(set, EPOLL_CTL_ADD, ends[0], EPOLLIN);
    REQUIRE(odb_real.write(ends[1], "x", 1) == 1);
    for (int i = 0; i < 12; i++) {
        REQUIRE(world_wait(set, events, 1, 5000) == 1);
        for (int k = 0; k < 3; k++) seen[k] += events[0].data.fd == fds[k];
        pipe_seen += events[0].data.fd == ends[0];
    }
    for (int k = 0; k < 3; k++) CHECK(seen[k] > 0);
    CHECK(pipe_seen > 0);
    for (int i = 0; i < 3; i++) {
        world_close(raws[i]);
        world_close(fds[i]);
    }
    world_close(ends[0]);
    world_close(ends[1]);
    world_close(set);
}

/* What is owed is told without the kernel, but only in every other look, whatever other sets the thread waits on. */
static void kernel_is_heard_though_bytes_are_owed_all_the_time(void) {
    enum { SETS = 2, LOOKS = 6 };
    int raws[SETS], fds[SETS], sets[SETS], ends[2], heard[SETS] = {0}, owed[SETS] = {0};
    REQUIRE(pipe(ends) == 0 && odb_real.write(ends[1], "x", 1) == 1);
    for (int i = 0; i < SETS; i++) {
        begin(EPOLLIN);
        put_real("abc");
        check_event(-1, EPOLLIN);
        take("a");
        raws[i] = raw;
        fds[i] = fd;
        sets[i] = set;
        world_epoll(set, EPOLL_CTL_ADD, ends[0], EPOLLIN);
    }
    atomic_store(&kernel_waits, 0);
    for (int look = 0; look < LOOKS * SETS; look++) {
        int which = look % SETS, count = world_wait(sets[which], events, 64, 5000);
        for (int i = 0; i < count; i++) {
            heard[which] += events[i].data.fd == ends[0];
            owed[which] += events[i].data.fd == fds[which];
        }
    }
    CHECK(kernel_waits < LOOKS * SETS);
    for (int i = 0; i < SETS; i++) {
        CHECK_EQ(owed[i], LOOKS);
        CHECK(heard[i] >= LOOKS / 2);
        raw = raws[i];
        fd = fds[i];
        set = sets[i];
        end();
    }
    world_close(ends[0]);
    world_close(ends[1]);
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
    CHECK_CASE(many_owed_connections_are_all_reported_whatever_room_there_is),
    CHECK_CASE(owed_connections_take_turns_with_each_other_and_with_the_kernels),
    CHECK_CASE(kernel_is_heard_though_bytes_are_owed_all_the_time),
    CHECK_CASE(closed_descriptor_takes_its_owed_bytes_along),
    CHECK_CASE(bytes_left_by_a_read_through_a_duplicate_are_reported),
    CHECK_CASE(poll_and_select_know_owed_bytes_and_absorb_the_rest),
    CHECK_CASE(connections_without_streams_are_left_to_the_kernel),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    genuine_pwait2 = odb_real.epoll_pwait2;
    genuine_wait = odb_real.epoll_wait;
    genuine_ppoll = odb_real.ppoll;
    genuine_pselect = odb_real.pselect;
    odb_real.epoll_pwait2 = genuine_pwait2 ? counted_pwait2 : NULL;
    odb_real.epoll_wait = counted_wait;
    odb_real.ppoll = counted_ppoll;
    odb_real.pselect = counted_pselect;
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
