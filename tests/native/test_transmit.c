/* The outbound direction: what is captured, forwarded or sent for real, and that short writes at any byte change nothing for the receiver. */
#include "check.h"
#include "core/heap.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "core/transmit.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/faults.h"
#include "support/world.h"

#include <errno.h>
#include <sys/mman.h>

#define P ((size_t)ODB_PAGE)

enum { ROOM = 1 << 20 };

static uint8_t sent_bytes[ROOM], got_bytes[ROOM];
static size_t sent_length;

static void note(const void *bytes, size_t length) {
    REQUIRE(sent_length + length <= ROOM);
    memcpy(sent_bytes + sent_length, bytes, length);
    sent_length += length;
}

/* Only what cannot be written any more is announced by reference. */
static int settled(int file) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    return fd;
}

static int settled_file(size_t length, uint32_t seed) {
    int made = fixture_file(length, seed), fd = settled(made);
    close(made);
    return fd;
}

/* One write under the given budget; an EAGAIN lifts the limit, as a socket that gets room would. */
static void write_limited(int fd, const void *bytes, size_t length, size_t budget) {
    for (size_t done = 0; done < length;) {
        world_faults.send_limited = true;
        world_faults.send_budget = budget;
        ssize_t sent = world_send(fd, (const char *)bytes + done, length - done, MSG_NOSIGNAL);
        world_faults.send_limited = false;
        if (sent < 0) {
            REQUIRE(errno == EAGAIN);
            sent = world_send(fd, (const char *)bytes + done, length - done, MSG_NOSIGNAL);
            if (sent < 0 && errno == EAGAIN) continue; /* the helper thread is still at the parked bytes */
            REQUIRE(sent > 0);
        }
        done += (size_t)sent;
    }
}

static void check_received(int fd) {
    world_recv_all(fd, got_bytes, sent_length, 50000);
    CHECK_MEM_EQ(got_bytes, sent_bytes, sent_length);
}

/* Small bytes, a forwarded window in the middle of real bytes, a large memory that is captured, small bytes: cut at every byte of the wire. */
static void short_writes_at_every_byte_keep_content_and_order(void) {
    struct odb_span span = world_payload(1, 2 * P);
    static uint8_t large[3 * 4096 + 5];
    fixture_fill(large, sizeof large, 2, 0);
    for (size_t budget = 0; budget < 340; budget += budget < 260 ? 1 : 7) {
        int client, server;
        uint8_t *mixed = world_pages(4 * P);
        world_connect(&client, &server);
        world_nonblocking(client);
        fixture_fill(mixed, 4 * P, 3, 0);
        REQUIRE(odb_windows_map(&world.windows, mixed + P, 2 * P, &span) == 0);
        sent_length = 0;
        note("begin", 5);
        note(mixed + P - 40, 40);
        size_t at = sent_length;
        sent_length += 2 * P;
        fixture_fill(sent_bytes + at, 2 * P, 1, 0);
        note(mixed + 3 * P, 30);
        note(large, sizeof large);
        note("end", 3);
        write_limited(client, "begin", 5, budget);
        write_limited(client, mixed + P - 40, 2 * P + 70, budget);
        write_limited(client, large, sizeof large, budget);
        write_limited(client, "end", 3, budget);
        check_received(server);
        odb_free(&world, mixed);
        world_close(client);
        world_close(server);
    }
}

static void interrupted_calls_are_repeated(void) {
    int client, server;
    world_connect(&client, &server);
    sent_length = 0;
    note("interrupted", 11);
    world_faults.interrupt = 2;
    world_send_all(client, "interrupted", 11);
    check_received(server);
    faults_clear();
    world_close(client);
    world_close(server);
}

static void lack_of_memory_to_park_sends_the_rest_at_once(void) {
    int client, server;
    world_connect(&client, &server);
    world_nonblocking(client);
    sent_length = 0;
    note("not lost", 8);
    world_faults = (struct world_faults){.send_limited = true, .send_budget = 46, .fail_malloc = 1};
    CHECK_EQ(world_send(client, "not lost", 8, 0), 8);
    faults_clear();
    check_received(server);
    world_close(client);
    world_close(server);
}

