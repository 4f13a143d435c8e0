/* answerer.c: reads questions, looks into the registry, answers. */
#include "core/answerer.h"

#include "core/listen.h"
#include "core/registry.h"
#include "core/rules.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <string.h>

enum { IDLE_MS = 5000 };

void odb_answerer_init(struct odb_answerer *answerer, const struct odb_options *options, struct odb_stats *stats,
                       struct odb_driver *driver) {
    answerer->options = options;
    answerer->stats = stats;
    answerer->driver = driver;
    answerer->listener.fd = -1;
    for (unsigned i = 0; i < ODB_ANSWERER_ASKERS; i++) {
        answerer->connections[i].watch.fd = -1;
        answerer->connections[i].answerer = answerer;
    }
}

static void close_connection(struct odb_answerer_connection *connection) {
    int fd = connection->watch.fd;
    odb_driver_remove(connection->answerer->driver, &connection->watch);
    connection->watch.fd = -1; /* forgotten before it is closed, so that a forked child never closes a stranger */
    odb_fds_close(fd);
}

static bool arrived_at(int fd, const uint8_t address[16]) {
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    uint8_t own[16];
    uint16_t port;
    return getsockname(fd, (struct sockaddr *)&local, &length) == 0 &&
           odb_address_from((struct sockaddr *)&local, own, &port) && memcmp(own, address, sizeof own) == 0;
}

/* False: the connection is to be closed. */
static bool answer(struct odb_answerer_connection *connection) {
    struct odb_answerer *answerer = connection->answerer;
    struct odb_wire_header header;
    struct odb_wire_query query;
    uint8_t frame[ODB_WIRE_ANSWER_FRAME];
    if (odb_wire_header_decode(&header, connection->question) != ODB_WIRE_OK || header.type != ODB_WIRE_QUERY ||
        odb_wire_query_decode(&query, connection->question + ODB_WIRE_HEADER_SIZE) != ODB_WIRE_OK) {
        odb_count(answerer->stats, ODB_STAT_protocol_errors, 1);
        return false;
    }
    struct odb_wire_answer verdict = {.port = query.port, .ttl_ms = (uint32_t)answerer->options->discovery_ttl_ms};
    memcpy(verdict.address, query.address, sizeof verdict.address);
    verdict.framed = arrived_at(connection->watch.fd, query.address) &&
                     odb_registry_speaks(answerer->options->stats_dir, query.address, query.port);
    odb_wire_answer_encode(frame, &verdict);
    odb_count(answerer->stats, ODB_STAT_discovery_served, 1);
    connection->received = 0;
    return odb_real.send(connection->watch.fd, frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT) ==
           (ssize_t)sizeof frame;
}

/* One question per turn, so that nobody holds up the others. */
static void connection_ready(struct odb_watch *watch, uint32_t events) {
    struct odb_answerer_connection *connection = (struct odb_answerer_connection *)(void *)watch;
    (void)events; /* errors and hang-ups show as results of the calls */
    ssize_t got = odb_real.recv(watch->fd, connection->question + connection->received,
                                sizeof connection->question - connection->received, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    connection->heard_ms = odb_clock_ms();
    connection->received += got > 0 ? (size_t)got : 0;
    if (got <= 0 || (connection->received == sizeof connection->question && !answer(connection))) {
        close_connection(connection);
    }
}

/* A free one, or the one that has been silent for longest. */
static struct odb_answerer_connection *place_for(struct odb_answerer *answerer) {
    struct odb_answerer_connection *oldest = &answerer->connections[0];
    for (unsigned i = 0; i < ODB_ANSWERER_ASKERS; i++) {
        if (answerer->connections[i].watch.fd < 0) {
            return &answerer->connections[i];
        }
        if (answerer->connections[i].heard_ms < oldest->heard_ms) {
            oldest = &answerer->connections[i];
        }
    }
    close_connection(oldest);
    return oldest;
}

static void listener_ready(struct odb_watch *watch, uint32_t events) {
    struct odb_answerer *answerer =
        (struct odb_answerer *)(void *)((char *)watch - offsetof(struct odb_answerer, listener));
    (void)events;
    int made = odb_real.accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int fd = made < 0 ? -1 : odb_fds_adopt(made);
    if (fd < 0) {
        if (made >= 0 || (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)) {
            odb_driver_change(answerer->driver, watch, 0); /* out of descriptors: rests until the next tick */
        }
        return;
    }
    struct odb_answerer_connection *connection = place_for(answerer);
    connection->watch.ready = connection_ready;
    connection->watch.fd = fd;
    connection->received = 0;
    connection->heard_ms = odb_clock_ms();
    if (!odb_driver_add(answerer->driver, &connection->watch, EPOLLIN)) {
        close_connection(connection);
    }
}

/* Leaves the listener without descriptor when the port cannot be had. */
static void try_to_listen(struct odb_answerer *answerer) {
    answerer->listener.ready = listener_ready;
    answerer->listener.fd = odb_listen_together((uint16_t)answerer->options->discovery_port);
    if (answerer->listener.fd >= 0 && !odb_driver_add(answerer->driver, &answerer->listener, EPOLLIN)) {
        odb_fds_close(answerer->listener.fd);
        answerer->listener.fd = -1;
    }
}

static void tick(struct odb_tick *tick_, uint64_t now_ms) {
    struct odb_answerer *answerer =
        (struct odb_answerer *)(void *)((char *)tick_ - offsetof(struct odb_answerer, tick));
    if (answerer->listener.fd < 0) {
        try_to_listen(answerer);
    } else {
        odb_driver_change(answerer->driver, &answerer->listener, EPOLLIN);
    }
    for (unsigned i = 0; i < ODB_ANSWERER_ASKERS; i++) {
        struct odb_answerer_connection *connection = &answerer->connections[i];
        if (connection->watch.fd >= 0 && now_ms > connection->heard_ms + IDLE_MS) {
            close_connection(connection);
        }
    }
}

void odb_answerer_start(struct odb_answerer *answerer) {
    if (atomic_load_explicit(&answerer->started, memory_order_relaxed) || atomic_exchange(&answerer->started, true)) {
        return;
    }
    if (!odb_driver_start(answerer->driver)) {
        atomic_store(&answerer->started, false);
        return;
    }
    odb_registry_prune(answerer->options->stats_dir);
    try_to_listen(answerer); /* the tick that might do it as well is not there yet */
    answerer->tick.run = tick;
    odb_driver_add_tick(answerer->driver, &answerer->tick);
}

void odb_answerer_after_fork_child(struct odb_answerer *answerer) {
    for (unsigned i = 0; i < ODB_ANSWERER_ASKERS; i++) {
        if (odb_fds_is_internal(answerer->connections[i].watch.fd)) {
            odb_fds_close(answerer->connections[i].watch.fd);
        }
        answerer->connections[i].watch.fd = -1;
    }
    if (odb_fds_is_internal(answerer->listener.fd)) {
        odb_fds_close(answerer->listener.fd);
    }
    answerer->listener.fd = -1;
    atomic_store(&answerer->started, false);
}
