/* hold.c: what is held, and when it leaves. */
#include "core/hold.h"

#include "core/frames.h"
#include "core/runtime.h"
#include "core/sharing.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/timerfd.h>

enum {
    TICK_MS = 4,
    TICK_MOST_MS =
        64, /* where many ticks have found nothing to rescue: each costs a turning loop two changes of thread */
    QUIET_TICKS = 8,   /* of these, until they come rarer by TICK_MS */
    DIRECT_SENDS = 64, /* after a rescue so many sends of the stream are not held */
    SERIES = 64,       /* bodies, after one that more was sent behind */
    LONE_SENDS = 8,    /* nor after so many, one after the other, that were held for nothing */
};

static _Thread_local int turning = -1;  /* the epoll set that this thread last waited on */
static _Thread_local unsigned turn = 1; /* number of its present turn */
static _Thread_local bool expecting;
static _Thread_local int holding = -1; /* the descriptor of the connection that it last held a send of in this turn */

void odb_hold_turn(int set) {
    turning = set;
    turn = turn == UINT_MAX ? 1 : turn + 1;
    expecting = false;
    holding = -1;
    odb_gather_more = false;
}

void odb_hold_expect(bool more) {
    expecting = more;
}

bool odb_hold_turns(void) {
    return turning >= 0;
}

bool odb_hold_has_turn(struct odb_runtime *runtime, int fd) {
    return turning >= 0 && odb_interest_has(&runtime->interests, turning, fd);
}

static struct odb_stream *stream_of(struct odb_outbox *outbox) {
    return (struct odb_stream *)(void *)((char *)outbox - offsetof(struct odb_stream, out));
}

static void arm(struct odb_holds *holds) {
    if (atomic_load(&holds->ticking) || atomic_exchange(&holds->ticking, true)) return;
    long tick_ms = (long)TICK_MS * (1 + (long)atomic_load_explicit(&holds->quiet, memory_order_relaxed) / QUIET_TICKS);
    struct itimerspec soon = {.it_value = {0, (tick_ms < TICK_MOST_MS ? tick_ms : TICK_MOST_MS) * 1000000L}};
    timerfd_settime(holds->timer.fd, 0, &soon, NULL);
}

static void enlist(struct odb_holds *holds, struct odb_outbox *outbox) {
    outbox->held.next = NULL;
    odb_lock_take(&holds->lock);
    *(holds->last ? &holds->last->held.next : &holds->first) = outbox;
    holds->last = outbox;
    atomic_fetch_add(&holds->count, 1);
    odb_lock_drop(&holds->lock);
}

void odb_hold_push(struct odb_runtime *runtime, struct odb_stream *stream) {
    struct odb_outbox *outbox = &stream->out;
    struct odb_held *held = &outbox->held;
    if (!held->late) return;
    held->late = false;
    held->last = ODB_WIRE_HELLO;
    odb_frames_push_late(&runtime->origin.pushes, held->consumer, outbox->parked + held->last_at, &held->span);
}

/* A descriptor that no longer stands for the stream was closed where nobody saw it: the bytes have nowhere to go. */
static bool has_descriptor(const struct odb_runtime *runtime, struct odb_outbox *outbox) {
    return atomic_load(&runtime->fds.slots[outbox->held.fd].stream) == stream_of(outbox);
}

/* A program that says all it has to say in one call gains nothing by waiting; the next send that is held shows whether it is still so. */
static void judge(struct odb_held *held) {
    if (held->sends > 1) held->lone = 0;
    if (held->sends != 1 || ++held->lone < LONE_SENDS) return;
    held->lone = LONE_SENDS - 1;
    held->direct = DIRECT_SENDS;
}

/* Under out.lock. */
static void send_held(struct odb_runtime *runtime, struct odb_outbox *outbox) {
    if (outbox->stalled || odb_outbox_is_empty(outbox)) return;
    if (!has_descriptor(runtime, outbox)) {
        odb_outbox_forget(outbox);
        return;
    }
    odb_hold_push(runtime, stream_of(outbox));
    judge(&outbox->held);
    int result = odb_outbox_flush(outbox, outbox->held.fd);
    if (result < 0 && result != -EAGAIN) outbox->error = -result;
}

/* Still listed, and still counted as a reference. */
static void put_back(struct odb_holds *holds, struct odb_outbox *outbox) {
    enlist(holds, outbox);
    arm(holds);
}

