/* What the tests of store and channels share: options, counters, files and bytes that can be recognised at any offset. */
#ifndef ODB_TESTS_PAYLOAD_FIXTURE_H
#define ODB_TESTS_PAYLOAD_FIXTURE_H

#include "check.h"
#include "core/options.h"
#include "core/stats.h"
#include "os/real.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Byte `at` of content number `seed`: no period that a page or a power of two would hide. */
__attribute__((unused)) static uint8_t fixture_byte(uint32_t seed, uint64_t at) {
    uint64_t value = (at + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;
    return (uint8_t)(value >> 56);
}

__attribute__((unused)) static void fixture_fill(uint8_t *out, size_t length, uint32_t seed, uint64_t offset) {
    for (size_t i = 0; i < length; i++) {
        out[i] = fixture_byte(seed, offset + i);
    }
}

__attribute__((unused)) static bool fixture_same(const uint8_t *bytes, size_t length, uint32_t seed, uint64_t offset) {
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] != fixture_byte(seed, offset + i)) {
            return false;
        }
    }
    return true;
}

/* A regular file of that content, without a name. */
__attribute__((unused)) static int fixture_file(size_t length, uint32_t seed) {
    static uint8_t chunk[1 << 16];
    int fd = memfd_create("odb-test", MFD_CLOEXEC);
    REQUIRE(fd >= 0);
    for (size_t at = 0; at < length; at += sizeof chunk) {
        size_t size = length - at < sizeof chunk ? length - at : sizeof chunk;
        fixture_fill(chunk, size, seed, at);
        REQUIRE(pwrite(fd, chunk, size, (off_t)at) == (ssize_t)size);
    }
    return fd;
}

/* Counters in private memory. */
struct fixture_stats {
    struct odb_stat_entry entries[ODB_STAT_COUNT];
    struct odb_stats stats;
};

__attribute__((unused)) static struct odb_stats *fixture_stats_begin(struct fixture_stats *fixture) {
    memset(fixture, 0, sizeof *fixture);
    fixture->stats.entries = fixture->entries;
    return &fixture->stats;
}

__attribute__((unused)) static uint64_t fixture_count(const struct odb_stats *stats, enum odb_stat which) {
    return atomic_load(&stats->entries[which].value);
}

#endif
