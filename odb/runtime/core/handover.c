/* handover.c: writes and reads the records of streams that change hands. */
#include "core/handover.h"

#include "core/sockets.h"
#include "core/exact.h"
#include "core/sharing.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* One library writes and reads it: the layout is the compiler's, `size` tells another build apart. */
struct record {
    char magic[8];
    size_t size;
    enum odb_in_mode in_mode;
    enum odb_out_mode out_mode;
    struct odb_wire_decoder decoder;
    struct odb_span span;
    bool has_span, ended;
    int error;
    size_t real, buffered, span_at, head, tail, edges_filled;
    uint64_t peer_geometry, hinted_geometry;
    uint8_t peer[16], local[16];
}; /* followed by the buffered bytes and the edges */

static const char magic[8] = "ODBHAND1";

enum { PATH = PATH_MAX + 64, STANDARD = 3 };

static bool cookie_of(int fd, uint64_t *cookie) {
    socklen_t size = sizeof *cookie;
    return odb_real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie, &size) == 0;
}

static bool path_of(const struct odb_runtime *runtime, int fd, char path[PATH]) {
    uint64_t cookie;
    if (!cookie_of(fd, &cookie)) return false;
    snprintf(path, PATH, "%s/handover.%llx", runtime->options.stats_dir, (unsigned long long)cookie);
    return true;
}

static bool write_all(int file, const void *bytes, size_t length) {
    return length == 0 || odb_real.write(file, bytes, length) == (ssize_t)length;
}

/* Under both locks of the stream. */
static bool write_record(int file, struct odb_stream *stream) {
    const struct odb_inbox *in = &stream->in;
    struct record record = {.size = sizeof record,
                            .in_mode = atomic_load(&in->mode),
                            .out_mode = atomic_load(&stream->out_mode),
                            .decoder = in->decoder,
                            .span = in->span,
                            .has_span = in->has_span,
                            .ended = in->ended,
                            .error = in->error,
                            .real = in->real,
                            .buffered = in->end - in->begin,
                            .span_at = in->span_at,
                            .head = in->head,
                            .tail = in->tail,
                            .edges_filled = in->edges_filled,
                            .peer_geometry = atomic_load(&stream->peer_geometry),
                            .hinted_geometry = stream->hinted_geometry};
    memcpy(record.magic, magic, sizeof magic);
    memcpy(record.peer, stream->peer, sizeof record.peer);
    memcpy(record.local, stream->local, sizeof record.local);
    return write_all(file, &record, sizeof record) && write_all(file, in->buffer + in->begin, record.buffered) &&
           write_all(file, in->edges, in->has_span ? in->head + in->tail : 0);
}

/* Under out.lock. */
static void send_parked(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    uint64_t end = odb_clock_ms() + runtime->options.drain_ms;
    while (odb_outbox_flush(&stream->out, fd) == -EAGAIN && odb_clock_ms() < end) {
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        odb_real.poll(&room, 1, 10);
    }
}

static void offer_as(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    char path[PATH];
    if (!path_of(runtime, fd, path)) return;
    unlink(path);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0) return;
    odb_in_take(stream);
    odb_out_take(stream);
    odb_exact_release(&stream->in, fd, stream->in.kept);
    send_parked(runtime, stream, fd);
    bool written = write_record(file, stream);
    odb_out_drop(stream);
    odb_in_drop(stream);
    odb_real.close(file);
    if (!written) unlink(path);
}

/* A vfork child duplicates descriptors without our table (its parent's) hearing of it: then the socket is found by its cookie. */
static struct odb_stream *hold_by_cookie(struct odb_runtime *runtime, int fd) {
    uint64_t wanted, cookie;
    if (!cookie_of(fd, &wanted)) return NULL;
    for (int other = 0; other <= atomic_load(&runtime->fds.highest); other++) {
        if (!odb_fdtable_has(&runtime->fds, other) || !cookie_of(other, &cookie) || cookie != wanted) continue;
        return odb_fdtable_hold(&runtime->fds, other);
    }
    return NULL;
}

void odb_handover_offer(struct odb_runtime *runtime, int fd) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return;
    offer_as(runtime, stream, fd);
    odb_fdtable_let_go(&runtime->fds, stream);
}

static bool survives(int fd) {
    int flags = odb_real.fcntl(fd, F_GETFD);
    return flags >= 0 && !(flags & FD_CLOEXEC);
}

static void offer_all(struct odb_runtime *runtime, bool (*goes_on)(int fd)) {
    if (atomic_load(&runtime->fds.streams) == 0) return;
    for (int fd = 0; fd <= atomic_load(&runtime->fds.highest); fd++) {
        bool known = odb_fdtable_has(&runtime->fds, fd);
        if ((!known && fd >= STANDARD) || !goes_on(fd)) continue;
        struct odb_stream *stream = known ? odb_fdtable_hold(&runtime->fds, fd) : hold_by_cookie(runtime, fd);
        if (!stream) continue;
        offer_as(runtime, stream, fd);
        odb_fdtable_let_go(&runtime->fds, stream);
    }
}

void odb_handover_before_exec(struct odb_runtime *runtime) {
    offer_all(runtime, survives);
}

/* A bit per descriptor that some file action names. One that is out of date costs a record that nobody takes, no more. */
static _Atomic uint64_t passed_on[ODB_FDS / 64];

static uint64_t bit_of(int fd) {
    return 1ull << ((unsigned)fd % 64);
}

void odb_handover_pass_on(struct odb_runtime *runtime, int fd) {
    if (odb_fdtable_has(&runtime->fds, fd)) atomic_fetch_or(&passed_on[fd / 64], bit_of(fd));
}

