/* The outbound direction: what is captured, forwarded or sent for real, and that short writes at any byte change nothing for the receiver. */
#include "core/heap.h"
#include "os/real.h"
#include "transmit_fixture.h"

/* Small bytes, a forwarded window in the middle of real bytes, a large memory that is captured, small bytes: cut at every byte of the wire. */
static void short_writes_at_every_byte_keep_content_and_order(void) {
    struct odb_span span = world_payload(1, 2 * P);
    static uint8_t large[3 * 4096 + 5];
    fixture_fill(large, sizeof large, 2, 0);
    for (size_t budget = 0; budget < 340; budget += budget < 260 ? 1 : 7) {
        int client, server;
        uint8_t *mixed = world_pages(4 * P);
        world_connect(&client, &server);
        world_nonblocking(client);
        fixture_fill(mixed, 4 * P, 3, 0);
        REQUIRE(odb_windows_map(&world.windows, mixed + P, 2 * P, &span) == 0);
        sent_length = 0;
        note("begin", 5);
        note(mixed + P - 40, 40);
        size_t at = sent_length;
        sent_length += 2 * P;
        fixture_fill(sent_bytes + at, 2 * P, 1, 0);
        note(mixed + 3 * P, 30);
        note(large, sizeof large);
        note("end", 3);
        write_limited(client, "begin", 5, budget);
        write_limited(client, mixed + P - 40, 2 * P + 70, budget);
        write_limited(client, large, sizeof large, budget);
        write_limited(client, "end", 3, budget);
        check_received(server);
        odb_free(&world, mixed);
        world_close(client);
        world_close(server);
    }
}

static void interrupted_calls_are_repeated(void) {
    int client, server;
    world_connect(&client, &server);
    sent_length = 0;
    note("interrupted", 11);
    world_faults.interrupt = 2;
    world_send_all(client, "interrupted", 11);
    check_received(server);
    faults_clear();
    world_close(client);
    world_close(server);
}

static void lack_of_memory_to_park_sends_the_rest_at_once(void) {
    int client, server;
    world_connect(&client, &server);
    world_nonblocking(client);
    sent_length = 0;
    note("not lost", 8);
    world_faults = (struct world_faults){.send_limited = true, .send_budget = 46, .fail_malloc = 1};
    CHECK_EQ(world_send(client, "not lost", 8, 0), 8);
    faults_clear();
    check_received(server);
    world_close(client);
    world_close(server);
}

/* I9: what is only forwarded is neither fetched nor faulted on. */
static void forwarded_sub_ranges_of_windows_are_spans_and_cost_no_fetch(void) {
    static const struct {
        size_t from, length;
    } ranges[] = {{0, 16384}, {1, 16383}, {5000, 9000}, {4096, 4096}, {100, 1}, {0, 4095}, {12000, 4384}};
    struct odb_span span = world_payload(4, 4 * P);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        int client, server;
        uint8_t *pages = world_pages(4 * P);
        world_connect(&client, &server);
        REQUIRE(odb_windows_map(&world.windows, pages, 4 * P, &span) == 0);
        uint64_t fetches = world_count(ODB_STAT_fetches), faults = world_count(ODB_STAT_faults),
                 spans = world_count(ODB_STAT_spans_sent);
        CHECK_EQ(world_send(client, pages + ranges[i].from, ranges[i].length, 0), ranges[i].length);
        CHECK_EQ(world_count(ODB_STAT_fetches), fetches);
        CHECK_EQ(world_count(ODB_STAT_faults), faults);
        CHECK_EQ(world_count(ODB_STAT_spans_sent), spans + 1);
        sent_length = ranges[i].length;
        fixture_fill(sent_bytes, sent_length, 4, ranges[i].from);
        odb_free(&world, pages);
        check_received(server);
        world_close(client);
        world_close(server);
    }
}

static void neighbouring_windows_leave_as_one_descriptor(void) {
    struct odb_span span = world_payload(5, 4 * P);
    struct odb_span first = odb_span_part(&span, 0, 2 * P), second = odb_span_part(&span, 2 * P, 2 * P);
    for (int coalesce = 0; coalesce < 2; coalesce++) {
        int client, server;
        uint8_t *a = world_pages(2 * P), *b = world_pages(2 * P);
        world_set("coalesce", coalesce ? "on" : "off");
        world_connect(&client, &server);
        REQUIRE(odb_windows_map(&world.windows, a, 2 * P, &first) == 0 &&
                odb_windows_map(&world.windows, b, 2 * P, &second) == 0);
        uint64_t spans = world_count(ODB_STAT_spans_sent);
        struct iovec iov[2] = {{a, 2 * P}, {b, 2 * P}};
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
        CHECK_EQ(odb_send(&world, client, &message, 0, ODB_SOCKET_CALL), 4 * P);
        CHECK_EQ(world_count(ODB_STAT_spans_sent) - spans, coalesce ? 1 : 2);
        odb_free(&world, a);
        odb_free(&world, b);
        sent_length = 4 * P;
        fixture_fill(sent_bytes, sent_length, 5, 0);
        check_received(server);
        world_close(client);
        world_close(server);
    }
    world_set("coalesce", "on");
}

