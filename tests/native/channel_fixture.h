/* What the tests of channels share: this process as origin, with the real helper thread, and as consumer over loopback. */
#ifndef ODB_TESTS_CHANNEL_FIXTURE_H
#define ODB_TESTS_CHANNEL_FIXTURE_H

#include "core/channel.h"
#include "core/origin.h"
#include "payload_fixture.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>

/* The helper thread outlives every case, and forked children start their own. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "die_after_fork=0";
}

static const uint8_t loopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};

static struct odb_options options;
static struct fixture_stats counters;
static struct odb_stats *stats;
static struct odb_store store;
static struct odb_driver driver;
static struct odb_origin_server origin;
static struct odb_channels channels;

__attribute__((unused)) static void begin(void) {
    static bool started;
    if (!started) {
        REQUIRE(odb_real_load());
        odb_options_default(&options);
        options.store_max = 64 << 20;
        options.strategy = ODB_STRATEGY_DYNAMIC; /* only fetches: pushes have tests of their own */
        stats = fixture_stats_begin(&counters);
        odb_store_init(&store, &options, stats);
        REQUIRE(odb_origin_start(&origin, &options, stats, &store, &driver));
        started = true;
    }
    odb_channels_after_fork_child(&channels); /* every case begins with an empty pool */
    odb_channels_init(&channels, &options, stats);
}

__attribute__((unused)) static struct odb_span located(struct odb_span span, uint16_t port) {
    memcpy(span.origin.address, loopback, sizeof loopback);
    span.origin.port = port;
    return span;
}

__attribute__((unused)) static struct odb_span announce_memory(size_t length, uint32_t seed) {
    uint8_t *bytes = malloc(length);
    struct odb_span span = {.length = 0};
    fixture_fill(bytes, length, seed, 0);
    struct iovec iov = {bytes, length};
    REQUIRE(odb_store_capture_memory(&store, &iov, 1, length, &span) == ODB_CAPTURED);
    free(bytes);
    return located(span, odb_origin_port(&origin));
}

__attribute__((unused)) static struct odb_span announce_file(int fd, uint64_t offset, uint64_t length) {
    struct odb_span span = {.length = 0};
    REQUIRE(odb_store_capture_file(&store, fd, offset, length, &span) == ODB_CAPTURED);
    return located(span, odb_origin_port(&origin));
}

/* Fetches a span into three pieces of odd sizes and compares. */
__attribute__((unused)) static int fetch_from(struct odb_channels *pool, const struct odb_span *span, uint32_t seed) {
    uint8_t *bytes = calloc(1, span->length + 1);
    size_t first = span->length / 3, second = span->length / 7;
    struct iovec iov[4] = {{bytes, first},
                           {bytes + first, 0},
                           {bytes + first, second},
                           {bytes + first + second, span->length - first - second}};
    errno = 4711;
    int error = odb_channels_fetch(pool, span, iov, 4);
    CHECK_EQ(errno, 4711);
    if (error == 0) {
        CHECK(fixture_same(bytes, span->length, seed, span->offset));
    }
    CHECK_EQ(bytes[span->length], 0);
    free(bytes);
    return error;
}

__attribute__((unused)) static int fetch(const struct odb_span *span, uint32_t seed) {
    return fetch_from(&channels, span, seed);
}

__attribute__((unused)) static uint64_t count(enum odb_stat which) {
    return fixture_count(stats, which);
}

__attribute__((unused)) static bool receive_all(int fd, uint8_t *out, size_t length) {
    for (size_t at = 0; at < length;) {
        ssize_t received = recv(fd, out + at, length - at, 0);
        if (received <= 0) {
            return false;
        }
        at += (size_t)received;
    }
    return true;
}

#endif
