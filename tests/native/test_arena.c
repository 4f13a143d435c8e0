/* What odb_arena promises, one promise per case. */
#include "check.h"
#include "core/arena.h"
#include "os/real.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define KIB(n) ((size_t)(n) << 10)
#define MIB(n) ((size_t)(n) << 20)

static size_t page_size(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

static struct odb_arena *make(size_t reserve) {
    REQUIRE(odb_real_load());
    struct odb_arena *arena = odb_arena_create(reserve);
    REQUIRE(arena != NULL);
    REQUIRE(odb_arena_is_valid(arena));
    return arena;
}

/* A release callback that opens the range, as dropping guards does, and counts. */
struct released {
    size_t calls, bytes;
    char *last;
};

static void count_release(void *context, void *start, size_t length) {
    struct released *released = context;
    released->calls++;
    released->bytes += length;
    released->last = start;
    CHECK_EQ(mprotect(start, length, PROT_READ | PROT_WRITE), 0);
}

static bool all_zero(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0) return false;
    return true;
}

static void blocks_are_whole_pages_at_the_alignment_asked_for(void) {
    struct odb_arena *arena = make(MIB(256));
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 65536, 300000, 1 << 20, 5000001};
    size_t live = 0;
    for (size_t alignment = 0; alignment <= MIB(2); alignment = alignment == 0 ? 16 : alignment * 4) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char *block = odb_arena_alloc(arena, sizes[i], alignment);
            REQUIRE(block != NULL);
            size_t usable = odb_arena_usable(arena, block);
            size_t least = sizes[i] == 0 ? page_size() : (sizes[i] + page_size() - 1) & ~(page_size() - 1);
            live += usable;
            CHECK_EQ(usable, least);
            CHECK_EQ((uintptr_t)block % page_size(), 0);
            if (alignment != 0) CHECK_EQ((uintptr_t)block % alignment, 0);
            memset(block, 0x5a, usable);
        }
    }
    CHECK_EQ(odb_arena_report(arena).live_bytes, live);
    CHECK(odb_arena_is_valid(arena));
}

static void guarded_blocks_are_never_touched(void) {
    struct odb_arena *arena = make(MIB(256));
    struct released released = {0};
    odb_arena_set_release(arena, count_release, &released);
    odb_arena_set_cache_limit(arena, MIB(1));
    char *blocks[64];
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < 64; i++) {
            size_t size = i % 8 == 7 ? MIB(2) : page_size() * (1 + i % 13);
            blocks[i] = odb_arena_alloc(arena, size, i % 3 == 0 ? KIB(64) : 0);
            REQUIRE(blocks[i] != NULL);
            CHECK_EQ(mprotect(blocks[i], odb_arena_usable(arena, blocks[i]), PROT_NONE), 0);
            odb_arena_resize(arena, blocks[i], size / 2);
            odb_arena_resize(arena, blocks[i], size);
        }
        for (size_t i = 0; i < 64; i++) CHECK(odb_arena_free(arena, blocks[i]));
        CHECK(odb_arena_is_valid(arena));
    }
    CHECK(released.calls > 0);
}

static void fresh_blocks_cost_no_memory_until_they_are_used(void) {
    struct odb_arena *arena = make(MIB(256));
    char *block = odb_arena_alloc(arena, MIB(8), 0);
    unsigned char resident[2048];
    size_t pages = MIB(8) / page_size();
    REQUIRE(pages <= sizeof resident);
    REQUIRE(mincore(block, MIB(8), resident) == 0);
    for (size_t i = 0; i < pages; i++) CHECK_EQ(resident[i] & 1, 0);
}

static void only_live_block_starts_are_freed(void) {
    struct odb_arena *arena = make(MIB(64));
    char *block = odb_arena_alloc(arena, KIB(64), 0);
    char *big = odb_arena_alloc(arena, MIB(4), 0);
    int local = 0;
    CHECK(!odb_arena_free(arena, &local));
    CHECK(!odb_arena_free(arena, NULL));
    CHECK(!odb_arena_free(arena, block + 16));
    CHECK(!odb_arena_free(arena, block + page_size()));
    CHECK(!odb_arena_free(arena, (char *)arena->start + arena->length));
    CHECK(!odb_arena_free(arena, (char *)arena->start + arena->length - page_size()));
    CHECK(!odb_arena_resize(arena, block + page_size(), 1));
    CHECK_EQ(odb_arena_report(arena).blocks, 2);
    CHECK(odb_arena_free(arena, block));
    CHECK(!odb_arena_free(arena, block));
    CHECK(odb_arena_free(arena, big));
    CHECK(!odb_arena_free(arena, big));
    CHECK(!odb_arena_resize(arena, big, 1));
    CHECK_EQ(odb_arena_usable(arena, big), 0);
    CHECK_EQ(odb_arena_report(arena).live_bytes, 0);
    CHECK(odb_arena_is_valid(arena));
}

