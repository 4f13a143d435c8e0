/* transmit.h: the outbound direction of a stream.
 *
 * Results are those of the plain calls: bytes accepted (they may be parked in the outbox), or a negative errno. Blocks where the descriptor blocks.
 */
#ifndef ODB_CORE_TRANSMIT_H
#define ODB_CORE_TRANSMIT_H

#include "core/runtime.h"

/* True when the direction speaks frames. Decides it when it is still open: whoever writes before the peer has said HELLO speaks classic. */
bool odb_stream_frames_out(struct odb_runtime *runtime, struct odb_stream *stream, int fd);

ssize_t odb_stream_send(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov,
                        int count, int flags);

/* A range of a regular file, which reaches at most to its end, and what has just been seen of the file. */
struct odb_file_range {
    int file;
    struct odb_file_version version;
    uint64_t offset;
    size_t length;
};

/* sendfile. */
ssize_t odb_stream_send_file(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                             const struct odb_file_range *range);

/* SHUT_WR behind whatever is parked. 0 or a negative errno. */
int odb_stream_shutdown(struct odb_stream *stream, int fd, int how);

#endif
