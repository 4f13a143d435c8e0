/* channels.c: the pool of idle connections, and the fetch that waits. */
#include "core/channel.h"

#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <string.h>

enum { LOCK_TRIES = 2000, SILENT_MS = 60000 };
enum { SLOT_EMPTY = -1, SLOT_LOST = -2 }; /* lost: its connection was closed while the lock could not be had */

/* Never waits without end: the holder may be this very thread, interrupted by the signal whose handler touched a
 * window. */
static bool lock_pool(struct odb_channels *channels) {
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (odb_lock_try(&channels->lock)) {
            return true;
        }
        if (i > LOCK_TRIES / 2) {
            sched_yield();
        }
    }
    return false;
}

static void empty(struct odb_channels *channels) {
    channels->free = 0;
    for (uint32_t i = ODB_CHANNEL_SLOTS; i > 0; i--) {
        atomic_store(&channels->slots[i - 1].fd, SLOT_EMPTY);
        channels->slots[i - 1].next = channels->free;
        channels->free = i;
    }
    memset(channels->origins, 0, sizeof channels->origins);
    odb_lock_reset(&channels->lock);
    odb_lock_reset(&channels->unreachable.lock);
}

void odb_channels_init(struct odb_channels *channels, const struct odb_options *options, struct odb_stats *stats) {
    channels->options = options;
    channels->stats = stats;
    channels->uses = 0;
    channels->forks = 0;
    atomic_store(&channels->early, 0);
    odb_pushed_init(&channels->pushed, options, stats);
    empty(channels);
}

void odb_channels_after_fork_child(struct odb_channels *channels) {
    for (uint32_t i = 0; i < ODB_CHANNEL_SLOTS; i++) {
        int fd = atomic_load(&channels->slots[i].fd);
        if (odb_fds_is_internal(fd)) {
            odb_fds_close(fd);
        }
    }
    odb_pushed_after_fork_child(&channels->pushed);
    channels->forks++;
    atomic_store(&channels->early, 0);
    empty(channels);
}

static void free_slot(struct odb_channels *channels, uint32_t slot) {
    atomic_store(&channels->slots[slot - 1].fd, SLOT_EMPTY);
    channels->slots[slot - 1].next = channels->free;
    channels->free = slot;
}

/* The longest idle connection of an origin leaves its queue; 0 when there is none. */
static uint32_t dequeue(struct odb_channels *channels, struct odb_channel_origin *origin) {
    uint32_t slot = origin->first;
    if (slot != 0) {
        origin->first = channels->slots[slot - 1].next;
        origin->last = origin->first == 0 ? 0 : origin->last;
        origin->idle--;
    }
    return slot;
}

static void enqueue(struct odb_channels *channels, struct odb_channel_origin *origin, uint32_t slot) {
    channels->slots[slot - 1].next = 0;
    *(origin->last != 0 ? &channels->slots[origin->last - 1].next : &origin->first) = slot;
    origin->last = slot;
    origin->idle++;
}

/* The record of an origin; a new one takes the place of whichever has no idle connections and was not used for
 * longest. Null when all have some. */
static struct odb_channel_origin *origin_of(struct odb_channels *channels, const struct odb_origin_address *address) {
    struct odb_channel_origin *victim = NULL;
    for (uint32_t i = 0; i < ODB_CHANNEL_ORIGINS; i++) {
        struct odb_channel_origin *origin = &channels->origins[i];
        if (origin->address.port == address->port &&
            memcmp(origin->address.address, address->address, sizeof address->address) == 0) {
            origin->last_use = ++channels->uses;
            return origin;
        }
        if (origin->idle == 0 && (victim == NULL || origin->last_use < victim->last_use)) {
            victim = origin;
        }
    }
    if (victim != NULL) {
        memset(victim, 0, sizeof *victim);
        victim->address = *address;
        victim->last_use = ++channels->uses;
    }
    return victim;
}

/* With the lock held: makes the connection that waits longest at the least used origin give way; its descriptor, or
 * -1. */
