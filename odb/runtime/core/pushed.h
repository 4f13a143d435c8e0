/* pushed.h: the consumer's side of pushing: channels on which origins write bodies before they are asked for.
 *
 * A channel is found by its random number and a position in it, both from a descriptor. Bytes are taken in order; what lies before a claimed position belongs to nobody any more
 * and is skipped without copying. Every failure here is answered by a FETCH.
 *
 * Thread safety: all functions. Async-signal-safe: no allocation; where a lock cannot be had within a bounded time the call fails. errno is preserved.
 */
#ifndef ODB_CORE_PUSHED_H
#define ODB_CORE_PUSHED_H

#include "core/options.h"
#include "core/pipes.h"
#include "core/span.h"
#include "core/stats.h"
#include "os/lock.h"

#include <sys/uio.h>

#define ODB_PUSHED_SLOTS 128u /* channels at once, of all origins */
#define ODB_PUSHED_WANTED 64u /* channels to one origin */

struct odb_pushed_channel {
    struct odb_lock lock;
    _Atomic int fd;          /* -1: none */
    _Atomic uint32_t number; /* its lowest bits are the slot's index; 0: unused */
    struct odb_origin_address origin;
    bool introduced;       /* the first PUSH has been sent */
    struct odb_pipe *pipe; /* holds what has been drawn from the socket ahead; null: nothing has */
    uint64_t piped;        /* bytes in it */
    uint64_t position;     /* of the next byte to come out, of the pipe or else of the socket */
    uint64_t limit;        /* credits granted reach so far */
    uint64_t reported;     /* position of the last report */
    uint64_t skipped;      /* since then */
    uint64_t payload, end; /* where what was taken last ends in it */
    uint64_t run;          /* how many bytes of it were taken one behind the other */
    uint64_t moved_ms;
};

struct odb_pushed {
    const struct odb_options *options;
    struct odb_stats *stats;
    struct odb_lock lock;      /* of opening and closing */
    _Atomic uint64_t consumer; /* random number of this process; 0: not chosen yet */
    _Atomic uint64_t looked_ms;
    struct odb_pipes pipes;
    struct odb_pushed_channel channel[ODB_PUSHED_SLOTS];
};

void odb_pushed_init(struct odb_pushed *pushed, const struct odb_options *options, struct odb_stats *stats);
void odb_pushed_after_fork_child(struct odb_pushed *pushed);

/* This process's number, chosen on first use; 0 without randomness. */
uint64_t odb_pushed_consumer(struct odb_pushed *pushed);

/* Takes span->length pushed bytes into iov, waiting for them as long as there is progress. False: FETCH them (iov's contents are undefined). */
bool odb_pushed_take(struct odb_pushed *pushed, const struct odb_span *span, const struct iovec *iov, int count);

/* Is the channel one of this process's own? It may be lost all the same. */
bool odb_pushed_is_own(const struct odb_pushed *pushed, uint32_t number);

/* Where the first byte of a span is: no longer in its channel, the next to come out of it, or behind others. Never waits; of a channel that is in use
 * nothing better is known than that it may be behind others. */
enum odb_pushed_place { ODB_PUSHED_PASSED, ODB_PUSHED_NEXT, ODB_PUSHED_LATER };
enum odb_pushed_place odb_pushed_where(struct odb_pushed *pushed, const struct odb_span *span);

enum odb_pushed_end {
    ODB_PUSHED_SENT,    /* all of it */
    ODB_PUSHED_FULL,    /* the socket takes no more: the rest is still in the channel */
    ODB_PUSHED_REFUSED, /* the socket has failed: errno in `*error` */
    ODB_PUSHED_KEPT,    /* no pipe is to be had, or the socket takes none: the rest can still be taken */
    ODB_PUSHED_LOST     /* the rest is to be FETCHed */
};

/* Moves pushed bytes into a non-blocking TCP socket without copying them, waiting for them as odb_pushed_take does; `*sent`, which begins as 0, is how many
 * have left and are out of the channel. `flags` are of splice. */
enum odb_pushed_end odb_pushed_splice(struct odb_pushed *pushed, const struct odb_span *span, int to, unsigned flags,
                                      uint64_t *sent, int *error);

/* Moves what has come of a span into the pipe that `into` is the end of; `*drawn`, which begins as 0, is how much. `wait`: until something has, which needs an empty pipe. False: the rest is to be FETCHed. */
bool odb_pushed_draw(struct odb_pushed *pushed, const struct odb_span *span, int into, bool wait, uint64_t *drawn);

/* Something was fetched from this origin: opens a channel more, if there are not enough, and frees those that are stuck. Does not wait. */
void odb_pushed_want(struct odb_pushed *pushed, const struct odb_origin_address *origin);

#endif
