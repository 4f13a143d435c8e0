/* sources.h: the files behind windows of reads: which version of which file a window stands for, and the descriptor to read it through.
 *
 * A source is a duplicate of the descriptor that the application read from. Whoever needs it holds a reference: every window, and calls in progress. Sources without
 * references are kept for a moment, because the next read is often of the same file, and closed by odb_sources_reap().
 *
 * Thread safety: all functions; the lock is held for bookkeeping only. let_go and read may be called in a fault handler.
 */
#ifndef ODB_CORE_SOURCES_H
#define ODB_CORE_SOURCES_H

#include "core/payloads.h"
#include "core/span.h"
#include "os/lock.h"

#include <sys/uio.h>

#define ODB_SOURCES 64u

struct odb_source {
    int fd; /* meaningful when `id` is not 0 */
    struct odb_file_version version;
    uint64_t id; /* 0: unused */
    uint32_t references;
    uint64_t idle_ms; /* odb_clock_ms() when the last reference went */
};

struct odb_sources {
    struct odb_lock lock;
    uint64_t made;
    struct odb_source source[ODB_SOURCES];
};

/* The span of a window of a read: `payload` is the source's id, and it has no origin but this process. */
static inline bool odb_span_is_read(const struct odb_span *span) {
    return span->origin.port == 0;
}

/* One reference to the source of this version of the file that `fd` (which stays the caller's) reads, or 0 when there are too many or no descriptor is to be had. */
uint64_t odb_sources_take(struct odb_sources *sources, int fd, const struct odb_file_version *version);

/* One more reference, the descriptor and the version; -1 when there is no such source any more. */
int odb_sources_hold(struct odb_sources *sources, uint64_t id, struct odb_file_version *version);
void odb_sources_let_go(struct odb_sources *sources, uint64_t id);

/* Reads the span's bytes; a window or the caller holds a reference. 0, or a negative errno: -ESTALE when the file has changed. Leaves errno alone. */
int odb_sources_read(const struct odb_sources *sources, const struct odb_span *span, const struct iovec *iov,
                     int count);

/* Closes those that nobody has held for a while. */
void odb_sources_reap(struct odb_sources *sources, uint64_t now_ms);

#endif
