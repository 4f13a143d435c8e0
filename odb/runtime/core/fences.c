/* fences.c: remembers ranges by their address and sets them apart by advice. */
#include "core/fences.h"

#include "os/guard.h"
#include "os/real.h"

#include <errno.h>
#include <sys/mman.h>

/* Neighbours of one length, blocks of a heap, get different advice. */
static int advice_for(uintptr_t start, size_t length) {
    return start / length % 2 ? MADV_RANDOM : MADV_SEQUENTIAL;
}

bool odb_fences_note(struct odb_fences *fences, uintptr_t start, size_t length) {
    struct odb_fence *seen = &fences->seen[start / ODB_PAGE % ODB_FENCES];
    if (length > ODB_FENCE_LENGTH_MOST) return false;
    if (seen->start != start || seen->length != length) {
        *seen = (struct odb_fence){.start = start, .length = (uint32_t)length};
    } else if (!seen->made && fences->count < ODB_FENCES_MOST) {
        int saved = errno;
        odb_real.madvise((void *)start, length, advice_for(start, length));
        seen->made = 1;
        fences->count++;
        errno = saved;
        return true;
    }
    return false;
}