/* I9: what is only forwarded is neither fetched nor faulted on. */
static void forwarded_sub_ranges_of_windows_are_spans_and_cost_no_fetch(void) {
    static const struct {
        size_t from, length;
    } ranges[] = {{0, 16384}, {1, 16383}, {5000, 9000}, {4096, 4096}, {100, 1}, {0, 4095}, {12000, 4384}};
    struct odb_span span = world_payload(4, 4 * P);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        int client, server;
        uint8_t *pages = world_pages(4 * P);
        world_connect(&client, &server);
        REQUIRE(odb_windows_map(&world.windows, pages, 4 * P, &span) == 0);
        uint64_t fetches = world_count(ODB_STAT_fetches), faults = world_count(ODB_STAT_faults),
                 spans = world_count(ODB_STAT_spans_sent);
        CHECK_EQ(world_send(client, pages + ranges[i].from, ranges[i].length, 0), ranges[i].length);
        CHECK_EQ(world_count(ODB_STAT_fetches), fetches);
        CHECK_EQ(world_count(ODB_STAT_faults), faults);
        CHECK_EQ(world_count(ODB_STAT_spans_sent), spans + 1);
        sent_length = ranges[i].length;
        fixture_fill(sent_bytes, sent_length, 4, ranges[i].from);
        odb_free(&world, pages);
        check_received(server);
        world_close(client);
        world_close(server);
    }
}

static void neighbouring_windows_leave_as_one_descriptor(void) {
    struct odb_span span = world_payload(5, 4 * P);
    struct odb_span first = odb_span_part(&span, 0, 2 * P), second = odb_span_part(&span, 2 * P, 2 * P);
    for (int coalesce = 0; coalesce < 2; coalesce++) {
        int client, server;
        uint8_t *a = world_pages(2 * P), *b = world_pages(2 * P);
        world_set("coalesce", coalesce ? "on" : "off");
        world_connect(&client, &server);
        REQUIRE(odb_windows_map(&world.windows, a, 2 * P, &first) == 0 &&
                odb_windows_map(&world.windows, b, 2 * P, &second) == 0);
        uint64_t spans = world_count(ODB_STAT_spans_sent);
        struct iovec iov[2] = {{a, 2 * P}, {b, 2 * P}};
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
        CHECK_EQ(odb_send(&world, client, &message, 0, ODB_SOCKET_CALL), 4 * P);
        CHECK_EQ(world_count(ODB_STAT_spans_sent) - spans, coalesce ? 1 : 2);
        odb_free(&world, a);
        odb_free(&world, b);
        sent_length = 4 * P;
        fixture_fill(sent_bytes, sent_length, 5, 0);
        check_received(server);
        world_close(client);
        world_close(server);
    }
    world_set("coalesce", "on");
}

static void many_iovecs_are_sent_whole_and_in_order(void) {
    enum { COUNT = 300 };
    static struct iovec iov[COUNT];
    int client, server;
    size_t at = 0;
    static uint8_t source[COUNT * 700];
    fixture_fill(source, sizeof source, 6, 0);
    for (size_t i = 0; i < COUNT; i++) {
        size_t length = i % 7 == 0 ? 0 : 1 + (i * 37) % 700;
        iov[i] = (struct iovec){source + at, length};
        at += length;
    }
    world_connect(&client, &server);
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = COUNT};
    CHECK_EQ(odb_send(&world, client, &message, 0, ODB_SOCKET_CALL), at);
    sent_length = 0;
    note(source, at);
    check_received(server);
    world_close(client);
    world_close(server);
}

static void captured_memory_may_change_after_the_call(void) {
    int client, server;
    static uint8_t memory[64 * 1024];
    fixture_fill(memory, sizeof memory, 7, 0);
    world_connect(&client, &server);
    uint64_t captured = world_count(ODB_STAT_payloads_captured);
    CHECK_EQ(world_send(client, memory, sizeof memory, 0), sizeof memory);
    CHECK(world_count(ODB_STAT_payloads_captured) > captured);
    sent_length = 0;
    note(memory, sizeof memory);
    memset(memory, 0, sizeof memory);
    check_received(server);
    world_close(client);
    world_close(server);
}

/* I2, I5: full means real bytes. */
static void full_store_sends_real_bytes(void) {
    int client, server;
    static uint8_t memory[128 * 1024];
    fixture_fill(memory, sizeof memory, 8, 0);
    world_set("store_max", "64K");
    world_connect(&client, &server);
    uint64_t full = world_count(ODB_STAT_fallback_store_full), spans = world_count(ODB_STAT_spans_sent);
    CHECK_EQ(world_send(client, memory, sizeof memory, 0), sizeof memory);
    CHECK(world_count(ODB_STAT_fallback_store_full) > full);
    CHECK_EQ(world_count(ODB_STAT_spans_sent), spans);
    sent_length = 0;
    note(memory, sizeof memory);
    check_received(server);
    world_set("store_max", "256M");
    world_close(client);
    world_close(server);
}

