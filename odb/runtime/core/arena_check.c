/* arena_check.c: is an arena what arena_map.h says it is? */
#include "core/arena_map.h"

struct tally {
    size_t pages[ARENA_RELEASING + 1], blocks[ARENA_RELEASING + 1];
};

/* Walks the tiling: marked exactly where blocks start, known states, no clean neighbours. */
static bool tiling_is_valid(const struct arena *a, struct tally *tally) {
    enum arena_state before = ARENA_NONE;
    uint32_t at = 0;
    while (at < a->pages) {
        if (at >= a->committed) return false;
        enum arena_state state = arena_state(a, at);
        uint32_t pages = arena_pages(a, at);
        if (state == ARENA_NONE || state > ARENA_RELEASING || pages == 0 || pages > a->pages - at) return false;
        if (state == ARENA_CLEAN && before == ARENA_CLEAN) return false;
        if (state != ARENA_CLEAN && at + pages > a->committed) return false;
        if (odb_arena_map_around(a, at) != at || odb_arena_map_around(a, at + pages - 1) != at) return false;
        tally->pages[state] += pages;
        tally->blocks[state]++;
        before = state;
        at += pages;
    }
    return at == a->pages;
}

/* As many marks as blocks, and every upper bit says whether the word below it is zero. */
static bool marks_are_valid(const struct arena *a, size_t blocks) {
    size_t bits = a->committed;
    size_t marks = 0;
    for (int level = 0; level < ARENA_LEVELS; level++) {
        size_t words = (bits + 63) / 64;
        for (size_t i = 0; i < words; i++) {
            uint64_t word = a->starts[level][i];
            if (level == 0) marks += (size_t)__builtin_popcountll(word);
            if (level + 1 < ARENA_LEVELS && (word != 0) != ((a->starts[level + 1][i >> 6] >> (i & 63) & 1) != 0))
                return false;
        }
        bits = words;
    }
    return marks == blocks;
}

/* Follows one list, whose blocks must be of `state` and belong to `slot`. Counts them; false for a broken list. */
static bool list_is_valid(const struct arena *a, uint32_t head, enum arena_state state, unsigned slot, size_t *count) {
    uint32_t before = ARENA_NIL;
    for (uint32_t at = head; at != ARENA_NIL; before = at, at = a->block[at].next) {
        if (at >= a->committed || arena_state(a, at) != state || a->block[at].prev != before) return false;
        if (state == ARENA_CLEAN && odb_arena_bin_of(arena_pages(a, at)) != slot) return false;
        if (state == ARENA_CACHED && arena_pages(a, at) != slot) return false;
        if (++*count > a->pages) return false;
    }
    return true;
}

static bool slots_are_valid(const struct arena *a, const uint32_t *heads, const uint64_t *used, unsigned slots,
                            enum arena_state state, size_t blocks) {
    size_t count = 0;
    for (unsigned slot = 0; slot < slots; slot++) {
        if ((heads[slot] != ARENA_NIL) != ((used[slot / 64] >> slot % 64 & 1) != 0)) return false;
        if (!list_is_valid(a, heads[slot], state, slot, &count)) return false;
    }
    return count == blocks;
}

static bool ages_are_valid(const struct arena *a, size_t blocks) {
    size_t count = 0;
    uint32_t before = ARENA_NIL;
    for (uint32_t at = a->oldest; at != ARENA_NIL; before = at, at = a->block[at].newer) {
        if (at >= a->committed || arena_state(a, at) != ARENA_CACHED || a->block[at].older != before ||
            ++count > blocks)
            return false;
    }
    return before == a->newest && count == blocks;
}

static bool check(const struct arena *a) {
    struct tally tally = {0};
    if (!tiling_is_valid(a, &tally)) return false;
    size_t all = 0;
    for (int state = 0; state <= ARENA_RELEASING; state++) all += tally.blocks[state];
    size_t releasing = 0;
    return marks_are_valid(a, all) &&
           slots_are_valid(a, a->bin, a->bins_used, ARENA_BINS, ARENA_CLEAN, tally.blocks[ARENA_CLEAN]) &&
           slots_are_valid(a, a->cache, a->cache_used, ARENA_CACHE_SIZES, ARENA_CACHED, tally.blocks[ARENA_CACHED]) &&
           ages_are_valid(a, tally.blocks[ARENA_CACHED]) &&
           list_is_valid(a, a->releasing, ARENA_RELEASING, 0, &releasing) &&
           releasing == tally.blocks[ARENA_RELEASING] && tally.pages[ARENA_LIVE] == a->live_pages &&
           tally.blocks[ARENA_LIVE] == a->live_blocks && tally.pages[ARENA_CACHED] == a->cached_pages;
}

bool odb_arena_is_valid(const struct odb_arena *arena) {
    struct arena *a = (struct arena *)(uintptr_t)arena;
    odb_lock_take(&a->lock);
    bool valid = check(a);
    odb_lock_drop(&a->lock);
    return valid;
}
