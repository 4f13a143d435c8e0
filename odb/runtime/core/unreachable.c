/* unreachable.c: a small table that forgets. */
#include "core/unreachable.h"

#include <string.h>

static struct odb_unreachable_entry *find(struct odb_unreachable *unreachable, const uint8_t address[16],
                                          uint16_t port) {
    for (uint32_t i = 0; i < ODB_UNREACHABLE; i++) {
        struct odb_unreachable_entry *entry = &unreachable->entry[i];
        if (entry->until_ms != 0 && entry->port == port && memcmp(entry->address, address, sizeof entry->address) == 0)
            return entry;
    }
    return NULL;
}

/* An unused entry, or the one that is over soonest. */
static struct odb_unreachable_entry *make(struct odb_unreachable *unreachable, const uint8_t address[16],
                                          uint16_t port) {
    struct odb_unreachable_entry *entry = &unreachable->entry[0];
    for (uint32_t i = 1; i < ODB_UNREACHABLE; i++)
        if (unreachable->entry[i].until_ms < entry->until_ms) entry = &unreachable->entry[i];
    if (entry->until_ms == 0) atomic_fetch_add(&unreachable->count, 1);
    *entry = (struct odb_unreachable_entry){.port = port};
    memcpy(entry->address, address, sizeof entry->address);
    return entry;
}

bool odb_unreachable_has(struct odb_unreachable *unreachable, const uint8_t address[16], uint16_t port,
                         uint64_t now_ms) {
    if (!odb_unreachable_any(unreachable) || !odb_lock_try(&unreachable->lock)) return false;
    const struct odb_unreachable_entry *entry = find(unreachable, address, port);
    bool has = entry && now_ms < entry->until_ms;
    odb_lock_drop(&unreachable->lock);
    return has;
}

static uint64_t next_period(const struct odb_unreachable_entry *entry, uint64_t now_ms) {
    bool again = entry->period_ms > 0 && now_ms < entry->until_ms + entry->period_ms;
    uint64_t period = again ? entry->period_ms * 2 : ODB_UNREACHABLE_FIRST_MS;
    return period < ODB_UNREACHABLE_LAST_MS ? period : ODB_UNREACHABLE_LAST_MS;
}

void odb_unreachable_add(struct odb_unreachable *unreachable, const uint8_t address[16], uint16_t port,
                         uint64_t now_ms) {
    if (!odb_lock_try(&unreachable->lock)) return;
    struct odb_unreachable_entry *entry = find(unreachable, address, port);
    if (!entry) entry = make(unreachable, address, port);
    if (now_ms >= entry->until_ms) {
        entry->period_ms = next_period(entry, now_ms);
        entry->until_ms = now_ms + entry->period_ms;
    }
    odb_lock_drop(&unreachable->lock);
}

void odb_unreachable_forget(struct odb_unreachable *unreachable, const uint8_t address[16], uint16_t port) {
    if (!odb_unreachable_any(unreachable) || !odb_lock_try(&unreachable->lock)) return;
    struct odb_unreachable_entry *entry = find(unreachable, address, port);
    if (entry) {
        memset(entry, 0, sizeof *entry);
        atomic_fetch_sub(&unreachable->count, 1);
    }
    odb_lock_drop(&unreachable->lock);
}

bool odb_unreachable_says(int error) {
    switch (error) {
    case ECONNREFUSED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case EADDRNOTAVAIL:
    case EACCES: /* a local packet filter */
    case EPERM:
        return true;
    default:
        return false;
    }
}
