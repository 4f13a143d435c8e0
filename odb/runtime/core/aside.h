/* aside.h: short beginnings of messages to plain connections (headers), which wait for what is to follow them while the program's loop turns to other connections.
 *
 * Not thread-safe, but for the count. Async-signal-safe. errno is not preserved.
 */
#ifndef ODB_CORE_ASIDE_H
#define ODB_CORE_ASIDE_H

#include "core/outlet.h"

#include <stdatomic.h>
#include <stdint.h>

#define ODB_ASIDE_MOST 32
#define ODB_ASIDE_SHORT 1024u

/* All-zero memory is empty. */
struct odb_aside {
    _Atomic int count;
    struct odb_aside_entry {
        int fd;
        uint64_t cookie; /* of the socket, which other descriptors may be copies of */
        bool old;        /* the loop has waited once since */
        size_t most;     /* as in core/gather.h */
        struct odb_outlet_room room;
        size_t length;
        char bytes[ODB_ASIDE_SHORT];
    } entry[ODB_ASIDE_MOST];
};

static inline bool odb_aside_any(const struct odb_aside *aside) {
    return atomic_load_explicit(&aside->count, memory_order_relaxed) > 0;
}

/* A place for one more, to be filled but for `fd` and `cookie`; null when there is none, or no cookie. */
struct odb_aside_entry *odb_aside_put(struct odb_aside *aside, int fd, uint64_t cookie);

/* The entry of a connection, by whichever descriptor, or null; `cookie` 0: it has no other. */
struct odb_aside_entry *odb_aside_find(struct odb_aside *aside, int fd, uint64_t cookie);

/* Forgets one; the last takes its place. */
void odb_aside_drop(struct odb_aside *aside, struct odb_aside_entry *entry);

#endif