static int evict(struct odb_channels *channels) {
    struct odb_channel_origin *victim = NULL;
    for (uint32_t i = 0; i < ODB_CHANNEL_ORIGINS; i++) {
        struct odb_channel_origin *origin = &channels->origins[i];
        if (origin->idle > 0 && (victim == NULL || origin->last_use < victim->last_use)) {
            victim = origin;
        }
    }
    if (victim == NULL) {
        return -1;
    }
    uint32_t slot = dequeue(channels, victim);
    int fd = atomic_load(&channels->slots[slot - 1].fd);
    free_slot(channels, slot);
    return fd;
}

/* With the lock held: makes a free slot, if need be by closing an idle connection, whose descriptor is returned (else
 * -1). */
static int make_room(struct odb_channels *channels) {
    for (uint32_t slot = 1; channels->free == 0 && slot <= ODB_CHANNEL_SLOTS; slot++) {
        if (atomic_load(&channels->slots[slot - 1].fd) == SLOT_LOST) {
            free_slot(channels, slot);
        }
    }
    return channels->free == 0 ? evict(channels) : -1;
}

/* What a fetch takes out of the pool: perhaps an idle connection, and the releases to send along. */
struct taken {
    bool pooled;
    bool silent; /* the origin is told neither who asks nor of channels to push on */
    size_t release_count;
    uint64_t releases[ODB_CHANNEL_RELEASES];
};

static void take(struct odb_channels *channels, const struct odb_span *span, struct odb_channel *channel,
                 struct taken *taken) {
    if (!lock_pool(channels)) {
        return;
    }
    struct odb_channel_origin *origin = origin_of(channels, &span->origin);
    if (origin != NULL) {
        taken->silent = taken->silent || odb_clock_ms() < origin->silent_until_ms;
        channel->slot = dequeue(channels, origin);
        taken->release_count = origin->release_count;
        memcpy(taken->releases, origin->releases, origin->release_count * sizeof origin->releases[0]);
        origin->release_count = 0;
    }
    if (channel->slot != 0) {
        channel->fd = atomic_load(&channels->slots[channel->slot - 1].fd);
        taken->pooled = true;
    }
    odb_lock_drop(&channels->lock);
}

/* Opens a connection and makes it known to the pool, if there is room in it. 0 or a negative errno. */
static int open_new(struct odb_channels *channels, const struct odb_span *span, const struct taken *taken,
                    struct odb_channel *channel) {
    int evicted = -1;
    channel->slot = 0;
    channel->connecting = true;
    channel->consumer = taken->silent ? 0 : odb_pushed_consumer(&channels->pushed);
    channel->fd = odb_channel_connect(&span->origin);
    if (channel->fd < 0) {
        return channel->fd;
    }
    odb_count(channels->stats, ODB_STAT_channels_opened, 1);
    if (lock_pool(channels)) {
        evicted = make_room(channels);
        channel->slot = channels->free;
        if (channel->slot != 0) {
            channels->free = channels->slots[channel->slot - 1].next;
            atomic_store(&channels->slots[channel->slot - 1].fd, channel->fd);
        }
        odb_lock_drop(&channels->lock);
    }
    odb_fds_close(evicted);
    return 0;
}

/* The connection goes back to the pool when it is `reusable` and there is room, else it is closed. */
static void put(struct odb_channels *channels, struct odb_channel *channel, bool reusable) {
    bool kept = false;
    if (channel->slot != 0 && lock_pool(channels)) {
        struct odb_channel_origin *origin = reusable ? origin_of(channels, &channel->span.origin) : NULL;
        kept = origin != NULL && origin->idle < channels->options->channels_max;
        if (origin != NULL) origin->reached = true;
        if (kept) {
            enqueue(channels, origin, channel->slot);
        } else {
            free_slot(channels, channel->slot);
        }
        odb_lock_drop(&channels->lock);
    } else if (channel->slot != 0) {
        atomic_store(&channels->slots[channel->slot - 1].fd, SLOT_LOST);
    }
    /* Forgotten before it is closed, so that a forked child never closes a stranger. */
    if (!kept) {
        odb_fds_close(channel->fd);
    }
}

