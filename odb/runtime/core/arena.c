/* arena.c: the allocator itself: reserve, hand out, take back, give memory back to the system, survive fork. */
#include "core/arena_map.h"

#include "os/real.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct arena *arena_of(const struct odb_arena *face) {
    return (struct arena *)(uintptr_t)face;
}

/* ---- making one ---- */

static void *map(size_t length, int protection) {
    void *at = odb_real.mmap(NULL, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* Address space that nothing is charged for until it is committed. Asks for twice as much and gives half back, so that
 * a process under RLIMIT_AS keeps room for its stacks, libraries and small blocks. */
static void *reserve_half(size_t length) {
    char *at = map(2 * length, PROT_NONE);
    if (at != NULL) odb_real.munmap(at + length, length);
    return at;
}

/* One mapping: the arena's own data and the bitmap, then the descriptors, which are committed along with the pages
   they describe. */
static struct arena *map_bookkeeping(uint32_t pages, unsigned page_shift) {
    size_t page = (size_t)1 << page_shift;
    size_t words[ARENA_LEVELS];
    size_t head = (sizeof(struct arena) + 63) & ~(size_t)63;
    size_t bits = pages;
    for (int level = 0; level < ARENA_LEVELS; level++) {
        words[level] = (bits + 63) / 64;
        bits = words[level];
        head += words[level] * sizeof(uint64_t);
    }
    head = (head + page - 1) & ~(page - 1);
    size_t descriptors = ((size_t)(pages + 1) * sizeof(struct arena_block) + page - 1) & ~(page - 1);
    char *at = map(head + descriptors, PROT_NONE);
    if (at == NULL) return NULL;
    if (odb_real.mprotect(at, head, PROT_READ | PROT_WRITE) != 0) {
        odb_real.munmap(at, head + descriptors);
        return NULL;
    }
    struct arena *a = (struct arena *)(void *)at;
    _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)(at + ((sizeof(struct arena) + 63) & ~(size_t)63));
    for (int level = 0; level < ARENA_LEVELS; level++) {
        a->starts[level] = word;
        word += words[level];
    }
    a->block = (struct arena_block *)(void *)(at + head);
    a->bookkeeping = head + descriptors;
    a->pages = pages;
    a->page_shift = page_shift;
    return a;
}

static void set_up(struct arena *a, void *start) {
    a->face.start = (uintptr_t)start;
    a->face.length = (size_t)a->pages << a->page_shift;
    a->cache_limit = ODB_ARENA_CACHE_LIMIT;
    a->oldest = a->newest = a->releasing = ARENA_NIL;
    memset(a->bin, 0xff, sizeof a->bin);
    memset(a->cache, 0xff, sizeof a->cache);
}

static struct odb_arena *create(size_t reserve, unsigned page_shift) {
    void *start = reserve_half(reserve);
    if (start == NULL) return NULL;
    struct arena *a = map_bookkeeping((uint32_t)(reserve >> page_shift), page_shift);
    if (a != NULL) {
        set_up(a, start);
        /* A huge page would be filled for the sake of one block and split again by the first guard. A kernel without
           them refuses: as good. */
        odb_real.madvise(start, reserve, MADV_NOHUGEPAGE);
        if (odb_arena_map_commit(a, 0)) {
            odb_arena_map_begin(a, 0, a->pages, ARENA_LIVE);
            odb_arena_clean_put(a, 0);
            return &a->face;
        }
        odb_real.munmap(a, a->bookkeeping);
    }
    odb_real.munmap(start, reserve);
    return NULL;
}

struct odb_arena *odb_arena_create(size_t reserve) {
    int saved = errno;
    unsigned page_shift = (unsigned)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE));
    size_t most = (size_t)ARENA_PAGES_MAX << page_shift;
    if (reserve > most) reserve = most;
    reserve &= ~(((size_t)1 << page_shift) - 1);
    struct odb_arena *arena = reserve > 0 ? create(reserve, page_shift) : NULL;
    while (arena == NULL && reserve > ODB_ARENA_RESERVE_MIN) {
        reserve = (size_t)1 << (63 - __builtin_clzl(reserve - 1)); /* the next smaller power of two */
        arena = create(reserve, page_shift);
    }
    errno = saved;
    return arena;
}

void odb_arena_set_release(struct odb_arena *arena, odb_arena_release *release, void *context) {
    struct arena *a = arena_of(arena);
    odb_lock_take(&a->lock);
    a->release = release;
    a->release_context = context;
    odb_lock_drop(&a->lock);
}

