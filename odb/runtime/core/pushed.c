/* pushed.c: opens push channels, takes what is claimed and skips what is not. */
#include "core/pushed.h"

#include "core/channel.h"
#include "core/pushes.h"
#include "core/requester.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/random.h>

enum { LOCK_TRIES = 2000, STUCK_MS = 1000, LOOK_MS = 250, WAIT_MS = 1000, PIECES = 16 };

void odb_pushed_init(struct odb_pushed *pushed, const struct odb_options *options, struct odb_stats *stats) {
    pushed->options = options;
    pushed->stats = stats;
    for (uint32_t i = 0; i < ODB_PUSHED_SLOTS; i++) atomic_store(&pushed->channel[i].fd, -1);
}

void odb_pushed_after_fork_child(struct odb_pushed *pushed) {
    odb_lock_reset(&pushed->lock);
    for (uint32_t i = 0; i < ODB_PUSHED_SLOTS; i++) {
        struct odb_pushed_channel *channel = &pushed->channel[i];
        odb_lock_reset(&channel->lock);
        int fd = atomic_exchange(&channel->fd, -1);
        if (odb_fds_is_internal(fd)) odb_fds_close(fd);
        atomic_store(&channel->number, 0);
    }
    atomic_store(&pushed->consumer, 0);
}

static bool lock_soon(struct odb_lock *lock) {
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (odb_lock_try(lock)) return true;
        if (i > LOCK_TRIES / 2) sched_yield();
    }
    return false;
}

static bool random_bytes(void *out, size_t size) {
    return odb_real.getrandom(out, size, GRND_NONBLOCK) == (ssize_t)size;
}

uint64_t odb_pushed_consumer(struct odb_pushed *pushed) {
    uint64_t none = 0, chosen;
    uint64_t known = atomic_load(&pushed->consumer);
    if (known != 0) return known;
    if (!random_bytes(&chosen, sizeof chosen)) return 0;
    chosen >>= 64 - ODB_CONSUMER_BITS;
    if (chosen == 0) return 0;
    return atomic_compare_exchange_strong(&pushed->consumer, &none, chosen) ? chosen : none;
}

/* Under the channel's lock. */
static void discard(struct odb_pushed_channel *channel) {
    atomic_store(&channel->number, 0);
    int fd = atomic_exchange(&channel->fd,
                             -1); /* forgotten before it is closed, so that a forked child never closes a stranger */
    odb_fds_close(fd);
}

/* Under the channel's lock. False: the channel is of no use any more. A socket that is full of our reports is read by nobody. */
static bool say(struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t credits) {
    uint8_t frame[ODB_WIRE_PUSH_FRAME];
    struct odb_wire_push message = {.consumer = odb_pushed_consumer(pushed),
                                    .channel = atomic_load(&channel->number),
                                    .credits = credits,
                                    .position = channel->position,
                                    .skipped = channel->skipped};
    odb_wire_push_encode(frame, &message);
    ssize_t sent = odb_real.send(atomic_load(&channel->fd), frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (ssize_t)sizeof frame) {
        channel->reported = channel->position;
        channel->skipped = 0;
        channel->limit += credits;
        return true;
    }
    return sent < 0 && !channel->introduced && (errno == EAGAIN || errno == ENOTCONN); /* still connecting */
}

/* Under the channel's lock. */
static bool report(struct odb_pushed *pushed, struct odb_pushed_channel *channel) {
    uint64_t passed = channel->position - channel->reported;
    return passed < ODB_PUSH_REPORT || say(pushed, channel, passed);
}

static bool wait_readable(const struct odb_pushed *pushed, int fd) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    uint64_t limit = pushed->options->deadline_ms < WAIT_MS ? pushed->options->deadline_ms : WAIT_MS;
    int ready;
    do ready = odb_real.poll(&entry, 1, (int)limit);
    while (ready < 0 && errno == EINTR);
    return ready > 0;
}

/* What a receive's result means: 1 go on, 0 failed. */
static bool went_on(const struct odb_pushed *pushed, int fd, ssize_t got) {
    if (got > 0 || (got < 0 && errno == EINTR)) return true;
    return got < 0 && errno == EAGAIN && wait_readable(pushed, fd);
}

/* Under the channel's lock. MSG_TRUNC throws bytes of a TCP socket away without copying them. */
static bool skip_to(struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t position) {
    int fd = atomic_load(&channel->fd);
    while (channel->position < position) {
        ssize_t got = odb_real.recv(fd, NULL, position - channel->position, MSG_TRUNC | MSG_DONTWAIT);
        if (!went_on(pushed, fd, got)) return false;
        if (got <= 0) continue;
        channel->position += (uint64_t)got;
        channel->skipped += (uint64_t)got;
        odb_count(pushed->stats, ODB_STAT_push_bytes_skipped, (uint64_t)got);
    }
    return true;
}

/* Under the channel's lock. */
static bool take_bytes(struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t length,
                       const struct iovec *iov, int count) {
    struct odb_scatter into = {.iov = iov, .count = count};
    struct iovec pieces[PIECES];
    int fd = atomic_load(&channel->fd);
    for (uint64_t left = length; left > 0;) {
        struct msghdr message = {.msg_iov = pieces};
        message.msg_iovlen = (size_t)odb_scatter_window(&into, left, pieces, PIECES);
        ssize_t got = odb_real.recvmsg(fd, &message, MSG_DONTWAIT);
        if (!went_on(pushed, fd, got)) return false;
        if (got <= 0) continue;
        odb_scatter_advance(&into, (size_t)got);
        left -= (uint64_t)got;
        channel->position += (uint64_t)got;
    }
    return true;
}

