/* windows.c: mapping, dropping and finding windows. Fetching them is materialise.c. */
#include "core/windows_private.h"

#include "core/keeper.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <sys/mman.h>

/* How much of the windows must have been fetched for mapping not to pay: a received body would have to be fetched anyway, a read is cheap. */
enum { RECEIVED_QUARTERS = 3, READS_QUARTERS = 1 };

bool odb_windows_init(struct odb_windows *windows, const struct odb_options *options, struct odb_stats *stats,
                      struct odb_channels *channels) {
    windows->options = options;
    windows->stats = stats;
    windows->channels = channels;
    return odb_pages_init(&windows->pages);
}

static struct odb_window *take_window(struct odb_windows *windows) {
    if (windows->live >= ODB_WINDOWS_MAX) return NULL;
    if (!windows->free) {
        size_t size = 64 * ODB_PAGE;
        struct odb_window *chunk =
            odb_real.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (chunk == MAP_FAILED) return NULL;
        for (size_t i = 0; i < size / sizeof *chunk; i++) {
            chunk[i].next_free = windows->free;
            windows->free = &chunk[i];
        }
    }
    struct odb_window *window = windows->free;
    windows->free = window->next_free;
    windows->live++;
    odb_count(windows->stats, ODB_STAT_windows_live, 1);
    return window;
}

static void give_back(struct odb_windows *windows, struct odb_window *window) {
    window->next_free = windows->free;
    windows->free = window;
    windows->live--;
    odb_count(windows->stats, ODB_STAT_windows_live, (uint64_t)-1);
}

void odb_window_unref(struct odb_windows *windows, struct odb_window *window) {
    if (--window->pages > 0) return;
    *(window->previous ? &window->previous->next : &windows->first) = window->next;
    if (window->next) window->next->previous = window->previous;
    if (odb_span_is_read(&window->span)) odb_sources_let_go(&windows->sources, window->span.payload);
    give_back(windows, window);
}

/* Pages that nothing is in are guarded and opened faster; what is in these is being replaced. */
static void leave_empty(uintptr_t start, size_t length) {
    int saved = errno;
    odb_real.madvise((void *)start, length, MADV_DONTNEED);
    errno = saved;
}

/* Under the lock. As odb_windows_set for every page of the range. */
static void set_all(struct odb_windows *windows, uintptr_t start, uintptr_t end, uintptr_t value) {
    size_t guarded = 0, opened = 0;
    odb_page_entry *entry = NULL;
    for (uintptr_t page = start; page < end; page += ODB_PAGE) {
        entry = odb_pages_next(&windows->pages, entry, page);
        uintptr_t old = atomic_load_explicit(entry, memory_order_relaxed);
        atomic_store_explicit(entry, value, memory_order_release);
        guarded += old == ODB_PLAIN && value != ODB_PLAIN;
        opened += old != ODB_PLAIN && value == ODB_PLAIN;
        struct odb_window *window = odb_entry_window(old);
        if (window && window != odb_entry_window(value)) odb_window_unref(windows, window);
    }
    if (guarded != opened) atomic_fetch_add(&windows->guarded, guarded - opened);
    if (opened > 0) atomic_fetch_add(&windows->openings, opened);
}

/* Guards every plain page of the range, in as few calls as there are runs. On failure the pages guarded so far are opened again. */
static int guard_plain(struct odb_windows *windows, uintptr_t start, uintptr_t end) {
    for (uintptr_t page = start; page < end;) {
        if (odb_pages_get(&windows->pages, page) != ODB_PLAIN) {
            page += ODB_PAGE;
            continue;
        }
        uintptr_t stop = page;
        while (stop < end && odb_pages_get(&windows->pages, stop) == ODB_PLAIN) stop += ODB_PAGE;
        odb_count(windows->stats, ODB_STAT_guard_calls, 1);
        bool apart = odb_fences_note(&windows->fences, page, stop - page);
        int error = odb_guard_close((void *)page, stop - page);
        if (!error && apart) leave_empty(page, stop - page);
        if (error) {
            for (uintptr_t undo = start; undo < stop;
                 undo += ODB_PAGE) /* mprotect may have done part of the last run before it failed */
                if (odb_pages_get(&windows->pages, undo) == ODB_PLAIN) odb_guard_open((void *)undo, ODB_PAGE);
            atomic_fetch_add(&windows->openings, 1);
            return error;
        }
        page = stop;
    }
    return 0;
}

