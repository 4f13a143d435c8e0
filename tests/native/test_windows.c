/* Windows: what is mapped, found, dropped, overwritten and fetched, and what happens when the system or the origin says no. */
#include "check.h"
#include "core/heap.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/faults.h"
#include "support/world.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#define P ((size_t)ODB_PAGE)

/* Is the page accessible to the kernel? */
static bool readable(const void *at) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    bool is = odb_real.write(ends[1], at, 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return is;
}

static void map(void *at, const struct odb_span *span) {
    REQUIRE(odb_windows_map(&world.windows, at, span->length, span) == 0);
}

static int materialise(void *at, size_t length) {
    struct iovec iov = {at, length};
    return odb_windows_materialise(&world.windows, &iov, 1);
}

static size_t find(const void *at, size_t length, struct odb_span *span, size_t *plain) {
    return odb_windows_find(&world.windows, at, length, span, plain);
}

/* Windows in the block go with it. */
static void end(void *pages) {
    odb_free(&world, pages);
    faults_clear();
}

static void span_of_a_sub_range_is_found_at_any_byte_and_length(void) {
    struct odb_span span = world_payload(1, 8 * P), found;
    uint8_t *pages = world_pages(8 * P);
    size_t plain;
    map(pages, &span);
    static const size_t starts[] = {0, 1, P - 1, P, P + 1, 3 * P + 7, 8 * P - 1};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        for (size_t length = 1; starts[i] + length <= 8 * P; length = length * 3 + 1) {
            CHECK_EQ(find(pages + starts[i], length, &found, &plain), length);
            CHECK_EQ(found.offset, starts[i]);
            CHECK_EQ(found.length, length);
            CHECK(odb_span_same_payload(&found, &span));
        }
    }
    CHECK_EQ(odb_windows_fault(&world.windows, pages), 1);
    CHECK(fixture_same(pages, 8 * P, 1, 0));
    end(pages);
}

static void plain_bytes_before_a_window_are_counted_exactly(void) {
    struct odb_span span = world_payload(1, 2 * P), found;
    uint8_t *pages = world_pages(6 * P);
    size_t plain = 0;
    map(pages + 2 * P, &span);
    CHECK_EQ(find(pages + 5, 4 * P, &found, &plain), 0);
    CHECK_EQ(plain, 2 * P - 5);
    CHECK_EQ(find(pages + 5, 100, &found, &plain), 0);
    CHECK_EQ(plain, 100);
    CHECK_EQ(find(pages + 3 * P, 3 * P, &found, &plain), P);
    CHECK_EQ(find(pages + 4 * P, 2 * P, &found, &plain), 0);
    CHECK_EQ(plain, 2 * P);
    end(pages);
}

static void neighbours_of_one_payload_are_one_span_and_one_fetch_when_coalescing(void) {
    struct odb_span span = world_payload(2, 4 * P), found;
    struct odb_span first = odb_span_part(&span, 0, 2 * P), second = odb_span_part(&span, 2 * P, 2 * P);
    uint8_t *pages = world_pages(4 * P);
    size_t plain;
    map(pages, &first);
    map(pages + 2 * P, &second);
    CHECK_EQ(find(pages, 4 * P, &found, &plain), 4 * P);
    uint64_t fetches = world_count(ODB_STAT_fetches);
    CHECK_EQ(materialise(pages, 4 * P), 0);
    CHECK_EQ(world_count(ODB_STAT_fetches) - fetches, 1);
    CHECK(fixture_same(pages, 4 * P, 2, 0));
    end(pages);
}

static void neighbours_are_kept_apart_when_coalesce_is_off(void) {
    struct odb_span span = world_payload(2, 4 * P), found;
    struct odb_span first = odb_span_part(&span, 0, 2 * P), second = odb_span_part(&span, 2 * P, 2 * P);
    uint8_t *pages = world_pages(4 * P);
    size_t plain;
    world_set("coalesce", "off");
    map(pages, &first);
    map(pages + 2 * P, &second);
    CHECK_EQ(find(pages, 4 * P, &found, &plain), 2 * P);
    uint64_t fetches = world_count(ODB_STAT_fetches);
    CHECK_EQ(materialise(pages, 4 * P), 0);
    CHECK_EQ(world_count(ODB_STAT_fetches) - fetches, 2);
    CHECK(fixture_same(pages, 4 * P, 2, 0));
    world_set("coalesce", "on");
    end(pages);
}

