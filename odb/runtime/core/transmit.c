/* transmit.c: sends frames, one system call for as many as fit, and keeps the order when the socket is full. */
#include "core/transmit.h"

#include "core/interrupted.h"
#include "core/receive.h"
#include "core/requester.h"
#include "core/sharing.h"
#include "core/transmit_private.h"
#include "os/clock.h"
#include "os/real.h"
#include "wire/hint.h"

#include <errno.h>

static void count_frame(struct odb_runtime *runtime, const struct odb_frame *frame) {
    if (frame->type == ODB_WIRE_VIRTUAL) {
        odb_count(&runtime->stats, ODB_STAT_spans_sent, 1);
        odb_count(&runtime->stats, ODB_STAT_span_bytes_sent, frame->accepted - frame->real);
        odb_count(&runtime->stats, ODB_STAT_edge_bytes_sent, frame->real);
    }
    odb_count(&runtime->stats, ODB_STAT_real_bytes_sent, frame->real);
}

/* Without memory to park the rest of a frame there is one honest way left: send it, however long that takes. */
static int send_rest(int fd, const struct iovec *iov, int count, size_t skip) {
    for (int i = 0; i < count; i++) {
        size_t gone = skip < iov[i].iov_len ? skip : iov[i].iov_len;
        skip -= gone;
        while (gone < iov[i].iov_len) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            ssize_t sent =
                odb_real.send(fd, (char *)iov[i].iov_base + gone, iov[i].iov_len - gone, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent >= 0)
                gone += (size_t)sent;
            else if (errno == EAGAIN)
                odb_real.poll(&room, 1, -1);
            else if (errno != EINTR)
                return -errno;
        }
    }
    return 0;
}

/* Under the lock. What follows a frame that has begun to leave: it is said once. */
static void said(struct odb_stream *stream, const struct odb_frame *frame) {
    if (frame->type == ODB_WIRE_HELLO) atomic_store(&stream->out_mode, ODB_OUT_FRAMED);
    if (frame->type == ODB_WIRE_HINT) {
        stream->hinted_geometry = stream->hinting;
        stream->named = stream->naming;
    }
}

/* The bodies of frames that begin within the first `sent` bytes of the batch. */
static void push(struct odb_runtime *runtime, struct odb_frames *frames, size_t sent) {
    size_t at = 0;
    for (int i = 0; i < frames->count && at < sent; i++) {
        struct odb_frame *frame = &frames->frame[i];
        if (frame->push) odb_pushes_send(&runtime->origin.pushes, frame->push, &frame->body, !frame->read);
        frame->push = NULL;
        at += frame->wire;
    }
}

/* Bodies go before their descriptors where the peer is the consumer, so that it need not wait for what it has been told of; a descriptor that then does not leave costs
 * bytes that the consumer skips. Where there are others between, which need longer to pass the descriptors on than the body takes, it is the other way round. */
static bool goes_past_peer(const struct odb_stream *stream, const struct odb_frames *frames) {
    bool any = false;
    for (int i = 0; i < frames->count; i++) {
        const struct odb_push *push = frames->frame[i].push;
        if (push && odb_push_goes_to(push, stream->peer)) return false;
        any |= push != NULL;
    }
    return any;
}

/* The same for those that were to be held, and are not. */
static void push_late(struct odb_runtime *runtime, struct odb_frames *frames) {
    for (int i = 0; i < frames->count; i++)
        if (frames->frame[i].late)
            odb_frames_push_late(&runtime->origin.pushes, frames->consumer, frames->frame[i].start,
                                 &frames->frame[i].body);
}

/* Channels that were taken for frames which are not sent. */
static void give_back_pushes(struct odb_runtime *runtime, struct odb_frames *frames) {
    for (int i = 0; i < frames->count; i++)
        if (frames->frame[i].push) odb_pushes_give_back(&runtime->origin.pushes, frames->frame[i].push);
}

