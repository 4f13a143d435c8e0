/* The inbound direction against a peer whose every byte the test writes by itself: buffers of every kind, flags, time limits, what is available. */
#include "core/sockets.h"
#include "receive_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

enum place { ARENA, LIBC, STACK, STATIC };

static void check_buffers(enum place place, size_t offset, size_t per_call, uint32_t seed, size_t length, size_t head,
                          size_t tail) {
    static uint8_t fixed[48 * 1024];
    uint8_t local[place == STACK ? 48 * 1024 : 1], *buffer = local;
    int raw, fd;
    struct odb_span span = world_payload(seed, length);
    if (place == ARENA) buffer = world_pages(sizeof fixed);
    if (place == LIBC) REQUIRE((buffer = odb_real.malloc(sizeof fixed)) != NULL);
    if (place == STATIC) buffer = fixed;
    begin_message();
    add_virtual(&span, seed, head, tail);
    add_real("end");
    world_raw_client(&raw, &fd);
    put(raw, message.wire, message.length);
    world_close(raw);
    size_t done = 0;
    ssize_t got;
    while ((got = world_recv(fd, buffer + offset, per_call, 0)) > 0) {
        if (!CHECK((size_t)got <= per_call && done + (size_t)got <= message.plain_length)) break;
        if (done % 3 == 0)
            CHECK_MEM_EQ(buffer + offset, message.plain + done, (size_t)got); /* by the fault handler */
        else {
            struct iovec iov = {buffer + offset, (size_t)got};
            CHECK_EQ(odb_windows_materialise(&world.windows, &iov, 1), 0);
            CHECK_MEM_EQ(buffer + offset, message.plain + done, (size_t)got);
        }
        done += (size_t)got;
    }
    CHECK_EQ(got, 0);
    CHECK_EQ(done, message.plain_length);
    if (place == ARENA) odb_free(&world, buffer);
    if (place == LIBC) odb_real.free(buffer);
    world_close(fd);
}

static void every_buffer_gets_the_same_bytes(void) {
    static const size_t offsets[] = {0, 1, 100, 4095}, sizes[] = {1, 7, 4095, 4096, 4097, 8192, 12289, 40000};
    for (enum place place = ARENA; place <= STATIC; place++)
        for (size_t i = 0; i < 4; i++)
            for (size_t k = 0; k < 8; k++) {
                size_t length = sizes[k] == 1 ? 5000 : 30001;
                check_buffers(place, offsets[i], sizes[k], (uint32_t)(10 * i + k), length, 0, 0);
                check_buffers(place, offsets[i], sizes[k], (uint32_t)(10 * i + k), length, 10 * k, 4096 + i);
            }
}

static void only_heap_blocks_carry_windows(void) {
    uint64_t windows = world_count(ODB_STAT_windows_mapped);
    check_buffers(STACK, 0, 16384, 3, 16384, 0, 0);
    check_buffers(STATIC, 0, 16384, 3, 16384, 0, 0);
    CHECK_EQ(world_count(ODB_STAT_windows_mapped), windows);
    check_buffers(ARENA, 0, 16384, 3, 16384, 0, 0);
    CHECK_EQ(world_count(ODB_STAT_windows_mapped), windows + 1);
}

static void iovecs_are_filled_in_order_without_gaps(void) {
    static const size_t cuts[][4] = {
        {1, 1, 1, 1}, {0, 5, 0, 4096}, {4096, 4096, 100, 8192}, {19, 8192, 1, 20000}, {10000, 0, 0, 10000}};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        int raw, fd;
        uint8_t *block = world_pages(40000);
        struct iovec iov[4];
        size_t at = 0, done = 0;
        for (int k = 0; k < 4; at += cuts[i][k++]) iov[k] = (struct iovec){block + at, cuts[i][k]};
        mixed_message();
        world_raw_client(&raw, &fd);
        put(raw, message.wire, message.length);
        world_close(raw);
        for (;;) {
            struct msghdr header = {.msg_iov = iov, .msg_iovlen = 4};
            ssize_t got = odb_receive(&world, fd, &header, 0, ODB_SOCKET_CALL);
            if (got <= 0) break;
            struct iovec all = {block, (size_t)got};
            CHECK_EQ(odb_windows_materialise(&world.windows, &all, 1), 0);
            CHECK((size_t)got <= at);
            CHECK_MEM_EQ(block, message.plain + done, (size_t)got);
            done += (size_t)got;
        }
        CHECK_EQ(done, message.plain_length);
        odb_free(&world, block);
        world_close(fd);
    }
}

