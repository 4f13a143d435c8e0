/* unreachable.h: addresses that a process has found out of reach, remembered for a while.
 *
 * Used twice: for origins that could never be connected to, and for the peers whose streams carry spans of such origins; those are asked (HINT, see docs/PROTOCOL.md) to
 * send real bytes. An address that turns out to be out of reach again after it was tried anew is remembered for twice as long.
 *
 * Async-signal-safe and thread-safe: bounded memory; where the lock cannot be had at once nothing is remembered, and nothing is known.
 */
#ifndef ODB_CORE_UNREACHABLE_H
#define ODB_CORE_UNREACHABLE_H

#include "os/lock.h"

#include <stdbool.h>
#include <stdint.h>

#define ODB_UNREACHABLE 32u
#define ODB_UNREACHABLE_FIRST_MS ((uint64_t)60000)
#define ODB_UNREACHABLE_LAST_MS ((uint64_t)3600000)

struct odb_unreachable_entry {
    uint8_t address[16];
    uint16_t port;
    uint64_t until_ms; /* 0: unused */
    uint64_t period_ms;
};

/* All-zero memory is empty. */
struct odb_unreachable {
    struct odb_lock lock;
    _Atomic uint32_t count; /* entries in use, also those whose time is over */
    struct odb_unreachable_entry entry[ODB_UNREACHABLE];
};

/* Is anything remembered at all? */
static inline bool odb_unreachable_any(const struct odb_unreachable *unreachable) {
    return atomic_load_explicit(&unreachable->count, memory_order_relaxed) > 0;
}

/* Is it out of reach, as far as known at `now_ms`? */
bool odb_unreachable_has(struct odb_unreachable *unreachable, const uint8_t address[16], uint16_t port,
                         uint64_t now_ms);
void odb_unreachable_add(struct odb_unreachable *unreachable, const uint8_t address[16], uint16_t port,
                         uint64_t now_ms);
/* It has been reached. */
void odb_unreachable_forget(struct odb_unreachable *unreachable, const uint8_t address[16], uint16_t port);

/* Does this errno of a connection that was never established say that the origin cannot be reached from here? */
bool odb_unreachable_says(int error);

#endif
