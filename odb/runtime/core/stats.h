/* stats.h: live counters, one shared page per process that `odb stat` reads.
 *
 * odb_count() is one relaxed atomic addition: safe in every thread and in signal handlers. Where the page cannot be made (no directory, no room) the counters live
 * in private memory and simply are not visible. Layout of the file: a 64-byte header, then {char name[40]; uint64_t value} per counter, native byte order.
 */
#ifndef ODB_CORE_STATS_H
#define ODB_CORE_STATS_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum odb_stat {
#define ODB_STAT(name, doc) ODB_STAT_##name,
#include "stats.def"
#undef ODB_STAT
    ODB_STAT_COUNT
};

struct odb_stat_entry {
    char name[40];
    _Atomic uint64_t value;
};

struct odb_stats {
    struct odb_stat_entry *entries; /* ODB_STAT_COUNT of them; never null after open */
    char path[PATH_MAX + 64];       /* empty: not visible */
    bool tried;                     /* to make a page; it is tried once a process */
};

/* Makes the page of this process. Does nothing when there is one. */
void odb_stats_open(struct odb_stats *stats, const char *directory);
/* The child counts from zero, in private until it opens a page of its own: most children never have anything to show. */
void odb_stats_after_fork_child(struct odb_stats *stats);
/* Removes the file; counting goes on without harm. */
void odb_stats_close(struct odb_stats *stats);

static inline void odb_count(struct odb_stats *stats, enum odb_stat which, uint64_t amount) {
    atomic_fetch_add_explicit(&stats->entries[which].value, amount, memory_order_relaxed);
}

#endif
