/* Reads of files as windows: what happens to them when the file changes, when they are touched, and when nothing refers to the file any more. */
#include "check.h"
#include "core/heap.h"
#include "core/reads.h"
#include "core/transfer.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>

#define P ((size_t)ODB_PAGE)

enum { PAGES = 16, OPEN_MAX_HERE = 65536 };
#define LENGTH (PAGES * P)

static struct {
    int writer, reader, client, server;
    uint8_t *memory;
} scene;

/* A file that can be changed behind the reader's back, and a connection that is framed already, without which nothing is captured. */
static void begin(uint32_t seed) {
    char path[64], byte;
    scene.writer = fixture_file(LENGTH, seed);
    snprintf(path, sizeof path, "/proc/self/fd/%d", scene.writer);
    scene.reader = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(scene.reader >= 0);
    world_connect(&scene.client, &scene.server);
    world_send_all(scene.client, "?", 1);
    world_recv_all(scene.server, &byte, 1, 1);
    scene.memory = world_pages(LENGTH);
}

static void end(void) {
    odb_free(&world, scene.memory);
    close(scene.writer);
    close(scene.reader);
    world_close(scene.client);
    world_close(scene.server);
    memset(&world.windows.reads, 0, sizeof world.windows.reads);
}

static ssize_t read_at(uint64_t offset, size_t length) {
    struct iovec iov = {scene.memory, length};
    return odb_preadv(&world, scene.reader, &iov, 1, (off64_t)offset);
}

/* Until it shows: time stamps advance in steps. */
static void change(size_t length) {
    struct odb_file_version before, now;
    uint8_t byte = (uint8_t)(fixture_byte(1, 0) + 1);
    REQUIRE(odb_store_file_version(scene.reader, &before));
    do REQUIRE(pwrite(scene.writer, &byte, 1, 5) == 1 && ftruncate(scene.writer, (off_t)length) == 0);
    while (odb_store_file_version(scene.reader, &now) && odb_file_version_equal(&before, &now));
}

static void read_of_a_settled_file_is_a_window_and_forwarding_it_reads_nothing(void) {
    static uint8_t got[LENGTH];
    begin(1);
    uint64_t mapped = world_count(ODB_STAT_reads_mapped), made = world_count(ODB_STAT_materialised_bytes);
    CHECK_EQ(read_at(0, LENGTH), LENGTH);
    CHECK_EQ(world_count(ODB_STAT_reads_mapped), mapped + 1);
    world_send_all(scene.client, scene.memory, LENGTH);
    CHECK_EQ(world_count(ODB_STAT_materialised_bytes), made);
    world_recv_all(scene.server, got, LENGTH, LENGTH);
    CHECK(fixture_same(got, LENGTH, 1, 0));
    end();
}

static void touched_read_holds_the_files_bytes_and_ends_with_the_file(void) {
    begin(1);
    struct iovec iov = {scene.memory + 100, LENGTH - 100};
    CHECK_EQ(odb_preadv(&world, scene.reader, &iov, 1, (off64_t)(2 * P + 7)), LENGTH - 2 * P - 7);
    struct iovec touched = {scene.memory, LENGTH};
    CHECK_EQ(odb_windows_materialise(&world.windows, &touched, 1), 0);
    CHECK(fixture_same(scene.memory + 100, LENGTH - 2 * P - 7, 1, 2 * P + 7));
    CHECK_EQ(read_at(LENGTH, LENGTH), 0);
    end();
}

/* I3: bytes that are lost are an error, never others. */
static void touch_after_a_change_of_the_file_is_an_error(void) {
    static const size_t lengths[] = {LENGTH, P};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        begin(1);
        CHECK_EQ(read_at(0, LENGTH), LENGTH);
        change(lengths[i]);
        CHECK_EQ(odb_windows_fault(&world.windows, scene.memory), -ESTALE);
        CHECK_EQ(world_send(scene.client, scene.memory, 100, MSG_NOSIGNAL), -1);
        CHECK_EQ(errno, ECONNRESET);
        end();
    }
}

/* Sends the memory and takes it at the other end. Content, or an error. */
static int forward(uint8_t *into) {
    struct iovec whole = {into, LENGTH};
    CHECK_EQ(world_send(scene.client, scene.memory, LENGTH, MSG_NOSIGNAL), LENGTH);
    for (size_t done = 0; done < LENGTH;) {
        ssize_t received = world_recv(scene.server, into + done, LENGTH - done, 0);
        if (received <= 0) return -1;
        done += (size_t)received;
    }
    return odb_windows_materialise(&world.windows, &whole, 1);
}

static void receiver_of_a_file_that_has_changed_meanwhile_gets_an_error(void) {
    begin(1);
    uint8_t *into = world_pages(LENGTH);
    CHECK_EQ(read_at(0, LENGTH), LENGTH);
    change(LENGTH);
    CHECK(forward(into) < 0);
    odb_free(&world, into);
    end();
}

