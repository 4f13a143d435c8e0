/* splice_out.c: cuts a message into windows that are spliced and memory that is sent. */
#include "core/splice_out.h"

#include "core/outlet.h"
#include "os/real.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

enum { PIECES = 64, LEAST = 8192 };

struct sending {
    struct odb_runtime *runtime;
    int fd, flags;
    struct iovec real[PIECES]; /* to be sent before what comes next */
    int count;
    ssize_t total; /* sent so far */
    int error;     /* what the socket said */
    bool stopped;  /* it is full or has failed */
    bool lost;
};

/* Splicing has neither message flags nor addresses, and waits only where nothing else can be done. */
static bool takes_splices(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags) {
    int protocol = 0;
    socklen_t size = sizeof protocol;
    if (message->msg_namelen > 0 || message->msg_controllen > 0 || (flags & ~(MSG_DONTWAIT | MSG_MORE))) return false;
    if (odb_outlet_is_known(&runtime->fds, fd)) return true;
    return odb_outlet_never_waits(&runtime->fds, fd) &&
           odb_real.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 && protocol == IPPROTO_TCP;
}

static size_t find(struct odb_runtime *runtime, const char *at, size_t left, struct odb_span *span, bool *spliced) {
    size_t plain = left, found = odb_windows_find(&runtime->windows, at, left, span, &plain);
    *spliced = found >= LEAST && odb_splice_out_may(runtime, span);
    return found > 0 ? found : plain;
}

static bool any_to_splice(struct odb_runtime *runtime, const struct msghdr *message) {
    struct odb_span span;
    bool spliced = false;
    for (size_t i = 0; i < message->msg_iovlen && !spliced; i++) {
        const char *at = message->msg_iov[i].iov_base;
        for (size_t left = message->msg_iov[i].iov_len, size; left > 0 && !spliced; at += size, left -= size)
            size = find(runtime, at, left, &span, &spliced);
    }
    return spliced;
}

static void stop(struct sending *sending, int error) {
    sending->stopped = true;
    sending->error = error;
}

static void send_real(struct sending *sending, int more) {
    struct msghdr message = {.msg_iov = sending->real, .msg_iovlen = (size_t)sending->count};
    ssize_t wanted = 0, sent;
    for (int i = 0; i < sending->count; i++) wanted += (ssize_t)sending->real[i].iov_len;
    if (wanted == 0 || sending->stopped) return;
    if (odb_windows_materialise(&sending->runtime->windows, sending->real, sending->count) != 0) {
        sending->stopped = sending->lost = true;
        return;
    }
    sending->count = 0;
    do sent = odb_real.sendmsg(sending->fd, &message, sending->flags | more);
    while (sent < 0 && errno == EINTR);
    if (sent > 0) sending->total += sent;
    if (sent < wanted) stop(sending, sent < 0 ? errno : EAGAIN);
}

static void add_real(struct sending *sending, const char *at, size_t length) {
    if (sending->count == PIECES) send_real(sending, MSG_MORE);
    if (!sending->stopped)
        sending->real[sending->count++] = (struct iovec){.iov_base = (void *)(uintptr_t)at, .iov_len = length};
}

/* What the channel does not yield is sent as memory. */
static void splice_window(struct sending *sending, const char *at, const struct odb_span *span, bool last) {
    uint64_t sent = 0;
    int error = 0;
    send_real(sending, MSG_MORE);
    if (sending->stopped) return;
    unsigned flags = last && !(sending->flags & MSG_MORE) ? 0 : SPLICE_F_MORE;
    enum odb_pushed_end end =
        odb_pushed_splice(&sending->runtime->channels.pushed, span, sending->fd, flags, &sent, &error);
    sending->total += (ssize_t)sent;
    if (end == ODB_PUSHED_FULL || end == ODB_PUSHED_REFUSED)
        stop(sending, error);
    else if (end != ODB_PUSHED_SENT)
        add_real(sending, at + sent, span->length - sent);
}

static void send_all(struct sending *sending, const struct msghdr *message) {
    size_t ends = message->msg_iovlen;
    while (ends > 0 && message->msg_iov[ends - 1].iov_len == 0) ends--;
    for (size_t i = 0; i < ends; i++) {
        const char *at = message->msg_iov[i].iov_base;
        for (size_t left = message->msg_iov[i].iov_len, size; left > 0 && !sending->stopped; at += size, left -= size) {
            struct odb_span span;
            bool spliced;
            size = find(sending->runtime, at, left, &span, &spliced);
            if (spliced)
                splice_window(sending, at, &span, i + 1 == ends && size == left);
            else
                add_real(sending, at, size);
        }
    }
    send_real(sending, 0);
}

/* Lets the kernel send what it holds back, unless the application itself has told it to. */
static void push_out(int fd) {
    int corked = 0;
    socklen_t size = sizeof corked;
    if (odb_real.getsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, &size) == 0 && !corked)
        odb_real.setsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, sizeof corked);
}

enum odb_splice_out odb_splice_out(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags,
                                   ssize_t *result) {
    struct sending sending = {.runtime = runtime, .fd = fd, .flags = flags};
    if (!runtime->options.splice || !odb_windows_any(&runtime->windows) || !any_to_splice(runtime, message) ||
        !takes_splices(runtime, fd, message, flags))
        return ODB_SPLICE_OUT_NOT;
    send_all(&sending, message);
    /* What went before may have been sent as if more followed, and the kernel may hold a part of a segment back for it. A socket that is full has to drain. */
    if (sending.error == EAGAIN) push_out(fd);
    if (sending.lost) return ODB_SPLICE_OUT_LOST;
    *result = sending.total > 0 || !sending.error ? sending.total : -sending.error;
    return ODB_SPLICE_OUT_DONE;
}
