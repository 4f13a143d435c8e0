/* The payload store of an origin: capturing, serving, bounds; threads and forks. */
#include "os/fds.h"
#include "store_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>

static enum odb_capture try_memory(size_t length) {
    static uint8_t bytes[1 << 21];
    struct odb_span span;
    struct iovec iov = {bytes, length};
    return odb_store_capture_memory(store, &iov, 1, length, &span);
}

static void memory_is_served_as_it_was_captured(void) {
    static const size_t sizes[] = {1, 4095, 4096, 4097, 12289, 100003};
    begin();
    struct odb_span spans[6];
    for (uint32_t i = 0; i < 6; i++) {
        spans[i] = capture_memory(sizes[i], i);
        CHECK_EQ(spans[i].offset, 0);
        CHECK_EQ(spans[i].length, sizes[i]);
        CHECK(spans[i].expires_ms >= start + LEASE);
    }
    for (uint32_t i = 0; i < 6; i++) {
        serve(&spans[i], i);
        struct odb_span part = odb_span_part(&spans[i], sizes[i] / 2, sizes[i] - sizes[i] / 2);
        serve(&part, i);
    }
    CHECK_EQ(fixture_count(stats, ODB_STAT_payloads_captured), 6);
    CHECK_EQ(fixture_count(stats, ODB_STAT_payloads_live), 6);
    CHECK_EQ(fixture_count(stats, ODB_STAT_store_bytes_live), 1 + 4095 + 4096 + 4097 + 12289 + 100003);
    end();
}

static void one_file_is_one_payload_while_its_ranges_touch(void) {
    begin();
    int fd = fixture_file(100000, 7);
    struct odb_span first = capture_file(fd, 1000, 9000), next = capture_file(fd, 10000, 5001),
                    overlapping = capture_file(fd, 500, 2000), far = capture_file(fd, 90001, 9999);
    CHECK(odb_span_same_payload(&first, &next));
    CHECK(odb_span_same_payload(&first, &overlapping));
    CHECK(!odb_span_same_payload(&first, &far));
    CHECK_EQ(fixture_count(stats, ODB_STAT_payloads_live), 2);
    CHECK_EQ(fixture_count(stats, ODB_STAT_payload_bytes_captured), 9000 + 5001 + 2000 + 9999);
    close(fd); /* the payload has a descriptor of its own */
    struct odb_span all = {.payload = first.payload, .offset = 500, .length = 14501};
    memcpy(all.token, first.token, sizeof all.token);
    serve(&all, 7);
    serve(&far, 7);
    end();
}

static void a_file_range_stops_at_the_end_of_the_file(void) {
    begin();
    int fd = fixture_file(5000, 1);
    struct odb_span span = capture_file(fd, 4000, 5000), none;
    CHECK_EQ(span.length, 1000);
    serve(&span, 1);
    CHECK_EQ(odb_store_capture_file(store, fd, 5000, 1, &none), ODB_CAPTURE_FAILED);
    CHECK_EQ(odb_store_capture_file(store, fd, UINT64_MAX, UINT64_MAX, &none), ODB_CAPTURE_FAILED);
    CHECK_EQ(odb_store_capture_file(store, fd, 0, 0, &none), ODB_CAPTURE_FAILED);
    close(fd);
    end();
}

static void only_readable_regular_files_are_captured(void) {
    begin();
    int ends[2], directory = open("/", O_RDONLY | O_CLOEXEC), fd = fixture_file(5000, 1);
    char path[64];
    struct odb_span span;
    REQUIRE(pipe(ends) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int writable = open(path, O_WRONLY | O_CLOEXEC), reference = open(path, O_PATH | O_CLOEXEC);
    REQUIRE(directory >= 0 && writable >= 0 && reference >= 0);
    CHECK_EQ(odb_store_capture_file(store, ends[0], 0, 10, &span), ODB_CAPTURE_FAILED);
    CHECK_EQ(odb_store_capture_file(store, directory, 0, 10, &span), ODB_CAPTURE_FAILED);
    CHECK_EQ(odb_store_capture_file(store, -1, 0, 10, &span), ODB_CAPTURE_FAILED);
    capture_file(fd, 0, 10);
    CHECK_EQ(odb_store_capture_file(store, writable, 0, 10, &span), ODB_CAPTURE_FAILED);
    CHECK_EQ(odb_store_capture_file(store, reference, 0, 10, &span), ODB_CAPTURE_FAILED);
    close(ends[0]), close(ends[1]), close(directory), close(writable), close(reference), close(fd);
    end();
}

static void a_changed_file_is_refused_and_captured_anew(void) {
    begin();
    int fd = fixture_file(8192, 3);
    struct odb_span before = capture_file(fd, 0, 8192);
    struct odb_serving serving;
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000, .tv_nsec = 1}};
    REQUIRE(futimens(fd, times) == 0);
    CHECK_EQ(open_span(&before, &serving), ODB_WIRE_CHANGED);
    struct odb_span after = capture_file(fd, 0, 8192);
    CHECK(!odb_span_same_payload(&before, &after));
    serve(&after, 3);
    REQUIRE(ftruncate(fd, 100) == 0 && futimens(fd, times) == 0);
    CHECK_EQ(open_span(&after, &serving), ODB_WIRE_CHANGED);
    close(fd);
    end();
}

