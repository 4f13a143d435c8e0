/* Parts of a body that a loop relays to a plain connection: those with more behind them are kept and leave together, whatever the program does next; what the socket might not take is not kept. */
#include "check.h"
#include "core/outlet.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/clock.h"
#include "os/real.h"
#include "support/world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PART = 1500, PARTS = 3, PATIENCE_MS = 30000 };

static int client, server, set, out, far; /* `server` receives what `client` sends, and relays it to `far` on `out` */
static char sent[PART * PARTS], buffer[PARTS][PART];
static struct epoll_event events[4];

static void next_turn(void) {
    CHECK(world_wait(set, events, 4, 0) >= 0);
}

/* All parts are at hand of the server's end, which is in a loop. */
static void begin(void) {
    world_connect(&client, &server);
    world_plain(&out, &far);
    world_nonblocking(server);
    set = world_set_made();
    world_epoll(set, EPOLL_CTL_ADD, server, EPOLLIN);
    world_epoll(set, EPOLL_CTL_ADD, out, EPOLLOUT | EPOLLET);
    for (size_t i = 0; i < sizeof sent; i++) sent[i] = (char)(i * 7 + i / PART);
    world_send_all(client, sent, sizeof sent);
    while (world_wait(set, events, 4, -1) < 1) {
    }
    atomic_store(&world.stats.entries[ODB_STAT_sends_gathered].value, 0);
}

static void end(void) {
    world_close(client);
    world_close(server);
    world_close(set);
    if (out >= 0) world_close(out);
    if (far >= 0) odb_real.close(far);
}

static void take(int part) {
    CHECK_EQ(world_recv(server, buffer[part], PART, 0), PART);
}

static void give(int part) {
    CHECK_EQ(world_send(out, buffer[part], PART, MSG_NOSIGNAL), PART);
}

static void relay(int part) {
    take(part);
    give(part);
}

static void arrives(size_t length) {
    char got[sizeof sent];
    for (size_t done = 0; done < length;) {
        ssize_t more = odb_real.recv(far, got + done, length - done, 0);
        REQUIRE(more > 0);
        done += (size_t)more;
    }
    CHECK_MEM_EQ(got, sent, length);
    CHECK(odb_real.recv(far, got, 1, MSG_DONTWAIT) < 0);
}

static size_t kept(void) {
    return atomic_load(&world.gather.length);
}

static void parts_leave_together(void) {
    begin();
    unsigned before = world_segments(out);
    for (int part = 0; part < PARTS; part++) {
        relay(part);
        CHECK_EQ(kept(), part + 1 < PARTS ? (size_t)(part + 1) * PART : 0);
    }
    CHECK_EQ(world_segments(out), before + 1);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), PARTS - 1);
    CHECK_EQ(kept(), 0);
    arrives(sizeof sent);
    end();
}

static void the_next_wait_sends(void) {
    begin();
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 1);
    next_turn();
    CHECK_EQ(kept(), 0);
    arrives(PART);
    end();
}

static void a_loop_that_does_not_wait_is_found_out(void) {
    atomic_store(&world.holds.ticking, false);
    begin();
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 1);
    for (uint64_t since = odb_clock_ms(); kept() > 0;) {
        sched_yield();
        REQUIRE(odb_clock_ms() - since < PATIENCE_MS);
    }
    arrives(PART);
    end();
}

/* Each look of it costs a turning loop two changes of thread. */
static void the_timer_looks_more_rarely_where_what_is_kept_leaves_in_time(void) {
    unsigned turns = atomic_load(&world.holds.turns);
    uint64_t since = odb_clock_ms();
    atomic_store(&world.holds.quiet, 0);
    atomic_store(&world.holds.ticking, false);
    while (atomic_load(&world.holds.quiet) < 3) {
        begin();
        relay(0);
        next_turn();
        arrives(PART);
        end();
        REQUIRE(odb_clock_ms() - since < PATIENCE_MS);
    }
    CHECK_EQ(atomic_load(&world.holds.turns), turns); /* nothing was held on streams */
}

