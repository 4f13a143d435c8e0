/* Where the ends of windows have to be asked for one by one, the peer is asked for real bytes; elsewhere it is not. */
#include "check.h"
#include "core/heap.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"
#include "wire/hint.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#define P ((size_t)ODB_PAGE)

enum { BUFFER = 4 * (int)ODB_PAGE, BODY = 16 * (int)ODB_PAGE, FILE_SIZE = 40000 };

static uint8_t *block;

/* The peer sends bodies that are received into buffers that begin `offset` bytes into a page, until enough have been mapped for a judgement. */
static void receive_bodies(int raw, int fd, size_t offset) {
    uint8_t wire[256];
    uint64_t before = world_count(ODB_STAT_windows_mapped);
    struct odb_span span = world_payload(3, BODY);
    REQUIRE(odb_real.send(raw, wire, world_hello(wire), MSG_NOSIGNAL) > 0);
    while ((world_count(ODB_STAT_windows_mapped) - before) * 3 * P < 2 * ODB_DELIVERY_SAMPLE) {
        size_t length = world_virtual(wire, &span, 3, 0, 0);
        REQUIRE(odb_real.send(raw, wire, length, MSG_NOSIGNAL) == (ssize_t)length);
        for (size_t done = 0; done < BODY;) {
            size_t filled = done % BUFFER;
            ssize_t got = world_recv(fd, block + offset + filled, BUFFER - filled, 0);
            REQUIRE(got > 0);
            done += (size_t)got;
        }
    }
}

/* What the next message of the application is preceded by; 0: no hint. */
static unsigned hint_before_next_message(int raw, int fd) {
    uint8_t wire[256];
    struct odb_wire_decoder decoder;
    struct odb_wire_event event;
    unsigned strategy = 0;
    world_send_all(fd, "GET", 3);
    odb_wire_decoder_init(&decoder, true);
    for (;;) {
        ssize_t got = odb_real.recv(raw, wire, sizeof wire, 0);
        REQUIRE(got > 0);
        for (size_t at = 0; at < (size_t)got;) {
            at += odb_wire_decoder_feed(&decoder, wire + at, (size_t)got - at, &event);
            REQUIRE(event.kind != ODB_WIRE_EVENT_ERROR);
            if (event.kind == ODB_WIRE_EVENT_HINT) strategy = event.hint.strategy;
            if (event.kind == ODB_WIRE_EVENT_REAL) return strategy;
        }
    }
}

static unsigned hint_after_bodies(const char *strategy, size_t offset) {
    int raw, fd;
    world_set("strategy", strategy);
    world.windows.asked = (struct odb_delivery){.mapped = 0};
    world_raw_client(&raw, &fd);
    receive_bodies(raw, fd, offset);
    unsigned hint = hint_before_next_message(raw, fd);
    world_close(raw);
    world_close(fd);
    return hint;
}

static void buffers_within_pages_make_a_process_ask_for_real_bytes(void) {
    CHECK_EQ(hint_after_bodies("dynamic", 700), ODB_WIRE_HINT_REAL);
    CHECK_EQ(hint_after_bodies("anticipated", 700), ODB_WIRE_HINT_REAL);
    CHECK_EQ(hint_after_bodies("direct", 700), ODB_WIRE_HINT_REAL);
}

static void whole_pages_and_the_original_leave_it_at_descriptors(void) {
    CHECK(hint_after_bodies("dynamic", 0) != ODB_WIRE_HINT_REAL);
    CHECK(hint_after_bodies("anticipated", 0) != ODB_WIRE_HINT_REAL);
    CHECK(hint_after_bodies("direct", 0) != ODB_WIRE_HINT_REAL);
    world_set("delivery", "window");
    CHECK(hint_after_bodies("dynamic", 700) != ODB_WIRE_HINT_REAL);
    world_set("delivery", "learn");
}

/* Real bytes that have arrived end it: what is cheaper may have changed. */
static void descriptors_are_tried_again_after_some_real_bytes_and_then_more_rarely(void) {
    struct odb_delivery delivery = {.mapped = 0};
    for (unsigned proof = 0; proof < ODB_DELIVERY_PROOFS + 3; proof++) {
        unsigned doublings = proof < ODB_DELIVERY_PROOFS ? proof : ODB_DELIVERY_PROOFS;
        odb_delivery_judge_ends(&delivery, true);
        odb_delivery_received(&delivery, (ODB_DELIVERY_TRUST << doublings) - 1);
        CHECK(odb_delivery_wants_real(&delivery));
        odb_delivery_received(&delivery, 1);
        CHECK(!odb_delivery_wants_real(&delivery));
    }
    odb_delivery_judge_ends(&delivery, false);
    odb_delivery_judge_ends(&delivery, true);
    odb_delivery_received(&delivery, ODB_DELIVERY_TRUST);
    CHECK(!odb_delivery_wants_real(&delivery));
}

static ssize_t (*genuine_pread)(int, void *, size_t, off_t);
static _Thread_local size_t bytes_read;

static ssize_t counted_pread(int from, void *to, size_t length, off_t offset) {
    ssize_t got = genuine_pread(from, to, length, offset);
    bytes_read += got > 0 ? (size_t)got : 0;
    return got;
}

static void file_for_a_peer_that_wants_real_bytes_goes_without_being_read_here(void) {
    static uint8_t content[FILE_SIZE], got[FILE_SIZE];
    int client, server, made = memfd_create("file", 0);
    char path[64], byte;
    off64_t offset = 0;
    fixture_fill(content, FILE_SIZE, 5, 0);
    REQUIRE(odb_real.write(made, content, FILE_SIZE) == FILE_SIZE);
    snprintf(path, sizeof path, "/proc/self/fd/%d", made);
    int file = open(path, O_RDONLY);
    world_connect(&client, &server);
    world_send_all(client, "?", 1);
    world_recv_all(server, &byte, 1, 1);
    world_nonblocking(server);
    atomic_store(&world_stream(server)->peer_geometry, ODB_STREAM_WANTS_REAL);
    genuine_pread = odb_real.pread;
    odb_real.pread = counted_pread;
    bytes_read = 0;
    for (size_t done = 0; done < FILE_SIZE;) {
        ssize_t sent = odb_sendfile(&world, server, file, &offset, FILE_SIZE - done);
        REQUIRE(sent > 0);
        world_recv_all(client, got + done, (size_t)sent, (size_t)sent);
        done += (size_t)sent;
    }
    CHECK_MEM_EQ(got, content, FILE_SIZE);
    odb_real.pread = genuine_pread;
    CHECK_EQ(bytes_read, 0);
    world_close(client);
    world_close(server);
    odb_real.close(file);
    odb_real.close(made);
}

static const struct check_case cases[] = {
    CHECK_CASE(buffers_within_pages_make_a_process_ask_for_real_bytes),
    CHECK_CASE(whole_pages_and_the_original_leave_it_at_descriptors),
    CHECK_CASE(descriptors_are_tried_again_after_some_real_bytes_and_then_more_rarely),
    CHECK_CASE(file_for_a_peer_that_wants_real_bytes_goes_without_being_read_here),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    block = world_pages(BUFFER + P);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
