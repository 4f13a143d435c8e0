/* aside.h: short beginnings of messages to plain connections (headers), which wait for what is to follow them while the program's loop turns to other connections.
 *
 * Not thread-safe, but for the count. Async-signal-safe. errno is not preserved.
 */
#ifndef ODB_CORE_ASIDE_H
#define ODB_CORE_ASIDE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ODB_ASIDE_MOST 32
#define ODB_ASIDE_SHORT 1024u

/* All-zero memory is empty. */
struct odb_aside {
    _Atomic int count;
    struct odb_aside_entry {
        int fd;
        uint64_t cookie; /* the kernel's name of the socket, which other descriptors may be copies of */
        bool old;        /* the loop has waited once since */
        bool splices;    /* as in core/gather.h */
        size_t most;
        size_t length;
        char bytes[ODB_ASIDE_SHORT];
    } entry[ODB_ASIDE_MOST];
};

static inline bool odb_aside_any(const struct odb_aside *aside) {
    return atomic_load_explicit(&aside->count, memory_order_relaxed) > 0;
}

/* A place for one more, to be filled but for `fd` and `cookie`; null when there is none. */
struct odb_aside_entry *odb_aside_put(struct odb_aside *aside, int fd);

/* The entry of a connection, by whichever descriptor, or null; `alone`: it has no other. */
struct odb_aside_entry *odb_aside_find(struct odb_aside *aside, int fd, bool alone);

/* Forgets one; the last takes its place. */
void odb_aside_drop(struct odb_aside *aside, struct odb_aside_entry *entry);

#endif
