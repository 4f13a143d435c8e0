/* hold.h: small sends on framed streams wait for each other until the program next waits, so that a turn of an event loop costs one system call per connection.
 *
 * What is held lies in the stream's outbox, in front of everything that is sent later. Only a thread that turns a loop holds, for descriptors registered in the epoll set that it
 * last waited on, because it will be back there soon, and only for one of them at a time: turning to the next connection releases the last one, so that tiers work side by side. Any wait, a receive on a stream that blocks, close, shutdown, fork, exec and the end of the process release first. A timer in the helper thread finds what all this has missed within some milliseconds, or a tenth of a second where it has found nothing for long.
 * A large send goes out at once, behind what is held, in the same system call.
 *
 * Thread safety: all functions. Locks: out.lock, then the list's own; the latter is held for list work only.
 */
#ifndef ODB_CORE_HOLD_H
#define ODB_CORE_HOLD_H

#include "core/driver.h"
#include "core/outbox.h"

struct odb_frames;
struct odb_runtime;
struct odb_stream;

struct odb_holds {
    struct odb_lock lock;
    struct odb_outbox *first,
        *last; /* in the order in which they began to hold; each counts as a reference to its stream */
    _Atomic size_t count;
    _Atomic unsigned releasing; /* threads that are sending what they have taken off the list */
    _Atomic unsigned turns;     /* how often all of them have been released */
    _Atomic bool closed;        /* the process ends, or there is no helper thread: nothing is held any more */
    _Atomic bool ticking;       /* the timer is armed */
    _Atomic bool ready;         /* the timer is there */
    struct odb_watch timer;
    _Atomic unsigned
        quiet;     /* ticks since the last rescue that found loops turning, up to a bound: they come less often then */
    unsigned seen; /* turns, when the timer last found something held; the helper thread's alone */
    bool suspect;
};

/* The calling thread returns from a wait on the epoll set `set`. */
void odb_hold_turn(int set);

/* Does the calling thread turn a loop? */
bool odb_hold_turns(void);

/* One in which `fd` is registered? */
bool odb_hold_has_turn(struct odb_runtime *runtime, int fd);

/* The timer will look at what is held, and at what core/gather.h keeps. False: there is no timer. */
bool odb_hold_watch(struct odb_runtime *runtime);

/* The calling thread is about to send on the connection `fd`, not under its locks: what it holds for another one is complete, and the next tier may begin with it. errno stays. */
void odb_hold_move(struct odb_runtime *runtime, int fd);

/* May a send of the calling thread on this stream be held? Without its locks. */
bool odb_hold_may(struct odb_runtime *runtime, struct odb_stream *stream, int fd);

/* Under out.lock, with nothing stalled: copies the frames into the outbox. False: too much; they have to be sent now. */
bool odb_hold_frames(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct odb_frames *frames);

/* Under out.lock: what has been held grows no more and is about to leave. */
void odb_hold_push(struct odb_runtime *runtime, struct odb_stream *stream);

/* Under out.lock, when frames have just been held and their bodies are about to be pushed to somebody further on: what is held leaves first, so that the next tier is at work while the body is
 * written. Not where more was sent in the same turn of late: that had better leave together. */
void odb_hold_announce(struct odb_runtime *runtime, struct odb_stream *stream);

/* A receive of the calling thread on a stream has got bytes; `more`: the next one will not have to wait. What the thread sends then is likely to go on in its next turn. */
void odb_hold_expect(bool more);

/* Sends all that is held. errno stays. */
void odb_hold_release_all(struct odb_runtime *runtime);

/* The same before a turn that may begin at once: what is likely to go on then stays, for one turn. Before it sleeps the rest has to be released. */
void odb_hold_release_done(struct odb_runtime *runtime);

/* Sends what the stream of `fd` holds, if it is one. errno stays. */
void odb_hold_release_one(struct odb_runtime *runtime, int fd);

/* Before a process or its program image ends, perhaps in a signal handler that has interrupted any of this: sends what is held as far as that goes without waiting for a lock or
 * touching the heap. True: nothing is held any more. */
bool odb_hold_drain(struct odb_runtime *runtime);

/* Nothing is held from here on. */
void odb_hold_close(struct odb_runtime *runtime);

void odb_hold_before_fork(struct odb_runtime *runtime);
void odb_hold_after_fork_parent(struct odb_runtime *runtime);
void odb_hold_after_fork_child(struct odb_runtime *runtime);

/* odb_hold_release_all and odb_gather_flush, where there is something to do. A macro, because the runtime contains what is declared here. */
#define odb_hold_release(runtime)                                                                                      \
    do {                                                                                                               \
        if (atomic_load_explicit(&(runtime)->holds.count, memory_order_relaxed) > 0) odb_hold_release_all(runtime);    \
        if (odb_gather_any(&(runtime)->gather)) odb_gather_flush(runtime);                                             \
    } while (0)

#endif
