/* inbox.c: receives from the kernel and parses frames into pieces. */
#include "core/inbox.h"

#include "core/detect.h"
#include "core/exact.h"
#include "os/clock.h"
#include "os/real.h"
#include "wire/hint.h"

#include <errno.h>
#include <netinet/in.h>

enum {
    BULK_LOOKS = 2,
    GLANCE = 2048,                   /* bytes taken from the kernel where what comes next is to be received elsewhere */
    BULK = ODB_STREAM_BUFFER - 1024, /* with what comes before it, such a frame takes more than one receive anyway */
};

bool odb_inbox_has_span(const struct odb_inbox *in) {
    return in->has_span && in->edges_filled == in->head + in->tail;
}

bool odb_inbox_has_piece(const struct odb_inbox *in) {
    return in->real > 0 || odb_inbox_has_span(in);
}

void odb_inbox_break(struct odb_runtime *runtime, struct odb_stream *stream, int fd, enum odb_stat reason) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    odb_count(&runtime->stats, reason, 1);
    odb_real.setsockopt(
        fd, SOL_SOCKET, SO_LINGER, &reset,
        sizeof reset); /* close() will now send a reset, so that nobody takes a cut body for a whole one */
    stream->in.error = ECONNRESET;
    stream->in.ended = true;
    stream->in.begin = stream->in.end = stream->in.real = 0;
    stream->in.kept = 0;
    stream->in.has_span = false;
    odb_wire_decoder_init(&stream->in.decoder,
                          false); /* nothing is parsed any more, so nothing is cut: the error is told once */
}

static struct odb_span body_of(const struct odb_wire_descriptor *descriptor) {
    struct odb_span span = {.payload = descriptor->payload,
                            .offset = descriptor->offset + descriptor->head,
                            .length = descriptor->body,
                            .push_channel = descriptor->push_channel,
                            .push_position = descriptor->push_position,
                            .expires_ms = odb_clock_ms() + descriptor->lease_ms};
    memcpy(span.origin.address, descriptor->address, sizeof span.origin.address);
    memcpy(span.token, descriptor->token, sizeof span.token);
    span.origin.port = descriptor->port;
    return span;
}

static bool begin_span(struct odb_inbox *in, const struct odb_wire_descriptor *descriptor) {
    in->head = descriptor->head;
    in->tail = descriptor->tail;
    in->edges_filled = 0;
    in->span_at = 0;
    in->span = body_of(descriptor);
    in->has_span = true;
    odb_real.free(in->edges);
    in->edges = NULL;
    if (in->head + in->tail > 0) in->edges = odb_real.malloc(in->head + in->tail);
    bool held = in->head + in->tail == 0 || in->edges;
    if (!held) {
        in->has_span = false;
        in->decoder.error =
            ODB_WIRE_BAD_LENGTH; /* the edges that follow have no place: the stream ends here, however far ahead this was found */
    }
    return held;
}

static void take_edge(struct odb_inbox *in, const struct odb_wire_event *event) {
    memcpy(in->edges + in->edges_filled, event->bytes, event->length);
    in->edges_filled += event->length;
}

static void take_hint(struct odb_stream *stream, const struct odb_wire_hint *hint) {
    if (hint->strategy == ODB_WIRE_HINT_CONSUMER) {
        atomic_store_explicit(&stream->named_consumer, odb_wire_hint_consumer(hint), memory_order_relaxed);
        return;
    }
    bool sane =
        hint->buffer_size >=
        2 * ODB_PAGE; /* smaller buffers carry no windows: cutting payloads for them would only make more frames */
    struct odb_geometry geometry = {.buffer = sane ? hint->buffer_size : 0,
                                    .offset = sane ? hint->page_offset % ODB_PAGE : 0};
    uint64_t real = hint->strategy == ODB_WIRE_HINT_REAL ? ODB_STREAM_WANTS_REAL : 0;
    atomic_store_explicit(&stream->peer_geometry, odb_stream_pack_geometry(geometry) | real, memory_order_relaxed);
}

/* Any event but REAL. False on a protocol error or lack of memory. */
static bool take_other(struct odb_runtime *runtime, struct odb_stream *stream, const struct odb_wire_event *event) {
    struct odb_inbox *in = &stream->in;
    switch (event->kind) {
    case ODB_WIRE_EVENT_VIRTUAL:
        odb_count(&runtime->stats, ODB_STAT_spans_received, 1);
        odb_count(&runtime->stats, ODB_STAT_span_bytes_received, event->descriptor.body);
        in->bulk = 0;
        return begin_span(in, &event->descriptor);
    case ODB_WIRE_EVENT_HEAD:
    case ODB_WIRE_EVENT_TAIL:
        take_edge(in, event);
        return true;
    case ODB_WIRE_EVENT_HINT:
        take_hint(stream, &event->hint);
        return true;
    case ODB_WIRE_EVENT_NONE:
    case ODB_WIRE_EVENT_HELLO:
        return true;
    case ODB_WIRE_EVENT_REAL:
    case ODB_WIRE_EVENT_ERROR:
        return false;
    }
    return false;
}

