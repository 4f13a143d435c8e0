/* strategy.h: how the head and tail of a payload travel, the parts that will not cover whole pages at the receiver.
 *
 *   static       `unaligned_size` real bytes at each end; a receiver that needs more fetches it
 *   dynamic      nothing; the receiver fetches what it needs
 *   direct       as anticipated (the body may be pushed besides, see core/pushes.h)
 *   anticipated  what the receiver will need, as its last HINT describes its buffers; without a HINT, page-aligned buffers that are large enough
 *
 * Pure functions.
 */
#ifndef ODB_CORE_STRATEGY_H
#define ODB_CORE_STRATEGY_H

#include "core/options.h"

#include <stddef.h>
#include <stdint.h>

/* As a buffer's size: the application fills whole pages one behind the other with all that comes since it last said something, the first byte of which lies at `offset`
 * within its page. A proxy that buffers does so, whatever the length of the header before the body. */
#define ODB_GEOMETRY_FLOW UINT32_MAX

#define ODB_BODY_MAX ((size_t)1 << 30) /* virtual bytes of one frame */

/* How the receiving application offers memory. */
struct odb_geometry {
    uint32_t buffer; /* bytes it offers to one receive; 0: not known */
    uint16_t offset; /* where such a buffer begins in its page */
};

/* One VIRTUAL frame: head + body + tail application bytes, of which head and tail travel. */
struct odb_cut {
    size_t head;
    size_t body;
    size_t tail;
};

/* The next frame for a payload of which `left` bytes (not 0) are still to be announced. */
struct odb_cut odb_strategy_cut(const struct odb_options *options, const struct odb_geometry *receiver, size_t left);

/* Are the peer's hints of use, and ours to the peer? */
static inline bool odb_strategy_foresees(const struct odb_options *options) {
    return options->strategy == ODB_STRATEGY_ANTICIPATED || options->strategy == ODB_STRATEGY_DIRECT;
}

#endif
