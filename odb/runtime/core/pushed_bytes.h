/* pushed_bytes.h: moves the bytes of one push channel: into memory, into a socket, or nowhere.
 *
 * Bytes come out of the channel in order, wherever they are: some may have been drawn from its socket into a pipe already, and those are next. `position` is
 * that of the next byte to leave the channel.
 *
 * Under the channel's lock. Async-signal-safe.
 */
#ifndef ODB_CORE_PUSHED_BYTES_H
#define ODB_CORE_PUSHED_BYTES_H

#include "core/pushed.h"

/* Throws away what lies before `position`. False: the channel is of no use any more. */
bool odb_pushed_skip_to(struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t position);

/* The next `length` bytes into iov, waiting as long as there is progress. False: the channel is of no use any more. */
bool odb_pushed_take_bytes(const struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t length,
                           const struct iovec *iov, int count);

/* The next `length` bytes into the non-blocking socket `to`, as many as it takes; `*sent` is how many have left. */
enum odb_pushed_end odb_pushed_splice_bytes(struct odb_pushed *pushed, struct odb_pushed_channel *channel,
                                            uint64_t length, int to, unsigned flags, uint64_t *sent, int *error);

/* As many of the next `length` bytes as have come into the pipe that `into` is the end of; `wait`: at least one, if the pipe is empty. False: the channel is of no use any more. */
bool odb_pushed_draw_bytes(const struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t length,
                           int into, bool wait, uint64_t *drawn);

/* The channel is given up: so is what it has drawn. */
void odb_pushed_drop_pipe(struct odb_pushed_channel *channel);

#endif