/* All entries of the range must exist before anything changes, and none may be busy. 1: wait and try again. */
static int prepare(struct odb_windows *windows, uintptr_t start, uintptr_t end) {
    odb_page_entry *entry = NULL;
    for (uintptr_t page = start; page < end; page += ODB_PAGE) {
        entry = odb_pages_next(&windows->pages, entry, page);
        if (!entry) entry = odb_pages_make(&windows->pages, page);
        if (!entry) return -ENOMEM;
        if (odb_entry_is_busy(atomic_load(entry))) return 1;
    }
    return 0;
}

struct odb_delivery *odb_windows_delivery(struct odb_windows *windows, const struct odb_span *span) {
    if (odb_span_is_read(span)) return &windows->reads;
    bool ahead = windows->options->splice && odb_pushed_is_own(&windows->channels->pushed, span->push_channel);
    return ahead ? &windows->ahead : &windows->asked;
}

int odb_windows_map(struct odb_windows *windows, void *start, size_t length, const struct odb_span *span) {
    uintptr_t first = (uintptr_t)start, end = first + length;
    struct odb_window *window;
    struct odb_file_version version;
    int error;
    if (odb_span_is_read(span) && odb_sources_hold(&windows->sources, span->payload, &version) < 0) return -EINVAL;
    for (;;) {
        odb_lock_take(&windows->lock);
        error = prepare(windows, first, end);
        if (error != 1) break;
        odb_lock_drop(&windows->lock);
        odb_windows_wait_busy();
    }
    window = error ? NULL : take_window(windows);
    if (!window) error = error ? error : -ENOMEM;
    if (!error) error = guard_plain(windows, first, end);
    if (!error) {
        *window = (struct odb_window){.span = *span,
                                      .start = first,
                                      .pages = length / ODB_PAGE,
                                      .due_ms = odb_keeper_due(odb_clock_ms(), span->expires_ms),
                                      .next = windows->first};
        if (window->next) window->next->previous = window;
        windows->first = window;
        set_all(windows, first, end, (uintptr_t)window);
        odb_count(windows->stats, ODB_STAT_windows_mapped, 1);
        odb_delivery_mapped(odb_windows_delivery(windows, span), length,
                            odb_span_is_read(span) ? READS_QUARTERS : RECEIVED_QUARTERS);
    } else if (window) {
        give_back(windows, window);
    }
    odb_lock_drop(&windows->lock);
    if (error && odb_span_is_read(span)) odb_sources_let_go(&windows->sources, span->payload);
    if (!error) odb_keeper_wake(windows);
    return error;
}

void odb_windows_set(struct odb_windows *windows, uintptr_t page, uintptr_t value) {
    set_all(windows, page, page + ODB_PAGE, value);
}

struct odb_span odb_window_page_span(const struct odb_window *window, uintptr_t page) {
    return odb_span_part(&window->span, page - window->start, ODB_PAGE);
}