ssize_t odb_transmit_account(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                             const struct odb_frames *frames, size_t sent) {
    size_t accepted = 0;
    for (int i = 0; i < frames->count && sent > 0; i++) {
        const struct odb_frame *frame = &frames->frame[i];
        const struct iovec *iov;
        int count = odb_frames_iov(frames, i, &iov), error = 0;
        if (sent < frame->wire && !odb_outbox_park(&stream->out, fd, iov, count, sent))
            error = send_rest(fd, iov, count, sent);
        if (error) return accepted > 0 ? (ssize_t)accepted : error;
        said(stream, frame);
        count_frame(runtime, frame);
        accepted += frame->accepted;
        sent = sent < frame->wire ? 0 : sent - frame->wire;
    }
    return accepted > 0 ? (ssize_t)accepted : -EAGAIN;
}

/* Under the lock. One system call for what is held and the batch behind it; how far it got with both, or a negative errno. */
static ssize_t send_both(const struct odb_outbox *out, int fd, const struct odb_frames *frames, int flags) {
    struct iovec iov[1 + ODB_FRAME_IOVS];
    int first = odb_outbox_is_empty(out) ? 1 : 0;
    ssize_t sent;
    if (first == 0) iov[0] = (struct iovec){out->parked + out->begin, out->end - out->begin};
    memcpy(iov + 1, frames->iov, sizeof *iov * (size_t)frames->iovs);
    struct msghdr message = {.msg_iov = iov + first, .msg_iovlen = (size_t)(1 + frames->iovs - first)};
    do sent = odb_real.sendmsg(fd, &message, (flags & (MSG_NOSIGNAL | MSG_MORE)) | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* Under the lock. How much of the batch has left, or a negative errno. */
static ssize_t send_batch(struct odb_outbox *out, int fd, const struct odb_frames *frames, int flags) {
    for (;;) {
        size_t held = out->end - out->begin;
        ssize_t sent = send_both(out, fd, frames, flags);
        if (held == 0 || sent > (ssize_t)held) {
            if (held > 0) odb_outbox_forget(out);
            return sent - (ssize_t)held;
        }
        if (sent < 0 && sent != -EAGAIN) {
            odb_outbox_forget(out);
            return sent;
        }
        out->begin += sent > 0 ? (size_t)sent : 0;
        int error = odb_outbox_flush(out, fd);
        if (error) return error;
    }
}

/* Under the lock. */
static ssize_t send_frames(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct odb_frames *frames,
                           int flags, bool hold) {
    bool tail = frames->tail.length > 0, announce = !tail && hold && goes_past_peer(stream, frames);
    if (!announce) push(runtime, frames, SIZE_MAX);
    if (hold && !tail && odb_hold_frames(runtime, stream, fd, frames)) {
        if (announce) odb_hold_announce(runtime, stream);
        push(runtime, frames, SIZE_MAX);
        return odb_transmit_account(runtime, stream, fd, frames, SIZE_MAX);
    }
    odb_hold_push(runtime, stream);
    if (stream->out.held.sends > 0) stream->out.held.lone = 0;
    push_late(runtime, frames);
    odb_frames_write_all(frames);
    ssize_t sent = send_batch(&stream->out, fd, frames, tail ? flags | MSG_MORE : flags);
    if (sent < 0) return sent;
    push(runtime, frames, (size_t)sent);
    return tail ? odb_transmit_tail(runtime, stream, fd, frames, (size_t)sent)
                : odb_transmit_account(runtime, stream, fd, frames, (size_t)sent);
}

/* Under the lock. 0 when something may be sent now, else a negative errno. EPIPE the kernel says again, with its signal. */
static int make_way(struct odb_stream *stream, int fd) {
    int error = stream->out.error;
    stream->out.error = 0;
    if (error && error != EPIPE) return -error;
    return stream->out.stalled ? odb_outbox_flush(&stream->out, fd) : 0;
}

/* Spans that this peer sends are of no use here, or cost more questions than they save bytes. (A consumer to which they are pushed has no questions to ask.) */
static bool wants_real(struct odb_runtime *runtime, const struct odb_stream *stream) {
    struct odb_unreachable *spoilt = &runtime->spoilt_peers;
    const struct odb_options *options = &runtime->options;
    bool learns = options->delivery == ODB_DELIVERY_LEARN;
    if (learns && odb_delivery_wants_real(&runtime->windows.asked)) return true;
    return odb_unreachable_any(spoilt) && odb_unreachable_has(spoilt, stream->peer, stream->peer_port, odb_clock_ms());
}

static void say_geometry(struct odb_runtime *runtime, struct odb_stream *stream, struct odb_frames *frames) {
    uint64_t seen = atomic_load_explicit(&stream->own_geometry, memory_order_relaxed);
    stream->hinting = stream->hinted_geometry;
    if (wants_real(runtime, stream)) seen |= ODB_STREAM_WANTS_REAL;
    bool foresees = odb_strategy_foresees(&runtime->options);
    if (seen == stream->hinted_geometry || !(foresees || ((seen ^ stream->hinted_geometry) & ODB_STREAM_WANTS_REAL)))
        return;
    struct odb_geometry geometry = odb_stream_unpack_geometry(seen);
    unsigned strategy = seen & ODB_STREAM_WANTS_REAL ? ODB_WIRE_HINT_REAL : runtime->options.strategy + 1u;
    odb_frames_add_hint(frames, &geometry, (uint16_t)strategy);
    stream->hinting = seen;
}

/* Towards a server: who will need what is asked for. */
static void say_consumer(struct odb_runtime *runtime, struct odb_stream *stream, struct odb_frames *frames) {
    uint64_t consumer = odb_requester();
    stream->naming = stream->named;
    if (stream->peer_port == 0 || consumer == ODB_REQUESTER_UNKNOWN) return;
    if (consumer == ODB_REQUESTER_SELF) consumer = odb_pushed_consumer(&runtime->channels.pushed);
    if (consumer == 0 || consumer == stream->named) return;
    odb_frames_add_consumer(frames, consumer);
    stream->naming = consumer;
}

/* Under the lock. What has to be said before the next application byte. */
static void begin_frames(struct odb_runtime *runtime, struct odb_stream *stream, struct odb_frames *frames, bool hold) {
    bool pushes = runtime->options.strategy == ODB_STRATEGY_DIRECT;
    frames->count = frames->iovs = 0;
    frames->tail.length = 0;
    frames->hold = hold;
    frames->turn_sent = atomic_load_explicit(&stream->turn_sent, memory_order_relaxed);
    frames->pushes = pushes ? &runtime->origin.pushes : NULL;
    frames->consumer = atomic_load_explicit(&stream->named_consumer, memory_order_relaxed);
    if (!pushes || !odb_pushes_knows(frames->pushes, frames->consumer))
        frames->consumer = atomic_load_explicit(&stream->consumer, memory_order_relaxed);
    if (atomic_load(&stream->out_mode) == ODB_OUT_HELLO)
        odb_frames_add_hello(frames, odb_origin_port(&runtime->origin));
    say_geometry(runtime, stream, frames);
    if (pushes) say_consumer(runtime, stream, frames);
}

static void note_sent(struct odb_stream *stream, uint64_t amount) {
    atomic_fetch_add_explicit(&stream->turn_sent, amount, memory_order_relaxed);
    atomic_store_explicit(&stream->turn_received, 0, memory_order_relaxed);
}

ssize_t odb_transmit_turn(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int flags,
                          odb_transmit_fill *fill, void *context) {
    struct odb_frames frames;
    struct odb_geometry receiver =
        odb_stream_unpack_geometry(atomic_load_explicit(&stream->peer_geometry, memory_order_relaxed));
    odb_hold_move(runtime, fd);
    bool hold = odb_hold_may(runtime, stream, fd);
    odb_out_take(stream);
    hold = hold && stream->out.error == 0;
    ssize_t result = make_way(stream, fd);
    if (result == 0) {
        begin_frames(runtime, stream, &frames, hold);
        result = fill(context, &frames, &receiver) ? send_frames(runtime, stream, fd, &frames, flags, hold) : -EAGAIN;
        give_back_pushes(runtime, &frames);
    }
    if (result > 0) note_sent(stream, (uint64_t)result);
    odb_out_drop(stream);
    return result;
}

struct memory_turn {
    struct odb_runtime *runtime;
    struct odb_stream *stream;
    int fd;
    const struct iovec *iov;
    int count;
    int error; /* what the peer is owed cannot be had */
};

static bool fill_from_memory(void *context, struct odb_frames *frames, const struct odb_geometry *receiver) {
    struct memory_turn *turn = context;
    struct odb_piece pieces[ODB_FRAMES];
    int room =
        ODB_FRAMES - frames->count; /* a frame for every piece, so that nothing is captured and then not announced */
    int made = odb_resolve(turn->runtime, turn->stream, turn->fd, turn->iov, turn->count, pieces, room);
    if (made > 0) odb_frames_add_pieces(frames, &turn->runtime->options, receiver, pieces, made);
    turn->error = made < 0 ? made : 0;
    return made > 0;
}

bool odb_stream_frames_out(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    enum odb_out_mode open = ODB_OUT_OPEN;
    if (atomic_load(&stream->out_mode) == ODB_OUT_OPEN && atomic_load(&stream->in.mode) == ODB_IN_DETECT)
        odb_stream_readable(runtime, stream, fd);
    if (atomic_compare_exchange_strong(&stream->out_mode, &open, ODB_OUT_CLASSIC))
        odb_count(&runtime->stats, ODB_STAT_streams_classic, 1);
    if (open == ODB_OUT_OPEN) odb_sharing_tell(stream);
    return atomic_load(&stream->out_mode) != ODB_OUT_CLASSIC;
}

/* As when a classic socket is owed bytes that are lost: nobody takes the part for the whole. */
static ssize_t give_up(struct odb_runtime *runtime, int fd) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    odb_count(&runtime->stats, ODB_STAT_resets, 1);
    return odb_real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0 ? -ECONNRESET : -EIO;
}

bool odb_transmit_blocks(struct odb_runtime *runtime, int fd, int flags) {
    return !(flags & MSG_DONTWAIT) && !odb_outlet_never_waits(&runtime->fds, fd);
}

int odb_transmit_wait(int fd) {
    struct timeval timeout = {0, 0};
    socklen_t size = sizeof timeout;
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    odb_real.getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, &size);
    int milliseconds =
        timeout.tv_sec || timeout.tv_usec ? (int)(timeout.tv_sec * 1000 + (timeout.tv_usec + 999) / 1000) : -1;
    int ready;
    do ready = odb_real.poll(&room, 1, milliseconds);
    while (ready < 0 && errno == EINTR && milliseconds < 0 && odb_interrupted_restarts());
    return ready > 0 ? 0 : ready < 0 ? -errno : -EAGAIN;
}

