/* arena_map.c: the tiling of an arena by blocks: where they start, which are free, how they split and merge. */
#include "core/arena_map.h"

#include "os/real.h"

#include <sys/mman.h>

static const uint32_t commit_step = 8192; /* pages: few system calls, and little that mlockall could pin */

/* ---- lists ---- */

void odb_arena_list_push(struct arena *a, uint32_t *head, uint32_t at) {
    a->block[at].next = *head;
    a->block[at].prev = ARENA_NIL;
    if (*head != ARENA_NIL) a->block[*head].prev = at;
    *head = at;
}

void odb_arena_list_drop(struct arena *a, uint32_t *head, uint32_t at) {
    struct arena_block *block = &a->block[at];
    if (block->prev != ARENA_NIL)
        a->block[block->prev].next = block->next;
    else
        *head = block->next;
    if (block->next != ARENA_NIL) a->block[block->next].prev = block->prev;
}

/* The first set bit at or after `from`, or `words * 64`. */
static unsigned first_used(const uint64_t *used, unsigned words, unsigned from) {
    unsigned word = from / 64;
    if (word >= words) return words * 64;
    uint64_t bits = used[word] & ~(uint64_t)0 << from % 64;
    while (bits == 0) {
        if (++word == words) return words * 64;
        bits = used[word];
    }
    return word * 64 + (unsigned)__builtin_ctzll(bits);
}

/* ---- the bitmap of block starts ---- */

static void mark(struct arena *a, uint32_t at) {
    for (int level = 0; level < ARENA_LEVELS; level++) {
        _Atomic uint64_t *word = &a->starts[level][at >> 6];
        uint64_t before = atomic_load_explicit(word, memory_order_relaxed);
        atomic_store_explicit(word, before | (uint64_t)1 << (at & 63), memory_order_relaxed);
        if (before != 0) return;
        at >>= 6;
    }
}

static void unmark(struct arena *a, uint32_t at) {
    for (int level = 0; level < ARENA_LEVELS; level++) {
        _Atomic uint64_t *word = &a->starts[level][at >> 6];
        uint64_t after = atomic_load_explicit(word, memory_order_relaxed) & ~((uint64_t)1 << (at & 63));
        atomic_store_explicit(word, after, memory_order_relaxed);
        if (after != 0) return;
        at >>= 6;
    }
}

/* Climbs until a word has a mark at or before the position, then descends along the last marks. A reader without the
 * lock sees other blocks' marks come and go, but not those of the block it asks about: marks inside that block are all
 * clear and the words above its first page all say "not zero". */
uint32_t odb_arena_map_around(const struct arena *a, uint32_t at) {
    int level = 0;
    uint64_t bits = 0;
    for (;; level++) {
        if (level == ARENA_LEVELS) return ARENA_NIL;
        bits =
            atomic_load_explicit(&a->starts[level][at >> 6], memory_order_relaxed) & ~(uint64_t)0 >> (63 - (at & 63));
        if (bits != 0) break;
        if (at >> 6 == 0) return ARENA_NIL;
        at = (at >> 6) - 1; /* the word before this one, as a position one level up */
    }
    at = (at & ~63u) | (63 - (uint32_t)__builtin_clzll(bits));
    while (level-- > 0) {
        bits = atomic_load_explicit(&a->starts[level][at], memory_order_relaxed);
        if (bits == 0) return ARENA_NIL;
        at = at << 6 | (63 - (uint32_t)__builtin_clzll(bits));
    }
    return at;
}

void odb_arena_map_begin(struct arena *a, uint32_t at, uint32_t pages, enum arena_state state) {
    arena_describe(a, at, pages, state);
    mark(a, at);
}

void odb_arena_map_end(struct arena *a, uint32_t at) {
    arena_describe(a, at, 0, ARENA_NONE);
    unmark(a, at);
}

