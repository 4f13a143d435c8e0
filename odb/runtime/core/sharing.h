/* sharing.h: a stream that parent and child have in common after a fork.
 *
 * What is parsed and not delivered, and what is accepted and not sent, is then in memory that both have mapped: whoever takes a stream's lock takes that memory's
 * too, gets the state from it and puts it back. Meanwhile nothing is read ahead (core/exact.h), so that the kernel goes on waking the right ones. A process gives up its
 * part by closing the stream, by exec or by its end; the last one has the stream to itself again, as before. One that is killed at work breaks the stream; one that
 * is killed otherwise leaves the other with the longer way.
 *
 * Streams are reached through odb_in_* and odb_out_*, which cost a comparison where nothing is shared. Lock order: as in core/stream.h.
 */
#ifndef ODB_CORE_SHARING_H
#define ODB_CORE_SHARING_H

#include "core/fdtable.h"
#include "core/stream.h"

/* Under the private lock of that direction, inbound or outbound. False: somebody else is at work, and `wait` is false. */
bool odb_sharing_enter(struct odb_stream *stream, bool in, bool wait);
void odb_sharing_leave(struct odb_stream *stream, bool in);

static inline void odb_in_take(struct odb_stream *stream) {
    odb_lock_take(&stream->in.lock);
    if (__builtin_expect(stream->sharing != NULL, 0)) odb_sharing_enter(stream, true, true);
}

static inline bool odb_in_try(struct odb_stream *stream) {
    if (!odb_lock_try(&stream->in.lock)) return false;
    if (__builtin_expect(stream->sharing == NULL, 1) || odb_sharing_enter(stream, true, false)) return true;
    odb_lock_drop(&stream->in.lock);
    return false;
}

static inline void odb_in_drop(struct odb_stream *stream) {
    if (__builtin_expect(stream->sharing != NULL, 0)) odb_sharing_leave(stream, true);
    odb_lock_drop(&stream->in.lock);
}

static inline void odb_out_take(struct odb_stream *stream) {
    odb_lock_take(&stream->out.lock);
    if (__builtin_expect(stream->sharing != NULL, 0)) odb_sharing_enter(stream, false, true);
}

static inline void odb_out_drop(struct odb_stream *stream) {
    if (__builtin_expect(stream->sharing != NULL, 0)) odb_sharing_leave(stream, false);
    odb_lock_drop(&stream->out.lock);
}

/* What was decided about the outbound direction without its lock, the others hear of at once. */
static inline void odb_sharing_tell(struct odb_stream *stream) {
    odb_out_take(stream);
    odb_out_drop(stream);
}

/* Around fork, before everything else. Streams at which another thread is at work in that very moment are not shared: in the child they are good for being closed. */
void odb_sharing_before_fork(struct odb_fdtable *table);
void odb_sharing_after_fork_parent(struct odb_fdtable *table);
void odb_sharing_after_fork_child(struct odb_fdtable *table);
/* In the thread that has called fork: there is no child, although the handlers have run. */
void odb_sharing_after_failed_fork(struct odb_fdtable *table);

/* The process, or its program image, ends: whoever else has its streams has them alone. The second takes that back, for streams that nobody has used alone in between; the
 * others are good for being closed. */
void odb_sharing_before_end(struct odb_fdtable *table);
void odb_sharing_after_failed_exec(struct odb_fdtable *table);

/* In the helper thread, every now and then: sends what processes that have ended left parked. */
void odb_sharing_tick(struct odb_fdtable *table);

/* The stream's last descriptor here is closed. Without locks. */
void odb_sharing_close(struct odb_stream *stream);

#endif