static void small_writes_and_switched_off_capture_send_real_bytes(void) {
    int client, server;
    static uint8_t memory[32 * 1024];
    uint64_t captured = world_count(ODB_STAT_payloads_captured);
    fixture_fill(memory, sizeof memory, 9, 0);
    world_connect(&client, &server);
    world_send_all(client, memory, 8191);
    world_set("capture", "file");
    world_send_all(client, memory + 8191, sizeof memory - 8191);
    world_set("capture", "file,memory");
    CHECK_EQ(world_count(ODB_STAT_payloads_captured), captured);
    sent_length = 0;
    note(memory, sizeof memory);
    check_received(server);
    world_close(client);
    world_close(server);
}

/* Copying short pieces into the store costs more than it saves; what was written at once and is long enough is still a payload. */
static void writes_below_memory_min_send_real_bytes(void) {
    int client, server;
    static uint8_t memory[64 * 1024 + 32 * 1024];
    uint64_t captured = world_count(ODB_STAT_payload_bytes_captured);
    fixture_fill(memory, sizeof memory, 19, 0);
    world_connect(&client, &server);
    world_set("memory_min", "64K");
    world_send_all(client, memory, 32 * 1024);
    CHECK_EQ(world_count(ODB_STAT_payload_bytes_captured), captured);
    world_send_all(client, memory + 32 * 1024, 64 * 1024);
    CHECK_EQ(world_count(ODB_STAT_payload_bytes_captured) - captured, 64 * 1024);
    world_set("memory_min", "8K");
    sent_length = 0;
    note(memory, sizeof memory);
    check_received(server);
    world_close(client);
    world_close(server);
}

static void send_file(int fd, int file, off64_t from, size_t length, size_t expected, uint32_t seed) {
    off64_t offset = from;
    size_t done = 0;
    while (done < length) {
        ssize_t sent = odb_sendfile(&world, fd, file, &offset, length - done);
        REQUIRE(sent >= 0);
        if (sent == 0) break;
        done += (size_t)sent;
        CHECK_EQ(offset, from + (off64_t)done);
    }
    CHECK_EQ(done, expected);
    CHECK_EQ(lseek(file, 0, SEEK_CUR), 0);
    fixture_fill(sent_bytes + sent_length, done, seed, (uint64_t)from);
    sent_length += done;
}

static void sendfile_advances_its_offset_by_what_is_accepted_at_every_range(void) {
    static const char *const strategies[] = {"static", "dynamic", "anticipated"};
    for (int i = 0; i < 3; i++) {
        int client, server, file = settled_file(100000, 10);
        world_set("strategy", strategies[i]);
        world_connect(&client, &server);
        sent_length = 0;
        send_file(client, file, 0, 100000, 100000, 10);
        send_file(client, file, 1, 8192, 8192, 10);
        send_file(client, file, 4097, 50001, 50001, 10);
        send_file(client, file, 99990, 100, 10, 10);
        send_file(client, file, 90000, 99999, 10000, 10);
        send_file(client, file, 100000, 10, 0, 10);
        send_file(client, file, 7, 5, 5, 10);
        check_received(server);
        close(file);
        world_close(client);
        world_close(server);
    }
}

static void sendfile_without_offset_moves_the_files_position(void) {
    int client, server, file = settled_file(40000, 11);
    world_connect(&client, &server);
    REQUIRE(lseek(file, 5000, SEEK_SET) == 5000);
    CHECK_EQ(odb_sendfile(&world, client, file, NULL, 20000), 20000);
    CHECK_EQ(lseek(file, 0, SEEK_CUR), 25000);
    sent_length = 20000;
    fixture_fill(sent_bytes, sent_length, 11, 5000);
    check_received(server);
    close(file);
    world_close(client);
    world_close(server);
}

