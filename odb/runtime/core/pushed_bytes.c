/* pushed_bytes.c: takes, splices and skips what arrives on a push channel. */
#include "core/pushed_bytes.h"

#include "core/scatter.h"
#include "os/real.h"

#include <errno.h>

enum { WAIT_MS = 1000, PIECES = 16, SCRATCH = 4096 };

static bool wait_readable(const struct odb_pushed *pushed, int fd) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    uint64_t limit = pushed->options->deadline_ms < WAIT_MS ? pushed->options->deadline_ms : WAIT_MS;
    int ready;
    do ready = odb_real.poll(&entry, 1, (int)limit);
    while (ready < 0 && errno == EINTR);
    return ready > 0;
}

/* What a receive's result means: true to go on, false when it has failed. */
static bool went_on(const struct odb_pushed *pushed, int fd, ssize_t got) {
    if (got > 0 || (got < 0 && errno == EINTR)) return true;
    return got < 0 && errno == EAGAIN && wait_readable(pushed, fd);
}

/* An empty pipe serves whichever channel needs one next. */
static void leave_pipe(struct odb_pushed_channel *channel) {
    if (!channel->pipe || channel->piped > 0) return;
    odb_pipes_give_back(channel->pipe);
    channel->pipe = NULL;
}

void odb_pushed_drop_pipe(struct odb_pushed_channel *channel) {
    if (channel->pipe) odb_pipes_break(channel->pipe);
    channel->pipe = NULL;
    channel->piped = 0;
}

/* MSG_TRUNC spares TCP the copying. */
static __attribute__((noinline)) ssize_t throw_away(int fd, size_t length) {
    return odb_real.recv(fd, NULL, length, MSG_TRUNC | MSG_DONTWAIT);
}

/* From the pipe while there is something in it, then from the socket; without `pieces` the bytes are thrown away. */
static ssize_t receive_next(struct odb_pushed_channel *channel, const struct iovec *pieces, int count, size_t length) {
    char scratch[SCRATCH];
    struct iovec nowhere = {scratch, length < sizeof scratch ? length : sizeof scratch};
    int fd = atomic_load(&channel->fd);
    if (channel->piped == 0 && !pieces) return throw_away(fd, length);
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = (size_t)count};
    if (channel->piped == 0) return odb_real.recvmsg(fd, &message, MSG_DONTWAIT);
    ssize_t got = odb_real.readv(atomic_load(&channel->pipe->out_of), pieces ? pieces : &nowhere, pieces ? count : 1);
    if (got <= 0) return got < 0 && errno == EINTR ? got : 0;
    channel->piped -= (size_t)got;
    leave_pipe(channel);
    return got;
}

/* What may be received at once: a pipe also holds what follows, but knows no borders. */
static uint64_t at_once(const struct odb_pushed_channel *channel, uint64_t length) {
    return channel->piped > 0 && channel->piped < length ? channel->piped : length;
}

bool odb_pushed_skip_to(struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t position) {
    while (channel->position < position) {
        ssize_t got = receive_next(channel, NULL, 0, at_once(channel, position - channel->position));
        if (!went_on(pushed, atomic_load(&channel->fd), got)) return false;
        if (got <= 0) continue;
        channel->position += (uint64_t)got;
        channel->skipped += (uint64_t)got;
        odb_count(pushed->stats, ODB_STAT_push_bytes_skipped, (uint64_t)got);
    }
    return true;
}

bool odb_pushed_take_bytes(const struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t length,
                           const struct iovec *iov, int count) {
    struct odb_scatter into = {.iov = iov, .count = count};
    struct iovec pieces[PIECES];
    for (uint64_t left = length; left > 0;) {
        int used = odb_scatter_window(&into, at_once(channel, left), pieces, PIECES);
        ssize_t got = receive_next(channel, pieces, used, 0);
        if (!went_on(pushed, atomic_load(&channel->fd), got)) return false;
        if (got <= 0) continue;
        odb_scatter_advance(&into, (size_t)got);
        left -= (uint64_t)got;
        channel->position += (uint64_t)got;
    }
    return true;
}

/* Draws what has arrived, also what follows the bytes that are wanted now: it will be wanted next. False: nothing is in the pipe and nothing will come. */
static bool draw(const struct odb_pushed *pushed, struct odb_pushed_channel *channel) {
    int fd = atomic_load(&channel->fd), into = atomic_load(&channel->pipe->into);
    ssize_t drawn = odb_real.splice(fd, NULL, into, NULL, ODB_PIPE_SIZE, SPLICE_F_NONBLOCK);
    if (drawn > 0) channel->piped += (size_t)drawn;
    return channel->piped > 0 || went_on(pushed, fd, drawn);
}

enum odb_pushed_end odb_pushed_splice_bytes(struct odb_pushed *pushed, struct odb_pushed_channel *channel,
                                            uint64_t length, int to, unsigned flags, uint64_t *sent, int *error) {
    enum odb_pushed_end end = ODB_PUSHED_SENT;
    if (!channel->pipe) channel->pipe = odb_pipes_take(&pushed->pipes);
    if (!channel->pipe) return ODB_PUSHED_KEPT;
    while (*sent < length && end == ODB_PUSHED_SENT) {
        if (channel->piped < length - *sent && !draw(pushed, channel)) {
            end = ODB_PUSHED_LOST;
        } else if (channel->piped > 0) {
            int from = atomic_load(&channel->pipe->out_of);
            uint64_t amount = at_once(channel, length - *sent);
            ssize_t left = odb_real.splice(from, NULL, to, NULL, amount, SPLICE_F_NONBLOCK | flags);
            if (left > 0) {
                channel->piped -= (size_t)left;
                channel->position += (uint64_t)left;
                *sent += (uint64_t)left;
            } else if (left == 0) {
                end = ODB_PUSHED_LOST; /* it was said to hold something */
            } else if (errno != EINTR) {
                *error = errno;
                end = errno == EAGAIN ? ODB_PUSHED_FULL : errno == EINVAL ? ODB_PUSHED_KEPT : ODB_PUSHED_REFUSED;
            }
        }
    }
    leave_pipe(channel);
    return end;
}

bool odb_pushed_draw_bytes(const struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t length,
                           int into, bool wait, uint64_t *drawn) {
    int fd = atomic_load(&channel->fd);
    while (*drawn < length) {
        bool piped = channel->piped > 0;
        int from = piped ? atomic_load(&channel->pipe->out_of) : fd;
        ssize_t got = odb_real.splice(from, NULL, into, NULL, at_once(channel, length - *drawn), SPLICE_F_NONBLOCK);
        if (got > 0) {
            *drawn += (uint64_t)got;
            channel->position += (uint64_t)got;
            if (piped) channel->piped -= (size_t)got;
            leave_pipe(channel);
        } else if (got < 0 && errno == EAGAIN && (*drawn > 0 || !wait)) {
            return true; /* nothing more has come, or the pipe is full */
        } else if ((piped && got == 0) || !went_on(pushed, fd, got)) {
            return false;
        }
    }
    return true;
}
