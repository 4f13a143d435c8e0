/* transmit_file.c: sendfile on a framed stream: a file range travels as descriptors, its ends as the strategy says. */
#include "core/transmit.h"

#include "core/ahead.h"
#include "core/transmit_private.h"
#include "os/real.h"

#include <errno.h>

enum {
    CUTS = ODB_FRAMES - 3, /* beside a HELLO and two HINTs */
    BYTES = 65536,         /* most real bytes that are sent at once */
    COPIED = 8192,         /* so few are better copied: they can leave in one call with others */
};

struct file_turn {
    const struct odb_options *options;
    int file;
    struct odb_span span;
    char *edges; /* head and tail bytes of this turn's frames, one after the other */
    int error;
};

static size_t plan(const struct file_turn *turn, const struct odb_frames *frames, const struct odb_geometry *receiver,
                   struct odb_cut *cuts, int *count) {
    size_t left = turn->span.length, edges = 0;
    for (*count = 0; *count < CUTS && left > 0; (*count)++) {
        struct odb_cut cut = cuts[*count] =
            odb_frames_cut(frames, turn->options, receiver, left, turn->span.length - left);
        edges += cut.head + cut.tail;
        left -= cut.head + cut.body + cut.tail;
    }
    return edges;
}

static bool read_edge(struct file_turn *turn, char *to, uint64_t offset, size_t length) {
    return length == 0 || odb_real.pread(turn->file, to, length, (off_t)offset) == (ssize_t)length;
}

static bool fill_from_file(void *context, struct odb_frames *frames, const struct odb_geometry *receiver) {
    struct file_turn *turn = context;
    struct odb_cut cuts[CUTS];
    int count;
    size_t edges = plan(turn, frames, receiver, cuts, &count), done = 0;
    char *at = turn->edges = edges > 0 ? odb_real.malloc(edges) : NULL;
    turn->error = edges > 0 && !at ? -ENOMEM : 0;
    for (int i = 0; i < count && !turn->error; i++) {
        const struct odb_cut *cut = &cuts[i];
        struct odb_span span = odb_span_part(&turn->span, done, cut->head + cut->body + cut->tail);
        char *tail = at + cut->head;
        if (!read_edge(turn, at, span.offset, cut->head) ||
            !read_edge(turn, tail, span.offset + cut->head + cut->body, cut->tail))
            turn->error = -EIO;
        odb_frames_add_own(frames, &span, cut, at, tail);
        at = tail + cut->tail;
        done += span.length;
    }
    return !turn->error;
}

static ssize_t send_span(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int file,
                         const struct odb_span *span) {
    struct file_turn turn = {.options = &runtime->options, .file = file, .span = *span};
    ssize_t sent = odb_transmit_turn(runtime, stream, fd, MSG_NOSIGNAL, fill_from_file, &turn);
    odb_real.free(turn.edges);
    return turn.error ? turn.error : sent;
}

static bool fill_with_tail(void *context, struct odb_frames *frames, const struct odb_geometry *receiver) {
    (void)receiver;
    odb_frames_add_tail(frames, context);
    return true;
}

static ssize_t send_file_bytes(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                               const struct odb_file_range *range) {
    size_t size = range->length < BYTES ? range->length : BYTES;
    struct odb_file_tail tail = {.file = range->file, .offset = range->offset, .length = size};
    size_t least = runtime->options.virtual_min > runtime->options.memory_min ? runtime->options.virtual_min
                                                                              : runtime->options.memory_min;
    bool captured = size >= least && !odb_stream_peer_wants_real(stream); /* as memory */
    /* sendfile waits for room where the descriptor blocks, and nothing may wait under the stream's lock. */
    if (size > COPIED && !captured && !odb_transmit_blocks(runtime, fd, 0))
        return odb_transmit_turn(runtime, stream, fd, 0, fill_with_tail, &tail);
    char *bytes = odb_real.malloc(size);
    if (!bytes) return -ENOMEM;
    ssize_t got = odb_real.pread(range->file, bytes, size, (off_t)range->offset);
    if (got < 0) got = -errno;
    struct iovec iov = {bytes, got > 0 ? (size_t)got : 0};
    if (got > 0) got = odb_stream_send(runtime, stream, fd, &iov, 1, 0);
    odb_real.free(bytes);
    return got;
}

static ssize_t send_announced(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int file,
                              const struct odb_span *span) {
    for (;;) {
        ssize_t sent = send_span(runtime, stream, fd, file, span);
        if (sent > 0) odb_ahead_add(stream, (size_t)sent);
        if (sent != -EAGAIN || !odb_transmit_blocks(runtime, fd, 0)) return sent;
        int error = odb_transmit_wait(fd);
        if (error) return error;
    }
}

/* As much as may be announced, or some real bytes. */
static ssize_t send_part(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                         const struct odb_file_range *range) {
    struct odb_span span;
    bool small = range->length < runtime->options.virtual_min;
    size_t room = small ? 0 : odb_ahead_room(stream, &runtime->options, &runtime->stats);
    if (small) odb_count(&runtime->stats, ODB_STAT_fallback_too_small, 1);
    if (room > 0 && odb_resolve_file(runtime, stream, fd, range->file, &range->version, range->offset,
                                     range->length < room ? range->length : room, &span))
        return send_announced(runtime, stream, fd, range->file, &span);
    return send_file_bytes(runtime, stream, fd, range);
}

ssize_t odb_stream_send_file(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                             const struct odb_file_range *range) {
    struct odb_file_range rest = *range;
    size_t length = range->length < ODB_BODY_MAX ? range->length : ODB_BODY_MAX;
    for (size_t done = 0;;) {
        if (done == length) return (ssize_t)done;
        rest.offset = range->offset + done;
        rest.length = length - done;
        ssize_t sent = send_part(runtime, stream, fd, &rest);
        if (sent <= 0) return done > 0 ? (ssize_t)done : sent;
        done += (size_t)sent;
    }
}