/* Frames that one look cannot hold are received where they belong; looking at them should then take no more than their beginning. */
static void note_real(struct odb_runtime *runtime, struct odb_inbox *in, size_t length) {
    bool few = in->decoder.length <= GLANCE / 2; /* such as what was left over of a buffer that a header went into */
    in->bulk = in->decoder.length > BULK ? BULK_LOOKS : few && in->bulk > 0 ? in->bulk - 1 : 0;
    odb_count(&runtime->stats, ODB_STAT_real_bytes_received, length);
    odb_delivery_received(&runtime->windows.asked, length);
}

/* Feeds the decoder once. Same result. */
static bool parse_event(struct odb_runtime *runtime, struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    struct odb_wire_event event;
    in->begin += odb_wire_decoder_feed(&in->decoder, in->buffer + in->begin, in->end - in->begin, &event);
    if (event.kind != ODB_WIRE_EVENT_REAL) return take_other(runtime, stream, &event);
    in->begin = (size_t)(event.bytes - in->buffer);
    in->real = event.length;
    note_real(runtime, in, event.length);
    return true;
}

static void parse(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    struct odb_inbox *in = &stream->in;
    if (atomic_load(&in->mode) != ODB_IN_FRAMED) return;
    while (in->begin < in->end && !odb_inbox_has_piece(in))
        if (!parse_event(runtime, stream)) {
            odb_inbox_break(runtime, stream, fd, ODB_STAT_protocol_errors);
            return;
        }
    bool cut = in->ended && !in->error && !odb_inbox_has_piece(in) && !odb_wire_decoder_at_boundary(&in->decoder);
    if (cut) odb_inbox_break(runtime, stream, fd, ODB_STAT_resets);
}

/* One non-blocking receive. Less than was asked for shows that the kernel has no more. Result and errno of recvmsg. */
static ssize_t ask_kernel(struct odb_inbox *in, int fd, struct iovec *iov, int count, size_t asked) {
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t got;
    atomic_store(&in->drained, true); /* before the call: a report that comes meanwhile must not get lost */
    do
        got = count == 1 ? odb_real.recv(fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT)
                         : odb_real.recvmsg(fd, &message, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got == (ssize_t)asked) atomic_store(&in->drained, false);
    return got;
}

