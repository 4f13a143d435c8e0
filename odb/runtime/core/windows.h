/* windows.h: spans mapped onto application memory.
 *
 * A window is a run of whole pages whose content is still at the origin; the pages are guarded. Page states:
 *
 *   plain    ordinary memory
 *   live     guarded, belongs to a window
 *   busy     live, and a thread is fetching it
 *   stale    guarded, belongs to nothing any more (its window was dropped); guards are sticky because the next window often lands on the same pages
 *
 * Thread safety: all functions; one lock, never held across a fetch, and not taken for ranges without guarded pages: a handler of an asynchronous signal may write from and
 * read into ordinary memory although it has interrupted the holder.
 * Errors: negative errno of the fetch that failed; the windows are then as they were.
 */
#ifndef ODB_CORE_WINDOWS_H
#define ODB_CORE_WINDOWS_H

#include "core/channel.h"
#include "core/delivery.h"
#include "core/fences.h"
#include "core/options.h"
#include "core/pages.h"
#include "core/sources.h"
#include "core/span.h"
#include "core/stats.h"
#include "os/lock.h"

#include <sys/uio.h>

struct odb_window {
    struct odb_span span; /* as it was mapped; page n of the window is at span.offset + n * ODB_PAGE */
    uintptr_t start;
    size_t pages;    /* still referring to it */
    uint64_t due_ms; /* when it is to be fetched although nobody has touched it */
    struct odb_window *next, *previous;
    struct odb_window *next_free;
};

struct odb_windows {
    struct odb_lock lock;
    struct odb_pages pages;
    _Atomic size_t guarded;  /* pages that are not plain; 0 lets every hook take its shortest way */
    _Atomic size_t openings; /* how often a page has become plain */
    _Atomic bool threads;    /* the application has more than one thread: content must appear in one step */
    struct odb_window *free;
    struct odb_window *first; /* of those in use, the youngest */
    _Atomic bool kept;        /* core/keeper.c has a thread */
    _Atomic int fetching;     /* rounds of materialise.c that have claimed pages */
    bool forking;             /* under the lock: no new rounds, or a fork would wait for ever beside busy threads */
    size_t live; /* windows in use, bounded because each may cost two memory mappings of the kernel's limited number */
    struct odb_delivery asked;  /* of windows whose bytes have to be asked for */
    struct odb_delivery ahead;  /* of those whose bytes are on a channel of ours, and could be spliced */
    struct odb_delivery reads;  /* of those that stand for files which were read */
    struct odb_sources sources; /* those files */
    struct odb_fences fences;   /* under the lock */
    const struct odb_options *options;
    struct odb_stats *stats;
    struct odb_channels *channels;
};

bool odb_windows_init(struct odb_windows *windows, const struct odb_options *options, struct odb_stats *stats,
                      struct odb_channels *channels);

static inline bool odb_windows_any(const struct odb_windows *windows) {
    return atomic_load_explicit(&windows->guarded, memory_order_acquire) != 0;
}

/* Before bytes of a push channel are taken: what precedes them there and is still mapped is fetched first, because taking would throw it away. What cannot
 * be fetched now stays as it is. */
void odb_windows_fetch_before(struct odb_windows *windows, const struct odb_span *span);

/* What is known of windows on spans like this one. */
struct odb_delivery *odb_windows_delivery(struct odb_windows *windows, const struct odb_span *span);

/* Is any page of the range not plain? Lock-free, so that a signal handler may use calls that only ask this. */
bool odb_windows_touch(const struct odb_windows *windows, const void *start, size_t length);

/* Maps a span onto [start, start + length), whole pages, length == span->length. What was mapped there before is dropped.
 * Of a read's span the caller holds the source, the window then holds it too. -ENOMEM when the pages cannot be guarded: what was mapped there before is as it was, what was plain may be empty. */
int odb_windows_map(struct odb_windows *windows, void *start, size_t length, const struct odb_span *span);

/* The span behind the bytes at `address`, at most `length` of them: the longest run that is live and contiguous in one payload (`*span`, returns its length),
 * or 0 and, in `*plain`, how many bytes from here on are not live. */
size_t odb_windows_find(struct odb_windows *windows, const void *address, size_t length, struct odb_span *span,
                        size_t *plain);

/* Before memory is read by somebody who must not fault (the kernel): fetches every live page of the ranges and opens every stale one. */
int odb_windows_materialise(struct odb_windows *windows, const struct iovec *iov, int count);

/* Before exactly [start, start + length) is overwritten: pages that are covered whole are dropped and opened, live pages covered in part are fetched. */
int odb_windows_overwrite(struct odb_windows *windows, void *start, size_t length);

/* The application gave the memory back (free) or its content up: live pages become stale, and guards stay unless the option `guard` says otherwise. */
void odb_windows_drop(struct odb_windows *windows, void *start, size_t length);

/* As drop, and the pages become ordinary memory: for memory that goes back to an allocator that writes into it. */
void odb_windows_open(struct odb_windows *windows, void *start, size_t length);

/* The mapping itself is gone or replaced: forgets everything without a system call. */
void odb_windows_forget(struct odb_windows *windows, void *start, size_t length);

/* A touch of guarded memory at `address`. 1: handled, try again; 0: not ours; negative errno: the bytes are lost. */
int odb_windows_fault(struct odb_windows *windows, void *address);

void odb_windows_before_fork(struct odb_windows *windows);
void odb_windows_after_fork_parent(struct odb_windows *windows);
void odb_windows_after_fork_child(struct odb_windows *windows);

#endif
