/* arena_map.h: what lies where in an arena. Private to arena*.c.
 *
 * The arena is tiled by blocks: every page belongs to exactly one. A block is described at the index of its first
 * page, in an array outside the arena, and its first page is marked in a bitmap, from which the block around any page
 * is found. Clean blocks never touch each other (they are merged) and hang in bins by size; cached blocks hang in one
 * list per exact size and in one queue by age. Functions of this file expect the lock to be held, except
 * odb_arena_map_around, which reads atomically.
 */
#ifndef ODB_CORE_ARENA_MAP_H
#define ODB_CORE_ARENA_MAP_H

#include "core/arena.h"
#include "os/lock.h"

#include <stdatomic.h>

#define ARENA_NIL UINT32_MAX

enum {
    ARENA_LEVELS = 4,          /* of the bitmap: 64^4 pages, 64 GiB in pages of 4 KiB */
    ARENA_PAGES_MAX = 1 << 24, /* the bitmap's and the bins' bound */
    ARENA_EXACT = 64,          /* bins below this hold one size each, above it 16 per power of two */
    ARENA_BINS = ARENA_EXACT + 19 * 16,
    ARENA_BIN_WORDS = (ARENA_BINS + 63) / 64,
    ARENA_CACHE_SIZES = 256, /* cached blocks have fewer pages than this */
    ARENA_CACHE_WORDS = ARENA_CACHE_SIZES / 64,
};

enum arena_state { ARENA_NONE, ARENA_CLEAN, ARENA_LIVE, ARENA_CACHED, ARENA_RELEASING };

struct arena_block {
    _Atomic uint32_t word; /* pages << 3 | state; 0 where no block starts */
    uint32_t next, prev;   /* in its bin, in the cache's list of its size, or among those being released */
    uint32_t newer, older; /* in the cache */
};

struct arena {
    struct odb_arena face; /* first: what the public functions are given */
    struct odb_lock lock;
    unsigned page_shift;
    uint32_t pages;     /* in the whole arena */
    uint32_t committed; /* pages, from the start, that can be used and described */
    size_t bookkeeping; /* bytes of the mapping that begins with this structure */
    struct arena_block *block;
    /* [0] marks the first pages of blocks, [n + 1] the words of [n] that are not zero. */
    _Atomic uint64_t *starts[ARENA_LEVELS];

    uint32_t bin[ARENA_BINS];
    uint64_t bins_used[ARENA_BIN_WORDS];

    uint32_t cache[ARENA_CACHE_SIZES];
    uint64_t cache_used[ARENA_CACHE_WORDS];
    uint32_t oldest, newest;
    size_t cache_limit; /* bytes */

    uint32_t releasing;
    odb_arena_release *release;
    void *release_context;
    bool zero_unknown; /* MADV_DONTNEED was refused once: clean pages can no longer be trusted to be zero */

    size_t live_pages, cached_pages, live_blocks;
};

static inline uint32_t arena_word(const struct arena *a, uint32_t at) {
    return atomic_load_explicit(&a->block[at].word, memory_order_relaxed);
}

static inline enum arena_state arena_state(const struct arena *a, uint32_t at) {
    return (enum arena_state)(arena_word(a, at) & 7u);
}

static inline uint32_t arena_pages(const struct arena *a, uint32_t at) {
    return arena_word(a, at) >> 3;
}

static inline void arena_describe(struct arena *a, uint32_t at, uint32_t pages, enum arena_state state) {
    atomic_store_explicit(&a->block[at].word, pages << 3 | (uint32_t)state, memory_order_relaxed);
}

static inline void *arena_address(const struct arena *a, uint32_t at) {
    return (void *)(a->face.start + ((uintptr_t)at << a->page_shift));
}

/* The bin whose sizes include `pages`. */
unsigned odb_arena_bin_of(uint32_t pages);

/* Makes pages up to `end` usable and page `end` describable. False: the system refuses. */
bool odb_arena_map_commit(struct arena *a, uint32_t end);

/* Starts a block at `at` (marks and describes it), or ends one (its pages join the block before). */
void odb_arena_map_begin(struct arena *a, uint32_t at, uint32_t pages, enum arena_state state);
void odb_arena_map_end(struct arena *a, uint32_t at);

/* The first page of the block around `at`, ARENA_NIL if a change under way hides it. */
uint32_t odb_arena_map_around(const struct arena *a, uint32_t at);

/* Turns a marked block into a clean one, merged with its clean neighbours. */
void odb_arena_clean_put(struct arena *a, uint32_t at);
/* Takes `pages` clean pages, aligned to `alignment` pages, out of the bins as one marked block of state ARENA_LIVE;
   ARENA_NIL: none, or not committable. */
uint32_t odb_arena_clean_take(struct arena *a, uint32_t pages, uint32_t alignment);

/* Turns a marked block of less than ARENA_CACHE_SIZES pages into a cached one. */
void odb_arena_cache_put(struct arena *a, uint32_t at);
/* Takes the cached block freed last among those of `pages` (or a little more) out of the cache; ARENA_NIL: none that
   fits. Its state is ARENA_LIVE. */
uint32_t odb_arena_cache_take(struct arena *a, uint32_t pages, uint32_t alignment);

/* Lengthens the block at `at` to `pages` by taking from the clean and cached blocks behind it. False: they do not
   reach that far; nothing has changed. */
bool odb_arena_map_extend(struct arena *a, uint32_t at, uint32_t pages);

/* Takes a clean or cached block out of its lists. */
void odb_arena_map_unlist(struct arena *a, uint32_t at);

void odb_arena_list_push(struct arena *a, uint32_t *head, uint32_t at);
void odb_arena_list_drop(struct arena *a, uint32_t *head, uint32_t at);

#endif
