/* fdtable.c: descriptors to streams, and the life of streams. */
#include "core/fdtable.h"

#include "core/early.h"
#include "core/sharing.h"
#include "os/real.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

static void hold_outbox(struct odb_outboxes *outboxes, struct odb_outbox *outbox) {
    struct odb_stream *stream = (struct odb_stream *)(void *)((char *)outbox - offsetof(struct odb_stream, out));
    (void)outboxes;
    atomic_fetch_add(&stream->references, 1);
}

static void let_go_outbox(struct odb_outboxes *outboxes, struct odb_outbox *outbox) {
    struct odb_stream *stream = (struct odb_stream *)(void *)((char *)outbox - offsetof(struct odb_stream, out));
    struct odb_fdtable *table =
        (struct odb_fdtable *)(void *)((char *)outboxes - offsetof(struct odb_fdtable, outboxes));
    odb_fdtable_let_go(table, stream);
}

static void *reserve(size_t size) {
    void *memory =
        odb_real.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

bool odb_fdtable_init(struct odb_fdtable *table, struct odb_driver *driver, struct odb_stats *stats) {
    table->slots = reserve(sizeof *table->slots * ODB_FDS);
    table->outboxes.driver = driver;
    table->outboxes.stats = stats;
    table->outboxes.hold = hold_outbox;
    table->outboxes.let_go = let_go_outbox;
    return table->slots != NULL;
}

/* Streams come in chunks that are never given back. */
static bool refill(struct odb_fdtable *table) {
    size_t size = 64 * sizeof(struct odb_stream);
    struct odb_stream *chunk = reserve(size);
    if (!chunk) return false;
    for (size_t i = 0; i < 64; i++) {
        chunk[i].next_free = table->free;
        table->free = &chunk[i];
    }
    return true;
}

struct odb_stream *odb_fdtable_new_stream(struct odb_fdtable *table) {
    struct odb_stream *stream = NULL;
    odb_lock_take(&table->lock);
    if (table->free || refill(table)) {
        stream = table->free;
        table->free = stream->next_free;
    }
    odb_lock_drop(&table->lock);
    if (!stream) return NULL;
    /* Everything but `references`, which a reader that comes too late may still look at. */
    memset(&stream->in, 0, sizeof *stream - offsetof(struct odb_stream, in));
    stream->out.shared = &table->outboxes;
    atomic_store(&stream->references, 1);
    atomic_fetch_add(&table->streams, 1);
    return stream;
}

static void recycle(struct odb_fdtable *table, struct odb_stream *stream) {
    odb_sharing_close(stream);
    odb_early_end(stream);
    odb_buffers_give(&table->buffers, stream->in.buffer);
    odb_real.free(stream->in.edges);
    odb_real.free(stream->out.parked);
    odb_lock_take(&table->lock);
    stream->next_free = table->free;
    table->free = stream;
    odb_lock_drop(&table->lock);
    atomic_fetch_sub(&table->streams, 1);
}

void odb_fdtable_let_go(struct odb_fdtable *table, struct odb_stream *stream) {
    if (atomic_fetch_sub(&stream->references, 1) == 1) recycle(table, stream);
}

void odb_fdtable_set(struct odb_fdtable *table, int fd, struct odb_stream *stream) {
    if (fd < 0 || fd >= ODB_FDS) {
        if (stream) odb_fdtable_let_go(table, stream);
        return;
    }
    int highest = atomic_load(&table->highest);
    while (stream && fd > highest && !atomic_compare_exchange_weak(&table->highest, &highest, fd)) continue;
    struct odb_stream *old = atomic_exchange(&table->slots[fd].stream, stream);
    if (old) odb_fdtable_let_go(table, old);
}

void odb_fdtable_clear(struct odb_fdtable *table, int fd) {
    if (fd < 0 || fd >= ODB_FDS) return;
    atomic_store_explicit(&table->slots[fd].listener, ODB_LISTENER_UNKNOWN, memory_order_relaxed);
    if (odb_fdtable_has(table, fd)) odb_fdtable_set(table, fd, NULL);
}

/* The stream may be released, and even reused, between the load and the increment: then the slot no longer holds it and we look again. */
struct odb_stream *odb_fdtable_hold(struct odb_fdtable *table, int fd) {
    if (fd < 0 || fd >= ODB_FDS) return NULL;
    for (;;) {
        struct odb_stream *stream = atomic_load(&table->slots[fd].stream);
        if (!stream) return NULL;
        uint32_t references = atomic_load(&stream->references);
        while (references > 0 && !atomic_compare_exchange_weak(&stream->references, &references, references + 1))
            continue;
        if (references == 0) continue;
        if (atomic_load(&table->slots[fd].stream) == stream) return stream;
        odb_fdtable_let_go(table, stream);
    }
}
