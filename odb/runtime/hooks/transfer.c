/* transfer.c: hooks of the calls that move data through sockets and pipes. */
#include "core/handover.h"
#include "core/reads.h"
#include "core/splice.h"
#include "core/transfer.h"

#include "hooks/given.h"

static ssize_t receive(struct odb_runtime *runtime, int fd, void *buffer, size_t size, int flags,
                       enum odb_family family) {
    struct iovec iov = {buffer, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    return ODB_KEEPING_ERRNO(odb_receive(runtime, fd, &message, flags, family));
}

static ssize_t transmit(struct odb_runtime *runtime, int fd, const void *buffer, size_t size, int flags,
                        enum odb_family family) {
    struct iovec iov = {(void *)(uintptr_t)buffer, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    return ODB_KEEPING_ERRNO(odb_send(runtime, fd, &message, flags, family));
}

/* Does a read by a call for any descriptor need more than the kernel? */
static bool reads(struct odb_runtime *runtime, int fd, size_t size) {
    return runtime && (odb_transfer_matters(runtime, fd) || odb_reads_may(runtime, size));
}

ODB_EXPORT ssize_t read(int fd, void *buffer, size_t size) {
    struct odb_runtime *runtime = odb_enter_receive(fd);
    if (!reads(runtime, fd, size)) return odb_real.read(fd, buffer, size);
    return receive(runtime, fd, buffer, size, 0, ODB_FILE_CALL);
}

ODB_EXPORT ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room) {
    struct odb_runtime *runtime = odb_enter_receive(fd);
    if (size > room || !reads(runtime, fd, size)) return odb_real.__read_chk(fd, buffer, size, room);
    return receive(runtime, fd, buffer, size, 0, ODB_FILE_CALL);
}

ODB_EXPORT ssize_t recv(int fd, void *buffer, size_t size, int flags) {
    struct odb_runtime *runtime = odb_enter_receive(fd);
    if (!runtime || !odb_transfer_matters(runtime, fd)) return odb_real.recv(fd, buffer, size, flags);
    return receive(runtime, fd, buffer, size, flags, ODB_SOCKET_CALL);
}

ODB_EXPORT ssize_t __recv_chk(int fd, void *buffer, size_t size, size_t room, int flags) {
    struct odb_runtime *runtime = odb_enter_receive(fd);
    if (!runtime || size > room || !odb_transfer_matters(runtime, fd))
        return odb_real.__recv_chk(fd, buffer, size, room, flags);
    return receive(runtime, fd, buffer, size, flags, ODB_SOCKET_CALL);
}

static int refuse(void) {
    errno = EFAULT;
    return -1;
}

static ssize_t receive_from(struct odb_runtime *runtime, int fd, void *buffer, size_t size, int flags,
                            struct sockaddr *address, socklen_t *length) {
    struct iovec iov = {buffer, size};
    if (address && length && !odb_given_is_there(length, sizeof *length)) return refuse();
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_name = address, .msg_namelen = address && length ? *length : 0};
    ssize_t got = ODB_KEEPING_ERRNO(odb_receive(runtime, fd, &message, flags, ODB_SOCKET_CALL));
    if (got >= 0 && address && length) *length = message.msg_namelen;
    return got;
}

ODB_EXPORT ssize_t recvfrom(int fd, void *buffer, size_t size, int flags, struct sockaddr *address, socklen_t *length) {
    struct odb_runtime *runtime = odb_enter_receive(fd);
    odb_given_address(runtime, address, length);
    if (!runtime || !odb_transfer_matters(runtime, fd))
        return odb_real.recvfrom(fd, buffer, size, flags, address, length);
    return receive_from(runtime, fd, buffer, size, flags, address, length);
}

ODB_EXPORT ssize_t __recvfrom_chk(int fd, void *buffer, size_t size, size_t room, int flags, struct sockaddr *address,
                                  socklen_t *length) {
    struct odb_runtime *runtime = odb_enter_receive(fd);
    odb_given_address(runtime, address, length);
    if (!runtime || size > room || !odb_transfer_matters(runtime, fd))
        return odb_real.__recvfrom_chk(fd, buffer, size, room, flags, address, length);
    return receive_from(runtime, fd, buffer, size, flags, address, length);
}

ODB_EXPORT ssize_t readv(int fd, const struct iovec *iov, int count) {
    struct odb_runtime *runtime = odb_enter_receive(fd);
    if (!reads(runtime, fd, SIZE_MAX) || !odb_given_vector(iov, count)) return odb_real.readv(fd, iov, count);
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    return ODB_KEEPING_ERRNO(odb_receive(runtime, fd, &message, 0, ODB_FILE_CALL));
}