static bool is_meant(const struct odb_pushed_channel *channel, const struct odb_span *span) {
    return atomic_load(&channel->number) == span->push_channel && channel->origin.port == span->origin.port &&
           memcmp(channel->origin.address, span->origin.address, sizeof channel->origin.address) == 0;
}

/* Under the channel's lock. */
static bool take(struct odb_pushed *pushed, struct odb_pushed_channel *channel, const struct odb_span *span,
                 const struct iovec *iov, int count) {
    if (!is_meant(channel, span) || span->push_position < channel->position ||
        span->push_position + span->length > channel->limit)
        return false;
    bool taken = skip_to(pushed, channel, span->push_position) && take_bytes(pushed, channel, span->length, iov, count);
    channel->moved_ms = odb_clock_ms();
    if (!taken || !report(pushed, channel)) discard(channel);
    return taken;
}

bool odb_pushed_take(struct odb_pushed *pushed, const struct odb_span *span, const struct iovec *iov, int count) {
    struct odb_pushed_channel *channel = &pushed->channel[span->push_channel % ODB_PUSHED_SLOTS];
    if (atomic_load_explicit(&channel->number, memory_order_relaxed) != span->push_channel)
        return false; /* meant for another consumer */
    int saved = errno;
    bool taken = false;
    if (lock_soon(&channel->lock)) {
        taken = take(pushed, channel, span, iov, count);
        odb_lock_drop(&channel->lock);
    }
    if (taken) odb_count(pushed->stats, ODB_STAT_push_bytes_taken, span->length);
    errno = saved;
    return taken;
}

/* Under the pool's and the channel's lock. */
static void open_channel(struct odb_pushed *pushed, uint32_t slot, const struct odb_origin_address *origin) {
    struct odb_pushed_channel *channel = &pushed->channel[slot];
    struct {
        uint32_t number;
        uint32_t unused;
        uint64_t position;
    } chosen;
    if (odb_pushed_consumer(pushed) == 0 || !random_bytes(&chosen, sizeof chosen)) return;
    int fd = odb_channel_connect(origin);
    if (fd < 0) return;
    odb_count(pushed->stats, ODB_STAT_channels_opened, 1);
    channel->origin = *origin;
    channel->introduced = false;
    channel->position = channel->limit = channel->reported = chosen.position >> 1; /* far from overflowing */
    channel->skipped = 0;
    channel->moved_ms = odb_clock_ms();
    atomic_store(&channel->fd, fd);
    atomic_store(&channel->number,
                 (chosen.number - chosen.number % ODB_PUSHED_SLOTS + slot) | (slot == 0 ? ODB_PUSHED_SLOTS : 0));
}

/* Under the channel's lock. Bytes that nobody has claimed for a while are thrown away, so that the credits come back; a
 * channel whose origin is gone is closed. */
static void look_after(struct odb_pushed *pushed, struct odb_pushed_channel *channel, uint64_t now) {
    int waiting = 0, fd = atomic_load(&channel->fd);
    char byte;
    if (!channel->introduced) {
        channel->introduced = say(pushed, channel, ODB_PUSH_CREDITS) && channel->limit != channel->position;
        if (!channel->introduced && now - channel->moved_ms > STUCK_MS) discard(channel);
        return;
    }
    if (now - channel->moved_ms < STUCK_MS) return;
    channel->moved_ms = now;
    bool gone =
        odb_real.recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0 || odb_real.ioctl(fd, FIONREAD, &waiting) != 0;
    if (!gone && waiting > 0) {
        gone = !skip_to(pushed, channel, channel->position + (uint64_t)waiting) ||
               !say(pushed, channel, channel->position - channel->reported);
    }
    if (gone) discard(channel);
}

static bool is_of(const struct odb_pushed_channel *channel, const struct odb_origin_address *origin) {
    return channel->origin.port == origin->port &&
           memcmp(channel->origin.address, origin->address, sizeof origin->address) == 0;
}

/* Under the pool's lock. */
static void want(struct odb_pushed *pushed, const struct odb_origin_address *origin) {
    uint32_t own = 0, empty = ODB_PUSHED_SLOTS;
    uint64_t now = odb_clock_ms();
    bool look = now - atomic_load(&pushed->looked_ms) >= LOOK_MS;
    if (look) atomic_store(&pushed->looked_ms, now);
    for (uint32_t i = 0; i < ODB_PUSHED_SLOTS; i++) {
        struct odb_pushed_channel *channel = &pushed->channel[i];
        if (!odb_lock_try(&channel->lock)) continue;
        bool used = atomic_load(&channel->number) != 0;
        if (used && (look || !channel->introduced)) {
            look_after(pushed, channel, now);
            used = atomic_load(&channel->number) != 0;
        }
        if (!used)
            empty = i;
        else if (is_of(channel, origin))
            own++;
        odb_lock_drop(&channel->lock);
    }
    if (own >= ODB_PUSHED_WANTED || empty == ODB_PUSHED_SLOTS || !odb_lock_try(&pushed->channel[empty].lock)) return;
    open_channel(pushed, empty, origin);
    odb_lock_drop(&pushed->channel[empty].lock);
}

void odb_pushed_want(struct odb_pushed *pushed, const struct odb_origin_address *origin) {
    int saved = errno;
    if (odb_lock_try(&pushed->lock)) { /* somebody else is at it: there will be another occasion */
        want(pushed, origin);
        odb_lock_drop(&pushed->lock);
    }
    errno = saved;
}
