/* waiting.c: hooks of epoll, poll and select. */
#include "core/masks.h"
#include "core/waiting.h"

#include "hooks/given.h"

/* Without streams nobody can owe anything. */
static bool idle(const struct odb_runtime *runtime) {
    return !runtime || atomic_load_explicit(&runtime->fds.streams, memory_order_acquire) == 0;
}

/* Negative: for ever. */
static const struct timespec *from_ms(int milliseconds, struct timespec *out) {
    if (milliseconds < 0) return NULL;
    *out = (struct timespec){milliseconds / 1000, (milliseconds % 1000) * 1000000L};
    return out;
}

ODB_EXPORT int epoll_ctl(int set, int operation, int fd, struct epoll_event *event) {
    struct odb_runtime *runtime = odb_enter();
    bool there = !event || operation == EPOLL_CTL_DEL || odb_given_is_there(event, sizeof *event);
    int result = runtime && there ? odb_interest_control(&runtime->interests, set, operation, fd, event)
                                  : odb_real.epoll_ctl(set, operation, fd, event);
    if (runtime && result == 0 && operation == EPOLL_CTL_ADD) odb_waiting_added(runtime, fd);
    return result;
}

static void given_events(struct odb_runtime *runtime, const struct epoll_event *events, int count) {
    if (count > 0) odb_given(runtime, events, (size_t)count * sizeof *events);
}

ODB_EXPORT int epoll_wait(int set, struct epoll_event *events, int count, int timeout) {
    struct odb_runtime *runtime = odb_enter_transfer();
    struct timespec time;
    given_events(runtime, events, count);
    if (!runtime) return odb_real.epoll_wait(set, events, count, timeout);
    return ODB_KEEPING_ERRNO(odb_epoll_wait(runtime, set, events, count, from_ms(timeout, &time), NULL));
}

ODB_EXPORT int epoll_pwait(int set, struct epoll_event *events, int count, int timeout, const sigset_t *mask) {
    struct odb_runtime *runtime = odb_enter_transfer();
    sigset_t copy;
    mask = odb_mask_without(mask, &copy);
    struct timespec time;
    given_events(runtime, events, count);
    if (!runtime) return odb_real.epoll_pwait(set, events, count, timeout, mask);
    return ODB_KEEPING_ERRNO(odb_epoll_wait(runtime, set, events, count, from_ms(timeout, &time), mask));
}

ODB_EXPORT int epoll_pwait2(int set, struct epoll_event *events, int count, const struct timespec *timeout,
                            const sigset_t *mask) {
    struct odb_runtime *runtime = odb_enter_transfer();
    sigset_t copy;
    mask = odb_mask_without(mask, &copy);
    if (!odb_real.epoll_pwait2) {
        errno = ENOSYS;
        return -1;
    }
    given_events(runtime, events, count);
    odb_given(runtime, timeout, sizeof *timeout);
    if (!runtime) return odb_real.epoll_pwait2(set, events, count, timeout, mask);
    return ODB_KEEPING_ERRNO(odb_epoll_wait(runtime, set, events, count, timeout, mask));
}

/* Is it worth a look of ours? */
static bool concerns(struct odb_runtime *runtime, const struct pollfd *fds, nfds_t count) {
    bool many = count > INT_MAX;
    if (!many) odb_given(runtime, fds, count * sizeof *fds);
    return !idle(runtime) && (many || odb_given_is_there(fds, count * sizeof *fds));
}

ODB_EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout) {
    struct odb_runtime *runtime = odb_enter();
    struct timespec time;
    if (!concerns(runtime, fds, count)) return odb_real.poll(fds, count, timeout);
    return ODB_KEEPING_ERRNO(odb_poll(runtime, fds, count, from_ms(timeout, &time), NULL));
}

ODB_EXPORT int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room) {
    struct odb_runtime *runtime = odb_enter();
    struct timespec time;
    if (count > room / sizeof *fds || !concerns(runtime, fds, count))
        return odb_real.__poll_chk(fds, count, timeout, room);
    return ODB_KEEPING_ERRNO(odb_poll(runtime, fds, count, from_ms(timeout, &time), NULL));
}

ODB_EXPORT int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask) {
    struct odb_runtime *runtime = odb_enter();
    sigset_t copy;
    mask = odb_mask_without(mask, &copy);
    odb_given(runtime, timeout, sizeof *timeout);
    if (!concerns(runtime, fds, count)) return odb_real.ppoll(fds, count, timeout, mask);
    return ODB_KEEPING_ERRNO(odb_poll(runtime, fds, count, timeout, mask));
}

ODB_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask,
                           size_t room) {
    struct odb_runtime *runtime = odb_enter();
    sigset_t copy;
    mask = odb_mask_without(mask, &copy);
    odb_given(runtime, timeout, sizeof *timeout);
    if (count > room / sizeof *fds || !concerns(runtime, fds, count))
        return odb_real.__ppoll_chk(fds, count, timeout, mask, room);
    return ODB_KEEPING_ERRNO(odb_poll(runtime, fds, count, timeout, mask));
}

static void given_sets(struct odb_runtime *runtime, int count, const fd_set *in, const fd_set *out,
                       const fd_set *except) {
    const fd_set *sets[] = {in, out, except};
    size_t length = ((size_t)(count > 0 ? count : 0) + NFDBITS - 1) / NFDBITS * sizeof(fd_mask);
    for (int i = 0; i < 3; i++) odb_given(runtime, sets[i], length);
}

/* select writes the time left back, pselect does not. */
ODB_EXPORT int select(int count, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout) {
    struct odb_runtime *runtime = odb_enter();
    given_sets(runtime, count, in, out, except);
    odb_given(runtime, timeout, sizeof *timeout);
    if (idle(runtime) || count < 0 || count > FD_SETSIZE || (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0)))
        return odb_real.select(count, in, out, except, timeout);
    struct timespec time, left;
    if (timeout)
        left = time =
            (struct timespec){timeout->tv_sec + timeout->tv_usec / 1000000, timeout->tv_usec % 1000000 * 1000};
    int result = ODB_KEEPING_ERRNO(
        odb_select(runtime, count, in, out, except, timeout ? &time : NULL, NULL, timeout ? &left : NULL));
    if (timeout && result >= 0) *timeout = (struct timeval){left.tv_sec, left.tv_nsec / 1000};
    return result;
}

ODB_EXPORT int pselect(int count, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
                       const sigset_t *mask) {
    struct odb_runtime *runtime = odb_enter();
    sigset_t copy;
    mask = odb_mask_without(mask, &copy);
    given_sets(runtime, count, in, out, except);
    odb_given(runtime, timeout, sizeof *timeout);
    if (idle(runtime) || count < 0 || count > FD_SETSIZE)
        return odb_real.pselect(count, in, out, except, timeout, mask);
    return ODB_KEEPING_ERRNO(odb_select(runtime, count, in, out, except, timeout, mask, NULL));
}

ODB_ALIAS(poll, __poll);
ODB_ALIAS(select, __select);