ODB_EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    struct odb_runtime *runtime = odb_enter_receive(fd);
    if (!runtime || !odb_given_message(message)) return odb_real.recvmsg(fd, message, flags);
    odb_given_parts(runtime, message);
    bool control = message->msg_control && message->msg_controllen > 0;
    if ((!control && !odb_transfer_matters(runtime, fd))) return odb_real.recvmsg(fd, message, flags);
    int saved = errno;
    ssize_t got = odb_receive(runtime, fd, message, flags, ODB_SOCKET_CALL);
    if (got >= 0 && control) odb_handover_after_receive(runtime, message);
    if (got >= 0) errno = saved;
    return got;
}

/* For descriptors that are no streams: only guarded memory concerns us. */
static void make_real(struct odb_runtime *runtime, const struct mmsghdr *messages, unsigned int count) {
    int saved = errno;
    for (unsigned int i = 0; i < count; i++)
        odb_windows_materialise(&runtime->windows, messages[i].msg_hdr.msg_iov, (int)messages[i].msg_hdr.msg_iovlen);
    errno = saved;
}

/* Descriptors that came along: some may be streams of whoever sent them. */
static void take_rights(struct odb_runtime *runtime, struct mmsghdr *messages, unsigned int count) {
    int saved = errno;
    for (unsigned int i = 0; i < count; i++)
        if (messages[i].msg_hdr.msg_control) odb_handover_after_receive(runtime, &messages[i].msg_hdr);
    errno = saved;
}

static void offer_rights(struct odb_runtime *runtime, const struct mmsghdr *messages, unsigned int count) {
    int saved = errno;
    for (unsigned int i = 0; i < count; i++)
        if (messages[i].msg_hdr.msg_control) odb_handover_before_send(runtime, &messages[i].msg_hdr);
    errno = saved;
}

/* How many of them are there; the kernel looks at no more than IOV_MAX. */
static unsigned int given_messages(struct odb_runtime *runtime, const struct mmsghdr *messages, unsigned int count) {
    unsigned int there = 0;
    for (; there < count && there < IOV_MAX && odb_given_is_there(&messages[there], sizeof *messages); there++) {
        if (!odb_given_message(&messages[there].msg_hdr)) break;
        odb_given_parts(runtime, &messages[there].msg_hdr);
    }
    return there;
}

/* Message by message: a stream has no message borders to keep. */
ODB_EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout) {
    struct odb_runtime *runtime = odb_enter();
    odb_given(runtime, timeout, sizeof *timeout);
    if (!runtime || !odb_fdtable_has(&runtime->fds, fd)) {
        if (runtime && odb_windows_any(&runtime->windows))
            make_real(runtime, messages, given_messages(runtime, messages, count));
        int got = odb_real.recvmmsg(fd, messages, count, flags, timeout);
        if (runtime && got > 0) take_rights(runtime, messages, (unsigned)got);
        return got;
    }
    unsigned int done = 0;
    int saved = errno;
    for (; done < count; done++) {
        int more = done > 0 && (flags & MSG_WAITFORONE) ? MSG_DONTWAIT : 0;
        if (!odb_given_is_there(&messages[done], sizeof *messages)) return done > 0 ? (int)done : refuse();
        ssize_t got = recvmsg(fd, &messages[done].msg_hdr, (flags & ~MSG_WAITFORONE) | more);
        if (got < 0 && done == 0) return -1;
        if (got < 0) break;
        messages[done].msg_len = (unsigned int)got;
    }
    errno = saved;
    return (int)done;
}

ODB_EXPORT ssize_t write(int fd, const void *buffer, size_t size) {
    struct odb_runtime *runtime = odb_enter_send(fd);
    if (!runtime || !odb_transfer_matters(runtime, fd)) return odb_real.write(fd, buffer, size);
    return transmit(runtime, fd, buffer, size, 0, ODB_FILE_CALL);
}

ODB_EXPORT ssize_t send(int fd, const void *buffer, size_t size, int flags) {
    struct odb_runtime *runtime = odb_enter_send(fd);
    if (!runtime || !odb_transfer_matters(runtime, fd)) return odb_real.send(fd, buffer, size, flags);
    return transmit(runtime, fd, buffer, size, flags, ODB_SOCKET_CALL);
}

