/* wait_poll.c: poll and select in application bytes. */
#include "core/deadline.h"
#include "core/receive.h"
#include "core/waiting.h"
#include "os/real.h"

#include <errno.h>

#define READING (POLLIN | POLLRDNORM)

/* 1: readable, 0: not, -1: the kernel is right. To find out, bytes are taken from the kernel, which then no longer reports them to whoever waits by epoll. */
static int ask(struct odb_runtime *runtime, int fd) {
    bool stream = odb_fdtable_has(&runtime->fds, fd);
    if (odb_waiting_readable(runtime, fd)) {
        if (stream) odb_interest_owe(&runtime->interests, fd);
        return 1;
    }
    return stream ? 0 : -1;
}

static bool any_owed(struct odb_runtime *runtime, const struct pollfd *fds, nfds_t count) {
    for (nfds_t i = 0; i < count; i++)
        if ((fds[i].events & READING) && ask(runtime, fds[i].fd) == 1) return true;
    return false;
}

/* Corrects what the kernel said about streams; returns how many entries have something to say. */
static int correct(struct odb_runtime *runtime, struct pollfd *fds, nfds_t count) {
    int ready = 0;
    for (nfds_t i = 0; i < count; i++) {
        int readable = fds[i].events & READING ? ask(runtime, fds[i].fd) : -1;
        if (readable == 0) fds[i].revents &= (short)~READING;
        if (readable == 1) fds[i].revents |= (short)(fds[i].events & READING);
        ready += fds[i].revents != 0;
    }
    return ready;
}

int odb_poll(struct odb_runtime *runtime, struct pollfd *fds, nfds_t count, const struct timespec *timeout,
             const sigset_t *mask) {
    struct odb_deadline deadline = odb_deadline_in(timeout);
    odb_hold_release(runtime);
    for (;;) {
        bool owed = any_owed(runtime, fds, count);
        struct timespec left = {0, 0};
        if (!owed && !deadline.forever) left = odb_deadline_left(&deadline);
        int reported = odb_real.ppoll(fds, count, owed || !deadline.forever ? &left : NULL, mask);
        if (reported < 0) return reported;
        int ready = correct(runtime, fds, count);
        if (ready > 0 || reported == 0) return ready;
    }
}

static bool any_owed_in(struct odb_runtime *runtime, int count, const fd_set *in) {
    for (int fd = 0; in && fd < count; fd++)
        if (FD_ISSET(fd, in) && ask(runtime, fd) == 1) return true;
    return false;
}

/* `wanted` is what the application asked for, `in` what the kernel answered. Returns the change of the number of ready descriptors. */
static int correct_in(struct odb_runtime *runtime, int count, const fd_set *wanted, fd_set *in) {
    int change = 0;
    for (int fd = 0; in && fd < count; fd++) {
        if (!FD_ISSET(fd, wanted)) continue;
        int readable = ask(runtime, fd), reported = FD_ISSET(fd, in) != 0;
        if (readable == 1 && !reported) FD_SET(fd, in), change++;
        if (readable == 0 && reported) FD_CLR(fd, in), change--;
    }
    return change;
}

int odb_select(struct odb_runtime *runtime, int count, fd_set *in, fd_set *out, fd_set *except,
               const struct timespec *timeout, const sigset_t *mask, struct timespec *time_left) {
    struct odb_deadline deadline = odb_deadline_in(timeout);
    odb_hold_release(runtime);
    fd_set asked[3];
    FD_ZERO(&asked[0]);
    if (in) asked[0] = *in;
    if (out) asked[1] = *out;
    if (except) asked[2] = *except;
    for (;;) {
        bool owed = any_owed_in(runtime, count, in);
        struct timespec left = {0, 0};
        if (!owed && !deadline.forever) left = odb_deadline_left(&deadline);
        int reported = odb_real.pselect(count, in, out, except, owed || !deadline.forever ? &left : NULL, mask);
        if (reported < 0) return reported;
        int ready = reported + correct_in(runtime, count, &asked[0], in);
        if (time_left && !deadline.forever) *time_left = odb_deadline_left(&deadline);
        if (ready > 0 || reported == 0) return ready;
        if (in) *in = asked[0];
        if (out) *out = asked[1];
        if (except) *except = asked[2];
    }
}
