/* fences.h: memory that is guarded again and again gets a mapping of its own.
 *
 * A buffer that is guarded and opened for every body would otherwise be cut out of its mapping and merged into it again each time, which is more than half of what
 * mprotect costs. A mapping stays apart whose advice differs from its neighbours'; the advice itself does nothing for anonymous memory as long as the system has enough.
 *
 * Not thread-safe: under the windows' lock. Async-signal-safe.
 */
#ifndef ODB_CORE_FENCES_H
#define ODB_CORE_FENCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ODB_FENCES 1024u      /* ranges that are remembered */
#define ODB_FENCES_MOST 4096u /* made by a process: each may cost two of the kernel's limited number of mappings */
#define ODB_FENCE_LENGTH_MOST 262144u /* longer ranges are guarded rarely for their size */

/* All-zero memory is one that knows nothing. */
struct odb_fences {
    struct odb_fence {
        uintptr_t start;
        uint32_t length;
        uint32_t made; /* the mapping has been set apart */
    } seen[ODB_FENCES];
    uint32_t count; /* made so far */
};

/* The range, whole pages, is about to be guarded: when it was so before, it is set apart. True: just now. */
bool odb_fences_note(struct odb_fences *fences, uintptr_t start, size_t length);

#endif
