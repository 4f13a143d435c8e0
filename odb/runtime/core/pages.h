/* pages.h: what the runtime knows about each page of the address space, one word per page.
 *
 * A two-level table over 48-bit addresses, reserved lazily: reading costs two loads and no lock, memory is used only where pages are tracked.
 * Entries are opaque here; windows.c gives them their meaning. 0 means untracked.
 */
#ifndef ODB_CORE_PAGES_H
#define ODB_CORE_PAGES_H

#include "os/guard.h"

#include <stdatomic.h>
#include <stdbool.h>

typedef _Atomic uintptr_t odb_page_entry;

struct odb_pages {
    _Atomic(odb_page_entry *) *top;
};

/* Reserves the first level; false when the address space is not to be had. */
bool odb_pages_init(struct odb_pages *pages);

/* The entry of the page that holds `address`, made if need be; null when it cannot be had or the address is out of range.
 * Not async-signal-safe when it has to be made. */
odb_page_entry *odb_pages_make(struct odb_pages *pages, uintptr_t address);

/* The entry, or null where nothing was ever tracked nearby. Async-signal-safe. */
static inline odb_page_entry *odb_pages_find(const struct odb_pages *pages, uintptr_t address) {
    if (address >> 48) return NULL;
    odb_page_entry *level = atomic_load_explicit(&pages->top[address >> 30], memory_order_acquire);
    return level ? &level[(address >> 12) & 0x3ffff] : NULL;
}

/* The entry of the page at `address`, the one before it being that of the page before. */
static inline odb_page_entry *odb_pages_next(const struct odb_pages *pages, odb_page_entry *before, uintptr_t address) {
    return before && (address & 0x3fffffff) != 0 ? before + 1 : odb_pages_find(pages, address);
}

static inline uintptr_t odb_pages_get(const struct odb_pages *pages, uintptr_t address) {
    odb_page_entry *entry = odb_pages_find(pages, address);
    return entry ? atomic_load_explicit(entry, memory_order_acquire) : 0;
}

#endif
