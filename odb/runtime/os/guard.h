/* guard.h: page guards, by mprotect.
 *
 * Ranges are whole pages. Every function is async-signal-safe and returns 0 or a negative errno.
 */
#ifndef ODB_OS_GUARD_H
#define ODB_OS_GUARD_H

#include <stddef.h>
#include <stdint.h>

#define ODB_PAGE 4096u

static inline uintptr_t odb_page_down(uintptr_t address) {
    return address & ~(uintptr_t)(ODB_PAGE - 1);
}

static inline uintptr_t odb_page_up(uintptr_t address) {
    return odb_page_down(address + ODB_PAGE - 1);
}

/* Makes the range inaccessible; its contents stay underneath. */
int odb_guard_close(void *start, size_t length);
/* Makes it readable and writable again. */
int odb_guard_open(void *start, size_t length);

/* Scratch memory for odb_guard_replace: whole pages, read-write; null when there is none. */
void *odb_guard_scratch(size_t length);
void odb_guard_scratch_free(void *scratch, size_t length);
/* Puts the scratch pages in the place of `start` in one step: another thread sees the guard or the new content, never anything between.
 * Consumes the scratch range on success. */
int odb_guard_replace(void *start, void *scratch, size_t length);

#endif