static void a_close_sends_for_copies(void) {
    begin();
    int copy = dup(out);
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 1);
    CHECK_EQ(odb_close(&world, out), 0);
    CHECK_EQ(kept(), 0);
    arrives(PART);
    out = copy;
    end();
}

static void a_fork_sends(void) {
    begin();
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 1);
    odb_runtime_before_fork(&world);
    CHECK_EQ(kept(), 0);
    odb_runtime_after_fork_parent(&world);
    arrives(PART);
    end();
}

/* Another connection's bytes go in front of nothing but their own. */
/* One that libc's handlers know nothing of has a copy of what its parent keeps, and must not send it as well. */
static void a_child_of_a_bare_clone_sends_nothing(void) {
    int status;
    char byte;
    begin();
    relay(0);
    CHECK_EQ(kept(), PART);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    REQUIRE(child >= 0);
    if (child == 0) {
        odb_gather_flush(&world);
        odb_gather_pause(&world);
        odb_gather_wait(&world);
        odb_real._exit(0);
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    CHECK(odb_real.recv(far, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0);
    CHECK_EQ(kept(), PART);
    next_turn();
    arrives(PART);
    CHECK(odb_real.recv(far, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0);
    end();
}

static void a_send_elsewhere_sends(void) {
    int pair[2];
    begin();
    REQUIRE(odb_real.socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    relay(0);
    CHECK_EQ(kept(), PART);
    CHECK_EQ(world_send(pair[0], "x", 1, MSG_NOSIGNAL), 1);
    CHECK_EQ(kept(), 0);
    arrives(PART);
    odb_real.close(pair[0]);
    odb_real.close(pair[1]);
    end();
}

static void other_bytes_on_the_connection_go_behind(void) {
    static const char other[] = "x";
    char got[PART + sizeof other];
    begin();
    relay(0);
    odb_gather_more = false;
    unsigned before = world_segments(out);
    CHECK_EQ(world_send(out, other, sizeof other, MSG_NOSIGNAL), sizeof other);
    CHECK_EQ(kept(), 0);
    CHECK_EQ(world_segments(out), before + 1);
    REQUIRE(odb_real.recv(far, got, sizeof got, MSG_WAITALL) == (ssize_t)sizeof got);
    CHECK_MEM_EQ(got, sent, PART);
    CHECK_MEM_EQ(got + PART, other, sizeof other);
    end();
}

/* The program hears of it as it would, and of no byte more. */
static void a_message_that_is_not_there_is_refused_behind_what_is_kept(void) {
    struct iovec iov[] = {{sent, 1}, {(void *)(uintptr_t)8, 4}};
    struct msghdr message = {.msg_iov = iov + 1, .msg_iovlen = 1};
    begin();
    relay(0);
    errno = 0;
    CHECK_EQ(odb_send(&world, out, &message, MSG_NOSIGNAL, ODB_SOCKET_CALL), -1);
    CHECK_EQ(errno, EFAULT);
    CHECK_EQ(kept(), 0);
    arrives(PART);
    end();
}

static void a_socket_with_little_room_is_given_its_parts_at_once(void) {
    int little = 1;
    begin();
    REQUIRE(odb_real.setsockopt(out, SOL_SOCKET, SO_SNDBUF, &little, sizeof little) == 0);
    for (char bytes[4096] = {0}; odb_real.send(out, bytes, sizeof bytes, MSG_DONTWAIT) > 0;) {
    }
    take(0);
    CHECK_EQ(world_send(out, buffer[0], PART, MSG_NOSIGNAL), -1);
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
    end();
}

static void a_socket_that_limits_what_is_unsent_is_given_its_parts_at_once(void) {
    int lowat = 16384;
    begin();
    REQUIRE(odb_real.setsockopt(out, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof lowat) == 0);
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
    arrives(PART);
    end();
}

static void break_connection(void) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    REQUIRE(odb_real.setsockopt(far, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    odb_real.close(far);
    far = -1;
    struct pollfd gone = {.fd = out, .events = 0};
    REQUIRE(odb_real.poll(&gone, 1, PATIENCE_MS) == 1);
}

/* What was accepted is lost with the connection; its error is said to whatever the program does with it next. */
static void a_broken_connection_is_told_of_once(void) {
    static const bool receives[] = {false, true};
    for (size_t i = 0; i < sizeof receives / sizeof *receives; i++) {
        char byte;
        begin();
        relay(0);
        break_connection();
        next_turn();
        CHECK_EQ(kept(), 0);
        errno = 0;
        CHECK_EQ(receives[i] ? world_recv(out, &byte, 1, 0) : world_send(out, "x", 1, MSG_NOSIGNAL), -1);
        CHECK_EQ(errno, ECONNRESET);
        CHECK_EQ(world_send(out, "x", 1, MSG_NOSIGNAL), -1);
        CHECK_EQ(errno, EPIPE);
        end();
    }
}

static void a_send_on_a_broken_connection_is_told_of_it(void) {
    begin();
    relay(0);
    break_connection();
    take(1);
    odb_gather_more = false;
    errno = 0;
    CHECK_EQ(world_send(out, buffer[1], PART - 1, MSG_NOSIGNAL), -1);
    CHECK_EQ(errno, ECONNRESET);
    CHECK_EQ(kept(), 0);
    end();
}

/* Which could write to the connection where only they know when. */
static void a_program_with_threads_gathers_nothing(void) {
    begin();
    relay(0);
    CHECK_EQ(kept(), PART);
    odb_gather_stop(&world);
    CHECK_EQ(kept(), 0);
    relay(1);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 1);
    arrives(2 * PART);
    atomic_store(&world.gather.closed, false);
    end();
}

static void a_connection_that_the_loop_does_not_watch_is_given_its_parts_at_once(void) {
    begin();
    world_epoll(set, EPOLL_CTL_DEL, out, 0);
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
    arrives(PART);
    end();
}

static void what_has_nothing_behind_it_goes_as_it_is(void) {
    begin();
    CHECK_EQ(world_recv(server, buffer, sizeof buffer, 0), (ssize_t)sizeof buffer);
    CHECK_EQ(world_send(out, buffer, sizeof buffer, MSG_NOSIGNAL), (ssize_t)sizeof buffer);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
    arrives(sizeof sent);
    end();
}

/* Who compresses, encrypts or rewrites a body sends other memory than it receives. */
static void what_the_program_has_made_of_parts_leaves_together(void) {
    begin();
    unsigned before = world_segments(out);
    for (int part = 0; part < PARTS; part++) {
        char made[PART];
        take(part);
        memcpy(made, buffer[part], PART);
        CHECK_EQ(world_send(out, made, PART, MSG_NOSIGNAL), PART);
        memset(made, 0, PART);
    }
    CHECK_EQ(world_segments(out), before + 1);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), PARTS - 1);
    arrives(sizeof sent);
    end();
}

/* The second time nothing is asked of the kernel but how much room there is; what changes the connection is noticed all the same. */
static void what_is_known_of_a_connection_is_forgotten_when_it_changes(void) {
    int lowat = 16384, status;
    begin();
    relay(0);
    CHECK_EQ(kept(), PART);
    CHECK(odb_outlet_is_known(&world.fds, out));
    odb_gather_flush(&world);
    REQUIRE(odb_real.setsockopt(out, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof lowat) == 0);
    odb_outlet_changed(&world.fds, out);
    CHECK(!odb_outlet_is_known(&world.fds, out));
    relay(1);
    CHECK_EQ(kept(), 0);
    arrives(2 * PART);
    status = odb_real.fcntl(server, F_GETFL);
    CHECK(odb_outlet_never_waits(&world.fds, server));
    REQUIRE(odb_real.fcntl(server, F_SETFL, status & ~O_NONBLOCK) == 0);
    odb_outlet_changed(&world.fds, server);
    CHECK(!odb_outlet_never_waits(&world.fds, server));
    end();
    CHECK(!odb_outlet_has_memory(&world.fds, server));
}

static void a_copied_descriptor_is_asked_about_each_time(void) {
    begin();
    CHECK(odb_outlet_never_waits(&world.fds, out));
    int copy = odb_duplicated(&world, out, dup(out));
    CHECK(!odb_outlet_has_memory(&world.fds, out));
    relay(0);
    CHECK_EQ(kept(), PART);
    CHECK(!odb_outlet_is_known(&world.fds, out));
    CHECK(!odb_outlet_is_known(&world.fds, copy));
    next_turn();
    arrives(PART);
    CHECK_EQ(odb_close(&world, copy), 0);
    relay(1);
    CHECK(!odb_outlet_is_known(&world.fds, out)); /* there may be more of them */
    next_turn();
    end();
}

static void a_part_of_an_earlier_turn_goes_as_it_is(void) {
    begin();
    take(0);
    next_turn();
    give(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
    arrives(PART);
    end();
}

static void what_was_only_looked_at_goes_as_it_is(void) {
    begin();
    CHECK_EQ(world_recv(server, buffer[0], PART, MSG_PEEK), PART);
    give(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
    arrives(PART);
    end();
}

static void nothing_is_kept_where_that_is_switched_off(void) {
    world_set("gather", "off");
    begin();
    for (int part = 0; part < PARTS; part++) relay(part);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
    arrives(sizeof sent);
    end();
    world_set("gather", "on");
}

/* Datagrams keep their borders. */
static void other_sockets_are_given_their_parts_at_once(void) {
    static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int pair[2];
        begin();
        odb_real.close(out);
        odb_real.close(far);
        REQUIRE(odb_real.socketpair(AF_UNIX, kinds[i], 0, pair) == 0);
        out = pair[0];
        far = pair[1];
        relay(0);
        CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
        arrives(PART);
        end();
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    begin();
    odb_real.close(out);
    odb_real.close(far);
    out = odb_real.socket(AF_INET, SOCK_DGRAM, 0);
    far = odb_real.socket(AF_INET, SOCK_DGRAM, 0);
    REQUIRE(bind(far, (struct sockaddr *)&address, size) == 0);
    REQUIRE(getsockname(far, (struct sockaddr *)&address, &size) == 0);
    REQUIRE(odb_real.connect(out, (struct sockaddr *)&address, size) == 0);
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_gathered), 0);
    arrives(PART);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(parts_leave_together),
    /* Before the fork: of what a process has in common with another one nothing is remembered. */
    CHECK_CASE(what_is_known_of_a_connection_is_forgotten_when_it_changes),
    CHECK_CASE(a_copied_descriptor_is_asked_about_each_time),
    CHECK_CASE(the_next_wait_sends),
    CHECK_CASE(a_close_sends_for_copies),
    CHECK_CASE(a_fork_sends),
    CHECK_CASE(a_child_of_a_bare_clone_sends_nothing),
    CHECK_CASE(a_send_elsewhere_sends),
    CHECK_CASE(other_bytes_on_the_connection_go_behind),
    CHECK_CASE(a_message_that_is_not_there_is_refused_behind_what_is_kept),
    CHECK_CASE(a_socket_with_little_room_is_given_its_parts_at_once),
    CHECK_CASE(a_socket_that_limits_what_is_unsent_is_given_its_parts_at_once),
    CHECK_CASE(a_broken_connection_is_told_of_once),
    CHECK_CASE(a_send_on_a_broken_connection_is_told_of_it),
    CHECK_CASE(a_program_with_threads_gathers_nothing),
    CHECK_CASE(a_connection_that_the_loop_does_not_watch_is_given_its_parts_at_once),
    CHECK_CASE(what_has_nothing_behind_it_goes_as_it_is),
    CHECK_CASE(what_the_program_has_made_of_parts_leaves_together),
    CHECK_CASE(a_part_of_an_earlier_turn_goes_as_it_is),
    CHECK_CASE(what_was_only_looked_at_goes_as_it_is),
    CHECK_CASE(nothing_is_kept_where_that_is_switched_off),
    CHECK_CASE(other_sockets_are_given_their_parts_at_once),
    /* The last ones: they let the timer go. */
    CHECK_CASE(the_timer_looks_more_rarely_where_what_is_kept_leaves_in_time),
    CHECK_CASE(a_loop_that_does_not_wait_is_found_out),
};

int main(int argc, char **argv) {
    world_begin((const char *const[]){NULL});
    world_set("gather", "on");
    atomic_store(&world.holds.ticking, true); /* however slow this machine is: the timer counts as armed already */
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
