/* Parts of a body that a loop relays to a plain connection: those with more behind them leave together, and what is left behind leaves all the same. */
#include "check.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/clock.h"
#include "os/real.h"
#include "support/world.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sched.h>
#include <unistd.h>

enum { PART = 1000, PARTS = 3, PATIENCE_MS = 30000 };

static int client, server, set, out, far; /* `server` receives what `client` sends, and relays it to `far` on `out` */
static char sent[PART * PARTS], buffer[PARTS][PART];
static struct epoll_event events[4];

static void next_turn(void) {
    CHECK(world_wait(set, events, 4, 0) >= 0);
}

static void connect_plain(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = odb_real.socket(AF_INET, SOCK_STREAM, 0);
    out = odb_real.socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(bind(listener, (struct sockaddr *)&address, size) == 0 && odb_real.listen(listener, 1) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    REQUIRE(odb_real.connect(out, (struct sockaddr *)&address, size) == 0);
    far = odb_real.accept(listener, NULL, NULL);
    REQUIRE(far >= 0);
    odb_real.close(listener);
    world_nonblocking(out);
}

/* All parts are at hand of the server's end, which is in a loop. */
static void begin(void) {
    world_connect(&client, &server);
    connect_plain();
    world_nonblocking(server);
    set = world_set_made();
    world_epoll(set, EPOLL_CTL_ADD, server, EPOLLIN);
    for (size_t i = 0; i < sizeof sent; i++) sent[i] = (char)(i * 7 + i / PART);
    world_send_all(client, sent, sizeof sent);
    while (world_wait(set, events, 4, -1) < 1) {
    }
    atomic_store(&world.stats.entries[ODB_STAT_sends_corked].value, 0);
}

static void end(void) {
    world_close(client);
    world_close(server);
    world_close(set);
    if (out >= 0) world_close(out);
    odb_real.close(far);
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

static unsigned segments(void) {
    struct tcp_info info;
    socklen_t length = sizeof info;
    REQUIRE(odb_real.getsockopt(out, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
    return info.tcpi_data_segs_out;
}

static unsigned left_behind(void) {
    return atomic_load(&world.corks.count);
}

static void parts_leave_together(void) {
    begin();
    unsigned before = segments();
    for (int part = 0; part < PARTS; part++) relay(part);
    CHECK_EQ(segments(), before + 1);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), PARTS - 1);
    CHECK_EQ(left_behind(), 0);
    arrives(sizeof sent);
    end();
}

static void the_next_wait_pushes_out(void) {
    begin();
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 1);
    next_turn();
    CHECK_EQ(left_behind(), 0);
    arrives(PART);
    end();
}

static void a_loop_that_does_not_wait_is_found_out(void) {
    atomic_store(&world.holds.ticking, false);
    begin();
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 1);
    for (uint64_t since = odb_clock_ms(); left_behind() > 0;) {
        sched_yield();
        REQUIRE(odb_clock_ms() - since < PATIENCE_MS);
    }
    arrives(PART);
    end();
}

static void a_close_pushes_out_for_copies(void) {
    begin();
    int copy = dup(out);
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 1);
    CHECK_EQ(odb_close(&world, out), 0);
    CHECK_EQ(left_behind(), 0);
    arrives(PART);
    out = copy;
    end();
}

static void a_fork_pushes_out(void) {
    begin();
    relay(0);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 1);
    odb_runtime_before_fork(&world);
    CHECK_EQ(left_behind(), 0);
    odb_runtime_after_fork_parent(&world);
    arrives(PART);
    end();
}

/* The application's own cork is its own business. */
static void a_corked_socket_stays_corked(void) {
    int on = 1, is = 0;
    socklen_t size = sizeof is;
    begin();
    REQUIRE(odb_real.setsockopt(out, IPPROTO_TCP, TCP_CORK, &on, sizeof on) == 0);
    relay(0);
    next_turn();
    CHECK_EQ(left_behind(), 0);
    REQUIRE(odb_real.getsockopt(out, IPPROTO_TCP, TCP_CORK, &is, &size) == 0);
    CHECK_EQ(is, 1);
    end();
}

static void what_has_nothing_behind_it_goes_as_it_is(void) {
    begin();
    CHECK_EQ(world_recv(server, buffer, sizeof buffer, 0), (ssize_t)sizeof buffer);
    CHECK_EQ(world_send(out, buffer, sizeof buffer, MSG_NOSIGNAL), (ssize_t)sizeof buffer);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 0);
    arrives(sizeof sent);
    end();
}

static void other_memory_goes_as_it_is(void) {
    begin();
    take(0);
    CHECK_EQ(world_send(out, buffer[0], PART - 1, MSG_NOSIGNAL), PART - 1);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 0);
    arrives(PART - 1);
    end();
}

static void a_part_of_an_earlier_turn_goes_as_it_is(void) {
    begin();
    take(0);
    next_turn();
    give(0);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 0);
    arrives(PART);
    end();
}

static void what_was_only_looked_at_goes_as_it_is(void) {
    begin();
    CHECK_EQ(world_recv(server, buffer[0], PART, MSG_PEEK), PART);
    give(0);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 0);
    arrives(PART);
    end();
}

static void nothing_is_said_where_that_is_switched_off(void) {
    world_set("cork", "off");
    begin();
    for (int part = 0; part < PARTS; part++) relay(part);
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 0);
    arrives(sizeof sent);
    end();
    world_set("cork", "on");
}

/* Datagrams keep their borders. */
static void other_sockets_are_told_nothing(void) {
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
        CHECK_EQ(world_count(ODB_STAT_sends_corked), 0);
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
    CHECK_EQ(world_count(ODB_STAT_sends_corked), 0);
    arrives(PART);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(parts_leave_together),
    CHECK_CASE(the_next_wait_pushes_out),
    CHECK_CASE(a_close_pushes_out_for_copies),
    CHECK_CASE(a_fork_pushes_out),
    CHECK_CASE(a_corked_socket_stays_corked),
    CHECK_CASE(what_has_nothing_behind_it_goes_as_it_is),
    CHECK_CASE(other_memory_goes_as_it_is),
    CHECK_CASE(a_part_of_an_earlier_turn_goes_as_it_is),
    CHECK_CASE(what_was_only_looked_at_goes_as_it_is),
    CHECK_CASE(nothing_is_said_where_that_is_switched_off),
    CHECK_CASE(other_sockets_are_told_nothing),
    /* The last one: it lets the timer go. */
    CHECK_CASE(a_loop_that_does_not_wait_is_found_out),
};

int main(int argc, char **argv) {
    world_begin((const char *const[]){NULL});
    world_set("cork", "on");
    atomic_store(&world.holds.ticking, true); /* however slow this machine is: the timer counts as armed already */
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
