/* Short beginnings of answers (headers), behind which more is at hand: they wait for it aside while the loop turns to other connections, for a turn at most, and never let anything overtake them. */
#include "check.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/real.h"
#include "support/world.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { SHORT = 200, BODY = 5000, CONNECTIONS = 3, PATIENCE_MS = 30000 };

static int set, near[CONNECTIONS], far[CONNECTIONS], raw, stream;
static char header[SHORT], body[BODY];

static void begin(void) {
    set = world_set_made();
    for (int i = 0; i < CONNECTIONS; i++) {
        world_plain(&near[i], &far[i]);
        world_epoll(set, EPOLL_CTL_ADD, near[i], EPOLLOUT | EPOLLET);
    }
    memset(header, 'h', sizeof header);
    memset(body, 'b', sizeof body);
    struct epoll_event events[CONNECTIONS];
    CHECK(world_wait(set, events, CONNECTIONS, 0) >= 0);
}

static void end(void) {
    for (int i = 0; i < CONNECTIONS; i++) {
        if (near[i] >= 0) world_close(near[i]);
        odb_real.close(far[i]);
    }
    world_close(set);
}

static void next_turn(int ms) {
    struct epoll_event events[CONNECTIONS];
    CHECK(world_wait(set, events, CONNECTIONS, ms) >= 0);
}

/* A stream has yielded something; is more of it at hand? */
static void received(bool more) {
    odb_gather_received(&world, -1, more);
}

/* The loop owes an event for bytes of a stream that the program has left where they are: it does not go to sleep. */
static void owe_an_event(void) {
    uint8_t hello[ODB_WIRE_HELLO_FRAME], frame[200];
    size_t length = world_real(frame, "xy", 2);
    char byte;
    world_raw_client(&raw, &stream);
    world_nonblocking(stream);
    world_epoll(set, EPOLL_CTL_ADD, stream, EPOLLIN);
    REQUIRE(odb_real.send(raw, hello, world_hello(hello), MSG_NOSIGNAL) > 0);
    REQUIRE(odb_real.send(raw, frame, length, MSG_NOSIGNAL) == (ssize_t)length);
    next_turn(PATIENCE_MS);
    CHECK_EQ(world_recv(stream, &byte, 1, 0), 1);
}

static void owe_nothing(void) {
    world_close(raw);
    world_close(stream);
}

static void send_header(int connection) {
    received(true);
    CHECK_EQ(world_send(near[connection], header, SHORT, MSG_NOSIGNAL), SHORT);
}

static void send_body(int connection) {
    received(false);
    CHECK_EQ(world_send(near[connection], body, BODY, MSG_NOSIGNAL), BODY);
}