static void sendfile_cut_short_at_every_byte_stays_in_order(void) {
    int file = settled_file(3 * P + 100, 12);
    for (size_t budget = 0; budget < 300; budget += 3) {
        int client, server;
        off64_t offset = 0;
        size_t done = 0;
        world_connect(&client, &server);
        world_nonblocking(client);
        while (done < 3 * P + 100) {
            world_faults.send_limited = done == 0;
            world_faults.send_budget = budget;
            ssize_t sent = odb_sendfile(&world, client, file, &offset, 3 * P + 100 - done);
            world_faults.send_limited = false;
            if (sent < 0 && errno == EAGAIN) {
                sent = odb_sendfile(&world, client, file, &offset, 3 * P + 100 - done);
                if (sent < 0 && errno == EAGAIN) continue;
            }
            REQUIRE(sent > 0);
            done += (size_t)sent;
            CHECK_EQ(offset, done);
        }
        write_limited(client, "behind", 6, budget);
        sent_length = done;
        fixture_fill(sent_bytes, done, 12, 0);
        note("behind", 6);
        check_received(server);
        world_close(client);
        world_close(server);
    }
    close(file);
}

enum { TAIL = 30000 }; /* more than is copied, less than is announced */

static ssize_t (*genuine_sendfile)(int, int, off64_t *, size_t);
static struct {
    int call;      /* the next one's number */
    size_t budget; /* bytes that the first call takes; the second one finds no room */
    int error;     /* of the first call, if not 0 */
    int shrinking; /* a file that is made shorter after the first call; -1: none */
} sendfile_fault;

static ssize_t faulty_sendfile(int out, int in, off64_t *offset, size_t length) {
    int call = sendfile_fault.call++;
    if (call == 0 && sendfile_fault.error) {
        errno = sendfile_fault.error;
        return -1;
    }
    if (call == 1 && sendfile_fault.shrinking >= 0) REQUIRE(ftruncate(sendfile_fault.shrinking, 100) == 0);
    if (call == 1) {
        errno = EAGAIN;
        return -1;
    }
    return genuine_sendfile(out, in, offset,
                            call == 0 && length > sendfile_fault.budget ? sendfile_fault.budget : length);
}

/* A file's bytes that go straight to the socket; false and errno when that fails. */
static bool send_tail(int client, int file) {
    off64_t offset = 0;
    genuine_sendfile = odb_real.sendfile64;
    odb_real.sendfile64 = faulty_sendfile;
    ssize_t sent = odb_sendfile(&world, client, file, &offset, TAIL);
    if (sent < 0 && errno == EAGAIN) sent = odb_sendfile(&world, client, file, &offset, TAIL);
    int saved = errno;
    odb_real.sendfile64 = genuine_sendfile;
    errno = saved;
    CHECK_EQ(offset, sent < 0 ? 0 : sent);
    return sent == TAIL;
}

static void small_file_goes_straight_to_the_socket_wherever_it_is_cut(void) {
    static const struct {
        size_t frames; /* bytes of the frames' starts that the socket takes at first */
        size_t file;   /* and of the file's */
        int error;
    } cuts[] = {{0, 0, 0},
                {1, 0, 0},
                {12, 0, 0},
                {20, 0, 0},
                {23, 0, 0},
                {SIZE_MAX, 1, 0},
                {SIZE_MAX, 0, EAGAIN},
                {SIZE_MAX, 0, EINVAL},
                {SIZE_MAX, 4096, 0},
                {SIZE_MAX, 0, EINTR},
                {SIZE_MAX, TAIL, 0},
                {SIZE_MAX, TAIL - 1, 0}};
    int file = settled_file(TAIL, 12);
    world.options.virtual_min = 65536;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        int client, server;
        world_connect(&client, &server);
        world_nonblocking(client);
        sendfile_fault.call = 0;
        sendfile_fault.budget = cuts[i].file ? cuts[i].file : TAIL;
        sendfile_fault.error = cuts[i].error;
        sendfile_fault.shrinking = -1;
        world_faults.send_limited = cuts[i].frames != SIZE_MAX;
        world_faults.send_budget = cuts[i].frames;
        sent_length = 0;
        if (!send_tail(client, file)) {
            world_faults.send_limited = false;
            CHECK_EQ(errno, EAGAIN);
            while (!send_tail(client, file)) REQUIRE(errno == EAGAIN);
        }
        world_faults.send_limited = false;
        sent_length = TAIL;
        fixture_fill(sent_bytes, TAIL, 12, 0);
        note("behind", 6);
        write_limited(client, "behind", 6, SIZE_MAX);
        check_received(server);
        world_close(client);
        world_close(server);
    }
    world.options.virtual_min = 8192;
    close(file);
}

