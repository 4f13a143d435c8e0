/* The outbound direction: files, however they are cut and whatever happens to them, and large writes that take several turns. */
#include "core/transmit.h"
#include "os/real.h"
#include "transmit_fixture.h"

#include <fcntl.h>
#include <unistd.h>

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

static const struct check_case cases[] = {
    /* First: these change a function that the helper thread of later cases calls. */
    CHECK_CASE(small_file_goes_straight_to_the_socket_wherever_it_is_cut),
    CHECK_CASE(file_that_shrinks_in_the_middle_of_its_frame_resets_the_connection),
    CHECK_CASE(sendfile_advances_its_offset_by_what_is_accepted_at_every_range),
    CHECK_CASE(sendfile_without_offset_moves_the_files_position),
    CHECK_CASE(sendfile_cut_short_at_every_byte_stays_in_order),
    CHECK_CASE(sendfile_of_what_is_no_file_says_EINVAL),
    CHECK_CASE(file_that_has_changed_is_an_error_and_no_bytes),
    CHECK_CASE(file_open_for_writing_may_change_after_it_was_sent),
    CHECK_CASE(each_byte_of_a_large_write_is_captured_once),
    CHECK_CASE(each_of_many_large_buffers_is_captured_once),
    CHECK_CASE(hint_of_a_tiny_buffer_does_not_shred_payloads),
    CHECK_CASE(nothing_is_left_behind),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    faults_install();
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
