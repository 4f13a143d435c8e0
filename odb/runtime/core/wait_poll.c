/* wait_poll.c: poll and select in application bytes. */
#include "core/deadline.h"
#include "core/exact.h"
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

enum { FEW = 16 };

/* The streams that a thread waits for, which so are not read ahead by others; counted only where there may be others. */
struct watched {
    struct odb_stream *few[FEW], **streams;
    size_t count, room;
};

static void watch(struct odb_runtime *runtime, struct watched *watched, int fd) {
    if (watched->count == watched->room) return;
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return;
    odb_exact_wait(stream);
    watched->streams[watched->count++] = stream;
}

/* For `most` calls of watch(). Without memory some are not counted, and may hear of their bytes late. */
static void begin_watching(const struct odb_runtime *runtime, struct watched *watched, size_t most) {
    bool alone = !atomic_load_explicit(&runtime->windows.threads, memory_order_relaxed);
    watched->count = 0;
    watched->streams = watched->few;
    watched->room = alone ? 0 : most < FEW ? most : FEW;
    if (alone || most <= FEW) return;
    struct odb_stream **many = odb_real.malloc(most * sizeof(struct odb_stream *));
    if (!many) return;
    watched->streams = many;
    watched->room = most;
}

/* Has somebody put something into an inbox between our look and our being counted? */
static bool any_held(const struct watched *watched) {
    for (size_t i = 0; i < watched->count; i++)
        if (odb_stream_holds(watched->streams[i])) return true;
    return false;
}

static void end_watching(struct odb_runtime *runtime, struct watched *watched) {
    int saved = errno;
    for (size_t i = 0; i < watched->count; i++) {
        odb_exact_waited(watched->streams[i]);
        odb_fdtable_let_go(&runtime->fds, watched->streams[i]);
    }
    if (watched->streams && watched->streams != watched->few) odb_real.free(watched->streams);
    errno = saved;
}

static bool watch_polled(struct odb_runtime *runtime, struct watched *watched, const struct pollfd *fds, nfds_t count) {
    begin_watching(runtime, watched, count);
    for (nfds_t i = 0; i < count && watched->room > 0; i++)
        if (fds[i].events & READING) watch(runtime, watched, fds[i].fd);
    return any_held(watched);
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
        struct watched watched = {.count = 0};
        struct timespec left = {0, 0};
        bool owed = any_owed(runtime, fds, count) || watch_polled(runtime, &watched, fds, count);
        if (!owed && !deadline.forever) left = odb_deadline_left(&deadline);
        int reported = odb_real.ppoll(fds, count, owed || !deadline.forever ? &left : NULL, mask);
        end_watching(runtime, &watched);
        if (reported < 0) return reported;
        int ready = correct(runtime, fds, count);
        if (ready > 0 || (reported == 0 && !owed)) return ready; /* what was owed, another thread may have had */
    }
}

static bool any_owed_in(struct odb_runtime *runtime, int count, const fd_set *in) {
    for (int fd = 0; in && fd < count; fd++)
        if (FD_ISSET(fd, in) && ask(runtime, fd) == 1) return true;
    return false;
}

static bool watch_selected(struct odb_runtime *runtime, struct watched *watched, int count, const fd_set *in) {
    begin_watching(runtime, watched, in ? (size_t)count : 0);
    for (int fd = 0; in && fd < count && watched->room > 0; fd++)
        if (FD_ISSET(fd, in)) watch(runtime, watched, fd);
    return any_held(watched);
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
        struct watched watched = {.count = 0};
        struct timespec left = {0, 0};
        bool owed = any_owed_in(runtime, count, in) || watch_selected(runtime, &watched, count, in);
        if (!owed && !deadline.forever) left = odb_deadline_left(&deadline);
        int reported = odb_real.pselect(count, in, out, except, owed || !deadline.forever ? &left : NULL, mask);
        end_watching(runtime, &watched);
        if (reported < 0) return reported;
        int ready = reported + correct_in(runtime, count, &asked[0], in);
        if (time_left && !deadline.forever) *time_left = odb_deadline_left(&deadline);
        if (ready > 0 || (reported == 0 && !owed)) return ready; /* what was owed, another thread may have had */
        if (in) *in = asked[0];
        if (out) *out = asked[1];
        if (except) *except = asked[2];
    }
}
