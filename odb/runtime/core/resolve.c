/* resolve.c: turns application memory and file ranges into pieces. */
#include "core/resolve.h"

#include "core/ahead.h"
#include "core/careful.h"
#include "os/real.h"

#include <errno.h>

enum {
    LOOKED_AT = 1 << 20
}; /* bytes of memory that one batch takes at most: it has been looked at whether they are there */

static const uint8_t unknown[16];

/* The address under which the consumer finds this origin: the one of the `channel` option, else the one this stream uses. */
static bool locate_origin(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct odb_span *span) {
    const struct odb_rules *channel = &runtime->options.channel;
    if (memcmp(stream->local, unknown, sizeof unknown) == 0) {
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        uint16_t port;
        if (channel->count > 0 && channel->rule[0].prefix == 128)
            memcpy(stream->local, channel->rule[0].address, sizeof stream->local);
        else if (getsockname(fd, (struct sockaddr *)&address, &length) != 0 ||
                 !odb_address_from((struct sockaddr *)&address, stream->local, &port))
            return false;
    }
    memcpy(span->origin.address, stream->local, sizeof span->origin.address);
    span->origin.port = odb_origin_port(&runtime->origin);
    return true;
}

static bool captured(struct odb_runtime *runtime, enum odb_capture result) {
    if (result == ODB_CAPTURE_FULL) odb_count(&runtime->stats, ODB_STAT_fallback_store_full, 1);
    if (result == ODB_CAPTURE_FAILED) odb_count(&runtime->stats, ODB_STAT_fallback_capture_failed, 1);
    return result == ODB_CAPTURED;
}

static bool can_serve(struct odb_runtime *runtime) {
    return odb_origin_start(&runtime->origin, &runtime->options, &runtime->stats, &runtime->store, &runtime->driver);
}

/* What is the same for every kind of capture. */
static bool finish(struct odb_runtime *runtime, struct odb_stream *stream, enum odb_capture result,
                   const struct odb_origin_address *origin, struct odb_span *span) {
    span->origin = *origin;
    if (!captured(runtime, result)) return false;
    if (runtime->options.strategy == ODB_STRATEGY_DIRECT)
        odb_store_set_announcer(&runtime->store, span->payload, &stream->consumer);
    return true;
}

/* A descriptor that can write is that of a file still in the making, as a proxy's temporary file is: it grows between being announced and being fetched, and
 * a payload whose file has changed is refused. Such a range travels as memory does. */
static bool is_settled(int file) {
    int flags = odb_real.fcntl(file, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) == O_RDONLY;
}

bool odb_resolve_file(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int file,
                      const struct odb_file_version *version, uint64_t offset, size_t length, struct odb_span *span) {
    if (!(runtime->options.capture & ODB_CAPTURE_FILE) || !is_settled(file) || !can_serve(runtime)) return false;
    if (!locate_origin(runtime, stream, fd, span)) return false;
    struct odb_origin_address origin = span->origin;
    enum odb_capture result = odb_store_capture_version(&runtime->store, file, version, offset, length, span);
    return finish(runtime, stream, result, &origin, span);
}

enum outcome { TAKEN, LEFT, NO_ROOM, LOST, NOT_THERE };

static bool has_room(int fd) {
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    return odb_real.poll(&room, 1, 0) != 0;
}

/* A payload that could not be announced would have been copied for nothing and kept for gc_delay: so the socket must have room first. */
static enum outcome capture_memory(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct iovec *bytes,
                                   struct odb_span *span) {
    if (!(runtime->options.capture & ODB_CAPTURE_MEMORY) || bytes->iov_len < runtime->options.virtual_min ||
        bytes->iov_len < runtime->options.memory_min || !can_serve(runtime))
        return LEFT;
    if (!has_room(fd)) return NO_ROOM;
    size_t most = odb_ahead_room(stream, &runtime->options, &runtime->stats);
    if (most == 0) return LEFT;
    if (bytes->iov_len > most) bytes->iov_len = most;
    if (!locate_origin(runtime, stream, fd, span)) return LEFT;
    struct odb_origin_address origin = span->origin;
    bool done = finish(runtime, stream, odb_store_capture_memory(&runtime->store, bytes, 1, bytes->iov_len, span),
                       &origin, span);
    return done ? TAKEN : LEFT;
}

