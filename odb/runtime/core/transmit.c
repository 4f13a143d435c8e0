/* transmit.c: builds frames from pieces and sends them, one system call for as many as fit. */
#include "core/transmit.h"

#include "core/receive.h"
#include "core/resolve.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <sys/stat.h>

enum { FRAMES = 16, PIECES = 24, IOVS = FRAMES * 2 + PIECES + 1 };
#define REAL_MAX ((size_t)256 << 10) /* application bytes of one REAL frame: the most that is ever parked */
#define BODY_MAX ((size_t)1 << 30)   /* virtual bytes of one VIRTUAL frame */

struct frame {
    uint8_t start[ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE];
    size_t wire;     /* bytes on the wire */
    size_t accepted; /* application bytes it stands for */
    int first_iov;
    bool virtual;
    size_t bytes; /* real bytes of the application it carries */
};

/* One batch of frames on their way into one sendmsg. */
struct batch {
    struct iovec iov[IOVS];
    int iovs;
    struct frame frames[FRAMES];
    int count;
};

static struct frame *begin_frame(struct batch *batch, size_t start_size) {
    struct frame *frame = &batch->frames[batch->count++];
    *frame = (struct frame){.wire = start_size, .first_iov = batch->iovs};
    batch->iov[batch->iovs++] = (struct iovec){frame->start, start_size};
    return frame;
}

static void append(struct batch *batch, struct frame *frame, const void *bytes, size_t length) {
    batch->iov[batch->iovs++] = (struct iovec){(void *)(uintptr_t)bytes, length};
    frame->wire += length;
    frame->accepted += length;
    frame->bytes += length;
}

static void add_hello(struct odb_runtime *runtime, struct batch *batch) {
    struct odb_wire_hello hello = {.capabilities = 0, .channel_port = odb_origin_port(&runtime->origin)};
    struct frame *frame = begin_frame(batch, ODB_WIRE_HELLO_FRAME);
    odb_wire_hello_encode(frame->start, &hello);
}

/* Neighbouring byte pieces share a frame. Returns the number of pieces used; *cut says that the last one was taken in part. */
static int add_real(struct batch *batch, const struct odb_piece *pieces, int count, bool *cut) {
    struct frame *frame = begin_frame(batch, ODB_WIRE_HEADER_SIZE);
    int used = 0;
    for (; used < count && pieces[used].bytes && !*cut; used++) {
        size_t room = REAL_MAX - frame->bytes, length = pieces[used].length;
        if (room == 0) break;
        *cut = length > room;
        append(batch, frame, pieces[used].bytes, *cut ? room : length);
    }
    odb_wire_header_encode(frame->start, ODB_WIRE_REAL, (uint32_t)frame->bytes);
    return used;
}

/* `tail` bytes at the end of the span travel for real. */
static void add_virtual(struct batch *batch, const struct odb_span *span, size_t body, const void *tail, size_t tail_length) {
    uint64_t now = odb_clock_ms(), lease = span->expires_ms > now ? span->expires_ms - now : 0;
    struct odb_wire_descriptor descriptor = {.payload = span->payload,
                                             .offset = span->offset,
                                             .body = (uint32_t)body,
                                             .tail = (uint32_t)tail_length,
                                             .lease_ms = lease > UINT32_MAX ? UINT32_MAX : (uint32_t)lease,
                                             .port = span->origin.port};
    memcpy(descriptor.address, span->origin.address, sizeof descriptor.address);
    memcpy(descriptor.token, span->token, sizeof descriptor.token);
    struct frame *frame = begin_frame(batch, sizeof frame->start);
    odb_wire_header_encode(frame->start, ODB_WIRE_VIRTUAL, (uint32_t)(ODB_WIRE_DESCRIPTOR_SIZE + tail_length));
    odb_wire_descriptor_encode(frame->start + ODB_WIRE_HEADER_SIZE, &descriptor);
    frame->virtual = true;
    frame->accepted = body;
    if (tail_length > 0) append(batch, frame, tail, tail_length);
}

static void build(struct batch *batch, const struct odb_piece *pieces, int count) {
    bool cut = false;
    for (int i = 0; i < count && !cut && batch->count < FRAMES;) {
        if (pieces[i].bytes) {
            i += add_real(batch, pieces + i, count - i, &cut);
            continue;
        }
        cut = pieces[i].length > BODY_MAX;
        add_virtual(batch, &pieces[i].span, cut ? BODY_MAX : pieces[i].length, NULL, 0);
        i++;
    }
}

