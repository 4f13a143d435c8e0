/* frames.c: builds stream frames from pieces. */
#include "core/frames.h"

#include "os/clock.h"
#include "wire/hint.h"

static struct odb_frame *begin(struct odb_frames *frames, uint8_t type, size_t start_size) {
    struct odb_frame *frame = &frames->frame[frames->count++];
    frame->type = type;
    frame->wire = start_size;
    frame->accepted = frame->real = 0;
    frame->push = NULL;
    frame->read = frame->late = frame->unwritten = false;
    frame->first_iov = frames->iovs;
    frames->iov[frames->iovs++] = (struct iovec){frame->start, start_size};
    return frame;
}

static void append(struct odb_frames *frames, struct odb_frame *frame, const void *bytes, size_t length) {
    if (length == 0) return;
    frames->iov[frames->iovs++] = (struct iovec){(void *)(uintptr_t)bytes, length};
    frame->wire += length;
    frame->accepted += length;
    frame->real += length;
}

void odb_frames_add_hello(struct odb_frames *frames, uint16_t channel_port) {
    struct odb_wire_hello hello = {.capabilities = 0, .channel_port = channel_port};
    odb_wire_hello_encode(begin(frames, ODB_WIRE_HELLO, ODB_WIRE_HELLO_FRAME)->start, &hello);
}

void odb_frames_add_hint(struct odb_frames *frames, const struct odb_geometry *geometry, uint16_t strategy) {
    struct odb_wire_hint hint = {
        .buffer_size = geometry->buffer, .page_offset = geometry->offset, .strategy = strategy};
    odb_wire_hint_encode(begin(frames, ODB_WIRE_HINT, ODB_WIRE_HINT_FRAME)->start, &hint);
}

void odb_frames_add_consumer(struct odb_frames *frames, uint64_t consumer) {
    struct odb_wire_hint hint = odb_wire_hint_of_consumer(consumer);
    odb_wire_hint_encode(begin(frames, ODB_WIRE_HINT, ODB_WIRE_HINT_FRAME)->start, &hint);
}

void odb_frames_encode_span(uint8_t start[ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE], const struct odb_span *span,
                            const struct odb_cut *cut) {
    uint64_t now = odb_clock_ms(), lease = span->expires_ms > now ? span->expires_ms - now : 0;
    struct odb_wire_descriptor descriptor = {.payload = span->payload,
                                             .offset = span->offset,
                                             .head = (uint32_t)cut->head,
                                             .body = (uint32_t)cut->body,
                                             .tail = (uint32_t)cut->tail,
                                             .lease_ms = lease > UINT32_MAX ? UINT32_MAX : (uint32_t)lease,
                                             .port = span->origin.port,
                                             .flags = span->push_channel ? ODB_WIRE_FLAG_PUSHED : 0,
                                             .push_channel = span->push_channel,
                                             .push_position = span->push_position};
    memcpy(descriptor.address, span->origin.address, sizeof descriptor.address);
    memcpy(descriptor.token, span->token, sizeof descriptor.token);
    odb_wire_header_encode(start, ODB_WIRE_VIRTUAL, (uint32_t)(ODB_WIRE_DESCRIPTOR_SIZE + cut->head + cut->tail));
    odb_wire_descriptor_encode(start + ODB_WIRE_HEADER_SIZE, &descriptor);
}

void odb_frames_add_span(struct odb_frames *frames, const struct odb_span *span, const struct odb_cut *cut,
                         const void *head, const void *tail) {
    struct odb_frame *frame = begin(frames, ODB_WIRE_VIRTUAL, ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE);
    frame->unwritten = cut->head == 0 && cut->tail == 0;
    if (!frame->unwritten) odb_frames_encode_span(frame->start, span, cut);
    frame->body = odb_span_part(span, cut->head, cut->body);
    frame->accepted = cut->body;
    append(frames, frame, head, cut->head);
    append(frames, frame, tail, cut->tail);
}

void odb_frames_write(struct odb_frame *frame) {
    struct odb_cut cut = {.body = frame->body.length};
    if (frame->unwritten) odb_frames_encode_span(frame->start, &frame->body, &cut);
    frame->unwritten = false;
}

/* Where the next byte behind `before` bytes of this batch lies for such a receiver. */
static struct odb_geometry flow_at(const struct odb_frames *frames, const struct odb_geometry *receiver,
                                   size_t before) {
    return (struct odb_geometry){.offset = (uint16_t)((receiver->offset + frames->turn_sent + before) % ODB_PAGE)};
}

