/* transfer.c: dispatch of data calls between streams and the kernel. */
#include "core/transfer.h"

#include "core/reads.h"
#include "core/receive.h"
#include "core/requester.h"
#include "core/sockopt.h"
#include "core/splice_out.h"
#include "core/transmit.h"
#include "core/waiting.h"
#include "os/real.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/stat.h>

enum { BEHIND = 63 }; /* parts of a message that leave in one call with what precedes it */

static ssize_t as_result(ssize_t value) {
    if (value >= 0) return value;
    errno = (int)-value;
    return -1;
}

/* The bytes that this socket is owed cannot be had: it ends with a reset, so that its peer does not take the part for the whole. */
static ssize_t lost(struct odb_runtime *runtime, int fd) {
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    odb_count(&runtime->stats, ODB_STAT_resets, 1);
    errno = odb_real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0 ? ECONNRESET : EIO;
    return -1;
}

static bool make_real(struct odb_runtime *runtime, const struct iovec *iov, size_t count) {
    return odb_windows_materialise(&runtime->windows, iov, (int)count) == 0;
}

/* Reads of files that become windows; `offset` -1: at the descriptor's position. */
static bool take_read(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset,
                      ssize_t *got) {
    size_t length = 0;
    for (int i = 0; i < count; i++) length += iov[i].iov_len;
    return odb_reads_may(runtime, length) && odb_reads_take(runtime, fd, iov, count, offset, got);
}

/* The kernel will write into these ranges, how far is not known beforehand; live pages have to be real so that what is not overwritten is still there. */
static ssize_t receive_kernel(struct odb_runtime *runtime, int fd, struct msghdr *message, int flags,
                              enum odb_family family) {
    ssize_t got;
    if (family == ODB_FILE_CALL && take_read(runtime, fd, message->msg_iov, (int)message->msg_iovlen, -1, &got))
        return as_result(got);
    if (!make_real(runtime, message->msg_iov, message->msg_iovlen)) return lost(runtime, fd);
    if (family == ODB_FILE_CALL) return odb_real.readv(fd, message->msg_iov, (int)message->msg_iovlen);
    return odb_real.recvmsg(fd, message, flags);
}

static void leave_table(struct odb_runtime *runtime, const struct odb_stream *stream, int fd) {
    odb_sockopt_give_back(stream, fd);
    odb_fdtable_clear(&runtime->fds, fd);
}

static bool is_empty(const struct msghdr *message) {
    for (size_t i = 0; i < message->msg_iovlen; i++)
        if (message->msg_iov[i].iov_len > 0) return false;
    return true;
}

/* Without room for a byte, read returns at once; recv waits for one, and takes none. */
static ssize_t receive_nothing(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int flags,
                               enum odb_family family) {
    char byte;
    struct iovec iov = {&byte, 1};
    if (family == ODB_FILE_CALL) return 0;
    ssize_t got = odb_stream_receive(runtime, stream, fd, &iov, 1, (flags & MSG_DONTWAIT) | MSG_PEEK);
    return got < 0 ? got : 0;
}

ssize_t odb_receive(struct odb_runtime *runtime, int fd, struct msghdr *message, int flags, enum odb_family family) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream || (flags & (MSG_OOB | MSG_ERRQUEUE))) {
        if (stream) odb_fdtable_let_go(&runtime->fds, stream);
        if (family == ODB_SOCKET_CALL) odb_requester_is(ODB_REQUESTER_SELF);
        int lost = stream ? 0 : odb_gather_lost(&runtime->gather, fd);
        if (lost) return as_result(-lost);
        return receive_kernel(runtime, fd, message, flags, family);
    }
    ssize_t got = is_empty(message)
                      ? receive_nothing(runtime, stream, fd, flags, family)
                      : odb_stream_receive(runtime, stream, fd, message->msg_iov, (int)message->msg_iovlen, flags);
    if (odb_stream_is_over(stream))
        leave_table(runtime, stream, fd);
    else
        odb_waiting_after_receive(runtime, stream, fd);
    odb_fdtable_let_go(&runtime->fds, stream);
    if (got >= 0) {
        message->msg_namelen = 0;
        message->msg_controllen = 0;
        message->msg_flags = 0;
    }
    return as_result(got);
}