static void count_frame(struct odb_runtime *runtime, const struct frame *frame) {
    if (frame->virtual) {
        odb_count(&runtime->stats, ODB_STAT_spans_sent, 1);
        odb_count(&runtime->stats, ODB_STAT_span_bytes_sent, frame->accepted - frame->bytes);
    }
    if (frame->bytes > 0) odb_count(&runtime->stats, ODB_STAT_real_bytes_sent, frame->bytes);
}

/* Without memory to park the rest of a frame there is one honest way left: send it, however long that takes. */
static int send_rest(int fd, const struct iovec *iov, int count, size_t skip) {
    for (int i = 0; i < count; i++) {
        size_t gone = skip < iov[i].iov_len ? skip : iov[i].iov_len;
        skip -= gone;
        while (gone < iov[i].iov_len) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            ssize_t sent = odb_real.send(fd, (char *)iov[i].iov_base + gone, iov[i].iov_len - gone, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent >= 0) gone += (size_t)sent;
            else if (errno == EAGAIN) odb_real.poll(&room, 1, -1);
            else if (errno != EINTR) return -errno;
        }
    }
    return 0;
}

/* Under the lock. `sent` bytes of the batch have left: counts what is accepted and parks the rest of a frame that has begun. */
static ssize_t account(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct batch *batch, size_t sent) {
    size_t accepted = 0;
    for (int i = 0; i < batch->count && sent > 0; i++) {
        struct frame *frame = &batch->frames[i];
        int next = i + 1 < batch->count ? batch->frames[i + 1].first_iov : batch->iovs;
        const struct iovec *iov = batch->iov + frame->first_iov;
        int error = 0;
        if (sent < frame->wire && !odb_outbox_park(&stream->out, fd, iov, next - frame->first_iov, sent)) error = send_rest(fd, iov, next - frame->first_iov, sent);
        if (error) return accepted > 0 ? (ssize_t)accepted : error;
        if (i == 0 && atomic_load(&stream->out_mode) == ODB_OUT_HELLO) atomic_store(&stream->out_mode, ODB_OUT_FRAMED);
        count_frame(runtime, frame);
        accepted += frame->accepted;
        sent = sent < frame->wire ? 0 : sent - frame->wire;
    }
    return accepted > 0 ? (ssize_t)accepted : -EAGAIN;
}

/* Under the lock. */
static ssize_t send_batch(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct batch *batch, int flags) {
    struct msghdr message = {.msg_iov = batch->iov, .msg_iovlen = (size_t)batch->iovs};
    ssize_t sent;
    do sent = odb_real.sendmsg(fd, &message, (flags & (MSG_NOSIGNAL | MSG_MORE)) | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) return -errno;
    return account(runtime, stream, fd, batch, (size_t)sent);
}

/* Under the lock. 0 when something may be sent now, else a negative errno. */
static int make_way(struct odb_stream *stream, int fd) {
    int error = stream->out.error;
    stream->out.error = 0;
    if (error) return -error;
    return odb_outbox_flush(&stream->out, fd);
}

static void begin_batch(struct odb_runtime *runtime, struct odb_stream *stream, struct batch *batch) {
    batch->count = batch->iovs = 0;
    if (atomic_load(&stream->out_mode) == ODB_OUT_HELLO) add_hello(runtime, batch);
}

static ssize_t send_now(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov, int count, int flags) {
    struct odb_piece pieces[PIECES];
    struct batch batch;
    odb_lock_take(&stream->out.lock);
    ssize_t result = make_way(stream, fd);
    if (result == 0) {
        int made = odb_resolve(runtime, stream, fd, iov, count, pieces, PIECES);
        begin_batch(runtime, stream, &batch);
        build(&batch, pieces, made);
        result = made > 0 ? send_batch(runtime, stream, fd, &batch, flags) : -EAGAIN;
    }
    odb_lock_drop(&stream->out.lock);
    return result;
}

bool odb_stream_frames_out(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    enum odb_out_mode open = ODB_OUT_OPEN;
    if (atomic_load(&stream->out_mode) == ODB_OUT_OPEN && atomic_load(&stream->in.mode) == ODB_IN_DETECT) odb_stream_readable(runtime, stream, fd);
    if (atomic_compare_exchange_strong(&stream->out_mode, &open, ODB_OUT_CLASSIC)) odb_count(&runtime->stats, ODB_STAT_streams_classic, 1);
    return atomic_load(&stream->out_mode) != ODB_OUT_CLASSIC;
}

