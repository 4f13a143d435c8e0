/* buffers.h: the blocks that streams receive frames into, kept for the next receive.
 *
 * A stream has one only while it holds bytes that are not delivered, which is for a moment and again with every message; the block used last is
 * the one that is still in the processor's cache. Blocks are odb_real.malloc's, ODB_STREAM_BUFFER bytes each. Thread-safe; who meets another thread
 * here goes to the heap instead, so a fork leaves nothing that a child would wait for. All-zero memory is an empty pool.
 */
#ifndef ODB_CORE_BUFFERS_H
#define ODB_CORE_BUFFERS_H

#include "os/lock.h"

enum { ODB_BUFFERS_KEPT = 32 };

struct odb_buffers {
    struct odb_lock lock;
    int count;
    void *kept[ODB_BUFFERS_KEPT];
};

/* A block, or null without memory. */
void *odb_buffers_take(struct odb_buffers *buffers);

/* Gives one back; null is none. */
void odb_buffers_give(struct odb_buffers *buffers, void *block);

#endif