/* Memory that still carries an older window is received over, in part. */
static void bytes_beside_the_received_ones_survive_in_an_old_window(void) {
    struct odb_span old = world_payload(20, 4 * P);
    for (size_t from = 0; from < 3 * P; from += 1361) {
        int raw, fd;
        uint8_t *block = world_pages(4 * P);
        REQUIRE(odb_windows_map(&world.windows, block, 4 * P, &old) == 0);
        begin_message();
        add_real("some real bytes");
        world_raw_client(&raw, &fd);
        put(raw, message.wire, message.length);
        CHECK_EQ(world_recv(fd, block + from, message.plain_length, 0), message.plain_length);
        CHECK_MEM_EQ(block + from, message.plain, message.plain_length);
        CHECK(world_same(block, from, 20, 0));
        CHECK(world_same(block + from + message.plain_length, 4 * P - from - message.plain_length, 20,
                         from + message.plain_length));
        odb_free(&world, block);
        world_close(raw);
        world_close(fd);
    }
}

static void peek_shows_bytes_again_and_consumes_none(void) {
    int raw, fd;
    size_t done = 0;
    uint8_t seen[600];
    mixed_message();
    world_raw_client(&raw, &fd);
    put(raw, message.wire, message.length);
    while (done < message.plain_length) {
        ssize_t peeked = world_recv(fd, seen, sizeof seen, MSG_PEEK);
        REQUIRE(peeked > 0);
        CHECK_MEM_EQ(seen, message.plain + done, (size_t)peeked);
        CHECK_EQ(world_recv(fd, seen, sizeof seen, MSG_PEEK), peeked);
        size_t part = (size_t)peeked < 411 ? (size_t)peeked : 411;
        CHECK_EQ(world_recv(fd, seen, part, 0), part);
        CHECK_MEM_EQ(seen, message.plain + done, part);
        done += part;
    }
    CHECK(world_recv(fd, seen, 1, MSG_PEEK | MSG_DONTWAIT) == -1 && errno == EAGAIN);
    world_close(raw);
    world_close(fd);
}

static void waitall_fills_the_buffer_across_frames(void) {
    int raw, fd;
    mixed_message();
    world_raw_client(&raw, &fd);
    put(raw, message.wire, message.length);
    CHECK_EQ(world_recv(fd, got_bytes, message.plain_length, MSG_WAITALL), message.plain_length);
    CHECK_MEM_EQ(got_bytes, message.plain, message.plain_length);
    put(raw, message.wire + ODB_WIRE_HELLO_FRAME, message.length - ODB_WIRE_HELLO_FRAME);
    struct iovec iov[3] = {{got_bytes, 5}, {got_bytes + 5, 3000}, {got_bytes + 3005, message.plain_length - 3005}};
    struct msghdr header = {.msg_iov = iov, .msg_iovlen = 3};
    CHECK_EQ(odb_receive(&world, fd, &header, MSG_WAITALL, ODB_SOCKET_CALL), message.plain_length);
    CHECK_MEM_EQ(got_bytes, message.plain, message.plain_length);
    world_close(raw);
    world_close(fd);
}

static int trickle_to, trickle_at;

static void wait_until_taken(void) {
    int left = 1;
    while (odb_real.ioctl(trickle_at, FIONREAD, &left) == 0 && left > 0) sched_yield();
}

