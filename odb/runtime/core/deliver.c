/* deliver.c: what a parsed piece becomes in the application's buffer: a copy, a window, or bytes fetched now. */
#include "core/deliver.h"

#include "core/careful.h"
#include "core/early.h"
#include "core/exact.h"
#include "core/geometry.h"
#include "core/heap.h"
#include "core/inbox.h"
#include "core/peers.h"
#include "core/splice_out.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <netinet/in.h>

enum { READ_AHEAD = 65536, FETCH_AHEAD = 262144 };
/* Up to there copying was measured to be as cheap as splicing part by part; where the parts are gathered, splicing is always cheaper. */
enum { SPLICE_PART = 8192, SPLICE_FROM = 65536, COPY_WHOLE = 32768 };

/* Nothing can be fetched from this origin, as far as is known: then the peer will be asked for real bytes. */
static bool is_out_of_reach(struct odb_runtime *runtime, const struct odb_stream *stream, const struct odb_span *span) {
    const struct odb_origin_address *origin = &span->origin;
    struct odb_unreachable *unreachable = &runtime->channels.unreachable;
    bool out = !odb_peers_allowed(&runtime->options, origin->address, origin->port, stream->peer);
    if (!out && !odb_unreachable_any(unreachable)) return false;
    uint64_t now = odb_clock_ms();
    out = out || odb_unreachable_has(unreachable, origin->address, origin->port, now);
    if (out) odb_unreachable_add(&runtime->spoilt_peers, stream->peer, stream->peer_port, now);
    return out;
}

/* Before bytes of a push channel are taken, what precedes them there. */
static void take_what_precedes(struct odb_runtime *runtime, const struct odb_span *span) {
    if (!odb_splice_out_may(runtime, span)) return;
    if (odb_gather_splices(&runtime->gather)) odb_gather_make_way(runtime);
    odb_windows_fetch_before(&runtime->windows, span);
}

static int fetch(struct odb_runtime *runtime, struct odb_stream *stream, const struct odb_span *span, void *into) {
    if (is_out_of_reach(runtime, stream, span)) return -EACCES;
    take_what_precedes(runtime, span);
    struct iovec iov = {into, span->length};
    int error = odb_channels_fetch(&runtime->channels, span, &iov, 1);
    if (error) is_out_of_reach(runtime, stream, span); /* perhaps known only now */
    return error;
}

/* Turns the next bytes of the body into head bytes, so that they can be looked at or delivered in small parts. */
static int pull(struct odb_runtime *runtime, struct odb_stream *stream, size_t amount) {
    struct odb_inbox *in = &stream->in;
    struct odb_span part = odb_span_part(&in->span, 0, amount);
    uint8_t *edges = odb_real.malloc(amount + in->tail);
    int error = edges ? fetch(runtime, stream, &part, edges) : -ENOMEM;
    if (error) {
        odb_real.free(edges);
        return error;
    }
    if (in->tail > 0) memcpy(edges + amount, in->edges + in->head, in->tail);
    odb_real.free(in->edges);
    in->edges = edges;
    in->edges_filled = amount + in->tail;
    in->head = amount;
    in->span_at = 0;
    in->span = odb_span_part(&in->span, amount, in->span.length - amount);
    return 0;
}

static bool in_body(const struct odb_inbox *in) {
    return in->span_at >= in->head && in->span_at < in->head + in->span.length;
}

/* Forgets what is delivered of the span, so that its body begins at the current position, which is inside the body. */
static void rebase(struct odb_inbox *in) {
    size_t begun = in->span_at - in->head;
    in->span = odb_span_part(&in->span, begun, in->span.length - begun);
    if (in->tail > 0) memmove(in->edges, in->edges + in->head, in->tail);
    in->edges_filled = in->tail;
    in->head = 0;
    in->span_at = 0;
}

static void note_question(struct odb_runtime *runtime) {
    odb_count(&runtime->stats, ODB_STAT_edge_fetches, 1);
    odb_delivery_questioned(&runtime->windows.asked);
}

