/* store_reap.c: lets payloads go when the origin's promise allows it, and not earlier. */
#include "core/store_reap.h"

#include "os/fds.h"

enum { BATCH = 64 }; /* payloads dropped, or runs punched, between two breaths of the lock */

uint64_t odb_store_keep_ms(const struct odb_store *store, const struct odb_payload *payload) {
    uint64_t lease = store->options->lease_ms, gc = store->options->gc_delay_ms;
    uint64_t longer = lease > gc ? lease : gc;
    bool plentiful = store->payloads.files < store->files_max / 2;
    if (!payload->used || (payload->kind == ODB_PAYLOAD_FILE && plentiful)) {
        return longer;
    }
    /* Whoever holds a window materialises it before half the lease is over, and the consumer has said that it is done. */
    return payload->kind == ODB_PAYLOAD_MEMORY && payload->released ? lease / 2 : lease;
}

/* With the lock held. Memory is free at once; a descriptor is returned for closing without the lock, -1 if there is
 * none. */
static int drop(struct odb_store *store, struct odb_payload *payload) {
    int fd = payload->fd;
    if (payload->kind == ODB_PAYLOAD_MEMORY) {
        odb_memory_file_give(&store->memory, payload->run);
        odb_count(store->stats, ODB_STAT_store_bytes_live, 0 - (payload->end - payload->first));
    }
    odb_payloads_drop(&store->payloads, payload);
    odb_count(store->stats, ODB_STAT_payloads_live, (uint64_t)-1);
    return fd;
}

/* Drops up to BATCH payloads that are due; returns false when none is left. */
static bool drop_due(struct odb_store *store, uint64_t now_ms) {
    int fds[BATCH], count = 0;
    struct odb_payload *payload;
    odb_lock_take(&store->lock);
    while (count < BATCH && (payload = odb_payloads_first_due(&store->payloads)) != NULL && payload->due_ms <= now_ms) {
        uint64_t due = payload->announced_ms + odb_store_keep_ms(store, payload);
        if (payload->references > 0 && due <= now_ms) {
            due = now_ms + 1; /* being served: look again next time */
        }
        if (due > now_ms) {
            odb_payloads_set_due(&store->payloads, payload, due);
        } else {
            fds[count++] = drop(store, payload);
        }
    }
    odb_lock_drop(&store->lock);
    for (int i = 0; i < count; i++) {
        odb_fds_close(fds[i]);
    }
    return count == BATCH;
}

/* Returns the memory of freed runs to the system. What cannot be punched is left as it is, until the next time. */
static void trim(struct odb_store *store) {
    struct odb_memory_run run;
    for (int i = 0; i < BATCH; i++) {
        odb_lock_take(&store->lock);
        bool some = odb_memory_file_take_dirty(&store->memory, &run);
        odb_lock_drop(&store->lock);
        if (!some) {
            return;
        }
        bool punched = odb_memory_file_punch(&store->memory, run);
        odb_lock_take(&store->lock);
        (punched ? odb_memory_file_give_clean : odb_memory_file_give)(&store->memory, run);
        odb_lock_drop(&store->lock);
        if (!punched) {
            return;
        }
    }
}

void odb_store_reap(struct odb_store *store, uint64_t now_ms) {
    while (drop_due(store, now_ms)) {
    }
    trim(store);
}

void odb_store_make_room(struct odb_store *store, uint64_t now_ms) {
    while (drop_due(store, now_ms)) {
    }
    trim(store);
    int fds[BATCH], count = 0;
    odb_lock_take(&store->lock);
    bool scarce = store->payloads.files >= store->files_max || store->payloads.count >= store->payloads.capacity;
    struct odb_payload *payload = scarce ? odb_payloads_oldest_file(&store->payloads) : NULL;
    while (payload != NULL && count < BATCH && payload->announced_ms + store->options->lease_ms <= now_ms) {
        struct odb_payload *newer = odb_payloads_newer_file(&store->payloads, payload);
        if (payload->references == 0) {
            fds[count++] = drop(store, payload);
        }
        payload = newer;
    }
    odb_lock_drop(&store->lock);
    for (int i = 0; i < count; i++) {
        odb_fds_close(fds[i]);
    }
}
