/* pushes.c: whom to push to, on which channel, and the writing itself. */
#include "core/pushes.h"

#include "core/rules.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <sched.h>

enum { SIGPIPE_UNKNOWN = 0, SIGPIPE_IGNORED, SIGPIPE_DELIVERED };
enum { PENALTY_FIRST_MS = 100, PENALTY_LAST_MS = 5000 };

#define JUDGED ((uint64_t)1 << 20) /* bytes after which a consumer's behaviour is looked at */

void odb_pushes_init(struct odb_pushes *pushes, struct odb_store *store, struct odb_stats *stats,
                     struct odb_driver *driver) {
    pushes->store = store;
    pushes->stats = stats;
    pushes->driver = driver;
}

void odb_pushes_after_fork_child(struct odb_pushes *pushes) {
    odb_lock_reset(&pushes->lock);
    memset(pushes->consumer, 0, sizeof pushes->consumer);
    atomic_store(&pushes->consumers, 0);
}

bool odb_pushes_sigpipe_is_ignored(struct odb_pushes *pushes) {
    int known = atomic_load_explicit(&pushes->sigpipe, memory_order_relaxed);
    if (known == SIGPIPE_UNKNOWN) {
        struct sigaction now;
        bool ignored =
            odb_real.sigaction(SIGPIPE, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_IGN;
        known = ignored ? SIGPIPE_IGNORED : SIGPIPE_DELIVERED;
        atomic_store_explicit(&pushes->sigpipe, known, memory_order_relaxed);
    }
    return known == SIGPIPE_IGNORED;
}

void odb_pushes_sigpipe_changed(struct odb_pushes *pushes) {
    atomic_store_explicit(&pushes->sigpipe, SIGPIPE_UNKNOWN, memory_order_relaxed);
}

/* sendfile has no MSG_NOSIGNAL: where SIGPIPE is not ignored, only the helper thread, which blocks it, writes. */
static bool may_write_here(struct odb_pushes *pushes) {
    return odb_pushes_sigpipe_is_ignored(pushes);
}

static struct odb_push_consumer *find(struct odb_pushes *pushes, uint64_t id) {
    for (uint32_t i = 0; i < ODB_PUSH_CONSUMERS; i++)
        if (pushes->consumer[i].id == id) return &pushes->consumer[i];
    return NULL;
}

/* With one consumer there is nothing to learn. */
static struct odb_push_consumer *only_one(struct odb_pushes *pushes) {
    if (atomic_load(&pushes->consumers) != 1) return NULL;
    for (uint32_t i = 0; i < ODB_PUSH_CONSUMERS; i++)
        if (pushes->consumer[i].id != 0) return &pushes->consumer[i];
    return NULL;
}

static void put_last(struct odb_push *push) {
    struct odb_push_consumer *consumer = push->consumer;
    push->state = ODB_PUSH_IDLE;
    push->next = NULL;
    if (consumer->last)
        consumer->last->next = push;
    else
        consumer->first = push;
    consumer->last = push;
}

static void take_out(struct odb_push *push) {
    struct odb_push_consumer *consumer = push->consumer;
    struct odb_push **at = &consumer->first, *before = NULL;
    while (*at != push) {
        before = *at;
        at = &before->next;
    }
    *at = push->next;
    if (consumer->last == push) consumer->last = before;
}

bool odb_pushes_knows(struct odb_pushes *pushes, uint64_t id) {
    if (id == 0 || !odb_pushes_wanted(pushes)) return false;
    odb_lock_take(&pushes->lock);
    bool known = find(pushes, id) != NULL;
    odb_lock_drop(&pushes->lock);
    return known;
}

struct odb_push *odb_pushes_take(struct odb_pushes *pushes, uint64_t id, uint64_t length) {
    if (!odb_pushes_wanted(pushes) || length < ODB_PUSH_MIN || length > ODB_PUSH_MAX) return NULL;
    odb_lock_take(&pushes->lock);
    struct odb_push_consumer *consumer = id != 0 ? find(pushes, id) : NULL;
    if (!consumer) consumer = only_one(pushes);
    struct odb_push *push =
        consumer && (consumer->resume_ms == 0 || odb_clock_ms() >= consumer->resume_ms) ? consumer->first : NULL;
    while (push && push->limit - push->position < length) push = push->next;
    if (push) {
        take_out(push);
        push->state = ODB_PUSH_TAKEN;
    }
    odb_lock_drop(&pushes->lock);
    return push;
}

bool odb_push_goes_to(const struct odb_push *push, const uint8_t address[16]) {
    return memcmp(push->consumer->address, address, sizeof push->consumer->address) == 0;
}

void odb_pushes_give_back(struct odb_pushes *pushes, struct odb_push *push) {
    odb_lock_take(&pushes->lock);
    put_last(push);
    odb_lock_drop(&pushes->lock);
}

/* 1: all written; 0: the socket is full; -1: broken. */
static int write_body(struct odb_push *push) {
    while (push->sent < push->length) {
        off64_t offset = (off64_t)(push->serving.offset + push->sent);
        ssize_t sent = odb_real.sendfile64(push->watch->fd, push->serving.fd, &offset, push->length - push->sent);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) return 0;
        if (sent <= 0) return -1; /* the connection, or a file that has become shorter */
        push->sent += (uint64_t)sent;
    }
    return 1;
}