static void swapped_neighbours_are_not_taken_for_a_continuation(void) {
    struct odb_span span = world_payload(3, 4 * P), found;
    struct odb_span first = odb_span_part(&span, 0, 2 * P), second = odb_span_part(&span, 2 * P, 2 * P);
    uint8_t *pages = world_pages(4 * P);
    size_t plain;
    map(pages, &second);
    map(pages + 2 * P, &first);
    CHECK_EQ(find(pages, 4 * P, &found, &plain), 2 * P);
    CHECK_EQ(found.offset, 2 * P);
    CHECK_EQ(materialise(pages, 4 * P), 0);
    CHECK(fixture_same(pages, 2 * P, 3, 2 * P));
    CHECK(fixture_same(pages + 2 * P, 2 * P, 3, 0));
    end(pages);
}

static void window_mapped_over_part_of_another_leaves_the_rest(void) {
    struct odb_span old = world_payload(4, 6 * P), fresh = world_payload(5, 2 * P);
    uint8_t *pages = world_pages(6 * P);
    map(pages, &old);
    map(pages + 2 * P, &fresh);
    CHECK(world_same(pages, 2 * P, 4, 0));
    CHECK(world_same(pages + 2 * P, 2 * P, 5, 0));
    CHECK(world_same(pages + 4 * P, 2 * P, 4, 4 * P));
    end(pages);
}

