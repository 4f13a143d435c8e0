/* gathered.c: cuts messages into pieces, and sends them. */
#include "core/gathered.h"

#include "core/careful.h"
#include "core/splice_out.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PART = 32768, /* a larger part fills a segment well enough to be worth no copy */
    REFUSED_MS = 100,
};

bool odb_gathered_begin(struct odb_gathered *gathered) {
    void *memory = odb_real.mmap(NULL, ODB_GATHERED_BYTES + ODB_GATHERED_MOST, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    gathered->memory = memory == MAP_FAILED ? NULL : memory;
    return gathered->memory != NULL;
}

/* What is left in the pipe belongs to nobody. */
static void leave_pipe(struct odb_gathered *gathered) {
    size_t left = 0;
    for (int i = 0; i < gathered->count; i++) left += gathered->piece[i].piped;
    if (!gathered->pipe) return;
    if (left == 0)
        odb_pipes_give_back(gathered->pipe);
    else
        odb_pipes_break(gathered->pipe);
    gathered->pipe = NULL;
}

void odb_gathered_clear(struct odb_gathered *gathered) {
    leave_pipe(gathered);
    gathered->length = gathered->used = 0;
    gathered->count = 0;
}

void odb_gathered_begin_with(struct odb_gathered *gathered, const char *bytes, size_t length) {
    gathered->piece[0] = (struct odb_gathered_piece){.bytes = length};
    gathered->count = 1;
    gathered->length = gathered->used = length;
    memcpy(gathered->memory, bytes, length);
}

static struct odb_gathered_piece *last_of(struct odb_gathered *gathered) {
    return gathered->count > 0 ? &gathered->piece[gathered->count - 1] : NULL;
}

static bool add_piece(struct odb_gathered *gathered, const struct odb_gathered_piece *piece) {
    if (gathered->count == ODB_GATHERED_PIECES) return false;
    gathered->piece[gathered->count++] = *piece;
    return true;
}

static bool add_span(struct odb_gathered *gathered, const struct odb_span *span) {
    struct odb_gathered_piece *last = last_of(gathered), fresh = {.span = *span};
    if (!last || last->span.length == 0 || !odb_span_continues(&last->span, span)) return add_piece(gathered, &fresh);
    last->span.length += span->length;
    return true;
}

static bool add_bytes(struct odb_gathered *gathered, const char *at, size_t length) {
    struct odb_gathered_piece *last = last_of(gathered), fresh = {.bytes = length};
    if (length > PART || length > ODB_GATHERED_BYTES - gathered->used || odb_careful_readable(at, length) != 0)
        return false;
    if (last && last->bytes > 0)
        last->bytes += length;
    else if (!add_piece(gathered, &fresh))
        return false;
    memcpy(gathered->memory + gathered->used, at, length);
    gathered->used += length;
    return true;
}

static bool add_part(struct odb_runtime *runtime, struct odb_gathered *gathered, const char *at, size_t length,
                     bool spans) {
    while (length > 0) {
        struct odb_span span;
        size_t plain = length, found = odb_windows_find(&runtime->windows, at, length, &span, &plain);
        size_t size = found > 0 ? found : plain;
        bool added = found > 0 ? spans && odb_splice_out_may(runtime, &span) && add_span(gathered, &span)
                               : add_bytes(gathered, at, plain);
        if (!added) return false;
        at += size;
        length -= size;
    }
    return true;
}

bool odb_gathered_add(struct odb_runtime *runtime, struct odb_gathered *gathered, const struct msghdr *message,
                      size_t most, const struct odb_outlet_room *room) {
    struct odb_gathered_piece *last = last_of(gathered), as_it_was = {.bytes = 0};
    size_t length = 0, used = gathered->used;
    int count = gathered->count;
    bool fits = true;
    if (last) as_it_was = *last;
    for (size_t i = 0; i < message->msg_iovlen && fits; i++) {
        length += message->msg_iov[i].iov_len;
        fits = gathered->length + length <= most &&
               add_part(runtime, gathered, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len, room->splices);
    }
    fits = fits && odb_outlet_takes(room, gathered->used, gathered->length + length - gathered->used);
    if (fits) {
        gathered->length += length;
    } else {
        gathered->used = used;
        gathered->count = count;
        if (last) *last = as_it_was;
    }
    return fits;
}

bool odb_gathered_has_span(const struct odb_gathered *gathered) {
    for (int i = 0; i < gathered->count; i++)
        if (gathered->piece[i].bytes == 0) return true;
    return false;
}

/* As much of a span as its channel yields. False: the rest is not to be had there. */
static bool draw(struct odb_runtime *runtime, struct odb_gathered *gathered, struct odb_gathered_piece *piece,
                 bool wait) {
    struct odb_pushed *pushed = &runtime->channels.pushed;
    uint64_t drawn = 0;
    if (!gathered->pipe) gathered->pipe = odb_pipes_take(&pushed->pipes);
    if (!gathered->pipe) return false;
    bool well = odb_pushed_draw(pushed, &piece->span, atomic_load(&gathered->pipe->into), wait, &drawn);
    piece->piped += drawn;
    piece->span = odb_span_part(&piece->span, drawn, piece->span.length - drawn);
    return well;
}

bool odb_gathered_draw(struct odb_runtime *runtime, struct odb_gathered *gathered) {
    for (int i = 0; i < gathered->count; i++) {
        struct odb_gathered_piece *piece = &gathered->piece[i];
        if (piece->span.length > 0 && (!draw(runtime, gathered, piece, false) || piece->span.length > 0)) return false;
    }
    return true;
}

/* `*until` is when patience ends; 0: it has not been tried yet. */
static bool wait_for_room(int fd, uint64_t *until) {
    uint64_t now = odb_clock_ms();
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    if (*until == 0) *until = now + REFUSED_MS;
    return now < *until && odb_real.poll(&room, 1, (int)(*until - now)) != 0;
}

int odb_gathered_send_bytes(int fd, const char *bytes, size_t length, int flags) {
    uint64_t until = 0;
    while (length > 0) {
        ssize_t sent = odb_real.send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL | flags);
        if (sent > 0) {
            bytes += sent;
            length -= (size_t)sent;
        } else if (sent < 0 && errno == EAGAIN) {
            if (!wait_for_room(fd, &until)) return -1;
        } else if (sent < 0 && errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

static int send_fetched(struct odb_runtime *runtime, int fd, const struct odb_span *span, char *scratch, int flags) {
    struct iovec iov = {scratch, span->length};
    if (odb_channels_fetch(&runtime->channels, span, &iov, 1) != 0) return -1;
    return odb_gathered_send_bytes(fd, scratch, span->length, flags);
}

/* What the pipe holds of a piece, as far as the socket takes it now. */
static int send_piped(const struct odb_gathered *gathered, struct odb_gathered_piece *piece, int fd, bool more,
                      uint64_t *until) {
    unsigned flags = SPLICE_F_NONBLOCK | (more || piece->span.length > 0 ? SPLICE_F_MORE : 0);
    ssize_t sent = odb_real.splice(atomic_load(&gathered->pipe->out_of), NULL, fd, NULL, piece->piped, flags);
    if (sent > 0) piece->piped -= (size_t)sent;
    if (sent > 0 || (sent < 0 && errno == EINTR)) return 0;
    if (sent == 0) return -1; /* it was said to hold something */
    return errno != EAGAIN ? errno : wait_for_room(fd, until) ? 0 : -1;
}

/* In turns, as the bytes come and the socket takes them. */
static int send_span(struct odb_runtime *runtime, struct odb_gathered *gathered, struct odb_gathered_piece *piece,
                     int fd, bool more) {
    uint64_t until = 0;
    bool there = true;
    int result = 0;
    while (result == 0 && (piece->piped > 0 || (there && piece->span.length > 0))) {
        if (there && piece->span.length > 0) there = draw(runtime, gathered, piece, piece->piped == 0);
        if (piece->piped > 0) result = send_piped(gathered, piece, fd, more, &until);
    }
    if (result != 0 || piece->span.length == 0) return result;
    return send_fetched(runtime, fd, &piece->span, gathered->memory + ODB_GATHERED_BYTES, more ? MSG_MORE : 0);
}

int odb_gathered_send(struct odb_runtime *runtime, struct odb_gathered *gathered, int fd) {
    const char *bytes = gathered->memory;
    int result = 0;
    for (int i = 0; i < gathered->count && result == 0; i++) {
        struct odb_gathered_piece *piece = &gathered->piece[i];
        bool more = i + 1 < gathered->count;
        if (piece->bytes == 0) {
            result = send_span(runtime, gathered, piece, fd, more);
        } else {
            result = odb_gathered_send_bytes(fd, bytes, piece->bytes, more ? MSG_MORE : 0);
            bytes += piece->bytes;
        }
    }
    odb_gathered_clear(gathered);
    return result;
}
