/* cork.c: which connections were told that more follows, and what becomes of those for which nothing did. */
#include "core/cork.h"

#include "core/runtime.h"
#include "os/real.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

_Thread_local const char *odb_cork_end;

void odb_cork_received(struct odb_runtime *runtime, const struct iovec *iov, int count, size_t got, bool more) {
    odb_cork_end = NULL;
    if (!more || !runtime->options.cork || !odb_hold_turns()) return;
    for (int i = 0; i < count && got > 0; i++) {
        size_t part = got < iov[i].iov_len ? got : iov[i].iov_len;
        odb_cork_end = (const char *)iov[i].iov_base + part;
        got -= part;
    }
}

static const char *end_of(const struct msghdr *message) {
    const char *end = NULL;
    for (size_t i = 0; i < message->msg_iovlen; i++)
        if (message->msg_iov[i].iov_len > 0)
            end = (const char *)message->msg_iov[i].iov_base + message->msg_iov[i].iov_len;
    return end;
}

/* Of other sockets MSG_MORE asks other things, and of TCP with something upon it (TLS). */
static bool is_plain_tcp(int fd) {
    char name[16];
    socklen_t size = sizeof name;
    int saved = errno;
    bool is = odb_real.getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &size) == 0 && size == 0;
    errno = saved;
    return is;
}

/* Under the lock. The place of `fd`, or the first one behind all. */
static uint32_t place_of(const struct odb_corks *corks, int fd) {
    uint32_t place = 0, count = atomic_load(&corks->count);
    while (place < count && corks->corked[place].fd != fd) place++;
    return place;
}

/* It is there already: then its kind is known. */
static bool renew(struct odb_corks *corks, int fd) {
    if (atomic_load_explicit(&corks->count, memory_order_relaxed) == 0 || !odb_lock_try(&corks->lock)) return false;
    uint32_t place = place_of(corks, fd);
    bool there = place < atomic_load(&corks->count);
    if (there) corks->corked[place].seen = false;
    odb_lock_drop(&corks->lock);
    return there;
}

static bool add(struct odb_corks *corks, int fd) {
    if (!odb_lock_try(&corks->lock)) return false;
    uint32_t place = place_of(corks, fd), count = atomic_load(&corks->count);
    bool fits = place < ODB_CORKED;
    if (fits) {
        corks->corked[place].fd = fd;
        corks->corked[place].seen = false;
        if (place == count) atomic_store(&corks->count, count + 1);
    }
    odb_lock_drop(&corks->lock);
    return fits;
}

int odb_cork_flag(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags) {
    bool plain = message->msg_namelen == 0 && message->msg_controllen == 0 &&
                 (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)) == 0;
    if (!odb_cork_end || !plain || end_of(message) != odb_cork_end || !odb_hold_watch(runtime)) return 0;
    bool corks = renew(&runtime->corks, fd) || (is_plain_tcp(fd) && add(&runtime->corks, fd));
    if (corks) odb_count(&runtime->stats, ODB_STAT_sends_corked, 1);
    return corks ? MSG_MORE : 0;
}

/* Other threads may have taken it off between its listing and the send, and the timer may have found nothing. */
void odb_cork_left(struct odb_runtime *runtime, int fd) {
    if ((!renew(&runtime->corks, fd) && !add(&runtime->corks, fd)) || !odb_hold_watch(runtime)) odb_cork_push(fd);
}

/* True: it was there. */
static bool take_off(struct odb_corks *corks, int fd) {
    if (atomic_load_explicit(&corks->count, memory_order_relaxed) == 0 || !odb_lock_try(&corks->lock)) return false;
    uint32_t place = place_of(corks, fd), count = atomic_load(&corks->count);
    bool there = place < count;
    if (there) {
        corks->corked[place] = corks->corked[count - 1];
        atomic_store(&corks->count, count - 1);
    }
    odb_lock_drop(&corks->lock);
    return there;
}

void odb_cork_sent(struct odb_corks *corks, int fd) {
    take_off(corks, fd);
}

void odb_cork_close(struct odb_corks *corks, int fd) {
    if (take_off(corks, fd)) odb_cork_push(fd);
}

void odb_cork_push(int fd) {
    int corked = 0, saved = errno;
    socklen_t size = sizeof corked;
    if (odb_real.getsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, &size) == 0 && !corked)
        odb_real.setsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, sizeof corked);
    errno = saved;
}

/* Under the lock, which is dropped. `all`, or those that the timer has seen before. */
static void push_out(struct odb_corks *corks, bool all) {
    int fds[ODB_CORKED];
    uint32_t kept = 0, taken = 0, count = atomic_load(&corks->count);
    for (uint32_t i = 0; i < count; i++) {
        if (all || corks->corked[i].seen) {
            fds[taken++] = corks->corked[i].fd;
            continue;
        }
        corks->corked[kept] = corks->corked[i];
        corks->corked[kept++].seen = true;
    }
    atomic_store(&corks->count, kept);
    odb_lock_drop(&corks->lock);
    for (uint32_t i = 0; i < taken; i++) odb_cork_push(fds[i]);
}

void odb_cork_release(struct odb_corks *corks) {
    if (atomic_load_explicit(&corks->count, memory_order_relaxed) > 0 && odb_lock_try(&corks->lock))
        push_out(corks, true);
}

bool odb_cork_tick(struct odb_corks *corks) {
    if (atomic_load(&corks->count) > 0 && odb_lock_try(&corks->lock)) push_out(corks, false);
    return atomic_load(&corks->count) > 0;
}

/* The parent has pushed before it forked. */
void odb_cork_after_fork_child(struct odb_corks *corks) {
    odb_lock_reset(&corks->lock);
    atomic_store(&corks->count, 0);
}
