/* fdtable.h: which stream an application's descriptor stands for.
 *
 * Reading is one load for a descriptor without stream. Streams are type-stable and counted: every table slot, every call in progress and the helper thread hold one reference each.
 * Descriptors beyond ODB_FDS are never streams.
 */
#ifndef ODB_CORE_FDTABLE_H
#define ODB_CORE_FDTABLE_H

#include "core/buffers.h"
#include "core/stream.h"

#define ODB_FDS (1 << 20)

enum odb_listener { ODB_LISTENER_UNKNOWN, ODB_LISTENER_RULED, ODB_LISTENER_PLAIN };

struct odb_fd {
    _Atomic(struct odb_stream *) stream;
    _Atomic uint8_t listener; /* enum odb_listener: does a rule name the port this descriptor listens on? */
    _Atomic uint8_t outlet;   /* core/outlet.h */
    _Atomic uint64_t cookie;  /* the same; 0: not asked for */
};

struct odb_fdtable {
    struct odb_fd *slots; /* reserved, touched where used */
    struct odb_lock lock;
    struct odb_stream *free;
    _Atomic int highest;        /* no slot above it has ever held a stream */
    _Atomic size_t streams;     /* in use; 0 lets every hook take its shortest way */
    struct odb_buffers buffers; /* of inboxes */
    struct odb_outboxes outboxes;
    struct odb_lock forking; /* core/sharing.c: one fork, or end, at a time */
    uint64_t round;          /* under it: walks over all streams so far */
    _Atomic bool shared;     /* there was a fork while there were streams */
};

bool odb_fdtable_init(struct odb_fdtable *table, struct odb_driver *driver, struct odb_stats *stats);

/* A zeroed stream with one reference (the caller's, to be handed to a slot), or null. */
struct odb_stream *odb_fdtable_new_stream(struct odb_fdtable *table);

/* Puts a stream into a slot, consuming one reference. What was there is released. */
void odb_fdtable_set(struct odb_fdtable *table, int fd, struct odb_stream *stream);
/* Empties a slot. */
void odb_fdtable_clear(struct odb_fdtable *table, int fd);

/* One more reference on the stream of `fd`, or null. */
struct odb_stream *odb_fdtable_hold(struct odb_fdtable *table, int fd);
void odb_fdtable_let_go(struct odb_fdtable *table, struct odb_stream *stream);

/* True when the slot holds a stream: the cheap question, without a reference. */
static inline bool odb_fdtable_has(const struct odb_fdtable *table, int fd) {
    return fd >= 0 && fd < ODB_FDS && atomic_load_explicit(&table->slots[fd].stream, memory_order_acquire) != NULL;
}

#endif
