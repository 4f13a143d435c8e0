/* wait_epoll.c: epoll_wait in application bytes. */
#include "core/activation.h"
#include "core/deadline.h"
#include "core/receive.h"
#include "core/waiting.h"
#include "os/real.h"

#include <errno.h>
#include <limits.h>

enum { OWED_BATCH = 32 };

void odb_waiting_after_receive(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    if (odb_stream_owes(stream)) odb_interest_owe(&runtime->interests, fd);
}

void odb_waiting_added(struct odb_runtime *runtime, int fd) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) {
        odb_activation_watched(runtime, fd);
        return;
    }
    if (odb_stream_holds(stream)) odb_interest_owe(&runtime->interests, fd);
    odb_fdtable_let_go(&runtime->fds, stream);
}

static bool readable(void *context, int fd) {
    struct odb_runtime *runtime = context;
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return odb_interest_any_owed(&runtime->interests, fd, readable, runtime); /* a set in a set */
    bool is = odb_stream_readable(runtime, stream, fd);
    odb_fdtable_let_go(&runtime->fds, stream);
    return is;
}

bool odb_waiting_readable(struct odb_runtime *runtime, int fd) {
    return readable(runtime, fd);
}

/* As readable(), for a registration in `set`. What this takes from the kernel, the kernel no longer reports to other sets that watch `fd`: threads hand connections
 * to each other by moving them from set to set, and for a while they are in both. */
static bool readable_in(struct odb_runtime *runtime, int set, int fd) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return readable(runtime, fd);
    bool fresh, is = odb_stream_look(runtime, stream, fd, &fresh);
    if (fresh) odb_interest_owe_elsewhere(&runtime->interests, fd, set);
    odb_fdtable_let_go(&runtime->fds, stream);
    return is;
}

/* Is the registration reported as long as bytes are owed? */
static bool stays_owed(const struct odb_runtime *runtime, const struct odb_interest *interest) {
    return !(interest->events & EPOLLET) || runtime->options.readiness == ODB_READINESS_LEVEL;
}

/* Events for streams that owe bytes; `owners` gets the registration of each. Only when none of those that may owe does is there nothing to tell. */
static int inject(struct odb_runtime *runtime, int set, struct epoll_event *events, struct odb_interest *owners,
                  int room) {
    struct odb_interest owed[OWED_BATCH];
    int made = 0, taken;
    do {
        taken = odb_interest_take_owed(&runtime->interests, set, owed, room < OWED_BATCH ? room : OWED_BATCH);
        for (int i = 0; i < taken; i++) {
            bool oneshot = owed[i].events & EPOLLONESHOT;
            if (!readable_in(runtime, set, owed[i].fd)) continue;
            if (oneshot && !odb_interest_claim(&runtime->interests, &owed[i], true)) continue;
            events[made] = (struct epoll_event){.events = EPOLLIN, .data = owed[i].data};
            owners[made++] = owed[i];
            if (!oneshot && stays_owed(runtime, &owed[i])) odb_interest_put_back(&runtime->interests, &owed[i]);
        }
    } while (taken > 0 && made == 0);
    return made;
}

/* What is left of a kernel event once wake-ups without application bytes are taken out; 0: nothing. */
static uint32_t filter(struct odb_runtime *runtime, const struct epoll_event *event, struct odb_interest *interest) {
    bool stream = odb_fdtable_has(&runtime->fds, interest->fd), oneshot = interest->events & EPOLLONESHOT;
    uint32_t left = event->events;
    if (!(left & EPOLLIN) || !stream) {
        bool mine = !oneshot || odb_interest_claim(&runtime->interests, interest, false);
        return mine || !stream ? left : 0;
    }
    if (readable_in(runtime, interest->set, interest->fd)) {
        if (!oneshot && stays_owed(runtime, interest)) odb_interest_owe(&runtime->interests, interest->fd);
    } else {
        left &= ~(uint32_t)(EPOLLIN | EPOLLRDNORM);
    }
    if (oneshot && !left) odb_interest_rearm(&runtime->interests, interest);
    return oneshot && left && !odb_interest_claim(&runtime->interests, interest, false) ? 0 : left;
}

/* Adds a kernel event to the one injected for the same registration. False: there is none. */
static bool merge(struct epoll_event *events, const struct odb_interest *owners, int injected,
                  const struct epoll_event *event, const struct odb_interest *interest) {
    for (int i = 0; i < injected; i++) {
        if (owners[i].fd != interest->fd) continue;
        events[i].events |= event->events;
        return true;
    }
    return false;
}

/* The kernel reports an edge once. A stream that still holds pieces is not read on its account, so it has to remember that the kernel has more. */
static void note_report(struct odb_runtime *runtime, const struct epoll_event *event, int fd) {
    struct odb_stream *stream =
        event->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? odb_fdtable_hold(&runtime->fds, fd) : NULL;
    if (!stream) return;
    atomic_store(&stream->in.drained, false);
    odb_fdtable_let_go(&runtime->fds, stream);
}

/* Goes over what the kernel reported, behind `injected` events of ours; returns how many events there are in all. */
static int sift(struct odb_runtime *runtime, int set, struct epoll_event *events, const struct odb_interest *owners,
                int injected, int reported) {
    int kept = injected;
    for (int i = injected; i < injected + reported; i++) {
        struct odb_interest interest;
        struct epoll_event event = events[i];
        if (odb_interest_is_waker(&runtime->interests, &event)) continue;
        if (odb_interest_find(&runtime->interests, set, event.data, &interest)) {
            note_report(runtime, &event, interest.fd);
            if (merge(events, owners, injected, &event, &interest)) continue;
            event.events = filter(runtime, &event, &interest);
            if (!event.events) continue;
        }
        events[kept++] = event;
    }
    return kept;
}

