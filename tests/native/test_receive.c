/* The inbound direction against a peer whose every byte the test writes by itself: segmentation, detection, ends, buffers, flags, lost payloads. */
#include "check.h"
#include "core/heap.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/faults.h"
#include "support/world.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#define P ((size_t)ODB_PAGE)

enum { MESSAGE_MAX = 1 << 16 };

/* A framed message and what the application must get from it. */
struct message {
    uint8_t wire[MESSAGE_MAX];
    size_t length;
    uint8_t plain[MESSAGE_MAX];
    size_t plain_length;
    size_t boundary[8]; /* ends of frames within wire */
    int boundaries;
};

static struct message message;

static void end_frame(size_t wire) {
    message.length += wire;
    message.boundary[message.boundaries++] = message.length;
}

static void add_real(const char *text) {
    end_frame(world_real(message.wire + message.length, text, strlen(text)));
    memcpy(message.plain + message.plain_length, text, strlen(text));
    message.plain_length += strlen(text);
}

static void add_virtual(const struct odb_span *span, uint32_t seed, size_t head, size_t tail) {
    end_frame(world_virtual(message.wire + message.length, span, seed, head, tail));
    fixture_fill(message.plain + message.plain_length, span->length, seed, span->offset);
    message.plain_length += span->length;
}

static void begin_message(void) {
    memset(&message, 0, sizeof message);
    end_frame(world_hello(message.wire));
}

/* Real bytes, a span with both edges, a hint, a span without edges, real bytes. */
static void mixed_message(void) {
    struct odb_span first = world_payload(1, 2 * P + 30), second = world_payload(2, P + 7);
    struct odb_wire_hint hint = {.buffer_size = 16384};
    begin_message();
    add_real("HTTP/1.1 200 OK\r\n\r\n");
    add_virtual(&first, 1, 13, 17);
    odb_wire_hint_encode(message.wire + message.length, &hint);
    end_frame(ODB_WIRE_HINT_FRAME);
    add_virtual(&second, 2, 0, 0);
    add_real("x");
}