static void wrong_tokens_and_foreign_ranges_are_denied(void) {
    begin();
    int fd = fixture_file(20000, 3);
    struct odb_span file = capture_file(fd, 1000, 9000), memory = capture_memory(5000, 4), bad;
    struct odb_serving serving;
    for (size_t i = 0; i < 16; i++) {
        bad = memory;
        bad.token[i] ^= 1;
        CHECK_EQ(open_span(&bad, &serving), ODB_WIRE_DENIED);
    }
    bad = file, bad.offset = 999;
    CHECK_EQ(open_span(&bad, &serving), ODB_WIRE_DENIED);
    bad = file, bad.length = 9001;
    CHECK_EQ(open_span(&bad, &serving), ODB_WIRE_DENIED);
    bad = memory, bad.length = 5001;
    CHECK_EQ(open_span(&bad, &serving), ODB_WIRE_DENIED);
    bad = memory, bad.payload += 12345;
    CHECK_EQ(open_span(&bad, &serving), ODB_WIRE_GONE);
    serve(&memory, 4);
    close(fd);
    end();
}

static void ids_and_tokens_do_not_repeat(void) {
    begin();
    struct odb_span spans[64];
    for (uint32_t i = 0; i < 64; i++) {
        spans[i] = capture_memory(1, i);
        for (uint32_t j = 0; j < i; j++) {
            CHECK(spans[i].payload != spans[j].payload && memcmp(spans[i].token, spans[j].token, 16) != 0);
        }
    }
    end();
}

static void a_full_store_says_so_and_recovers(void) {
    begin();
    struct odb_span spans[16];
    for (uint32_t i = 0; i < 16; i++) {
        spans[i] = capture_memory(1 << 16, i);
    }
    CHECK_EQ(try_memory(1), ODB_CAPTURE_FULL);
    CHECK_EQ(try_memory(1 << 21), ODB_CAPTURE_FULL);
    CHECK_EQ(fixture_count(stats, ODB_STAT_store_bytes_live), 1 << 20);
    for (uint32_t i = 0; i < 16; i++) {
        serve(&spans[i], i);
    }
    odb_store_reap(store, start + LEASE - 1);
    CHECK_EQ(try_memory(1), ODB_CAPTURE_FULL);
    odb_store_reap(store, odb_clock_ms() + LEASE);
    struct odb_span whole = capture_memory(1 << 20, 99); /* all of it in one piece again */
    serve(&whole, 99);
    end();
}

static void the_number_of_payloads_is_bounded(void) {
    begin();
    for (uint32_t i = 0; i < 64; i++) {
        capture_memory(1, i);
    }
    CHECK_EQ(try_memory(1), ODB_CAPTURE_FULL);
    int fd = fixture_file(100, 1);
    struct odb_span span;
    CHECK_EQ(odb_store_capture_file(store, fd, 0, 100, &span), ODB_CAPTURE_FULL);
    close(fd);
    end();
}

static void a_full_store_reclaims_by_itself(void) {
    begin();
    options.lease_ms = 0; /* every lease is over at once */
    struct odb_span span = capture_memory(1 << 20, 1);
    serve(&span, 1);
    span = capture_memory(1 << 20, 2);
    serve(&span, 2);
    end();
}

static void unreadable_memory_is_not_captured_and_costs_nothing(void) {
    begin();
    uint8_t *guarded = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(guarded != MAP_FAILED);
    struct odb_span span;
    struct iovec iov = {guarded, 8192};
    CHECK_EQ(odb_store_capture_memory(store, &iov, 1, 8192, &span), ODB_CAPTURE_FAILED);
    munmap(guarded, 8192);
    CHECK_EQ(fixture_count(stats, ODB_STAT_payloads_live), 0);
    span = capture_memory(1 << 20, 5);
    serve(&span, 5);
    end();
}

static bool trim_one(struct odb_memory_file *file, bool *used) {
    struct odb_memory_run run;
    if (!odb_memory_file_take_dirty(file, &run)) return false;
    memset(used + run.first, 0, run.pages * sizeof *used);
    odb_memory_file_give_clean(file, run);
    return true;
}