/* Waits until `channel` can go on. 0, or -ETIMEDOUT when that has not happened by `deadline`. */
static int wait_for(const struct odb_channel *channel, enum odb_progress want, uint64_t deadline) {
    for (;;) {
        uint64_t now = odb_clock_ms();
        struct pollfd entry = {.fd = channel->fd, .events = want == ODB_CHANNEL_WANT_READ ? POLLIN : POLLOUT};
        int ready = now >= deadline ? 0 : odb_real.poll(&entry, 1, (int)(deadline - now));
        if (ready > 0) {
            return 0;
        }
        if (ready == 0) {
            return -ETIMEDOUT;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

/* Turns the state machine until the fetch is over. */
static enum odb_progress complete(const struct odb_channels *channels, struct odb_channel *channel) {
    uint64_t moved = 0, since = odb_clock_ms();
    for (;;) {
        enum odb_progress progress = odb_channel_progress(channel);
        if (progress != ODB_CHANNEL_WANT_READ && progress != ODB_CHANNEL_WANT_WRITE) {
            return progress;
        }
        if (channel->moved != moved) {
            moved = channel->moved;
            since = odb_clock_ms();
        }
        channel->error = wait_for(channel, progress, since + channels->options->deadline_ms);
        if (channel->error != 0) {
            return ODB_CHANNEL_FAILED;
        }
    }
}

/* One attempt on the connection in `channel`. */
static enum odb_progress attempt(struct odb_channels *channels, const struct odb_span *span, const struct iovec *iov,
                                 int count, const struct taken *taken, struct odb_channel *channel) {
    odb_channel_begin(channel, span, iov, count, taken->releases, taken->release_count);
    odb_count(channels->stats, ODB_STAT_fetches, 1);
    enum odb_progress progress = complete(channels, channel);
    put(channels, channel, progress == ODB_CHANNEL_DONE || progress == ODB_CHANNEL_REFUSED);
    return progress;
}

static enum odb_progress attempt_anew(struct odb_channels *channels, const struct odb_span *span,
                                      const struct iovec *iov, int count, const struct taken *taken,
                                      struct odb_channel *channel) {
    channel->answered = false;
    channel->error = open_new(channels, span, taken, channel);
    return channel->error != 0 ? ODB_CHANNEL_FAILED : attempt(channels, span, iov, count, taken, channel);
}

/* The peer has closed without a word. */
static bool was_shown_out(enum odb_progress progress, const struct odb_channel *channel) {
    return progress == ODB_CHANNEL_FAILED && !channel->answered && channel->error == -ECONNRESET;
}

static void keep_silent(struct odb_channels *channels, const struct odb_span *span) {
    if (!lock_pool(channels)) {
        return;
    }
    struct odb_channel_origin *origin = origin_of(channels, &span->origin);
    if (origin != NULL) {
        origin->silent_until_ms = odb_clock_ms() + SILENT_MS;
    }
    odb_lock_drop(&channels->lock);
}

/* The connection to the origin was not established. An origin that has been reached before has only ended. */
static void note_unreachable(struct odb_channels *channels, const struct odb_span *span, int error) {
    if (!odb_unreachable_says(-error) || !lock_pool(channels)) {
        return;
    }
    struct odb_channel_origin *origin = origin_of(channels, &span->origin);
    bool reached = origin != NULL && origin->reached;
    odb_lock_drop(&channels->lock);
    if (!reached) {
        odb_unreachable_add(&channels->unreachable, span->origin.address, span->origin.port, odb_clock_ms());
    }
}

/* An origin may close an idle connection at any time, and one that does not know introductions closes on them: neither
 * is an answer, so it is asked once more, in the latter case without. */
static int fetch(struct odb_channels *channels, const struct odb_span *span, const struct iovec *iov, int count) {
    struct odb_channel channel = {.fd = -1};
    struct taken taken = {.silent = channels->options->strategy != ODB_STRATEGY_DIRECT};
    enum odb_progress progress = ODB_CHANNEL_FAILED;
    take(channels, span, &channel, &taken);
    if (taken.pooled) {
        progress = attempt(channels, span, iov, count, &taken, &channel);
    }
    if (!taken.pooled || was_shown_out(progress, &channel)) {
        progress = attempt_anew(channels, span, iov, count, &taken, &channel);
        if (was_shown_out(progress, &channel) && !taken.silent) {
            taken.silent = true;
            progress = attempt_anew(channels, span, iov, count, &taken, &channel);
            if (progress != ODB_CHANNEL_FAILED) {
                keep_silent(channels, span);
            }
        }
    }
    if (progress == ODB_CHANNEL_FAILED && channel.connecting) {
        note_unreachable(channels, span, channel.error);
    } else if (progress == ODB_CHANNEL_DONE) {
        odb_unreachable_forget(&channels->unreachable, span->origin.address, span->origin.port);
    }
    if (progress == ODB_CHANNEL_DONE && !taken.silent) {
        odb_pushed_want(&channels->pushed, &span->origin);
    }
    return progress == ODB_CHANNEL_DONE ? 0 : channel.error;
}

int odb_channels_fetch(struct odb_channels *channels, const struct odb_span *span, const struct iovec *iov, int count) {
    int saved = errno;
    if (span->length == 0 || (span->push_channel != 0 && odb_pushed_take(&channels->pushed, span, iov, count))) {
        return 0;
    }
    int error = fetch(channels, span, iov, count);
    if (error == 0) {
        odb_count(channels->stats, ODB_STAT_fetch_bytes, span->length);
    } else {
        odb_count(channels->stats, ODB_STAT_fetch_failures, 1);
    }
    if (error == -EPROTO) {
        odb_count(channels->stats, ODB_STAT_protocol_errors, 1);
    }
    errno = saved;
    return error;
}

/* What is to lie on a connection until it is taken needs a receive window of its size from the start, or it would come bit by bit as it is taken. The mark makes the kernel widen
 * the buffer without fixing it, as SO_RCVBUF would. */
static void widen(int fd, uint64_t length) {
    int mark = length < INT_MAX ? (int)length : INT_MAX, usual = 1;
    odb_real.setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark);
    odb_real.setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &usual, sizeof usual);
}

int odb_channels_begin(struct odb_channels *channels, const struct odb_span *span, struct odb_channel *channel) {
    int saved = errno;
    struct taken taken = {.silent = channels->options->strategy != ODB_STRATEGY_DIRECT};
    *channel = (struct odb_channel){.fd = -1};
    take(channels, span, channel, &taken);
    int error = taken.pooled ? 0 : open_new(channels, span, &taken, channel);
    if (error == 0) {
        if (!taken.pooled) widen(channel->fd, span->length);
        odb_channel_begin(channel, span, NULL, 0, taken.releases, taken.release_count);
        channel->leave = span->length;
        odb_count(channels->stats, ODB_STAT_fetches, 1);
        if (odb_channel_progress(channel) == ODB_CHANNEL_FAILED) {
            error = channel->error;
            put(channels, channel, false);
        }
    }
    errno = saved;
    return error;
}

int odb_channels_take(struct odb_channels *channels, struct odb_channel *channel, void *to, size_t amount) {
    int saved = errno;
    struct iovec iov = {to, amount};
    channel->into = (struct odb_scatter){.iov = &iov, .count = 1};
    channel->leave = channel->body_left - amount;
    enum odb_progress progress = complete(channels, channel);
    channel->into.count = 0;
    if (progress == ODB_CHANNEL_DONE) {
        odb_count(channels->stats, ODB_STAT_fetch_bytes, amount);
    }
    if (progress != ODB_CHANNEL_DONE || channel->body_left == 0) {
        put(channels, channel, progress == ODB_CHANNEL_DONE || progress == ODB_CHANNEL_REFUSED);
    }
    errno = saved;
    return progress == ODB_CHANNEL_DONE ? 0 : channel->error;
}

void odb_channels_abandon(struct odb_channels *channels, struct odb_channel *channel) {
    int saved = errno;
    put(channels, channel, false);
    errno = saved;
}

void odb_channels_release(struct odb_channels *channels, const struct odb_span *span) {
    int saved = errno;
    if (lock_pool(channels)) {
        struct odb_channel_origin *origin = origin_of(channels, &span->origin);
        if (origin != NULL && origin->release_count < ODB_CHANNEL_RELEASES) {
            origin->releases[origin->release_count++] = span->payload;
        }
        odb_lock_drop(&channels->lock);
    }
    errno = saved;
}
