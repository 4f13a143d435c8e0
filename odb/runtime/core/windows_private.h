/* windows_private.h: what windows.c and materialise.c share: the meaning of a page's entry. */
#ifndef ODB_CORE_WINDOWS_PRIVATE_H
#define ODB_CORE_WINDOWS_PRIVATE_H

#include "core/windows.h"

#include <sched.h>

/* An entry is one of these, or a window's address, or a window's address with the lowest bit set: busy. */
enum { ODB_PLAIN = 0, ODB_STALE = 2, ODB_BUSY_BIT = 1 };

/* Each window may split two mappings of the kernel's limited number (vm.max_map_count, 65,530 by default). */
#define ODB_WINDOWS_MAX 16384u

static inline bool odb_entry_is_busy(uintptr_t entry) {
    return (entry & ODB_BUSY_BIT) != 0;
}

/* The window of a live or busy page, else null. */
static inline struct odb_window *odb_entry_window(uintptr_t entry) {
    uintptr_t address = entry & ~(uintptr_t)ODB_BUSY_BIT;
    return address == ODB_PLAIN || address == ODB_STALE ? NULL : (struct odb_window *)address;
}

/* Under the lock. Changes one page's entry, keeping `guarded` and the windows' page counts right. */
void odb_windows_set(struct odb_windows *windows, uintptr_t page, uintptr_t value);
void odb_window_unref(struct odb_windows *windows, struct odb_window *window);
struct odb_span odb_window_page_span(const struct odb_window *window, uintptr_t page);

/* Another thread is fetching the page; it never waits for this one while it does. */
static inline void odb_windows_wait_busy(void) {
    sched_yield();
}

#endif
