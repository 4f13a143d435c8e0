/* stream.h: one application connection on which ODB is, or may turn out to be, spoken.
 *
 * Each direction has a mode of its own. Inbound: `detect` until the first bytes have shown whether they are a HELLO, then `framed` or `classic`.
 * Outbound: `open` while that is not decided (accepting side), `hello` when the next write has to begin with a HELLO, `framed`, or `classic`.
 * A stream whose both directions are classic and that holds nothing any more leaves the table; its descriptor is then an ordinary one.
 *
 * Records are type-stable: memory of a stream is only ever reused for streams. A reference (odb_fdtable_hold) keeps it from being reused.
 * Locking: `in.lock` serialises receivers, `out.lock` senders; in.lock before out.lock. Neither is held while waiting for the socket; in.lock is held while a
 * head, tail or unmappable span is fetched (blocking driver).
 */
#ifndef ODB_CORE_STREAM_H
#define ODB_CORE_STREAM_H

#include "core/outbox.h"
#include "core/span.h"
#include "core/strategy.h"
#include "os/lock.h"
#include "wire/stream_decoder.h"

#include <stdatomic.h>
#include <stdbool.h>

enum odb_in_mode { ODB_IN_DETECT, ODB_IN_FRAMED, ODB_IN_CLASSIC };
enum odb_out_mode { ODB_OUT_OPEN, ODB_OUT_HELLO, ODB_OUT_FRAMED, ODB_OUT_CLASSIC };

#define ODB_STREAM_BUFFER 16384u

/* What the inbound direction has parsed and not yet delivered. */
struct odb_inbox {
    struct odb_lock lock;
    _Atomic uint32_t waiters; /* threads that wait for the socket; core/exact.h */
    _Atomic enum odb_in_mode mode;
    _Atomic bool drained; /* the kernel had nothing more when last asked, and has reported nothing since; no lock */
    struct odb_wire_decoder decoder;
    uint8_t *buffer; /* ODB_STREAM_BUFFER bytes from the kernel, or null while there are none */
    size_t kept;     /* bytes that are in the kernel as well; core/exact.h */
    size_t begin;    /* buffer[begin, end) is not parsed yet */
    size_t end;
    size_t real;         /* of those, the first `real` bytes are application bytes */
    bool has_span;       /* a VIRTUAL frame is being delivered */
    size_t span_at;      /* application bytes of it already delivered */
    size_t head, tail;   /* its real bytes, in `edges` */
    size_t edges_filled; /* head + tail bytes that have arrived; deliverable when complete */
    uint8_t *edges;      /* head bytes, then tail bytes */
    bool small;          /* the application's last piece of a body held less than a page */
    int bulk;            /* above 0: frames of late held more bytes than one look should take on the way */
    struct odb_span span;
    bool ended; /* end of stream seen */
    int error;  /* errno to report once what was parsed is delivered; sticky */
};

struct odb_stream {
    _Atomic uint32_t references;
    struct odb_inbox in;
    struct odb_outbox out;
    struct odb_early
        *early; /* under in.lock: a fetch that has been begun before its bytes are asked for; core/early.c */
    struct odb_sharing *sharing; /* under either lock: what other processes have of it; null: nothing; core/sharing.h */
    bool passed_on, busy, retreated; /* core/sharing.c */
    uint64_t round;                  /* core/sharing.c: under the table's `forking` */
    _Atomic enum odb_out_mode out_mode;
    struct {
        _Atomic bool ours;            /* the kernel's TCP_NODELAY and TCP_CORK are what holding wants */
        _Atomic int no_delay, corked; /* what the application believes of them then */
    } tcp;                            /* core/sockopt.c */
    _Atomic int low_water;            /* the application's SO_RCVLOWAT where it is above 1, else 0 */
    struct {
        uint64_t until_ms; /* under in.lock: when a HELLO that has begun must have come; 0: none has */
        bool marked;       /* under in.lock: the kernel's SO_RCVLOWAT is ours */
        _Atomic bool listed;
        int fd; /* while it is listed */
        struct odb_stream *next, *previous;
    } undecided; /* core/detect.c */
    struct {
        _Atomic uint64_t announced, taken; /* bytes; what the process had served when `announced` was last looked at */
        _Atomic uint64_t bound;            /* of the application's own making; 0: none */
    } ahead;                               /* core/ahead.c */
    _Atomic uint64_t own_geometry;         /* packed: how the application here offers memory, seen by receives */
    _Atomic uint64_t peer_geometry;        /* packed: what the peer's last HINT said */
    _Atomic uint64_t turn_received,
        turn_sent;             /* application bytes of the one direction since there were some of the other */
    _Atomic uint64_t consumer; /* who fetched the payloads announced here, as far as the origin knows; 0: not known */
    _Atomic uint64_t named_consumer; /* for whom the peer asks, as it says; 0: it has not said */
    uint64_t named,
        naming; /* under out.lock: the consumer that the peer has been told, and that the batch being sent tells it */
    uint64_t hinted_geometry; /* under out.lock: what the peer has been told */
    uint64_t hinting;         /* under out.lock: what the batch being sent tells it */
    uint8_t peer[16];
    uint16_t peer_port; /* that this side has connected to; 0: it has accepted */
    uint8_t local[16];
    struct odb_stream *next_free;
};

/* Beside a packed geometry: the side that it describes cannot fetch and wants real bytes. */
#define ODB_STREAM_WANTS_REAL ((uint64_t)1 << 63)

/* Has the peer said that it wants real bytes? */
static inline bool odb_stream_peer_wants_real(const struct odb_stream *stream) {
    return (atomic_load_explicit(&stream->peer_geometry, memory_order_relaxed) & ODB_STREAM_WANTS_REAL) != 0;
}

/* A geometry in one word, so that the two directions can exchange it without a lock. 0: not known. */
static inline uint64_t odb_stream_pack_geometry(struct odb_geometry geometry) {
    return (uint64_t)geometry.buffer << 16 | geometry.offset;
}

static inline struct odb_geometry odb_stream_unpack_geometry(uint64_t packed) {
    return (struct odb_geometry){.buffer = (uint32_t)(packed >> 16), .offset = (uint16_t)packed};
}

#endif
