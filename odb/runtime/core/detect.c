/* detect.c: tells HELLO from classic bytes, and sees to it that this never takes longer than detect_ms. */
#include "core/detect.h"

#include "core/runtime.h"
#include "core/sharing.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"
#include "wire/hello.h"

#include <errno.h>
#include <sys/timerfd.h>

enum { DECIDED = 16 }; /* header and cookie: from here on a HELLO is no accident */

void odb_undecided_init(struct odb_undecided *undecided, struct odb_driver *driver, struct odb_fdtable *fds) {
    undecided->driver = driver;
    undecided->fds = fds;
    undecided->timer.fd = -1;
}

static void set_mark(int fd, int mark) {
    odb_real.setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark);
}

/* Under the lock. */
static void set_timer(const struct odb_undecided *undecided, uint64_t at_ms) {
    struct itimerspec at = {.it_value = {(time_t)(at_ms / 1000), (long)(at_ms % 1000) * 1000000}};
    timerfd_settime(undecided->timer.fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* Under the lock. The caller gets the list's reference. */
static void unlink_stream(struct odb_undecided *undecided, struct odb_stream *stream) {
    struct odb_stream *next = stream->undecided.next, *previous = stream->undecided.previous;
    *(previous != NULL ? &previous->undecided.next : &undecided->first) = next;
    *(next != NULL ? &next->undecided.previous : &undecided->last) = previous;
    atomic_store(&stream->undecided.listed, false);
}

/* Under the lock: the first stream, if its time is over. */
static struct odb_stream *take_due(struct odb_undecided *undecided, uint64_t now) {
    struct odb_stream *stream = undecided->first;
    if (stream == NULL || stream->undecided.until_ms > now) {
        return NULL;
    }
    unlink_stream(undecided, stream);
    return stream;
}

/* The descriptor that stands for the stream now: it may have been duplicated and closed. */
static int descriptor_of(struct odb_fdtable *fds, const struct odb_stream *stream) {
    int noted = stream->undecided.fd, highest = atomic_load(&fds->highest);
    if (atomic_load(&fds->slots[noted].stream) == stream) {
        return noted;
    }
    for (int fd = 0; fd <= highest; fd++) {
        if (atomic_load(&fds->slots[fd].stream) == stream) {
            return fd;
        }
    }
    return -1;
}

/* The next look at the stream finds its time over; lowering the mark makes the kernel ask for that look. */
static void wake(struct odb_undecided *undecided, struct odb_stream *stream) {
    int fd = descriptor_of(undecided->fds, stream);
    if (fd >= 0 && atomic_load(&stream->in.mode) == ODB_IN_DETECT) {
        set_mark(fd, 1);
    }
    odb_fdtable_let_go(undecided->fds, stream);
}

static void timer_ready(struct odb_watch *watch, uint32_t events) {
    struct odb_undecided *undecided =
        (struct odb_undecided *)(void *)((char *)watch - offsetof(struct odb_undecided, timer));
    struct odb_stream *stream;
    uint64_t fired, now = odb_clock_ms();
    (void)events;
    if (odb_real.read(watch->fd, &fired, sizeof fired) < 0) {
        return; /* set anew meanwhile */
    }
    odb_lock_take(&undecided->lock);
    while ((stream = take_due(undecided, now)) != NULL) {
        odb_lock_drop(&undecided->lock);
        wake(undecided, stream);
        odb_lock_take(&undecided->lock);
    }
    if (undecided->first != NULL) {
        set_timer(undecided, undecided->first->undecided.until_ms);
    }
    odb_lock_drop(&undecided->lock);
}

/* Under the lock. */
static bool has_timer(struct odb_undecided *undecided) {
    if (undecided->timer.fd >= 0) {
        return true;
    }
    int made = odb_driver_start(undecided->driver) ? timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC) : -1;
    undecided->timer = (struct odb_watch){.fd = odb_fds_adopt(made), .ready = timer_ready};
    if (undecided->timer.fd >= 0 && odb_driver_add(undecided->driver, &undecided->timer, EPOLLIN)) {
        return true;
    }
    odb_fds_close(undecided->timer.fd);
    undecided->timer.fd = -1;
    return false;
}

/* Without a timer the mark stays where it is: waits then return in vain until the time is over, but none hangs. */
static void list(struct odb_undecided *undecided, struct odb_stream *stream, int fd) {
    odb_lock_take(&undecided->lock);
    bool good = has_timer(undecided);
    if (good) {
        atomic_fetch_add(&stream->references, 1); /* the list's; the caller has one of its own */
        stream->undecided.fd = fd;
        stream->undecided.next = NULL;
        stream->undecided.previous = undecided->last;
        atomic_store(&stream->undecided.listed, true);
        if (undecided->last != NULL) {
            undecided->last->undecided.next = stream;
        } else {
            undecided->first = stream;
            set_timer(undecided, stream->undecided.until_ms);
        }
        undecided->last = stream;
    }
    odb_lock_drop(&undecided->lock);
    if (good) {
        set_mark(fd, DECIDED);
        stream->undecided.marked = true;
    }
}

/* It is decided. */
static void unlist(struct odb_undecided *undecided, struct odb_stream *stream) {
    odb_lock_take(&undecided->lock);
    bool listed = atomic_load(&stream->undecided.listed);
    if (listed) {
        unlink_stream(undecided, stream);
    }
    odb_lock_drop(&undecided->lock);
    if (listed) {
        odb_fdtable_let_go(undecided->fds, stream);
    }
}

void odb_undecided_after_fork_child(struct odb_undecided *undecided) {
    odb_lock_reset(&undecided->lock);
    if (odb_fds_is_internal(undecided->timer.fd)) {
        odb_fds_close(undecided->timer.fd);
    }
    undecided->timer.fd = -1;
    for (struct odb_stream *at = undecided->first; at != NULL; at = at->undecided.next) {
        atomic_store(&at->undecided.listed, false);
        atomic_fetch_sub(&at->references, 1);
    }
    undecided->first = undecided->last = NULL;
}

static void decide(struct odb_runtime *runtime, struct odb_stream *stream, int fd, bool framed) {
    enum odb_out_mode open = ODB_OUT_OPEN;
    enum odb_stat which = framed ? ODB_STAT_streams_framed : ODB_STAT_streams_classic;
    if (framed) {
        odb_wire_decoder_init(&stream->in.decoder, true);
    }
    atomic_store(&stream->in.mode, framed ? ODB_IN_FRAMED : ODB_IN_CLASSIC);
    int low_water = framed ? 0 : atomic_load(&stream->low_water); /* of classic bytes the kernel keeps count */
    if (stream->undecided.marked || low_water > 0) {
        set_mark(fd, low_water > 0 ? low_water : 1);
    }
    if (stream->undecided.marked) {
        unlist(&runtime->undecided, stream);
    }
    if (atomic_compare_exchange_strong(&stream->out_mode, &open, framed ? ODB_OUT_HELLO : ODB_OUT_CLASSIC)) {
        odb_count(&runtime->stats, which, 1);
    }
}

static bool has_ended(int fd) {
    struct pollfd end = {.fd = fd, .events = POLLRDHUP};
    return odb_real.poll(&end, 1, 0) > 0;
}

/* Some bytes that could become a HELLO. False: time is over, or nothing can follow. */
static bool stays_undecided(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    uint64_t now = odb_clock_ms();
    if (stream->undecided.until_ms == 0) {
        stream->undecided.until_ms = now + runtime->options.detect_ms;
    }
    if (now >= stream->undecided.until_ms || has_ended(fd)) {
        return false;
    }
    if (!atomic_load(&stream->undecided.listed)) {
        list(&runtime->undecided, stream, fd);
    }
    return true;
}

bool odb_detect(struct odb_runtime *runtime, struct odb_stream *stream, int fd) {
    struct odb_inbox *in = &stream->in;
    uint8_t first[DECIDED];
    ssize_t got;
    atomic_store(&in->drained, true); /* before the call: a report that comes meanwhile must not get lost */
    do {
        got = odb_real.recv(fd, first, sizeof first, MSG_PEEK | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) {
        return false;
    }
    if (got < 0) {
        in->error = errno;
        in->ended = true;
        return true;
    }
    bool may_be = got > 0 && odb_wire_hello_prefix(first, (size_t)got);
    if (may_be && got < DECIDED && stays_undecided(runtime, stream, fd)) {
        return false;
    }
    decide(runtime, stream, fd, may_be && got == DECIDED);
    return true;
}

bool odb_detect_wait(struct odb_stream *stream, int fd) {
    if (atomic_load(&stream->in.mode) != ODB_IN_DETECT) {
        return false;
    }
    odb_in_take(stream);
    uint64_t until = atomic_load(&stream->in.mode) == ODB_IN_DETECT ? stream->undecided.until_ms : 0;
    odb_in_drop(stream);
    struct pollfd more = {.fd = fd, .events = POLLIN | POLLRDHUP};
    uint64_t now = odb_clock_ms();
    if (until == 0) {
        return false;
    }
    /* Signals interrupt this, and are not told of: it is over soon, and the wait that follows will see the next. */
    if (now < until) {
        odb_real.poll(&more, 1, (int)(until - now));
    }
    return true;
}
