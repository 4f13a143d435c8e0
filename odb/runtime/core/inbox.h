/* inbox.h: from the kernel to parsed pieces. Everything here runs under the inbox's lock and never blocks. */
#ifndef ODB_CORE_INBOX_H
#define ODB_CORE_INBOX_H

#include "core/runtime.h"

/* Something can be handed to the application: bytes, or a span whose real edges have all arrived. */
bool odb_inbox_has_piece(const struct odb_inbox *in);

/* The next piece, or with bytes at hand the one behind them, is such a span. */
bool odb_inbox_has_span(const struct odb_inbox *in);

/* Parses what is buffered and, while that gives no piece, asks the kernel for more. True: a piece, the end or an error is at hand; false: nothing now. */
bool odb_inbox_advance(struct odb_runtime *runtime, struct odb_stream *stream, int fd);

/* Bytes of a frame that has begun which are still to come, with nothing to be delivered before them; else 0. */
size_t odb_inbox_awaited(const struct odb_inbox *in);

/* Receives such bytes where the application wants them: `room` of them at most, not more than are awaited, in `count` buffers of memory that is not guarded. `iov` has
 * a place for one more; what follows goes to the inbox. Returns bytes, -EAGAIN, or 0 when there is the end or an error to be told, or memory that odb_inbox_advance has to do without. */
ssize_t odb_inbox_receive(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct iovec *iov, int count,
                          size_t room);

/* Joins the bytes of buffered frames to the piece of bytes at hand, up to the next span. */
void odb_inbox_join_bytes(struct odb_runtime *runtime, struct odb_stream *stream);

/* For those who ask how much is there without taking it: as odb_inbox_join_bytes, with what the kernel has. */
void odb_inbox_look_ahead(struct odb_runtime *runtime, struct odb_stream *stream, int fd);

/* The spans whose descriptors have arrived behind the one at hand join it where they go on with the same bytes, so that they can be taken as one. */
void odb_inbox_join_spans(struct odb_runtime *runtime, struct odb_inbox *in);

/* Gives the buffers back when they hold nothing. */
void odb_inbox_trim(struct odb_runtime *runtime, struct odb_inbox *in);

/* The peer broke the protocol, or a span is lost: the connection is to end with a reset, once what was parsed before has been delivered. */
void odb_inbox_break(struct odb_runtime *runtime, struct odb_stream *stream, int fd, enum odb_stat reason);

#endif