/* Fetches the next `amount` body bytes straight into the application's buffer. */
static ssize_t deliver_exact(struct odb_runtime *runtime, struct odb_stream *stream, void *to, size_t amount) {
    if (amount < ODB_PAGE) note_question(runtime);
    struct odb_span part = odb_span_part(&stream->in.span, stream->in.span_at - stream->in.head, amount);
    int error = odb_windows_overwrite(&runtime->windows, to, amount);
    if (!error) error = odb_careful_writable(to, amount);
    if (!error) error = fetch(runtime, stream, &part, to);
    return error ? error : (ssize_t)amount;
}

/* Fetches the next `amount` body bytes now instead of mapping them: into the application's buffer, or, from the second small piece in a row on, a larger
 * one into the head (a single small piece is what is left of a buffer behind a header). Returns delivered bytes, 0 when they are in the head now, or a
 * negative errno. */
static ssize_t deliver_fetched(struct odb_runtime *runtime, struct odb_stream *stream, void *to, size_t amount) {
    struct odb_inbox *in = &stream->in;
    size_t left = in->span.length - (in->span_at - in->head);
    bool small = amount < ODB_PAGE && amount < left, again = small && in->small;
    in->small = small;
    if (again) {
        odb_delivery_questioned(&runtime->windows.asked);
        rebase(in);
        return pull(runtime, stream, left < READ_AHEAD ? left : READ_AHEAD);
    }
    return deliver_exact(runtime, stream, to, amount);
}

/* From the head or the tail, whichever the position is in. */
static ssize_t deliver_edge(struct odb_runtime *runtime, struct odb_inbox *in, void *to, size_t room) {
    bool tail = in->span_at >= in->head;
    size_t from = tail ? in->span_at - in->span.length : in->span_at;
    size_t left = (tail ? in->head + in->tail : in->head) - from, amount = room < left ? room : left;
    int error = odb_windows_overwrite(&runtime->windows, to, amount);
    if (!error) error = odb_careful_put(to, in->edges + from, amount);
    return error ? error : (ssize_t)amount;
}

/* The first bytes of `part`, as many as a fetch under way gives; 0: none. */
static ssize_t deliver_early(struct odb_runtime *runtime, struct odb_stream *stream, const struct odb_span *part,
                             void *to) {
    size_t amount = odb_early_has(runtime, stream, part);
    if (amount == 0) return 0;
    int error = odb_windows_overwrite(&runtime->windows, to, amount);
    if (!error) error = odb_careful_writable(to, amount);
    if (error) return error;
    odb_delivery_fetches(odb_windows_delivery(&runtime->windows, part), amount);
    if (odb_early_take(stream, to, amount)) return (ssize_t)amount;
    struct odb_span again = odb_span_part(part, 0, amount);
    error = fetch(runtime, stream, &again, to);
    return error ? error : (ssize_t)amount;
}

/* The next `amount` body bytes, into the application's buffer without a window. What was pushed is there already; what has to be asked for is worth asking for a larger
 * part at once, because every question waits for its answer. */
static ssize_t deliver_eagerly(struct odb_runtime *runtime, struct odb_stream *stream, void *to, size_t amount) {
    struct odb_inbox *in = &stream->in;
    size_t at = in->span_at - in->head, left = in->span.length - at;
    struct odb_span part = odb_span_part(&in->span, at, amount);
    struct iovec iov = {to, amount};
    int error = odb_windows_overwrite(&runtime->windows, to, amount);
    if (error) return error;
    take_what_precedes(runtime, &part);
    if (part.push_channel != 0 &&
        odb_peers_allowed(&runtime->options, part.origin.address, part.origin.port, stream->peer)) {
        if (odb_pushed_take(&runtime->channels.pushed, &part, &iov, 1)) return (ssize_t)amount;
        in->span.push_channel = 0; /* lost, or not ours: do not look again */
        in->span.push_position = 0;
    }
    if (odb_early_begin(runtime, stream)) {
        ssize_t got = deliver_early(runtime, stream, &part, to);
        if (got != 0) return got;
    }
    if (left == amount) return deliver_exact(runtime, stream, to, amount);
    rebase(in);
    error = pull(runtime, stream, left < FETCH_AHEAD ? left : FETCH_AHEAD);
    return error ? error : deliver_edge(runtime, in, to, amount);
}

