/* Backpressure: what a stream announces stays within a bound of what is fetched, and beyond it the kernel holds up senders. */
#include "check.h"
#include "core/ahead.h"
#include "core/sockopt.h"
#include "core/transfer.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <unistd.h>

enum { BOUND = 65536, PIECE = 32768, ENOUGH = 128 << 20 };

static uint8_t piece[PIECE];

static uint64_t announced(void) {
    return world_count(ODB_STAT_span_bytes_sent);
}

/* Sends without anybody reading until the socket says EAGAIN, or ENOUGH bytes are gone. */
static size_t send_until_held_up(int fd) {
    size_t total = 0;
    while (total < ENOUGH) {
        ssize_t sent = world_send(fd, piece, sizeof piece, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            CHECK_EQ(errno, EAGAIN);
            break;
        }
        total += (size_t)sent;
    }
    return total;
}

static void receive_content(int fd, size_t length) {
    static uint8_t got[PIECE];
    for (size_t done = 0; done < length;) {
        size_t part = length - done < PIECE ? length - done : PIECE;
        world_recv_all(fd, got, part, part);
        for (size_t i = 0; i < part; i++) REQUIRE(got[i] == piece[(done + i) % PIECE]);
        done += part;
    }
}

static void peer_that_does_not_read_holds_up_its_sender(void) {
    int client, server;
    uint64_t before = announced(), reasons = world_count(ODB_STAT_fallback_ahead);
    world_connect(&client, &server);
    size_t total = send_until_held_up(client);
    CHECK(total > BOUND && total < ENOUGH);
    CHECK(announced() - before <= BOUND);
    CHECK(world_count(ODB_STAT_fallback_ahead) > reasons);
    world_close(client);
    receive_content(server, total);
    world_close(server);
}

static void bytes_that_are_taken_may_be_announced_again(void) {
    int client, server;
    uint64_t before = announced();
    world_connect(&client, &server);
    for (int i = 0; i < 8; i++) {
        world_send_all(client, piece, sizeof piece);
        receive_content(server, sizeof piece);
    }
    CHECK_EQ(announced() - before, 8 * PIECE);
    world_close(client);
    world_close(server);
}

static void peer_that_speaks_makes_room(void) {
    int client, server;
    char byte;
    world_connect(&client, &server);
    uint64_t before = announced();
    for (int i = 0; i < 3; i++) world_send_all(client, piece, sizeof piece);
    CHECK_EQ(announced() - before, BOUND);
    world_send_all(server, "!", 1);
    world_recv_all(client, &byte, 1, 1);
    world_send_all(client, piece, sizeof piece);
    CHECK_EQ(announced() - before, BOUND + PIECE);
    receive_content(server, 4 * PIECE);
    world_close(client);
    world_close(server);
}

static void small_send_buffer_is_a_bound_too(void) {
    int client, server, size = 8192;
    world_connect(&client, &server);
    REQUIRE(odb_setsockopt(&world, client, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    uint64_t before = announced();
    size_t total = send_until_held_up(client);
    CHECK(announced() - before > 0 && announced() - before <= 2 * 8192);
    CHECK(total < ENOUGH);
    world_close(client);
    receive_content(server, total);
    world_close(server);
}

static void files_are_held_up_alike(void) {
    char name[] = "/tmp/odb-ahead-XXXXXX";
    int client, server, made = mkstemp(name);
    REQUIRE(made >= 0);
    for (int i = 0; i < 16; i++) REQUIRE(write(made, piece, sizeof piece) == PIECE);
    int file = open(name, O_RDONLY);
    REQUIRE(file >= 0 && unlink(name) == 0);
    close(made);
    world_connect(&client, &server);
    world_nonblocking(client);
    uint64_t before = announced();
    size_t total = 0;
    for (bool held_up = false; !held_up && total < ENOUGH;) {
        off64_t at = 0;
        ssize_t sent = odb_sendfile(&world, client, file, &at, 16 * PIECE);
        held_up = sent < 16 * PIECE; /* a file's end comes after whole pieces: what is received shows a cut elsewhere */
        if (sent > 0) total += (size_t)sent;
    }
    CHECK(announced() - before <= BOUND);
    CHECK(total > BOUND && total < ENOUGH);
    world_close(client);
    receive_content(server, total);
    world_close(server);
    close(file);
}

static const struct check_case cases[] = {
    CHECK_CASE(peer_that_does_not_read_holds_up_its_sender),
    CHECK_CASE(bytes_that_are_taken_may_be_announced_again),
    CHECK_CASE(peer_that_speaks_makes_room),
    CHECK_CASE(small_send_buffer_is_a_bound_too),
    CHECK_CASE(files_are_held_up_alike),
};

int main(int argc, char **argv) {
    static const char *const settings[] = {"ahead_max=65536", "strategy=anticipated", NULL};
    world_begin(settings);
    fixture_fill(piece, sizeof piece, 5, 0);
    return check_run(cases, sizeof cases / sizeof cases[0], argc, argv);
}
