/* gather.h: the parts of a body that a loop relays one by one to a plain TCP connection leave in one system call.
 *
 * A loop that relays a body takes it in parts of its buffer's size. What it sends while the next part can be received from a stream without waiting, be it the last part or what has become of it,
 * is accepted and kept here; it leaves in front of the next send on that connection, or with the part that does not fit behind it (what a body begins with is kept shorter than the rest). A window on a body that was pushed to us is kept as it is, and is spliced from its channel when it leaves. Every other call of the program that has a hook, but for those of the heap, sends it first (hooks/hook.h), so that
 * no call meets a connection that has been given less than the program believes; a timer in the helper thread (that of core/hold.h) finds the program that makes no call.
 *
 * Nothing is accepted that the socket does not surely take (core/outlet.h). Should the kernel refuse all the same, being out of memory, and still do so after some
 * milliseconds, the connection is reset and the program told with its next call on it.
 *
 * There is one place, for one connection of a program with one thread. Other threads could write to the connection where only they know the order; where there are any, and where a FILE may write to
 * a socket, nothing is gathered.
 *
 * Thread and signal safety: all functions. Nobody waits long for the lock: a handler may have interrupted its holder. errno stays.
 */
#ifndef ODB_CORE_GATHER_H
#define ODB_CORE_GATHER_H

#include "core/aside.h"
#include "core/gathered.h"
#include "os/lock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct odb_gather {
    struct odb_lock lock;
    _Atomic size_t length; /* of what is kept; 0: nothing is */
    _Atomic bool spans;    /* some of it is to be spliced */
    _Atomic int fd;        /* for whom */
    _Atomic int source;    /* the stream that they came from */
    size_t most;           /* bytes that may be kept */
    struct odb_outlet_room room;
    struct odb_gathered kept;
    struct odb_aside aside; /* what has made place for another connection */
    _Atomic bool leaving;   /* what lies there is being sent in front of something else */
    _Atomic bool closed;    /* nothing is gathered in this process */
    bool looked;            /* at how the host is set up */
    bool seen;              /* by the timer */
    _Atomic int lost;       /* errno that the program is yet to be told; 0: none */
    _Atomic int lost_fd;
};

/* Is what comes behind the bytes that the calling thread has received last at hand? Then it will receive them now, and what it sends before can wait for what it sends after. */
extern _Thread_local bool odb_gather_more;

/* Is anything kept in the place? */
static inline bool odb_gather_has(const struct odb_gather *gather) {
    return atomic_load_explicit(&gather->length, memory_order_relaxed) > 0;
}

/* There, or aside? */
static inline bool odb_gather_any(const struct odb_gather *gather) {
    return odb_gather_has(gather) || odb_aside_any(&gather->aside);
}

/* Does a call on a descriptor that is no stream concern this file? */
static inline bool odb_gather_matters(const struct odb_gather *gather) {
    return odb_gather_more || odb_gather_has(gather) || atomic_load_explicit(&gather->lost, memory_order_relaxed) != 0;
}

/* Are bytes kept that a receive on `fd` does not wait for? */
static inline bool odb_gather_else_received(const struct odb_gather *gather, int fd) {
    return odb_gather_has(gather) && atomic_load_explicit(&gather->source, memory_order_relaxed) != fd;
}

/* Are bytes kept for another connection than `fd`? */
static inline bool odb_gather_else_sent(const struct odb_gather *gather, int fd) {
    return odb_gather_has(gather) && atomic_load_explicit(&gather->fd, memory_order_relaxed) != fd;
}

/* Has something to be done before the program receives or sends on `fd`? */
static inline bool odb_gather_minds_receive(const struct odb_gather *gather, int fd) {
    return odb_gather_else_received(gather, fd) || odb_aside_any(&gather->aside);
}

static inline bool odb_gather_minds_send(const struct odb_gather *gather, int fd) {
    return odb_gather_else_sent(gather, fd) || odb_aside_any(&gather->aside);
}

/* May what the calling thread relays be gathered, as far as is known beforehand? */
bool odb_gather_may(const struct odb_runtime *runtime);

/* A receive on the stream `fd` has got bytes; `more`: the next one will not have to wait. */
void odb_gather_received(struct odb_runtime *runtime, int fd, bool more);

/* Is anything kept that is to be spliced? */
static inline bool odb_gather_splices(const struct odb_gather *gather) {
    return odb_gather_has(gather) && atomic_load_explicit(&gather->spans, memory_order_relaxed);
}

/* Keeps a message to the plain connection `fd`, whole, or sends it with what is kept. Its length, or -1: it has to be sent, behind what is kept. */
ssize_t odb_gather_take(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags);

/* What has to leave in front of a message to `fd`, which is then sent by the caller; false: nothing. odb_gather_left() ends it. */
bool odb_gather_leave(struct odb_runtime *runtime, int fd, struct iovec *kept);
/* `sent` bytes of both have left, or -1 and errno. What is kept has left then, or never will. How many bytes of the message have left; -1: the message is to be sent, or errno said, by itself. */
ssize_t odb_gather_left(struct odb_runtime *runtime, int fd, const struct iovec *kept, ssize_t sent);

/* Draws what is kept from the channels that it is still on, or sends it, so that what follows there can be taken. */
void odb_gather_make_way(struct odb_runtime *runtime);

/* The program turns to another connection: what is kept, if it is short and more was at hand, is put aside, else sent. */
void odb_gather_pause(struct odb_runtime *runtime);
/* The program sends on `fd`: what was put aside for it is in the place again, what is kept for another connection is not. All is sent if the program may sleep in that call, or if it leads elsewhere than a TCP connection does. */
void odb_gather_resume(struct odb_runtime *runtime, int fd);
/* The program receives on `fd`: what does not wait for that makes way, or is sent if the program may sleep in that call. */
void odb_gather_receive(struct odb_runtime *runtime, int fd);
/* The program asks something about `fd`: what is kept or aside for it is sent, what is for others makes way. */
void odb_gather_look(struct odb_runtime *runtime, int fd);
/* The loop waits: sends what has been aside for a whole turn. */
void odb_gather_wait(struct odb_runtime *runtime);

/* Sends what is kept, and what is aside. */
void odb_gather_flush(struct odb_runtime *runtime);

/* An errno that the program has to be told with this call on `fd`; 0: none. */
int odb_gather_lost(struct odb_gather *gather, int fd);

/* `fd` is about to be closed or replaced here; there may be copies of it. */
void odb_gather_close(struct odb_runtime *runtime, int fd);

/* Nothing is gathered from here on. */
void odb_gather_stop(struct odb_runtime *runtime);

/* In the helper thread, now and then: sends what was there the last time. True: there is something. */
bool odb_gather_tick(struct odb_runtime *runtime);

void odb_gather_after_fork_child(struct odb_gather *gather);

#endif
