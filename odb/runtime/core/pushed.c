/* pushed.c: opens push channels, takes what is claimed and skips what is not. */
#include "core/pushed.h"

#include "core/channel.h"
#include "core/pushed_bytes.h"
#include "core/pushes.h"
#include "core/requester.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/random.h>

enum { LOCK_TRIES = 2000, STUCK_MS = 1000, LOOK_MS = 250 };

void odb_pushed_init(struct odb_pushed *pushed, const struct odb_options *options, struct odb_stats *stats) {
    pushed->options = options;
    pushed->stats = stats;
    odb_pipes_init(&pushed->pipes);
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
        channel->pipe = NULL;
        channel->piped = 0;
    }
    odb_pipes_after_fork_child(&pushed->pipes);
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
    odb_pushed_drop_pipe(channel);
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
static void note_run(struct odb_pushed_channel *channel, const struct odb_span *span, uint64_t amount) {
    bool goes_on = channel->payload == span->payload && channel->end == span->offset;
    channel->run = amount + (goes_on ? channel->run : 0);
    channel->payload = span->payload;
    channel->end = span->offset + amount;
}

/* Under the channel's lock. */
static bool is_due(const struct odb_pushed_channel *channel, uint64_t passed) {
    bool soon = channel->skipped >= ODB_PUSH_REPORT_SOON / 2 || channel->run >= ODB_PUSH_REPORT_SOON / 2;
    return passed >= (soon ? ODB_PUSH_REPORT_SOON : ODB_PUSH_REPORT);
}

/* Under the channel's lock. */
static bool report(struct odb_pushed *pushed, struct odb_pushed_channel *channel) {
    uint64_t passed = channel->position - channel->reported;
    return !is_due(channel, passed) || say(pushed, channel, passed);
}

static bool is_meant(const struct odb_pushed_channel *channel, const struct odb_span *span) {
    return atomic_load(&channel->number) == span->push_channel && channel->origin.port == span->origin.port &&
           memcmp(channel->origin.address, span->origin.address, sizeof channel->origin.address) == 0;
}

/* Under the channel's lock. */
static bool is_ahead(const struct odb_pushed_channel *channel, const struct odb_span *span) {
    return is_meant(channel, span) && span->push_position >= channel->position &&
           span->push_position + span->length <= channel->limit;
}

/* Under the channel's lock. So much of a span has been taken. */
static void settle(struct odb_pushed *pushed, struct odb_pushed_channel *channel, const struct odb_span *span,
                   uint64_t amount, bool well) {
    channel->moved_ms = odb_clock_ms();
    note_run(channel, span, amount);
    if (!well || !report(pushed, channel)) discard(channel);
}

/* Under the channel's lock. */
static bool take(struct odb_pushed *pushed, struct odb_pushed_channel *channel, const struct odb_span *span,
                 const struct iovec *iov, int count) {
    if (!is_ahead(channel, span)) return false;
    bool taken = odb_pushed_skip_to(pushed, channel, span->push_position) &&
                 odb_pushed_take_bytes(pushed, channel, span->length, iov, count);
    settle(pushed, channel, span, span->length, taken);
    return taken;
}

static struct odb_pushed_channel *channel_of(struct odb_pushed *pushed, uint32_t number) {
    return &pushed->channel[number % ODB_PUSHED_SLOTS];
}

bool odb_pushed_is_own(const struct odb_pushed *pushed, uint32_t number) {
    return number != 0 &&
           atomic_load_explicit(&pushed->channel[number % ODB_PUSHED_SLOTS].number, memory_order_relaxed) == number;
}

enum odb_pushed_place odb_pushed_where(struct odb_pushed *pushed, const struct odb_span *span) {
    struct odb_pushed_channel *channel = channel_of(pushed, span->push_channel);
    if (!odb_pushed_is_own(pushed, span->push_channel)) return ODB_PUSHED_PASSED;
    if (!odb_lock_try(&channel->lock)) return ODB_PUSHED_LATER;
    enum odb_pushed_place place = ODB_PUSHED_PASSED;
    if (is_ahead(channel, span)) place = span->push_position == channel->position ? ODB_PUSHED_NEXT : ODB_PUSHED_LATER;
    odb_lock_drop(&channel->lock);
    return place;
}

bool odb_pushed_take(struct odb_pushed *pushed, const struct odb_span *span, const struct iovec *iov, int count) {
    struct odb_pushed_channel *channel = channel_of(pushed, span->push_channel);
    if (!odb_pushed_is_own(pushed, span->push_channel)) return false; /* meant for another consumer */
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

/* Under the channel's lock. */
static enum odb_pushed_end splice_on(struct odb_pushed *pushed, struct odb_pushed_channel *channel,
                                     const struct odb_span *span, int to, unsigned flags, uint64_t *sent, int *error) {
    if (!is_ahead(channel, span)) return ODB_PUSHED_LOST;
    enum odb_pushed_end end = ODB_PUSHED_LOST;
    if (odb_pushed_skip_to(pushed, channel, span->push_position))
        end = odb_pushed_splice_bytes(pushed, channel, span->length, to, flags, sent, error);
    settle(pushed, channel, span, *sent, end != ODB_PUSHED_LOST);
    return end;
}

enum odb_pushed_end odb_pushed_splice(struct odb_pushed *pushed, const struct odb_span *span, int to, unsigned flags,
                                      uint64_t *sent, int *error) {
    struct odb_pushed_channel *channel = channel_of(pushed, span->push_channel);
    int saved = errno;
    enum odb_pushed_end end = ODB_PUSHED_LOST;
    if (lock_soon(&channel->lock)) {
        end = splice_on(pushed, channel, span, to, flags, sent, error);
        odb_lock_drop(&channel->lock);
    }
    odb_count(pushed->stats, ODB_STAT_push_bytes_taken, *sent);
    odb_count(pushed->stats, ODB_STAT_spliced_bytes, *sent);
    if (*sent > 0) odb_count(pushed->stats, ODB_STAT_splices, 1);
    errno = saved;
    return end;
}

/* Under the channel's lock. */
static bool draw_from(struct odb_pushed *pushed, struct odb_pushed_channel *channel, const struct odb_span *span,
                      int into, bool wait, uint64_t *drawn) {
    if (!is_ahead(channel, span)) return false;
    bool well = odb_pushed_skip_to(pushed, channel, span->push_position) &&
                odb_pushed_draw_bytes(pushed, channel, span->length, into, wait, drawn);
    settle(pushed, channel, span, *drawn, well);
    return well;
}

bool odb_pushed_draw(struct odb_pushed *pushed, const struct odb_span *span, int into, bool wait, uint64_t *drawn) {
    struct odb_pushed_channel *channel = channel_of(pushed, span->push_channel);
    int saved = errno;
    bool well = false;
    if (lock_soon(&channel->lock)) {
        well = draw_from(pushed, channel, span, into, wait, drawn);
        odb_lock_drop(&channel->lock);
    }
    odb_count(pushed->stats, ODB_STAT_push_bytes_taken, *drawn);
    odb_count(pushed->stats, ODB_STAT_spliced_bytes, *drawn);
    if (*drawn > 0) odb_count(pushed->stats, ODB_STAT_splices, 1);
    errno = saved;
    return well;
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
    channel->skipped = channel->run = 0;
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
    uint64_t unclaimed = channel->piped + (uint64_t)waiting;
    if (!gone && unclaimed > 0) {
        gone = !odb_pushed_skip_to(pushed, channel, channel->position + unclaimed) ||
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