static bool blocks(int fd, int flags) {
    return !(flags & MSG_DONTWAIT) && !(odb_real.fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* As long as SO_SNDTIMEO allows. */
static int wait_for_room(int fd) {
    struct timeval timeout = {0, 0};
    socklen_t size = sizeof timeout;
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, &size);
    int milliseconds = timeout.tv_sec || timeout.tv_usec ? (int)(timeout.tv_sec * 1000 + (timeout.tv_usec + 999) / 1000) : -1;
    int ready = odb_real.poll(&room, 1, milliseconds);
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

ssize_t odb_stream_send(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov, int count, int flags) {
    struct iovec rest[IOV_REST];
    size_t done = 0;
    for (;;) {
        int left = iov_rest(iov, count, done, rest);
        if (left == 0) return (ssize_t)done;
        ssize_t sent = send_now(runtime, stream, fd, rest, left, flags);
        if (sent > 0) {
            done += (size_t)sent;
            continue;
        }
        if (sent != -EAGAIN || !blocks(fd, flags)) return done > 0 ? (ssize_t)done : sent;
        int error = wait_for_room(fd);
        if (error) return done > 0 ? (ssize_t)done : error;
    }
}

/* Whole pages of the range travel as a descriptor, the rest of its last page for real, so that a page-aligned receiver need not fetch it. */
static ssize_t send_span(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int file, const struct odb_span *span) {
    uint8_t tail[ODB_PAGE];
    size_t tail_length = span->length % ODB_PAGE;
    struct batch batch;
    if (tail_length > 0 && odb_real.pread(file, tail, tail_length, (off_t)(span->offset + span->length - tail_length)) != (ssize_t)tail_length) return -EIO;
    odb_lock_take(&stream->out.lock);
    ssize_t result = make_way(stream, fd);
    if (result == 0) {
        begin_batch(runtime, stream, &batch);
        add_virtual(&batch, span, span->length - tail_length, tail, tail_length);
        result = send_batch(runtime, stream, fd, &batch, MSG_NOSIGNAL);
    }
    odb_lock_drop(&stream->out.lock);
    return result;
}

static ssize_t send_file_bytes(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int file, uint64_t offset, size_t length) {
    size_t size = length < 65536 ? length : 65536;
    char *bytes = odb_real.malloc(size);
    if (!bytes) return -ENOMEM;
    ssize_t got = odb_real.pread(file, bytes, size, (off_t)offset);
    if (got < 0) got = -errno;
    struct iovec iov = {bytes, got > 0 ? (size_t)got : 0};
    if (got > 0) got = odb_stream_send(runtime, stream, fd, &iov, 1, 0);
    odb_real.free(bytes);
    return got;
}

/* What sendfile would find in the file: nothing behind its end. */
static size_t inside_file(int file, uint64_t offset, size_t length) {
    struct stat status;
    if (fstat(file, &status) != 0 || (uint64_t)status.st_size <= offset) return 0;
    uint64_t left = (uint64_t)status.st_size - offset;
    return left < length ? (size_t)left : length;
}

ssize_t odb_stream_send_file(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int file, uint64_t offset, size_t length) {
    struct odb_span span;
    length = inside_file(file, offset, length < BODY_MAX ? length : BODY_MAX);
    if (length == 0) return 0;
    if (length < runtime->options.virtual_min) odb_count(&runtime->stats, ODB_STAT_fallback_too_small, 1);
    else if (odb_resolve_file(runtime, stream, fd, file, offset, length, &span)) {
        for (;;) {
            ssize_t sent = send_span(runtime, stream, fd, file, &span);
            if (sent != -EAGAIN || !blocks(fd, 0)) return sent;
            int error = wait_for_room(fd);
            if (error) return error;
        }
    }
    return send_file_bytes(runtime, stream, fd, file, offset, length);
}

int odb_stream_shutdown(struct odb_stream *stream, int fd, int how) {
    bool later = false;
    if (how != SHUT_RD) {
        odb_lock_take(&stream->out.lock);
        later = !odb_outbox_is_empty(&stream->out) && odb_outbox_flush(&stream->out, fd) == -EAGAIN;
        if (later) stream->out.shutdown = true;
        odb_lock_drop(&stream->out.lock);
    }
    if (!later) return odb_real.shutdown(fd, how) == 0 ? 0 : -errno;
    if (how == SHUT_RDWR) odb_real.shutdown(fd, SHUT_RD);
    return 0;
}