/* A window of a read becomes a payload as a range given to sendfile does. What is LEFT is real memory afterwards. */
static enum outcome capture_read(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                                 const struct iovec *memory, struct odb_span *span) {
    struct odb_span read = *span;
    struct odb_file_version version;
    size_t most = 0, wanted = memory->iov_len;
    if (wanted >= runtime->options.virtual_min && can_serve(runtime) && locate_origin(runtime, stream, fd, span)) {
        if (!has_room(fd)) return NO_ROOM;
        most = odb_ahead_room(stream, &runtime->options, &runtime->stats);
    }
    int file = most > 0 ? odb_sources_hold(&runtime->windows.sources, read.payload, &version) : -1;
    if (file >= 0) {
        struct odb_origin_address origin = span->origin;
        enum odb_capture result = odb_store_capture_version(&runtime->store, file, &version, read.offset,
                                                            wanted < most ? wanted : most, span);
        odb_sources_let_go(&runtime->windows.sources, read.payload);
        if (finish(runtime, stream, result, &origin, span)) {
            odb_ahead_add(stream, span->length);
            return TAKEN;
        }
    }
    return odb_windows_materialise(&runtime->windows, memory, 1) == 0 ? LEFT : LOST;
}

/* Memory without live windows. */
static enum outcome resolve_memory(struct odb_runtime *runtime, struct odb_stream *stream, int fd,
                                   struct odb_piece *piece) {
    struct iovec real = {(void *)(uintptr_t)piece->bytes, piece->length};
    odb_windows_materialise(&runtime->windows, &real, 1); /* only opens stale pages */
    enum outcome outcome = capture_memory(runtime, stream, fd, &real, &piece->span);
    if (outcome == TAKEN) {
        piece->is_span = piece->is_own = true;
        piece->length = real.iov_len;
        odb_ahead_add(stream, piece->length);
    }
    if (outcome != LEFT) return outcome;
    if (piece->length > LOOKED_AT) piece->length = LOOKED_AT;
    return odb_careful_readable(piece->bytes, piece->length) == 0 ? LEFT : NOT_THERE;
}

static enum outcome resolve_window(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const char *at,
                                   struct odb_piece *piece) {
    struct iovec memory = {(void *)(uintptr_t)at, piece->length};
    if (!odb_span_is_read(&piece->span)) {
        piece->is_span = true;
        return TAKEN;
    }
    enum outcome outcome = capture_read(runtime, stream, fd, &memory, &piece->span);
    if (outcome == TAKEN) {
        piece->is_span = piece->is_own = true;
        piece->length = piece->span.length;
    } else {
        piece->bytes = at;
    }
    return outcome;
}

/* Adds a piece; a span that continues the one before is merged into it. False when there is no room. */
static bool add(struct odb_runtime *runtime, struct odb_piece *pieces, int *count, int room,
                const struct odb_piece *piece) {
    struct odb_piece *last = *count > 0 ? &pieces[*count - 1] : NULL;
    if (last && last->is_span && piece->is_span && !last->bytes && !piece->bytes && runtime->options.coalesce &&
        odb_span_continues(&last->span, &piece->span)) {
        last->length += piece->length;
        last->span.length += piece->span.length;
        if (piece->span.expires_ms < last->span.expires_ms) last->span.expires_ms = piece->span.expires_ms;
        return true;
    }
    if (*count == room) return false;
    pieces[(*count)++] = *piece;
    return true;
}

/* What is captured has to be announced. */
static bool captures(const struct odb_piece *pieces, int count) {
    for (int i = 0; i < count; i++)
        if (pieces[i].is_own) return true;
    return false;
}

int odb_resolve(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct iovec *iov, int count,
                struct odb_piece *pieces, int room) {
    int made = 0;
    for (int i = 0; i < count; i++) {
        const char *at = iov[i].iov_base;
        for (size_t left = iov[i].iov_len; left > 0;) {
            struct odb_piece piece = {.length = left};
            size_t plain = left, found = 0;
            if (odb_windows_any(&runtime->windows))
                found = odb_windows_find(&runtime->windows, at, left, &piece.span, &plain);
            if (found > 0 && odb_stream_peer_wants_real(stream)) {
                struct iovec wanted = {(void *)(uintptr_t)at, left};
                int error = odb_windows_materialise(&runtime->windows, &wanted, 1);
                if (error) return made > 0 ? made : error;
                odb_count(&runtime->stats, ODB_STAT_fallback_wanted, 1);
                plain = left;
                found = 0;
            }
            piece.length = found > 0 ? found : plain;
            piece.bytes = found > 0 ? NULL : at;
            if (made == room && (found == 0 || odb_span_is_read(&piece.span)))
                return made; /* what is captured has to be announced */
            enum outcome outcome = found > 0 ? resolve_window(runtime, stream, fd, at, &piece)
                                             : resolve_memory(runtime, stream, fd, &piece);
            if (outcome == NO_ROOM) return made;
            if (outcome == LOST) return made > 0 ? made : -ESTALE;
            if (outcome == NOT_THERE) return captures(pieces, made) ? made : -EFAULT;
            if (!add(runtime, pieces, &made, room, &piece)) return made;
            if (!piece.is_span && piece.length == LOOKED_AT) return made;
            at += piece.length;
            left -= piece.length;
        }
    }
    return made;
}