enum reason { NEXT_TURN, END_OF_TURN, RESCUE };

/* Whoever is at work on the outbox may be waiting for a fetch, or for room in the socket: this thread has others to look after. */
static void release(struct odb_runtime *runtime, struct odb_outbox *outbox, enum reason reason) {
    if (!odb_lock_try(&outbox->lock)) {
        put_back(&runtime->holds, outbox);
        return;
    }
    if (reason == NEXT_TURN && outbox->held.expects && !outbox->held.postponed) {
        outbox->held.postponed = true;
        odb_lock_drop(&outbox->lock);
        put_back(&runtime->holds, outbox);
        return;
    }
    if (reason == RESCUE && !outbox->stalled && !odb_outbox_is_empty(outbox)) {
        odb_count(&runtime->stats, ODB_STAT_hold_rescues, 1);
        atomic_store_explicit(&runtime->holds.quiet, 0, memory_order_relaxed);
        outbox->held.direct = DIRECT_SENDS;
    }
    outbox->held.patient = true;
    send_held(runtime, outbox);
    outbox->held.patient = false;
    bool again = !outbox->stalled && !odb_outbox_is_empty(outbox);
    outbox->held.listed = again;
    odb_lock_drop(&outbox->lock);
    if (again)
        put_back(&runtime->holds, outbox);
    else
        outbox->shared->let_go(outbox->shared, outbox);
}

static void release_list(struct odb_runtime *runtime, struct odb_holds *holds, enum reason reason) {
    int cancelling;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelling); /* with half of the list in hand */
    atomic_fetch_add(&holds->releasing, 1);
    odb_lock_take(&holds->lock);
    struct odb_outbox *at = holds->first;
    holds->first = holds->last = NULL;
    atomic_store(&holds->count, 0);
    odb_lock_drop(&holds->lock);
    for (struct odb_outbox *next; at; at = next) {
        next = at->held.next;
        release(runtime, at, reason);
    }
    atomic_fetch_sub(&holds->releasing, 1);
    pthread_setcancelstate(cancelling, NULL);
}

static void release_for(struct odb_runtime *runtime, enum reason reason) {
    struct odb_holds *holds = &runtime->holds;
    int saved = errno;
    atomic_fetch_add(&holds->turns, 1);
    release_list(runtime, holds, reason);
    errno = saved;
}

void odb_hold_release_all(struct odb_runtime *runtime) {
    release_for(runtime, END_OF_TURN);
}

void odb_hold_release_done(struct odb_runtime *runtime) {
    if (atomic_load_explicit(&runtime->holds.count, memory_order_relaxed) > 0) release_for(runtime, NEXT_TURN);
    if (odb_gather_any(&runtime->gather)) odb_gather_wait(runtime);
}

void odb_hold_release_one(struct odb_runtime *runtime, int fd) {
    int saved = errno;
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (stream) {
        odb_out_take(stream);
        send_held(runtime, &stream->out);
        odb_out_drop(stream);
        odb_fdtable_let_go(&runtime->fds, stream);
    }
    errno = saved;
}

void odb_hold_move(struct odb_runtime *runtime, int fd) {
    if (holding < 0 || holding == fd) return;
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, holding);
    holding = -1;
    if (!stream) return;
    int saved = errno;
    struct odb_outbox *outbox = &stream->out;
    if (odb_lock_try(&outbox->lock)) { /* else, and where the socket is full, the end of this turn sends it */
        outbox->held.patient = true;
        if (outbox->held.listed && !outbox->held.expects) send_held(runtime, outbox);
        outbox->held.patient = false;
        odb_lock_drop(&outbox->lock);
    }
    odb_fdtable_let_go(&runtime->fds, stream);
    errno = saved;
}

