/* scatter.h: a position within somebody's iovec array, for transfers that stop and go on. Pure; async-signal-safe. */
#ifndef ODB_CORE_SCATTER_H
#define ODB_CORE_SCATTER_H

#include <stddef.h>
#include <sys/uio.h>

struct odb_scatter {
    const struct iovec *iov; /* not owned */
    int count;
    int index;     /* the entry that the position is in */
    size_t inside; /* bytes of that entry that are done */
};

/* Writes to `out` at most `max` entries that cover at most `limit` bytes from the position on; returns how many. */
static inline int odb_scatter_window(const struct odb_scatter *at, size_t limit, struct iovec *out, int max) {
    int used = 0;
    size_t inside = at->inside;
    for (int i = at->index; i < at->count && used < max && limit > 0; i++, inside = 0) {
        size_t size = at->iov[i].iov_len - inside;
        if (size == 0) {
            continue;
        }
        size = size < limit ? size : limit;
        out[used].iov_base = (char *)at->iov[i].iov_base + inside;
        out[used].iov_len = size;
        limit -= size;
        used++;
    }
    return used;
}

static inline void odb_scatter_advance(struct odb_scatter *at, size_t bytes) {
    while (at->index < at->count && bytes >= at->iov[at->index].iov_len - at->inside) {
        bytes -= at->iov[at->index].iov_len - at->inside;
        at->index++;
        at->inside = 0;
    }
    if (at->index < at->count) {
        at->inside += bytes;
    }
}

#endif