static void a_size_gets_back_the_block_freed_last(void) {
    struct odb_arena *arena = make(MIB(64));
    char *a = odb_arena_alloc(arena, KIB(16), 0);
    char *b = odb_arena_alloc(arena, KIB(16), 0);
    char *other = odb_arena_alloc(arena, KIB(8), 0);
    b[0] = 'b';
    odb_arena_free(arena, a);
    odb_arena_free(arena, other);
    odb_arena_free(arena, b);
    CHECK_EQ(odb_arena_alloc(arena, KIB(16) - 5, 0), b);
    CHECK_EQ(b[0], 'b'); /* with what it held */
    CHECK_EQ(odb_arena_alloc(arena, KIB(16), 0), a);
    CHECK_EQ(odb_arena_alloc(arena, KIB(8), 0), other);
}

static void zero_is_said_of_zero_memory_only(void) {
    struct odb_arena *arena = make(MIB(64));
    bool is_zero = false;
    char *block = odb_arena_alloc_zeroed(arena, KIB(64), 0, &is_zero);
    CHECK(is_zero && all_zero(block, KIB(64)));
    memset(block, 1, KIB(64));
    odb_arena_free(arena, block);
    CHECK_EQ(odb_arena_alloc_zeroed(arena, KIB(64), 0, &is_zero), block);
    CHECK(!is_zero);
    char *big = odb_arena_alloc(arena, MIB(2), 0);
    memset(big, 1, MIB(2));
    odb_arena_free(arena, big);
    CHECK_EQ(odb_arena_alloc_zeroed(arena, MIB(2), 0, &is_zero), big);
    CHECK(is_zero && all_zero(big, MIB(2)));
}

static void big_blocks_go_back_through_the_callback(void) {
    struct odb_arena *arena = make(MIB(64));
    struct released released = {0};
    odb_arena_set_release(arena, count_release, &released);
    char *small = odb_arena_alloc(arena, ODB_ARENA_BIG - page_size(), 0);
    char *big = odb_arena_alloc(arena, ODB_ARENA_BIG, 0);
    odb_arena_free(arena, small);
    CHECK_EQ(released.calls, 0);
    CHECK_EQ(odb_arena_report(arena).cached_bytes, ODB_ARENA_BIG - page_size());
    odb_arena_free(arena, big);
    CHECK_EQ(released.calls, 1);
    CHECK_EQ(released.bytes, ODB_ARENA_BIG);
    CHECK_EQ(released.last, big);
}

static void the_cache_is_bounded_and_gives_up_the_oldest(void) {
    struct odb_arena *arena = make(MIB(256));
    struct released released = {0};
    odb_arena_set_release(arena, count_release, &released);
    odb_arena_set_cache_limit(arena, MIB(4));
    char *blocks[256];
    for (size_t i = 0; i < 256; i++) blocks[i] = odb_arena_alloc(arena, KIB(64), 0);
    for (size_t i = 0; i < 256; i++) {
        odb_arena_free(arena, blocks[i]);
        CHECK(odb_arena_report(arena).cached_bytes <= MIB(4));
        if (released.calls == 1 && released.last != NULL) {
            CHECK_EQ(released.last, blocks[0]);
            released.last = NULL;
        }
    }
    CHECK_EQ(released.bytes + odb_arena_report(arena).cached_bytes, 256 * KIB(64));
    CHECK(released.calls <= released.bytes / ODB_ARENA_BIG + 1); /* neighbours went along */
    CHECK_EQ(odb_arena_alloc(arena, KIB(64), 0), blocks[255]);
    CHECK(odb_arena_is_valid(arena));
}

