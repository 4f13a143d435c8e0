/* gather.c: what is kept, for how long, and what becomes of it when the socket refuses it. */
#include "core/gather.h"

#include "core/outlet.h"
#include "core/runtime.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 2000 };

#define LOWAT_OF_HOST "/proc/sys/net/ipv4/tcp_notsent_lowat"

_Thread_local bool odb_gather_more;
static _Thread_local int source;

bool odb_gather_may(const struct odb_runtime *runtime) {
    return runtime->options.gather && odb_hold_turns() &&
           !atomic_load_explicit(&runtime->gather.closed, memory_order_relaxed);
}

void odb_gather_received(struct odb_runtime *runtime, int fd, bool more) {
    odb_gather_more = more && odb_gather_may(runtime);
    source = fd;
}

/* Its holder is the helper thread, which needs REFUSED_MS at most, or was interrupted by this very thread. */
static bool take_lock(struct odb_lock *lock) {
    if (odb_lock_try(lock)) return true;
    for (uint64_t until = odb_clock_ms() + PATIENCE_MS; odb_clock_ms() < until; sched_yield())
        if (odb_lock_try(lock)) return true;
    return false;
}

/* The kernel takes no more than this before the rest has left, and then what is kept could be refused. */
static bool host_limits_unsent(void) {
    char text[32];
    int fd = open(LOWAT_OF_HOST, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : odb_real.read(fd, text, sizeof text - 1);
    if (fd >= 0) odb_real.close(fd);
    if (length <= 0) return true;
    text[length] = 0;
    return strtoull(text, NULL, 10) < UINT_MAX;
}

static bool get_ready(struct odb_gather *gather) {
    if (!gather->looked) {
        gather->looked = true;
        if (!host_limits_unsent()) odb_gathered_begin(&gather->kept);
    }
    return gather->kept.memory != NULL;
}

static size_t length_of(const struct msghdr *message) {
    size_t length = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++) length += message->msg_iov[i].iov_len;
    return length;
}

/* Is it a message that can be kept? */
static bool is_part(const struct msghdr *message, int flags) {
    return message->msg_namelen == 0 && message->msg_controllen == 0 &&
           !(flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)) && length_of(message) > 0;
}

static bool may_begin(struct odb_runtime *runtime, int fd) {
    return odb_hold_has_turn(runtime, fd) && !odb_runtime_is_foreign(runtime);
}

/* Under the lock. */
static bool is_open_for(struct odb_runtime *runtime, int fd, size_t bound) {
    struct odb_gather *gather = &runtime->gather;
    if (odb_gather_has(gather)) return atomic_load(&gather->fd) == fd;
    if (atomic_load(&gather->leaving) || !get_ready(gather)) return false;
    gather->most = bound;
    odb_outlet_room(runtime, fd, &gather->room);
    return gather->room.left > 0;
}

/* Under the lock. */
static bool keep(struct odb_runtime *runtime, int fd, const struct msghdr *message) {
    struct odb_gather *gather = &runtime->gather;
    if (!odb_gathered_add(runtime, &gather->kept, message, gather->most, &gather->room)) return false;
    atomic_store(&gather->fd, fd);
    atomic_store(&gather->source, source);
    atomic_store(&gather->spans, odb_gathered_has_span(&gather->kept));
    atomic_store(&gather->length, gather->kept.length);
    gather->seen = false;
    return true;
}

/* With more at hand anything is worth keeping; what comes last, going where what is kept will be spliced to. */
static bool is_welcome(const struct odb_gather *gather, int fd) {
    return odb_gather_more || (odb_gather_splices(gather) && !odb_gather_else_sent(gather, fd));
}

/* EPIPE the kernel says again, with its signal. */
static void lose(struct odb_gather *gather, int fd, int error) {
    atomic_store(&gather->lost_fd, fd);
    atomic_store(&gather->lost, error == EPIPE ? 0 : error);
}

