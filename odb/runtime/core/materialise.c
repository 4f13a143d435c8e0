/* materialise.c: turns windows into real memory.
 *
 * In rounds: under the lock, up to RUNS runs of live pages are marked busy; without it they are fetched (neighbours in one payload with one fetch) and
 * become plain. With one application thread the pages are opened first and filled in place; with several they are filled in scratch memory and moved in.
 */
#include "core/windows_private.h"

#include "os/real.h"

#include <errno.h>

enum { RUNS = 16 };

struct run {
    uintptr_t start;
    size_t length;
    struct odb_span span;
    void *scratch; /* null: filled in place */
};

struct round {
    struct run runs[RUNS];
    int count;
    bool full; /* there may be more to do */
    bool wait; /* another thread is busy with some of it */
};

static void open_stale(struct odb_windows *windows, uintptr_t page, uintptr_t end, uintptr_t *stop) {
    for (*stop = page; *stop < end && odb_pages_get(&windows->pages, *stop) == ODB_STALE; *stop += ODB_PAGE)
        odb_windows_set(windows, *stop, ODB_PLAIN);
    odb_count(windows->stats, ODB_STAT_guard_calls, 1);
    odb_guard_open((void *)page, *stop - page);
}

/* Marks the run of live pages at `page` busy and notes it. False when the round has no room. */
static bool claim_run(struct odb_windows *windows, struct round *round, uintptr_t page, uintptr_t end,
                      uintptr_t *stop) {
    if (round->count == RUNS) return false;
    struct run *run = &round->runs[round->count++];
    *run = (struct run){.start = page};
    const struct odb_window *previous = NULL;
    for (*stop = page; *stop < end; *stop += ODB_PAGE) {
        odb_page_entry *entry = odb_pages_find(&windows->pages, *stop);
        uintptr_t value = entry ? atomic_load(entry) : ODB_PLAIN;
        struct odb_window *window = odb_entry_window(value);
        if (!window || odb_entry_is_busy(value)) break;
        if (previous && window != previous && !windows->options->coalesce) break;
        previous = window;
        struct odb_span span = odb_window_page_span(window, *stop);
        if (run->length == 0)
            run->span = span;
        else if (odb_span_continues(&run->span, &span))
            run->span.length += ODB_PAGE;
        else
            break;
        run->length += ODB_PAGE;
        atomic_store(entry, value | ODB_BUSY_BIT);
    }
    return true;
}

/* Under the lock: opens what is stale in the range, claims what is live, notes what others are busy with. */
static void claim(struct odb_windows *windows, struct round *round, uintptr_t start, uintptr_t end) {
    for (uintptr_t page = start, stop; page < end; page = stop) {
        uintptr_t entry = odb_pages_get(&windows->pages, page);
        stop = page + ODB_PAGE;
        if (odb_entry_is_busy(entry)) {
            round->wait = true;
        } else if (entry == ODB_STALE) {
            open_stale(windows, page, end, &stop);
        } else if (entry != ODB_PLAIN && !claim_run(windows, round, page, end, &stop)) {
            round->full = true;
            return;
        }
    }
}

static int prepare_run(struct odb_windows *windows, struct run *run) {
    if (atomic_load_explicit(&windows->threads, memory_order_relaxed)) {
        run->scratch = odb_guard_scratch(run->length);
        return run->scratch ? 0 : -ENOMEM;
    }
    odb_count(windows->stats, ODB_STAT_guard_calls, 1);
    return odb_guard_open((void *)run->start, run->length);
}

/* Fetches runs [first, last), which continue each other in one payload. */
static int fetch_runs(struct odb_windows *windows, struct round *round, int first, int last) {
    struct iovec into[RUNS];
    struct odb_span span = round->runs[first].span;
    span.length = 0;
    for (int i = first; i < last; i++) {
        struct run *run = &round->runs[i];
        int error = prepare_run(windows, run);
        if (error) return error;
        into[i - first] = (struct iovec){run->scratch ? run->scratch : (void *)run->start, run->length};
        span.length += run->length;
    }
    return odb_span_is_read(&span) ? odb_sources_read(&windows->sources, &span, into, last - first)
                                   : odb_channels_fetch(windows->channels, &span, into, last - first);
}

/* Where the pages cannot be moved (the kernel's limit on mappings), they are opened and copied to: a thread that reads them in this very moment then sees
 * them in part, which is the lesser evil. */
static int install_run(struct odb_windows *windows, struct run *run) {
    if (!run->scratch) return 0;
    odb_count(windows->stats, ODB_STAT_guard_calls, 1);
    int error = odb_guard_replace((void *)run->start, run->scratch, run->length);
    if (!error) {
        run->scratch = NULL;
        return 0;
    }
    error = odb_guard_open((void *)run->start, run->length);
    if (!error) memcpy((void *)run->start, run->scratch, run->length);
    return error;
}

/* Under the lock. A run that could not be fetched is live again, guarded as before. */
static void settle_run(struct odb_windows *windows, struct run *run, bool fetched) {
    if (run->scratch)
        odb_guard_scratch_free(run->scratch, run->length);
    else if (!fetched)
        odb_guard_close((void *)run->start, run->length);
    for (uintptr_t page = run->start; page < run->start + run->length; page += ODB_PAGE) {
        odb_page_entry *entry = odb_pages_find(&windows->pages, page);
        if (fetched)
            odb_windows_set(windows, page, ODB_PLAIN);
        else
            atomic_fetch_and(entry, ~(uintptr_t)ODB_BUSY_BIT);
    }
    if (fetched) odb_count(windows->stats, ODB_STAT_materialised_bytes, run->length);
    if (fetched) odb_delivery_materialised(odb_windows_delivery(windows, &run->span), run->length);
}