bool odb_arena_map_commit(struct arena *a, uint32_t end) {
    if (end < a->committed || a->committed == a->pages) return true;
    uint32_t to = a->pages - end > commit_step ? end + commit_step : a->pages;
    uintptr_t page = (uintptr_t)1 << a->page_shift;
    uintptr_t first = (uintptr_t)&a->block[a->committed] & ~(page - 1);
    uintptr_t last = ((uintptr_t)&a->block[to] + page - 1) & ~(page - 1);
    if (odb_real.mprotect((void *)first, last - first, PROT_READ | PROT_WRITE) != 0) return false;
    if (odb_real.mprotect(arena_address(a, a->committed), (size_t)(to - a->committed) << a->page_shift,
                          PROT_READ | PROT_WRITE) != 0)
        return false;
    a->committed = to;
    return true;
}

/* ---- clean blocks ---- */

unsigned odb_arena_bin_of(uint32_t pages) {
    if (pages < ARENA_EXACT) return pages;
    unsigned top = 31 - (unsigned)__builtin_clz(pages);
    return ARENA_EXACT + (top - 6) * 16 + (pages >> (top - 4) & 15);
}

static void bin_push(struct arena *a, uint32_t at) {
    unsigned bin = odb_arena_bin_of(arena_pages(a, at));
    odb_arena_list_push(a, &a->bin[bin], at);
    a->bins_used[bin / 64] |= (uint64_t)1 << bin % 64;
}

static void bin_drop(struct arena *a, uint32_t at) {
    unsigned bin = odb_arena_bin_of(arena_pages(a, at));
    odb_arena_list_drop(a, &a->bin[bin], at);
    if (a->bin[bin] == ARENA_NIL) a->bins_used[bin / 64] &= ~((uint64_t)1 << bin % 64);
}

void odb_arena_clean_put(struct arena *a, uint32_t at) {
    uint32_t pages = arena_pages(a, at);
    uint32_t after = at + pages;
    if (after < a->pages && arena_state(a, after) == ARENA_CLEAN) {
        bin_drop(a, after);
        pages += arena_pages(a, after);
        odb_arena_map_end(a, after);
    }
    uint32_t before = at > 0 ? odb_arena_map_around(a, at - 1) : ARENA_NIL;
    if (before != ARENA_NIL && arena_state(a, before) == ARENA_CLEAN) {
        bin_drop(a, before);
        pages += at - before;
        odb_arena_map_end(a, at);
        at = before;
    }
    arena_describe(a, at, pages, ARENA_CLEAN);
    bin_push(a, at);
}

/* A clean block of at least `pages`: the first few of the bin that also holds smaller ones, then the head of the next
   bin in use. */
static uint32_t clean_search(const struct arena *a, uint32_t pages) {
    unsigned bin = odb_arena_bin_of(pages);
    uint32_t at = a->bin[bin];
    for (int tries = 0; at != ARENA_NIL && tries < 8; tries++, at = a->block[at].next)
        if (arena_pages(a, at) >= pages) return at;
    bin = first_used(a->bins_used, ARENA_BIN_WORDS, bin + 1);
    return bin < ARENA_BINS ? a->bin[bin] : ARENA_NIL;
}

uint32_t odb_arena_clean_take(struct arena *a, uint32_t pages, uint32_t alignment) {
    if (alignment > a->pages || pages > a->pages - (alignment - 1)) return ARENA_NIL;
    uint32_t at = clean_search(a, pages + (alignment - 1));
    if (at == ARENA_NIL) return ARENA_NIL;
    uintptr_t number = ((uintptr_t)arena_address(a, at) >> a->page_shift) & (alignment - 1);
    uint32_t skip = number == 0 ? 0 : alignment - (uint32_t)number;
    uint32_t rest = arena_pages(a, at) - skip - pages;
    uint32_t start = at + skip;
    if (!odb_arena_map_commit(a, start + pages)) return ARENA_NIL;
    bin_drop(a, at);
    if (skip > 0) {
        arena_describe(a, at, skip, ARENA_CLEAN);
        bin_push(a, at);
        odb_arena_map_begin(a, start, pages, ARENA_LIVE);
    } else {
        arena_describe(a, at, pages, ARENA_LIVE);
    }
    if (rest > 0) {
        odb_arena_map_begin(a, start + pages, rest, ARENA_CLEAN);
        bin_push(a, start + pages);
    }
    return start;
}

