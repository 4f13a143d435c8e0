/* cork.h: the beginning of a body goes to a plain connection as if more followed, while the rest of it is at hand.
 *
 * A loop that relays a body takes it in parts of its buffer's size. Where the part that it sends is the one that it has just received from a stream, and the next one can be received without waiting,
 * the kernel is told so (MSG_MORE), and fills its segments. The part behind the last one that is at hand goes without, which sends all. A loop that waits instead, or a process that forks or ends, has
 * what it left behind pushed out; a timer in the helper thread finds what all this has missed within some milliseconds.
 *
 * Thread and signal safety: all functions. Nobody waits for the list's lock: a handler that interrupts its holder writes as well. What is then not done is left to the timer. errno stays.
 */
#ifndef ODB_CORE_CORK_H
#define ODB_CORE_CORK_H

#include "os/lock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define ODB_CORKED 32u /* connections at once; what is beyond goes as it would without */

struct odb_runtime;

struct odb_corks {
    struct odb_lock lock;
    _Atomic uint32_t count;
    struct {
        int fd;
        bool seen; /* by the timer */
    } corked[ODB_CORKED];
};

/* Where the memory ends that the calling thread has received last, if what comes next is at hand; else null. */
extern _Thread_local const char *odb_cork_end __attribute__((tls_model("initial-exec")));

/* Does a send on a descriptor that is no stream concern this file? */
static inline bool odb_cork_matters(const struct odb_corks *corks) {
    return odb_cork_end != NULL || atomic_load_explicit(&corks->count, memory_order_relaxed) > 0;
}

/* A receive of a stream has put `got` bytes into `iov`; `more`: the next one will not have to wait. */
void odb_cork_received(struct odb_runtime *runtime, const struct iovec *iov, int count, size_t got, bool more);

/* MSG_MORE if this message is to go to the plain connection `fd` with it, else 0. */
int odb_cork_flag(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags);

/* A message has gone to `fd` with it: a part of a segment may be left behind. */
void odb_cork_left(struct odb_runtime *runtime, int fd);

/* A message has gone to `fd` without: nothing is left behind. */
void odb_cork_sent(struct odb_corks *corks, int fd);

/* `fd` is about to be closed or replaced here; there may be copies of it. */
void odb_cork_close(struct odb_corks *corks, int fd);

/* Lets the kernel send what it holds back on `fd`, unless the application itself has told it to. */
void odb_cork_push(int fd);

/* For all that were left behind; before a wait, a fork, or the end of the program image. */
void odb_cork_release(struct odb_corks *corks);

/* In the helper thread, now and then: for those that were there the last time. True: there are more. */
bool odb_cork_tick(struct odb_corks *corks);

void odb_cork_after_fork_child(struct odb_corks *corks);

#endif
