/* readiness.c: what a stream has for the application, asked without taking it. */
#include "core/early.h"
#include "core/inbox.h"
#include "core/receive.h"
#include "core/sharing.h"
#include "os/real.h"

#include <poll.h>
#include <sys/ioctl.h>

/* Under the lock, with something at hand: is it as much as SO_RCVLOWAT asks for, or all that can be had? */
static bool reaches_mark(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    struct odb_inbox *in = &stream->in;
    size_t mark = (size_t)atomic_load_explicit(&stream->low_water, memory_order_relaxed);
    if (mark == 0 || !odb_inbox_has_piece(in)) return true;
    odb_inbox_look_ahead(runtime, stream, fd);
    return in->real >= mark || in->has_span || in->ended || in->error || in->end - in->begin == ODB_STREAM_BUFFER;
}

/* Under the lock. Of a classic direction only the kernel knows. */
static bool kernel_has_classic(const struct odb_stream *stream, int fd) {
    struct pollfd entry = {.fd = fd, .events = POLLIN | POLLRDHUP};
    return atomic_load(&stream->in.mode) == ODB_IN_CLASSIC && odb_real.poll(&entry, 1, 0) > 0;
}

/* Under the lock. */
static bool is_at_hand(const struct odb_inbox *in) {
    return odb_inbox_has_piece(in) || in->error || in->ended;
}

/* Under the lock. Nothing is here, and what comes the kernel will report. */
static bool is_left_to_kernel(const struct odb_inbox *in) {
    return atomic_load(&in->mode) == ODB_IN_FRAMED && in->drained && in->begin == in->end && !is_at_hand(in);
}

/* Under the lock. */
static bool look(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    return odb_inbox_advance(runtime, stream, fd) ? reaches_mark(runtime, stream, fd) : kernel_has_classic(stream, fd);
}

bool odb_stream_look(struct odb_runtime *runtime, struct odb_stream *stream, int fd, bool *fresh) {
    *fresh = false;
    if (!odb_in_try(stream)) return true;
    if (is_left_to_kernel(&stream->in)) {
        odb_in_drop(stream);
        return false;
    }
    bool before = is_at_hand(&stream->in);
    bool readable = look(runtime, stream, fd);
    *fresh = !before && is_at_hand(&stream->in);
    if (readable) odb_early_look(runtime, stream);
    odb_in_drop(stream);
    return readable;
}

bool odb_stream_readable(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    if (!odb_in_try(stream)) return true;
    bool readable = look(runtime, stream, fd);
    odb_in_drop(stream);
    return readable;
}

static size_t queued_in_kernel(int fd) {
    int queued = 0;
    return odb_real.ioctl(fd, FIONREAD, &queued) == 0 && queued > 0 ? (size_t)queued : 0;
}

/* Under the lock. Adds to *available what the kernel has, without taking it: right only where all of it belongs to the frame at hand, or is nothing. */
static bool counts_in_kernel(const struct odb_inbox *in, int fd, size_t *available) {
    if (atomic_load(&in->mode) != ODB_IN_FRAMED || in->has_span || in->ended || in->error ||
        in->begin + in->real < in->end)
        return false;
    size_t queued = queued_in_kernel(fd) - in->kept; /* those are at hand as well */
    size_t most = in->decoder.section == ODB_WIRE_SECTION_REAL ? in->decoder.remaining : 0;
    *available = in->real + queued;
    return queued <= most;
}

size_t odb_stream_available(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    struct odb_inbox *in = &stream->in;
    size_t available = 0;
    odb_in_take(stream);
    if (odb_inbox_awaited(in) == 0 && !is_left_to_kernel(in)) odb_inbox_advance(runtime, stream, fd);
    odb_inbox_join_bytes(runtime, stream);
    if (!counts_in_kernel(in, fd, &available)) {
        odb_inbox_advance(runtime, stream, fd);
        odb_inbox_look_ahead(runtime, stream, fd);
        available = in->real;
        if (odb_inbox_has_span(in)) available += in->head + in->span.length + in->tail - in->span_at;
        if (atomic_load(&in->mode) == ODB_IN_CLASSIC) available += queued_in_kernel(fd);
    }
    odb_in_drop(stream);
    return available;
}

bool odb_stream_holds(struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    if (!odb_in_try(stream)) return true;
    bool holds = odb_inbox_has_piece(in) || in->begin < in->end || in->error || in->ended;
    odb_in_drop(stream);
    return holds;
}

bool odb_stream_owes(struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    if (!odb_in_try(stream)) return true;
    bool owes = odb_inbox_has_piece(in) || in->begin < in->end || in->error || in->ended || !in->drained;
    odb_in_drop(stream);
    return owes;
}

bool odb_stream_is_over(struct odb_stream *stream) {
    return atomic_load(&stream->in.mode) == ODB_IN_CLASSIC && atomic_load(&stream->out_mode) == ODB_OUT_CLASSIC &&
           stream->in.real == 0 && !stream->in.ended;
}
