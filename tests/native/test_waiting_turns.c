/* Fairness (I4): owed bytes, connections and the kernel take turns, whatever room a wait has. */
#include "waiting_fixture.h"

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

static const struct check_case cases[] = {
    CHECK_CASE(many_owed_connections_are_all_reported_whatever_room_there_is),
    CHECK_CASE(owed_connections_take_turns_with_each_other_and_with_the_kernels),
    CHECK_CASE(kernel_is_heard_though_bytes_are_owed_all_the_time),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    count_kernel_waits();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
