/* I1 by differential: random writes at one end, random receives at the other, through relays with random buffers. The bytes are the same, whatever the options. */
#include "check.h"
#include "core/fault.h"
#include "core/heap.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>

#define P ((size_t)ODB_PAGE)

enum { HOPS_MAX = 4, BUFFER_MAX = 100000, ROUNDS = 150 };

static uint64_t state;

static uint64_t draw(uint64_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % below;
}

/* Small numbers, page-sized ones and large ones alike. */
static size_t draw_size(size_t most) {
    size_t size = draw(4) ? 1 + draw((uint64_t)1 << draw(18)) : (1 + draw(24)) * P;
    return size > most ? most : size;
}

struct hop {
    int out, in; /* written to, read from */
};

struct relay {
    uint8_t *block;
    size_t offset, held, sent; /* of the block: where bytes begin, how many there are, how many have gone on */
    uint64_t at;               /* position in the stream of the first of them */
    bool ended;
};

static uint32_t seed;
static uint64_t total;
static int file;

static struct hop classic_hop(void) {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    return (struct hop){ends[0], ends[1]};
}

/* Data flows from the connecting or from the accepting end; the latter has seen a HELLO before it writes, as a server has. */
static struct hop framed_hop(void) {
    int client, server;
    char byte;
    world_connect(&client, &server);
    if (draw(2)) return (struct hop){client, server};
    world_send_all(client, "?", 1);
    world_recv_all(server, &byte, 1, 1);
    return (struct hop){server, client};
}

