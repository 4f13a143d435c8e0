/* receive.h: the inbound direction of a stream: detection, parsing, delivery of bytes and spans to the application. */
#ifndef ODB_CORE_RECEIVE_H
#define ODB_CORE_RECEIVE_H

#include "core/runtime.h"

/* recvmsg without ancillary data on a stream, `flags` as for recv. Returns bytes, 0 at the end of the stream, or a negative errno.
 * Blocks if the descriptor blocks and MSG_DONTWAIT is not given. */
ssize_t odb_stream_receive(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov,
                           int count, int flags);

/* Would a receive return at once? Asks the kernel without blocking and parses what it has. True also when another thread is receiving. */
bool odb_stream_readable(struct odb_runtime *runtime, struct odb_stream *stream, int fd);

/* As odb_stream_readable. *fresh: this very look has taken what is at hand from the kernel, which will not tell anybody of it any more. */
bool odb_stream_look(struct odb_runtime *runtime, struct odb_stream *stream, int fd, bool *fresh);

/* Application bytes that are known to be there (FIONREAD). */
size_t odb_stream_available(struct odb_runtime *runtime, struct odb_stream *stream, int fd);

/* Bytes have left the kernel that the application has not got yet. True also when another thread is receiving. */
bool odb_stream_holds(struct odb_stream *stream);

/* True when bytes may be owed to the application although the kernel will not report them again: something is parsed, or the kernel was not drained. */
bool odb_stream_owes(struct odb_stream *stream);

/* Inbound and outbound are classic and nothing is left to deliver: the descriptor can be treated as an ordinary one. */
bool odb_stream_is_over(struct odb_stream *stream);

#endif
