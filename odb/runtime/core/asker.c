/* asker.c: the table of answers, and the queries that fill it. */
#include "core/asker.h"

#include "core/channel.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>

enum { SILENCE_MS = 1000, BUSY_MS = 100 };

void odb_asker_init(struct odb_asker *asker, const struct odb_options *options, struct odb_stats *stats,
                    struct odb_driver *driver) {
    asker->options = options;
    asker->stats = stats;
    asker->driver = driver;
    asker->timer.fd = -1;
    for (unsigned i = 0; i < ODB_ASKER_QUERIES; i++) {
        asker->queries[i].watch.fd = -1;
        asker->queries[i].asker = asker;
    }
}

/* ---- what is known; under the lock ---- */

static struct odb_known *set_of(struct odb_asker *asker, const uint8_t address[16], uint16_t port) {
    uint64_t low, high;
    memcpy(&high, address, 8);
    memcpy(&low, address + 8, 8);
    uint64_t mixed = (low ^ high * 31 ^ port) * 0x9e3779b97f4a7c15u;
    return asker->known[(mixed >> 40) % ODB_ASKER_SETS];
}

static struct odb_known *find(struct odb_asker *asker, const uint8_t address[16], uint16_t port) {
    struct odb_known *set = set_of(asker, address, port);
    for (unsigned i = 0; i < ODB_ASKER_WAYS; i++) {
        if (set[i].port == port && memcmp(set[i].address, address, sizeof set[i].address) == 0) {
            return &set[i];
        }
    }
    return NULL;
}

/* In place of the one that has not been used for longest. */
static struct odb_known *add(struct odb_asker *asker, const uint8_t address[16], uint16_t port) {
    struct odb_known *set = set_of(asker, address, port), *place = set;
    for (unsigned i = 1; i < ODB_ASKER_WAYS; i++) {
        place = set[i].used_ms < place->used_ms ? &set[i] : place;
    }
    memset(place, 0, sizeof *place);
    memcpy(place->address, address, sizeof place->address);
    place->port = port;
    return place;
}

static void learn(struct odb_asker *asker, const struct odb_query *query, bool framed, uint64_t ttl_ms) {
    uint64_t now = odb_clock_ms();
    odb_lock_take(&asker->lock);
    struct odb_known *known = find(asker, query->address, query->port);
    if (known != NULL) {
        known->asking = false;
        known->framed = framed;
        known->expires_ms = now + ttl_ms;
        known->ask_again_ms = framed ? now + ttl_ms / 2 : known->expires_ms;
    }
    odb_lock_drop(&asker->lock);
}

/* ---- queries ---- */

/* Only in the helper thread, or before the query is watched. */
static void end_query(struct odb_query *query) {
    int fd = query->watch.fd;
    atomic_store(&query->active, false);
    query->watch.fd = -1; /* forgotten before it is closed, so that a forked child never closes a stranger */
    odb_fds_close(fd);
    atomic_store(&query->claimed, false);
}

static void settle(struct odb_query *query, bool framed, uint64_t ttl_ms) {
    struct odb_asker *asker = query->asker;
    uint64_t most = asker->options->discovery_ttl_ms;
    odb_count(asker->stats, framed ? ODB_STAT_discovery_answers_yes : ODB_STAT_discovery_answers_no, 1);
    learn(asker, query, framed, ttl_ms < most ? ttl_ms : most);
    odb_driver_remove(asker->driver, &query->watch);
    end_query(query);
}

static void settle_no(struct odb_query *query) {
    settle(query, false, query->asker->options->discovery_ttl_ms);
}

static void send_query(struct odb_query *query) {
    struct odb_wire_query question = {.port = query->port};
    uint8_t frame[ODB_WIRE_QUERY_FRAME];
    memcpy(question.address, query->address, sizeof question.address);
    odb_wire_query_encode(frame, &question);
    ssize_t sent = odb_real.send(query->watch.fd, frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT);
    query->sent = sent == (ssize_t)sizeof frame;
    if (!query->sent || !odb_driver_change(query->asker->driver, &query->watch, EPOLLIN)) {
        settle_no(query);
    }
}