static struct hop make_hop(void) {
    struct hop hop = draw(5) == 0 ? classic_hop() : framed_hop();
    if (draw(3) == 0) {
        int size = 5000 + (int)draw(30000);
        setsockopt(hop.out, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
    world_nonblocking(hop.in);
    world_nonblocking(hop.out);
    return hop;
}

static bool again(ssize_t result) {
    return result < 0 && errno == EAGAIN;
}

/* Writes [from, from + length), in up to four parts of one call. */
static ssize_t write_parts(int fd, uint8_t *from, size_t length) {
    struct iovec iov[4];
    int count = 0;
    for (size_t at = 0; at < length && count < 4; count++) {
        size_t part = count == 3 ? length - at : 1 + draw(length - at);
        iov[count] = (struct iovec){from + at, part};
        at += part;
    }
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    return odb_send(&world, fd, &message, MSG_NOSIGNAL, ODB_SOCKET_CALL);
}

/* The producer's next write; returns the new position. */
static uint64_t produce(int fd, uint64_t at) {
    static uint8_t memory[BUFFER_MAX];
    size_t length = draw_size(total - at < BUFFER_MAX ? total - at : BUFFER_MAX);
    ssize_t sent;
    if (draw(3) == 0) {
        off64_t offset = (off64_t)at;
        sent = odb_sendfile(&world, fd, file, &offset, length);
        if (sent > 0) CHECK_EQ(offset, at + (uint64_t)sent);
    } else {
        fixture_fill(memory, length, seed, at);
        sent = write_parts(fd, memory, length);
        memset(memory, 0xAA, length); /* the caller may use its memory for something else now */
    }
    if (again(sent)) return at;
    REQUIRE(sent > 0);
    return at + (uint64_t)sent;
}

static void forget(struct relay *relay) {
    odb_free(&world, relay->block);
    relay->block = NULL;
}

/* Looks at, moves or leaves alone what was received. */
static void handle(struct relay *relay) {
    uint8_t *bytes = relay->block + relay->offset;
    size_t look = draw(relay->held);
    switch (draw(8)) {
    case 0:
        CHECK_EQ(*(volatile uint8_t *)(bytes + look), fixture_byte(seed, relay->at + look));
        break;
    case 1:
        CHECK(world_same(bytes, relay->held, seed, relay->at));
        break;
    case 2:
        relay->block = odb_realloc(&world, relay->block, relay->offset + relay->held + draw(3 * P));
        REQUIRE(relay->block != NULL);
        break;
    case 3:
        memmove(relay->block, bytes, relay->held);
        relay->offset = 0;
        break;
    default:
        break;
    }
}

static ssize_t read_some(struct relay *relay, int fd, size_t room) {
    size_t first = draw(room) + 1;
    struct iovec iov[2] = {{relay->block + relay->offset, first}, {relay->block + relay->offset + first, room - first}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    if (draw(2)) return world_recv(fd, relay->block + relay->offset, room, 0);
    return odb_receive(&world, fd, &message, 0, draw(2) ? ODB_SOCKET_CALL : ODB_FILE_CALL);
}

/* Reads into a fresh or a used buffer, or passes on what it holds. */
static void turn(struct relay *relay, int from, int to) {
    if (relay->held == relay->sent && !relay->ended) {
        size_t room = draw_size(BUFFER_MAX / 2);
        if (draw(2)) forget(relay);
        if (!relay->block || odb_usable_size(&world, relay->block) < room) {
            forget(relay);
            relay->offset = draw(3) ? draw(3) * P : draw(2 * P);
            relay->block = odb_malloc(&world, relay->offset + room);
        } else {
            relay->offset = draw(odb_usable_size(&world, relay->block) - room + 1);
        }
        relay->at += relay->held;
        relay->held = relay->sent = 0;
        ssize_t got = read_some(relay, from, room);
        if (again(got)) return;
        if (got < 0) perror("relay");
        REQUIRE(got >= 0);
        relay->held = (size_t)got;
        relay->ended = got == 0;
        if (relay->ended)
            CHECK_EQ(odb_shutdown(&world, to, SHUT_WR), 0);
        else
            handle(relay);
    }
    if (relay->held > relay->sent) {
        size_t length = draw(3) ? relay->held - relay->sent : 1 + draw(relay->held - relay->sent);
        ssize_t sent = write_parts(to, relay->block + relay->offset + relay->sent, length);
        if (again(sent)) return;
        REQUIRE(sent > 0);
        relay->sent += (size_t)sent;
    }
}

/* Takes some of the stream and compares it; true at its end. */
static bool consume(int fd, uint64_t *at) {
    size_t room = draw_size(BUFFER_MAX), offset = draw(2) ? 0 : draw(P);
    int flags = draw(6) ? 0 : MSG_PEEK;
    uint8_t *block = odb_malloc(&world, offset + room);
    ssize_t got = world_recv(fd, block + offset, room, flags);
    bool end = got == 0;
    if (!again(got)) {
        REQUIRE(got >= 0 && (size_t)got <= room);
        if (draw(2))
            CHECK(world_same(block + offset, (size_t)got, seed, *at));
        else
            CHECK(fixture_same(block + offset, (size_t)got, seed, *at)); /* through the fault handler */
        if (flags == 0) *at += (uint64_t)got;
    }
    odb_free(&world, block);
    return end;
}

static void draw_options(void) {
    static const char *const strategies[] = {"static", "dynamic", "anticipated"}, *const minima[] = {"4K", "8K", "64K"},
                             *const captures[] = {"", "file", "memory", "file,memory"},
                             *const chunks[] = {"4K", "64K", "1M"}, *const edges[] = {"0", "1000", "4K"};
    world_set("strategy", strategies[draw(3)]);
    world_set("unaligned_size", edges[draw(3)]);
    world_set("virtual_min", minima[draw(3)]);
    world_set("capture", captures[draw(8) < 4 ? 3 : draw(4)]);
    world_set("fault_chunk", chunks[draw(3)]);
    world_set("coalesce", draw(3) ? "on" : "off");
    atomic_store(&world.windows.threads, draw(2) == 1);
}

static void round_trip(void) {
    struct hop hop[HOPS_MAX];
    struct relay relay[HOPS_MAX] = {0};
    int hops = 1 + (int)draw(HOPS_MAX);
    uint64_t produced = 0, consumed = 0;
    bool ended = false;
    total = 1 + draw(400000);
    draw_options();
    for (int i = 0; i < hops; i++) hop[i] = make_hop();
    while (!ended) {
        uint64_t who = draw((uint64_t)hops + 1);
        if (who == 0 && produced < total) {
            produced = produce(hop[0].out, produced);
            if (produced == total) CHECK_EQ(odb_shutdown(&world, hop[0].out, SHUT_WR), 0);
        } else if (who > 0 && who < (uint64_t)hops) {
            turn(&relay[who], hop[who - 1].in, hop[who].out);
        } else if (who == (uint64_t)hops) {
            ended = consume(hop[hops - 1].in, &consumed);
        }
    }
    CHECK_EQ(produced, total);
    CHECK_EQ(consumed, total);
    for (int i = 0; i < hops; i++) {
        forget(&relay[i]);
        world_close(hop[i].in);
        world_close(hop[i].out);
    }
}

/* A settled file whose byte at any position is the stream's. */
static void make_file(void) {
    char path[64];
    int made = fixture_file(400001, seed);
    snprintf(path, sizeof path, "/proc/self/fd/%d", made);
    file = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(file >= 0);
    close(made);
}

static void stream_through_random_relays_arrives_unchanged(void) {
    make_file();
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        int before = atomic_load(&check_failures);
        state = i * 0x9E3779B97F4A7C15u;
        round_trip();
        if (atomic_load(&check_failures) != before) {
            fprintf(stderr, "round %llu\n", (unsigned long long)i);
            break;
        }
    }
    close(file);
    CHECK(world_count(ODB_STAT_windows_mapped) > 0 &&
          world_count(ODB_STAT_spans_sent) > world_count(ODB_STAT_payloads_captured));
    CHECK_EQ(world.windows.live, 0);
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
}

static const struct check_case cases[] = {
    CHECK_CASE(stream_through_random_relays_arrives_unchanged),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    seed = 77;
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
