/* channel.h: the consumer's side of channels: fetches spans from their origins.
 *
 * Two layers. `struct odb_channel` is one fetch on one connection, a state machine that never blocks: whoever owns a
 * loop turns it with odb_channel_progress(). `struct odb_channels` keeps idle connections per origin and offers
 * odb_channels_fetch(), which waits.
 *
 * Everything here is async-signal-safe: no allocation, no stdio, errno is preserved by the calls of the second layer.
 * The pool is a cache: where its lock cannot be had within a bounded time (a signal handler interrupted the holder) a
 * fetch opens a connection of its own instead of waiting.
 */
#ifndef ODB_CORE_CHANNEL_H
#define ODB_CORE_CHANNEL_H

#include "core/options.h"
#include "core/pushed.h"
#include "core/scatter.h"
#include "core/span.h"
#include "core/stats.h"
#include "core/unreachable.h"
#include "os/lock.h"
#include "wire/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define ODB_CHANNEL_SLOTS 1024u  /* connections that the pool knows, idle or in use */
#define ODB_CHANNEL_ORIGINS 64u  /* origins with idle connections */
#define ODB_CHANNEL_RELEASES 32u /* RELEASEs that wait for the next FETCH, per origin */

/* ---- one fetch ---- */

enum odb_progress {
    ODB_CHANNEL_DONE = 0,   /* all bytes have arrived; the connection can be used again */
    ODB_CHANNEL_WANT_READ,  /* call again when the descriptor is readable */
    ODB_CHANNEL_WANT_WRITE, /* call again when it is writable */
    ODB_CHANNEL_REFUSED,    /* the origin said FAIL: `error`; the connection can be used again */
    ODB_CHANNEL_FAILED      /* `error`; the connection cannot be used any more */
};

struct odb_channel {
    int fd;
    uint32_t slot;   /* of the pool; number + 1, zero: unknown to it */
    bool connecting; /* the connection is not established yet */
    bool answered;   /* at least one byte of the answer has arrived */
    int error;       /* negative errno */
    struct odb_span span;
    struct odb_scatter into;
    uint64_t body_left; /* bytes of the span still to come */
    uint64_t leave;     /* of those, bytes that are to stay on the connection for now; their place is not known yet */
    uint8_t header[ODB_WIRE_DATA_FRAME];
    size_t header_length;
    uint64_t consumer; /* said on a new connection, so that the origin learns who fetches what; 0: nothing is said */
    uint8_t request[ODB_WIRE_PUSH_FRAME + ODB_WIRE_FETCH_FRAME + ODB_WIRE_HEADER_SIZE +
                    ODB_CHANNEL_RELEASES * ODB_WIRE_RELEASE_UNIT];
    size_t request_length;
    size_t request_sent;
    uint64_t moved; /* bytes sent and received by this fetch: changes when there was progress */
};

/* Opens a non-blocking connection; a descriptor of the library, or a negative errno. The connection may still be under
 * way. */
int odb_channel_connect(const struct odb_origin_address *origin);

/* Begins to fetch `span` into `iov`, whose lengths add up to span->length, on a connection (channel->fd, ->slot and
 * ->connecting are set). Moves nothing yet. `releases` ids are sent along. What `iov` holds after a failure is
 * undefined. */
void odb_channel_begin(struct odb_channel *channel, const struct odb_span *span, const struct iovec *iov, int count,
                       const uint64_t *releases, size_t release_count);

enum odb_progress odb_channel_progress(struct odb_channel *channel);

/* ---- the pool ---- */

struct odb_channel_slot {
    _Atomic int fd; /* -1: none. Also read in a forked child, whoever holds the lock */
    uint32_t next;  /* in the origin's queue or the free list; number + 1 */
};

struct odb_channel_origin {
    struct odb_origin_address address; /* port 0: unused */
    uint64_t last_use;                 /* of odb_channels.uses */
    bool reached;                      /* it has answered a fetch */
    uint64_t silent_until_ms;          /* it has closed on an introduction: none until then */
    uint32_t first;                    /* the idle connection that waits longest; slot number + 1 */
    uint32_t last;
    uint32_t idle;
    uint32_t release_count;
    uint64_t releases[ODB_CHANNEL_RELEASES];
};

struct odb_channels {
    struct odb_pushed pushed;
    const struct odb_options *options;
    struct odb_stats *stats;
    struct odb_lock lock;
    uint64_t uses;
    uint32_t forks;         /* how often a child has begun anew: what is older is not its own */
    _Atomic uint32_t early; /* fetches of core/early.c under way */
    uint32_t free;
    struct odb_channel_slot slots[ODB_CHANNEL_SLOTS];
    struct odb_channel_origin origins[ODB_CHANNEL_ORIGINS];
    struct odb_unreachable unreachable; /* origins that no connection was ever made to */
};

/* `options` and `stats` are kept, not copied. */
void odb_channels_init(struct odb_channels *channels, const struct odb_options *options, struct odb_stats *stats);

/* Fetches span->length bytes into iov, waiting as long as there is progress at least every deadline_ms. 0, or a
 * negative errno: -ESTALE (the payload is gone or its file has changed), -EACCES (denied), -EBUSY (the origin is
 * overloaded), -EPROTO (the origin broke the protocol), -ETIMEDOUT, -ECONNREFUSED, -ECONNRESET (also: it closed in the
 * middle), and what socket() and connect() say. After a failure iov's contents are undefined. Counts fetches,
 * fetch_bytes, fetch_failures, channels_opened, protocol_errors. */
int odb_channels_fetch(struct odb_channels *channels, const struct odb_span *span, const struct iovec *iov, int count);

/* A fetch whose bytes are taken piece by piece. Begins it on `channel` without waiting for anything; 0 or a negative
 * errno. After 0 it is ended by the take that takes its last byte, by a take that fails, or by being abandoned. */
int odb_channels_begin(struct odb_channels *channels, const struct odb_span *span, struct odb_channel *channel);
/* The next `amount` of its bytes, not more than channel->body_left, waiting for them as odb_channels_fetch does. Same errors; counts fetch_bytes. */
int odb_channels_take(struct odb_channels *channels, struct odb_channel *channel, void *to, size_t amount);
void odb_channels_abandon(struct odb_channels *channels, struct odb_channel *channel);

/* Notes that this process will not ask for the span's payload again; the origin hears of it with the next fetch. May
 * be forgotten. */
void odb_channels_release(struct odb_channels *channels, const struct odb_span *span);

/* The child never talks on its parent's channels: closes its copies and starts empty. */
void odb_channels_after_fork_child(struct odb_channels *channels);

#endif
