/* runtime.c: builds the runtime, carries it over fork, and drains it at the end. */
#include "core/runtime.h"

#include "core/activation.h"
#include "core/fault.h"
#include "core/heap.h"
#include "core/sharing.h"
#include "os/clock.h"
#include "os/real.h"

#include <unistd.h>

enum { PATIENCE_MS = 20 }; /* with other threads that are sending what is held */

#define ARENA_RESERVE ((size_t)64 << 30)

static void reap(struct odb_tick *tick, uint64_t now_ms) {
    struct odb_runtime *runtime = (struct odb_runtime *)(void *)((char *)tick - offsetof(struct odb_runtime, reaper));
    odb_store_reap(&runtime->store, now_ms);
    odb_sources_reap(&runtime->windows.sources, now_ms);
    odb_sharing_tick(&runtime->fds);
}

bool odb_runtime_init(struct odb_runtime *runtime) {
    struct odb_options *options = &runtime->options;
    runtime->pid = getpid();
    odb_stats_open(&runtime->stats, options->stats_dir);
    odb_channels_init(&runtime->channels, options, &runtime->stats);
    odb_store_init(&runtime->store, options, &runtime->stats);
    if (!odb_windows_init(&runtime->windows, options, &runtime->stats, &runtime->channels) ||
        !odb_fdtable_init(&runtime->fds, &runtime->driver, &runtime->stats)) {
        odb_stats_close(&runtime->stats);
        return false;
    }
    odb_activation_init(runtime);
    runtime->reaper.run = reap;
    odb_driver_add_tick(&runtime->driver, &runtime->reaper);
    runtime->heap_start = (uintptr_t)sbrk(0);
    if (options->align) runtime->arena = odb_arena_create(ARENA_RESERVE);
    if (runtime->arena) odb_arena_set_release(runtime->arena, odb_heap_release, runtime);
    if (options->mode != ODB_MODE_OFF) odb_fault_install(&runtime->windows);
    return true;
}

static uint64_t counted(const struct odb_runtime *runtime, enum odb_stat stat) {
    return atomic_load_explicit(&runtime->stats.entries[stat].value, memory_order_relaxed);
}

static uint64_t served(const struct odb_runtime *runtime) {
    return counted(runtime, ODB_STAT_serve_bytes) + counted(runtime, ODB_STAT_push_bytes);
}

/* Pushed bytes that nobody claims are fetched again, and we learn of that late: as long as somebody is there to push to, as many bytes served as announced do
 * not mean that all have been had. */
static bool everything_is_fetched(struct odb_runtime *runtime) {
    bool sure = counted(runtime, ODB_STAT_pushes) == 0 || !odb_pushes_wanted(&runtime->origin.pushes);
    return sure && !odb_store_pending(&runtime->store);
}

/* Payloads that nobody has asked for within a quarter of the time are taken for abandoned (their client has gone). */
void odb_runtime_drain(struct odb_runtime *runtime) {
    if (odb_runtime_is_foreign(runtime)) return;
    odb_gather_flush(runtime);
    for (int tries = 0; !odb_hold_drain(runtime) && tries < PATIENCE_MS; tries++) odb_real.poll(NULL, 0, 1);
    uint64_t limit = runtime->options.drain_ms, now = odb_clock_ms(), end = now + limit, moved = now;
    uint64_t bytes = served(runtime);
    while (atomic_load(&runtime->driver.running) && now < end) {
        bool waiting = atomic_load(&runtime->fds.outboxes.waiting) > 0 || !odb_hold_drain(runtime);
        if (!waiting && (now - moved > limit / 4 || everything_is_fetched(runtime))) break;
        odb_real.poll(NULL, 0, 2);
        now = odb_clock_ms();
        if (served(runtime) != bytes) moved = now;
        bytes = served(runtime);
    }
}

void odb_runtime_end(struct odb_runtime *runtime) {
    if (!odb_runtime_is_foreign(runtime)) {
        odb_hold_close(runtime);
        odb_activation_end(runtime);
    }
    odb_runtime_drain(runtime);
    if (odb_runtime_is_foreign(runtime)) return;
    odb_sharing_before_end(&runtime->fds);
    odb_stats_close(&runtime->stats);
}

bool odb_runtime_is_foreign(const struct odb_runtime *runtime) {
    return getpid() != runtime->pid;
}

/* Windows first of what is locked: that waits for fetches, which this very process may be serving and needs the other locks for. Per-stream locks are not held: core/sharing.h. */
void odb_runtime_before_fork(struct odb_runtime *runtime) {
    odb_hold_release(runtime);
    odb_sharing_before_fork(&runtime->fds);
    odb_windows_before_fork(&runtime->windows);
    odb_lock_take(&runtime->store.lock);
    odb_lock_take(&runtime->interests.lock);
    odb_lock_take(&runtime->fds.lock);
    odb_hold_before_fork(runtime);
    if (runtime->arena) odb_arena_before_fork(runtime->arena);
}

void odb_runtime_after_fork_parent(struct odb_runtime *runtime) {
    if (runtime->arena) odb_arena_after_fork_parent(runtime->arena);
    odb_hold_after_fork_parent(runtime);
    odb_lock_drop(&runtime->fds.lock);
    odb_lock_drop(&runtime->interests.lock);
    odb_lock_drop(&runtime->store.lock);
    odb_windows_after_fork_parent(&runtime->windows);
    odb_sharing_after_fork_parent(&runtime->fds);
}

void odb_runtime_after_fork_child(struct odb_runtime *runtime) {
    odb_fault_after_fork_child();
    if (runtime->arena) odb_arena_after_fork_child(runtime->arena);
    odb_windows_after_fork_child(&runtime->windows);
    odb_lock_reset(&runtime->fds.lock);
    odb_lock_reset(&runtime->interests.lock);
    odb_lock_reset(&runtime->store.lock);
    odb_lock_reset(&runtime->spoilt_peers.lock);
    runtime->pid = getpid();
    atomic_store(&runtime->windows.threads, false);
    odb_stats_after_fork_child(&runtime->stats);
    odb_count(&runtime->stats, ODB_STAT_windows_live, runtime->windows.live);
    odb_hold_after_fork_child(runtime);
    odb_gather_after_fork_child(&runtime->gather);
    odb_driver_after_fork_child(&runtime->driver);
    odb_origin_after_fork_child(&runtime->origin);
    odb_channels_after_fork_child(&runtime->channels);
    odb_store_after_fork_child(&runtime->store);
    odb_activation_after_fork_child(runtime);
    odb_sharing_after_fork_child(&runtime->fds);
    odb_driver_add_tick(&runtime->driver, &runtime->reaper);
}