static void file_that_shrinks_in_the_middle_of_its_frame_resets_the_connection(void) {
    int client, server, made = fixture_file(TAIL, 13), file = settled(made);
    char bytes[4096];
    uint64_t resets = world_count(ODB_STAT_resets);
    world.options.virtual_min = 65536;
    world_connect(&client, &server);
    world_nonblocking(client);
    sendfile_fault.call = sendfile_fault.error = 0;
    sendfile_fault.budget = 5000;
    sendfile_fault.shrinking = made;
    CHECK(!send_tail(client, file) && errno == ECONNRESET);
    CHECK_EQ(world_count(ODB_STAT_resets), resets + 1);
    CHECK(world_send(client, "behind", 6, MSG_NOSIGNAL) < 0);
    ssize_t got;
    size_t all = 0;
    while ((got = world_recv(server, bytes, sizeof bytes, 0)) > 0) all += (size_t)got;
    CHECK(got < 0 && errno == ECONNRESET);
    CHECK(all <= 5000);
    world.options.virtual_min = 8192;
    close(made);
    close(file);
    world_close(client);
    world_close(server);
}

static void sendfile_of_what_is_no_file_says_EINVAL(void) {
    int client, server, ends[2];
    off64_t negative = -1;
    int file = fixture_file(100, 1);
    REQUIRE(pipe(ends) == 0);
    world_connect(&client, &server);
    CHECK(odb_sendfile(&world, client, ends[0], NULL, 10) == -1 && errno == EINVAL);
    CHECK(odb_sendfile(&world, client, file, &negative, 10) == -1 && errno == EINVAL);
    close(ends[0]);
    close(ends[1]);
    close(file);
    world_close(client);
    world_close(server);
}

/* I3: a file that changes between announcement and fetch is not served as if it had not. */
static void file_that_has_changed_is_an_error_and_no_bytes(void) {
    int client, server, writable = fixture_file(10 * P, 13), file = settled(writable);
    off64_t offset = 0;
    ssize_t got, done = 0;
    world_connect(&client, &server);
    CHECK_EQ(odb_sendfile(&world, client, file, &offset, 10 * P), 10 * P);
    REQUIRE(ftruncate(writable, 3) == 0);
    while ((got = world_recv(server, got_bytes, ROOM, 0)) > 0) done += got;
    CHECK(got == -1 && errno == ECONNRESET);
    CHECK(done < (ssize_t)(10 * P));
    CHECK(fixture_same(got_bytes, (size_t)done, 13, 0));
    close(file);
    close(writable);
    world_close(client);
    world_close(server);
}

/* A proxy's temporary file goes on growing: that must not make what was sent of it a payload that has changed. */
static void file_open_for_writing_may_change_after_it_was_sent(void) {
    int client, server, file = fixture_file(10 * P, 14);
    off64_t offset = 0;
    world_connect(&client, &server);
    CHECK_EQ(odb_sendfile(&world, client, file, &offset, 10 * P), 10 * P);
    REQUIRE(ftruncate(file, 3) == 0);
    sent_length = 10 * P;
    fixture_fill(sent_bytes, sent_length, 14, 0);
    check_received(server);
    close(file);
    world_close(client);
    world_close(server);
}

static void send_hint(int raw, uint32_t buffer, uint16_t offset) {
    struct odb_wire_hint hint = {.buffer_size = buffer, .page_offset = offset};
    uint8_t wire[ODB_WIRE_HELLO_FRAME + ODB_WIRE_HINT_FRAME];
    size_t length = world_hello(wire);
    odb_wire_hint_encode(wire + length, &hint);
    REQUIRE(odb_real.send(raw, wire, sizeof wire, 0) == sizeof wire);
}

/* A large write for a receiver with small buffers takes several turns; memory that one turn has captured is not captured again by the next. */
static void each_byte_of_a_large_write_is_captured_once(void) {
    int raw, server;
    static uint8_t memory[ROOM];
    world_raw_client(&raw, &server);
    send_hint(raw, 12000, 100);
    REQUIRE(odb_stream_frames_out(&world, world_stream(server), server));
    uint64_t captured = world_count(ODB_STAT_payload_bytes_captured);
    CHECK_EQ(world_send(server, memory, sizeof memory, 0), sizeof memory);
    CHECK_EQ(world_count(ODB_STAT_payload_bytes_captured) - captured, sizeof memory);
    world_close(raw);
    world_close(server);
}

