/* The payload store of an origin: how long what it has captured stays, and that it goes then. Time is a parameter of reaping, so nothing here waits. */
#include "store_fixture.h"

#include <sys/stat.h>

static void used_memory_goes_when_its_lease_ends(void) {
    begin();
    struct odb_span used = capture_memory(5000, 1), half = capture_memory(5000, 2), never = capture_memory(5000, 3);
    struct odb_span part = odb_span_part(&half, 0, 2500);
    serve(&used, 1);
    serve(&part, 2);
    odb_store_reap(store, start + LEASE - 1);
    CHECK(is_live(&used));
    odb_store_reap(store, odb_clock_ms() + LEASE);
    CHECK(!is_live(&used));
    CHECK(is_live(&half));
    CHECK(is_live(&never));
    odb_store_reap(store, start + GC - 1);
    CHECK(is_live(&never));
    odb_store_reap(store, odb_clock_ms() + GC);
    CHECK(!is_live(&half));
    CHECK(!is_live(&never));
    end();
}

static void released_memory_goes_after_half_its_lease_if_it_was_used(void) {
    begin();
    struct odb_span used = capture_memory(5000, 1), unused = capture_memory(5000, 2), later = capture_memory(5000, 3);
    serve(&used, 1);
    odb_store_release(store, used.payload);
    odb_store_release(store, unused.payload);
    odb_store_release(store, later.payload);
    odb_store_release(store, 1); /* unknown: ignored */
    serve(&later, 3);            /* released first, fetched afterwards by another holder */
    odb_store_reap(store, start + LEASE / 2 - 1);
    CHECK(is_live(&used));
    odb_store_reap(store, odb_clock_ms() + LEASE / 2);
    CHECK(!is_live(&used));
    CHECK(!is_live(&later));
    CHECK(is_live(&unused));
    end();
}

/* Moves what is live into the past. */
static void age(uint64_t ms) {
    for (uint32_t i = 0; i < store->payloads.high; i++) {
        struct odb_payload *payload = &store->payloads.records[i];
        if (payload->kind == ODB_PAYLOAD_NONE) continue;
        payload->announced_ms -= ms;
        odb_payloads_set_due(&store->payloads, payload, payload->due_ms - ms);
    }
}

static void a_file_that_is_fetched_slowly_outlives_its_announcement(void) {
    begin();
    int fetched_file = fixture_file(64 << 10, 1), idle_file = fixture_file(64 << 10, 2);
    struct odb_span fetched = capture_file(fetched_file, 0, 64 << 10), idle = capture_file(idle_file, 0, 64 << 10);
    struct odb_span memory = capture_memory(5000, 3), part = odb_span_part(&fetched, 100, 1000);
    struct odb_span piece = odb_span_part(&memory, 100, 1000);
    age(GC - LEASE);
    serve(&part, 1);
    serve(&piece, 3);
    odb_store_reap(store, start + 2 * LEASE);
    CHECK(is_live(&fetched));
    CHECK(!is_live(&idle));
    CHECK(!is_live(&memory));
    odb_store_reap(store, odb_clock_ms() + GC);
    CHECK(!is_live(&fetched));
    close(fetched_file);
    close(idle_file);
    end();
}

static void a_gc_delay_within_the_lease_does_not_break_the_promise(void) {
    begin();
    options.gc_delay_ms = 1000;
    struct odb_span span = capture_memory(5000, 1);
    odb_store_reap(store, start + LEASE - 1);
    CHECK(is_live(&span));
    odb_store_reap(store, odb_clock_ms() + LEASE);
    CHECK(!is_live(&span));
    end();
}

static void what_is_being_served_stays(void) {
    begin();
    int fd = fixture_file(5000, 2);
    struct odb_span memory = capture_memory(5000, 1), file = capture_file(fd, 0, 5000);
    struct odb_serving first, second;
    uint8_t bytes[5000];
    REQUIRE(open_span(&memory, &first) == 0 && open_span(&file, &second) == 0);
    odb_store_reap(store, start + 2 * GC);
    capture_memory(100000, 9);
    CHECK_EQ(pread(first.fd, bytes, 5000, (off_t)first.offset), 5000);
    CHECK(fixture_same(bytes, 5000, 1, 0));
    CHECK_EQ(pread(second.fd, bytes, 5000, (off_t)second.offset), 5000);
    CHECK(fixture_same(bytes, 5000, 2, 0));
    odb_store_close_serving(store, &first, 5000);
    odb_store_close_serving(store, &second, 5000);
    odb_store_reap(store, start + 2 * GC + 1);
    CHECK(!is_live(&memory));
    CHECK(!is_live(&file));
    close(fd);
    end();
}