struct odb_cut odb_frames_cut(const struct odb_frames *frames, const struct odb_options *options,
                              const struct odb_geometry *receiver, size_t left, size_t before) {
    struct odb_geometry next = *receiver;
    if (receiver->buffer == ODB_GEOMETRY_FLOW) next = flow_at(frames, receiver, before);
    bool part = frames->pushes && odb_pushes_wanted(frames->pushes) && left > ODB_PUSH_MAX;
    struct odb_cut cut = odb_strategy_cut(options, &next, part ? ODB_PUSH_MAX : left);
    if (part && receiver->buffer == ODB_GEOMETRY_FLOW) cut.tail = 0; /* the next frame's body goes on in whole pages */
    return cut;
}

void odb_frames_add_own(struct odb_frames *frames, const struct odb_span *span, const struct odb_cut *cut,
                        const void *head, const void *tail) {
    struct odb_push *push = frames->pushes ? odb_pushes_take(frames->pushes, frames->consumer, cut->body) : NULL;
    struct odb_span announced = *span;
    if (push) {
        announced.push_channel = push->number;
        announced.push_position = push->position;
    }
    odb_frames_add_span(frames, &announced, cut, head, tail);
    frames->frame[frames->count - 1].push = push;
}

void odb_frames_add_tail(struct odb_frames *frames, const struct odb_file_tail *tail) {
    struct odb_frame *frame = begin(frames, ODB_WIRE_REAL, ODB_WIRE_HEADER_SIZE);
    frame->accepted = frame->real = tail->length;
    odb_wire_header_encode(frame->start, ODB_WIRE_REAL, (uint32_t)tail->length);
    frames->tail = *tail;
}

void odb_frames_push_late(struct odb_pushes *pushes, uint64_t consumer, uint8_t *start, struct odb_span *body) {
    struct odb_push *push = odb_pushes_take(pushes, consumer, body->length);
    struct odb_cut cut = {.body = body->length};
    if (!push) return;
    body->push_channel = push->number;
    body->push_position = push->position;
    odb_frames_encode_span(start, body, &cut);
    odb_pushes_send(pushes, push, body, false);
}

/* Neighbouring byte pieces share a frame. Returns the number of pieces used; *cut says that the last one was taken in part. */
static int add_real(struct odb_frames *frames, const struct odb_piece *pieces, int count, bool *cut) {
    struct odb_frame *frame = begin(frames, ODB_WIRE_REAL, ODB_WIRE_HEADER_SIZE);
    int used = 0;
    for (; used < count && !pieces[used].is_span && !*cut; used++) {
        size_t room = ODB_REAL_MAX - frame->real, length = pieces[used].length;
        if (room == 0) break;
        *cut = length > room;
        append(frames, frame, pieces[used].bytes, *cut ? room : length);
    }
    odb_wire_header_encode(frame->start, ODB_WIRE_REAL, (uint32_t)frame->real);
    return used;
}

static size_t accepted(const struct odb_frames *frames) {
    size_t total = 0;
    for (int i = 0; i < frames->count; i++) total += frames->frame[i].accepted;
    return total;
}

/* The origin has the bytes at hand and sends ends of the payload along; whoever only holds the span, or has captured a file without reading it, does not. In the last frame that there is room for, `reserve` being
 * kept for others, goes all that is left, uncut: what has been captured must be announced now, or the next turn would capture it again. False: not even so. */
static bool add_span_piece(struct odb_frames *frames, const struct odb_options *options,
                           const struct odb_geometry *receiver, const struct odb_piece *piece, int reserve) {
    size_t done = 0;
    while (done < piece->length && !odb_frames_full(frames)) {
        size_t left = piece->length - done;
        struct odb_cut cut = {.body = left < ODB_BODY_MAX ? left : ODB_BODY_MAX};
        bool last = frames->count + reserve >= ODB_FRAMES - 1, own = piece->is_own && !last;
        const char *at = piece->bytes && own ? (const char *)piece->bytes + done : NULL;
        if (own) cut = odb_frames_cut(frames, options, receiver, left, accepted(frames));
        if (own && !at) cut = (struct odb_cut){.body = cut.head + cut.body + cut.tail};
        struct odb_span span = odb_span_part(&piece->span, done, cut.head + cut.body + cut.tail);
        bool late = own && !at && frames->hold && frames->pushes;
        if (own && !late)
            odb_frames_add_own(frames, &span, &cut, at, at ? at + cut.head + cut.body : NULL);
        else
            odb_frames_add_span(frames, &span, &cut, NULL, NULL);
        frames->frame[frames->count - 1].late = late;
        frames->frame[frames->count - 1].read = own && !at;
        done += span.length;
    }
    return done == piece->length;
}

void odb_frames_add_pieces(struct odb_frames *frames, const struct odb_options *options,
                           const struct odb_geometry *receiver, const struct odb_piece *pieces, int count) {
    bool cut = false;
    for (int i = 0; i < count && !cut && !odb_frames_full(frames);) {
        if (!pieces[i].is_span)
            i += add_real(frames, pieces + i, count - i, &cut);
        else
            cut = !add_span_piece(frames, options, receiver, &pieces[i], count - i - 1), i++;
    }
}
