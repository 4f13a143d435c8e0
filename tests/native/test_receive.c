/* The inbound direction against a peer whose every byte the test writes by itself: segmentation, detection, ends, lost payloads. */
#include "receive_fixture.h"

#include <sys/socket.h>

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
