/* odb_arena against a simple model: random operations of one thread, then of several at once. */
#include "check.h"
#include "core/arena.h"
#include "os/real.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOTS = 400, STEPS = 30000, THREADS = 4, THREAD_STEPS = 2000, SHARED = 32, FORKS = 20 };

struct slot {
    char *block;
    size_t size;
    uint64_t stamp;
};

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t random_size(uint64_t *state) {
    uint64_t kind = next_random(state) % 16;
    size_t most = kind < 10 ? 65536 : kind < 15 ? 600000 : 3000000;
    return (size_t)(next_random(state) % most);
}

/* Writes the stamp to the start of every page: cheap, and no overlap of blocks goes unseen. */
static void stamp(const struct slot *slot) {
    for (size_t at = 0; at + sizeof(uint64_t) <= slot->size; at += 4096)
        memcpy(slot->block + at, &slot->stamp, sizeof(uint64_t));
}

static bool is_stamped(const struct slot *slot, size_t size) {
    for (size_t at = 0; at + sizeof(uint64_t) <= size; at += 4096) {
        uint64_t found;
        memcpy(&found, slot->block + at, sizeof found);
        if (found != slot->stamp) return false;
    }
    return true;
}

static bool is_zero_memory(const char *p, size_t n) {
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static void open_range(void *context, void *start, size_t length) {
    (void)context;
    CHECK_EQ(mprotect(start, length, PROT_READ | PROT_WRITE), 0);
}

static void fill_slot(struct odb_arena *arena, struct slot *slot, uint64_t *random) {
    size_t size = random_size(random);
    size_t alignment = next_random(random) % 8 == 0 ? (size_t)4096 << next_random(random) % 8 : 0;
    bool is_zero;
    slot->block = odb_arena_alloc_zeroed(arena, size, alignment, &is_zero);
    if (slot->block == NULL) return;
    slot->size = size;
    slot->stamp = next_random(random);
    CHECK(alignment == 0 || (uintptr_t)slot->block % alignment == 0);
    CHECK(!is_zero || is_zero_memory(slot->block, size));
    stamp(slot);
}

static void resize_slot(struct odb_arena *arena, struct slot *slot, uint64_t *random) {
    size_t size = next_random(random) % 2 == 0 ? slot->size / 2 : slot->size + random_size(random) / 4;
    size_t before = odb_arena_usable(arena, slot->block);
    bool done = odb_arena_resize(arena, slot->block, size);
    CHECK(done || size > before);
    CHECK(is_stamped(slot, size < slot->size ? size : slot->size));
    if (!done) return;
    CHECK(odb_arena_usable(arena, slot->block) >= size);
    slot->size = size;
    stamp(slot);
}

static void empty_slot(struct odb_arena *arena, struct slot *slot) {
    CHECK(is_stamped(slot, slot->size));
    CHECK(odb_arena_free(arena, slot->block));
    slot->block = NULL;
}

static void find_slot(struct odb_arena *arena, const struct slot *slot, uint64_t *random) {
    void *start = NULL;
    size_t size = 0;
    size_t offset = slot->size > 0 ? (size_t)(next_random(random) % slot->size) : 0;
    CHECK(odb_arena_find(arena, slot->block + offset, &start, &size));
    CHECK_EQ(start, slot->block);
    CHECK_EQ(size, odb_arena_usable(arena, slot->block));
}

static void step(struct odb_arena *arena, struct slot *slot, uint64_t *random) {
    uint64_t what = next_random(random) % 8;
    if (slot->block == NULL)
        fill_slot(arena, slot, random);
    else if (what == 0)
        resize_slot(arena, slot, random);
    else if (what == 1)
        find_slot(arena, slot, random);
    else
        empty_slot(arena, slot);
}

static void check_report_against(struct odb_arena *arena, const struct slot *slots, size_t count) {
    size_t live = 0;
    size_t blocks = 0;
    for (size_t i = 0; i < count; i++) {
        if (slots[i].block == NULL) continue;
        size_t usable = odb_arena_usable(arena, slots[i].block);
        CHECK(usable >= slots[i].size);
        CHECK(usable <= slots[i].size + slots[i].size / 7 + 8192);
        live += usable;
        blocks++;
    }
    struct odb_arena_report report = odb_arena_report(arena);
    CHECK_EQ(report.live_bytes, live);
    CHECK_EQ(report.blocks, blocks);
}

/* In 64 MiB, where 400 slots do not fit: being full, merging and making room all happen. */
static void random_operations_agree_with_the_model(void) {
    REQUIRE(odb_real_load());
    struct odb_arena *arena = odb_arena_create((size_t)64 << 20);
    REQUIRE(arena != NULL);
    odb_arena_set_release(arena, open_range, NULL);
    odb_arena_set_cache_limit(arena, (size_t)8 << 20);
    static struct slot slots[SLOTS];
    uint64_t random = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < STEPS; i++) {
        step(arena, &slots[next_random(&random) % SLOTS], &random);
        if (i % 1000 != 0) continue;
        REQUIRE(odb_arena_is_valid(arena));
        check_report_against(arena, slots, SLOTS);
        CHECK(odb_arena_report(arena).cached_bytes <= (size_t)8 << 20);
    }
    for (size_t i = 0; i < SLOTS; i++)
        if (slots[i].block != NULL) empty_slot(arena, &slots[i]);
    odb_arena_set_cache_limit(arena, 0);
    CHECK(odb_arena_free(arena, odb_arena_alloc(arena, 1, 0)));
    CHECK(odb_arena_is_valid(arena));
    CHECK(odb_arena_alloc(arena, (size_t)64 << 20, 0) != NULL);
}

