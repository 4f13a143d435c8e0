/* The origin's side of channels: consumers that misbehave, files that change, processes that fork or die. */
#include "channel_fixture.h"
#include "os/fds.h"

#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

extern char **environ;

/* ---- a plain socket as consumer ---- */

static int connect_to(uint16_t port, int receive_buffer) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(fd >= 0);
    if (receive_buffer > 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    REQUIRE(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static void request(uint8_t out[ODB_WIRE_FETCH_FRAME], const struct odb_span *span) {
    struct odb_wire_fetch wire = {.payload = span->payload, .offset = span->offset, .length = span->length};
    memcpy(wire.token, span->token, sizeof wire.token);
    odb_wire_fetch_encode(out, &wire);
}

static void expect_data(int fd, const struct odb_span *span, uint32_t seed) {
    struct odb_wire_header header;
    struct odb_wire_data data;
    uint8_t frame[ODB_WIRE_DATA_FRAME], *body = malloc(span->length);
    REQUIRE(receive_all(fd, frame, sizeof frame));
    CHECK_EQ(odb_wire_header_decode(&header, frame), ODB_WIRE_OK);
    CHECK_EQ(header.type, ODB_WIRE_DATA);
    CHECK_EQ(odb_wire_data_decode(&data, frame + ODB_WIRE_HEADER_SIZE), ODB_WIRE_OK);
    CHECK(data.payload == span->payload && data.offset == span->offset && data.length == span->length);
    REQUIRE(receive_all(fd, body, span->length));
    CHECK(fixture_same(body, span->length, seed, span->offset));
    free(body);
}

static void expect_fail(int fd, const struct odb_span *span, uint16_t reason) {
    struct odb_wire_header header;
    struct odb_wire_fail fail = {.reason = 0};
    uint8_t frame[ODB_WIRE_FAIL_FRAME];
    REQUIRE(receive_all(fd, frame, sizeof frame));
    CHECK_EQ(odb_wire_header_decode(&header, frame), ODB_WIRE_OK);
    CHECK_EQ(header.type, ODB_WIRE_FAIL);
    CHECK_EQ(odb_wire_fail_decode(&fail, frame + ODB_WIRE_HEADER_SIZE), ODB_WIRE_OK);
    CHECK(fail.payload == span->payload && fail.reason == reason);
}

/* ---- another process as origin: announces one payload and serves until it is killed ---- */

struct announcement {
    uint16_t port;
    struct odb_span span;
};

enum { REMOTE_SIZE = 32 << 20, REMOTE_SEED = 5 };

static int run_origin(const char *descriptors) {
    struct announcement out = {.port = 0};
    struct rlimit limit = {(rlim_t)atol(descriptors), (rlim_t)atol(descriptors)};
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* never outlives the test */
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    begin();
    out.span = announce_file(fixture_file(REMOTE_SIZE, REMOTE_SEED), 0, REMOTE_SIZE);
    out.port = odb_origin_port(&origin);
    REQUIRE(write(STDOUT_FILENO, &out, sizeof out) == (ssize_t)sizeof out);
    for (;;) {
        pause();
    }
}

static pid_t start_origin(const char *descriptors, struct odb_span *span) {
    char program[] = "/proc/self/exe", role[] = "--origin", number[16];
    char *arguments[] = {program, role, number, NULL};
    posix_spawn_file_actions_t actions;
    struct announcement in;
    int ends[2];
    pid_t pid;
    snprintf(number, sizeof number, "%s", descriptors);
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    REQUIRE(posix_spawn(&pid, program, &actions, NULL, arguments, environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    REQUIRE(read(ends[0], &in, sizeof in) == (ssize_t)sizeof in);
    close(ends[0]);
    *span = in.span;
    return pid;
}

static void kill_origin(pid_t pid) {
    kill(pid, SIGKILL);
    REQUIRE(waitpid(pid, NULL, 0) == pid);
}

/* ---- cases ---- */

static void a_file_truncated_while_it_is_served_breaks_the_channel_and_is_not_padded(void) {
    enum { SIZE = 48 << 20 };
    begin();
    uint64_t failures = count(ODB_STAT_serve_failures);
    int fd = fixture_file(SIZE, 1);
    struct odb_span span = announce_file(fd, 0, SIZE);
    uint8_t frame[ODB_WIRE_FETCH_FRAME], header[ODB_WIRE_DATA_FRAME];
    static uint8_t body[1 << 16];
    int consumer = connect_to(span.origin.port, 65536);
    request(frame, &span);
    REQUIRE(send(consumer, frame, sizeof frame, 0) == (ssize_t)sizeof frame);
    REQUIRE(receive_all(consumer, header, sizeof header));
    REQUIRE(ftruncate(fd, 4096) == 0); /* the origin cannot have sent all of it: nobody has read */
    uint64_t at = 0;
    ssize_t received;
    while ((received = recv(consumer, body, sizeof body, 0)) > 0) {
        if (!CHECK(fixture_same(body, (size_t)received, 1, at))) {
            break;
        }
        at += (uint64_t)received;
    }
    CHECK(at < SIZE);
    CHECK(received == 0 || errno == ECONNRESET);
    CHECK_EQ(count(ODB_STAT_serve_failures) - failures, 1);
    close(consumer);
    close(fd);
}

static void pipelined_requests_are_answered_in_order_however_they_are_cut(void) {
    begin();
    int fd = fixture_file(3 << 20, 3);
    struct odb_span a = announce_memory(5001, 1), b = announce_file(fd, 17, 3000000), c = announce_memory(1, 2),
                    denied = a;
    denied.token[0] ^= 1;
    uint8_t frames[4 * ODB_WIRE_FETCH_FRAME + ODB_WIRE_HEADER_SIZE + 2 * ODB_WIRE_RELEASE_UNIT];
    size_t length = 0;
    uint64_t released[2] = {a.payload, 12345};
    request(frames, &a), length += ODB_WIRE_FETCH_FRAME;
    length += odb_wire_release_encode(frames + length, released, 2);
    request(frames + length, &b), length += ODB_WIRE_FETCH_FRAME;
    request(frames + length, &denied), length += ODB_WIRE_FETCH_FRAME;
    request(frames + length, &c), length += ODB_WIRE_FETCH_FRAME;
    REQUIRE(length == sizeof frames);
    for (int cut = 0; cut < 3; cut++) {
        int consumer = connect_to(a.origin.port, 0);
        size_t step = cut == 0 ? length : cut == 1 ? 1 : 29;
        for (size_t at = 0; at < length; at += step) {
            size_t size = length - at < step ? length - at : step;
            REQUIRE(send(consumer, frames + at, size, 0) == (ssize_t)size);
        }
        expect_data(consumer, &a, 1);
        expect_data(consumer, &b, 3);
        expect_fail(consumer, &denied, ODB_WIRE_DENIED);
        expect_data(consumer, &c, 2);
        close(consumer);
    }
    close(fd);
}

static void a_long_pipeline_is_answered_to_the_end(void) {
    enum { REQUESTS = 2000 };
    begin();
    struct odb_span span = announce_memory(100, 4);
    static uint8_t frames[REQUESTS * ODB_WIRE_FETCH_FRAME];
    int consumer = connect_to(span.origin.port, 0);
    for (size_t i = 0; i < REQUESTS; i++) {
        request(frames + i * ODB_WIRE_FETCH_FRAME, &span);
    }
    REQUIRE(send(consumer, frames, sizeof frames, 0) == (ssize_t)sizeof frames);
    for (size_t i = 0; i < REQUESTS; i++) {
        expect_data(consumer, &span, 4);
    }
    close(consumer);
}

static void a_consumer_that_does_not_read_does_not_hold_up_others(void) {
    begin();
    int fd = fixture_file(32 << 20, 6);
    struct odb_span large = announce_file(fd, 0, 32 << 20), small = announce_memory(50000, 7);
    uint8_t frame[ODB_WIRE_FETCH_FRAME];
    int consumer = connect_to(large.origin.port, 65536);
    request(frame, &large);
    REQUIRE(send(consumer, frame, sizeof frame, 0) == (ssize_t)sizeof frame);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(fetch(&small, 7), 0);
    }
    expect_data(consumer, &large, 6);
    close(consumer);
    close(fd);
}

static void garbage_to_the_origin_resets_that_channel_only(void) {
    begin();
    struct odb_span span = announce_memory(10000, 1);
    uint8_t frame[ODB_WIRE_FETCH_FRAME], byte;
    for (size_t spoiled = 0; spoiled <= ODB_WIRE_HEADER_SIZE; spoiled++) {
        uint64_t before = count(ODB_STAT_protocol_errors);
        request(frame, &span);
        if (spoiled < ODB_WIRE_HEADER_SIZE) {
            frame[spoiled] ^= 0x10;
        } else {
            memset(frame + ODB_WIRE_HEADER_SIZE + 24, 0xff, 16); /* offset + length overflows */
        }
        int consumer = connect_to(span.origin.port, 0);
        REQUIRE(send(consumer, frame, sizeof frame, 0) == (ssize_t)sizeof frame);
        CHECK(recv(consumer, &byte, 1, 0) <= 0);
        CHECK_EQ(count(ODB_STAT_protocol_errors) - before, 1);
        close(consumer);
    }
    uint8_t data[ODB_WIRE_DATA_FRAME];
    int consumer = connect_to(span.origin.port, 0);
    struct odb_wire_data answer = {.payload = 1, .offset = 0, .length = 1}; /* a message, but not one for an origin */
    odb_wire_data_encode(data, &answer);
    REQUIRE(send(consumer, data, sizeof data, 0) == (ssize_t)sizeof data);
    CHECK(recv(consumer, &byte, 1, 0) <= 0);
    close(consumer);
    CHECK_EQ(fetch(&span, 1), 0);
}

static void a_killed_origin_is_an_error_and_no_hang(void) {
    begin();
    struct odb_span span;
    pid_t pid = start_origin("256", &span);
    struct odb_span part = odb_span_part(&span, 1 << 20, 1 << 20);
    CHECK_EQ(fetch(&part, REMOTE_SEED), 0);
    /* It dies in the middle of an answer, turned by hand: nobody reads, so it cannot have sent everything. */
    uint8_t *bytes = malloc(REMOTE_SIZE);
    struct iovec iov = {bytes, REMOTE_SIZE};
    struct odb_channel channel = {.connecting = true};
    struct pollfd entry = {.fd = odb_channel_connect(&span.origin), .events = POLLOUT};
    REQUIRE(entry.fd >= 0 && poll(&entry, 1, 20000) == 1);
    REQUIRE(kill(pid, SIGSTOP) == 0 && waitpid(pid, NULL, WUNTRACED) == pid);
    channel.fd = entry.fd;
    odb_channel_begin(&channel, &span, &iov, 1, NULL, 0);
    CHECK_EQ(odb_channel_progress(&channel), ODB_CHANNEL_WANT_READ);
    REQUIRE(kill(pid, SIGCONT) == 0);
    entry.events = POLLIN;
    REQUIRE(poll(&entry, 1, 20000) == 1);
    kill_origin(pid);
    enum odb_progress progress;
    while ((progress = odb_channel_progress(&channel)) == ODB_CHANNEL_WANT_READ) {
        REQUIRE(poll(&entry, 1, 20000) == 1);
    }
    CHECK_EQ(progress, ODB_CHANNEL_FAILED);
    CHECK_EQ(channel.error, -ECONNRESET);
    CHECK(channel.body_left > 0 && channel.body_left < REMOTE_SIZE);
    CHECK(fixture_same(bytes, REMOTE_SIZE - channel.body_left, REMOTE_SEED, 0));
    odb_fds_close(channel.fd);
    free(bytes);
    CHECK_EQ(fetch(&part, REMOTE_SEED), -ECONNREFUSED);
}

static void an_origin_short_of_descriptors_closes_the_oldest_idle_channel(void) {
    begin();
    struct odb_span span;
    pid_t pid = start_origin("64", &span); /* a quarter of them for channels */
    int idle[20];
    uint8_t byte;
    struct odb_span part = odb_span_part(&span, 12345, 70000);
    for (int i = 0; i < 20; i++) {
        idle[i] = connect_to(span.origin.port, 0);
    }
    CHECK_EQ(fetch(&part, REMOTE_SEED), 0); /* accepted after all the others */
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(recv(idle[i], &byte, 1, 0), 0);
    }
    for (int i = 5; i < 20; i++) {
        CHECK(recv(idle[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    }
    for (int i = 0; i < 20; i++) {
        close(idle[i]);
    }
    kill_origin(pid);
}

/* The child has neither the parent's channels nor its listener, and may become an origin itself. */
static int act_as_child(const struct odb_span *span, int inherited) {
    uint16_t parent_port = span->origin.port;
    atomic_store(&check_failures, 0);
    stats = fixture_stats_begin(&counters);
    odb_driver_after_fork_child(&driver);
    odb_origin_after_fork_child(&origin);
    odb_channels_after_fork_child(&channels);
    odb_store_after_fork_child(&store);
    CHECK(!odb_fds_is_internal(inherited) && fcntl(inherited, F_GETFD) == -1);
    CHECK_EQ(odb_origin_port(&origin), 0);
    CHECK_EQ(fetch(span, 1), 0); /* from the parent */
    REQUIRE(odb_origin_start(&origin, &options, stats, &store, &driver));
    CHECK(odb_origin_port(&origin) != parent_port);
    struct odb_span own = announce_memory(20000, 2);
    CHECK_EQ(fetch(&own, 2), 0);
    CHECK_EQ(count(ODB_STAT_channels_opened), 2);
    return atomic_load(&check_failures) == 0 ? 0 : 1;
}

static void a_forked_child_shares_no_channel_with_its_parent(void) {
    begin();
    struct odb_span span = announce_memory(10000, 1);
    CHECK_EQ(fetch(&span, 1), 0);
    int idle = atomic_load(&channels.slots[channels.origins[0].first - 1].fd), status;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        _exit(act_as_child(&span, idle));
    }
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    uint64_t before = count(ODB_STAT_channels_opened);
    CHECK_EQ(fetch(&span, 1), 0);
    CHECK_EQ(count(ODB_STAT_channels_opened) - before, 0);
}

static void the_channel_option_says_where_to_listen(void) {
    begin();
    static struct odb_origin_server servers[2];
    static struct odb_options bound;
    bound = options;
    int probe = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(probe, (struct sockaddr *)&address, length) == 0 && listen(probe, 1) == 0);
    REQUIRE(getsockname(probe, (struct sockaddr *)&address, &length) == 0);
    char rule[64];
    snprintf(rule, sizeof rule, "127.0.0.1:%u", ntohs(address.sin_port));
    REQUIRE(odb_options_set(&bound, "channel", rule));
    CHECK(!odb_origin_start(&servers[0], &bound, stats, &store, &driver)); /* taken */
    CHECK_EQ(odb_origin_port(&servers[0]), 0);
    close(probe);
    REQUIRE(odb_origin_start(&servers[1], &bound, stats, &store, &driver));
    CHECK_EQ(odb_origin_port(&servers[1]), ntohs(address.sin_port));
    struct odb_span span = located(announce_memory(5000, 1), odb_origin_port(&servers[1]));
    CHECK_EQ(fetch(&span, 1), 0);
}

static const struct check_case cases[] = {
    CHECK_CASE(a_file_truncated_while_it_is_served_breaks_the_channel_and_is_not_padded),
    CHECK_CASE(pipelined_requests_are_answered_in_order_however_they_are_cut),
    CHECK_CASE(a_long_pipeline_is_answered_to_the_end),
    CHECK_CASE(a_consumer_that_does_not_read_does_not_hold_up_others),
    CHECK_CASE(garbage_to_the_origin_resets_that_channel_only),
    CHECK_CASE(a_killed_origin_is_an_error_and_no_hang),
    CHECK_CASE(an_origin_short_of_descriptors_closes_the_oldest_idle_channel),
    CHECK_CASE(a_forked_child_shares_no_channel_with_its_parent),
    CHECK_CASE(the_channel_option_says_where_to_listen),
};

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--origin") == 0) {
        return run_origin(argv[2]);
    }
    return check_run(cases, sizeof cases / sizeof cases[0], argc, argv);
}
