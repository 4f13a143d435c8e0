/* receive.c: a receive call, piece by piece: waiting, errors and the application's buffers. */
#include "core/receive.h"

#include "core/ahead.h"
#include "core/deliver.h"
#include "core/detect.h"
#include "core/early.h"
#include "core/exact.h"
#include "core/inbox.h"
#include "core/outlet.h"
#include "core/requester.h"
#include "core/sharing.h"
#include "os/real.h"

#include <errno.h>
#include <netinet/in.h>

enum { DIRECT_MIN = 4096, DIRECT_PARTS = 16 };

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

/* Under the lock. One piece that is or comes to hand, as much of it as the next buffer takes. Returns bytes, 0 as odb_deliver, -EAGAIN when there is none, or -EFAULT and it stays. */
static ssize_t receive_piece(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                             const struct target *target, bool begun, int flags) {
    char *to = (char *)target->iov->iov_base + target->at;
    size_t room = target->iov->iov_len - target->at;
    if (!odb_inbox_advance(runtime, stream, fd) || !odb_inbox_has_piece(&stream->in)) return -EAGAIN;
    if (flags & MSG_PEEK) {
        ssize_t shown = odb_deliver_shown(runtime, stream, fd, to, room);
        if (shown >= 0 || shown == -EFAULT) return shown;
    } else {
        if (begun && !(flags & (MSG_WAITALL | MSG_TRUNC)) && wants_fresh_buffer(&stream->in, target)) return 0;
        ssize_t got = odb_deliver(runtime, stream, to, room, begun, flags);
        if (got > 0) odb_deliver_consume(&stream->in, fd, (size_t)got);
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

static bool blocks(struct odb_runtime *runtime, int fd, int flags) {
    return !(flags & MSG_DONTWAIT) && !odb_outlet_never_waits(&runtime->fds, fd);
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
        if (got > 0) odb_hold_expect(goes_on(&stream->in, flags));
        if (got > 0) odb_gather_received(runtime, fd, goes_on(&stream->in, flags));
        if (!(flags & MSG_PEEK)) odb_inbox_trim(runtime, &stream->in);
        if (got < 0 && got != -EAGAIN && got != -EFAULT && done > 0)
            stream->in.error = (int)-got; /* this call has bytes to tell of, the next one has the error */
        bool waits = got == -EAGAIN && done == 0 && blocks(runtime, fd, flags);
        if (waits) odb_exact_wait(stream);
        odb_in_drop(stream);
        if (got > 0) odb_ahead_restart(stream);
        if (got > 0 && stream->peer_port == 0) odb_requester_is(requester_on(stream));
        if (got > 0) done += (size_t)got;
        bool short_of = done < least(stream, wanted, flags); /* a frame's header alone wakes us too */
        bool more = (got > 0 || (got == -EAGAIN && done > 0)) && short_of;
        if (!more && !waits) return done > 0 ? (ssize_t)done : got;
        if (more && !blocks(runtime, fd, flags)) return (ssize_t)done;
        if (more && at_hand(runtime, stream, fd)) continue;
        odb_hold_release(runtime);
        if (more) odb_exact_wait(stream);
        int error = more && odb_stream_holds(stream) ? 0 : wait_for_bytes(stream, fd);
        odb_exact_waited(stream);
        if (error) return done > 0 ? (ssize_t)done : error;
    }
}