/* Returns 0 or the first error. Every claimed run is settled, one way or the other. */
static int fetch_round(struct odb_windows *windows, struct round *round) {
    int result = 0;
    for (int first = 0, last; first < round->count; first = last) {
        last = first + 1;
        while (windows->options->coalesce && last < round->count &&
               odb_span_continues(&round->runs[last - 1].span, &round->runs[last].span))
            last++;
        int error = result ? result : fetch_runs(windows, round, first, last);
        for (int i = first; i < last && !error; i++) error = install_run(windows, &round->runs[i]);
        odb_lock_take(&windows->lock);
        for (int i = first; i < last; i++) settle_run(windows, &round->runs[i], !error);
        odb_lock_drop(&windows->lock);
        if (error) result = error;
    }
    return result;
}

int odb_windows_materialise(struct odb_windows *windows, const struct iovec *iov, int count) {
    struct round round;
    bool guarded = false;
    for (int i = 0; i < count && !guarded; i++) guarded = odb_windows_touch(windows, iov[i].iov_base, iov[i].iov_len);
    if (!guarded) return 0;
    do {
        round = (struct round){.count = 0};
        odb_lock_take(&windows->lock);
        while (windows->forking) {
            odb_lock_drop(&windows->lock);
            odb_windows_wait_busy();
            odb_lock_take(&windows->lock);
        }
        for (int i = 0; i < count && !round.full; i++) {
            uintptr_t start = (uintptr_t)iov[i].iov_base;
            if (iov[i].iov_len) claim(windows, &round, odb_page_down(start), odb_page_up(start + iov[i].iov_len));
        }
        if (round.count > 0) atomic_fetch_add(&windows->fetching, 1);
        odb_lock_drop(&windows->lock);
        int error = fetch_round(windows, &round);
        if (round.count > 0) atomic_fetch_sub(&windows->fetching, 1);
        if (error) return error;
        if (round.wait && round.count == 0) odb_windows_wait_busy();
    } while (round.full || round.wait);
    return 0;
}

/* A page that has been spliced and is fetched because part of it is overwritten has cost a question and its answer, like a larger piece. */
static void note_patch(struct odb_windows *windows, const struct iovec *edge) {
    struct odb_span span;
    size_t plain;
    if (odb_windows_touch(windows, edge->iov_base, edge->iov_len) &&
        odb_windows_find(windows, edge->iov_base, edge->iov_len, &span, &plain) > 0 &&
        odb_windows_delivery(windows, &span) == &windows->ahead)
        odb_delivery_materialised(&windows->ahead, ODB_DELIVERY_QUESTION);
}

int odb_windows_overwrite(struct odb_windows *windows, void *start, size_t length) {
    uintptr_t first = (uintptr_t)start, end = first + length;
    if (!odb_windows_any(windows) || length == 0) return 0;
    uintptr_t whole = odb_page_up(first), whole_end = odb_page_down(end);
    if (whole < whole_end) odb_windows_open(windows, (void *)whole, whole_end - whole);
    struct iovec edges[2] = {{start, 0}, {(void *)odb_page_down(end), 0}};
    if (first != whole) edges[0].iov_len = 1;
    if (end != whole_end) edges[1].iov_len = 1;
    for (int i = 0; i < 2; i++) note_patch(windows, &edges[i]);
    return odb_windows_materialise(windows, edges, 2);
}

/* The window that comes first of those before `span` in its channel; an empty range when there is none. Only young ones can be. */
static struct iovec first_before(struct odb_windows *windows, const struct odb_span *span) {
    enum { YOUNG = 64 };
    struct iovec range = {NULL, 0};
    uint64_t position = span->push_position;
    odb_lock_take(&windows->lock);
    const struct odb_window *at = windows->first;
    for (int i = 0; at && i < YOUNG; i++, at = at->next) {
        if (at->span.push_channel != span->push_channel || at->span.push_position >= position ||
            odb_pushed_where(&windows->channels->pushed, &at->span) == ODB_PUSHED_PASSED)
            continue;
        position = at->span.push_position;
        range = (struct iovec){(void *)at->start, at->span.length};
    }
    odb_lock_drop(&windows->lock);
    return range;
}

void odb_windows_fetch_before(struct odb_windows *windows, const struct odb_span *span) {
    struct odb_pushed *pushed = &windows->channels->pushed;
    while (odb_windows_any(windows) && odb_pushed_where(pushed, span) == ODB_PUSHED_LATER) {
        struct iovec range = first_before(windows, span);
        if (range.iov_len == 0 || odb_windows_materialise(windows, &range, 1) != 0) return;
    }
}

int odb_windows_fault(struct odb_windows *windows, void *address) {
    uintptr_t page = odb_page_down((uintptr_t)address), start = page, end = page + ODB_PAGE;
    size_t chunk = windows->options->fault_chunk;
    odb_lock_take(&windows->lock);
    uintptr_t entry = odb_pages_get(&windows->pages, page);
    struct odb_window *window = odb_entry_window(entry);
    if (window) {
        while (start > window->start && end - start < chunk &&
               odb_entry_window(odb_pages_get(&windows->pages, start - ODB_PAGE)) == window)
            start -= ODB_PAGE;
        while (end - start < chunk && odb_entry_window(odb_pages_get(&windows->pages, end)) == window) end += ODB_PAGE;
    } else if (entry == ODB_STALE) {
        while (end - start < chunk && odb_pages_get(&windows->pages, end) == ODB_STALE) end += ODB_PAGE;
    }
    odb_lock_drop(&windows->lock);
    if (entry == ODB_PLAIN) return 0;
    odb_count(windows->stats, ODB_STAT_faults, 1);
    struct iovec range = {(void *)start, end - start};
    int error = odb_windows_materialise(windows, &range, 1);
    return error ? error : 1;
}
