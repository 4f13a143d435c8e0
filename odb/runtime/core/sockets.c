/* sockets.c: rules decide which connections become streams; descriptors that come and go keep the table right. */
#include "core/sockets.h"

#include "core/activation.h"
#include "core/outlet.h"
#include "core/receive.h"
#include "core/sockopt.h"
#include "core/transmit.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

static bool is_stream_socket(int fd) {
    int type = 0;
    socklen_t size = sizeof type;
    return odb_real.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

static void make_stream(struct odb_runtime *runtime, int fd, enum odb_out_mode out, const struct sockaddr *peer) {
    uint16_t port;
    odb_stats_open(&runtime->stats, runtime->options.stats_dir);
    struct odb_stream *stream = odb_fdtable_new_stream(&runtime->fds);
    if (!stream) {
        odb_count(&runtime->stats, ODB_STAT_fallback_no_memory, 1);
        return;
    }
    atomic_store(&stream->out_mode, out);
    if (odb_address_from(peer, stream->peer, &port) && out == ODB_OUT_HELLO) stream->peer_port = port;
    odb_sockopt_adopt(runtime, stream, fd);
    odb_fdtable_set(&runtime->fds, fd, stream);
}

int odb_accept(struct odb_runtime *runtime, int fd, struct sockaddr *address, socklen_t *length, int flags) {
    struct sockaddr_storage own;
    socklen_t own_length = sizeof own, room = length ? *length : 0;
    bool frames = odb_activation_accepts(runtime, fd);
    int accepted = frames ? odb_real.accept4(fd, (struct sockaddr *)&own, &own_length, flags)
                          : odb_real.accept4(fd, address, length, flags);
    if (accepted >= 0 && !odb_runtime_is_foreign(runtime)) odb_outlet_made(&runtime->fds, accepted);
    if (!frames || accepted < 0) return accepted;
    if (address && length) {
        memcpy(address, &own, own_length < room ? own_length : room);
        *length = own_length;
    }
    make_stream(runtime, accepted, ODB_OUT_OPEN, (struct sockaddr *)&own);
    return accepted;
}

/* A second connect() asks how the first one went: what was decided then holds. */
static bool is_unconnected(int fd) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    return odb_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == TCP_CLOSE;
}

static bool opens_framed(struct odb_runtime *runtime, int fd, const uint8_t peer[16], uint16_t port) {
    bool ruled = odb_rules_match(&runtime->options.connect, peer, port);
    return (ruled || odb_activation_may_ask(runtime, peer, port)) && !odb_fdtable_has(&runtime->fds, fd) &&
           is_stream_socket(fd) && (ruled || (is_unconnected(fd) && odb_activation_asks(runtime, peer, port))) &&
           !odb_sockopt_wants_classic(runtime, fd);
}

int odb_connect(struct odb_runtime *runtime, int fd, const struct sockaddr *address, socklen_t length) {
    uint8_t peer[16];
    uint16_t port;
    int saved = errno;
    bool framed = odb_activation_may_open(runtime) && address && length >= sizeof(sa_family_t) &&
                  odb_address_from(address, peer, &port) && opens_framed(runtime, fd, peer, port);
    errno = saved;
    int result = odb_real.connect(fd, address, length);
    bool failed = result < 0 && errno != EINPROGRESS && errno != EINTR;
    if (!framed) return result;
    int error = errno;
    if (failed) {
        odb_activation_failed(runtime, peer, port);
    } else {
        make_stream(runtime, fd, ODB_OUT_HELLO, address);
        odb_count(&runtime->stats, ODB_STAT_streams_framed, 1);
    }
    errno = result < 0 ? error : saved;
    return result;
}

int odb_listening(struct odb_runtime *runtime, int fd, int backlog) {
    int result = odb_real.listen(fd, backlog);
    if (result == 0 && !odb_runtime_is_foreign(runtime)) odb_activation_listens(runtime, fd);
    return result;
}

int odb_shutdown(struct odb_runtime *runtime, int fd, int how) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return odb_real.shutdown(fd, how);
    int error = odb_stream_shutdown(stream, fd, how);
    odb_fdtable_let_go(&runtime->fds, stream);
    if (error) errno = -error;
    return error ? -1 : 0;
}

