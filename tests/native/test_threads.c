/* Several threads at once: on one window, on one connection, on fork. Runs under ThreadSanitizer too. */
#include "check.h"
#include "core/fault.h"
#include "core/heap.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "core/waiting.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>

#define P ((size_t)ODB_PAGE)

enum { THREADS = 4 };

struct crew {
    pthread_t thread[THREADS];
    pthread_barrier_t barrier;
};

static void crew_run(struct crew *crew, void *(*work)(void *)) {
    REQUIRE(pthread_barrier_init(&crew->barrier, NULL, THREADS) == 0);
    for (int i = 0; i < THREADS; i++) REQUIRE(pthread_create(&crew->thread[i], NULL, work, crew) == 0);
    for (int i = 0; i < THREADS; i++) REQUIRE(pthread_join(crew->thread[i], NULL) == 0);
    pthread_barrier_destroy(&crew->barrier);
}

enum { ROUNDS = 300, SHARED = 4 };

static uint8_t *shared;
static struct odb_span shared_span;

/* Each thread reads from a place of its own: whoever gets through must see the content, never a page that is open and still empty. */
static void *read_shared(void *context) {
    struct crew *crew = context;
    for (int round = 0; round < ROUNDS; round++) {
        if (pthread_barrier_wait(&crew->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
            memset(shared, 0, SHARED * P);
            CHECK_EQ(odb_windows_map(&world.windows, shared, SHARED * P, &shared_span), 0);
        }
        pthread_barrier_wait(&crew->barrier);
        for (size_t at = (size_t)round % 64; at < SHARED * P; at += 509)
            if (!CHECK_EQ(*(volatile uint8_t *)(shared + at), fixture_byte(1, at))) break;
        pthread_barrier_wait(&crew->barrier);
    }
    return NULL;
}

static void window_touched_by_several_threads_appears_in_one_step(void) {
    struct crew crew;
    shared_span = world_payload(1, SHARED * P);
    shared = world_pages(SHARED * P);
    uint64_t bytes = world_count(ODB_STAT_fetch_bytes);
    crew_run(&crew, read_shared);
    CHECK_EQ(world_count(ODB_STAT_fetch_bytes) - bytes, ROUNDS * SHARED * P);
    odb_free(&world, shared);
}

/* The one guarded page of the process becomes plain while others are on their way into the handler: no crash of theirs. */
static void *read_last(void *context) {
    struct crew *crew = context;
    for (int round = 0; round < 4 * ROUNDS; round++) {
        if (pthread_barrier_wait(&crew->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
            struct odb_span page = odb_span_part(&shared_span, 0, P);
            CHECK_EQ(odb_windows_map(&world.windows, shared, P, &page), 0);
        }
        pthread_barrier_wait(&crew->barrier);
        CHECK_EQ(*(volatile uint8_t *)shared, fixture_byte(1, 0));
    }
    return NULL;
}

static void last_guarded_page_opened_by_another_thread_is_no_crash(void) {
    struct crew crew;
    shared_span = world_payload(1, P);
    shared = world_pages(P);
    CHECK(!odb_windows_any(&world.windows));
    crew_run(&crew, read_last);
    odb_free(&world, shared);
}

enum { LINES = 2000 };

struct line {
    uint32_t thread;
    uint32_t number;
    uint8_t rest[56];
};

static int client, server;
static _Atomic uint32_t next_thread;

static void *write_lines(void *context) {
    (void)context;
    struct line line = {.thread = atomic_fetch_add(&next_thread, 1)};
    for (uint32_t i = 0; i < LINES; i++) {
        line.number = i;
        CHECK_EQ(world_send(client, &line, sizeof line, MSG_NOSIGNAL), sizeof line);
    }
    return NULL;
}

static void *read_lines(void *context) {
    (void)context;
    uint32_t expected[THREADS] = {0};
    for (size_t i = 0; i < (size_t)THREADS * LINES; i++) {
        struct line line;
        world_recv_all(server, &line, sizeof line, sizeof line);
        REQUIRE(line.thread < THREADS);
        CHECK_EQ(line.number, expected[line.thread]++);
    }
    return NULL;
}

/* I1: writes of several threads to one connection stay whole and in order. */
static void small_writes_of_several_threads_do_not_mix(void) {
    struct crew crew;
    pthread_t reader;
    atomic_store(&next_thread, 0);
    world_connect(&client, &server);
    REQUIRE(pthread_create(&reader, NULL, read_lines, NULL) == 0);
    crew_run(&crew, write_lines);
    REQUIRE(pthread_join(reader, NULL) == 0);
    world_close(client);
    world_close(server);
}

static _Atomic bool stop;

/* Windows come and go in blocks that only this thread uses, beside the others'. */
static void *use_windows(void *context) {
    struct crew *crew = context;
    pthread_barrier_wait(&crew->barrier);
    for (int i = 0; i < 300; i++) {
        struct odb_span part = odb_span_part(&shared_span, (uint64_t)(i % 3) * P, (1 + (uint64_t)i % 4) * P);
        uint8_t *pages = world_pages(part.length);
        CHECK_EQ(odb_windows_map(&world.windows, pages, part.length, &part), 0);
        if (i % 3 == 0) CHECK_EQ(pages[i], fixture_byte(2, part.offset + (unsigned)i));
        if (i % 3 == 1) CHECK(world_same(pages, part.length, 2, part.offset));
        odb_free(&world, pages);
    }
    return NULL;
}

static void windows_of_several_threads_do_not_disturb_each_other(void) {
    struct crew crew;
    shared_span = world_payload(2, 8 * P);
    crew_run(&crew, use_windows);
    CHECK_EQ(world.windows.live, 0);
}

static void *churn_streams(void *context) {
    struct crew *crew = context;
    char bytes[16];
    pthread_barrier_wait(&crew->barrier);
    for (int i = 0; i < 100; i++) {
        int near, far;
        world_connect(&near, &far);
        CHECK_EQ(world_send(near, "sixteen letters", 16, 0), 16);
        CHECK_EQ(world_recv(far, bytes, sizeof bytes, MSG_WAITALL), 16);
        CHECK_MEM_EQ(bytes, "sixteen letters", 16);
        world_close(near);
        world_close(far);
    }
    return NULL;
}

static void descriptors_reused_by_several_threads_never_meet_old_streams(void) {
    struct crew crew;
    crew_run(&crew, churn_streams);
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
}

static void *fetch_for_ever(void *context) {
    (void)context;
    uint8_t *pages = world_pages(4 * P);
    for (int i = 0; !atomic_load(&stop); i++) {
        CHECK_EQ(odb_windows_map(&world.windows, pages, 4 * P, &shared_span), 0);
        struct iovec iov = {pages, 4 * P};
        CHECK_EQ(odb_windows_materialise(&world.windows, &iov, 1), 0);
    }
    odb_free(&world, pages);
    return NULL;
}

/* I11, I8: the fetches that fork waits for are answered by this very process. */
static void fork_beside_fetching_threads_neither_hangs_nor_loses_bytes(void) {
    enum { FORKS = 20 };
    pthread_t fetcher;
    shared_span = world_payload(3, 4 * P);
    uint64_t failures = world_count(ODB_STAT_fetch_failures);
    atomic_store(&stop, false);
    REQUIRE(pthread_create(&fetcher, NULL, fetch_for_ever, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        int status = 0;
        odb_runtime_before_fork(&world);
        pid_t child = fork();
        if (child == 0) {
            odb_runtime_after_fork_child(&world);
            _exit(atomic_load(&world.windows.fetching) == 0 ? 0 : 1);
        }
        odb_runtime_after_fork_parent(&world);
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    atomic_store(&stop, true);
    REQUIRE(pthread_join(fetcher, NULL) == 0);
    CHECK_EQ(world_count(ODB_STAT_fetch_failures), failures);
}

static int set;
static _Atomic int woken, sleeper_id;

static void *wait_in_set(void *context) {
    struct epoll_event event;
    (void)context;
    atomic_store(&sleeper_id, gettid());
    atomic_store(&woken, world_wait(set, &event, 1, 5000));
    return NULL;
}

/* Until the kernel says so. */
static void wait_until_asleep(int thread) {
    char path[64], state = 'R';
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    while (state != 'S') {
        FILE *file = fopen(path, "re");
        REQUIRE(file != NULL && fscanf(file, "%*d %*s %c", &state) == 1);
        fclose(file);
        sched_yield();
    }
}

/* I4: one thread sleeps in epoll_wait, another has read a part and arms, or adds, the descriptor again: the rest is owed to the sleeper. */
static void sleeper_learns_of_bytes_that_another_thread_has_left(void) {
    for (int way = 0; way < 3; way++) {
        pthread_t sleeper;
        char bytes[8];
        struct pollfd arrived;
        struct timespec patience = {5, 0};
        set = world_set_made();
        world_connect(&client, &server);
        world_nonblocking(server);
        if (way > 0) world_epoll(set, EPOLL_CTL_ADD, server, EPOLLIN | EPOLLONESHOT);
        world_send_all(client, "0123456789", 10);
        arrived = (struct pollfd){.fd = server, .events = POLLIN};
        REQUIRE(odb_poll(&world, &arrived, 1, &patience, NULL) == 1);
        CHECK_EQ(world_recv(server, bytes, 4, 0), 4);
        struct epoll_event event;
        if (way > 0) REQUIRE(world_wait(set, &event, 1, -1) == 1);
        if (way == 2) world_epoll(set, EPOLL_CTL_DEL, server, 0);
        atomic_store(&sleeper_id, 0);
        REQUIRE(pthread_create(&sleeper, NULL, wait_in_set, NULL) == 0);
        while (atomic_load(&sleeper_id) == 0) sched_yield();
        wait_until_asleep(atomic_load(&sleeper_id));
        world_epoll(set, way == 1 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, server, EPOLLIN | EPOLLONESHOT);
        REQUIRE(pthread_join(sleeper, NULL) == 0);
        CHECK_EQ(atomic_load(&woken), 1);
        CHECK_EQ(world_recv(server, bytes, 8, 0), 6);
        world_close(set);
        world_close(client);
        world_close(server);
    }
}

static const struct check_case cases[] = {
    CHECK_CASE(window_touched_by_several_threads_appears_in_one_step),
    CHECK_CASE(last_guarded_page_opened_by_another_thread_is_no_crash),
    CHECK_CASE(small_writes_of_several_threads_do_not_mix),
    CHECK_CASE(windows_of_several_threads_do_not_disturb_each_other),
    CHECK_CASE(descriptors_reused_by_several_threads_never_meet_old_streams),
    CHECK_CASE(fork_beside_fetching_threads_neither_hangs_nor_loses_bytes),
    CHECK_CASE(sleeper_learns_of_bytes_that_another_thread_has_left),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    atomic_store(&world.windows.threads, true);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