void odb_arena_set_cache_limit(struct odb_arena *arena, size_t bytes) {
    struct arena *a = arena_of(arena);
    odb_lock_take(&a->lock);
    a->cache_limit = bytes;
    odb_lock_drop(&a->lock);
}

/* ---- giving memory back; the lock is held on entry and on return ---- */

/* Gives the memory of a marked, unlisted block back and makes it clean. Drops the lock in between: the block belongs
   to nobody but this call then. */
static void give_back(struct arena *a, uint32_t at) {
    uint32_t pages = arena_pages(a, at);
    size_t length = (size_t)pages << a->page_shift;
    odb_arena_release *release = a->release;
    void *context = a->release_context;
    arena_describe(a, at, pages, ARENA_RELEASING);
    odb_arena_list_push(a, &a->releasing, at);
    odb_lock_drop(&a->lock);

    int saved = errno;
    if (release != NULL) release(context, arena_address(a, at), length);
    bool zero = odb_real.madvise(arena_address(a, at), length, MADV_DONTNEED) == 0; /* refused for locked memory, say */
    errno = saved;

    odb_lock_take(&a->lock);
    odb_arena_list_drop(a, &a->releasing, at);
    if (!zero) a->zero_unknown = true;
    odb_arena_clean_put(a, at);
}

/* Gives the oldest cached block back, together with cached neighbours as far as they make a longer range for the same
   system calls. */
static void give_back_oldest(struct arena *a) {
    const uint32_t most = (uint32_t)(ODB_ARENA_BIG >> a->page_shift);
    uint32_t at = a->oldest;
    uint32_t pages = arena_pages(a, at);
    odb_arena_map_unlist(a, at);
    for (uint32_t next = at + pages; pages < most && next < a->pages && arena_state(a, next) == ARENA_CACHED;
         next = at + pages) {
        pages += arena_pages(a, next);
        odb_arena_map_unlist(a, next);
        odb_arena_map_end(a, next);
    }
    while (pages < most && at > 0) {
        uint32_t before = odb_arena_map_around(a, at - 1);
        if (before == ARENA_NIL || arena_state(a, before) != ARENA_CACHED) break;
        odb_arena_map_unlist(a, before);
        odb_arena_map_end(a, at);
        pages += at - before;
        at = before;
    }
    arena_describe(a, at, pages, ARENA_RELEASING);
    give_back(a, at);
}

/* What becomes of a marked block that is not live any more. */
static void retire(struct arena *a, uint32_t at) {
    if ((size_t)arena_pages(a, at) << a->page_shift >= ODB_ARENA_BIG) {
        give_back(a, at);
        return;
    }
    odb_arena_cache_put(a, at);
    while (a->cached_pages << a->page_shift > a->cache_limit) give_back_oldest(a);
}

/* ---- blocks ---- */

/* Pages for `size` bytes; the caller has checked that size is not beyond the arena. */
static uint32_t pages_for(const struct arena *a, size_t size) {
    size_t pages = (size + ((size_t)1 << a->page_shift) - 1) >> a->page_shift;
    return pages > 0 ? (uint32_t)pages : 1;
}

void *odb_arena_alloc_zeroed(struct odb_arena *arena, size_t size, size_t alignment, bool *is_zero) {
    struct arena *a = arena_of(arena);
    if (size > a->face.length || alignment > a->face.length) return NULL;
    uint32_t pages = pages_for(a, size);
    uint32_t pages_apart = pages_for(a, alignment);
    odb_lock_take(&a->lock);
    bool fresh = false;
    uint32_t at = odb_arena_cache_take(a, pages, pages_apart);
    if (at == ARENA_NIL) {
        int saved = errno;
        at = odb_arena_clean_take(a, pages, pages_apart);
        while (at == ARENA_NIL && a->oldest != ARENA_NIL) {
            give_back_oldest(a);
            at = odb_arena_clean_take(a, pages, pages_apart);
        }
        errno = saved;
        fresh = !a->zero_unknown;
    }
    if (at != ARENA_NIL) {
        a->live_pages += arena_pages(a, at);
        a->live_blocks++;
    }
    odb_lock_drop(&a->lock);
    if (at == ARENA_NIL) return NULL;
    *is_zero = fresh;
    return arena_address(a, at);
}

void *odb_arena_alloc(struct odb_arena *arena, size_t size, size_t alignment) {
    bool ignored;
    return odb_arena_alloc_zeroed(arena, size, alignment, &ignored);
}