/* In the helper thread. What was there a tick ago and has not been released since belongs to a thread that does something else than to turn its loop. */
static void tick(struct odb_watch *watch, uint32_t events) {
    struct odb_holds *holds = (struct odb_holds *)(void *)((char *)watch - offsetof(struct odb_holds, timer));
    struct odb_runtime *runtime = (struct odb_runtime *)(void *)((char *)holds - offsetof(struct odb_runtime, holds));
    uint64_t times;
    (void)events;
    if (odb_real.read(watch->fd, &times, sizeof times) < 0) return;
    atomic_store(&holds->ticking, false);
    unsigned turns = atomic_load(&holds->turns);
    bool any = atomic_load(&holds->count) > 0;
    if (any && holds->suspect && holds->seen == turns) {
        release_list(runtime, holds, RESCUE);
        any = atomic_load(&holds->count) > 0;
    }
    bool gathered = odb_gather_tick(runtime);
    bool turned = turns != holds->seen || !(any || gathered); /* what it was armed for has left */
    if (turned && atomic_load(&holds->quiet) < QUIET_TICKS * (TICK_MOST_MS / TICK_MS))
        atomic_fetch_add_explicit(&holds->quiet, 1, memory_order_relaxed);
    holds->suspect = any;
    holds->seen = turns;
    if (any || gathered) arm(holds);
}

/* The timer, made when it is first needed. */
static bool get_ready(struct odb_runtime *runtime) {
    struct odb_holds *holds = &runtime->holds;
    if (atomic_load_explicit(&holds->ready, memory_order_acquire)) return true;
    if (!odb_driver_start(&runtime->driver)) return false;
    odb_lock_take(&holds->lock);
    bool ready = atomic_load(&holds->ready);
    if (!ready) {
        holds->timer = (struct odb_watch){
            .fd = odb_fds_adopt(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)), .ready = tick};
        ready = holds->timer.fd >= 0 && odb_driver_add(&runtime->driver, &holds->timer, EPOLLIN);
        if (!ready) odb_fds_close(holds->timer.fd);
        atomic_store(&holds->ready, ready);
        atomic_store(&holds->closed, !ready);
    }
    odb_lock_drop(&holds->lock);
    return ready;
}

bool odb_hold_watch(struct odb_runtime *runtime) {
    if (atomic_load(&runtime->holds.closed) || !get_ready(runtime)) return false;
    arm(&runtime->holds);
    return true;
}

/* After the peer's end or an error the kernel answers at once what it would answer without us. */
static bool is_open(struct odb_stream *stream) {
    if (!odb_in_try(stream)) return true;
    bool open = !stream->in.ended && !stream->in.error;
    odb_in_drop(stream);
    return open;
}

bool odb_hold_may(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    return runtime->options.hold && turning >= 0 && !atomic_load(&runtime->holds.closed) &&
           atomic_load(&stream->out_mode) == ODB_OUT_FRAMED && is_open(stream) && odb_hold_has_turn(runtime, fd) &&
           get_ready(runtime);
}

/* A descriptor that goes on where the last one ends becomes part of it. */
static bool extends_span(const struct odb_options *options, struct odb_outbox *outbox, const struct odb_frame *frame) {
    struct odb_held *held = &outbox->held;
    size_t most = frame->late ? ODB_PUSH_MAX : ODB_BODY_MAX;
    if (!options->coalesce || frame->late != held->late || frame->type != ODB_WIRE_VIRTUAL ||
        held->last != ODB_WIRE_VIRTUAL || frame->real > 0 || held->span.length + frame->body.length > most ||
        !odb_span_continues(&held->span, &frame->body))
        return false;
    held->span.length += frame->body.length;
    if (frame->body.expires_ms < held->span.expires_ms) held->span.expires_ms = frame->body.expires_ms;
    struct odb_cut cut = {.body = held->span.length};
    odb_frames_encode_span(outbox->parked + held->last_at, &held->span, &cut);
    return true;
}

static void copy(struct odb_outbox *outbox, const struct iovec *iov, int count) {
    for (int i = 0; i < count; i++) {
        memcpy(outbox->parked + outbox->end, iov[i].iov_base, iov[i].iov_len);
        outbox->end += iov[i].iov_len;
    }
}

/* Bytes behind bytes share a frame. */
static bool extends_real(struct odb_outbox *outbox, const struct odb_frame *frame, const struct iovec *iov, int count) {
    struct odb_held *held = &outbox->held;
    if (frame->type != ODB_WIRE_REAL || held->last != ODB_WIRE_REAL) return false;
    copy(outbox, iov + 1, count - 1); /* all but its header */
    size_t length = outbox->end - held->last_at - ODB_WIRE_HEADER_SIZE;
    odb_wire_header_encode(outbox->parked + held->last_at, ODB_WIRE_REAL, (uint32_t)length);
    return true;
}

