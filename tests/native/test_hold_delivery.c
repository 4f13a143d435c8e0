/* Sends of an event loop that are held arrive, and once: when the loop does not turn, the peer ends, the process forks, the socket is full. */
#include "core/sharing.h"
#include "hold_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

/* Also when the rescuer has had nothing to do for so long that it hardly looks any more; from then on it looks often again. */
static void late_rescue_is_bounded_and_makes_the_next_one_early(void) {
    begin();
    struct pollfd there = {.fd = server, .events = POLLIN};
    atomic_store(&world.holds.quiet, 1000);
    atomic_store(&world.holds.ticking, false);
    say("nobody waits");
    REQUIRE(odb_real.poll(&there, 1, 5000) == 1);
    hear("nobody waits");
    CHECK(atomic_load(&world.holds.quiet) <= 1);
    end();
}

static void loop_that_does_not_turn_is_rescued_and_not_held_for_a_while(void) {
    begin();
    struct pollfd there = {.fd = server, .events = POLLIN};
    atomic_store(&world.holds.ticking, false);
    say("nobody waits");
    REQUIRE(odb_real.poll(&there, 1, 5000) == 1);
    hear("nobody waits");
    CHECK_EQ(world_count(ODB_STAT_hold_rescues), 1);
    say("so this goes at once");
    CHECK_EQ(held_now(), 0);
    hear("so this goes at once");
    for (int i = 0; held_now() == 0; i++) {
        REQUIRE(i < 10000);
        say("x");
        next_turn();
        hear("x");
        say("x");
        if (held_now() == 0) hear("x");
    }
    next_turn();
    hear("x");
    end();
}

/* The peer's end is told by the kernel, and so is what follows from it. */
static void nothing_is_held_towards_a_peer_that_has_ended(void) {
    char byte;
    begin();
    world_send_all(server, "!", 1);
    CHECK_EQ(odb_shutdown(&world, server, SHUT_WR), 0);
    CHECK_EQ(world_wait(set, events, 4, 5000), 1);
    CHECK_EQ(world_recv(client, &byte, 1, 0), 1);
    CHECK_EQ(world_recv(client, &byte, 1, 0), 0);
    say("last words");
    CHECK_EQ(held_now(), 0);
    hear("last words");
    end();
}

static void child_of_fork_leaves_what_its_parent_holds_to_it(void) {
    int status;
    begin();
    say("once");
    odb_hold_before_fork(&world);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        odb_hold_after_fork_child(&world);
        odb_sharing_after_fork_child(&world.fds);
        _exit(odb_outbox_is_empty(&world_stream(client)->out) && atomic_load(&world.holds.count) == 0 ? 7 : 8);
    }
    odb_hold_after_fork_parent(&world);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_EQ(WEXITSTATUS(status), 7);
    next_turn();
    say(", and no more");
    next_turn();
    hear("once, and no more");
    end();
}

/* A program that forks while its threads work, and closes everything in the child (I11). */
static void child_of_fork_beside_a_busy_thread_can_close_its_connection(void) {
    int status;
    char byte;
    begin();
    struct odb_lock *busy = &world_stream(client)->out.lock;
    odb_lock_take(busy);
    odb_sharing_before_fork(&world.fds);
    odb_hold_before_fork(&world);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm(60);
        odb_hold_after_fork_child(&world);
        odb_sharing_after_fork_child(&world.fds);
        bool refused = world_recv(client, &byte, 1, MSG_DONTWAIT) == -1 && errno == ECONNRESET;
        world_close(client);
        world_close(server);
        _exit(refused ? 7 : 8);
    }
    odb_hold_after_fork_parent(&world);
    odb_sharing_after_fork_parent(&world.fds);
    odb_lock_drop(busy);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 7);
    say("still here");
    next_turn();
    hear("still here");
    end();
}

/* The socket tells of a reset once, and may tell a send that the application does not know of. */
static void reset_that_meets_a_held_send_is_told_to_the_receiver(void) {
    struct linger at_once = {.l_onoff = 1};
    char byte;
    begin();
    say("too late");
    REQUIRE(odb_real.setsockopt(server, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    world_close(server);
    odb_hold_release_all(&world);
    CHECK(world_recv(client, &byte, 1, 0) == -1 && errno == ECONNRESET);
    CHECK_EQ(world_recv(client, &byte, 1, 0), 0);
    world_close(client);
    world_close(set);
}

/* What was accepted must arrive, and room must be told of again (I5). */
static void full_socket_stops_the_sender_and_tells_of_room(void) {
    static uint8_t bytes[8 << 20], got[8 << 20];
    size_t done = 0, seen = 0;
    bool stopped = false;
    begin();
    fixture_fill(bytes, sizeof bytes, 6, 0);
    world_epoll(set, EPOLL_CTL_MOD, client, EPOLLOUT | EPOLLET);
    while (done < sizeof bytes) {
        while (world_wait(set, events, 4, 0) == 0) {
            ssize_t more = world_recv(server, got + seen, sizeof got - seen, 0);
            REQUIRE(more > 0);
            seen += (size_t)more;
        }
        ssize_t sent;
        for (; done < sizeof bytes; done += (size_t)sent) {
            size_t left = sizeof bytes - done, length = done % 3000 + 1;
            sent = world_send(client, bytes + done, length < left ? length : left, MSG_NOSIGNAL);
            if (sent < 0) break;
        }
        REQUIRE(done == sizeof bytes || errno == EAGAIN);
        stopped = stopped || done < sizeof bytes;
    }
    CHECK(stopped);
    world_close(client);
    world_recv_all(server, got + seen, sizeof got - seen, sizeof got);
    CHECK_MEM_EQ(got, bytes, sizeof bytes);
    world_close(server);
    world_close(set);
}

static const struct check_case cases[] = {
    CHECK_CASE(nothing_is_held_towards_a_peer_that_has_ended),
    CHECK_CASE(child_of_fork_leaves_what_its_parent_holds_to_it),
    CHECK_CASE(child_of_fork_beside_a_busy_thread_can_close_its_connection),
    CHECK_CASE(reset_that_meets_a_held_send_is_told_to_the_receiver),
    CHECK_CASE(full_socket_stops_the_sender_and_tells_of_room),
    /* The last one that holds: it lets the timer go. */
    CHECK_CASE(late_rescue_is_bounded_and_makes_the_next_one_early),
    CHECK_CASE(loop_that_does_not_turn_is_rescued_and_not_held_for_a_while),
    CHECK_CASE(nothing_is_left_behind),
};

int main(int argc, char **argv) {
    begin_holding();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