ODB_EXPORT ssize_t sendto(int fd, const void *buffer, size_t size, int flags, const struct sockaddr *address,
                          socklen_t length) {
    struct odb_runtime *runtime = odb_enter_send(fd);
    odb_given(runtime, address, length);
    if (!runtime || !odb_transfer_matters(runtime, fd))
        return odb_real.sendto(fd, buffer, size, flags, address, length);
    struct iovec iov = {(void *)(uintptr_t)buffer, size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_name = (void *)(uintptr_t)address, .msg_namelen = length};
    return ODB_KEEPING_ERRNO(odb_send(runtime, fd, &message, flags, ODB_SOCKET_CALL));
}

ODB_EXPORT ssize_t writev(int fd, const struct iovec *iov, int count) {
    struct odb_runtime *runtime = odb_enter_send(fd);
    if (!runtime || !odb_transfer_matters(runtime, fd) || !odb_given_vector(iov, count))
        return odb_real.writev(fd, iov, count);
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    return ODB_KEEPING_ERRNO(odb_send(runtime, fd, &message, 0, ODB_FILE_CALL));
}

ODB_EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    struct odb_runtime *runtime = odb_enter_send(fd);
    if (!runtime || !odb_given_message(message)) return odb_real.sendmsg(fd, message, flags);
    odb_given_parts(runtime, message);
    int saved = errno;
    if (message->msg_control && message->msg_controllen > 0) odb_handover_before_send(runtime, message);
    errno = saved;
    if (!odb_transfer_matters(runtime, fd)) return odb_real.sendmsg(fd, message, flags);
    return ODB_KEEPING_ERRNO(odb_send(runtime, fd, message, flags, ODB_SOCKET_CALL));
}

ODB_EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
    struct odb_runtime *runtime = odb_enter();
    if (!runtime || !odb_transfer_matters(runtime, fd)) {
        if (runtime) offer_rights(runtime, messages, given_messages(runtime, messages, count));
        return odb_real.sendmmsg(fd, messages, count, flags);
    }
    unsigned int done = 0;
    int saved = errno;
    for (; done < count; done++) {
        if (!odb_given_is_there(&messages[done], sizeof *messages)) return done > 0 ? (int)done : refuse();
        ssize_t sent = sendmsg(fd, &messages[done].msg_hdr, flags);
        if (sent < 0 && done == 0) return -1;
        if (sent < 0) break;
        messages[done].msg_len = (unsigned int)sent;
    }
    errno = saved;
    return (int)done;
}

ODB_EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
    struct odb_runtime *runtime = odb_enter();
    odb_given(runtime, offset, sizeof *offset);
    if (!runtime || !odb_fdtable_has(&runtime->fds, out) || (offset && !odb_given_is_there(offset, sizeof *offset)))
        return odb_real.sendfile(out, in, offset, size);
    return ODB_KEEPING_ERRNO(odb_sendfile(runtime, out, in, offset, size));
}

ODB_EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) {
    struct odb_runtime *runtime = odb_enter();
    odb_given(runtime, offset, sizeof *offset);
    if (!runtime || !odb_fdtable_has(&runtime->fds, out) || (offset && !odb_given_is_there(offset, sizeof *offset)))
        return odb_real.sendfile64(out, in, offset, size);
    return ODB_KEEPING_ERRNO(odb_sendfile(runtime, out, in, offset, size));
}

ODB_EXPORT ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size, unsigned int flags) {
    struct odb_runtime *runtime = odb_enter();
    odb_given(runtime, in_offset, sizeof *in_offset);
    odb_given(runtime, out_offset, sizeof *out_offset);
    if (!runtime || (!odb_fdtable_has(&runtime->fds, in) && !odb_fdtable_has(&runtime->fds, out)))
        return odb_real.splice(in, in_offset, out, out_offset, size, flags);
    return ODB_KEEPING_ERRNO(odb_splice(runtime, in, in_offset, out, out_offset, size, flags));
}

ODB_EXPORT ssize_t vmsplice(int fd, const struct iovec *iov, size_t count, unsigned int flags) {
    struct odb_runtime *runtime = odb_enter();
    if (!runtime || !odb_windows_any(&runtime->windows) || !odb_given_vector(iov, (long)count))
        return odb_real.vmsplice(fd, iov, count, flags);
    return ODB_KEEPING_ERRNO(odb_vmsplice(runtime, fd, iov, count, flags));
}

ODB_ALIAS(read, __read);
ODB_ALIAS(write, __write);
ODB_ALIAS(send, __send);