static void append(struct odb_runtime *runtime, struct odb_stream *stream, struct odb_frames *frames, int index) {
    struct odb_outbox *outbox = &stream->out;
    struct odb_frame *frame = &frames->frame[index];
    struct odb_held *held = &outbox->held;
    const struct iovec *iov;
    int count = odb_frames_iov(frames, index, &iov);
    if (extends_span(&runtime->options, outbox, frame) || extends_real(outbox, frame, iov, count)) return;
    odb_hold_push(runtime, stream);
    odb_frames_write(frame);
    bool edged = frame->type == ODB_WIRE_VIRTUAL && frame->real > 0; /* bytes follow its descriptor */
    held->last = edged ? ODB_WIRE_HELLO : frame->type;
    held->last_at = outbox->end;
    held->span = frame->body;
    held->late = frame->late;
    held->consumer = frames->consumer;
    copy(outbox, iov, count);
}

static void list(struct odb_holds *holds, struct odb_outbox *outbox) {
    if (outbox->held.listed) return;
    outbox->held.listed = true;
    outbox->shared->hold(outbox->shared, outbox);
    enlist(holds, outbox);
}

bool odb_hold_frames(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct odb_frames *frames) {
    struct odb_outbox *outbox = &stream->out;
    size_t wire = 0;
    for (int i = 0; i < frames->count; i++) wire += frames->frame[i].wire;
    if (stream->sharing || outbox->finished || outbox->end + wire > runtime->options.hold_max) return false;
    if (outbox->held.direct > 0) {
        outbox->held.direct--;
        return false;
    }
    if (!odb_outbox_prepare(outbox, wire)) return false;
    for (int i = 0; i < frames->count; i++) append(runtime, stream, frames, i);
    outbox->held.fd = holding = fd;
    outbox->held.sends++;
    outbox->held.expects = expecting;
    odb_count(&runtime->stats, ODB_STAT_sends_held, 1);
    list(&runtime->holds, outbox);
    arm(&runtime->holds);
    return true;
}

void odb_hold_announce(struct odb_runtime *runtime, struct odb_stream *stream) {
    struct odb_held *held = &stream->out.held;
    if (held->announced == turn) held->series = SERIES;
    held->announced = turn;
    if (held->series > 0) {
        held->series--;
        return;
    }
    held->patient = true;
    send_held(runtime, &stream->out);
    held->patient = false;
}

/* Under out.lock. */
static bool send_last(const struct odb_runtime *runtime, struct odb_outbox *outbox) {
    while (has_descriptor(runtime, outbox) && !outbox->stalled && !odb_outbox_is_empty(outbox)) {
        ssize_t sent = odb_real.send(outbox->held.fd, outbox->parked + outbox->begin, outbox->end - outbox->begin,
                                     MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) return errno != EAGAIN;
        outbox->begin += (size_t)sent;
        outbox->held.last = ODB_WIRE_HELLO; /* perhaps in part: it grows and changes no more */
        outbox->held.late = false;
    }
    return true;
}

bool odb_hold_drain(struct odb_runtime *runtime) {
    struct odb_holds *holds = &runtime->holds;
    bool all = atomic_load(&holds->releasing) == 0;
    if (atomic_load(&holds->count) == 0) return all;
    if (!odb_lock_try(&holds->lock)) return false;
    for (struct odb_outbox *at = holds->first; at; at = at->held.next) {
        bool mine = odb_lock_try(&at->lock);
        all = mine && send_last(runtime, at) && all;
        if (mine) odb_lock_drop(&at->lock);
    }
    odb_lock_drop(&holds->lock);
    return all;
}

void odb_hold_close(struct odb_runtime *runtime) {
    atomic_store(&runtime->holds.closed, true);
}

void odb_hold_before_fork(struct odb_runtime *runtime) {
    odb_lock_take(&runtime->holds.lock);
}

void odb_hold_after_fork_parent(struct odb_runtime *runtime) {
    odb_lock_drop(&runtime->holds.lock);
}

/* What other threads held is their process's to send; the outboxes are emptied with their streams (core/sharing.h). */
void odb_hold_after_fork_child(struct odb_runtime *runtime) {
    struct odb_holds *holds = &runtime->holds;
    odb_lock_reset(&holds->lock);
    if (atomic_load(&holds->ready)) odb_fds_close(holds->timer.fd);
    memset(holds, 0, sizeof *holds);
}