/* The consumer has asked to be pushed to after its first fetches. */
static void a_file_that_has_changed_meanwhile_is_not_pushed_either(void) {
    begin(1);
    uint8_t *into = world_pages(LENGTH);
    uint64_t pushes = world_count(ODB_STAT_pushes);
    while (world_count(ODB_STAT_pushes) == pushes) {
        CHECK_EQ(read_at(0, LENGTH), LENGTH);
        REQUIRE(forward(into) == 0 && fixture_same(into, LENGTH, 1, 0));
    }
    CHECK_EQ(read_at(0, LENGTH), LENGTH);
    uint64_t bytes = world_count(ODB_STAT_push_bytes);
    change(LENGTH);
    CHECK(forward(into) < 0);
    CHECK_EQ(world_count(ODB_STAT_push_bytes), bytes);
    odb_free(&world, into);
    end();
}

static void reads_that_are_touched_are_the_kernels_again(void) {
    begin(1);
    struct iovec iov = {scene.memory, LENGTH};
    uint64_t mapped = world_count(ODB_STAT_reads_mapped);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(read_at(0, LENGTH), LENGTH);
        CHECK_EQ(odb_windows_materialise(&world.windows, &iov, 1), 0);
        CHECK(fixture_same(scene.memory, LENGTH, 1, 0));
    }
    uint64_t tried = world_count(ODB_STAT_reads_mapped) - mapped;
    CHECK(tried >= ODB_DELIVERY_SAMPLE / LENGTH && tried < ODB_DELIVERY_SAMPLE / LENGTH + 3);
    end();
}

static int own_descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < OPEN_MAX_HERE; fd++) count += odb_fds_is_internal(fd) && fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void descriptors_of_files_go_when_no_window_needs_them(void) {
    odb_sources_reap(&world.windows.sources, odb_clock_ms() + 60000);
    int before = own_descriptors();
    begin(2);
    CHECK_EQ(read_at(0, LENGTH / 2), LENGTH / 2);
    CHECK_EQ(own_descriptors(), before + 1);
    struct iovec iov = {scene.memory + LENGTH / 2, LENGTH / 2};
    CHECK_EQ(odb_preadv(&world, scene.reader, &iov, 1, 0), LENGTH / 2);
    CHECK_EQ(own_descriptors(), before + 1);
    odb_sources_reap(&world.windows.sources, odb_clock_ms() + 60000);
    CHECK_EQ(own_descriptors(), before + 1);
    odb_windows_drop(&world.windows, scene.memory, LENGTH);
    odb_sources_reap(&world.windows.sources, odb_clock_ms());
    CHECK_EQ(own_descriptors(), before + 1);
    odb_sources_reap(&world.windows.sources, odb_clock_ms() + 60000);
    CHECK_EQ(own_descriptors(), before);
    end();
}

static void more_files_than_sources_are_read_for_real(void) {
    int files[ODB_SOURCES + 2];
    uint8_t *memory[ODB_SOURCES + 2];
    begin(3);
    uint64_t mapped = world_count(ODB_STAT_reads_mapped);
    for (uint32_t i = 0; i < ODB_SOURCES + 2; i++) {
        char path[64];
        int made = fixture_file(4 * P, 100 + i);
        snprintf(path, sizeof path, "/proc/self/fd/%d", made);
        files[i] = open(path, O_RDONLY | O_CLOEXEC);
        memory[i] = world_pages(4 * P);
        struct iovec iov = {memory[i], 4 * P};
        CHECK_EQ(odb_preadv(&world, files[i], &iov, 1, 0), 4 * P);
        close(made);
    }
    CHECK_EQ(world_count(ODB_STAT_reads_mapped) - mapped, ODB_SOURCES);
    for (uint32_t i = 0; i < ODB_SOURCES + 2; i++) {
        struct iovec iov = {memory[i], 4 * P};
        CHECK_EQ(odb_windows_materialise(&world.windows, &iov, 1), 0);
        CHECK(fixture_same(memory[i], 4 * P, 100 + i, 0));
        odb_free(&world, memory[i]);
        close(files[i]);
    }
    end();
}

static const struct check_case cases[] = {
    CHECK_CASE(read_of_a_settled_file_is_a_window_and_forwarding_it_reads_nothing),
    CHECK_CASE(touched_read_holds_the_files_bytes_and_ends_with_the_file),
    CHECK_CASE(touch_after_a_change_of_the_file_is_an_error),
    CHECK_CASE(receiver_of_a_file_that_has_changed_meanwhile_gets_an_error),
    CHECK_CASE(a_file_that_has_changed_meanwhile_is_not_pushed_either),
    CHECK_CASE(reads_that_are_touched_are_the_kernels_again),
    CHECK_CASE(descriptors_of_files_go_when_no_window_needs_them),
    CHECK_CASE(more_files_than_sources_are_read_for_real),
};

int main(int argc, char **argv) {
    static const char *const settings[] = {"capture=reads", "settled_ms=0", NULL};
    world_begin(settings);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