/* As much as there is, or (exact) as much as is asked for. True when something changed. */
static bool fill(struct odb_runtime *runtime, struct odb_inbox *in, int fd, bool exact) {
    if (!in->buffer) in->buffer = odb_buffers_take(&runtime->fds.buffers);
    if (!in->buffer) {
        in->error = ENOMEM;
        return true;
    }
    if (in->begin == in->end) in->begin = in->end = 0;
    if (in->begin > 0 && in->end == ODB_STREAM_BUFFER) {
        memmove(in->buffer, in->buffer + in->begin, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
    }
    struct iovec iov = {in->buffer + in->end, ODB_STREAM_BUFFER - in->end};
    if (in->bulk > 0 && in->end == 0) iov.iov_len = GLANCE;
    ssize_t got = exact && in->end == 0 ? odb_exact_receive(in, fd) : ask_kernel(in, fd, &iov, 1, iov.iov_len);
    if (got < 0 && errno == EAGAIN) return false;
    if (got < 0) in->error = errno;
    if (got <= 0) in->ended = true;
    if (got > 0) in->end += (size_t)got;
    return true;
}

bool odb_inbox_advance(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    struct odb_inbox *in = &stream->in;
    for (;;) {
        if (atomic_load(&in->mode) == ODB_IN_DETECT && !in->ended && !odb_detect(runtime, stream, fd)) return false;
        parse(runtime, stream, fd);
        if (odb_inbox_has_piece(in) || in->error || in->ended) return true;
        if (atomic_load(&in->mode) == ODB_IN_CLASSIC) return false;
        if (!fill(runtime, in, fd, odb_exact_wanted(stream))) return false;
    }
}

size_t odb_inbox_awaited(const struct odb_inbox *in) {
    bool empty = in->begin == in->end && in->real == 0 && !in->has_span && !in->ended && !in->error;
    bool bytes = in->mode == ODB_IN_FRAMED && in->decoder.section == ODB_WIRE_SECTION_REAL;
    return empty && bytes ? in->decoder.remaining : 0;
}

ssize_t odb_inbox_receive(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct iovec *iov, int count,
                          size_t room) {
    struct odb_inbox *in = &stream->in;
    bool ahead = !odb_exact_wanted(stream);
    if (!in->buffer && ahead) in->buffer = odb_buffers_take(&runtime->fds.buffers);
    size_t behind = !in->buffer || !ahead ? 0 : room == in->decoder.remaining ? ODB_STREAM_BUFFER : GLANCE;
    if (behind > 0) iov[count++] = (struct iovec){in->buffer, behind};
    in->begin = in->end = 0;
    ssize_t got = ask_kernel(in, fd, iov, count, room + behind);
    if (got < 0 && errno == EAGAIN) return -EAGAIN;
    if (got < 0 && errno == EFAULT) return 0;
    if (got < 0) in->error = errno;
    if (got <= 0) {
        in->ended = true;
        return 0;
    }
    size_t direct = (size_t)got < room ? (size_t)got : room;
    in->end = (size_t)got - direct;
    odb_wire_decoder_skip(&in->decoder, direct);
    odb_count(&runtime->stats, ODB_STAT_real_bytes_received, direct);
    odb_delivery_received(&runtime->windows.asked, direct);
    return (ssize_t)direct;
}

/* Takes [from, to) out of the buffer. */
static void cut_out(struct odb_inbox *in, size_t from, size_t to) {
    memmove(in->buffer + from, in->buffer + to, in->end - to);
    in->end -= to - from;
}

/* Behind the current piece of bytes: bytes of following frames join it, what is no application byte leaves the buffer. False on a protocol error, which the
 * decoder remembers until everything before it is delivered. */
static bool join_next(struct odb_runtime *runtime, struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    struct odb_wire_event event;
    size_t at = in->begin + in->real, used = odb_wire_decoder_feed(&in->decoder, in->buffer + at, in->end - at, &event);
    if (event.kind == ODB_WIRE_EVENT_ERROR) return false;
    if (event.kind == ODB_WIRE_EVENT_REAL) {
        cut_out(in, at, (size_t)(event.bytes - in->buffer));
        in->real += event.length;
        note_real(runtime, in, event.length);
        return true;
    }
    cut_out(in, at, at + used);
    return take_other(runtime, stream, &event);
}

void odb_inbox_join_bytes(struct odb_runtime *runtime, struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    if (in->real > 0 && atomic_load(&in->mode) == ODB_IN_CLASSIC) in->real = in->end - in->begin;
    while (in->real > 0 && !in->has_span && in->begin + in->real < in->end)
        if (!join_next(runtime, stream)) return;
}

void odb_inbox_look_ahead(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    struct odb_inbox *in = &stream->in;
    if (in->real > 0 && in->kept > 0) odb_exact_release(in, fd, in->kept);
    do {
        odb_inbox_join_bytes(runtime, stream);
        bool full = in->end - in->begin == ODB_STREAM_BUFFER, all = in->begin + in->real == in->end;
        if (in->real == 0 || in->has_span || !all || full || in->ended || in->error) return;
    } while (fill(runtime, in, fd, false));
}

/* The frame at `bytes` is nothing but a body that goes on where the span at hand ends. */
static bool continues(const struct odb_inbox *in, const uint8_t *bytes, struct odb_span *next) {
    struct odb_wire_header header;
    struct odb_wire_descriptor descriptor;
    if (odb_wire_header_decode(&header, bytes) != ODB_WIRE_OK || header.type != ODB_WIRE_VIRTUAL ||
        header.length != ODB_WIRE_DESCRIPTOR_SIZE ||
        odb_wire_descriptor_decode(&descriptor, bytes + ODB_WIRE_HEADER_SIZE) != ODB_WIRE_OK || descriptor.head > 0 ||
        descriptor.tail > 0)
        return false;
    *next = body_of(&descriptor);
    return odb_span_continues(&in->span, next);
}

void odb_inbox_join_spans(struct odb_runtime *runtime, struct odb_inbox *in) {
    enum { FRAME = ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE };
    struct odb_span next;
    if (!runtime->options.coalesce || !odb_inbox_has_span(in) || in->tail > 0 || in->real > 0) return;
    while (in->end - in->begin >= FRAME && odb_wire_decoder_at_boundary(&in->decoder) &&
           continues(in, in->buffer + in->begin, &next)) {
        in->begin += FRAME;
        in->span.length += next.length;
        if (next.expires_ms < in->span.expires_ms) in->span.expires_ms = next.expires_ms;
        odb_count(&runtime->stats, ODB_STAT_spans_received, 1);
        odb_count(&runtime->stats, ODB_STAT_span_bytes_received, next.length);
    }
}

void odb_inbox_trim(struct odb_runtime *runtime, struct odb_inbox *in) {
    if (in->begin == in->end && in->buffer) {
        odb_buffers_give(&runtime->fds.buffers, in->buffer);
        in->buffer = NULL;
        in->begin = in->end = 0;
    }
    if (!in->has_span && in->edges) {
        odb_real.free(in->edges);
        in->edges = NULL;
    }
}
