/* transmit_tail.c: bytes of a REAL frame that go from a file to the socket without being read here. */
#include "core/transmit_private.h"

#include "os/real.h"

#include <errno.h>

/* The frame has begun and its bytes are not to be had any more: the connection ends, so that the peer does not take something else for them. */
static ssize_t break_off(struct odb_runtime *runtime, int fd) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    odb_count(&runtime->stats, ODB_STAT_resets, 1);
    odb_real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    odb_real.shutdown(fd, SHUT_RDWR);
    return -ECONNRESET;
}

/* As far as the socket has room and the file has bytes. Bytes sent, or a negative errno when the connection is broken. */
static ssize_t send_file(int fd, const struct odb_file_tail *tail) {
    size_t done = 0;
    while (done < tail->length) {
        off64_t offset = (off64_t)(tail->offset + done);
        ssize_t sent = odb_real.sendfile64(fd, tail->file, &offset, tail->length - done);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return -errno;
        if (sent <= 0) break; /* no room, or a file that has to be read */
        done += (size_t)sent;
    }
    return (ssize_t)done;
}

/* What is left of the bytes, or null. */
static char *read_rest(const struct odb_file_tail *tail, size_t done) {
    size_t rest = tail->length - done;
    char *bytes = odb_real.malloc(rest);
    for (size_t got = 0; bytes && got < rest;) {
        ssize_t more = odb_real.pread(tail->file, bytes + got, rest - got, (off_t)(tail->offset + done + got));
        if (more < 0 && errno == EINTR) continue;
        if (more <= 0) {
            odb_real.free(bytes);
            return NULL;
        }
        got += (size_t)more;
    }
    return bytes;
}

ssize_t odb_transmit_tail(struct odb_runtime *runtime, struct odb_stream *stream, int fd, struct odb_frames *frames,
                          size_t sent) {
    struct odb_frame *last = &frames->frame[frames->count - 1];
    size_t before = 0;
    for (int i = 0; i < frames->count - 1; i++) before += frames->frame[i].wire;
    if (sent <= before) {
        frames->iovs = last->first_iov;
        frames->count--;
        return odb_transmit_account(runtime, stream, fd, frames, sent);
    }
    ssize_t done = sent == before + last->wire ? send_file(fd, &frames->tail) : 0;
    if (done < 0) return done;
    size_t rest = frames->tail.length - (size_t)done;
    char *bytes = rest > 0 ? read_rest(&frames->tail, (size_t)done) : NULL;
    if (rest > 0 && !bytes) return break_off(runtime, fd);
    if (bytes) frames->iov[frames->iovs++] = (struct iovec){bytes, rest};
    last->wire += rest;
    ssize_t accepted = odb_transmit_account(runtime, stream, fd, frames, sent);
    odb_real.free(bytes);
    return accepted;
}
