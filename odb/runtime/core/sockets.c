/* sockets.c: rules decide which connections become streams; descriptors that come and go keep the table right. */
#include "core/sockets.h"

#include "core/receive.h"
#include "core/sockopt.h"
#include "core/transmit.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>

/* Does a rule name the port that `fd` listens on? Asked once per listening descriptor. */
static bool listens_for_odb(struct odb_runtime *runtime, int fd) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    uint8_t local[16];
    uint16_t port;
    if (fd < 0 || fd >= ODB_FDS || runtime->options.listen.count == 0) return false;
    _Atomic uint8_t *listener = &runtime->fds.slots[fd].listener;
    uint8_t known = atomic_load_explicit(listener, memory_order_relaxed);
    if (known != ODB_LISTENER_UNKNOWN) return known == ODB_LISTENER_RULED;
    bool ruled = getsockname(fd, (struct sockaddr *)&address, &length) == 0 && odb_address_from((struct sockaddr *)&address, local, &port) &&
                 odb_rules_match(&runtime->options.listen, local, port);
    atomic_store_explicit(listener, ruled ? ODB_LISTENER_RULED : ODB_LISTENER_PLAIN, memory_order_relaxed);
    return ruled;
}

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
    odb_address_from(peer, stream->peer, &port);
    odb_sockopt_adopt(runtime, stream, fd);
    odb_fdtable_set(&runtime->fds, fd, stream);
}

int odb_accept(struct odb_runtime *runtime, int fd, struct sockaddr *address, socklen_t *length, int flags) {
    struct sockaddr_storage own;
    socklen_t own_length = sizeof own, room = length ? *length : 0;
    bool ruled = listens_for_odb(runtime, fd);
    if (!ruled) return odb_real.accept4(fd, address, length, flags);
    int accepted = odb_real.accept4(fd, (struct sockaddr *)&own, &own_length, flags);
    if (accepted < 0) return accepted;
    if (address && length) {
        memcpy(address, &own, own_length < room ? own_length : room);
        *length = own_length;
    }
    make_stream(runtime, accepted, ODB_OUT_OPEN, (struct sockaddr *)&own);
    return accepted;
}

int odb_connect(struct odb_runtime *runtime, int fd, const struct sockaddr *address, socklen_t length) {
    uint8_t peer[16];
    uint16_t port;
    bool ruled = runtime->options.connect.count > 0 && address && length >= sizeof(sa_family_t) && odb_address_from(address, peer, &port) &&
                 odb_rules_match(&runtime->options.connect, peer, port) && !odb_fdtable_has(&runtime->fds, fd) && is_stream_socket(fd) &&
                 !odb_sockopt_wants_classic(runtime, fd);
    int saved = errno, result = odb_real.connect(fd, address, length);
    if (!ruled || (result < 0 && errno != EINPROGRESS && errno != EINTR)) return result;
    int error = errno;
    make_stream(runtime, fd, ODB_OUT_HELLO, address);
    odb_count(&runtime->stats, ODB_STAT_streams_framed, 1);
    errno = result < 0 ? error : saved;
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
    odb_interest_close(&runtime->interests, fd);
    odb_fdtable_clear(&runtime->fds, fd);
}

int odb_close(struct odb_runtime *runtime, int fd) {
    if (odb_runtime_is_foreign(runtime)) return odb_real.close(fd);
    if (odb_fds_is_internal(fd)) {
        errno = EBADF;
        return -1;
    }
    odb_forget_descriptor(runtime, fd);
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
            if (closes) odb_forget_descriptor(runtime, (int)fd);
            continue;
        }
        if (begin < fd && close_run(begin, fd - 1, flags) != 0) return -1;
        begin = fd + 1;
    }
    return begin <= last ? close_run(begin, last, flags) : 0;
}

int odb_duplicated(struct odb_runtime *runtime, int from, int to) {
    if (to < 0 || odb_runtime_is_foreign(runtime)) return to;
    if (from < ODB_FDS && to < ODB_FDS && from >= 0)
        atomic_store_explicit(&runtime->fds.slots[to].listener, atomic_load_explicit(&runtime->fds.slots[from].listener, memory_order_relaxed), memory_order_relaxed);
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, from);
    if (stream || odb_fdtable_has(&runtime->fds, to)) odb_fdtable_set(&runtime->fds, to, stream);
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
    int result = flags < 0 ? odb_real.dup2(from, to) : odb_real.dup3(from, to, flags);
    if (result < 0 || foreign) return result;
    odb_interest_close(&runtime->interests, to);
    odb_fdtable_clear(&runtime->fds, to);
    return odb_duplicated(runtime, from, result);
}

bool odb_available(struct odb_runtime *runtime, int fd, int *bytes) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return false;
    size_t available = odb_stream_available(runtime, stream, fd);
    if (available > 0) odb_interest_owe(&runtime->interests, fd); /* taken from the kernel, which no longer reports it */
    odb_fdtable_let_go(&runtime->fds, stream);
    *bytes = available > INT_MAX ? INT_MAX : (int)available;
    return true;
}
