/* receive.c: delivers parsed pieces into the application's buffers. */
#include "core/receive.h"

#include "core/ahead.h"
#include "core/careful.h"
#include "core/detect.h"
#include "core/early.h"
#include "core/exact.h"
#include "core/heap.h"
#include "core/inbox.h"
#include "core/peers.h"
#include "core/requester.h"
#include "core/sharing.h"
#include "core/splice_out.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <netinet/in.h>

enum { READ_AHEAD = 65536, FETCH_AHEAD = 262144, DIRECT_MIN = 4096, DIRECT_PARTS = 16 };
enum { SPLICE_PART = 8192, SPLICE_FROM = 65536 }; /* up to there copying was measured to be as cheap */

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

static int fetch(struct odb_runtime *runtime, struct odb_stream *stream, const struct odb_span *span, void *into) {
    if (is_out_of_reach(runtime, stream, span)) return -EACCES;
    if (odb_splice_out_may(runtime, span)) odb_windows_fetch_before(&runtime->windows, span);
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
    if (odb_splice_out_may(runtime, &part)) odb_windows_fetch_before(&runtime->windows, &part);
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

/* Does the application fill whole pages one behind the other, header and body alike? It shows where a body begins within a page of a buffer that ends with one, and as long as
 * what follows lies where it then should. */
static bool flows(struct odb_stream *stream, const void *to, size_t room) {
    uint64_t received = atomic_load_explicit(&stream->turn_received, memory_order_relaxed);
    uintptr_t start = (uintptr_t)to;
    struct odb_geometry flow = {.buffer = ODB_GEOMETRY_FLOW, .offset = (uint16_t)((start - received) % ODB_PAGE)};
    uint64_t packed = odb_stream_pack_geometry(flow);
    if ((start + room) % ODB_PAGE != 0) return false;
    if (atomic_load_explicit(&stream->own_geometry, memory_order_relaxed) == packed) return true;
    if (stream->in.span_at > stream->in.head || start % ODB_PAGE == 0) return false;
    atomic_store_explicit(&stream->own_geometry, packed, memory_order_relaxed);
    return true;
}

/* How the application offers memory for bodies, for the next HINT. Page-aligned buffers are what senders assume anyway. */
static void note_geometry(struct odb_stream *stream, const void *to, size_t room) {
    if (flows(stream, to, room)) return;
    struct odb_geometry geometry = {.buffer = room < UINT32_MAX ? (uint32_t)room : UINT32_MAX,
                                    .offset = (uint16_t)((uintptr_t)to % ODB_PAGE)};
    bool aligned = geometry.offset == 0 && room % ODB_PAGE == 0;
    if (room >= 2 * ODB_PAGE)
        atomic_store_explicit(&stream->own_geometry, aligned ? 0 : odb_stream_pack_geometry(geometry),
                              memory_order_relaxed);
}

/* Will this piece and what is known to follow it end a body within a page? The piece that ends it then covers a page in part, and if that page were a
 * window on what has been sent before, it would have to be fetched again. */
static bool ends_in_page(const struct odb_inbox *in, size_t amount, size_t room) {
    size_t rest = in->span.length - (in->span_at - in->head) - amount;
    return rest < room && (rest > 0 ? rest : amount) % ODB_PAGE != 0;
}

/* What was pushed to us needs no asking: a window on it is worth its guards only where the body is long and its pages are sent whole. */
static bool better_taken(const struct odb_inbox *in, const struct odb_span *part, size_t room,
                         enum odb_pushed_place place) {
    return place == ODB_PUSHED_PASSED || part->length < SPLICE_PART || part->offset < SPLICE_FROM ||
           (place == ODB_PUSHED_NEXT && ends_in_page(in, part->length, room));
}

static bool fetches_at_once(struct odb_runtime *runtime, const struct odb_span *part) {
    unsigned delivery = runtime->options.delivery;
    if (delivery != ODB_DELIVERY_LEARN) return delivery == ODB_DELIVERY_FETCH;
    return odb_delivery_fetches(odb_windows_delivery(&runtime->windows, part), part->length);
}

/* A call that has delivered something ends rather than ask for an edge, or take one from behind a window that it has mapped. */
static bool ends_here(enum odb_pushed_place place, bool edge_first, bool pages, bool last) {
    if (place == ODB_PUSHED_NEXT) return false;
    return edge_first || (!pages && (!last || place == ODB_PUSHED_LATER));
}

/* Body bytes: maps whole pages, fetches what cannot be mapped. `begun` says that this call has delivered something already, so that it may end here rather than fetch.
 * Returns bytes delivered, 0 to end the call or (when nothing was delivered) look again, or a negative errno. */
static ssize_t deliver_body(struct odb_runtime *runtime, struct odb_stream *stream, void *to, size_t room, bool begun) {
    struct odb_inbox *in = &stream->in;
    if (!begun) note_geometry(stream, to, room);
    odb_inbox_join_spans(runtime, in);
    size_t at = in->span_at - in->head, left = in->span.length - at, amount = room < left ? room : left;
    uintptr_t start = (uintptr_t)to, first = odb_page_up(start), last = odb_page_down(start + amount);
    bool wide = last > first, pages = wide && odb_heap_is_block(runtime, (void *)first, last - first);
    struct odb_span all = odb_span_part(&in->span, at, amount);
    ssize_t early = deliver_early(runtime, stream, &all, to);
    if (early != 0) return early;
    bool own = odb_splice_out_may(runtime, &all);
    enum odb_pushed_place place = own ? odb_pushed_where(&runtime->channels.pushed, &all) : ODB_PUSHED_PASSED;
    bool taken = own && runtime->options.delivery == ODB_DELIVERY_LEARN && better_taken(in, &all, room, place);
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

static void consume(struct odb_inbox *in, int fd, size_t amount) {
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

/* One piece, or part of it. Same results as deliver_body. */
static ssize_t deliver(struct odb_runtime *runtime, struct odb_stream *stream, void *to, size_t room, bool begun,
                       int flags) {
    struct odb_inbox *in = &stream->in;
    if (flags & MSG_TRUNC) return deliver_nothing(in, room);
    if (in->real > 0) return deliver_real(runtime, in, to, room);
    if (!in_body(in)) return deliver_edge(runtime, in, to, room);
    return deliver_body(runtime, stream, to, room, begun && !(flags & MSG_WAITALL));
}

/* MSG_PEEK: shows the bytes at hand and, behind them, the next ones of a span, which are fetched for that. Same results as deliver_body. */
static ssize_t show(struct odb_runtime *runtime, struct odb_stream *stream, int fd, char *to, size_t room) {
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

/* A send of ours that the application does not wait for may have taken the socket's error, which a receive is to report too. */
static int error_of_sends(struct odb_stream *stream) {
    if (stream->sharing || !odb_lock_try(&stream->out.lock)) return 0;
    int error = stream->out.error == EPIPE ? 0 : stream->out.error;
    if (error) stream->out.error = 0;
    odb_lock_drop(&stream->out.lock);
    return error;
}

/* Under the lock. What to say when there is no piece: the error once, then the end. */
static ssize_t no_piece(struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    int error = in->error || !in->ended ? in->error : error_of_sends(stream);
    in->error = 0;
    if (error) return -error;
    return in->ended ? 0 : -EAGAIN;
}

/* The rest of a classic direction is the kernel's business. All buffers at once: who gets less than fits takes the socket for drained and waits for an edge. */
static ssize_t receive_classic(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov,
                               int count, size_t skip, int flags) {
    for (; count > 1 && skip >= iov->iov_len; iov++, count--) skip -= iov->iov_len;
    struct iovec rest = {(char *)iov->iov_base + skip, iov->iov_len - skip};
    struct msghdr message = {.msg_iov = &rest, .msg_iovlen = 1};
    if (skip == 0) message = (struct msghdr){.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    int error = odb_windows_materialise(&runtime->windows, message.msg_iov, (int)message.msg_iovlen);
    if (error) return error;
    ssize_t got = odb_real.recvmsg(fd, &message, flags | MSG_DONTWAIT);
    if (got < 0) return -errno;
    return got > 0 ? got : -error_of_sends(stream);
}

/* The application's buffers of one call from where they are not filled yet. */
struct target {
    const struct iovec *iov;
    int count; /* 0: all are full */
    size_t at; /* bytes of the first one that are filled */
};

static void pass(struct target *target, size_t amount) {
    target->at += amount;
    while (target->count > 0 && target->at >= target->iov->iov_len) {
        target->at -= target->iov->iov_len;
        target->iov++;
        target->count--;
    }
}

/* Not more than `most` bytes of what is not filled, in at most `places` parts. Returns how many parts; *room is their length. */
static int parts_of(const struct target *target, struct iovec *parts, int places, size_t most, size_t *room) {
    int count = 0;
    *room = 0;
    for (int i = 0; i < target->count && count < places && *room < most; i++) {
        size_t gone = i == 0 ? target->at : 0, length = target->iov[i].iov_len - gone;
        if (length > most - *room) length = most - *room;
        if (length == 0) continue;
        parts[count++] = (struct iovec){(char *)target->iov[i].iov_base + gone, length};
        *room += length;
    }
    return count;
}

static bool touches_guards(const struct odb_runtime *runtime, const struct iovec *parts, int count) {
    for (int i = 0; i < count; i++)
        if (odb_windows_touch(&runtime->windows, parts[i].iov_base, parts[i].iov_len)) return true;
    return false;
}

/* Under the lock. The bytes of a frame that has begun go where the application wants them, without a stop in the inbox. Not worth it for a few, be they the frame's or the
 * call's; and nobody knows how many will come, so pages that would have to be opened for them stay as they are. Same results as odb_inbox_receive, 0 also for what has
 * to go the other way. `done`: what this call has delivered already. */
static ssize_t receive_directly(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                                const struct target *target, size_t done, int flags) {
    struct odb_inbox *in = &stream->in;
    struct iovec parts[DIRECT_PARTS + 1];
    size_t awaited = odb_inbox_awaited(in), room;
    if (awaited == 0 || (flags & (MSG_PEEK | MSG_TRUNC))) return 0;
    int count = parts_of(target, parts, DIRECT_PARTS, awaited, &room);
    if (awaited < DIRECT_MIN || done + room < DIRECT_MIN) return 0;
    if (!touches_guards(runtime, parts, count)) return odb_inbox_receive(runtime, stream, fd, parts, count, room);
    in->bulk = 0;
    return 0;
}

/* A span with a head was cut for a buffer of which nothing is filled. If that is this buffer, its body would begin with a page there and not here, behind other bytes; nor
 * would the bodies that follow. */
static bool wants_fresh_buffer(const struct odb_inbox *in, const struct target *target) {
    uintptr_t fresh = (uintptr_t)target->iov->iov_base + in->head;
    bool begins = in->real == 0 && in->span_at == 0 && in->head > 0 && in->span.length >= ODB_PAGE;
    return begins && fresh % ODB_PAGE == 0 && (fresh + target->at) % ODB_PAGE != 0;
}

/* Under the lock. One piece that is or comes to hand, as much of it as the next buffer takes. Returns bytes, 0 as deliver_body, -EAGAIN when there is none, or -EFAULT and it stays. */
static ssize_t receive_piece(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                             const struct target *target, bool begun, int flags) {
    char *to = (char *)target->iov->iov_base + target->at;
    size_t room = target->iov->iov_len - target->at;
    if (!odb_inbox_advance(runtime, stream, fd) || !odb_inbox_has_piece(&stream->in)) return -EAGAIN;
    if (flags & MSG_PEEK) {
        ssize_t shown = show(runtime, stream, fd, to, room);
        if (shown >= 0 || shown == -EFAULT) return shown;
    } else {
        if (begun && !(flags & (MSG_WAITALL | MSG_TRUNC)) && wants_fresh_buffer(&stream->in, target)) return 0;
        ssize_t got = deliver(runtime, stream, to, room, begun, flags);
        if (got > 0) consume(&stream->in, fd, (size_t)got);
        if (!stream->in.has_span) odb_early_end(stream); /* the program has had the bytes in another way */
        if (got >= 0 || got == -EFAULT) return got;
    }
    odb_inbox_break(runtime, stream, fd, ODB_STAT_resets);
    return -EAGAIN;
}

static void note_received(struct odb_stream *stream, size_t amount) {
    atomic_fetch_add_explicit(&stream->turn_received, amount, memory_order_relaxed);
    atomic_store_explicit(&stream->turn_sent, 0, memory_order_relaxed);
}

/* Under the lock. Into what remains of the buffers behind their first `skip` bytes, as far as bytes can be had without waiting. */
static ssize_t receive_now(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov,
                           int count, size_t skip, int flags) {
    struct odb_inbox *in = &stream->in;
    struct target target = {iov, count, 0};
    size_t done = 0;
    if (odb_inbox_awaited(in) == 0 && !odb_inbox_advance(runtime, stream, fd)) {
        bool classic = atomic_load(&in->mode) == ODB_IN_CLASSIC;
        return classic ? receive_classic(runtime, stream, fd, iov, count, skip, flags) : no_piece(stream);
    }
    for (pass(&target, skip); target.count > 0;) {
        if (done > 0 && in->drained && in->begin == in->end && !odb_inbox_has_piece(in)) break;
        ssize_t got = receive_directly(runtime, stream, fd, &target, done, flags);
        if (got == 0) got = receive_piece(runtime, stream, fd, &target, done > 0, flags);
        if (got == -EFAULT && done == 0) return got;
        if (got < 0) return done > 0 ? (ssize_t)done : no_piece(stream);
        if ((got == 0 && done > 0) || (flags & MSG_PEEK)) return (ssize_t)done + got;
        pass(&target, (size_t)got);
        note_received(stream, (size_t)got);
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* Blocks as recv would: interrupted and timed out alike. Returns 0, or a negative errno. */
static int wait_for_bytes(struct odb_stream *stream, int fd) {
    char byte;
    if (odb_detect_wait(stream, fd)) return 0;
    if (odb_real.recv(fd, &byte, 1, MSG_PEEK) >= 0) return 0;
    int error = errno;
    if (error == EAGAIN || error == EINTR) return -error;
    odb_in_take(stream);
    stream->in.error = error; /* the peek has taken it from the socket */
    stream->in.ended = true;
    odb_in_drop(stream);
    return 0;
}

static bool blocks(int fd, int flags) {
    return !(flags & MSG_DONTWAIT) && !(odb_real.fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* How many bytes a blocking call waits for. */
static size_t least(const struct odb_stream *stream, size_t wanted, int flags) {
    size_t mark = (size_t)atomic_load_explicit(&stream->low_water, memory_order_relaxed);
    if (flags & MSG_PEEK) return 0;
    return (flags & MSG_WAITALL) || mark > wanted ? wanted : mark;
}

static size_t iov_length(const struct iovec *iov, int count) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += iov[i].iov_len;
    return total;
}

static bool at_hand(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    if (!odb_in_try(stream)) return true;
    bool is = odb_inbox_advance(runtime, stream, fd);
    odb_in_drop(stream);
    return is;
}

/* Who is behind an accepted connection. */
static uint64_t requester_on(const struct odb_stream *stream) {
    uint64_t named = atomic_load_explicit(&stream->named_consumer, memory_order_relaxed);
    if (atomic_load(&stream->in.mode) == ODB_IN_CLASSIC) return ODB_REQUESTER_SELF;
    return named != 0 ? named : ODB_REQUESTER_UNKNOWN;
}

/* Under the lock. Will a receive that follows have bytes without waiting? */
static bool goes_on(const struct odb_inbox *in, int flags) {
    return !(flags & (MSG_PEEK | MSG_TRUNC)) && !in->error && (odb_inbox_has_piece(in) || in->begin < in->end);
}

ssize_t odb_stream_receive(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov,
                           int count, int flags) {
    size_t wanted = iov_length(iov, count), done = 0;
    if (wanted == 0) return 0;
    for (;;) {
        odb_in_take(stream);
        ssize_t got = receive_now(runtime, stream, fd, iov, count, done, flags);
        if (got > 0) odb_cork_received(runtime, iov, count, done + (size_t)got, goes_on(&stream->in, flags));
        if (!(flags & MSG_PEEK)) odb_inbox_trim(runtime, &stream->in);
        if (got < 0 && got != -EAGAIN && got != -EFAULT && done > 0)
            stream->in.error = (int)-got; /* this call has bytes to tell of, the next one has the error */
        bool waits = got == -EAGAIN && done == 0 && blocks(fd, flags);
        if (waits) odb_exact_wait(stream);
        odb_in_drop(stream);
        if (got > 0) odb_ahead_restart(stream);
        if (got > 0 && stream->peer_port == 0) odb_requester_is(requester_on(stream));
        if (got > 0) done += (size_t)got;
        bool short_of = done < least(stream, wanted, flags); /* a frame's header alone wakes us too */
        bool more = (got > 0 || (got == -EAGAIN && done > 0)) && short_of;
        if (!more && !waits) return done > 0 ? (ssize_t)done : got;
        if (more && !blocks(fd, flags)) return (ssize_t)done;
        if (more && at_hand(runtime, stream, fd)) continue;
        odb_hold_release(runtime);
        if (more) odb_exact_wait(stream);
        int error = more && odb_stream_holds(stream) ? 0 : wait_for_bytes(stream, fd);
        odb_exact_waited(stream);
        if (error) return done > 0 ? (ssize_t)done : error;
    }
}
