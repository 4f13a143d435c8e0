/* What leaves first, a body that is pushed or the descriptor that tells of it: whichever keeps the next tier from waiting. This process is origin and consumer; the client is a bare
 * socket. */
#include "check.h"
#include "core/transfer.h"
#include "os/clock.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>

enum { PATIENCE_MS = 30000, BODY = 20000 };

static int raw, fd, set;
static struct epoll_event events[4];
static uint8_t body[2 * BODY];

/* ---- when bodies are written ---- */

static ssize_t (*genuine_sendfile)(int, int, off64_t *, size_t);
static _Thread_local bool on_stage; /* this thread is the application, and there is a peer */
static int written;                 /* bodies */
static int heard_of_last;           /* bytes that the peer had when the last one was begun */

static int arrived(void) {
    int waiting = 0;
    REQUIRE(odb_real.ioctl(raw, FIONREAD, &waiting) == 0);
    return waiting;
}

static ssize_t noted_sendfile(int out, int in, off64_t *offset, size_t length) {
    if (on_stage) {
        written++;
        heard_of_last = arrived();
    }
    return genuine_sendfile(out, in, offset, length);
}

/* ---- the stage ---- */

static struct odb_push_consumer *consumer(void) {
    for (uint32_t i = 0; i < ODB_PUSH_CONSUMERS; i++)
        if (world.origin.pushes.consumer[i].id != 0) return &world.origin.pushes.consumer[i];
    return NULL;
}

/* Fetches make a consumer known, which then gives channels. */
static void become_consumer(void) {
    uint64_t since = odb_clock_ms();
    struct odb_span small = world_payload(1, 100);
    struct odb_push *push;
    while (!(push = odb_pushes_take(&world.origin.pushes, 0, BODY))) {
        uint8_t bytes[100];
        struct iovec iov = {bytes, sizeof bytes};
        CHECK_EQ(odb_channels_fetch(&world.channels, &small, &iov, 1), 0);
        sched_yield();
        REQUIRE(odb_clock_ms() - since < PATIENCE_MS);
    }
    odb_pushes_give_back(&world.origin.pushes, push);
}

static void next_turn(void) {
    REQUIRE(world_wait(set, events, 4, 0) >= 0);
}

/* A framed connection in a loop whose peer is the consumer, or only leads to it. */
static void begin(bool further_on) {
    uint8_t hello[64];
    char byte;
    become_consumer();
    REQUIRE(consumer() != NULL);
    world_raw_client(&raw, &fd);
    size_t length = world_hello(hello);
    length += world_real(hello + length, "?", 1);
    REQUIRE(odb_real.send(raw, hello, length, MSG_NOSIGNAL) == (ssize_t)length);
    world_recv_all(fd, &byte, 1, 1);
    memcpy(consumer()->address, world_stream(fd)->peer, sizeof consumer()->address);
    if (further_on) consumer()->address[15] ^= 1;
    world_nonblocking(fd);
    set = world_set_made();
    world_epoll(set, EPOLL_CTL_ADD, fd, EPOLLIN);
    world_send_all(fd, "!", 1); /* says HELLO */
    next_turn();
    written = 0;
    on_stage = true;
}

static void end(void) {
    on_stage = false;
    world_close(raw);
    world_close(fd);
    world_close(set);
}

static void send_header(void) {
    CHECK_EQ(world_send(fd, "header", 6, 0), 6);
}

/* One descriptor's worth. */
static void send_body(int which) {
    int before = written;
    CHECK_EQ(world_send(fd, body + (size_t)which * BODY, BODY, 0), BODY);
    CHECK_EQ(written, before + 1);
}

/* ---- cases ---- */

static void descriptor_leaves_before_its_body_where_the_consumer_is_further_on(void) {
    begin(true);
    int before = arrived();
    unsigned sent = world_segments(fd);
    send_header();
    CHECK_EQ(arrived(), before);
    send_body(0);
    CHECK(heard_of_last > before);
    CHECK_EQ(world_segments(fd), sent + 1); /* header and descriptor together */
    next_turn();
    CHECK_EQ(world_segments(fd), sent + 1);
    end();
}

static void body_goes_first_where_the_peer_is_the_consumer(void) {
    begin(false);
    int before = arrived();
    unsigned sent = world_segments(fd);
    send_header();
    send_body(0);
    CHECK_EQ(heard_of_last, before);
    CHECK_EQ(arrived(), before);
    next_turn();
    CHECK(arrived() > before);
    CHECK_EQ(world_segments(fd), sent + 1);
    end();
}

static void what_comes_in_several_bodies_is_announced_together(void) {
    begin(true);
    send_body(0);
    send_body(1); /* in the same turn: such a sender it is */
    next_turn();
    unsigned sent = world_segments(fd);
    int before = arrived();
    send_header();
    send_body(0);
    send_body(1);
    CHECK_EQ(heard_of_last, before);
    next_turn();
    CHECK_EQ(world_segments(fd), sent + 1);
    end();
}

/* The peer has taken what it was sent. */
static void begin_fresh_turn(void) {
    uint8_t drop[4096];
    next_turn();
    while (odb_real.recv(raw, drop, sizeof drop, MSG_DONTWAIT) > 0) continue;
}

static void who_sends_single_bodies_again_is_noticed(void) {
    begin(true);
    send_body(0);
    send_body(1);
    int turns = 0;
    do {
        REQUIRE(++turns < 100);
        begin_fresh_turn();
        send_header();
        send_body(0);
    } while (heard_of_last == 0);
    CHECK(turns > 2);
    end();
}

/* Also when it is no longer held, as nothing ever joined it. */
static void descriptor_that_has_nothing_to_wait_for_leaves_first_too(void) {
    begin(true);
    uint64_t held = world_count(ODB_STAT_sends_held);
    for (int turn = 0; turn < 20; turn++) {
        begin_fresh_turn();
        send_body(0);
        CHECK(heard_of_last > 0);
    }
    CHECK(world_count(ODB_STAT_sends_held) - held < 20);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(descriptor_leaves_before_its_body_where_the_consumer_is_further_on),
    CHECK_CASE(body_goes_first_where_the_peer_is_the_consumer),
    CHECK_CASE(what_comes_in_several_bodies_is_announced_together),
    CHECK_CASE(who_sends_single_bodies_again_is_noticed),
    CHECK_CASE(descriptor_that_has_nothing_to_wait_for_leaves_first_too),
};

int main(int argc, char **argv) {
    REQUIRE(signal(SIGPIPE, SIG_IGN) != SIG_ERR); /* else the helper thread writes bodies */
    world_begin((const char *const[]){"memory_min=16K", NULL});
    genuine_sendfile = odb_real.sendfile64;
    odb_real.sendfile64 = noted_sendfile;
    fixture_fill(body, sizeof body, 3, 0);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
