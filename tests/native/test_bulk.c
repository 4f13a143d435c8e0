/* Frames that are larger than what a stream buffers: their bytes go from the kernel to where the application wants them, whatever is beside them. */
#include "check.h"
#include "core/heap.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <sys/ioctl.h>

#define P ((size_t)ODB_PAGE)

enum { BODY = 200000, WIRE_MAX = ODB_WIRE_HELLO_FRAME + 4 * 64 + BODY };

static uint8_t wire[WIRE_MAX], plain[BODY + 64], got_bytes[2 * BODY];
static size_t wire_length, wire_sent, plain_length;
static int raw, fd;

/* Calls that asked the kernel for bytes, and how many of them named memory of the application. */
static unsigned long asked, direct;
static _Thread_local bool counts; /* the helper thread's calls are its own */
static const uint8_t *application;
static ssize_t (*genuine_recvmsg)(int, struct msghdr *, int);
static ssize_t (*genuine_recv)(int, void *, size_t, int);

static ssize_t counted_recvmsg(int from, struct msghdr *message, int flags) {
    const uint8_t *base = message->msg_iov[0].iov_base;
    if (counts && from == fd) {
        asked++;
        direct += base >= application && base < application + sizeof got_bytes;
    }
    return genuine_recvmsg(from, message, flags);
}

static ssize_t counted_recv(int from, void *to, size_t room, int flags) {
    if (counts && from == fd) asked++;
    return genuine_recv(from, to, room, flags);
}

/* Real bytes, a large frame, real bytes. */
static void begin(void) {
    wire_sent = 0;
    memcpy(plain, "before", 6);
    fixture_fill(plain + 6, BODY, 7, 0);
    memcpy(plain + 6 + BODY, "behind", 6);
    plain_length = BODY + 12;
    wire_length = world_hello(wire);
    wire_length += world_real(wire + wire_length, plain, 6);
    wire_length += world_real(wire + wire_length, plain + 6, BODY);
    wire_length += world_real(wire + wire_length, plain + 6 + BODY, 6);
    world_raw_client(&raw, &fd);
    application = got_bytes;
    asked = direct = 0;
}

static void end(void) {
    world_close(raw);
    world_close(fd);
}

/* As much as the socket takes; at most `most` bytes of the message in all. */
static void pump(size_t most) {
    while (wire_sent < most) {
        ssize_t sent = odb_real.send(raw, wire + wire_sent, most - wire_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) return;
        wire_sent += (size_t)sent;
    }
}

/* Waits until the kernel has told everything that was sent. */
static void await_queue(size_t least) {
    int queued = 0;
    while (queued < (int)least) REQUIRE(odb_real.ioctl(fd, FIONREAD, &queued) == 0);
}

static void bulk_arrives_in_order_and_directly(void) {
    static const size_t sizes[] = {1, 100, 4095, 4096, 5000, 16384, 65536, BODY, 2 * BODY};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t done = 0;
        begin();
        while (done < plain_length) {
            pump(wire_length);
            ssize_t got = world_recv(fd, got_bytes + done, sizes[i] < sizeof got_bytes - done ? sizes[i] : BODY, 0);
            REQUIRE(got > 0);
            done += (size_t)got;
        }
        CHECK_EQ(done, plain_length);
        CHECK_MEM_EQ(got_bytes, plain, plain_length);
        CHECK(sizes[i] < 4096 ? direct == 0 : sizes[i] < 5000 || direct > 0);
        CHECK_EQ(world_recv(fd, got_bytes, 1, MSG_DONTWAIT), -1);
        end();
    }
}

static void several_buffers_are_filled_by_one_call_of_the_kernel(void) {
    struct iovec iov[5] = {
        {got_bytes, 0}, {got_bytes, 4096}, {got_bytes + 4096, 0}, {got_bytes + 4096, 4096}, {got_bytes + 8192, 8192}};
    struct msghdr header = {.msg_iov = iov, .msg_iovlen = 5};
    begin();
    pump(60000);
    await_queue(60000);
    CHECK_EQ(world_recv(fd, got_bytes, 20000, 0), 20000);
    CHECK_MEM_EQ(got_bytes, plain, 20000);
    ssize_t got = odb_receive(&world, fd, &header, 0, ODB_SOCKET_CALL);
    asked = direct = 0;
    ssize_t more = odb_receive(&world, fd, &header, 0, ODB_SOCKET_CALL);
    CHECK_EQ(got, 16384);
    CHECK_EQ(more, 16384);
    CHECK_MEM_EQ(got_bytes, plain + 20000 + 16384, 16384);
    CHECK_EQ(asked, 1);
    CHECK_EQ(direct, 1);
    end();
}

static void waitall_and_peek_and_trunc_hold_amid_a_frame(void) {
    begin();
    pump(100000);
    await_queue(100000);
    CHECK_EQ(world_recv(fd, got_bytes, 50000, MSG_WAITALL), 50000);
    CHECK_MEM_EQ(got_bytes, plain, 50000);
    CHECK_EQ(world_recv(fd, got_bytes, 5000, MSG_PEEK), 5000);
    CHECK_MEM_EQ(got_bytes, plain + 50000, 5000);
    CHECK_EQ(world_recv(fd, got_bytes, 6000, 0), 6000);
    CHECK_MEM_EQ(got_bytes, plain + 50000, 6000);
    memset(got_bytes, 'x', 9000);
    CHECK_EQ(world_recv(fd, got_bytes, 9000, MSG_TRUNC | MSG_WAITALL), 9000);
    CHECK(got_bytes[0] == 'x' && got_bytes[8999] == 'x');
    CHECK_EQ(world_recv(fd, got_bytes, 7000, MSG_WAITALL), 7000);
    CHECK_MEM_EQ(got_bytes, plain + 65000, 7000);
    end();
}

