/* odb_arena where the system says no (refusals come from functions put into odb_real), and across fork. */
#include "check.h"
#include "core/arena.h"
#include "os/real.h"

#include <errno.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/wait.h>
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

static int refuse_madvise(void *start, size_t length, int advice) {
    (void)start, (void)length, (void)advice;
    errno = EINVAL;
    return -1;
}

static void nothing_counts_as_zero_once_the_system_kept_memory(void) {
    struct odb_arena *arena = make(MIB(64));
    char *big = odb_arena_alloc(arena, MIB(2), 0);
    memset(big, 1, MIB(2));
    odb_real.madvise = refuse_madvise; /* as it is for locked memory */
    errno = EDOM;
    CHECK(odb_arena_free(arena, big));
    CHECK_EQ(errno, EDOM);
    CHECK(odb_real_load());
    bool is_zero = true;
    CHECK_EQ(odb_arena_alloc_zeroed(arena, MIB(2), 0, &is_zero), big);
    CHECK(!is_zero);
}

static size_t map_limit;
static void *(*true_mmap)(void *, size_t, int, int, int, off_t);

static size_t unmapped;

static int count_munmap(void *start, size_t length) {
    unmapped += length;
    return munmap(start, length);
}

static void *limited_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    if (length > map_limit) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return true_mmap(address, length, protection, flags, fd, offset);
}

static void scarce_address_space_gives_a_smaller_arena_or_none(void) {
    REQUIRE(odb_real_load());
    true_mmap = odb_real.mmap;
    odb_real.mmap = limited_mmap;
    odb_real.munmap = count_munmap;
    errno = EDOM;
    map_limit = (size_t)20 << 30;
    struct odb_arena *arena = odb_arena_create((size_t)64 << 30);
    REQUIRE(arena != NULL);
    CHECK_EQ(odb_arena_report(arena).reserved, (size_t)8 << 30); /* at most half of what there is ... */
    CHECK_EQ(unmapped, (size_t)8 << 30);                         /* ... and the other half is left alone */
    char *block = odb_arena_alloc(arena, MIB(100), 0);
    block[MIB(100) - 1] = 1;
    map_limit = ODB_ARENA_RESERVE_MIN;
    CHECK(odb_arena_create((size_t)64 << 30) == NULL);
    CHECK_EQ(errno, EDOM);
    CHECK(odb_real_load());
    arena = odb_arena_create(SIZE_MAX);
    REQUIRE(arena != NULL);
    CHECK_EQ(odb_arena_report(arena).reserved, ODB_ARENA_RESERVE_MAX / 4096 * page_size());
    CHECK(odb_arena_is_valid(arena));
}

static int refuse_mprotect(void *start, size_t length, int protection) {
    (void)start, (void)length, (void)protection;
    errno = ENOMEM;
    return -1;
}

static void refused_memory_is_no_room(void) {
    struct odb_arena *arena = make(MIB(512));
    odb_real.mprotect = refuse_mprotect;
    errno = EDOM;
    CHECK(odb_arena_alloc(arena, MIB(256), 0) == NULL);
    char *block = odb_arena_alloc(arena, KIB(4), 0);
    CHECK(block != NULL); /* committed already */
    CHECK(!odb_arena_resize(arena, block, MIB(256)));
    CHECK_EQ(errno, EDOM);
    CHECK(odb_real_load());
    CHECK(odb_arena_is_valid(arena));
    CHECK(odb_arena_resize(arena, block, MIB(256)));
    block[MIB(256) - 1] = 1;
}

/* ---- fork ---- */

struct held {
    struct odb_arena *arena;
    char *block;
    sem_t inside, go_on;
};

static void hold_release(void *context, void *start, size_t length) {
    (void)start, (void)length;
    struct held *held = context;
    sem_post(&held->inside);
    while (sem_wait(&held->go_on) != 0) {
    }
}

static void *free_held(void *argument) {
    struct held *held = argument;
    CHECK(odb_arena_free(held->arena, held->block));
    return NULL;
}

static int in_child(struct held *held, const char *kept) {
    odb_arena_after_fork_child(held->arena);
    if (!odb_arena_is_valid(held->arena)) return 2;
    if (odb_arena_report(held->arena).cached_bytes != MIB(5)) return 3; /* the range whose thread is gone */
    if (kept[0] != 'k' || odb_arena_usable(held->arena, kept) != KIB(64)) return 4;
    odb_arena_set_release(held->arena, NULL, NULL);
    odb_arena_set_cache_limit(held->arena, 0);
    if (!odb_arena_free(held->arena, (char *)(uintptr_t)kept)) return 5;
    if (odb_arena_report(held->arena).cached_bytes != 0) return 6;
    if (odb_arena_alloc(held->arena, MIB(60), 0) == NULL) return 7;
    return odb_arena_is_valid(held->arena) ? 0 : 8;
}

static void a_child_has_a_consistent_copy_though_a_release_was_under_way(void) {
    struct held held = {.arena = make(MIB(64))};
    REQUIRE(sem_init(&held.inside, 0, 0) == 0 && sem_init(&held.go_on, 0, 0) == 0);
    char *kept = odb_arena_alloc(held.arena, KIB(64), 0);
    kept[0] = 'k';
    held.block = odb_arena_alloc(held.arena, MIB(5), 0);
    odb_arena_set_release(held.arena, hold_release, &held);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, free_held, &held) == 0);
    while (sem_wait(&held.inside) != 0) {
    }
    odb_arena_before_fork(held.arena);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) _exit(in_child(&held, kept));
    odb_arena_after_fork_parent(held.arena);
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    sem_post(&held.go_on);
    pthread_join(thread, NULL);
    CHECK_EQ(odb_arena_report(held.arena).live_bytes, KIB(64));
    CHECK(odb_arena_is_valid(held.arena));
}

static const struct check_case cases[] = {
    CHECK_CASE(nothing_counts_as_zero_once_the_system_kept_memory),
    CHECK_CASE(scarce_address_space_gives_a_smaller_arena_or_none),
    CHECK_CASE(refused_memory_is_no_room),
    CHECK_CASE(a_child_has_a_consistent_copy_though_a_release_was_under_way),
};
CHECK_MAIN(cases)