int odb_gather_lost(struct odb_gather *gather, int fd) {
    if (atomic_load_explicit(&gather->lost, memory_order_relaxed) == 0 || atomic_load(&gather->lost_fd) != fd) return 0;
    return atomic_exchange(&gather->lost, 0);
}

/* It has accepted what cannot be delivered: nobody is to take the part for the whole. */
static void reset(struct odb_runtime *runtime, int fd) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    odb_count(&runtime->stats, ODB_STAT_resets, 1);
    odb_real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    odb_real.connect(fd, &nobody, sizeof nobody);
    lose(&runtime->gather, fd, ECONNRESET);
}

/* What is kept, or its sending, has come to this. */
static void settle(struct odb_runtime *runtime, int fd, int outcome) {
    if (outcome < 0) reset(runtime, fd);
    if (outcome > 0) lose(&runtime->gather, fd, outcome);
}

/* Under the lock. */
static void send_place(struct odb_runtime *runtime) {
    struct odb_gather *gather = &runtime->gather;
    int fd = atomic_load(&gather->fd);
    if (odb_gather_has(gather)) settle(runtime, fd, odb_gathered_send(runtime, &gather->kept, fd));
    atomic_store(&gather->length, 0); /* only now: whoever sends on the connection meanwhile waits for the lock */
}

/* Under the lock. What is first of a body is bounded, so that the client has something to read while the rest is gathered. */
static bool keep_or_go_on(struct odb_runtime *runtime, int fd, const struct msghdr *message) {
    struct odb_gather *gather = &runtime->gather;
    if (!is_open_for(runtime, fd, ODB_GATHERED_FIRST)) return false;
    if (keep(runtime, fd, message)) return true;
    if (!odb_gather_splices(gather)) return false;
    send_place(runtime);
    return is_open_for(runtime, fd, ODB_GATHERED_MOST) && keep(runtime, fd, message);
}

/* Under the lock. */
static void send_aside(struct odb_runtime *runtime, bool old_only) {
    struct odb_aside *aside = &runtime->gather.aside;
    for (int i = atomic_load(&aside->count) - 1; i >= 0; i--) {
        struct odb_aside_entry *entry = &aside->entry[i];
        bool due = entry->old || !old_only;
        entry->old = true;
        if (!due) continue;
        settle(runtime, entry->fd, odb_gathered_send_bytes(entry->fd, entry->bytes, entry->length, 0));
        odb_aside_drop(aside, entry);
    }
}

static void flush_place(struct odb_runtime *runtime) {
    int saved = errno;
    if (odb_gather_has(&runtime->gather) && !odb_runtime_is_foreign(runtime) && take_lock(&runtime->gather.lock)) {
        send_place(runtime);
        odb_lock_drop(&runtime->gather.lock);
    }
    errno = saved;
}

void odb_gather_flush(struct odb_runtime *runtime) {
    struct odb_gather *gather = &runtime->gather;
    int saved = errno;
    if (odb_gather_any(gather) && !odb_runtime_is_foreign(runtime) && take_lock(&gather->lock)) {
        send_place(runtime);
        send_aside(runtime, false);
        odb_lock_drop(&gather->lock);
    }
    errno = saved;
}

/* Under the lock. */
static bool put_aside(struct odb_runtime *runtime) {
    struct odb_gather *gather = &runtime->gather;
    const struct odb_gathered *kept = &gather->kept;
    int fd = atomic_load(&gather->fd);
    bool is_short = kept->count == 1 && kept->piece[0].bytes > 0 && kept->length <= ODB_ASIDE_SHORT;
    struct odb_aside_entry *entry =
        is_short ? odb_aside_put(&gather->aside, fd, odb_outlet_cookie(&runtime->fds, fd)) : NULL;
    if (!entry) return false;
    entry->old = false;
    entry->most = gather->most;
    entry->room = gather->room;
    entry->length = kept->length;
    memcpy(entry->bytes, kept->memory, kept->length);
    odb_gathered_clear(&gather->kept);
    atomic_store(&gather->length, 0);
    return true;
}