static void put(int raw, const void *bytes, size_t length) {
    REQUIRE(odb_real.send(raw, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
}

static uint8_t got_bytes[2 * MESSAGE_MAX];

/* Takes what is there now, without blocking; returns the last result. */
static ssize_t take(int fd, size_t *done, size_t per_call) {
    for (;;) {
        ssize_t got = world_recv(fd, got_bytes + *done, per_call, MSG_DONTWAIT);
        if (got <= 0) return got;
        *done += (size_t)got;
    }
}

/* Blocks until the end or an error; returns the last result. */
static ssize_t take_all(int fd, size_t *done, size_t per_call) {
    for (;;) {
        ssize_t got = world_recv(fd, got_bytes + *done, per_call, 0);
        if (got <= 0) return got;
        *done += (size_t)got;
    }
}

static void frames_that_arrive_one_byte_at_a_time_give_the_same_bytes(void) {
    int raw, fd;
    size_t done = 0;
    mixed_message();
    world_raw_client(&raw, &fd);
    for (size_t i = 0; i < message.length; i++) {
        put(raw, message.wire + i, 1);
        ssize_t result = take(fd, &done, 100);
        if (!CHECK(result == -1 && errno == EAGAIN)) break;
    }
    CHECK_EQ(done, message.plain_length);
    CHECK_MEM_EQ(got_bytes, message.plain, message.plain_length);
    world_close(raw);
    world_close(fd);
}

static void kernel_that_gives_one_byte_per_call_and_interrupts_changes_nothing(void) {
    int raw, fd;
    size_t done = 0;
    mixed_message();
    world_raw_client(&raw, &fd);
    put(raw, message.wire, message.length);
    world_close(raw);
    world_faults.recv_max = 1;
    world_faults.interrupt = 3;
    CHECK_EQ(take_all(fd, &done, 5000), 0);
    faults_clear();
    CHECK_EQ(done, message.plain_length);
    CHECK_MEM_EQ(got_bytes, message.plain, message.plain_length);
    world_close(fd);
}

/* Delivery of `first` bytes, a look at the stream, the rest: I1 for every segmentation of the first bytes. */
static void check_segmented(const uint8_t *wire, size_t length, const uint8_t *plain, size_t plain_length, size_t cut,
                            bool framed) {
    int raw, fd;
    size_t done = 0;
    char answer[64];
    world_raw_client(&raw, &fd);
    put(raw, wire, cut);
    if (cut > 0) (void)take(fd, &done, 1000);
    put(raw, wire + cut, length - cut);
    REQUIRE(shutdown(raw, SHUT_WR) == 0);
    CHECK_EQ(take_all(fd, &done, 1000), 0);
    CHECK_EQ(done, plain_length);
    CHECK_MEM_EQ(got_bytes, plain, plain_length);
    CHECK_EQ(world_send(fd, "answer", 6, MSG_NOSIGNAL), 6);
    ssize_t size = framed ? ODB_WIRE_HELLO_FRAME + ODB_WIRE_HEADER_SIZE + 6 : 6;
    CHECK_EQ(odb_real.recv(raw, answer, (size_t)size, MSG_WAITALL), size);
    CHECK_MEM_EQ(answer + size - 6, "answer", 6);
    world_close(raw);
    world_close(fd);
}

static void hello_is_recognised_in_every_segmentation(void) {
    begin_message();
    add_real("hello behind hello");
    for (size_t cut = 0; cut <= message.length; cut++)
        check_segmented(message.wire, message.length, message.plain, message.plain_length, cut, true);
}

static void classic_bytes_that_begin_like_a_hello_arrive_untouched_in_every_segmentation(void) {
    uint8_t hello[ODB_WIRE_HELLO_FRAME], bytes[40];
    world_hello(hello);
    for (size_t same = 0; same < 16; same++) {
        memcpy(bytes, hello, same);
        bytes[same] = (uint8_t)(hello[same] ^ 1);
        memset(bytes + same + 1, 'c', sizeof bytes - same - 1);
        for (size_t cut = 0; cut <= same + 2; cut++)
            check_segmented(bytes, sizeof bytes, bytes, sizeof bytes, cut, false);
    }
}

static void classic_connection_that_ends_within_a_hello_keeps_its_bytes(void) {
    uint8_t hello[ODB_WIRE_HELLO_FRAME];
    world_hello(hello);
    for (size_t length = 0; length < 16; length++)
        for (size_t cut = 0; cut <= length; cut++) check_segmented(hello, length, hello, length, cut, false);
}

static void classic_stream_leaves_the_table_and_large_bodies_pass(void) {
    int raw, fd;
    size_t done = 0;
    static uint8_t large[MESSAGE_MAX];
    fixture_fill(large, sizeof large, 9, 0);
    world_raw_client(&raw, &fd);
    put(raw, large, sizeof large);
    world_close(raw);
    CHECK_EQ(take_all(fd, &done, 3000), 0);
    CHECK_EQ(done, sizeof large);
    CHECK_MEM_EQ(got_bytes, large, sizeof large);
    CHECK(!odb_fdtable_has(&world.fds, fd));
    world_close(fd);
}

/* A short answer would say that the socket is drained, and whoever waits for edges would wait for ever. */
static void classic_bytes_fill_all_buffers_of_a_call(void) {
    int raw, fd;
    uint8_t sent[300];
    struct iovec iov[3] = {{got_bytes, 100}, {got_bytes + 100, 100}, {got_bytes + 200, 100}};
    struct msghdr header = {.msg_iov = iov, .msg_iovlen = 3};
    fixture_fill(sent, sizeof sent, 3, 0);
    world_raw_client(&raw, &fd);
    put(raw, sent, sizeof sent);
    CHECK_EQ(odb_receive(&world, fd, &header, MSG_PEEK, ODB_SOCKET_CALL), (ssize_t)sizeof sent);
    memset(got_bytes, 0, sizeof sent);
    CHECK_EQ(odb_receive(&world, fd, &header, 0, ODB_SOCKET_CALL), (ssize_t)sizeof sent);
    CHECK_MEM_EQ(got_bytes, sent, sizeof sent);
    world_close(raw);
    world_close(fd);
}

static bool is_boundary(size_t at) {
    for (int i = 0; i < message.boundaries; i++)
        if (message.boundary[i] == at) return true;
    return false;
}

/* A cut body must not look like a whole one. */
static void end_of_stream_is_an_end_between_frames_and_a_reset_within_them(void) {
    mixed_message();
    for (size_t cut = 16; cut <= message.length;
         cut += cut < 40 || is_boundary(cut) || is_boundary(cut + 1) || is_boundary(cut + 2) ? 1 : 3) {
        int raw, fd;
        size_t done = 0;
        world_raw_client(&raw, &fd);
        put(raw, message.wire, cut);
        world_close(raw);
        ssize_t result = take_all(fd, &done, 700);
        if (is_boundary(cut))
            CHECK_EQ(result, 0);
        else
            CHECK(result == -1 && errno == ECONNRESET);
        CHECK(done <= message.plain_length);
        CHECK_MEM_EQ(got_bytes, message.plain, done);
        CHECK_EQ(world_recv(fd, got_bytes, 10, 0), 0);
        world_close(fd);
    }
}

static void reset_by_the_peer_is_reported_once_and_behind_what_had_arrived(void) {
    struct linger reset = {.l_onoff = 1};
    mixed_message();
    for (size_t cut = 0; cut <= message.length; cut += 97) {
        int raw, fd;
        size_t done = 0;
        world_raw_client(&raw, &fd);
        put(raw, message.wire, cut);
        if (cut > 0) REQUIRE(world_recv(fd, got_bytes, 1, MSG_PEEK | (cut < 33 ? MSG_DONTWAIT : 0)) >= -1);
        REQUIRE(setsockopt(raw, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
        world_close(raw);
        ssize_t result = take_all(fd, &done, 700);
        CHECK(result == -1 && errno == ECONNRESET);
        CHECK_MEM_EQ(got_bytes, message.plain, done);
        world_close(fd);
    }
}

static void broken_frame_resets_the_connection_and_is_counted(void) {
    mixed_message();
    static const size_t places[] = {17, 24, 27, 28, 24 + 8 + 19, 24 + 8 + 19 + 8 + 40};
    for (size_t i = 1; i < sizeof places / sizeof *places; i++) {
        int raw, fd;
        size_t done = 0;
        char byte;
        uint64_t errors = world_count(ODB_STAT_protocol_errors);
        world_raw_client(&raw, &fd);
        message.wire[places[i]] ^= 0x40;
        put(raw, message.wire, message.length);
        message.wire[places[i]] ^= 0x40;
        CHECK(take_all(fd, &done, 700) == -1 && errno == ECONNRESET);
        CHECK_MEM_EQ(got_bytes, message.plain, done);
        CHECK_EQ(world_count(ODB_STAT_protocol_errors), errors + 1);
        world_close(fd);
        CHECK(odb_real.recv(raw, &byte, 1, 0) == -1 && errno == ECONNRESET);
        world_close(raw);
    }
}

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

/* I3: never wrong bytes; the connection ends with a reset on both sides. */
static void lost_payload_resets_the_connection(void) {
    struct odb_span lost[3] = {world_unknown(3 * P), world_unreachable(3 * P), world_payload(1, 3 * P)};
    memset(lost[2].origin.address + 12, 10, 4); /* an origin that is not this peer's */
    for (int i = 0; i < 3; i++) {
        int raw, fd;
        size_t done = 0;
        char byte;
        uint64_t resets = world_count(ODB_STAT_resets);
        begin_message();
        add_real("before");
        add_virtual(&lost[i], 0, 0, 0);
        world_raw_client(&raw, &fd);
        put(raw, message.wire, message.length);
        CHECK(take_all(fd, &done, 1000) == -1 && errno == ECONNRESET);
        CHECK_EQ(done, 6);
        CHECK_EQ(world_count(ODB_STAT_resets), resets + 1);
        world_close(fd);
        CHECK(odb_real.recv(raw, &byte, 1, 0) == -1 && errno == ECONNRESET);
        world_close(raw);
    }
}

static void lack_of_memory_gives_an_error_or_the_right_bytes(void) {
    for (int nth = 1; nth < 8; nth++) {
        int raw, fd;
        size_t done = 0;
        mixed_message();
        world_raw_client(&raw, &fd);
        put(raw, message.wire, message.length);
        world_close(raw);
        world_faults.fail_malloc = nth;
        ssize_t result = take_all(fd, &done, 300);
        faults_clear();
        CHECK_MEM_EQ(got_bytes, message.plain, done);
        if (result == 0)
            CHECK_EQ(done, message.plain_length);
        else
            CHECK(errno == ECONNRESET || errno == ENOMEM);
        world_close(fd);
    }
}

static void lack_of_memory_while_looking_ahead_gives_an_error_or_the_right_bytes(void) {
    for (int nth = 1; nth < 8; nth++) {
        int raw, fd;
        size_t done = 0;
        mixed_message();
        world_raw_client(&raw, &fd);
        put(raw, message.wire, message.length);
        world_close(raw);
        world_faults.fail_malloc = nth;
        ssize_t peeked = world_recv(fd, got_bytes, 300, MSG_PEEK);
        CHECK_MEM_EQ(got_bytes, message.plain, peeked > 0 ? (size_t)peeked : 0);
        ssize_t result = take_all(fd, &done, 300);
        faults_clear();
        CHECK_MEM_EQ(got_bytes, message.plain, done);
        if (result == 0)
            CHECK(done == message.plain_length || peeked == -1);
        else
            CHECK(errno == ECONNRESET || errno == ENOMEM);
        world_close(fd);
    }
}

static void lack_of_guards_fetches_at_once(void) {
    int raw, fd;
    struct odb_span span = world_payload(5, 4 * P);
    uint8_t *block = world_pages(4 * P);
    begin_message();
    add_virtual(&span, 5, 0, 0);
    world_raw_client(&raw, &fd);
    put(raw, message.wire, message.length);
    world_faults.fail_mprotect = 1;
    CHECK_EQ(world_recv(fd, block, 4 * P, 0), 4 * P);
    CHECK(!odb_windows_touch(&world.windows, block, 4 * P));
    CHECK(fixture_same(block, 4 * P, 5, 0));
    odb_free(&world, block);
    world_close(raw);
    world_close(fd);
}

static void nothing_is_left_behind(void) {
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
    CHECK_EQ(world.windows.live, 0);
}

static const struct check_case cases[] = {
    CHECK_CASE(frames_that_arrive_one_byte_at_a_time_give_the_same_bytes),
    CHECK_CASE(kernel_that_gives_one_byte_per_call_and_interrupts_changes_nothing),
    CHECK_CASE(hello_is_recognised_in_every_segmentation),
    CHECK_CASE(classic_bytes_that_begin_like_a_hello_arrive_untouched_in_every_segmentation),
    CHECK_CASE(classic_connection_that_ends_within_a_hello_keeps_its_bytes),
    CHECK_CASE(classic_stream_leaves_the_table_and_large_bodies_pass),
    CHECK_CASE(classic_bytes_fill_all_buffers_of_a_call),
    CHECK_CASE(end_of_stream_is_an_end_between_frames_and_a_reset_within_them),
    CHECK_CASE(reset_by_the_peer_is_reported_once_and_behind_what_had_arrived),
    CHECK_CASE(broken_frame_resets_the_connection_and_is_counted),
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
    CHECK_CASE(lost_payload_resets_the_connection),
    CHECK_CASE(lack_of_memory_gives_an_error_or_the_right_bytes),
    CHECK_CASE(lack_of_memory_while_looking_ahead_gives_an_error_or_the_right_bytes),
    CHECK_CASE(lack_of_guards_fetches_at_once),
    CHECK_CASE(nothing_is_left_behind),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    faults_install();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
