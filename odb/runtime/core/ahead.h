/* ahead.h: how far what a stream announces may run ahead of what consumers have taken.
 *
 * A descriptor fills no socket: without a bound a program could send any amount to a peer that does not read, and would
 * never be told to wait. So a stream announces at most ahead_max bytes of this process's payloads beyond what has been
 * fetched, or pushed and taken, since (by anybody: payloads are shared, and whoever takes is not always the peer), and starts anew
 * when the peer says something. What is sent beyond that travels as real bytes, which the kernel holds up as ever. A send
 * buffer that the application has made small is a bound of its own.
 */
#ifndef ODB_CORE_AHEAD_H
#define ODB_CORE_AHEAD_H

#include "core/options.h"
#include "core/stats.h"
#include "core/stream.h"

/* How many bytes may be announced now; 0: less than virtual_min, or the peer wants real bytes. Counts the reason. Thread-safe; two senders of one stream
 * at once may pass the bound a little. */
size_t odb_ahead_room(struct odb_stream *stream, const struct odb_options *options, struct odb_stats *stats);

/* `length` bytes are being announced. */
void odb_ahead_add(struct odb_stream *stream, size_t length);

/* The peer has said something. */
static inline void odb_ahead_restart(struct odb_stream *stream) {
    atomic_store_explicit(&stream->ahead.announced, 0, memory_order_relaxed);
}

/* The kernel's SO_SNDBUF of the stream, as the application has set it. */
void odb_ahead_bound_by(struct odb_stream *stream, int send_buffer);

#endif