static bool survives_spawn(int fd) {
    return (atomic_load(&passed_on[fd / 64]) & bit_of(fd)) || survives(fd);
}

void odb_handover_before_spawn(struct odb_runtime *runtime) {
    offer_all(runtime, survives_spawn);
}

void odb_handover_after_failed_exec(struct odb_runtime *runtime) {
    char path[PATH];
    if (atomic_load(&runtime->fds.streams) == 0) return;
    for (int fd = 0; fd <= atomic_load(&runtime->fds.highest); fd++)
        if ((fd < STANDARD || odb_fdtable_has(&runtime->fds, fd)) && path_of(runtime, fd, path)) unlink(path);
}

/* Ours, or root's, and nobody else's to write. */
static bool trustworthy(int file, size_t *size) {
    struct stat status;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || (status.st_mode & 077)) return false;
    *size = (size_t)status.st_size;
    return status.st_uid == geteuid() || status.st_uid == 0;
}

static bool is_sound(const struct record *record, size_t size) {
    size_t edges = record->has_span ? record->head + record->tail : 0;
    return memcmp(record->magic, magic, sizeof magic) == 0 && record->size == sizeof *record &&
           record->buffered <= ODB_STREAM_BUFFER && record->real <= record->buffered && edges <= size &&
           record->edges_filled <= record->head + record->tail && size == sizeof *record + record->buffered + edges;
}

static bool read_bytes(int file, uint8_t **bytes, size_t length, size_t room) {
    if (length == 0) return true;
    *bytes = odb_real.malloc(room);
    return *bytes && odb_real.read(file, *bytes, length) == (ssize_t)length;
}

static bool read_record(int file, size_t size, struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    struct record record;
    if (odb_real.read(file, &record, sizeof record) != (ssize_t)sizeof record || !is_sound(&record, size)) return false;
    atomic_store(&in->mode, record.in_mode);
    atomic_store(&stream->out_mode, record.out_mode);
    in->decoder = record.decoder;
    in->span = record.span;
    in->has_span = record.has_span;
    in->ended = record.ended;
    in->error = record.error;
    in->real = record.real;
    in->end = record.buffered;
    in->span_at = record.span_at;
    in->head = record.head;
    in->tail = record.tail;
    in->edges_filled = record.edges_filled;
    atomic_store(&stream->peer_geometry, record.peer_geometry);
    stream->hinted_geometry = record.hinted_geometry;
    memcpy(stream->peer, record.peer, sizeof stream->peer);
    memcpy(stream->local, record.local, sizeof stream->local);
    size_t edges = record.has_span ? record.head + record.tail : 0;
    return read_bytes(file, &in->buffer, record.buffered, ODB_STREAM_BUFFER) &&
           read_bytes(file, &in->edges, edges, edges);
}

void odb_handover_take(struct odb_runtime *runtime, int fd) {
    char path[PATH];
    size_t size;
    if (!path_of(runtime, fd, path)) return;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) return;
    unlink(path);
    struct odb_stream *stream = trustworthy(file, &size) ? odb_fdtable_new_stream(&runtime->fds) : NULL;
    bool taken = stream && read_record(file, size, stream);
    odb_real.close(file);
    if (taken) {
        odb_stats_open(&runtime->stats, runtime->options.stats_dir);
        odb_count(&runtime->stats, ODB_STAT_streams_framed, 1);
        odb_fdtable_set(&runtime->fds, fd, stream);
    } else if (stream) {
        odb_fdtable_let_go(&runtime->fds, stream);
    }
}

/* Several descriptors may stand for one connection; its record was taken with the first. */
static bool take_duplicate(struct odb_runtime *runtime, int fd) {
    struct odb_stream *stream = hold_by_cookie(runtime, fd);
    if (stream) odb_fdtable_set(&runtime->fds, fd, stream);
    return stream != NULL;
}

/* Descriptors passed over exec have low numbers: the loop ends at the first gap that is longer than any program leaves. */
void odb_handover_take_inherited(struct odb_runtime *runtime) {
    enum { GAP = 64 };
    int saved = errno;
    for (int fd = 0, missing = 0; missing < GAP; fd++) {
        struct stat status;
        if (fstat(fd, &status) != 0) {
            missing++;
            continue;
        }
        missing = 0;
        if (S_ISSOCK(status.st_mode) && !take_duplicate(runtime, fd)) odb_handover_take(runtime, fd);
    }
    errno = saved;
}

static void each_right(struct odb_runtime *runtime, const struct msghdr *message,
                       void (*act)(struct odb_runtime *, int)) {
    struct msghdr *walk = (struct msghdr *)(uintptr_t)message;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(walk); part; part = CMSG_NXTHDR(walk, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS || part->cmsg_len < CMSG_LEN(0)) continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            act(runtime, fd);
        }
    }
}

void odb_handover_before_send(struct odb_runtime *runtime, const struct msghdr *message) {
    if (message->msg_controllen > 0 && atomic_load(&runtime->fds.streams) > 0)
        each_right(runtime, message, odb_handover_offer);
}

/* A descriptor that comes back to a process that still has the connection is a duplicate, and the record is stale. */
static void arrived(struct odb_runtime *runtime, int fd) {
    char path[PATH];
    odb_forget_descriptor(runtime, fd);
    if (!take_duplicate(runtime, fd))
        odb_handover_take(runtime, fd);
    else if (path_of(runtime, fd, path))
        unlink(path);
}

void odb_handover_after_receive(struct odb_runtime *runtime, struct msghdr *message) {
    if (message->msg_controllen > 0) each_right(runtime, message, arrived);
}
