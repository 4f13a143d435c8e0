/* asker.h: finds out, without making anybody wait, who speaks ODB: asks the discovery service of a server's host and
 * remembers the answer.
 *
 * A connection that is opened before the answer is there stays classic. An answer is trusted for its time to live, at
 * most discovery_ttl_ms; an affirmative one is renewed in the second half of that time while it is being used. Refusal,
 * nonsense and a second of silence count as no. Known addresses and queries under way are bounded; whoever does not fit
 * stays classic. Thread-safe; not for signal handlers. Queries run in the helper thread.
 */
#ifndef ODB_CORE_ASKER_H
#define ODB_CORE_ASKER_H

#include "core/driver.h"
#include "core/options.h"
#include "core/stats.h"
#include "os/lock.h"
#include "wire/message.h"

#include <stdbool.h>
#include <stdint.h>

#define ODB_ASKER_SETS 64u
#define ODB_ASKER_WAYS 8u
#define ODB_ASKER_QUERIES 16u

struct odb_known {
    uint8_t address[16];
    uint16_t port;         /* 0: unused */
    bool framed;           /* the answer */
    bool asking;           /* a query is under way */
    uint64_t expires_ms;   /* of the answer; 0: there is none */
    uint64_t ask_again_ms; /* earliest time of the next query */
    uint64_t used_ms;
};

struct odb_query {
    struct odb_watch watch; /* first: the callback finds the query through it */
    struct odb_asker *asker;
    _Atomic bool active;
    _Atomic bool claimed;
    bool sent;
    uint8_t address[16];
    uint16_t port;
    uint64_t deadline_ms;
    size_t received;
    uint8_t answer[ODB_WIRE_ANSWER_FRAME];
};

/* All-zero memory, but for the pointers, has asked nothing yet. */
struct odb_asker {
    const struct odb_options *options;
    struct odb_stats *stats;
    struct odb_driver *driver;
    struct odb_lock lock; /* of `known` and `timer` */
    struct odb_watch timer;
    bool ticking;
    struct odb_known known[ODB_ASKER_SETS][ODB_ASKER_WAYS];
    struct odb_query queries[ODB_ASKER_QUERIES];
};

void odb_asker_init(struct odb_asker *asker, const struct odb_options *options, struct odb_stats *stats,
                    struct odb_driver *driver);

/* Is whoever listens at `address`:`port` known to speak ODB? Asks if that is not known well enough. */
bool odb_asker_knows(struct odb_asker *asker, const uint8_t address[16], uint16_t port);

/* Nobody listens there any more, as far as this process can tell. */
void odb_asker_forget(struct odb_asker *asker, const uint8_t address[16], uint16_t port);

/* The child knows nothing and asks anew. */
void odb_asker_after_fork_child(struct odb_asker *asker);

#endif