/* The body is written, or never will be. A broken channel is shut down: the helper thread sees that and closes it. */
static void finish(struct odb_pushes *pushes, struct odb_push *push, int result) {
    if (push->serving.payload) odb_store_close_serving(pushes->store, &push->serving, push->sent);
    push->serving.payload = NULL;
    odb_count(pushes->stats, ODB_STAT_push_bytes, push->sent);
    if (result < 0) odb_real.shutdown(push->watch->fd, SHUT_RDWR);
    odb_lock_take(&pushes->lock);
    push->position += push->length;
    if (result < 0)
        push->state = ODB_PUSH_BROKEN;
    else
        put_last(push);
    odb_lock_drop(&pushes->lock);
}

void odb_pushes_send(struct odb_pushes *pushes, struct odb_push *push, const struct odb_span *span, bool looked) {
    int saved = errno, result = -1;
    struct odb_store *store = pushes->store;
    push->sent = 0;
    push->length = span->length;
    odb_count(pushes->stats, ODB_STAT_pushes, 1);
    if ((looked ? odb_store_open_announced : odb_store_open)(store, span->payload, span->token, span->offset,
                                                             span->length, &push->serving) != 0)
        push->serving.payload = NULL;
    else
        result = may_write_here(pushes) ? write_body(push) : 0;
    if (result == 0) {
        odb_lock_take(&pushes->lock);
        push->state =
            ODB_PUSH_WRITING; /* the helper thread's from here on, which may close it as soon as the lock is free */
        odb_driver_change(pushes->driver, push->watch, EPOLLIN | EPOLLOUT);
        odb_lock_drop(&pushes->lock);
    } else {
        finish(pushes, push, result);
    }
    errno = saved;
}

static struct odb_push_consumer *find_or_make(struct odb_pushes *pushes, uint64_t id, int channel) {
    struct odb_push_consumer *consumer = find(pushes, id);
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof peer;
    uint16_t port;
    if (consumer) return consumer;
    consumer = find(pushes, 0);
    if (!consumer) return NULL;
    *consumer = (struct odb_push_consumer){.id = id};
    if (getpeername(channel, (struct sockaddr *)&peer, &size) == 0)
        odb_address_from((struct sockaddr *)&peer, consumer->address, &port);
    atomic_fetch_add(&pushes->consumers, 1);
    return consumer;
}

/* Whoever lets half of the bytes pass unused is left alone for a while, longer each time. What is reported meanwhile was pushed before: many transfers that are broken off
 * together are one offence. */