/* What remains of an iov behind its first `skip` bytes; `rest` has room for IOV_REST entries, the call is repeated for what lies beyond. */
enum { IOV_REST = 16 };

static int iov_rest(const struct iovec *iov, int count, size_t skip, struct iovec *rest) {
    int made = 0;
    for (int i = 0; i < count && made < IOV_REST; i++) {
        size_t gone = skip < iov[i].iov_len ? skip : iov[i].iov_len;
        skip -= gone;
        if (gone < iov[i].iov_len) rest[made++] = (struct iovec){(char *)iov[i].iov_base + gone, iov[i].iov_len - gone};
    }
    return made;
}

ssize_t odb_stream_send(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov,
                        int count, int flags) {
    struct iovec rest[IOV_REST];
    size_t done = 0;
    for (;;) {
        int left = iov_rest(iov, count, done, rest);
        if (left == 0) return (ssize_t)done;
        struct memory_turn turn = {runtime, stream, fd, rest, left, 0};
        ssize_t sent = odb_transmit_turn(runtime, stream, fd, flags, fill_from_memory, &turn);
        if (turn.error == -EFAULT) return done > 0 ? (ssize_t)done : -EFAULT;
        if (turn.error) return done > 0 ? (ssize_t)done : give_up(runtime, fd);
        if (sent > 0) {
            done += (size_t)sent;
            continue;
        }
        if (sent != -EAGAIN || !odb_transmit_blocks(runtime, fd, flags)) return done > 0 ? (ssize_t)done : sent;
        int error = odb_transmit_wait(fd);
        if (error) return done > 0 ? (ssize_t)done : error;
    }
}

int odb_stream_shutdown(struct odb_stream *stream, int fd, int how) {
    bool later = false;
    if (how != SHUT_RD) {
        odb_out_take(stream);
        stream->out.finished = true;
        later = !odb_outbox_is_empty(&stream->out) && odb_outbox_flush(&stream->out, fd) == -EAGAIN;
        if (later) stream->out.shutdown = true;
        odb_out_drop(stream);
    }
    if (!later) return odb_real.shutdown(fd, how) == 0 ? 0 : -errno;
    if (how == SHUT_RDWR) odb_real.shutdown(fd, SHUT_RD);
    return 0;
}
