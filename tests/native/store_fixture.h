/* store_fixture.h: one store of an origin, whose leases and bounds the tests know, and payloads that can be recognised when they are served. */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include "core/store.h"
#include "os/clock.h"
#include "payload_fixture.h"
#include "wire/message.h"

enum { LEASE = 60000, GC = 600000 };

static struct odb_options options;
static struct fixture_stats counters;
static struct odb_stats *stats;
static struct odb_store *store;
static uint64_t start;

static inline void begin(void) {
    static struct odb_store one;
    REQUIRE(odb_real_load());
    odb_options_default(&options);
    options.lease_ms = LEASE;
    options.gc_delay_ms = GC;
    options.store_max = 1 << 20;
    options.payload_max = 64;
    stats = fixture_stats_begin(&counters);
    store = &one;
    memset(store, 0, sizeof *store);
    odb_store_init(store, &options, stats);
    start = odb_clock_ms();
}

/* Everything goes, whatever its state: this also checks that nothing is left behind. */
static inline void end(void) {
    odb_store_reap(store, start + 2 * GC);
    CHECK_EQ(fixture_count(stats, ODB_STAT_payloads_live), 0);
    CHECK_EQ(fixture_count(stats, ODB_STAT_store_bytes_live), 0);
    odb_memory_file_close(&store->memory);
    odb_real.munmap(store->payloads.records, store->payloads.mapped);
}

static inline struct odb_span capture_memory(size_t length, uint32_t seed) {
    static uint8_t bytes[1 << 20];
    struct odb_span span = {.length = 0};
    fixture_fill(bytes, length, seed, 0);
    struct iovec iov[3] = {{bytes, length / 3}, {bytes + length / 3, 0}, {bytes + length / 3, length - length / 3}};
    CHECK_EQ(odb_store_capture_memory(store, iov, 3, length, &span), ODB_CAPTURED);
    memset(bytes, 0, length); /* the application may reuse its buffer at once */
    return span;
}

static inline struct odb_span capture_file(int fd, uint64_t offset, uint64_t length) {
    struct odb_span span = {.length = 0};
    CHECK_EQ(odb_store_capture_file(store, fd, offset, length, &span), ODB_CAPTURED);
    return span;
}

static inline int open_span(const struct odb_span *span, struct odb_serving *serving) {
    return odb_store_open(store, span->payload, span->token, span->offset, span->length, serving);
}

/* Serves a span and compares it. */
static inline void serve(const struct odb_span *span, uint32_t seed) {
    static uint8_t bytes[1 << 20];
    struct odb_serving serving;
    REQUIRE(open_span(span, &serving) == 0);
    CHECK_EQ(pread(serving.fd, bytes, span->length, (off_t)serving.offset), (ssize_t)span->length);
    CHECK(fixture_same(bytes, span->length, seed, span->offset));
    odb_store_close_serving(store, &serving, span->length);
}

static inline bool is_live(const struct odb_span *span) {
    struct odb_serving serving;
    int reason = open_span(span, &serving);
    if (reason == 0) {
        odb_store_close_serving(store, &serving, 0);
    } else {
        CHECK_EQ(reason, ODB_WIRE_GONE);
    }
    return reason == 0;
}

#endif