/* Will this piece and what is known to follow it end a body within a page? The piece that ends it then covers a page in part, and if that page were a
 * window on what has been sent before, it would have to be fetched again. */
static bool ends_in_page(const struct odb_inbox *in, size_t amount, size_t room) {
    size_t rest = in->span.length - (in->span_at - in->head) - amount;
    return rest < room && (rest > 0 ? rest : amount) % ODB_PAGE != 0;
}

/* What was pushed to us needs no asking: a window on it is worth its guards only where its pages are sent whole, and the parts of a body, which is no short one, together, or the body is long. */
static bool is_worth_no_window(const struct odb_runtime *runtime, const struct odb_inbox *in,
                               const struct odb_span *part) {
    return part->length < SPLICE_PART || in->span.length <= COPY_WHOLE ||
           (part->offset < SPLICE_FROM && !odb_gather_may(runtime));
}

/* As odb_pushed_where; `taken`: it is next, too, if only parts that are kept precede it. */
static enum odb_pushed_place place_of(struct odb_runtime *runtime, const struct odb_span *part, bool taken) {
    struct odb_pushed *pushed = &runtime->channels.pushed;
    enum odb_pushed_place place = odb_pushed_where(pushed, part);
    if (place != ODB_PUSHED_LATER || !taken || !odb_gather_splices(&runtime->gather)) return place;
    odb_gather_make_way(runtime);
    return odb_pushed_where(pushed, part);
}

/* Is the next part of a body, which was pushed to us, better taken into the buffer at once? Behind other bytes only if no part of that body is worth a window. */
static bool better_taken(struct odb_runtime *runtime, const struct odb_inbox *in, const struct odb_span *part,
                         size_t room, bool begun, enum odb_pushed_place *place) {
    bool learns = runtime->options.delivery == ODB_DELIVERY_LEARN;
    bool small = is_worth_no_window(runtime, in, part), ends = !begun && ends_in_page(in, part->length, room);
    *place = place_of(runtime, part, learns && (small || ends));
    return learns && (small || *place == ODB_PUSHED_PASSED || (ends && *place == ODB_PUSHED_NEXT));
}

static bool fetches_at_once(struct odb_runtime *runtime, const struct odb_span *part) {
    unsigned delivery = runtime->options.delivery;
    if (delivery != ODB_DELIVERY_LEARN) return delivery == ODB_DELIVERY_FETCH;
    return odb_delivery_fetches(odb_windows_delivery(&runtime->windows, part), part->length);
}

/* A call that has delivered something ends rather than ask for an edge, or take one from behind a window that it has mapped; nor does a body begin behind other bytes, if the next
 * call may give it a buffer of its own. */
static bool ends_here(enum odb_pushed_place place, bool edge_first, bool pages, bool last) {
    if (place == ODB_PUSHED_NEXT) return edge_first && pages;
    return edge_first || (!pages && (!last || place == ODB_PUSHED_LATER));
}

/* Body bytes: maps whole pages, fetches what cannot be mapped. `begun` says that this call has delivered something already, so that it may end here rather than fetch.
 * Returns bytes delivered, 0 to end the call or (when nothing was delivered) look again, or a negative errno. */
