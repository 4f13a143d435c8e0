/* splice.h: splice between a stream and a pipe. A pipe holds real bytes: spans are fetched on their way into it. Programs that splice (HAProxy) have no way back
 * when it is refused on a TCP socket. */
#ifndef ODB_CORE_SPLICE_H
#define ODB_CORE_SPLICE_H

#include "core/runtime.h"

/* As splice(2), errno included, where `in` or `out` is a stream. Not for signal handlers. */
ssize_t odb_splice(struct odb_runtime *runtime, int in, const off64_t *in_offset, int out, const off64_t *out_offset,
                   size_t size, unsigned flags);

#endif
