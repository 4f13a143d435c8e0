/* buffers.c: last in, first out. */
#include "core/buffers.h"

#include "core/stream.h"

void *odb_buffers_take(struct odb_buffers *buffers) {
    void *block = NULL;
    if (odb_lock_try(&buffers->lock)) {
        if (buffers->count > 0) block = buffers->kept[--buffers->count];
        odb_lock_drop(&buffers->lock);
    }
    return block ? block : odb_real.malloc(ODB_STREAM_BUFFER);
}

void odb_buffers_give(struct odb_buffers *buffers, void *block) {
    bool kept = false;
    if (block && odb_lock_try(&buffers->lock)) {
        kept = buffers->count < ODB_BUFFERS_KEPT;
        if (kept) buffers->kept[buffers->count++] = block;
        odb_lock_drop(&buffers->lock);
    }
    if (!kept) odb_real.free(block);
}