static void neighbours_on_both_sides_go_with_the_oldest(void) {
    struct odb_arena *arena = make(MIB(64));
    struct released released = {0};
    odb_arena_set_release(arena, count_release, &released);
    odb_arena_set_cache_limit(arena, KIB(300));
    char *blocks[6];
    for (size_t i = 0; i < 6; i++) blocks[i] = odb_arena_alloc(arena, KIB(64), 0);
    static const size_t order[] = {2, 1, 3, 0};
    for (size_t i = 0; i < 4; i++) odb_arena_free(arena, blocks[order[i]]);
    CHECK_EQ(released.calls, 0);
    odb_arena_free(arena, blocks[5]);
    CHECK_EQ(released.calls, 1);
    CHECK_EQ(released.last, blocks[0]);
    CHECK_EQ(released.bytes, 4 * KIB(64));
    CHECK(odb_arena_is_valid(arena));
}

struct nested {
    struct odb_arena *arena;
    char *before;
    size_t depth, calls;
};

static void allocate_in_release(void *context, void *start, size_t length) {
    struct nested *nested = context;
    nested->calls++;
    CHECK(!odb_arena_free(nested->arena, start));
    CHECK_EQ(odb_arena_usable(nested->arena, start), 0);
    CHECK(!odb_arena_resize(nested->arena, nested->before, KIB(8))); /* the range is nobody's, not free */
    CHECK(length >= ODB_ARENA_BIG);
    if (nested->depth++ < 3) {
        char *block = odb_arena_alloc(nested->arena, MIB(2), 0);
        CHECK(block + MIB(2) <= (char *)start || block >= (char *)start + length);
        CHECK(odb_arena_free(nested->arena, block));
    }
}

static void the_release_callback_may_use_the_arena(void) {
    struct odb_arena *arena = make(MIB(64));
    struct nested nested = {.arena = arena, .before = odb_arena_alloc(arena, KIB(4), 0)};
    odb_arena_set_release(arena, allocate_in_release, &nested);
    CHECK(odb_arena_free(arena, odb_arena_alloc(arena, MIB(2), 0)));
    CHECK_EQ(nested.calls, 4);
    CHECK(odb_arena_is_valid(arena));
}

static void resize_keeps_place_and_content(void) {
    struct odb_arena *arena = make(MIB(64));
    char *block = odb_arena_alloc(arena, KIB(16), 0);
    memset(block, 7, KIB(16));
    CHECK(odb_arena_resize(arena, block, MIB(3)));
    CHECK_EQ(odb_arena_usable(arena, block), MIB(3));
    block[MIB(3) - 1] = 7;
    CHECK(odb_arena_resize(arena, block, MIB(3) - 1)); /* same pages */
    CHECK_EQ(block[MIB(3) - 1], 7);
    CHECK(odb_arena_resize(arena, block, KIB(8)));
    CHECK_EQ(odb_arena_usable(arena, block), KIB(8));
    CHECK_EQ(block[KIB(8) - 1], 7);
    char *behind = odb_arena_alloc(arena, KIB(4), 0);
    CHECK_EQ(behind, block + KIB(8));
    CHECK(!odb_arena_resize(arena, block, KIB(12)));
    CHECK_EQ(odb_arena_usable(arena, block), KIB(8));
    odb_arena_free(arena, behind);
    CHECK(odb_arena_resize(arena, block, KIB(12))); /* over the cached block */
    CHECK(!odb_arena_resize(arena, block, MIB(65)));
    CHECK(!odb_arena_resize(arena, block, SIZE_MAX));
    CHECK_EQ(odb_arena_report(arena).live_bytes, KIB(12));
    CHECK(odb_arena_is_valid(arena));
}

static void growth_leaves_the_rest_of_a_cached_neighbour_cached(void) {
    struct odb_arena *arena = make(MIB(64));
    char *block = odb_arena_alloc(arena, KIB(4), 0);
    char *behind = odb_arena_alloc(arena, KIB(64), 0);
    behind[0] = 1;
    odb_arena_free(arena, behind);
    CHECK(odb_arena_resize(arena, block, KIB(8)));
    CHECK_EQ(odb_arena_report(arena).cached_bytes, KIB(60));
    bool is_zero = true;
    CHECK_EQ(odb_arena_alloc_zeroed(arena, KIB(60), 0, &is_zero), behind + KIB(4));
    CHECK(!is_zero);
    CHECK(odb_arena_is_valid(arena));
}

