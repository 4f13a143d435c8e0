/* sockopt.c: socket options in application bytes. */
#include "core/sockopt.h"

#include "core/ahead.h"
#include "core/sharing.h"
#include "os/real.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

static int get_int(int fd, int level, int option) {
    int value = 0;
    socklen_t length = sizeof value;
    return odb_real.getsockopt(fd, level, option, &value, &length) == 0 ? value : 0;
}

static int set_int(int fd, int level, int option, int value) {
    return odb_real.setsockopt(fd, level, option, &value, sizeof value);
}

/* What the kernel makes of the value is read back: it has bounds of its own. It minds the mark itself where bytes are classic. */
static int set_low_water(struct odb_stream *stream, int fd, const void *value, socklen_t length) {
    if (odb_real.setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, value, length) != 0) return -1;
    int mark = get_int(fd, SOL_SOCKET, SO_RCVLOWAT);
    atomic_store(&stream->low_water, mark > 1 ? mark : 0);
    bool counts_itself = atomic_load(&stream->in.mode) == ODB_IN_CLASSIC;
    return mark > 1 && !counts_itself ? set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1) : 0;
}

/* The errno with which a kernel refuses an option that it does not have; 0 for all others. */
static int refusal(int level, int option) {
    if (level == SOL_SOCKET && option == SO_ZEROCOPY) return ENOPROTOOPT;
    if (level == SOL_SOCKET && option == SO_OOBINLINE) return ENOPROTOOPT;
    if (level == SOL_SOCKET && option == SO_PEEK_OFF) return EOPNOTSUPP;
    if (level == IPPROTO_TCP && option == TCP_ULP) return ENOENT;
    if (level == IPPROTO_TCP && (option == TCP_ZEROCOPY_RECEIVE || option == TCP_INQ)) return ENOPROTOOPT;
    return 0;
}

static int refuse(int error) {
    errno = error;
    return -1;
}

/* What decides how segments are cut and whether they wait; the runtime decides that where it holds sends. */
static bool is_pace(int level, int option) {
    return level == IPPROTO_TCP && (option == TCP_NODELAY || option == TCP_CORK);
}

static _Atomic int *pace_of(struct odb_stream *stream, int option) {
    return option == TCP_CORK ? &stream->tcp.corked : &stream->tcp.no_delay;
}

/* True: from now on the kernel's options are ours. */
static bool take_pace(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    if (atomic_load(&stream->tcp.ours)) return true;
    if (!odb_hold_may(runtime, stream, fd)) return false;
    atomic_store(&stream->tcp.no_delay, get_int(fd, IPPROTO_TCP, TCP_NODELAY));
    atomic_store(&stream->tcp.corked, get_int(fd, IPPROTO_TCP, TCP_CORK));
    if (set_int(fd, IPPROTO_TCP, TCP_CORK, 0) != 0 || set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1) != 0) return false;
    atomic_store(&stream->tcp.ours, true);
    return true;
}

static bool set_pace(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int option, const void *value,
                     socklen_t length) {
    int wanted;
    if (!value || length < sizeof wanted || !take_pace(runtime, stream, fd)) return false;
    memcpy(&wanted, value, sizeof wanted);
    atomic_store(pace_of(stream, option), wanted != 0);
    return true;
}

static bool is_send_buffer(int level, int option) {
    return level == SOL_SOCKET && (option == SO_SNDBUF || option == SO_SNDBUFFORCE);
}

static int set_on_stream(struct odb_runtime *runtime, struct odb_stream *stream, int fd, int level, int option,
                         const void *value, socklen_t length) {
    if (level == SOL_SOCKET && option == SO_RCVLOWAT) return set_low_water(stream, fd, value, length);
    int error = refusal(level, option);
    if (error) return refuse(error);
    if (is_pace(level, option) && set_pace(runtime, stream, fd, option, value, length)) return 0;
    int result = odb_real.setsockopt(fd, level, option, value, length);
    if (result == 0 && is_send_buffer(level, option)) odb_ahead_bound_by(stream, get_int(fd, SOL_SOCKET, SO_SNDBUF));
    return result;
}

int odb_setsockopt(struct odb_runtime *runtime, int fd, int level, int option, const void *value, socklen_t length) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) {
        if (level == SOL_SOCKET && option == SO_RCVLOWAT) atomic_store(&runtime->sockopts.low_water, true);
        if (level == SOL_SOCKET && option == SO_ZEROCOPY) atomic_store(&runtime->sockopts.zerocopy, true);
        if (is_send_buffer(level, option)) atomic_store(&runtime->sockopts.send_buffer, true);
        return odb_real.setsockopt(fd, level, option, value, length);
    }
    int result = set_on_stream(runtime, stream, fd, level, option, value, length);
    odb_fdtable_let_go(&runtime->fds, stream);
    return result;
}

/* Told once, like the kernel's own. */
static int take_error(struct odb_stream *stream) {
    odb_out_take(stream);
    int error = stream->out.error;
    stream->out.error = 0;
    odb_out_drop(stream);
    if (error || !odb_in_try(stream)) return error; /* whoever is receiving will tell it */
    error = stream->in.error;
    stream->in.error = 0;
    odb_in_drop(stream);
    return error;
}

static int get_on_stream(struct odb_stream *stream, int fd, int level, int option, void *value, socklen_t *length) {
    int error = level == IPPROTO_TCP ? refusal(level, option) : 0, found = 0;
    if (error) return refuse(error);
    if (odb_real.getsockopt(fd, level, option, value, length) != 0) return -1;
    bool pace = is_pace(level, option) && atomic_load(&stream->tcp.ours);
    if (!pace && (level != SOL_SOCKET || (option != SO_ERROR && option != SO_RCVLOWAT))) return 0;
    size_t room = *length < sizeof found ? *length : sizeof found;
    memcpy(&found, value, room);
    if (pace)
        found = atomic_load(pace_of(stream, option));
    else if (option == SO_RCVLOWAT && atomic_load(&stream->low_water))
        found = atomic_load(&stream->low_water);
    else if (option == SO_ERROR && found == 0)
        found = take_error(stream);
    memcpy(value, &found, room);
    return 0;
}

int odb_getsockopt(struct odb_runtime *runtime, int fd, int level, int option, void *value, socklen_t *length) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return odb_real.getsockopt(fd, level, option, value, length);
    int result = get_on_stream(stream, fd, level, option, value, length);
    odb_fdtable_let_go(&runtime->fds, stream);
    return result;
}

bool odb_sockopt_wants_classic(const struct odb_runtime *runtime, int fd) {
    return atomic_load_explicit(&runtime->sockopts.zerocopy, memory_order_relaxed) &&
           get_int(fd, SOL_SOCKET, SO_ZEROCOPY) != 0;
}

void odb_sockopt_adopt(const struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    if (atomic_load_explicit(&runtime->sockopts.send_buffer, memory_order_relaxed))
        odb_ahead_bound_by(stream, get_int(fd, SOL_SOCKET, SO_SNDBUF));
    if (!atomic_load_explicit(&runtime->sockopts.low_water, memory_order_relaxed)) return;
    int mark = get_int(fd, SOL_SOCKET, SO_RCVLOWAT);
    if (mark > 1 && set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1) == 0) atomic_store(&stream->low_water, mark);
}

void odb_sockopt_give_back(const struct odb_stream *stream, int fd) {
    int mark = atomic_load(&stream->low_water);
    if (mark) set_int(fd, SOL_SOCKET, SO_RCVLOWAT, mark);
}