static void a_used_file_lives_on_while_descriptors_are_plentiful(void) {
    begin();
    store->files_max = 4;
    int fd = fixture_file(5000, 2);
    struct odb_span span = capture_file(fd, 0, 5000);
    serve(&span, 2);
    odb_store_reap(store, odb_clock_ms() + LEASE);
    CHECK(is_live(&span));
    capture_file(fd, 0, 5000);
    CHECK_EQ(fixture_count(stats, ODB_STAT_payloads_captured), 1);
    odb_store_reap(store, odb_clock_ms() + GC);
    CHECK(!is_live(&span));
    close(fd);
    end();
}

static void descriptors_of_files_are_bounded_and_the_oldest_gives_way_after_its_lease(void) {
    begin();
    store->files_max = 2;
    int fds[3] = {fixture_file(100, 1), fixture_file(100, 2), fixture_file(100, 3)};
    struct odb_span first = capture_file(fds[0], 0, 100), second = capture_file(fds[1], 0, 100), third;
    CHECK_EQ(odb_store_capture_file(store, fds[2], 0, 100, &third), ODB_CAPTURE_FULL);
    CHECK(is_live(&first) && is_live(&second));
    options.lease_ms = 0;
    struct odb_serving serving;
    REQUIRE(open_span(&first, &serving) == 0);
    third = capture_file(fds[2], 0, 100); /* the first is being served, so the second has to go */
    odb_store_close_serving(store, &serving, 0);
    CHECK(is_live(&first) && !is_live(&second) && is_live(&third));
    close(fds[0]), close(fds[1]), close(fds[2]);
    end();
}

static void dropped_memory_returns_to_the_system(void) {
    begin();
    struct stat status;
    struct odb_span spans[8];
    for (uint32_t i = 0; i < 8; i++) {
        spans[i] = capture_memory(65536, i);
        if (i % 2 == 0) {
            serve(&spans[i], i);
        }
    }
    REQUIRE(fstat(store->memory.fd, &status) == 0);
    CHECK_EQ(status.st_blocks * 512, 8 * 65536);
    odb_store_reap(store, odb_clock_ms() + LEASE);
    REQUIRE(fstat(store->memory.fd, &status) == 0);
    CHECK_EQ(status.st_blocks * 512, 4 * 65536);
    for (uint32_t i = 1; i < 8; i += 2) {
        serve(&spans[i], i);
    }
    odb_store_reap(store, odb_clock_ms() + LEASE);
    REQUIRE(fstat(store->memory.fd, &status) == 0);
    CHECK_EQ(status.st_blocks, 0);
    end();
}

static void announced_bytes_are_pending_until_fetched_released_or_expired(void) {
    begin();
    CHECK(!odb_store_pending(store));
    struct odb_span memory = capture_memory(5000, 1), other = capture_memory(5000, 2);
    CHECK(odb_store_pending(store));
    serve(&memory, 1);
    CHECK(odb_store_pending(store));
    odb_store_release(store, other.payload);
    CHECK(!odb_store_pending(store));
    int fd = fixture_file(5000, 3);
    struct odb_span file = capture_file(fd, 0, 5000);
    serve(&file, 3);
    CHECK(!odb_store_pending(store));
    capture_file(fd, 0, 5000);
    CHECK(odb_store_pending(store));
    options.lease_ms = 0;
    CHECK(!odb_store_pending(store));
    close(fd);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(used_memory_goes_when_its_lease_ends),
    CHECK_CASE(released_memory_goes_after_half_its_lease_if_it_was_used),
    CHECK_CASE(a_file_that_is_fetched_slowly_outlives_its_announcement),
    CHECK_CASE(a_gc_delay_within_the_lease_does_not_break_the_promise),
    CHECK_CASE(what_is_being_served_stays),
    CHECK_CASE(a_used_file_lives_on_while_descriptors_are_plentiful),
    CHECK_CASE(descriptors_of_files_are_bounded_and_the_oldest_gives_way_after_its_lease),
    CHECK_CASE(dropped_memory_returns_to_the_system),
    CHECK_CASE(announced_bytes_are_pending_until_fetched_released_or_expired),
};

CHECK_MAIN(cases)