static void read_answer(struct odb_query *query) {
    struct odb_wire_header header;
    struct odb_wire_answer answer;
    ssize_t got = odb_real.recv(query->watch.fd, query->answer + query->received,
                                sizeof query->answer - query->received, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    query->received += got > 0 ? (size_t)got : 0;
    if (got > 0 && query->received < sizeof query->answer) {
        return;
    }
    bool good = got > 0 && odb_wire_header_decode(&header, query->answer) == ODB_WIRE_OK &&
                header.type == ODB_WIRE_ANSWER &&
                odb_wire_answer_decode(&answer, query->answer + ODB_WIRE_HEADER_SIZE) == ODB_WIRE_OK &&
                answer.port == query->port && memcmp(answer.address, query->address, sizeof answer.address) == 0;
    if (good) {
        settle(query, answer.framed, answer.ttl_ms);
    } else {
        settle_no(query);
    }
}

static void query_ready(struct odb_watch *watch, uint32_t events) {
    struct odb_query *query = (struct odb_query *)(void *)watch;
    if (!query->sent && (events & (EPOLLERR | EPOLLHUP))) {
        settle_no(query);
    } else if (!query->sent) {
        send_query(query);
    } else {
        read_answer(query);
    }
}

/* ---- silence ---- */

static void set_timer(struct odb_asker *asker, uint64_t at_ms) {
    struct itimerspec at = {.it_value = {(time_t)(at_ms / 1000), (long)(at_ms % 1000) * 1000000}};
    timerfd_settime(asker->timer.fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static void timer_ready(struct odb_watch *watch, uint32_t events) {
    struct odb_asker *asker = (struct odb_asker *)(void *)((char *)watch - offsetof(struct odb_asker, timer));
    uint64_t fired, now = odb_clock_ms(), next = UINT64_MAX;
    (void)events;
    if (odb_real.read(watch->fd, &fired, sizeof fired) < 0) {
        return; /* set anew meanwhile */
    }
    for (unsigned i = 0; i < ODB_ASKER_QUERIES; i++) {
        if (atomic_load(&asker->queries[i].active) && asker->queries[i].deadline_ms <= now) {
            settle_no(&asker->queries[i]);
        }
    }
    odb_lock_take(&asker->lock); /* queries become active under it */
    for (unsigned i = 0; i < ODB_ASKER_QUERIES; i++) {
        if (atomic_load(&asker->queries[i].active) && asker->queries[i].deadline_ms < next) {
            next = asker->queries[i].deadline_ms;
        }
    }
    asker->ticking = next != UINT64_MAX;
    if (asker->ticking) {
        set_timer(asker, next);
    }
    odb_lock_drop(&asker->lock);
}

/* Under the lock. Without a timer nothing is asked. */
static bool has_timer(struct odb_asker *asker) {
    if (asker->timer.fd >= 0) {
        return true;
    }
    asker->timer = (struct odb_watch){.fd = odb_fds_adopt(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
                                      .ready = timer_ready};
    if (asker->timer.fd >= 0 && odb_driver_add(asker->driver, &asker->timer, EPOLLIN)) {
        return true;
    }
    odb_fds_close(asker->timer.fd);
    asker->timer.fd = -1;
    return false;
}

static struct odb_query *claim(struct odb_asker *asker) {
    for (unsigned i = 0; i < ODB_ASKER_QUERIES; i++) {
        bool expected = false;
        if (atomic_compare_exchange_strong(&asker->queries[i].claimed, &expected, true)) {
            return &asker->queries[i];
        }
    }
    return NULL;
}

/* The query can end by itself from here on. */
static bool watch_query(struct odb_query *query) {
    struct odb_asker *asker = query->asker;
    odb_lock_take(&asker->lock);
    bool good = has_timer(asker);
    if (good) {
        query->deadline_ms = odb_clock_ms() + SILENCE_MS;
        if (!asker->ticking) {
            set_timer(asker, query->deadline_ms);
        }
        asker->ticking = true;
        good = odb_driver_add(asker->driver, &query->watch, EPOLLOUT);
        atomic_store(&query->active, good);
    }
    odb_lock_drop(&asker->lock);
    return good;
}

/* 0, or when to try again. */
static uint64_t ask(struct odb_asker *asker, const uint8_t address[16], uint16_t port) {
    struct odb_origin_address service = {.port = (uint16_t)asker->options->discovery_port};
    memcpy(service.address, address, sizeof service.address);
    struct odb_query *query = odb_driver_start(asker->driver) ? claim(asker) : NULL;
    if (query == NULL) {
        return BUSY_MS;
    }
    int fd = odb_channel_connect(&service);
    memcpy(query->address, address, sizeof query->address);
    query->port = port;
    query->sent = false;
    query->received = 0;
    query->watch.ready = query_ready;
    query->watch.fd = fd < 0 ? -1 : fd;
    odb_count(asker->stats, ODB_STAT_discovery_queries, 1);
    if (fd >= 0 && watch_query(query)) {
        return 0;
    }
    end_query(query);
    odb_count(asker->stats, ODB_STAT_discovery_answers_no, 1);
    return asker->options->discovery_ttl_ms;
}

/* The query could not even begin. */
static void put_off(struct odb_asker *asker, const uint8_t address[16], uint16_t port, uint64_t until_ms) {
    odb_lock_take(&asker->lock);
    struct odb_known *known = find(asker, address, port);
    if (known != NULL) {
        known->asking = false;
        known->ask_again_ms = until_ms;
    }
    odb_lock_drop(&asker->lock);
}

bool odb_asker_knows(struct odb_asker *asker, const uint8_t address[16], uint16_t port) {
    uint64_t now = odb_clock_ms();
    odb_lock_take(&asker->lock);
    struct odb_known *known = find(asker, address, port);
    if (known == NULL) {
        known = add(asker, address, port);
    }
    known->used_ms = now;
    bool framed = known->framed && now < known->expires_ms, asks = !known->asking && now >= known->ask_again_ms;
    known->asking |= asks;
    odb_lock_drop(&asker->lock);
    uint64_t later = asks ? ask(asker, address, port) : 0;
    if (later > 0) {
        put_off(asker, address, port, now + later);
    }
    return framed;
}

void odb_asker_forget(struct odb_asker *asker, const uint8_t address[16], uint16_t port) {
    odb_lock_take(&asker->lock);
    struct odb_known *known = find(asker, address, port);
    if (known != NULL) {
        known->framed = false;
        known->ask_again_ms = 0;
    }
    odb_lock_drop(&asker->lock);
}

void odb_asker_after_fork_child(struct odb_asker *asker) {
    for (unsigned i = 0; i < ODB_ASKER_QUERIES; i++) {
        struct odb_query *query = &asker->queries[i];
        if (odb_fds_is_internal(query->watch.fd)) {
            odb_fds_close(query->watch.fd);
        }
        query->watch.fd = -1;
        atomic_store(&query->active, false);
        atomic_store(&query->claimed, false);
    }
    if (odb_fds_is_internal(asker->timer.fd)) {
        odb_fds_close(asker->timer.fd);
    }
    asker->timer.fd = -1;
    asker->ticking = false;
    memset(asker->known, 0, sizeof asker->known);
    odb_lock_reset(&asker->lock);
}