/* ---- cached blocks ---- */

void odb_arena_cache_put(struct arena *a, uint32_t at) {
    uint32_t pages = arena_pages(a, at);
    struct arena_block *block = &a->block[at];
    arena_describe(a, at, pages, ARENA_CACHED);
    odb_arena_list_push(a, &a->cache[pages], at);
    a->cache_used[pages / 64] |= (uint64_t)1 << pages % 64;
    block->newer = ARENA_NIL;
    block->older = a->newest;
    if (a->newest != ARENA_NIL)
        a->block[a->newest].newer = at;
    else
        a->oldest = at;
    a->newest = at;
    a->cached_pages += pages;
}

static void cache_drop(struct arena *a, uint32_t at) {
    uint32_t pages = arena_pages(a, at);
    struct arena_block *block = &a->block[at];
    odb_arena_list_drop(a, &a->cache[pages], at);
    if (a->cache[pages] == ARENA_NIL) a->cache_used[pages / 64] &= ~((uint64_t)1 << pages % 64);
    if (block->newer != ARENA_NIL)
        a->block[block->newer].older = block->older;
    else
        a->newest = block->older;
    if (block->older != ARENA_NIL)
        a->block[block->older].newer = block->newer;
    else
        a->oldest = block->newer;
    a->cached_pages -= pages;
}

uint32_t odb_arena_cache_take(struct arena *a, uint32_t pages, uint32_t alignment) {
    if (pages >= ARENA_CACHE_SIZES) return ARENA_NIL;
    unsigned size = first_used(a->cache_used, ARENA_CACHE_WORDS, pages);
    if (size > pages + pages / 8 || size >= ARENA_CACHE_SIZES) return ARENA_NIL;
    uint32_t at = a->cache[size];
    for (int tries = 0; at != ARENA_NIL && tries < 8; tries++, at = a->block[at].next) {
        if ((((uintptr_t)arena_address(a, at) >> a->page_shift) & (alignment - 1)) != 0) continue;
        cache_drop(a, at);
        arena_describe(a, at, size, ARENA_LIVE);
        return at;
    }
    return ARENA_NIL;
}

/* ---- both ---- */

void odb_arena_map_unlist(struct arena *a, uint32_t at) {
    if (arena_state(a, at) == ARENA_CLEAN)
        bin_drop(a, at);
    else
        cache_drop(a, at);
}

bool odb_arena_map_extend(struct arena *a, uint32_t at, uint32_t pages) {
    uint32_t end = at + arena_pages(a, at);
    if (pages > a->pages - at) return false;
    while (end - at < pages) {
        enum arena_state state = arena_state(a, end);
        if (state != ARENA_CLEAN && state != ARENA_CACHED) return false;
        end += arena_pages(a, end);
    }
    if (!odb_arena_map_commit(a, at + pages)) return false;
    uint32_t next = at + arena_pages(a, at);
    while (next - at < pages) {
        enum arena_state state = arena_state(a, next);
        uint32_t length = arena_pages(a, next);
        odb_arena_map_unlist(a, next);
        odb_arena_map_end(a, next);
        next += length;
        if (next - at <= pages) continue;
        odb_arena_map_begin(a, at + pages, next - at - pages, state);
        if (state == ARENA_CLEAN)
            bin_push(a, at + pages);
        else
            odb_arena_cache_put(a, at + pages);
    }
    arena_describe(a, at, pages, ARENA_LIVE);
    return true;
}