struct crew {
    struct odb_arena *arena;
    _Atomic(struct slot *) shared[SHARED];
    atomic_int at_work;
};

struct worker {
    struct crew *crew;
    uint64_t random;
    struct slot own[24];
};

/* Hands a block to whichever thread comes by next, which checks and frees it. */
static void exchange(struct worker *worker) {
    struct slot *given = malloc(sizeof *given);
    REQUIRE(given != NULL);
    given->block = NULL;
    fill_slot(worker->crew->arena, given, &worker->random);
    struct slot *taken = atomic_exchange(&worker->crew->shared[next_random(&worker->random) % SHARED], given);
    if (taken == NULL) return;
    if (taken->block != NULL) empty_slot(worker->crew->arena, taken);
    free(taken);
}

static void *work(void *argument) {
    struct worker *worker = argument;
    for (int i = 0; i < THREAD_STEPS; i++) {
        step(worker->crew->arena, &worker->own[next_random(&worker->random) % 24], &worker->random);
        if (i % 4 == 0) exchange(worker);
    }
    for (size_t i = 0; i < 24; i++)
        if (worker->own[i].block != NULL) empty_slot(worker->crew->arena, &worker->own[i]);
    atomic_fetch_sub(&worker->crew->at_work, 1);
    return NULL;
}

static void fork_once(struct odb_arena *arena) {
    odb_arena_before_fork(arena);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        odb_arena_after_fork_child(arena);
        char *block = odb_arena_alloc(arena, 65536, 0);
        _exit(odb_arena_is_valid(arena) && (block == NULL || odb_arena_free(arena, block)) ? 0 : 1);
    }
    odb_arena_after_fork_parent(arena);
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
}

static void threads_and_forks_leave_the_arena_whole(void) {
    REQUIRE(odb_real_load());
    static struct crew crew;
    static struct worker workers[THREADS];
    crew.arena = odb_arena_create((size_t)256 << 20);
    REQUIRE(crew.arena != NULL);
    odb_arena_set_release(crew.arena, open_range, NULL);
    odb_arena_set_cache_limit(crew.arena, (size_t)4 << 20);
    atomic_store(&crew.at_work, THREADS);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        workers[i].crew = &crew;
        workers[i].random = 0x2545f4914f6cdd1du * (i + 1);
        REQUIRE(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    for (int forks = 0; forks < FORKS && atomic_load(&crew.at_work) > 0; forks++) {
        fork_once(crew.arena);
        CHECK(odb_arena_is_valid(crew.arena));
    }
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (size_t i = 0; i < SHARED; i++) {
        struct slot *left = atomic_load(&crew.shared[i]);
        if (left != NULL && left->block != NULL) empty_slot(crew.arena, left);
        free(left);
    }
    CHECK(odb_arena_is_valid(crew.arena));
    CHECK_EQ(odb_arena_report(crew.arena).live_bytes, 0);
}

static const struct check_case cases[] = {
    CHECK_CASE(random_operations_agree_with_the_model),
    CHECK_CASE(threads_and_forks_leave_the_arena_whole),
};
CHECK_MAIN(cases)