/* As the kernel does: what it does not write stays. */
static void bytes_behind_the_received_ones_are_not_touched(void) {
    begin();
    pump(20000);
    await_queue(20000);
    CHECK_EQ(world_recv(fd, got_bytes, 10000, 0), 10000);
    memset(got_bytes, 'x', sizeof got_bytes);
    ssize_t got = world_recv(fd, got_bytes, BODY, 0);
    CHECK_EQ(got, 20000 - (ssize_t)(ODB_WIRE_HELLO_FRAME + 2 * ODB_WIRE_HEADER_SIZE) - 10000);
    CHECK_MEM_EQ(got_bytes, plain + 10000, (size_t)got);
    for (size_t i = (size_t)got; i < sizeof got_bytes; i++) REQUIRE(got_bytes[i] == 'x');
    end();
}

static void old_windows_beside_bulk_survive(void) {
    struct odb_span old = world_payload(20, 16 * P);
    uint8_t *block = world_pages(16 * P);
    begin();
    pump(20000 + 5 * P);
    await_queue(20000 + 5 * P);
    CHECK_EQ(world_recv(fd, got_bytes, 19000, MSG_WAITALL), 19000);
    REQUIRE(odb_windows_map(&world.windows, block, 16 * P, &old) == 0);
    ssize_t got = world_recv(fd, block + 100, 15 * P, MSG_DONTWAIT);
    REQUIRE(got > 0 && (size_t)got < 7 * P);
    CHECK_MEM_EQ(block + 100, plain + 19000, (size_t)got);
    CHECK(world_same(block, 100, 20, 0));
    CHECK(world_same(block + 100 + got, 16 * P - 100 - (size_t)got, 20, 100 + (uint64_t)got));
    odb_free(&world, block);
    end();
}

static void available_is_exact_amid_a_frame_and_takes_nothing(void) {
    int count = -1;
    begin();
    pump(50000);
    await_queue(50000);
    CHECK_EQ(world_recv(fd, got_bytes, 20000, MSG_WAITALL), 20000);
    size_t head = ODB_WIRE_HELLO_FRAME + 2 * ODB_WIRE_HEADER_SIZE;
    asked = 0;
    CHECK(odb_available(&world, fd, &count));
    CHECK_EQ(count, 50000 - head - 20000);
    CHECK_EQ(asked, 0);
    CHECK_EQ(world_recv(fd, got_bytes, 30000, 0), count);
    CHECK(odb_available(&world, fd, &count) && count == 0);
    end();
}

static void end_amid_a_frame_is_a_reset_and_reset_is_told_once(void) {
    size_t done = 0, head = ODB_WIRE_HELLO_FRAME + 2 * ODB_WIRE_HEADER_SIZE;
    ssize_t got;
    begin();
    pump(60000);
    REQUIRE(shutdown(raw, SHUT_WR) == 0);
    while ((got = world_recv(fd, got_bytes + done, 16384, 0)) > 0) done += (size_t)got;
    CHECK(got == -1 && errno == ECONNRESET);
    CHECK_EQ(done, 60000 - head);
    CHECK_MEM_EQ(got_bytes, plain, done);
    CHECK_EQ(world_recv(fd, got_bytes, 16384, 0), 0);
    end();
}

/* Edge-triggered: the reader stops at a full buffer, at a short one, or when told that nothing is left; each time all that came is reported. */
static void edges_amid_a_frame_are_not_lost(void) {
    struct epoll_event event;
    int set = world_set_made();
    size_t done = 0;
    begin();
    world_nonblocking(fd);
    world_epoll(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET);
    while (done < plain_length) {
        if (wire_sent < wire_length) pump(wire_sent + 30000 < wire_length ? wire_sent + 30000 : wire_length);
        CHECK_EQ(world_wait(set, &event, 1, 5000), 1);
        ssize_t got = world_recv(fd, got_bytes + done, 16384, 0);
        REQUIRE(got > 0);
        done += (size_t)got;
    }
    CHECK_MEM_EQ(got_bytes, plain, plain_length);
    asked = 0;
    CHECK_EQ(world_wait(set, &event, 1, 0), 0);
    CHECK_EQ(asked, 0); /* the last receive has shown that there is nothing */
    end();
    world_close(set);
}

static const struct check_case cases[] = {
    CHECK_CASE(bulk_arrives_in_order_and_directly),
    CHECK_CASE(several_buffers_are_filled_by_one_call_of_the_kernel),
    CHECK_CASE(waitall_and_peek_and_trunc_hold_amid_a_frame),
    CHECK_CASE(bytes_behind_the_received_ones_are_not_touched),
    CHECK_CASE(old_windows_beside_bulk_survive),
    CHECK_CASE(available_is_exact_amid_a_frame_and_takes_nothing),
    CHECK_CASE(end_amid_a_frame_is_a_reset_and_reset_is_told_once),
    CHECK_CASE(edges_amid_a_frame_are_not_lost),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    counts = true;
    genuine_recvmsg = odb_real.recvmsg;
    genuine_recv = odb_real.recv;
    odb_real.recvmsg = counted_recvmsg;
    odb_real.recv = counted_recv;
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