static ssize_t deliver_body(struct odb_runtime *runtime, struct odb_stream *stream, void *to, size_t room, bool begun) {
    struct odb_inbox *in = &stream->in;
    if (!begun) odb_geometry_note(stream, to, room);
    odb_inbox_join_spans(runtime, in);
    size_t at = in->span_at - in->head, left = in->span.length - at, amount = room < left ? room : left;
    uintptr_t start = (uintptr_t)to, first = odb_page_up(start), last = odb_page_down(start + amount);
    bool wide = last > first, pages = wide && odb_heap_is_block(runtime, (void *)first, last - first);
    struct odb_span all = odb_span_part(&in->span, at, amount);
    ssize_t early = deliver_early(runtime, stream, &all, to);
    if (early != 0) return early;
    enum odb_pushed_place place = ODB_PUSHED_PASSED;
    bool taken = odb_splice_out_may(runtime, &all) && better_taken(runtime, in, &all, room, begun, &place);
    if (pages && !(begun && place == ODB_PUSHED_LATER) && (taken || fetches_at_once(runtime, &all)))
        return deliver_eagerly(runtime, stream, to, amount);
    if (begun && ends_here(place, first > start, pages, amount == left)) return 0;
    if (!pages) {
        odb_count(&runtime->stats, wide ? ODB_STAT_fallback_not_heap : ODB_STAT_fallback_no_page, 1);
        return deliver_fetched(runtime, stream, to, amount);
    }
    if (first > start)
        return deliver_exact(runtime, stream, to, first - start); /* no more: the pages behind can be mapped */
    struct odb_span part = odb_span_part(&in->span, at, last - first);
    if (is_out_of_reach(runtime, stream, &part)) return -EACCES;
    if (odb_windows_map(&runtime->windows, to, last - first, &part) == 0) {
        in->small = false;
        return (ssize_t)(last - first);
    }
    odb_count(&runtime->stats, ODB_STAT_fallback_guard_failed, 1);
    return deliver_fetched(runtime, stream, to, amount);
}

static ssize_t deliver_real(struct odb_runtime *runtime, struct odb_inbox *in, void *to, size_t room) {
    size_t amount = room < in->real ? room : in->real;
    int error = odb_windows_overwrite(&runtime->windows, to, amount);
    if (!error) error = odb_careful_put(to, in->buffer + in->begin, amount);
    return error ? error : (ssize_t)amount;
}

/* Bytes of a piece that a receive with MSG_TRUNC throws away; a span is not even fetched. */
static ssize_t deliver_nothing(const struct odb_inbox *in, size_t room) {
    size_t left = in->real > 0 ? in->real : in->head + in->span.length + in->tail - in->span_at;
    return (ssize_t)(room < left ? room : left);
}

void odb_deliver_consume(struct odb_inbox *in, int fd, size_t amount) {
    if (in->real > 0) {
        in->begin += amount;
        in->real -= amount;
        if (in->kept > 0) odb_exact_release(in, fd, amount);
        return;
    }
    in->span_at += amount;
    if (in->span_at < in->head + in->span.length + in->tail) return;
    in->has_span = false;
    if (in->kept > 0) odb_exact_release(in, fd, in->kept);
}

ssize_t odb_deliver(struct odb_runtime *runtime, struct odb_stream *stream, void *to, size_t room, bool begun,
                    int flags) {
    struct odb_inbox *in = &stream->in;
    if (flags & MSG_TRUNC) return deliver_nothing(in, room);
    if (in->real > 0) return deliver_real(runtime, in, to, room);
    if (!in_body(in)) return deliver_edge(runtime, in, to, room);
    return deliver_body(runtime, stream, to, room, begun && !(flags & MSG_WAITALL));
}

ssize_t odb_deliver_shown(struct odb_runtime *runtime, struct odb_stream *stream, int fd, char *to, size_t room) {
    struct odb_inbox *in = &stream->in;
    ssize_t shown = 0, more;
    odb_inbox_look_ahead(runtime, stream, fd);
    if (in->real > 0) shown = deliver_real(runtime, in, to, room);
    if (shown < 0 || (size_t)shown == room || !odb_inbox_has_span(in)) return shown;
    in->small = true; /* who peeks comes back for more */
    more = in_body(in) ? deliver_fetched(runtime, stream, to + shown, 1) : 0;
    if (more == 0) more = deliver_edge(runtime, in, to + shown, room - (size_t)shown);
    return more > 0 ? shown + more : shown > 0 ? shown : more;
}
