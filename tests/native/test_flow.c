/* A receiver that fills whole pages one behind the other says so, and the origin then cuts bodies for it: what shares a page with a header travels for real, whatever the
 * header's length, and nothing has to be fetched. */
#include "check.h"
#include "core/heap.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define P ((size_t)ODB_PAGE)

enum { SEED = 31, FILE_SIZE = 512 * 1024, BUFFER = 16384, PLACES = FILE_SIZE / BUFFER + 2 };

static int client, server, file;
static uint8_t *buffer[PLACES]; /* of the client, of BUFFER bytes each; filled one behind the other */
static uint8_t header[3 * 4096];

static void make_file(void) {
    char path[] = "/tmp/odb-flow-XXXXXX";
    static uint8_t content[FILE_SIZE];
    int writable = mkstemp(path);
    fixture_fill(content, sizeof content, SEED, 0);
    REQUIRE(writable >= 0 && write(writable, content, sizeof content) == sizeof content);
    file = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(file >= 0 && unlink(path) == 0 && close(writable) == 0);
}

static void begin(void) {
    world_connect(&client, &server);
    world_nonblocking(server);
    for (int i = 0; i < PLACES; i++) buffer[i] = world_pages(BUFFER);
}

static void end(void) {
    for (int i = 0; i < PLACES; i++) odb_free(&world, buffer[i]);
    world_close(client);
    world_close(server);
}

static void ask(void) {
    char byte;
    struct pollfd ready = {.fd = server, .events = POLLIN};
    world_send_all(client, "?", 1);
    while (world_recv(server, &byte, 1, 0) != 1) REQUIRE(odb_real.poll(&ready, 1, 10000) == 1);
}

/* A header, then the first `length` bytes of the file, by sendfile or in the same write as the header. */
static void answer(size_t head, size_t length, bool from_memory) {
    static uint8_t memory[FILE_SIZE];
    memset(header, 'h', head);
    if (from_memory) {
        fixture_fill(memory, length, SEED, 0);
        struct iovec iov[2] = {{header, head}, {memory, length}};
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
        CHECK_EQ(odb_send(&world, server, &message, 0, ODB_SOCKET_CALL), head + length);
    } else {
        off64_t offset = 0;
        world_send_all(server, header, head);
        CHECK_EQ(odb_sendfile(&world, server, file, &offset, length), length);
    }
}

/* Takes `length` bytes in order, no more. */
static void fill_buffers(size_t length) {
    for (size_t done = 0; done < length;) {
        size_t at = done % BUFFER, room = BUFFER - at;
        ssize_t got = world_recv(client, buffer[done / BUFFER] + at, room < length - done ? room : length - done, 0);
        REQUIRE(got > 0);
        done += (size_t)got;
    }
}

/* Returns how many fetches it took before the bytes were compared, which takes some. */
static uint64_t exchange(size_t head, size_t length, bool from_memory) {
    uint64_t fetched = world_count(ODB_STAT_fetches);
    ask();
    answer(head, length, from_memory);
    for (size_t done = 0; done < head + length;) {
        size_t at = done % BUFFER;
        ssize_t got = world_recv(client, buffer[done / BUFFER] + at, BUFFER - at, 0);
        REQUIRE(got > 0);
        done += (size_t)got;
    }
    fetched = world_count(ODB_STAT_fetches) - fetched;
    CHECK_MEM_EQ(buffer[0], header, head);
    for (size_t done = head; done < head + length;) {
        size_t at = done % BUFFER, part = BUFFER - at < head + length - done ? BUFFER - at : head + length - done;
        CHECK(world_same(buffer[done / BUFFER] + at, part, SEED, done - head));
        done += part;
    }
    return fetched;
}

static void bodies_behind_headers_of_any_length_need_no_fetch(void) {
    static const size_t heads[] = {257, 300, 1, 4095, 4096, 5000, 258};
    static const size_t lengths[] = {65536, 40000, 262144, 262145, 300000};
    for (int from_memory = 0; from_memory < 2; from_memory++) {
        begin();
        CHECK(exchange(257, 65536, from_memory) > 0); /* until the receiver is known */
        for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
            for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++)
                CHECK_EQ(exchange(heads[i], lengths[j], from_memory), 0);
        end();
    }
}

/* Who begins bodies in fresh buffers is sent no byte of them for real. */
static void bodies_in_fresh_buffers_travel_whole(void) {
    begin();
    for (int i = 0; i < 4; i++) {
        uint64_t edges = world_count(ODB_STAT_edge_bytes_sent), fetched = world_count(ODB_STAT_fetches);
        ask();
        answer(257, 65536, false);
        fill_buffers(257);
        for (size_t done = 0; done < 65536; done += BUFFER)
            CHECK_EQ(world_recv(client, buffer[done / BUFFER], BUFFER, 0), BUFFER);
        CHECK_EQ(world_count(ODB_STAT_edge_bytes_sent), edges);
        CHECK_EQ(world_count(ODB_STAT_fetches), fetched);
        for (size_t done = 0; done < 65536; done += BUFFER)
            CHECK(world_same(buffer[done / BUFFER], BUFFER, SEED, done));
    }
    end();
}

/* A receiver changes its ways on a connection: bytes stay right, and what it does now is learned. */
static void changed_ways_are_learned_anew(void) {
    begin();
    exchange(257, 65536, false);
    CHECK_EQ(exchange(300, 65536, false), 0);
    for (int i = 0; i < 3; i++) { /* the same block, from an odd place in it, again and again */
        size_t done = 0;
        ask();
        answer(10, 65536, false);
        fill_buffers(10);
        while (done < 65536) {
            ssize_t got = world_recv(client, buffer[0] + 100, BUFFER - 200, 0);
            REQUIRE(got > 0);
            CHECK(world_same(buffer[0] + 100, (size_t)got, SEED, done));
            done += (size_t)got;
        }
    }
    for (int i = 0; i < 2; i++) exchange(257, 65536, false);
    CHECK_EQ(exchange(301, 65536, false), 0);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(bodies_behind_headers_of_any_length_need_no_fetch),
    CHECK_CASE(bodies_in_fresh_buffers_travel_whole),
    CHECK_CASE(changed_ways_are_learned_anew),
};

int main(int count, char **arguments) {
    static const char *const settings[] = {"strategy=anticipated", "delivery=window", NULL};
    world_begin(settings);
    make_file();
    return check_run(cases, sizeof cases / sizeof *cases, count, arguments);
}
