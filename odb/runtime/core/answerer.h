/* answerer.h: the discovery service: answers, for every process of this host, whether a listening port speaks ODB.
 *
 * Runs in the helper thread of each process that accepts connections. All of them listen on `discovery_port`
 * (SO_REUSEPORT: those of the same user together); all know the same, because they answer from the registry. A process
 * that cannot have the port tries again every second, so that the service outlives whoever ran it.
 *
 * A question is answered with yes only if it arrived at the very address that it asks for: behind a translator of
 * addresses somebody else might be meant.
 */
#ifndef ODB_CORE_ANSWERER_H
#define ODB_CORE_ANSWERER_H

#include "core/driver.h"
#include "core/options.h"
#include "core/stats.h"
#include "wire/message.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define ODB_ANSWERER_ASKERS 64u

struct odb_answerer_connection {
    struct odb_watch watch; /* first: the callback finds the connection through it. fd is -1 while it is unused */
    struct odb_answerer *answerer;
    uint64_t heard_ms;
    size_t received;
    uint8_t question[ODB_WIRE_QUERY_FRAME];
};

/* All-zero memory, but for the pointers, is a service that was never started. */
struct odb_answerer {
    const struct odb_options *options;
    struct odb_stats *stats;
    struct odb_driver *driver;
    _Atomic bool started;
    struct odb_watch listener;
    struct odb_tick tick;
    struct odb_answerer_connection connections[ODB_ANSWERER_ASKERS];
};

void odb_answerer_init(struct odb_answerer *answerer, const struct odb_options *options, struct odb_stats *stats,
                       struct odb_driver *driver);

/* Starts serving unless that has happened already. Thread-safe; cheap when started. */
void odb_answerer_start(struct odb_answerer *answerer);

/* The child serves nothing yet: closes its copies. */
void odb_answerer_after_fork_child(struct odb_answerer *answerer);

#endif