/* The page at which the live block `block` starts, or ARENA_NIL. */
static uint32_t live_at(const struct arena *a, const void *block) {
    size_t offset = (uintptr_t)block - a->face.start;
    if (offset >= a->face.length || (offset & (((size_t)1 << a->page_shift) - 1)) != 0) return ARENA_NIL;
    uint32_t at = (uint32_t)(offset >> a->page_shift);
    /* The mark first: a page without one may lie beyond the committed descriptors. */
    uint64_t marks = atomic_load_explicit(&a->starts[0][at >> 6], memory_order_relaxed);
    if ((marks >> (at & 63) & 1) == 0 || arena_state(a, at) != ARENA_LIVE) return ARENA_NIL;
    return at;
}

bool odb_arena_free(struct odb_arena *arena, void *block) {
    struct arena *a = arena_of(arena);
    odb_lock_take(&a->lock);
    uint32_t at = live_at(a, block);
    if (at != ARENA_NIL) {
        a->live_pages -= arena_pages(a, at);
        a->live_blocks--;
        retire(a, at);
    }
    odb_lock_drop(&a->lock);
    return at != ARENA_NIL;
}

static void shrink(struct arena *a, uint32_t at, uint32_t pages) {
    uint32_t tail = arena_pages(a, at) - pages;
    arena_describe(a, at, pages, ARENA_LIVE);
    odb_arena_map_begin(a, at + pages, tail, ARENA_RELEASING);
    a->live_pages -= tail;
    retire(a, at + pages);
}

bool odb_arena_resize(struct odb_arena *arena, void *block, size_t size) {
    struct arena *a = arena_of(arena);
    if (size > a->face.length) return false;
    uint32_t pages = pages_for(a, size);
    int saved = errno;
    odb_lock_take(&a->lock);
    uint32_t at = live_at(a, block);
    bool done = at != ARENA_NIL;
    uint32_t before = done ? arena_pages(a, at) : 0;
    if (done && pages < before) {
        shrink(a, at, pages);
    } else if (done && pages > before) {
        done = odb_arena_map_extend(a, at, pages);
        if (done) a->live_pages += pages - before;
    }
    odb_lock_drop(&a->lock);
    errno = saved;
    return done;
}

size_t odb_arena_usable(const struct odb_arena *arena, const void *block) {
    const struct arena *a = arena_of(arena);
    uint32_t at = live_at(a, block);
    return at == ARENA_NIL ? 0 : (size_t)arena_pages(a, at) << a->page_shift;
}

bool odb_arena_find(const struct odb_arena *arena, const void *p, void **start, size_t *size) {
    const struct arena *a = arena_of(arena);
    if (!odb_arena_contains(arena, p)) return false;
    uint32_t page = (uint32_t)(((uintptr_t)p - a->face.start) >> a->page_shift);
    uint32_t at = odb_arena_map_around(a, page);
    if (at == ARENA_NIL) return false;
    uint32_t word = arena_word(a, at); /* read once: both halves belong together */
    if ((word & 7u) != ARENA_LIVE || page - at >= word >> 3) return false;
    *start = arena_address(a, at);
    *size = (size_t)(word >> 3) << a->page_shift;
    return true;
}

struct odb_arena_report odb_arena_report(const struct odb_arena *arena) {
    struct arena *a = arena_of(arena);
    odb_lock_take(&a->lock);
    struct odb_arena_report report = {
        .reserved = a->face.length,
        .live_bytes = a->live_pages << a->page_shift,
        .cached_bytes = a->cached_pages << a->page_shift,
        .blocks = a->live_blocks,
    };
    odb_lock_drop(&a->lock);
    return report;
}

/* ---- fork ---- */

void odb_arena_before_fork(struct odb_arena *arena) {
    odb_lock_take(&arena_of(arena)->lock);
}

void odb_arena_after_fork_parent(struct odb_arena *arena) {
    odb_lock_drop(&arena_of(arena)->lock);
}

/* The threads that were releasing ranges do not exist here: the ranges are cached in pieces that the cache can hold,
   and released when their turn comes. */
void odb_arena_after_fork_child(struct odb_arena *arena) {
    struct arena *a = arena_of(arena);
    const uint32_t most = (uint32_t)(ODB_ARENA_BIG >> a->page_shift) - 1;
    odb_lock_reset(&a->lock);
    while (a->releasing != ARENA_NIL) {
        uint32_t at = a->releasing;
        uint32_t left = arena_pages(a, at);
        odb_arena_list_drop(a, &a->releasing, at);
        while (left > most) {
            arena_describe(a, at, most, ARENA_RELEASING);
            odb_arena_map_begin(a, at + most, left - most, ARENA_RELEASING);
            odb_arena_cache_put(a, at);
            at += most;
            left -= most;
        }
        odb_arena_cache_put(a, at);
    }
}
