/* gather.c: what is kept, for how long, and what becomes of it when the socket refuses it. */
#include "core/gather.h"

#include "core/careful.h"
#include "core/runtime.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    MOST = 131072, /* two segments as the kernel hands them to a device */
    PART = 32768,  /* a larger part fills a segment well enough to be worth no copy */
    REFUSED_MS = 100,
    PATIENCE_MS = 2000
};

#define LOWAT_OF_HOST "/proc/sys/net/ipv4/tcp_notsent_lowat"

_Thread_local const char *odb_gather_end;
static _Thread_local int source;

bool odb_gather_may(const struct odb_runtime *runtime) {
    return runtime->options.gather && odb_hold_turns() &&
           !atomic_load_explicit(&runtime->gather.closed, memory_order_relaxed);
}

void odb_gather_received(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, size_t got,
                         bool more) {
    odb_gather_end = NULL;
    if (!more || !odb_gather_may(runtime)) return;
    source = fd;
    for (int i = 0; i < count && got > 0; i++) {
        size_t part = got < iov[i].iov_len ? got : iov[i].iov_len;
        odb_gather_end = (const char *)iov[i].iov_base + part;
        got -= part;
    }
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
    if (gather->looked) return gather->bytes != NULL;
    gather->looked = true;
    void *memory = host_limits_unsent() ? MAP_FAILED
                                        : odb_real.mmap(NULL, MOST, PROT_READ | PROT_WRITE,
                                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    gather->bytes = memory == MAP_FAILED ? NULL : memory;
    return gather->bytes != NULL;
}

/* Plain TCP, not something upon it (TLS): half of what it has room for, because small segments are charged for twice. */
static size_t surely_taken(int fd) {
    char name[16];
    uint32_t memory[SK_MEMINFO_VARS], lowat;
    socklen_t size = sizeof name, memory_size = sizeof memory, lowat_size = sizeof lowat;
    if (odb_real.getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &size) != 0 || size != 0 ||
        odb_real.getsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, &lowat_size) != 0 || lowat != 0 ||
        odb_real.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &memory_size) != 0 || memory_size < sizeof memory ||
        memory[SK_MEMINFO_SNDBUF] <= memory[SK_MEMINFO_WMEM_QUEUED])
        return 0;
    size_t room = (memory[SK_MEMINFO_SNDBUF] - memory[SK_MEMINFO_WMEM_QUEUED]) / 2;
    return room < MOST ? room : MOST;
}

/* The length of a message that ends with what was just received, and that may be looked at; else 0. */
static size_t length_of_part(const struct odb_runtime *runtime, const struct msghdr *message, int flags) {
    const char *end = NULL;
    size_t length = 0;
    if (message->msg_namelen > 0 || message->msg_controllen > 0 || (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)))
        return 0;
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        if (message->msg_iov[i].iov_len == 0) continue;
        end = (const char *)message->msg_iov[i].iov_base + message->msg_iov[i].iov_len;
        length += message->msg_iov[i].iov_len;
        if (length > PART) return 0;
    }
    if (end != odb_gather_end) return 0;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        if (odb_windows_touch(&runtime->windows, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len) ||
            odb_careful_readable(message->msg_iov[i].iov_base, message->msg_iov[i].iov_len) != 0)
            return 0;
    return length;
}

static bool may_begin(struct odb_runtime *runtime, int fd) {
    return odb_hold_has_turn(runtime, fd) && !odb_runtime_is_foreign(runtime);
}

/* Under the lock. */
static bool fits(struct odb_runtime *runtime, int fd, size_t length) {
    struct odb_gather *gather = &runtime->gather;
    size_t kept = atomic_load(&gather->length);
    if (kept > 0) return atomic_load(&gather->fd) == fd && length <= gather->most - kept;
    if (atomic_load(&gather->leaving) || !get_ready(gather)) return false;
    gather->most = surely_taken(fd);
    return length <= gather->most;
}

/* Under the lock. */
static void keep(struct odb_gather *gather, int fd, const struct msghdr *message) {
    size_t at = atomic_load(&gather->length);
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        memcpy(gather->bytes + at, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
        at += message->msg_iov[i].iov_len;
    }
    atomic_store(&gather->fd, fd);
    atomic_store(&gather->source, source);
    atomic_store(&gather->length, at);
    gather->seen = false;
}

ssize_t odb_gather_take(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags) {
    struct odb_gather *gather = &runtime->gather;
    if (!odb_gather_end || !odb_gather_may(runtime)) return -1;
    int saved = errno;
    size_t length = length_of_part(runtime, message, flags);
    bool taken = length > 0 && (odb_gather_any(gather) || may_begin(runtime, fd)) && odb_hold_watch(runtime) &&
                 odb_lock_try(&gather->lock);
    if (taken) {
        taken = fits(runtime, fd, length);
        if (taken) keep(gather, fd, message);
        odb_lock_drop(&gather->lock);
    }
    errno = saved;
    if (!taken) return -1;
    odb_count(&runtime->stats, ODB_STAT_sends_gathered, 1);
    return (ssize_t)length;
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

/* The socket had room for this. */
static void send_whole(struct odb_runtime *runtime, int fd, const char *bytes, size_t length) {
    uint64_t until = 0;
    while (length > 0) {
        ssize_t sent = odb_real.send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            bytes += sent;
            length -= (size_t)sent;
        } else if (sent < 0 && errno == EAGAIN) {
            uint64_t now = odb_clock_ms();
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            if (until == 0) until = now + REFUSED_MS;
            if (now < until && odb_real.poll(&room, 1, (int)(until - now)) != 0) continue;
            reset(runtime, fd);
            return;
        } else if (sent < 0 && errno != EINTR) {
            lose(&runtime->gather, fd, errno);
            return;
        }
    }
}

void odb_gather_flush(struct odb_runtime *runtime) {
    struct odb_gather *gather = &runtime->gather;
    int saved = errno;
    if (odb_gather_any(gather) && !odb_runtime_is_foreign(runtime) && take_lock(&gather->lock)) {
        size_t length = atomic_load(&gather->length);
        if (length > 0) send_whole(runtime, atomic_load(&gather->fd), gather->bytes, length);
        atomic_store(&gather->length, 0); /* only now: whoever sends on the connection meanwhile waits for the lock */
        odb_lock_drop(&gather->lock);
    }
    errno = saved;
}

bool odb_gather_leave(struct odb_runtime *runtime, int fd, struct iovec *kept) {
    struct odb_gather *gather = &runtime->gather;
    if (!odb_gather_any(gather) || !take_lock(&gather->lock)) return false;
    size_t length = atomic_load(&gather->fd) == fd ? atomic_exchange(&gather->length, 0) : 0;
    if (length > 0) atomic_store(&gather->leaving, true);
    odb_lock_drop(&gather->lock);
    *kept = (struct iovec){gather->bytes, length};
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
        send_whole(runtime, fd, (const char *)kept->iov_base + left, kept->iov_len - left);
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
    atomic_store(&gather->length, 0);
    atomic_store(&gather->leaving, false);
    atomic_store(&gather->lost, 0);
}