/* Random takes, gives and trims against a map of who owns each page, and of which pages may still be in some socket's queue. */
static void runs_of_pages_never_overlap_and_coalesce_again(void) {
    enum { PAGES = 512, RUNS = 200 };
    static struct odb_memory_file file;
    static uint32_t owner[PAGES];
    static bool used[PAGES];
    struct odb_memory_run runs[RUNS] = {{0, 0}}, run;
    uint64_t random = 42;
    REQUIRE(odb_real_load() && odb_memory_file_open(&file, PAGES * ODB_MEMORY_PAGE));
    for (int step = 0; step < 20000; step++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        struct odb_memory_run *slot = &runs[(random >> 33) % RUNS];
        if (slot->pages > 0) {
            for (uint32_t page = slot->first; page < slot->first + slot->pages; page++) {
                REQUIRE(owner[page] == (uint32_t)(slot - runs) + 1);
                owner[page] = 0;
                used[page] = true;
            }
            odb_memory_file_give(&file, *slot);
            slot->pages = 0;
        } else if (odb_memory_file_take(&file, 1 + (uint32_t)(random >> 50) % 24, slot)) {
            REQUIRE(slot->first + slot->pages <= PAGES);
            for (uint32_t page = slot->first; page < slot->first + slot->pages; page++) {
                REQUIRE(owner[page] == 0 && !used[page]);
                owner[page] = (uint32_t)(slot - runs) + 1;
            }
        }
        if (step % 7 == 0) {
            trim_one(&file, used);
        }
    }
    for (int i = 0; i < RUNS; i++) {
        if (runs[i].pages > 0) {
            odb_memory_file_give(&file, runs[i]);
        }
    }
    CHECK(!odb_memory_file_take(&file, 1, &run));
    while (trim_one(&file, used)) {
    }
    CHECK(odb_memory_file_take(&file, PAGES, &run));
    CHECK(!odb_memory_file_take(&file, 1, &runs[0]));
    odb_memory_file_close(&file);
}

static void *capture_serve_and_reap(void *argument) {
    uint32_t seed = *(uint32_t *)argument;
    uint8_t bytes[20000], back[20000];
    int fd = fixture_file(0, seed);
    fixture_fill(bytes, sizeof bytes, seed, 0);
    REQUIRE(pwrite(fd, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes);
    for (int i = 0; i < 200; i++) {
        struct odb_span span;
        struct odb_serving serving;
        size_t length = 1 + (size_t)i * 99;
        struct iovec iov = {bytes, length};
        enum odb_capture captured = i % 3 == 0 ? odb_store_capture_file(store, fd, (uint64_t)i, length / 3 + 1, &span)
                                               : odb_store_capture_memory(store, &iov, 1, length, &span);
        if (captured == ODB_CAPTURED && open_span(&span, &serving) == 0) {
            CHECK_EQ(pread(serving.fd, back, span.length, (off_t)serving.offset), (ssize_t)span.length);
            CHECK(fixture_same(back, span.length, seed, span.offset));
            odb_store_close_serving(store, &serving, span.length);
        }
        if (i % 5 == 0) {
            odb_store_reap(store, odb_clock_ms() + LEASE);
        }
    }
    close(fd);
    return NULL;
}

static void threads_may_capture_serve_and_reap_at_once(void) {
    begin();
    pthread_t threads[4];
    uint32_t seeds[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, capture_serve_and_reap, &seeds[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    end();
}

static void a_forked_child_starts_empty_and_its_parent_goes_on(void) {
    begin();
    int fd = fixture_file(5000, 2);
    struct odb_span memory = capture_memory(5000, 1), file = capture_file(fd, 0, 5000);
    struct odb_serving serving;
    REQUIRE(open_span(&file, &serving) == 0);
    odb_store_close_serving(store, &serving, 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int memory_fd = store->memory.fd;
        atomic_store(&check_failures, 0);
        stats = fixture_stats_begin(&counters);
        odb_store_after_fork_child(store);
        CHECK(!odb_fds_is_internal(serving.fd) && fcntl(serving.fd, F_GETFD) == -1);
        CHECK(!odb_fds_is_internal(memory_fd) && fcntl(memory_fd, F_GETFD) == -1);
        CHECK(!is_live(&memory) && !is_live(&file));
        struct odb_span own = capture_memory(5000, 3);
        CHECK(memcmp(own.token, memory.token, 16) != 0);
        serve(&own, 3);
        own = capture_file(fd, 0, 5000);
        serve(&own, 2);
        CHECK_EQ(fixture_count(stats, ODB_STAT_payloads_live), 2);
        _exit(atomic_load(&check_failures) == 0 ? 0 : 1);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    serve(&memory, 1);
    serve(&file, 2);
    close(fd);
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(memory_is_served_as_it_was_captured),
    CHECK_CASE(one_file_is_one_payload_while_its_ranges_touch),
    CHECK_CASE(a_file_range_stops_at_the_end_of_the_file),
    CHECK_CASE(only_readable_regular_files_are_captured),
    CHECK_CASE(a_changed_file_is_refused_and_captured_anew),
    CHECK_CASE(wrong_tokens_and_foreign_ranges_are_denied),
    CHECK_CASE(ids_and_tokens_do_not_repeat),
    CHECK_CASE(a_full_store_says_so_and_recovers),
    CHECK_CASE(the_number_of_payloads_is_bounded),
    CHECK_CASE(a_full_store_reclaims_by_itself),
    CHECK_CASE(unreadable_memory_is_not_captured_and_costs_nothing),
    CHECK_CASE(runs_of_pages_never_overlap_and_coalesce_again),
    CHECK_CASE(threads_may_capture_serve_and_reap_at_once),
    CHECK_CASE(a_forked_child_starts_empty_and_its_parent_goes_on),
};

CHECK_MAIN(cases)
