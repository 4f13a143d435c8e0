/* keeper.c: looks at all windows once a second and materialises those that are due. */
#include "core/keeper.h"

#include "core/windows_private.h"
#include "os/clock.h"
#include "os/real.h"
#include "os/thread.h"

#include <poll.h>

enum { LOOK_MS = 1000, IDLE_LOOKS = 10, RUNS = 64 };

uint64_t odb_keeper_due(uint64_t now_ms, uint64_t expires_ms) {
    return expires_ms > now_ms ? now_ms + (expires_ms - now_ms) / 4 : UINT64_MAX;
}

static bool belongs_to(struct odb_windows *windows, uintptr_t page, const struct odb_window *window) {
    return odb_pages_get(&windows->pages, page) == (uintptr_t)window;
}

/* Under the lock. The pages that are still the window's, as runs. */
static int add_runs(struct odb_windows *windows, const struct odb_window *window, struct iovec *runs, int count) {
    uintptr_t end = window->start + window->span.length;
    for (uintptr_t page = window->start; page < end && count < RUNS;) {
        uintptr_t stop = page;
        while (stop < end && belongs_to(windows, stop, window)) stop += ODB_PAGE;
        if (stop > page) runs[count++] = (struct iovec){(void *)page, stop - page};
        page = stop + ODB_PAGE;
    }
    return count;
}

/* Every window is taken once: what becomes of its fetch, and what did not fit, is seen at its next time. */
static int take_due(struct odb_windows *windows, uint64_t now, struct iovec *runs) {
    int count = 0;
    odb_lock_take(&windows->lock);
    for (struct odb_window *at = windows->first; at && count < RUNS; at = at->next) {
        if (at->due_ms > now) continue;
        at->due_ms = at->span.expires_ms > now + LOOK_MS ? odb_keeper_due(now, at->span.expires_ms) : UINT64_MAX;
        count = add_runs(windows, at, runs, count);
    }
    odb_lock_drop(&windows->lock);
    return count;
}

/* Content must appear in one step now, because the application runs meanwhile. An origin that cannot be reached shows when the memory is touched, or not at all. */
static void keep_due(struct odb_windows *windows) {
    struct iovec runs[RUNS];
    int count;
    while ((count = take_due(windows, odb_clock_ms(), runs)) > 0) {
        atomic_store(&windows->threads, true);
        for (int i = 0; i < count; i++) odb_windows_materialise(windows, &runs[i], 1);
    }
}

static void *keep(void *argument) {
    struct odb_windows *windows = argument;
    for (int idle = 0; idle < IDLE_LOOKS;) {
        odb_real.poll(NULL, 0, LOOK_MS);
        keep_due(windows);
        odb_lock_take(&windows->lock);
        idle = windows->live == 0 ? idle + 1 : 0;
        if (idle == IDLE_LOOKS) atomic_store(&windows->kept, false);
        odb_lock_drop(&windows->lock);
    }
    return NULL;
}

void odb_keeper_wake(struct odb_windows *windows) {
    if (atomic_load_explicit(&windows->kept, memory_order_relaxed) || atomic_exchange(&windows->kept, true)) return;
    if (!odb_thread_start(keep, windows)) atomic_store(&windows->kept, false);
}