void odb_gather_pause(struct odb_runtime *runtime) {
    struct odb_gather *gather = &runtime->gather;
    int saved = errno;
    if (odb_gather_has(gather) && !odb_runtime_is_foreign(runtime) && take_lock(&gather->lock)) {
        if (odb_gather_has(gather) && !(odb_gather_may(runtime) && put_aside(runtime))) send_place(runtime);
        odb_lock_drop(&gather->lock);
    }
    errno = saved;
}

/* Under the lock; nothing is in the place. */
static void take_up(struct odb_gather *gather, struct odb_aside_entry *entry) {
    odb_gathered_begin_with(&gather->kept, entry->bytes, entry->length);
    gather->most = entry->most;
    gather->room = entry->room;
    gather->seen = false;
    atomic_store(&gather->fd, entry->fd);
    atomic_store(&gather->source, source);
    atomic_store(&gather->spans, false);
    atomic_store(&gather->length, entry->length);
    odb_aside_drop(&gather->aside, entry);
}

/* Under the lock: what was put aside for the connection. True: there was something. */
static bool find_aside(struct odb_runtime *runtime, int fd) {
    struct odb_gather *gather = &runtime->gather;
    bool alone = odb_outlet_is_known(&runtime->fds, fd);
    struct odb_aside_entry *entry =
        odb_aside_find(&gather->aside, fd, alone ? 0 : odb_outlet_cookie(&runtime->fds, fd));
    if (entry && odb_gather_has(gather)) send_place(runtime);
    if (entry) take_up(gather, entry);
    return entry != NULL;
}

/* Pipes and local sockets may lead to a process that has been given copies of the connections, or is about to be. */
static bool is_tcp(int fd) {
    int protocol = 0;
    socklen_t size = sizeof protocol;
    return odb_real.getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 && protocol == IPPROTO_TCP;
}

void odb_gather_resume(struct odb_runtime *runtime, int fd) {
    struct odb_gather *gather = &runtime->gather;
    if (odb_gather_else_sent(gather, fd)) odb_gather_pause(runtime);
    if (!odb_aside_any(&gather->aside) || odb_runtime_is_foreign(runtime)) return;
    int saved = errno;
    bool stream = odb_fdtable_has(&runtime->fds, fd), found = false;
    if (!stream && take_lock(&gather->lock)) {
        found = find_aside(runtime, fd);
        odb_lock_drop(&gather->lock);
    }
    bool known = found || odb_outlet_is_known(&runtime->fds, fd);
    if (!known && (!odb_outlet_never_waits(&runtime->fds, fd) || !(stream || is_tcp(fd)))) odb_gather_flush(runtime);
    errno = saved;
}

void odb_gather_receive(struct odb_runtime *runtime, int fd) {
    struct odb_gather *gather = &runtime->gather;
    int saved = errno;
    if (odb_gather_else_received(gather, fd)) odb_gather_pause(runtime);
    if (odb_aside_any(&gather->aside) && !odb_outlet_never_waits(&runtime->fds, fd)) odb_gather_flush(runtime);
    errno = saved;
}

void odb_gather_look(struct odb_runtime *runtime, int fd) {
    odb_gather_resume(runtime, fd);
    if (odb_gather_has(&runtime->gather)) flush_place(runtime);
}

void odb_gather_wait(struct odb_runtime *runtime) {
    struct odb_gather *gather = &runtime->gather;
    int saved = errno;
    odb_gather_pause(runtime);
    if (odb_aside_any(&gather->aside) && !odb_runtime_is_foreign(runtime) && take_lock(&gather->lock)) {
        send_aside(runtime, true);
        odb_lock_drop(&gather->lock);
    }
    errno = saved;
}