/* Whole milliseconds that fit into an int; null, for ever, is one of them. */
static bool in_ms(const struct timespec *left, int *milliseconds) {
    *milliseconds = -1;
    if (!left) return true;
    if (left->tv_sec < 0 || left->tv_sec >= INT_MAX / 1000 || left->tv_nsec < 0 || left->tv_nsec >= 1000000000 ||
        left->tv_nsec % 1000000 != 0)
        return false;
    *milliseconds = (int)(left->tv_sec * 1000 + left->tv_nsec / 1000000);
    return true;
}

/* The oldest of the calls is the cheapest one. */
static int wait_kernel(int set, struct epoll_event *events, int room, const struct timespec *left,
                       const sigset_t *mask) {
    int whole;
    if (!mask && in_ms(left, &whole)) return odb_real.epoll_wait(set, events, room, whole);
    if (odb_real.epoll_pwait2) {
        int result = odb_real.epoll_pwait2(set, events, room, left, mask);
        if (result >= 0 || errno != ENOSYS) return result;
    }
    long long milliseconds = left ? (long long)left->tv_sec * 1000 + (left->tv_nsec + 999999) / 1000000 : -1;
    return odb_real.epoll_pwait(set, events, room, milliseconds > INT_MAX ? INT_MAX : (int)milliseconds, mask);
}

/* A set whose last look left out the kernel. */
static _Thread_local int behind = -1;

/* Does an event of this registration say all that there is to say? Of the rest the kernel tells what is new, not what is. */
static bool says_all(const struct odb_interest *interest) {
    return (interest->events & EPOLLET) || !(interest->events & ~(uint32_t)(EPOLLIN | EPOLLRDNORM | EPOLLONESHOT));
}

/* What is owed is told without a question to the kernel, which mostly has nothing more to tell so soon: but never twice in a row, or it would not be heard. */
static bool leaves_kernel_out(int set, const struct odb_interest *owners, int injected) {
    bool may = injected > 0 && behind < 0;
    for (int i = 0; i < injected && may; i++) may = says_all(&owners[i]);
    if (may)
        behind = set;
    else if (behind == set)
        behind = -1;
    return may;
}

/* One look at what is owed, for `share` events at most, and one at the kernel: without patience if something is owed, or if owed events have no share in this look.
 * *reported: how many events the kernel had. */
static int look(struct odb_runtime *runtime, int set, struct epoll_event *events, int room, int share,
                const struct timespec *left, const sigset_t *mask, int *reported) {
    static const struct timespec at_once = {0, 0};
    struct odb_interest owners[OWED_BATCH];
    int injected = share > 0 ? inject(runtime, set, events, owners, share) : 0;
    if (injected == 0) odb_hold_release(runtime);
    *reported = 0;
    if (injected < room && !leaves_kernel_out(set, owners, injected))
        *reported =
            wait_kernel(set, events + injected, room - injected, injected > 0 || share == 0 ? &at_once : left, mask);
    if (*reported < 0) return injected > 0 ? injected : *reported;
    return sift(runtime, set, events, owners, injected, *reported);
}

/* One place is the kernel's, so that neither hides the other; a single place is offered to both in turns. */
static int look_at_both(struct odb_runtime *runtime, int set, struct epoll_event *events, int room,
                        const struct timespec *left, const sigset_t *mask, int *reported) {
    if (room == 1 && (atomic_fetch_add_explicit(&runtime->interests.turns, 1, memory_order_relaxed) & 1)) {
        int kept = look(runtime, set, events, 1, 0, left, mask, reported);
        if (kept != 0) return kept;
    }
    return look(runtime, set, events, room, room > 1 ? room - 1 : 1, left, mask, reported);
}

/* Nothing can be owed, now or while this thread sleeps, and nothing of ours is in any set: the only thread there is makes no stream in its sleep. */
static bool is_uneventful(const struct odb_runtime *runtime) {
    return atomic_load_explicit(&runtime->fds.streams, memory_order_acquire) == 0 &&
           !atomic_load_explicit(&runtime->windows.threads, memory_order_relaxed) &&
           !odb_interest_has_waker(&runtime->interests);
}

int odb_epoll_wait(struct odb_runtime *runtime, int set, struct epoll_event *events, int room,
                   const struct timespec *timeout, const sigset_t *mask) {
    const struct timespec *left = timeout;
    odb_hold_release_done(runtime);
    odb_hold_turn(set);
    struct timespec rest;
    bool shared = atomic_load_explicit(&runtime->windows.threads, memory_order_relaxed);
    bool plain = room <= 0 || is_uneventful(runtime);
    if (plain) odb_hold_release(runtime);
    if (plain) return wait_kernel(set, events, room, timeout, mask);
    struct odb_deadline deadline = odb_deadline_in(timeout);
    for (;;) {
        int reported;
        if (shared) odb_interest_sleep(&runtime->interests, set);
        int kept = look_at_both(runtime, set, events, room, left, mask, &reported);
        if (shared) odb_interest_wake(&runtime->interests, set);
        if (kept != 0 || reported == 0) return kept;
        if (timeout) {
            rest = odb_deadline_left(&deadline);
            left = &rest;
        }
    }
}
