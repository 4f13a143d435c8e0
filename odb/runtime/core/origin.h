/* origin.h: serves the payloads of this process to consumers: listens, accepts channels, and turns each in the helper
 * thread.
 *
 * The number of channels is bounded; a new one beyond the bound takes the place of the one that has been idle for
 * longest. A channel that is answering is never closed for another.
 */
#ifndef ODB_CORE_ORIGIN_H
#define ODB_CORE_ORIGIN_H

#include "core/driver.h"
#include "core/options.h"
#include "core/served.h"
#include "core/stats.h"
#include "core/store.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define ODB_ORIGIN_CHANNELS 1024u

struct odb_origin_channel; /* defined in origin.c */

/* All-zero memory is a server that was never started. */
struct odb_origin_server {
    _Atomic unsigned state;
    _Atomic uint64_t retry_ms; /* after a failed start: when the next one is worth trying */
    uint16_t port;
    const struct odb_options *options;
    struct odb_stats *stats;
    struct odb_store *store;
    struct odb_driver *driver;
    struct odb_pushes pushes;
    struct odb_watch listener;
    struct odb_tick tick;
    bool paused; /* out of descriptors: the listener rests until the next tick */
    struct odb_origin_channel *channels;
    uint32_t high;   /* records ever used */
    uint32_t limit;  /* of records */
    uint32_t free;   /* links are record numbers + 1, zero is none */
    uint32_t oldest; /* the idle channels, by the time they became so */
    uint32_t newest;
};

/* Starts serving unless that has happened already. False when it cannot (no port, no thread), or while another thread
 * is at it: the caller then stays classic; it is tried again later. Thread-safe; not for signal handlers. The pointers
 * are kept. */
bool odb_origin_start(struct odb_origin_server *server, const struct odb_options *options, struct odb_stats *stats,
                      struct odb_store *store, struct odb_driver *driver);

/* Where consumers connect; host order, 0 when not started. Any thread. */
uint16_t odb_origin_port(const struct odb_origin_server *server);

/* The child serves nothing yet: closes its copies of listener and channels. Before odb_store_after_fork_child(). */
void odb_origin_after_fork_child(struct odb_origin_server *server);

#endif