static ssize_t send_kernel(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags,
                           enum odb_family family) {
    ssize_t sent;
    enum odb_splice_out spliced = odb_splice_out(runtime, fd, message, flags, &sent);
    if (spliced == ODB_SPLICE_OUT_DONE) return as_result(sent);
    if (spliced == ODB_SPLICE_OUT_LOST || !make_real(runtime, message->msg_iov, message->msg_iovlen))
        return lost(runtime, fd);
    if (family == ODB_FILE_CALL && !flags) return odb_real.writev(fd, message->msg_iov, (int)message->msg_iovlen);
    return odb_real.sendmsg(fd, message, flags);
}

/* A message and what has been gathered before it, as one. -1 and errno 0: the message is to be sent by itself. */
static ssize_t send_behind(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags) {
    struct iovec iov[BEHIND + 1];
    struct msghdr both = *message;
    errno = 0;
    if (odb_gather_else_sent(&runtime->gather, fd) || message->msg_iovlen > BEHIND || message->msg_namelen > 0 ||
        message->msg_controllen > 0 || (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)))
        odb_gather_flush(runtime);
    else if (odb_gather_leave(runtime, fd, iov)) {
        memcpy(iov + 1, message->msg_iov, message->msg_iovlen * sizeof *iov);
        both.msg_iov = iov;
        both.msg_iovlen = message->msg_iovlen + 1;
        return odb_gather_left(runtime, fd, iov, send_kernel(runtime, fd, &both, flags, ODB_SOCKET_CALL));
    }
    return -1;
}

/* To a descriptor that is no stream. */
static ssize_t send_plain(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags,
                          enum odb_family family) {
    int lost = odb_gather_lost(&runtime->gather, fd);
    if (lost) return as_result(-lost);
    ssize_t taken = odb_gather_take(runtime, fd, message, flags);
    if (taken >= 0) return taken;
    ssize_t sent = send_behind(runtime, fd, message, flags);
    return sent >= 0 || errno ? sent : send_kernel(runtime, fd, message, flags, family);
}

/* Urgent data is one byte that TCP carries beside the others: what comes before it in the same call travels in frames, it does not. */
static ssize_t send_urgent(struct odb_runtime *runtime, struct odb_stream *stream, int fd, const struct msghdr *message,
                           int flags) {
    struct iovec parts[IOV_MAX], *last = NULL;
    int count = 0;
    for (size_t i = 0; i < message->msg_iovlen && i < IOV_MAX; i++)
        if (message->msg_iov[i].iov_len > 0) last = &parts[count], parts[count++] = message->msg_iov[i];
    if (!last) return 0;
    char *urgent = (char *)last->iov_base + --last->iov_len;
    struct iovec byte = {urgent, 1};
    struct msghdr rest = {.msg_iov = &byte, .msg_iovlen = 1};
    ssize_t before = last == parts && last->iov_len == 0
                         ? 0
                         : as_result(odb_stream_send(runtime, stream, fd, parts, count, flags & ~MSG_OOB));
    size_t total = 0;
    for (int i = 0; i < count; i++) total += parts[i].iov_len;
    if (before < 0 || (size_t)before < total) return before;
    odb_hold_release_one(runtime, fd);
    ssize_t sent = send_kernel(runtime, fd, &rest, flags, ODB_SOCKET_CALL);
    return sent > 0 ? before + sent : before > 0 ? before : sent;
}

/* To send nothing is to ask the kernel for errors: it says nothing to the peer, so it does not decide who speaks how. */
ssize_t odb_send(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags, enum odb_family family) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return send_plain(runtime, fd, message, flags, family);
    ssize_t sent;
    if (is_empty(message) || !odb_stream_frames_out(runtime, stream, fd))
        sent = send_kernel(runtime, fd, message, flags, family);
    else if ((flags & MSG_ZEROCOPY) && odb_sockopt_wants_classic(runtime, fd))
        sent = as_result(-ENOBUFS); /* the kernel's way of saying: copy */
    else if (flags & MSG_OOB)
        sent = send_urgent(runtime, stream, fd, message, flags);
    else
        sent = as_result(odb_stream_send(runtime, stream, fd, message->msg_iov, (int)message->msg_iovlen, flags));
    odb_fdtable_let_go(&runtime->fds, stream);
    return sent;
}