size_t odb_windows_find(struct odb_windows *windows, const void *address, size_t length, struct odb_span *span,
                        size_t *plain) {
    uintptr_t at = (uintptr_t)address, end = at + length, page = odb_page_down(at);
    odb_lock_take(&windows->lock);
    struct odb_window *window = odb_entry_window(odb_pages_get(&windows->pages, page));
    if (!window) {
        while (page < end && !odb_entry_window(odb_pages_get(&windows->pages, page))) page += ODB_PAGE;
        odb_lock_drop(&windows->lock);
        *plain = (page < end ? page : end) - at;
        return 0;
    }
    struct odb_span run = odb_window_page_span(window, page);
    const struct odb_window *previous = window;
    for (page += ODB_PAGE; page < end; page += ODB_PAGE) {
        window = odb_entry_window(odb_pages_get(&windows->pages, page));
        if (window == previous) { /* whose pages follow each other as its bytes do */
            run.length += ODB_PAGE;
            continue;
        }
        if (!window || !windows->options->coalesce) break;
        struct odb_span next = odb_window_page_span(window, page);
        if (!odb_span_continues(&run, &next)) break;
        previous = window;
        run.length += ODB_PAGE;
        if (next.expires_ms < run.expires_ms) run.expires_ms = next.expires_ms;
    }
    odb_lock_drop(&windows->lock);
    size_t skip = at - odb_page_down(at), found = run.length - skip;
    if (found > length) found = length;
    *span = odb_span_part(&run, skip, found);
    return found;
}

bool odb_windows_touch(const struct odb_windows *windows, const void *start, size_t length) {
    uintptr_t end = odb_page_up((uintptr_t)start + length);
    if (length == 0 || !odb_windows_any(windows)) return false;
    for (uintptr_t page = odb_page_down((uintptr_t)start); page < end; page += ODB_PAGE)
        if (odb_pages_get(&windows->pages, page) != ODB_PLAIN) return true;
    return false;
}

/* Visits the tracked pages of a range under the lock, waiting for those that are busy: `value` is what they become. */
static void release(struct odb_windows *windows, void *start, size_t length, uintptr_t value, bool open) {
    uintptr_t end = odb_page_up((uintptr_t)start + length);
    if (!odb_windows_touch(windows, start, length)) return;
    odb_lock_take(&windows->lock);
    for (uintptr_t page = odb_page_down((uintptr_t)start); page < end;) {
        uintptr_t entry = odb_pages_get(&windows->pages, page), stop = page + ODB_PAGE;
        if (odb_entry_is_busy(entry)) {
            odb_lock_drop(&windows->lock);
            odb_windows_wait_busy();
            odb_lock_take(&windows->lock);
            continue;
        }
        if (entry != ODB_PLAIN) {
            while (stop < end && (entry = odb_pages_get(&windows->pages, stop)) != ODB_PLAIN &&
                   !odb_entry_is_busy(entry))
                stop += ODB_PAGE;
            set_all(windows, page, stop, value);
            if (open) {
                odb_count(windows->stats, ODB_STAT_guard_calls, 1);
                odb_guard_open((void *)page, stop - page);
            }
        }
        page = stop;
    }
    odb_lock_drop(&windows->lock);
}

void odb_windows_drop(struct odb_windows *windows, void *start, size_t length) {
    bool eager = windows->options->guard == ODB_GUARD_EAGER;
    release(windows, start, length, eager ? ODB_PLAIN : ODB_STALE, eager);
}

void odb_windows_open(struct odb_windows *windows, void *start, size_t length) {
    release(windows, start, length, ODB_PLAIN, true);
}

void odb_windows_forget(struct odb_windows *windows, void *start, size_t length) {
    release(windows, start, length, ODB_PLAIN, false);
}

/* A page that another thread is fetching would stay busy for ever in the child, so fork waits until nobody is. */
void odb_windows_before_fork(struct odb_windows *windows) {
    odb_lock_take(&windows->lock);
    windows->forking = true;
    while (atomic_load(&windows->fetching) > 0) {
        odb_lock_drop(&windows->lock);
        odb_windows_wait_busy();
        odb_lock_take(&windows->lock);
    }
    odb_lock_take(&windows->sources.lock);
}

void odb_windows_after_fork_parent(struct odb_windows *windows) {
    odb_lock_drop(&windows->sources.lock);
    windows->forking = false;
    odb_lock_drop(&windows->lock);
}

void odb_windows_after_fork_child(struct odb_windows *windows) {
    windows->forking = false;
    atomic_store(&windows->kept, false);
    odb_lock_reset(&windows->lock);
    odb_lock_reset(&windows->sources.lock);
}