static void many_iovecs_are_sent_whole_and_in_order(void) {
    enum { COUNT = 300 };
    static struct iovec iov[COUNT];
    int client, server;
    size_t at = 0;
    static uint8_t source[COUNT * 700];
    fixture_fill(source, sizeof source, 6, 0);
    for (size_t i = 0; i < COUNT; i++) {
        size_t length = i % 7 == 0 ? 0 : 1 + (i * 37) % 700;
        iov[i] = (struct iovec){source + at, length};
        at += length;
    }
    world_connect(&client, &server);
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = COUNT};
    CHECK_EQ(odb_send(&world, client, &message, 0, ODB_SOCKET_CALL), at);
    sent_length = 0;
    note(source, at);
    check_received(server);
    world_close(client);
    world_close(server);
}

static void captured_memory_may_change_after_the_call(void) {
    int client, server;
    static uint8_t memory[64 * 1024];
    fixture_fill(memory, sizeof memory, 7, 0);
    world_connect(&client, &server);
    uint64_t captured = world_count(ODB_STAT_payloads_captured);
    CHECK_EQ(world_send(client, memory, sizeof memory, 0), sizeof memory);
    CHECK(world_count(ODB_STAT_payloads_captured) > captured);
    sent_length = 0;
    note(memory, sizeof memory);
    memset(memory, 0, sizeof memory);
    check_received(server);
    world_close(client);
    world_close(server);
}

/* I2, I5: full means real bytes. */
static void full_store_sends_real_bytes(void) {
    int client, server;
    static uint8_t memory[128 * 1024];
    fixture_fill(memory, sizeof memory, 8, 0);
    world_set("store_max", "64K");
    world_connect(&client, &server);
    uint64_t full = world_count(ODB_STAT_fallback_store_full), spans = world_count(ODB_STAT_spans_sent);
    CHECK_EQ(world_send(client, memory, sizeof memory, 0), sizeof memory);
    CHECK(world_count(ODB_STAT_fallback_store_full) > full);
    CHECK_EQ(world_count(ODB_STAT_spans_sent), spans);
    sent_length = 0;
    note(memory, sizeof memory);
    check_received(server);
    world_set("store_max", "256M");
    world_close(client);
    world_close(server);
}

static void small_writes_and_switched_off_capture_send_real_bytes(void) {
    int client, server;
    static uint8_t memory[32 * 1024];
    uint64_t captured = world_count(ODB_STAT_payloads_captured);
    fixture_fill(memory, sizeof memory, 9, 0);
    world_connect(&client, &server);
    world_send_all(client, memory, 8191);
    world_set("capture", "file");
    world_send_all(client, memory + 8191, sizeof memory - 8191);
    world_set("capture", "file,memory");
    CHECK_EQ(world_count(ODB_STAT_payloads_captured), captured);
    sent_length = 0;
    note(memory, sizeof memory);
    check_received(server);
    world_close(client);
    world_close(server);
}

/* Copying short pieces into the store costs more than it saves; what was written at once and is long enough is still a payload. */
static void writes_below_memory_min_send_real_bytes(void) {
    int client, server;
    static uint8_t memory[64 * 1024 + 32 * 1024];
    uint64_t captured = world_count(ODB_STAT_payload_bytes_captured);
    fixture_fill(memory, sizeof memory, 19, 0);
    world_connect(&client, &server);
    world_set("memory_min", "64K");
    world_send_all(client, memory, 32 * 1024);
    CHECK_EQ(world_count(ODB_STAT_payload_bytes_captured), captured);
    world_send_all(client, memory + 32 * 1024, 64 * 1024);
    CHECK_EQ(world_count(ODB_STAT_payload_bytes_captured) - captured, 64 * 1024);
    world_set("memory_min", "8K");
    sent_length = 0;
    note(memory, sizeof memory);
    check_received(server);
    world_close(client);
    world_close(server);
}

static void whoever_writes_first_on_an_accepted_connection_speaks_classic(void) {
    int raw, server;
    char bytes[8];
    world_raw_client(&raw, &server);
    CHECK_EQ(world_send(server, "220 hi\r\n", 8, 0), 8);
    CHECK_EQ(odb_real.recv(raw, bytes, 8, MSG_WAITALL), 8);
    CHECK_MEM_EQ(bytes, "220 hi\r\n", 8);
    world_close(raw);
    world_close(server);
}

static const struct check_case cases[] = {
    CHECK_CASE(short_writes_at_every_byte_keep_content_and_order),
    CHECK_CASE(interrupted_calls_are_repeated),
    CHECK_CASE(lack_of_memory_to_park_sends_the_rest_at_once),
    CHECK_CASE(forwarded_sub_ranges_of_windows_are_spans_and_cost_no_fetch),
    CHECK_CASE(neighbouring_windows_leave_as_one_descriptor),
    CHECK_CASE(many_iovecs_are_sent_whole_and_in_order),
    CHECK_CASE(captured_memory_may_change_after_the_call),
    CHECK_CASE(full_store_sends_real_bytes),
    CHECK_CASE(small_writes_and_switched_off_capture_send_real_bytes),
    CHECK_CASE(writes_below_memory_min_send_real_bytes),
    CHECK_CASE(whoever_writes_first_on_an_accepted_connection_speaks_classic),
    CHECK_CASE(nothing_is_left_behind),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    faults_install();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
