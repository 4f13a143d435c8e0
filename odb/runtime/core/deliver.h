/* deliver.h: one parsed piece of a stream, or part of it, into the application's buffer.
 *
 * Thread safety: under the stream's inbox lock. Errors are negative errnos; -EFAULT says that the buffer is not writable, and the piece stays.
 */
#ifndef ODB_CORE_DELIVER_H
#define ODB_CORE_DELIVER_H

#include "core/inbox.h"
#include "core/runtime.h"
#include "core/stream.h"

/* The piece at hand into `room` bytes at `to`, by the `flags` of a receive. `begun` says that this call has delivered something already, so that it may end here rather than
 * fetch. Returns bytes delivered, 0 to end the call or (when nothing was delivered) look again, or a negative errno. The caller consumes what is delivered. */
ssize_t odb_deliver(struct odb_runtime *runtime, struct odb_stream *stream, void *to, size_t room, bool begun,
                    int flags);

/* MSG_PEEK: shows the bytes at hand and, behind them, the next ones of a span, which are fetched for that. Same results. */
ssize_t odb_deliver_shown(struct odb_runtime *runtime, struct odb_stream *stream, int fd, char *to, size_t room);

/* Forgets `amount` delivered bytes of the piece at hand. */
void odb_deliver_consume(struct odb_inbox *in, int fd, size_t amount);

#endif