static ssize_t sendfile_stream(struct odb_runtime *runtime, struct odb_stream *stream, int out, int in, off64_t *offset,
                               size_t size) {
    struct stat status;
    if (size == 0 || fstat(in, &status) != 0 || !S_ISREG(status.st_mode)) {
        errno = EINVAL; /* what the kernel says of files it cannot send; callers fall back to reading */
        return size == 0 ? 0 : -1;
    }
    off64_t position = offset ? *offset : lseek64(in, 0, SEEK_CUR);
    if (position < 0) {
        errno = EINVAL;
        return -1;
    }
    if (position >= status.st_size) return 0;
    off64_t left = status.st_size - position; /* behind the end of the file there is nothing to send */
    if ((uint64_t)left < size) size = (size_t)left;
    struct odb_file_range range = {.file = in, .offset = (uint64_t)position, .length = size};
    odb_file_version_of(&status, &range.version);
    ssize_t sent = odb_stream_send_file(runtime, stream, out, &range);
    if (sent <= 0) return as_result(sent);
    if (offset)
        *offset = position + sent;
    else
        lseek64(in, position + sent, SEEK_SET);
    return sent;
}

ssize_t odb_sendfile(struct odb_runtime *runtime, int out, int in, off64_t *offset, size_t size) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, out);
    if (!stream) return odb_real.sendfile64(out, in, offset, size);
    ssize_t sent;
    if (odb_stream_frames_out(runtime, stream, out))
        sent = sendfile_stream(runtime, stream, out, in, offset, size);
    else
        sent = odb_real.sendfile64(out, in, offset, size);
    odb_fdtable_let_go(&runtime->fds, stream);
    return sent;
}

ssize_t odb_preadv(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset) {
    ssize_t got;
    if (offset >= 0 && take_read(runtime, fd, iov, count, offset, &got)) return as_result(got);
    if (make_real(runtime, iov, (size_t)count)) return odb_real.preadv64(fd, iov, count, offset);
    errno = EIO;
    return -1;
}

ssize_t odb_pwritev(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset) {
    if (make_real(runtime, iov, (size_t)count)) return odb_real.pwritev64(fd, iov, count, offset);
    errno = EIO;
    return -1;
}

/* At offset -1 they are readv and writev with flags; a stream has no other offset. What the flags promise about disks does not concern it. */
static bool as_stream(struct odb_runtime *runtime, int fd, off64_t offset, int flags, int *message_flags) {
    if (offset != -1 || (flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT)) != 0 ||
        !odb_fdtable_has(&runtime->fds, fd))
        return false;
    *message_flags = flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
    return true;
}

ssize_t odb_preadv2(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset,
                    int flags) {
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    int message_flags;
    if (as_stream(runtime, fd, offset, flags, &message_flags))
        return odb_receive(runtime, fd, &message, message_flags, ODB_SOCKET_CALL);
    if (make_real(runtime, iov, (size_t)count)) return odb_real.preadv2(fd, iov, count, offset, flags);
    errno = EIO;
    return -1;
}

ssize_t odb_pwritev2(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset,
                     int flags) {
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    int message_flags;
    if (as_stream(runtime, fd, offset, flags, &message_flags))
        return odb_send(runtime, fd, &message, message_flags, ODB_SOCKET_CALL);
    if (make_real(runtime, iov, (size_t)count)) return odb_real.pwritev2(fd, iov, count, offset, flags);
    errno = EIO;
    return -1;
}

ssize_t odb_vmsplice(struct odb_runtime *runtime, int fd, const struct iovec *iov, size_t count, unsigned flags) {
    if (count > IOV_MAX || make_real(runtime, iov, count)) return odb_real.vmsplice(fd, iov, count, flags);
    errno = EIO;
    return -1;
}
