/* transmit_private.h: what transmit.c offers to the other senders of a stream. */
#ifndef ODB_CORE_TRANSMIT_PRIVATE_H
#define ODB_CORE_TRANSMIT_PRIVATE_H

#include "core/frames.h"

/* Adds frames cut for `receiver`; false when there is nothing to send now. */
typedef bool odb_transmit_fill(void *context, struct odb_frames *frames, const struct odb_geometry *receiver);

/* One turn, without blocking: flushes the outbox, has `fill` build frames, sends them. Bytes accepted or a negative errno. */
ssize_t odb_transmit_turn(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int flags,
                          odb_transmit_fill *fill, void *context);

/* Under out.lock. `sent` bytes of the batch have left: counts what is accepted and parks the rest of a frame that has begun. Bytes accepted or a negative errno. */
ssize_t odb_transmit_account(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                             const struct odb_frames *frames, size_t sent);

/* The same for a batch with a tail, which follows now. */
ssize_t odb_transmit_tail(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct odb_frames *frames,
                          size_t sent);

bool odb_transmit_blocks(struct odb_runtime *runtime, int fd, int flags);
/* Until the socket has room, as long as SO_SNDTIMEO allows. 0 or a negative errno. */
int odb_transmit_wait(int fd);

#endif
