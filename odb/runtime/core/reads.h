/* reads.h: reads of files that are only forwarded: the buffer becomes a window on the file instead of being filled.
 *
 * A read is a snapshot, a window is not: the file is looked at when the window is sent or touched, and if it has changed by then the bytes that were read are lost. So only
 * files that have not changed for a while and cannot be written through the descriptor are taken, on file systems whose time stamps can be relied on, and only in processes
 * with framed streams; and where windows turn out to be touched rather than sent, reads are the kernel's again for a while.
 *
 * Thread safety: all functions; none from a signal handler that has interrupted one of them.
 */
#ifndef ODB_CORE_READS_H
#define ODB_CORE_READS_H

#include "core/runtime.h"

/* The cheap question: might a read of `length` bytes be worth looking at? */
static inline bool odb_reads_may(struct odb_runtime *runtime, size_t length) {
    return (runtime->options.capture & ODB_CAPTURE_READS) != 0 && length >= runtime->options.virtual_min &&
           atomic_load_explicit(&runtime->fds.streams, memory_order_relaxed) > 0 &&
           atomic_load_explicit(&runtime->stats.entries[ODB_STAT_streams_framed].value, memory_order_relaxed) > 0;
}

/* Reads as preadv does, or, with `offset` -1, as readv. False: nothing has happened, the read is the kernel's. Else *result is the number of bytes or a negative errno. */
bool odb_reads_take(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset,
                    ssize_t *result);

#endif