static void each_of_many_large_buffers_is_captured_once(void) {
    enum { BUFFERS = 40, SIZE = 9000 };
    int client, server;
    struct iovec iov[BUFFERS];
    static uint8_t memory[BUFFERS * SIZE];
    fixture_fill(memory, sizeof memory, 15, 0);
    for (size_t i = 0; i < BUFFERS; i++) iov[i] = (struct iovec){memory + i * SIZE, SIZE};
    world_connect(&client, &server);
    uint64_t captured = world_count(ODB_STAT_payload_bytes_captured);
    struct msghdr header = {.msg_iov = iov, .msg_iovlen = BUFFERS};
    CHECK_EQ(odb_send(&world, client, &header, 0, ODB_SOCKET_CALL), sizeof memory);
    CHECK_EQ(world_count(ODB_STAT_payload_bytes_captured) - captured, sizeof memory);
    sent_length = 0;
    note(memory, sizeof memory);
    check_received(server);
    world_close(client);
    world_close(server);
}

static void hint_of_a_tiny_buffer_does_not_shred_payloads(void) {
    for (uint32_t buffer = 0; buffer < 5000; buffer += 999) {
        int raw, server;
        static uint8_t memory[256 * 1024];
        world_raw_client(&raw, &server);
        send_hint(raw, buffer, 4095);
        REQUIRE(odb_stream_frames_out(&world, world_stream(server), server));
        uint64_t spans = world_count(ODB_STAT_spans_sent);
        CHECK_EQ(world_send(server, memory, sizeof memory, 0), sizeof memory);
        CHECK(world_count(ODB_STAT_spans_sent) - spans <= sizeof memory / (2 * P) + 1);
        world_close(raw);
        world_close(server);
    }
}

static void whoever_writes_first_on_an_accepted_connection_speaks_classic(void) {
    int raw, server;
    char bytes[8];
    world_raw_client(&raw, &server);
    CHECK_EQ(world_send(server, "220 hi\r\n", 8, 0), 8);
    CHECK_EQ(odb_real.recv(raw, bytes, 8, MSG_WAITALL), 8);
    CHECK_MEM_EQ(bytes, "220 hi\r\n", 8);
    world_close(raw);
    world_close(server);
}

static void nothing_is_left_behind(void) {
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
    CHECK_EQ(atomic_load(&world.fds.outboxes.waiting), 0);
    CHECK_EQ(world.windows.live, 0);
}

static const struct check_case cases[] = {
    /* First: these change a function that the helper thread of later cases calls. */
    CHECK_CASE(small_file_goes_straight_to_the_socket_wherever_it_is_cut),
    CHECK_CASE(file_that_shrinks_in_the_middle_of_its_frame_resets_the_connection),
    CHECK_CASE(short_writes_at_every_byte_keep_content_and_order),
    CHECK_CASE(interrupted_calls_are_repeated),
    CHECK_CASE(lack_of_memory_to_park_sends_the_rest_at_once),
    CHECK_CASE(forwarded_sub_ranges_of_windows_are_spans_and_cost_no_fetch),
    CHECK_CASE(neighbouring_windows_leave_as_one_descriptor),
    CHECK_CASE(many_iovecs_are_sent_whole_and_in_order),
    CHECK_CASE(captured_memory_may_change_after_the_call),
    CHECK_CASE(full_store_sends_real_bytes),
    CHECK_CASE(small_writes_and_switched_off_capture_send_real_bytes),
    CHECK_CASE(writes_below_memory_min_send_real_bytes),
    CHECK_CASE(sendfile_advances_its_offset_by_what_is_accepted_at_every_range),
    CHECK_CASE(sendfile_without_offset_moves_the_files_position),
    CHECK_CASE(sendfile_cut_short_at_every_byte_stays_in_order),
    CHECK_CASE(sendfile_of_what_is_no_file_says_EINVAL),
    CHECK_CASE(file_that_has_changed_is_an_error_and_no_bytes),
    CHECK_CASE(file_open_for_writing_may_change_after_it_was_sent),
    CHECK_CASE(each_byte_of_a_large_write_is_captured_once),
    CHECK_CASE(each_of_many_large_buffers_is_captured_once),
    CHECK_CASE(hint_of_a_tiny_buffer_does_not_shred_payloads),
    CHECK_CASE(whoever_writes_first_on_an_accepted_connection_speaks_classic),
    CHECK_CASE(nothing_is_left_behind),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    faults_install();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