void odb_forget_descriptor(struct odb_runtime *runtime, int fd) {
    if (fd < 0) return;
    odb_activation_forget(runtime, fd);
    odb_outlet_forget(&runtime->fds, fd);
    odb_interest_close(&runtime->interests, fd);
    odb_fdtable_clear(&runtime->fds, fd);
}

void odb_leave_descriptor(struct odb_runtime *runtime, int fd) {
    if (fd >= 0 && odb_fdtable_has(&runtime->fds, fd)) odb_hold_release_one(runtime, fd);
    odb_gather_close(runtime, fd);
    odb_forget_descriptor(runtime, fd);
}

/* Nothing of ours hangs on it: it is closed in the same way whoever closes it. */
static bool is_plain(struct odb_runtime *runtime, int fd) {
    return fd >= 0 && fd < ODB_FDS && !odb_fds_is_internal(fd) && !odb_fdtable_has(&runtime->fds, fd) &&
           atomic_load_explicit(&runtime->fds.slots[fd].listener, memory_order_relaxed) == ODB_LISTENER_UNKNOWN &&
           !odb_outlet_has_memory(&runtime->fds, fd) && !odb_interest_may_know(&runtime->interests, fd);
}

int odb_close(struct odb_runtime *runtime, int fd) {
    odb_gather_close(runtime, fd);
    if (is_plain(runtime, fd) || odb_runtime_is_foreign(runtime)) return odb_real.close(fd);
    if (odb_fds_is_internal(fd)) {
        errno = EBADF;
        return -1;
    }
    odb_leave_descriptor(runtime, fd);
    return odb_real.close(fd);
}

static int close_run(unsigned first, unsigned last, int flags) {
    if (odb_real.close_range) return odb_real.close_range(first, last, flags);
    errno = ENOSYS;
    return -1;
}

/* In runs between the library's own descriptors. */
int odb_close_range(struct odb_runtime *runtime, unsigned first, unsigned last, int flags) {
    if (odb_runtime_is_foreign(runtime) || first > last) return close_run(first, last, flags);
    unsigned top = last < ODB_FDS ? last : ODB_FDS - 1, begin = first;
    bool closes = !((unsigned)flags & CLOSE_RANGE_CLOEXEC);
    for (unsigned fd = first; fd <= top; fd++) {
        if (!odb_fds_is_internal((int)fd)) {
            if (closes) odb_leave_descriptor(runtime, (int)fd);
            continue;
        }
        if (begin < fd && close_run(begin, fd - 1, flags) != 0) return -1;
        begin = fd + 1;
    }
    return begin <= last ? close_run(begin, last, flags) : 0;
}

int odb_duplicated(struct odb_runtime *runtime, int from, int to) {
    if (to < 0 || odb_runtime_is_foreign(runtime)) return to;
    if (to < ODB_FDS)
        atomic_store_explicit(&runtime->fds.slots[to].listener, ODB_LISTENER_UNKNOWN, memory_order_relaxed);
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, from);
    if (stream || odb_fdtable_has(&runtime->fds, to)) odb_fdtable_set(&runtime->fds, to, stream);
    odb_outlet_copied(&runtime->fds, from, to);
    return to;
}

/* A descriptor of ours that the application picks as a target: it cannot know, so it gets what a busy table gives. */
int odb_dup2(struct odb_runtime *runtime, int from, int to, int flags) {
    bool foreign = odb_runtime_is_foreign(runtime);
    if (!foreign && odb_fds_is_internal(to)) {
        errno = EBUSY;
        return -1;
    }
    if (from == to) return flags < 0 ? odb_real.dup2(from, to) : odb_real.dup3(from, to, flags);
    if (!foreign && odb_fdtable_has(&runtime->fds, to)) odb_hold_release_one(runtime, to);
    if (!foreign) odb_gather_close(runtime, to);
    int result = flags < 0 ? odb_real.dup2(from, to) : odb_real.dup3(from, to, flags);
    if (result < 0 || foreign) return result;
    odb_forget_descriptor(runtime, to);
    return odb_duplicated(runtime, from, result);
}

bool odb_available(struct odb_runtime *runtime, int fd, int *bytes) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return false;
    size_t available = odb_stream_available(runtime, stream, fd);
    if (available > 0)
        odb_interest_owe(&runtime->interests, fd); /* taken from the kernel, which no longer reports it */
    odb_fdtable_let_go(&runtime->fds, stream);
    *bytes = available > INT_MAX ? INT_MAX : (int)available;
    return true;
}
