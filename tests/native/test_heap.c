/* Memory that changes hands while windows lie on it: the malloc family, mappings, and the kernel in between (I6). */
#include "check.h"
#include "core/fault.h"
#include "core/heap.h"
#include "core/transfer.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define P ((size_t)ODB_PAGE)

static uint8_t *window(uint32_t seed, size_t length) {
    struct odb_span span = world_payload(seed, length);
    uint8_t *pages = world_pages(length);
    REQUIRE(odb_windows_map(&world.windows, pages, length, &span) == 0);
    return pages;
}

static uint64_t fetches(void) {
    return world_count(ODB_STAT_fetches);
}

/* Does a call that nobody intercepts work on it? */
static bool kernel_can_write(void *memory, size_t length) {
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    REQUIRE(zero >= 0);
    ssize_t got = syscall(SYS_read, zero, memory, length);
    close(zero);
    return got == (ssize_t)length;
}

static void freed_windows_are_dropped_without_a_fetch(void) {
    uint64_t before = fetches();
    for (size_t pages = 1; pages < 600; pages = pages * 3 + 1) odb_free(&world, window(1, pages * P));
    CHECK_EQ(fetches(), before);
    CHECK_EQ(world.windows.live, 0);
}

static void every_way_of_getting_memory_gives_memory_that_the_kernel_may_write(void) {
    for (int way = 0; way < 4; way++)
        for (size_t pages = 1; pages < 40; pages += 5) {
            odb_free(&world, window(2, pages * P)); /* leaves guards on the pages that are handed out next */
            void *block = way == 0   ? odb_malloc(&world, pages * P)
                          : way == 1 ? odb_calloc(&world, pages, P)
                          : way == 2 ? odb_aligned(&world, 4 * P, pages * P)
                                     : odb_realloc(&world, odb_malloc(&world, 1), pages * P);
            REQUIRE(block != NULL);
            CHECK(kernel_can_write(block, pages * P));
            odb_free(&world, block);
        }
}

static void block_grown_in_place_is_ordinary_behind_its_old_end(void) {
    uint8_t *block = odb_malloc(&world, 2 * P), *behind = window(3, 6 * P);
    odb_free(&world, behind);
    block = odb_realloc(&world, block, 8 * P);
    REQUIRE(block != NULL);
    CHECK(kernel_can_write(block, 8 * P));
    odb_free(&world, block);
}

static void calloc_gives_zeros_where_windows_were(void) {
    static const uint8_t zeros[16 * 4096];
    for (int i = 0; i < 10; i++) {
        uint8_t *old = window(4, 16 * P);
        old[17] = 1;
        odb_free(&world, old);
        uint8_t *block = odb_calloc(&world, 16, P);
        CHECK_MEM_EQ(block, zeros, 16 * P);
        odb_free(&world, block);
    }
}

static void realloc_keeps_the_content_of_a_window_at_every_size(void) {
    static const size_t sizes[] = {1, 100, 4095, 4096, 4097, 8192, 12288, 16384, 16385, 40000, 400000, 2000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int round = 0; round < 2; round++) {
            uint8_t *block = window(5, 4 * P);
            if (round == 1) CHECK_EQ(*(volatile uint8_t *)(block + P), fixture_byte(5, P));
            block = odb_realloc(&world, block, sizes[i]);
            REQUIRE(block != NULL);
            CHECK(world_same(block, sizes[i] < 4 * P ? sizes[i] : 4 * P, 5, 0));
            odb_free(&world, block);
        }
    CHECK_EQ(world.windows.live, 0);
}

static void realloc_that_shrinks_in_place_fetches_nothing(void) {
    uint8_t *block = window(6, 8 * P);
    uint64_t before = fetches();
    CHECK_EQ(odb_realloc(&world, block, 3 * P), block);
    CHECK_EQ(fetches(), before);
    CHECK(world_same(block, 3 * P, 6, 0));
    CHECK(odb_realloc(&world, block, 0) == NULL);
    block = odb_realloc(&world, NULL, 5 * P);
    CHECK_EQ(odb_usable_size(&world, block), 5 * P);
    odb_free(&world, block);
    odb_free(&world, NULL);
}

