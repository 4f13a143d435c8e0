/* clock.h: time for leases and deadlines. CLOCK_MONOTONIC in milliseconds; async-signal-safe. */
#ifndef ODB_OS_CLOCK_H
#define ODB_OS_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t odb_clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

/* The same time as of the kernel's last tick, up to 10 ms ago: for leases. A fifth of the cost. */
static inline uint64_t odb_clock_rough_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

#endif