static void window_overwritten_in_part_keeps_every_other_byte(void) {
    static const struct {
        size_t from, length;
    } cases[] = {{0, 1},     {5, 100},      {P - 3, 6}, {10, 3 * P}, {P, 2 * P}, {P, P + 1}, {2 * P - 1, 2 * P + 1},
                 {0, 4 * P}, {4 * P - 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct odb_span span = world_payload(6, 4 * P);
        uint8_t *pages = world_pages(4 * P);
        size_t from = cases[i].from, length = cases[i].length;
        map(pages, &span);
        CHECK_EQ(odb_windows_overwrite(&world.windows, pages + from, length), 0);
        fixture_fill(pages + from, length, 7, 0);
        CHECK(world_same(pages, from, 6, 0));
        CHECK(world_same(pages + from, length, 7, 0));
        CHECK(world_same(pages + from + length, 4 * P - from - length, 6, from + length));
        end(pages);
    }
}

static void overwriting_whole_pages_fetches_nothing(void) {
    struct odb_span span = world_payload(6, 4 * P);
    uint8_t *pages = world_pages(4 * P);
    uint64_t fetches = world_count(ODB_STAT_fetches);
    map(pages, &span);
    CHECK_EQ(odb_windows_overwrite(&world.windows, pages, 4 * P), 0);
    CHECK_EQ(world_count(ODB_STAT_fetches), fetches);
    CHECK(!odb_windows_touch(&world.windows, pages, 4 * P));
    end(pages);
}

static void dropped_pages_stay_guarded_and_are_mapped_again_without_a_system_call(void) {
    struct odb_span span = world_payload(8, 4 * P), found;
    uint8_t *pages = world_pages(4 * P);
    size_t plain;
    map(pages, &span);
    odb_windows_drop(&world.windows, pages, 4 * P);
    CHECK(!readable(pages));
    CHECK_EQ(find(pages, 4 * P, &found, &plain), 0);
    CHECK_EQ(plain, 4 * P);
    uint64_t calls = world_count(ODB_STAT_guard_calls);
    map(pages, &span);
    CHECK_EQ(world_count(ODB_STAT_guard_calls), calls);
    CHECK(world_same(pages, 4 * P, 8, 0));
    end(pages);
}

static void dropped_pages_are_opened_at_once_where_that_is_asked_for(void) {
    struct odb_span span = world_payload(1, 4 * P);
    uint8_t *pages = world_pages(4 * P);
    uint64_t fetches = world_count(ODB_STAT_fetches);
    world_set("guard", "eager");
    map(pages, &span);
    CHECK(!readable(pages));
    odb_windows_drop(&world.windows, pages, 4 * P);
    for (int i = 0; i < 4; i++) CHECK(readable(pages + (size_t)i * P));
    CHECK(!odb_windows_touch(&world.windows, pages, 4 * P));
    CHECK_EQ(world_count(ODB_STAT_fetches), fetches);
    world_set("guard", "sticky");
    end(pages);
}

static void stale_pages_are_opened_without_a_fetch_before_the_kernel_sees_them(void) {
    struct odb_span span = world_payload(8, 4 * P);
    uint8_t *pages = world_pages(4 * P);
    uint64_t fetches = world_count(ODB_STAT_fetches);
    map(pages, &span);
    odb_windows_drop(&world.windows, pages, 4 * P);
    CHECK_EQ(materialise(pages + 100, P), 0);
    CHECK(readable(pages) && readable(pages + P));
    CHECK(!readable(pages + 2 * P));
    CHECK_EQ(odb_windows_fault(&world.windows, pages + 3 * P), 1);
    CHECK_EQ(odb_windows_fault(&world.windows, pages + 2 * P), 1);
    CHECK(readable(pages + 2 * P) && readable(pages + 3 * P));
    CHECK_EQ(world_count(ODB_STAT_fetches), fetches);
    end(pages);
}

static void fault_chunk_bounds_what_one_touch_fetches(void) {
    struct odb_span span = world_payload(9, 16 * P);
    uint8_t *pages = world_pages(16 * P);
    world_set("fault_chunk", "16K");
    map(pages, &span);
    uint64_t bytes = world_count(ODB_STAT_fetch_bytes);
    CHECK_EQ(odb_windows_fault(&world.windows, pages + 8 * P + 17), 1);
    CHECK_EQ(world_count(ODB_STAT_fetch_bytes) - bytes, 4 * P);
    CHECK(readable(pages + 8 * P));
    for (size_t i = 0; i < 16; i++) {
        if (!readable(pages + i * P)) CHECK_EQ(odb_windows_fault(&world.windows, pages + i * P), 1);
    }
    CHECK(fixture_same(pages, 16 * P, 9, 0));
    CHECK_EQ(world_count(ODB_STAT_fetch_bytes) - bytes, 16 * P);
    world_set("fault_chunk", "1M");
    end(pages);
}

static void touch_of_ordinary_memory_is_not_ours(void) {
    uint8_t *pages = world_pages(2 * P);
    CHECK_EQ(odb_windows_fault(&world.windows, pages), 0);
    CHECK_EQ(odb_windows_fault(&world.windows, NULL), 0);
    CHECK_EQ(odb_windows_fault(&world.windows, (void *)(uintptr_t)0x7f0000000000), 0);
    CHECK_EQ(odb_windows_fault(&world.windows, (void *)(uintptr_t)0xffffffffff600000), 0);
    end(pages);
}

static void more_runs_than_a_round_holds_are_all_fetched(void) {
    enum { RUNS = 50 };
    struct odb_span span = world_payload(10, 2 * RUNS * P);
    uint8_t *pages = world_pages(2 * RUNS * P);
    fixture_fill(pages, 2 * RUNS * P, 10, 0);
    for (size_t i = 0; i < RUNS; i++) {
        struct odb_span part = odb_span_part(&span, 2 * i * P, P);
        map(pages + 2 * i * P, &part);
    }
    CHECK(world_same(pages, 2 * RUNS * P, 10, 0));
    end(pages);
}

/* I3: the origin does not answer, or says no: an error, the windows as they were, nothing readable. */
static void lost_payload_gives_an_error_and_no_bytes(void) {
    struct odb_span lost[2] = {world_unknown(2 * P), world_unreachable(2 * P)};
    static const int errors[2] = {-ESTALE, -ECONNREFUSED};
    for (int threads = 0; threads < 2; threads++) {
        atomic_store(&world.windows.threads, threads == 1);
        for (int i = 0; i < 2; i++) {
            uint8_t *pages = world_pages(2 * P);
            struct odb_span found;
            size_t plain;
            memset(pages, 0x5a, 2 * P);
            map(pages, &lost[i]);
            CHECK_EQ(materialise(pages, 2 * P), errors[i]);
            CHECK_EQ(odb_windows_fault(&world.windows, pages), errors[i]);
            CHECK(!readable(pages) && !readable(pages + P));
            CHECK_EQ(find(pages, 2 * P, &found, &plain), 2 * P);
            end(pages);
        }
    }
    atomic_store(&world.windows.threads, false);
}

static void good_windows_beside_a_lost_one_are_still_to_be_had(void) {
    struct odb_span good = world_payload(11, 2 * P), lost = world_unknown(2 * P);
    uint8_t *pages = world_pages(6 * P);
    map(pages, &good);
    map(pages + 2 * P, &lost);
    map(pages + 4 * P, &good);
    CHECK_EQ(materialise(pages, 6 * P), -ESTALE);
    CHECK(world_same(pages, 2 * P, 11, 0));
    CHECK(world_same(pages + 4 * P, 2 * P, 11, 0));
    CHECK(!readable(pages + 2 * P));
    end(pages);
}

/* I2: no guard, no window, and nothing has changed. */
static void window_that_cannot_be_guarded_changes_nothing(void) {
    struct odb_span span = world_payload(12, 6 * P), inner = odb_span_part(&span, 2 * P, 2 * P), found;
    for (int nth = 1; nth <= 2; nth++) {
        uint8_t *pages = world_pages(6 * P);
        size_t plain;
        fixture_fill(pages, 6 * P, 13, 0);
        map(pages + 2 * P, &inner);
        size_t guarded = atomic_load(&world.windows.guarded), live = world.windows.live;
        world_faults.fail_mprotect = nth;
        CHECK_EQ(odb_windows_map(&world.windows, pages, 6 * P, &span), -ENOMEM);
        CHECK_EQ(atomic_load(&world.windows.guarded), guarded);
        CHECK_EQ(world.windows.live, live);
        CHECK(readable(pages) && readable(pages + P) && readable(pages + 4 * P) && readable(pages + 5 * P));
        CHECK(fixture_same(pages, 2 * P, 13, 0));
        CHECK(fixture_same(pages + 4 * P, 2 * P, 13, 4 * P));
        CHECK_EQ(find(pages + 2 * P, 2 * P, &found, &plain), 2 * P);
        CHECK(world_same(pages + 2 * P, 2 * P, 12, 2 * P));
        end(pages);
    }
}

/* A range with a hole: mprotect does the pages before the hole and then fails. */
static void range_that_is_guarded_only_in_part_is_opened_again(void) {
    uint8_t *pages = odb_real.mmap(NULL, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct odb_span span = world_payload(12, 4 * P);
    REQUIRE(pages != MAP_FAILED);
    REQUIRE(odb_real.munmap(pages + 2 * P, P) == 0);
    CHECK(odb_windows_map(&world.windows, pages, 4 * P, &span) != 0);
    CHECK(!odb_windows_touch(&world.windows, pages, 4 * P));
    CHECK(readable(pages) && readable(pages + P) && readable(pages + 3 * P));
    odb_real.munmap(pages, 2 * P);
    odb_real.munmap(pages + 3 * P, P);
}

static void number_of_windows_is_bounded(void) {
    enum { BOUND = 16384 };
    struct odb_span span = world_payload(14, P);
    uint8_t *pages = world_pages((BOUND + 2) * P);
    size_t made = 0, live = world.windows.live;
    world_faults.fail_mprotect = 0;
    while (made < BOUND + 2 && odb_windows_map(&world.windows, pages + made * P, P, &span) == 0) made++;
    CHECK_EQ(made + live, BOUND);
    CHECK(readable(pages + made * P));
    odb_windows_open(&world.windows, pages, made * P);
    CHECK_EQ(world.windows.live, live);
    map(pages, &span);
    CHECK(world_same(pages, P, 14, 0));
    end(pages);
}

/* With several threads content is moved in; where it cannot be moved it is copied, where there is no memory for it the window stays. */
static void lack_of_memory_while_fetching_for_threads_loses_nothing(void) {
    struct odb_span span = world_payload(15, 4 * P);
    atomic_store(&world.windows.threads, true);
    uint8_t *pages = world_pages(4 * P);
    map(pages, &span);
    world_faults.fail_mremap = 1;
    CHECK(world_same(pages, 4 * P, 15, 0));
    map(pages, &span);
    world_faults.fail_mmap = 1;
    CHECK_EQ(materialise(pages, 4 * P), -ENOMEM);
    CHECK(!readable(pages));
    CHECK(world_same(pages, 4 * P, 15, 0));
    atomic_store(&world.windows.threads, false);
    end(pages);
}

static void lack_of_mappings_while_opening_loses_nothing(void) {
    struct odb_span span = world_payload(16, 4 * P);
    uint8_t *pages = world_pages(4 * P);
    map(pages, &span);
    world_faults.fail_mprotect = 1;
    CHECK_EQ(materialise(pages, 4 * P), -ENOMEM);
    CHECK(!readable(pages));
    CHECK(world_same(pages, 4 * P, 16, 0));
    end(pages);
}

/* Is the open range a mapping of its own, neither part of a larger one nor several? */
static bool stands_alone(const void *start, size_t length) {
    unsigned long from, to;
    char line[512];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "r");
    REQUIRE(maps);
    while (!found && fgets(line, sizeof line, maps))
        found = sscanf(line, "%lx-%lx rw", &from, &to) == 2 && from == (uintptr_t)start && to - from == length;
    fclose(maps);
    return found;
}

static void memory_that_is_guarded_again_gets_a_mapping_of_its_own(void) {
    uint8_t *pages = world_pages(12 * P);
    for (int i = 0; i < 2; i++) {
        for (size_t block = 0; block < 3; block++) {
            struct odb_span span = world_payload(17, 4 * P);
            CHECK(!stands_alone(pages + block * 4 * P, 4 * P));
            map(pages + block * 4 * P, &span);
        }
        CHECK(world_same(pages + 4 * P, 4 * P, 17, 0));
        odb_windows_open(&world.windows, pages, 12 * P);
    }
    for (size_t block = 0; block < 3; block++) CHECK(stands_alone(pages + block * 4 * P, 4 * P));
    end(pages);
}

static void number_of_mappings_set_apart_is_bounded(void) {
    uint32_t made = world.windows.fences.count;
    struct odb_span span = world_payload(18, P);
    uint8_t *pages = world_pages(P);
    world.windows.fences.count = ODB_FENCES_MOST;
    for (int i = 0; i < 3; i++) {
        map(pages, &span);
        odb_windows_open(&world.windows, pages, P);
    }
    CHECK(!stands_alone(pages, P));
    CHECK_EQ(world.windows.fences.count, ODB_FENCES_MOST);
    world.windows.fences.count = made;
    end(pages);
}

static void no_guarded_page_is_left_when_all_are_gone(void) {
    CHECK_EQ(world.windows.live, 0);
    CHECK_EQ(atomic_load(&world.windows.fetching), 0);
}

static const struct check_case cases[] = {
    CHECK_CASE(span_of_a_sub_range_is_found_at_any_byte_and_length),
    CHECK_CASE(plain_bytes_before_a_window_are_counted_exactly),
    CHECK_CASE(neighbours_of_one_payload_are_one_span_and_one_fetch_when_coalescing),
    CHECK_CASE(neighbours_are_kept_apart_when_coalesce_is_off),
    CHECK_CASE(swapped_neighbours_are_not_taken_for_a_continuation),
    CHECK_CASE(window_mapped_over_part_of_another_leaves_the_rest),
    CHECK_CASE(window_overwritten_in_part_keeps_every_other_byte),
    CHECK_CASE(overwriting_whole_pages_fetches_nothing),
    CHECK_CASE(dropped_pages_stay_guarded_and_are_mapped_again_without_a_system_call),
    CHECK_CASE(dropped_pages_are_opened_at_once_where_that_is_asked_for),
    CHECK_CASE(stale_pages_are_opened_without_a_fetch_before_the_kernel_sees_them),
    CHECK_CASE(fault_chunk_bounds_what_one_touch_fetches),
    CHECK_CASE(touch_of_ordinary_memory_is_not_ours),
    CHECK_CASE(more_runs_than_a_round_holds_are_all_fetched),
    CHECK_CASE(lost_payload_gives_an_error_and_no_bytes),
    CHECK_CASE(good_windows_beside_a_lost_one_are_still_to_be_had),
    CHECK_CASE(window_that_cannot_be_guarded_changes_nothing),
    CHECK_CASE(range_that_is_guarded_only_in_part_is_opened_again),
    CHECK_CASE(number_of_windows_is_bounded),
    CHECK_CASE(lack_of_memory_while_fetching_for_threads_loses_nothing),
    CHECK_CASE(lack_of_mappings_while_opening_loses_nothing),
    CHECK_CASE(memory_that_is_guarded_again_gets_a_mapping_of_its_own),
    CHECK_CASE(number_of_mappings_set_apart_is_bounded),
    CHECK_CASE(no_guarded_page_is_left_when_all_are_gone),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    faults_install();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
