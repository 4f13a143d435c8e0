/* pushes.h: the origin's side of pushing: bodies are written to a consumer's push channel in the very call in which the application sends, before anybody asks.
 *
 * A consumer dedicates channels with PUSH messages (read by core/served.c in the helper thread). A sender takes one that is idle and has credits, announces its number and
 * position in the descriptor, and then writes the body; what does not fit at once is written by the helper thread. A push that nobody takes costs bytes, never
 * correctness: the consumer can always FETCH.
 *
 * Thread safety: all functions. A push that is taken belongs to the taker until it is sent or given back; both happen within one call of the application.
 */
#ifndef ODB_CORE_PUSHES_H
#define ODB_CORE_PUSHES_H

#include "core/driver.h"
#include "core/span.h"
#include "core/stats.h"
#include "core/store.h"
#include "os/lock.h"
#include "wire/message.h"

#define ODB_PUSH_CONSUMERS 32u
#define ODB_PUSH_MIN ((uint64_t)4096) /* smaller bodies are not worth a system call of their own */
#define ODB_PUSH_CHANNELS 64u         /* of one consumer */
/* Of one push: one payload stays on one channel, so that its parts come in order. */
#define ODB_PUSH_MAX ((uint64_t)1 << 20)
/* What a consumer grants to each of its channels; what lies on one is bounded by its socket. */
#define ODB_PUSH_CREDITS ((uint64_t)16 << 20)
/* Bytes after which it reports, and grants them anew: a largest push always fits, whatever small ones came before. */
#define ODB_PUSH_REPORT (ODB_PUSH_CREDITS / 2)
/* The same where much was skipped, or where parts of one body follow each other: what has been announced counts as taken only when it is reported. */
#define ODB_PUSH_REPORT_SOON ODB_PUSH_MAX

struct odb_push_consumer;

enum odb_push_state { ODB_PUSH_NONE = 0, ODB_PUSH_IDLE, ODB_PUSH_TAKEN, ODB_PUSH_WRITING, ODB_PUSH_BROKEN };

/* One push channel; part of the record of the connection. All-zero memory is none. */
struct odb_push {
    _Atomic enum odb_push_state
        state; /* changed under the lock; whether it is ODB_PUSH_NONE is the helper thread's business alone */
    struct odb_push_consumer *consumer;
    struct odb_watch *watch; /* of the connection, in the helper thread */
    uint32_t number;
    uint64_t position; /* of the next byte to be written */
    uint64_t limit;    /* position that may not be passed */
    uint64_t passed;   /* as the consumer has reported */
    struct odb_serving serving;
    uint64_t sent; /* of the body under way */
    uint64_t length;
    struct odb_push *next; /* idle ring of the consumer, first in first out */
};

struct odb_push_consumer {
    uint64_t id;         /* 0: unused */
    uint8_t address[16]; /* where its first channel came from; all zero: not known */
    struct odb_push *first, *last;
    uint32_t channels;
    uint64_t passed, skipped; /* bytes, halved now and then: recent behaviour */
    uint64_t resume_ms;       /* not pushed to before */
    uint64_t penalty_ms;
};

struct odb_pushes {
    struct odb_lock lock;
    _Atomic uint32_t consumers; /* with channels; 0 lets senders not even ask */
    _Atomic int sigpipe;        /* enum in pushes.c: may an application thread write to a socket that may be broken? */
    struct odb_store *store;
    struct odb_stats *stats;
    struct odb_driver *driver;
    struct odb_push_consumer consumer[ODB_PUSH_CONSUMERS];
};

void odb_pushes_init(struct odb_pushes *pushes, struct odb_store *store, struct odb_stats *stats,
                     struct odb_driver *driver);
void odb_pushes_after_fork_child(struct odb_pushes *pushes);

/* ---- the application's threads ---- */

static inline bool odb_pushes_wanted(const struct odb_pushes *pushes) {
    return atomic_load_explicit(&pushes->consumers, memory_order_acquire) > 0;
}

/* Has this consumer given channels? */
bool odb_pushes_knows(struct odb_pushes *pushes, uint64_t consumer);

/* An idle channel of the consumer with credits for `length` bytes; `consumer` 0: of the only one there is. Null: do not push. */
struct odb_push *odb_pushes_take(struct odb_pushes *pushes, uint64_t consumer, uint64_t length);
/* Writes the span's bytes (as many as were asked for in take). `looked`: the caller knows that a file is still what was announced. */
void odb_pushes_send(struct odb_pushes *pushes, struct odb_push *push, const struct odb_span *span, bool looked);
/* Does this consumer live at `address`? */
bool odb_push_goes_to(const struct odb_push *push, const uint8_t address[16]);
/* Nothing was announced after all. */
void odb_pushes_give_back(struct odb_pushes *pushes, struct odb_push *push);
/* The application has changed what SIGPIPE does. */
void odb_pushes_sigpipe_changed(struct odb_pushes *pushes);

/* Does the application ignore SIGPIPE? */
bool odb_pushes_sigpipe_is_ignored(struct odb_pushes *pushes);

/* ---- the helper thread ---- */

/* A PUSH message with a channel number: the first one makes the connection a push channel. False: refused, close the connection. */
bool odb_pushes_message(struct odb_pushes *pushes, struct odb_push *push, struct odb_watch *watch,
                        const struct odb_wire_push *message);
/* The socket has room: goes on with the body under way. False: broken, close the connection. */
bool odb_pushes_continue(struct odb_pushes *pushes, struct odb_push *push);
/* Before the connection is closed: waits until no application thread has the push. */
void odb_pushes_detach(struct odb_pushes *pushes, struct odb_push *push);

#endif