static void mapping_over_a_window_forgets_it(void) {
    uint8_t *area = odb_real.mmap(NULL, 8 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct odb_span span = world_payload(7, 8 * P);
    uint64_t before = fetches();
    REQUIRE(area != MAP_FAILED && odb_windows_map(&world.windows, area, 8 * P, &span) == 0);
    CHECK_EQ(odb_mmap(&world, area, 2 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
             area);
    CHECK(kernel_can_write(area, 2 * P));
    CHECK_EQ(odb_madvise(&world, area + 2 * P, 2 * P, MADV_DONTNEED), 0);
    CHECK_EQ(area[2 * P], 0);
    CHECK_EQ(fetches(), before);
    CHECK(world_same(area + 4 * P, 4 * P, 7, 4 * P));
    CHECK_EQ(odb_munmap(&world, area, 8 * P), 0);
    CHECK(!odb_windows_touch(&world.windows, area, 8 * P));
}

static void advice_that_keeps_content_keeps_windows(void) {
    uint8_t *pages = window(8, 4 * P);
    CHECK_EQ(odb_madvise(&world, pages, 4 * P, MADV_WILLNEED), 0);
    CHECK(odb_windows_touch(&world.windows, pages, 4 * P));
    CHECK(world_same(pages, 4 * P, 8, 0));
    odb_free(&world, pages);
}

static void moved_mapping_takes_its_content_along(void) {
    uint8_t *area = odb_real.mmap(NULL, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct odb_span span = world_payload(9, 4 * P);
    REQUIRE(area != MAP_FAILED && odb_windows_map(&world.windows, area, 4 * P, &span) == 0);
    uint8_t *moved = odb_mremap(&world, area, 4 * P, 64 * P, MREMAP_MAYMOVE, NULL);
    REQUIRE(moved != MAP_FAILED);
    CHECK(!odb_windows_touch(&world.windows, moved, 64 * P));
    CHECK(fixture_same(moved, 4 * P, 9, 0));
    CHECK_EQ(odb_munmap(&world, moved, 64 * P), 0);
}

static void protection_chosen_by_the_application_stays(void) {
    uint8_t *area = odb_real.mmap(NULL, 4 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct odb_span span = world_payload(10, 4 * P);
    REQUIRE(area != MAP_FAILED && odb_windows_map(&world.windows, area, 4 * P, &span) == 0);
    CHECK_EQ(odb_mprotect(&world, area, 2 * P, PROT_READ), 0);
    CHECK(fixture_same(area, 2 * P, 10, 0));
    CHECK(!kernel_can_write(area, 1));
    CHECK(world_same(area + 2 * P, 2 * P, 10, 2 * P));
    CHECK_EQ(odb_munmap(&world, area, 4 * P), 0);
}

/* I6: files. A guarded buffer would make write(2) return a silent short count. */
static void window_written_to_a_file_is_written_whole(void) {
    int file = memfd_create("out", MFD_CLOEXEC);
    uint8_t *pages = window(11, 4 * P);
    struct iovec iov = {pages + 10, 3 * P};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    static uint8_t back[3 * 4096];
    CHECK_EQ(odb_send(&world, file, &message, 0, ODB_FILE_CALL), 3 * P);
    CHECK_EQ(pread(file, back, sizeof back, 0), 3 * P);
    CHECK(fixture_same(back, sizeof back, 11, 10));
    odb_free(&world, pages);
    pages = window(11, 4 * P);
    iov.iov_base = pages + 10;
    CHECK_EQ(odb_pwritev(&world, file, &iov, 1, 5), 3 * P);
    CHECK_EQ(pread(file, back, sizeof back, 5), 3 * P);
    CHECK(fixture_same(back, sizeof back, 11, 10));
    odb_free(&world, pages);
    close(file);
}

static void file_read_into_a_window_leaves_the_bytes_beside_it(void) {
    int file = fixture_file(100, 12);
    uint8_t *pages = window(13, 3 * P);
    struct iovec iov = {pages + P + 50, P};
    CHECK_EQ(odb_preadv(&world, file, &iov, 1, 0), 100);
    CHECK(fixture_same(pages + P + 50, 100, 12, 0));
    CHECK(world_same(pages, P + 50, 13, 0));
    CHECK(world_same(pages + P + 150, 2 * P - 150, 13, P + 150));
    odb_free(&world, pages);
    close(file);
}

static void lost_window_written_to_a_file_is_an_error_and_writes_nothing(void) {
    int file = memfd_create("out", MFD_CLOEXEC);
    struct odb_span lost = world_unknown(2 * P);
    uint8_t *pages = world_pages(2 * P);
    REQUIRE(odb_windows_map(&world.windows, pages, 2 * P, &lost) == 0);
    struct iovec iov = {pages, 2 * P};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    CHECK(odb_send(&world, file, &message, 0, ODB_FILE_CALL) == -1 && errno == EIO);
    CHECK(odb_pwritev(&world, file, &iov, 1, 0) == -1 && errno == EIO);
    CHECK_EQ(lseek(file, 0, SEEK_END), 0);
    odb_free(&world, pages);
    close(file);
}

static void window_sent_to_a_classic_socket_arrives_as_bytes(void) {
    int ends[2];
    static uint8_t back[2 * 4096];
    uint8_t *pages = window(14, 2 * P);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    CHECK_EQ(world_send(ends[0], pages, 2 * P, 0), 2 * P);
    CHECK_EQ(recv(ends[1], back, sizeof back, MSG_WAITALL), 2 * P);
    CHECK(fixture_same(back, sizeof back, 14, 0));
    odb_free(&world, pages);
    close(ends[0]);
    close(ends[1]);
}

static void heap_without_arena_is_libcs(void) {
    struct odb_arena *arena = world.arena;
    world.arena = NULL;
    for (size_t size = 1; size < 1000000; size = size * 7 + 3) {
        struct odb_span span = world_payload(15, 4 * P);
        uint8_t *block = odb_malloc(&world, size + 8 * P), *page = (uint8_t *)odb_page_up((uintptr_t)block);
        REQUIRE(odb_windows_map(&world.windows, page, 4 * P, &span) == 0);
        size_t at = (size_t)(page - block);
        block = odb_realloc(&world, block, 2 * size + 16 * P);
        CHECK(fixture_same(block + at, 4 * P, 15, 0));
        page = (uint8_t *)odb_page_up((uintptr_t)block);
        REQUIRE(odb_windows_map(&world.windows, page, 4 * P, &span) == 0);
        odb_free(&world, block);
    }
    CHECK_EQ(world.windows.live, 0);
    world.arena = arena;
}

static const struct check_case cases[] = {
    CHECK_CASE(freed_windows_are_dropped_without_a_fetch),
    CHECK_CASE(every_way_of_getting_memory_gives_memory_that_the_kernel_may_write),
    CHECK_CASE(block_grown_in_place_is_ordinary_behind_its_old_end),
    CHECK_CASE(calloc_gives_zeros_where_windows_were),
    CHECK_CASE(realloc_keeps_the_content_of_a_window_at_every_size),
    CHECK_CASE(realloc_that_shrinks_in_place_fetches_nothing),
    CHECK_CASE(mapping_over_a_window_forgets_it),
    CHECK_CASE(advice_that_keeps_content_keeps_windows),
    CHECK_CASE(moved_mapping_takes_its_content_along),
    CHECK_CASE(protection_chosen_by_the_application_stays),
    CHECK_CASE(window_written_to_a_file_is_written_whole),
    CHECK_CASE(file_read_into_a_window_leaves_the_bytes_beside_it),
    CHECK_CASE(lost_window_written_to_a_file_is_an_error_and_writes_nothing),
    CHECK_CASE(window_sent_to_a_classic_socket_arrives_as_bytes),
    CHECK_CASE(heap_without_arena_is_libcs),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