/* Every frame behind the HELLO in two parts, the first of which is less than its header; the next part when the one before has been taken. */
static void *trickle(void *unused) {
    size_t done = message.boundary[0];
    (void)unused;
    put(trickle_to, message.wire, done);
    for (int i = 1; i < message.boundaries; i++) {
        size_t cuts[2] = {message.boundary[i - 1] + 3, message.boundary[i]};
        for (int cut = 0; cut < 2; cut++) {
            put(trickle_to, message.wire + done, cuts[cut] - done);
            done = cuts[cut];
            wait_until_taken();
        }
    }
    return NULL;
}

static void waitall_waits_on_when_frames_come_in_parts(void) {
    pthread_t thread;
    mixed_message();
    world_raw_client(&trickle_to, &trickle_at);
    REQUIRE(pthread_create(&thread, NULL, trickle, NULL) == 0);
    CHECK_EQ(world_recv(trickle_at, got_bytes, message.plain_length, MSG_WAITALL), message.plain_length);
    CHECK_MEM_EQ(got_bytes, message.plain, message.plain_length);
    pthread_join(thread, NULL);
    world_close(trickle_to);
    world_close(trickle_at);
}

/* What WAITALL got before an error is delivered, and the error is not swallowed. */
static void waitall_that_meets_a_cut_frame_reports_it_next(void) {
    int raw, fd;
    mixed_message();
    world_raw_client(&raw, &fd);
    put(raw, message.wire, message.boundary[1] + 50);
    REQUIRE(shutdown(raw, SHUT_WR) == 0);
    CHECK_EQ(world_recv(fd, got_bytes, message.plain_length, MSG_WAITALL), 19);
    CHECK(world_recv(fd, got_bytes, 10, 0) == -1 && errno == ECONNRESET);
    CHECK_EQ(world_recv(fd, got_bytes, 10, 0), 0);
    world_close(raw);
    world_close(fd);
}

static void receive_timeout_ends_a_wait_for_application_bytes(void) {
    int raw, fd;
    struct timeval patience = {.tv_usec = 20000};
    mixed_message();
    world_raw_client(&raw, &fd);
    REQUIRE(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    put(raw, message.wire, ODB_WIRE_HELLO_FRAME + 3); /* frames, but no bytes for the application */
    CHECK(world_recv(fd, got_bytes, 10, 0) == -1 && errno == EAGAIN);
    put(raw, message.wire + ODB_WIRE_HELLO_FRAME + 3, 30);
    CHECK_EQ(world_recv(fd, got_bytes, 100, MSG_WAITALL), 19);
    world_close(raw);
    world_close(fd);
}

static void available_counts_application_bytes(void) {
    int raw, fd, count = -1;
    mixed_message();
    world_raw_client(&raw, &fd);
    put(raw, message.wire, message.length);
    size_t done = 0;
    while (done < message.plain_length) {
        CHECK(odb_available(&world, fd, &count));
        CHECK(count > 0 && done + (size_t)count <= message.plain_length);
        ssize_t got = world_recv(fd, got_bytes, 1000, MSG_DONTWAIT);
        REQUIRE(got > 0);
        done += (size_t)got;
    }
    CHECK(odb_available(&world, fd, &count) && count == 0);
    put(raw, message.wire + ODB_WIRE_HELLO_FRAME, 4);
    CHECK(odb_available(&world, fd, &count) && count == 0);
    world_close(raw);
    world_close(fd);
}

static const struct check_case cases[] = {
    CHECK_CASE(every_buffer_gets_the_same_bytes),
    CHECK_CASE(only_heap_blocks_carry_windows),
    CHECK_CASE(iovecs_are_filled_in_order_without_gaps),
    CHECK_CASE(bytes_beside_the_received_ones_survive_in_an_old_window),
    CHECK_CASE(peek_shows_bytes_again_and_consumes_none),
    CHECK_CASE(waitall_fills_the_buffer_across_frames),
    CHECK_CASE(waitall_waits_on_when_frames_come_in_parts),
    CHECK_CASE(waitall_that_meets_a_cut_frame_reports_it_next),
    CHECK_CASE(receive_timeout_ends_a_wait_for_application_bytes),
    CHECK_CASE(available_counts_application_bytes),
    CHECK_CASE(nothing_is_left_behind),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    faults_install();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