static void judge(struct odb_push_consumer *consumer, uint64_t passed, uint64_t skipped) {
    uint64_t now = odb_clock_ms();
    if (now < consumer->resume_ms) return;
    consumer->passed += passed;
    consumer->skipped += skipped;
    if (consumer->passed < JUDGED) return;
    if (consumer->skipped * 2 > consumer->passed) {
        uint64_t longer = consumer->penalty_ms ? consumer->penalty_ms * 2 : PENALTY_FIRST_MS;
        consumer->penalty_ms = longer < PENALTY_LAST_MS ? longer : PENALTY_LAST_MS;
        consumer->resume_ms = now + consumer->penalty_ms;
    } else if (consumer->skipped * 8 < consumer->passed) {
        consumer->penalty_ms = 0;
        consumer->resume_ms = 0;
    }
    consumer->passed /= 2;
    consumer->skipped /= 2;
}

/* Under the lock. */
static bool attach(struct odb_pushes *pushes, struct odb_push *push, struct odb_watch *watch,
                   const struct odb_wire_push *message) {
    struct odb_push_consumer *consumer = find_or_make(pushes, message->consumer, watch->fd);
    if (!consumer || consumer->channels >= ODB_PUSH_CHANNELS) return false;
    *push = (struct odb_push){.consumer = consumer,
                              .watch = watch,
                              .number = message->channel,
                              .position = message->position,
                              .passed = message->position,
                              .limit = message->position + message->credits};
    consumer->channels++;
    put_last(push);
    return true;
}

/* Under the lock. A report of bytes that were never pushed is nonsense. */
static bool report(struct odb_pushes *pushes, struct odb_push *push, const struct odb_wire_push *message) {
    uint64_t passed = message->position - push->passed;
    if (message->channel != push->number || message->consumer != push->consumer->id ||
        passed > push->limit - push->passed || message->skipped > passed)
        return false;
    push->passed = message->position;
    push->limit += message->credits;
    odb_count(pushes->stats, ODB_STAT_push_bytes_passed, passed);
    judge(push->consumer, passed, message->skipped);
    return true;
}

bool odb_pushes_message(struct odb_pushes *pushes, struct odb_push *push, struct odb_watch *watch,
                        const struct odb_wire_push *message) {
    odb_lock_take(&pushes->lock);
    bool taken = push->state == ODB_PUSH_NONE ? attach(pushes, push, watch, message) : report(pushes, push, message);
    odb_lock_drop(&pushes->lock);
    return taken;
}

bool odb_pushes_continue(struct odb_pushes *pushes, struct odb_push *push) {
    odb_lock_take(&pushes->lock);
    enum odb_push_state state = push->state;
    /* Under the lock: whoever makes it ODB_PUSH_WRITING asks for room afterwards, and must not be overruled. */
    if (state != ODB_PUSH_WRITING && state != ODB_PUSH_BROKEN) odb_driver_change(pushes->driver, push->watch, EPOLLIN);
    odb_lock_drop(&pushes->lock);
    if (state != ODB_PUSH_WRITING) return state != ODB_PUSH_BROKEN;
    int result = write_body(push);
    if (result == 0) return true;
    odb_driver_change(pushes->driver, push->watch, EPOLLIN);
    finish(pushes, push, result);
    return result > 0;
}

void odb_pushes_detach(struct odb_pushes *pushes, struct odb_push *push) {
    if (push->state == ODB_PUSH_NONE) return;
    odb_lock_take(&pushes->lock);
    while (push->state == ODB_PUSH_TAKEN) {
        odb_lock_drop(&pushes->lock);
        sched_yield(); /* its taker is within one call that does not wait */
        odb_lock_take(&pushes->lock);
    }
    if (push->state == ODB_PUSH_IDLE) take_out(push);
    struct odb_push_consumer *consumer = push->consumer;
    if (--consumer->channels == 0) {
        consumer->id = 0;
        atomic_fetch_sub(&pushes->consumers, 1);
    }
    bool writing = push->state == ODB_PUSH_WRITING;
    push->state = ODB_PUSH_NONE;
    odb_lock_drop(&pushes->lock);
    if (writing && push->serving.payload) odb_store_close_serving(pushes->store, &push->serving, push->sent);
    push->serving.payload = NULL;
}