static void nothing_has_arrived(int connection) {
    char byte;
    CHECK(odb_real.recv(far[connection], &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0);
}

static void arrives(int connection, const char *bytes, size_t length) {
    char got[BODY];
    struct pollfd there = {.fd = far[connection], .events = POLLIN};
    REQUIRE(odb_real.poll(&there, 1, PATIENCE_MS) == 1);
    REQUIRE(odb_real.recv(far[connection], got, length, MSG_WAITALL) == (ssize_t)length);
    CHECK_MEM_EQ(got, bytes, length);
}

static void headers_of_several_connections_wait_for_their_bodies(void) {
    unsigned before[CONNECTIONS];
    begin();
    owe_an_event();
    for (int i = 0; i < CONNECTIONS; i++) before[i] = world_segments(near[i]);
    for (int i = 0; i < CONNECTIONS; i++) send_header(i);
    next_turn(0);
    for (int i = CONNECTIONS - 1; i >= 0; i--) {
        nothing_has_arrived(i);
        send_body(i);
        CHECK_EQ(world_segments(near[i]), before[i] + 1);
        arrives(i, header, SHORT);
        arrives(i, body, BODY);
    }
    CHECK(!odb_gather_any(&world.gather));
    owe_nothing();
    end();
}

static void the_second_turn_sends(void) {
    begin();
    owe_an_event();
    send_header(0);
    next_turn(0);
    CHECK(odb_gather_any(&world.gather));
    next_turn(0);
    CHECK(!odb_gather_any(&world.gather));
    arrives(0, header, SHORT);
    owe_nothing();
    end();
}

static void a_loop_that_goes_to_sleep_sends_first(void) {
    char byte;
    int server, client;
    begin();
    world_connect(&client, &server); /* with a stream about, waiting has to look after it */
    next_turn(0);
    send_header(0);
    world_epoll(set, EPOLL_CTL_ADD, far[0], EPOLLIN);
    next_turn(PATIENCE_MS);
    CHECK_EQ(odb_real.recv(far[0], &byte, 1, MSG_DONTWAIT | MSG_PEEK), 1);
    world_epoll(set, EPOLL_CTL_DEL, far[0], 0);
    world_close(client);
    world_close(server);
    end();
}

static void every_other_call_sends(void) {
    begin();
    send_header(0);
    send_header(1);
    CHECK_EQ(odb_close(&world, near[2]), 0);
    near[2] = -1;
    CHECK(!odb_gather_any(&world.gather));
    for (int i = 0; i < 2; i++) arrives(i, header, SHORT);
    end();
}

static void a_question_about_another_connection_does_not_disturb(void) {
    begin();
    send_header(0);
    send_header(1);
    odb_gather_look(&world, near[2]);
    nothing_has_arrived(0);
    odb_gather_look(&world, near[0]);
    arrives(0, header, SHORT);
    odb_gather_look(&world, near[1]);
    arrives(1, header, SHORT);
    end();
}

/* The kernel knows the connection by both; what is sent on one goes behind what was sent on the other. */
static void a_copy_of_the_descriptor_does_not_overtake(void) {
    begin();
    int copy = dup(near[0]);
    send_header(0);
    send_header(1);
    CHECK_EQ(world_send(copy, body, BODY, MSG_NOSIGNAL), BODY);
    arrives(0, header, SHORT);
    arrives(0, body, BODY);
    odb_real.close(copy);
    end();
}

/* Whoever is on the other side may be waiting for the header. */
static void a_call_that_may_sleep_sends_first(void) {
    for (int receives = 0; receives < 2; receives++) {
        char byte = 'x';
        int pair[2];
        begin();
        REQUIRE(odb_real.socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        REQUIRE(odb_real.write(pair[1], &byte, 1) == 1);
        send_header(0);
        CHECK_EQ(receives ? world_recv(pair[0], &byte, 1, 0) : world_send(pair[0], &byte, 1, MSG_NOSIGNAL), 1);
        CHECK(!odb_gather_any(&world.gather));
        arrives(0, header, SHORT);
        odb_real.close(pair[0]);
        odb_real.close(pair[1]);
        end();
    }
}

/* A process that is told something by it may have copies of the connections. */
static void a_send_to_a_process_sends_first(void) {
    int pair[2];
    begin();
    REQUIRE(odb_real.socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    send_header(0);
    CHECK_EQ(world_send(pair[0], "x", 1, MSG_NOSIGNAL), 1);
    CHECK(!odb_gather_any(&world.gather));
    arrives(0, header, SHORT);
    odb_real.close(pair[0]);
    odb_real.close(pair[1]);
    end();
}

static void a_receive_that_cannot_sleep_does_not_disturb(void) {
    char byte;
    begin();
    send_header(0);
    CHECK_EQ(world_recv(near[1], &byte, 1, 0), -1);
    CHECK_EQ(errno, EAGAIN);
    nothing_has_arrived(0);
    send_body(0);
    arrives(0, header, SHORT);
    arrives(0, body, BODY);
    end();
}

static void what_finds_no_place_leaves_at_once(void) {
    int more[ODB_ASIDE_MOST + 1], ends[ODB_ASIDE_MOST + 1];
    begin();
    for (int i = 0; i <= ODB_ASIDE_MOST; i++) {
        world_plain(&more[i], &ends[i]);
        world_epoll(set, EPOLL_CTL_ADD, more[i], EPOLLOUT | EPOLLET);
    }
    for (int i = 0; i <= ODB_ASIDE_MOST; i++) {
        received(true);
        CHECK_EQ(world_send(more[i], header, SHORT, MSG_NOSIGNAL), SHORT);
    }
    odb_gather_pause(&world); /* of the last one */
    CHECK_EQ(atomic_load(&world.gather.aside.count), ODB_ASIDE_MOST);
    char got[SHORT];
    CHECK_EQ(odb_real.recv(ends[ODB_ASIDE_MOST], got, SHORT, MSG_WAITALL), SHORT);
    odb_gather_flush(&world);
    for (int i = 0; i < ODB_ASIDE_MOST; i++) CHECK_EQ(odb_real.recv(ends[i], got, SHORT, MSG_WAITALL), SHORT);
    for (int i = 0; i <= ODB_ASIDE_MOST; i++) {
        world_close(more[i]);
        odb_real.close(ends[i]);
    }
    end();
}

static void longer_ones_do_not_wait(void) {
    begin();
    received(true);
    CHECK_EQ(world_send(near[0], body, ODB_ASIDE_SHORT + 1, MSG_NOSIGNAL), ODB_ASIDE_SHORT + 1);
    odb_gather_pause(&world);
    CHECK(!odb_gather_any(&world.gather));
    arrives(0, body, ODB_ASIDE_SHORT + 1);
    end();
}

static void a_child_does_not_send_what_is_its_parents(void) {
    begin();
    send_header(0);
    send_header(1);
    odb_gather_after_fork_child(&world.gather);
    CHECK(!odb_gather_any(&world.gather));
    odb_gather_flush(&world);
    nothing_has_arrived(0);
    nothing_has_arrived(1);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(headers_of_several_connections_wait_for_their_bodies),
    CHECK_CASE(the_second_turn_sends),
    CHECK_CASE(a_loop_that_goes_to_sleep_sends_first),
    CHECK_CASE(every_other_call_sends),
    CHECK_CASE(a_question_about_another_connection_does_not_disturb),
    CHECK_CASE(a_copy_of_the_descriptor_does_not_overtake),
    CHECK_CASE(a_call_that_may_sleep_sends_first),
    CHECK_CASE(a_send_to_a_process_sends_first),
    CHECK_CASE(a_receive_that_cannot_sleep_does_not_disturb),
    CHECK_CASE(what_finds_no_place_leaves_at_once),
    CHECK_CASE(longer_ones_do_not_wait),
    CHECK_CASE(a_child_does_not_send_what_is_its_parents),
};

int main(int argc, char **argv) {
    world_begin((const char *const[]){NULL});
    atomic_store(&world.holds.ticking, true); /* however slow this machine is: the timer counts as armed already */
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
