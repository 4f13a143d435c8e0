/* resolve.h: what an application hands to a framed stream, as pieces: real bytes in its memory, or spans.
 *
 * Memory that is virtual is a span already; large real memory is captured as a payload if the options say so. Pieces point into the caller's memory.
 */
#ifndef ODB_CORE_RESOLVE_H
#define ODB_CORE_RESOLVE_H

#include "core/runtime.h"

struct odb_piece {
    bool is_span;
    bool is_own;       /* a span of this process's own payload */
    const void *bytes; /* real memory; of a span: the memory it was captured from, or null if it is virtual here */
    size_t length;
    struct odb_span span;
};

/* Fills at most `room` pieces from the beginning of iov and returns how many; together they are a prefix of the iov's bytes,
 * empty when something large is to be captured and the socket has no room to announce it. A negative errno when the first ones cannot be had: the peer wants
 * real bytes and the origin does not give them, or the file that they were read from has changed. -EFAULT when memory is not there, as the kernel says of it. */
int odb_resolve(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov, int count,
                struct odb_piece *pieces, int room);

/* Captures a range of a regular file, whose version was looked at in this call of the application, as one span, which may be shorter than `length`. False: the caller sends real bytes. */
bool odb_resolve_file(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int file,
                      const struct odb_file_version *version, uint64_t offset, size_t length, struct odb_span *span);

#endif