static void a_full_arena_says_so_and_recovers(void) {
    struct odb_arena *arena = make(MIB(32));
    char *blocks[32];
    errno = EDOM;
    for (size_t i = 0; i < 32; i++) REQUIRE((blocks[i] = odb_arena_alloc(arena, MIB(1), 0)) != NULL);
    CHECK(odb_arena_alloc(arena, 1, 0) == NULL);
    CHECK(!odb_arena_resize(arena, blocks[31], MIB(2)));
    CHECK(odb_arena_alloc(arena, SIZE_MAX, 0) == NULL);
    CHECK(odb_arena_alloc(arena, SIZE_MAX - page_size(), 0) == NULL);
    CHECK(odb_arena_alloc(arena, 1, (size_t)1 << 62) == NULL);
    CHECK_EQ(errno, EDOM);
    for (size_t i = 0; i < 32; i += 2) odb_arena_free(arena, blocks[i]);
    CHECK(odb_arena_alloc(arena, MIB(2), 0) == NULL);
    for (size_t i = 1; i < 32; i += 2) odb_arena_free(arena, blocks[i]);
    char *whole = odb_arena_alloc(arena, MIB(32), 0); /* everything has merged again */
    CHECK(whole != NULL);
    CHECK(odb_arena_is_valid(arena));
}

static void cached_memory_makes_room_for_other_sizes(void) {
    struct odb_arena *arena = make(MIB(32));
    char *blocks[512];
    for (size_t i = 0; i < 512; i++) REQUIRE((blocks[i] = odb_arena_alloc(arena, KIB(64), 0)) != NULL);
    for (size_t i = 0; i < 512; i++) odb_arena_free(arena, blocks[i]);
    CHECK_EQ(odb_arena_report(arena).cached_bytes, MIB(32));
    CHECK(odb_arena_alloc(arena, MIB(24), 0) != NULL);
    CHECK(odb_arena_is_valid(arena));
}

static void any_address_leads_to_its_block(void) {
    struct odb_arena *arena = make((size_t)8 << 30);
    static const size_t sizes[] = {KIB(4), MIB(1500), KIB(64), KIB(256), KIB(4), MIB(3000), KIB(4)};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *block = odb_arena_alloc(arena, sizes[i], 0);
        REQUIRE(block != NULL);
        size_t offsets[] = {0, 1, 4095, sizes[i] / 3, sizes[i] / 2, sizes[i] - 4096, sizes[i] - 1};
        for (size_t k = 0; k < sizeof offsets / sizeof *offsets; k++) {
            void *start = NULL;
            size_t size = 0;
            CHECK(odb_arena_contains(arena, block + offsets[k]));
            CHECK(odb_arena_find(arena, block + offsets[k], &start, &size));
            CHECK_EQ(start, block);
            CHECK_EQ(size, sizes[i]);
        }
        void *start;
        size_t size;
        CHECK(!odb_arena_find(arena, block + sizes[i], &start, &size)); /* nothing lives there yet */
    }
    void *start;
    size_t size;
    CHECK(!odb_arena_find(arena, &start, &start, &size));
    CHECK(!odb_arena_contains(arena, (char *)arena->start - 1));
    CHECK(!odb_arena_contains(arena, (char *)arena->start + arena->length));
}

static const struct check_case cases[] = {
    CHECK_CASE(blocks_are_whole_pages_at_the_alignment_asked_for),
    CHECK_CASE(guarded_blocks_are_never_touched),
    CHECK_CASE(fresh_blocks_cost_no_memory_until_they_are_used),
    CHECK_CASE(only_live_block_starts_are_freed),
    CHECK_CASE(a_size_gets_back_the_block_freed_last),
    CHECK_CASE(zero_is_said_of_zero_memory_only),
    CHECK_CASE(big_blocks_go_back_through_the_callback),
    CHECK_CASE(the_cache_is_bounded_and_gives_up_the_oldest),
    CHECK_CASE(neighbours_on_both_sides_go_with_the_oldest),
    CHECK_CASE(the_release_callback_may_use_the_arena),
    CHECK_CASE(resize_keeps_place_and_content),
    CHECK_CASE(growth_leaves_the_rest_of_a_cached_neighbour_cached),
    CHECK_CASE(a_full_arena_says_so_and_recovers),
    CHECK_CASE(cached_memory_makes_room_for_other_sizes),
    CHECK_CASE(any_address_leads_to_its_block),
};
CHECK_MAIN(cases)