ssize_t odb_gather_take(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags) {
    struct odb_gather *gather = &runtime->gather;
    if (!is_welcome(gather, fd) || !odb_gather_may(runtime) || !is_part(message, flags)) return -1;
    int saved = errno;
    size_t length = 0;
    if ((odb_gather_has(gather) || may_begin(runtime, fd)) && odb_hold_watch(runtime) && odb_lock_try(&gather->lock)) {
        if (keep_or_go_on(runtime, fd, message)) length = length_of(message);
        odb_lock_drop(&gather->lock);
    }
    errno = saved;
    if (length == 0) return -1;
    if (!odb_gather_more) flush_place(runtime);
    odb_count(&runtime->stats, ODB_STAT_sends_gathered, 1);
    return (ssize_t)length;
}

void odb_gather_make_way(struct odb_runtime *runtime) {
    struct odb_gather *gather = &runtime->gather;
    int saved = errno;
    bool drawn = !odb_gather_splices(gather);
    if (!drawn && take_lock(&gather->lock)) {
        drawn = odb_gathered_draw(runtime, &gather->kept);
        odb_lock_drop(&gather->lock);
    }
    if (!drawn) flush_place(runtime);
    errno = saved;
}

bool odb_gather_leave(struct odb_runtime *runtime, int fd, struct iovec *kept) {
    struct odb_gather *gather = &runtime->gather;
    if (odb_gather_splices(gather)) flush_place(runtime);
    if (!odb_gather_has(gather) || !take_lock(&gather->lock)) return false;
    size_t length = atomic_load(&gather->fd) == fd && !gather->spans ? atomic_exchange(&gather->length, 0) : 0;
    if (length > 0) {
        atomic_store(&gather->leaving, true);
        odb_gathered_clear(&gather->kept);
    }
    odb_lock_drop(&gather->lock);
    *kept = (struct iovec){gather->kept.memory, length};
    return length > 0;
}

/* Is the connection over, or is it just this message that cannot be sent now? */
static bool is_over(int error) {
    return error != EAGAIN && error != EINTR && error != EFAULT && error != EINVAL && error != EOPNOTSUPP &&
           error != ENOMEM && error != ENOBUFS;
}

ssize_t odb_gather_left(struct odb_runtime *runtime, int fd, const struct iovec *kept, ssize_t sent) {
    int error = errno;
    size_t left = sent > 0 ? (size_t)sent : 0;
    bool refused = sent >= 0 || !is_over(error);
    if (left < kept->iov_len && refused)
        settle(runtime, fd, odb_gathered_send_bytes(fd, (const char *)kept->iov_base + left, kept->iov_len - left, 0));
    atomic_store(&runtime->gather.leaving, false);
    errno = refused ? 0 : error;
    return left > kept->iov_len ? (ssize_t)(left - kept->iov_len) : -1;
}

void odb_gather_close(struct odb_runtime *runtime, int fd) {
    if (odb_gather_any(&runtime->gather)) odb_gather_flush(runtime);
    odb_gather_lost(&runtime->gather, fd);
}

void odb_gather_stop(struct odb_runtime *runtime) {
    atomic_store(&runtime->gather.closed, true);
    odb_gather_flush(runtime);
}

bool odb_gather_tick(struct odb_runtime *runtime) {
    struct odb_gather *gather = &runtime->gather;
    if (odb_gather_any(gather) && odb_lock_try(&gather->lock)) {
        bool due = gather->seen;
        gather->seen = true;
        odb_lock_drop(&gather->lock);
        if (due) {
            atomic_store_explicit(&runtime->holds.quiet, 0, memory_order_relaxed);
            odb_gather_flush(runtime);
        }
    }
    return odb_gather_any(gather);
}

/* The parent has sent all before it forked. */
void odb_gather_after_fork_child(struct odb_gather *gather) {
    odb_lock_reset(&gather->lock);
    gather->kept.pipe = NULL; /* the parent's */
    odb_gathered_clear(&gather->kept);
    atomic_store(&gather->aside.count, 0);
    atomic_store(&gather->length, 0);
    atomic_store(&gather->leaving, false);
    atomic_store(&gather->lost, 0);
}
