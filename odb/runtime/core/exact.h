/* exact.h: receiving without reading ahead, for a socket that others wait on at the same time.
 *
 * What one receiver takes from the kernel and leaves in the inbox wakes nobody: other threads that wait for the same socket have looked into the inbox
 * before they went to sleep, and other processes that have the socket by fork are woken by the kernel alone. While there are such others, bytes therefore stay in the
 * kernel until the application has them: of a frame of bytes all of them, of a descriptor the last one. `kept` counts those that are both in the inbox and in the kernel.
 *
 * All under the inbox's lock but odb_exact_wait and odb_exact_waited.
 */
#ifndef ODB_CORE_EXACT_H
#define ODB_CORE_EXACT_H

#include "core/stream.h"

#include <sys/types.h>

/* Are there others? */
static inline bool odb_exact_wanted(const struct odb_stream *stream) {
    return atomic_load_explicit(&stream->in.waiters, memory_order_relaxed) > 0 || stream->sharing != NULL;
}

/* Before a thread looks into the inbox for the last time before it waits for the socket, and after it has waited. Any thread. */
static inline void odb_exact_wait(struct odb_stream *stream) {
    atomic_fetch_add(&stream->in.waiters, 1);
}
static inline void odb_exact_waited(struct odb_stream *stream) {
    atomic_fetch_sub(&stream->in.waiters, 1);
}

/* One non-blocking receive of no more than the decoder asks for next, into the empty inbox's buffer. What recv returns. */
ssize_t odb_exact_receive(struct odb_inbox *in, int fd);

/* Takes `amount` of the bytes that are kept, or all that there are, from the kernel: the application has had them, or the inbox alone is to have them. */
void odb_exact_release(struct odb_inbox *in, int fd, size_t amount);

#endif
