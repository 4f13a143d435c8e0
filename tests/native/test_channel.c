/* Channels end to end: the real origin in the real helper thread, real consumers over loopback, and origins that misbehave. */
#include "core/channel.h"
#include "core/origin.h"
#include "os/clock.h"
#include "os/fds.h"
#include "payload_fixture.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

/* The helper thread outlives every case, and forked children start their own. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
    return "die_after_fork=0";
}

static const uint8_t loopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};

/* ---- this process as origin and as consumer ---- */

static struct odb_options options;
static struct fixture_stats counters;
static struct odb_stats *stats;
static struct odb_store store;
static struct odb_driver driver;
static struct odb_origin_server origin;
static struct odb_channels channels;

static void begin(void) {
    static bool started;
    if (!started) {
        REQUIRE(odb_real_load());
        odb_options_default(&options);
        options.store_max = 64 << 20;
        stats = fixture_stats_begin(&counters);
        odb_store_init(&store, &options, stats);
        REQUIRE(odb_origin_start(&origin, &options, stats, &store, &driver));
        started = true;
    }
    odb_channels_after_fork_child(&channels); /* every case begins with an empty pool */
    odb_channels_init(&channels, &options, stats);
}

static struct odb_span located(struct odb_span span, uint16_t port) {
    memcpy(span.origin.address, loopback, sizeof loopback);
    span.origin.port = port;
    return span;
}

static struct odb_span announce_memory(size_t length, uint32_t seed) {
    uint8_t *bytes = malloc(length);
    struct odb_span span = {.length = 0};
    fixture_fill(bytes, length, seed, 0);
    struct iovec iov = {bytes, length};
    REQUIRE(odb_store_capture_memory(&store, &iov, 1, length, &span) == ODB_CAPTURED);
    free(bytes);
    return located(span, odb_origin_port(&origin));
}

static struct odb_span announce_file(int fd, uint64_t offset, uint64_t length) {
    struct odb_span span = {.length = 0};
    REQUIRE(odb_store_capture_file(&store, fd, offset, length, &span) == ODB_CAPTURED);
    return located(span, odb_origin_port(&origin));
}

/* Fetches a span into three pieces of odd sizes and compares. */
static int fetch_from(struct odb_channels *pool, const struct odb_span *span, uint32_t seed) {
    uint8_t *bytes = calloc(1, span->length + 1);
    size_t first = span->length / 3, second = span->length / 7;
    struct iovec iov[4] = {{bytes, first},
                           {bytes + first, 0},
                           {bytes + first, second},
                           {bytes + first + second, span->length - first - second}};
    errno = 4711;
    int error = odb_channels_fetch(pool, span, iov, 4);
    CHECK_EQ(errno, 4711);
    if (error == 0) {
        CHECK(fixture_same(bytes, span->length, seed, span->offset));
    }
    CHECK_EQ(bytes[span->length], 0);
    free(bytes);
    return error;
}

static int fetch(const struct odb_span *span, uint32_t seed) {
    return fetch_from(&channels, span, seed);
}

static uint64_t count(enum odb_stat which) {
    return fixture_count(stats, which);
}

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

static bool receive_all(int fd, uint8_t *out, size_t length) {
    for (size_t at = 0; at < length;) {
        ssize_t received = recv(fd, out + at, length - at, 0);
        if (received <= 0) {
            return false;
        }
        at += (size_t)received;
    }
    return true;
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

/* ---- an origin that follows a script: per connection it reads `reads` bytes, writes `answer`, and closes ---- */

struct script {
    size_t reads;
    const uint8_t *answer;
    size_t length;
    size_t step; /* bytes per write, 0: all at once */
    bool stay;   /* wait until the consumer closes */
};

struct actor {
    int listener;
    uint16_t port;
    const struct script *scripts;
    int count;
    pthread_t thread;
};

static void play(int fd, const struct script *script) {
    uint8_t sink[256];
    if (script->reads > 0 && !receive_all(fd, sink, script->reads)) {
        return;
    }
    size_t step = script->step > 0 ? script->step : script->length;
    for (size_t at = 0; at < script->length; at += step) {
        size_t size = script->length - at < step ? script->length - at : step;
        if (send(fd, script->answer + at, size, MSG_NOSIGNAL) != (ssize_t)size) {
            return;
        }
    }
    while (script->stay && recv(fd, sink, sizeof sink, 0) > 0) {
    }
}

static void *act(void *argument) {
    struct actor *actor = argument;
    int on = 1;
    for (int i = 0; i < actor->count; i++) {
        int fd = accept(actor->listener, NULL, NULL);
        REQUIRE(fd >= 0);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        play(fd, &actor->scripts[i]);
        close(fd);
    }
    return NULL;
}

static void actor_begin(struct actor *actor, const struct script *scripts, int number) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    actor->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(actor->listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(actor->listener, 8) == 0);
    REQUIRE(getsockname(actor->listener, (struct sockaddr *)&address, &length) == 0);
    actor->port = ntohs(address.sin_port);
    actor->scripts = scripts;
    actor->count = number;
    REQUIRE(pthread_create(&actor->thread, NULL, act, actor) == 0);
}

static void actor_end(struct actor *actor) {
    pthread_join(actor->thread, NULL);
    close(actor->listener);
}

/* What an origin would answer to a fetch of `length` bytes at `offset`: DATA and the bytes. */
static size_t data_answer(uint8_t *out, uint64_t payload, uint64_t offset, size_t length, uint32_t seed) {
    struct odb_wire_data data = {.payload = payload, .offset = offset, .length = length};
    odb_wire_data_encode(out, &data);
    fixture_fill(out + ODB_WIRE_DATA_FRAME, length, seed, offset);
    return ODB_WIRE_DATA_FRAME + length;
}

static struct odb_span invented(const struct actor *actor, uint64_t offset, uint64_t length) {
    return located((struct odb_span){.payload = 77, .offset = offset, .length = length}, actor->port);
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

static void memory_and_files_arrive_byte_for_byte(void) {
    static const size_t sizes[] = {1, 31, 4095, 4096, 65537, 1000003};
    begin();
    int fd = fixture_file(3000000, 2);
    for (uint32_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct odb_span memory = announce_memory(sizes[i], i), file = announce_file(fd, 12345 + i, sizes[i]);
        CHECK_EQ(fetch(&memory, i), 0);
        CHECK_EQ(fetch(&file, 2), 0);
        struct odb_span part = odb_span_part(&memory, sizes[i] / 2, sizes[i] - sizes[i] / 2);
        CHECK_EQ(fetch(&part, i), 0);
    }
    struct odb_span large = announce_file(fd, 1, 2999999);
    CHECK_EQ(fetch(&large, 2), 0);
    CHECK_EQ(count(ODB_STAT_fetch_failures), 0);
    close(fd);
}

static void one_connection_serves_consecutive_fetches(void) {
    begin();
    uint64_t before = count(ODB_STAT_channels_opened), serves = count(ODB_STAT_serves);
    struct odb_span span = announce_memory(10000, 1), empty = odb_span_part(&span, 5, 0);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(fetch(&span, 1), 0);
    }
    CHECK_EQ(fetch(&empty, 1), 0);
    CHECK_EQ(count(ODB_STAT_channels_opened) - before, 1);
    CHECK(count(ODB_STAT_serves) - serves >= 49); /* the last one is counted after its bytes have left */
}

static void a_refusal_is_reported_and_the_channel_goes_on(void) {
    begin();
    uint64_t before = count(ODB_STAT_channels_opened);
    struct odb_span good = announce_memory(10000, 1), bad = good;
    bad.token[3] ^= 1;
    CHECK_EQ(fetch(&bad, 1), -EACCES);
    bad = good, bad.length++;
    CHECK_EQ(fetch(&bad, 1), -EACCES);
    bad = good, bad.payload ^= 1ull << 60;
    CHECK_EQ(fetch(&bad, 1), -ESTALE);
    CHECK_EQ(fetch(&good, 1), 0);
    CHECK_EQ(count(ODB_STAT_channels_opened) - before, 1);
}

static void a_changed_file_is_stale(void) {
    begin();
    int fd = fixture_file(10000, 1);
    struct odb_span span = announce_file(fd, 0, 10000);
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    CHECK_EQ(fetch(&span, 1), 0);
    REQUIRE(futimens(fd, times) == 0);
    CHECK_EQ(fetch(&span, 1), -ESTALE);
    close(fd);
}

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

static void an_answer_may_come_byte_by_byte(void) {
    begin();
    uint8_t answer[ODB_WIRE_DATA_FRAME + 300];
    struct script script = {ODB_WIRE_FETCH_FRAME, answer, data_answer(answer, 77, 13, 300, 8), 1, true};
    struct actor actor;
    actor_begin(&actor, &script, 1);
    struct odb_span span = invented(&actor, 13, 300);
    CHECK_EQ(fetch(&span, 8), 0);
    odb_channels_after_fork_child(&channels); /* closes the idle connection, which ends the script */
    actor_end(&actor);
}

/* Every answer that is not the one to this fetch. */
static void garbage_from_the_origin_is_a_protocol_error(void) {
    uint8_t answers[8][ODB_WIRE_DATA_FRAME + 300];
    struct script scripts[8];
    begin();
    for (int i = 0; i < 8; i++) {
        scripts[i] =
            (struct script){ODB_WIRE_FETCH_FRAME, answers[i], data_answer(answers[i], 77, 13, 300, 8), 0, false};
    }
    data_answer(answers[0], 78, 13, 300, 8);
    data_answer(answers[1], 77, 14, 300, 8);
    data_answer(answers[2], 77, 13, 299, 8);
    answers[3][0] ^= 1;
    answers[4][6] ^= 1;
    memset(answers[5], 'H', sizeof answers[5]);
    struct odb_wire_fail fail = {.payload = 77, .reason = ODB_WIRE_GONE};
    odb_wire_fail_encode(answers[6], &fail); /* with bytes behind it */
    fail.payload = 78;
    odb_wire_fail_encode(answers[7], &fail); /* of another payload */
    scripts[7].length = ODB_WIRE_FAIL_FRAME;
    struct actor actor;
    actor_begin(&actor, scripts, 8);
    struct odb_span span = invented(&actor, 13, 300);
    uint64_t before = count(ODB_STAT_protocol_errors);
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(fetch(&span, 8), -EPROTO);
    }
    CHECK_EQ(count(ODB_STAT_protocol_errors) - before, 8);
    actor_end(&actor);
}

static void a_stale_pooled_channel_is_replaced_once(void) {
    begin();
    uint8_t answer[ODB_WIRE_DATA_FRAME + 300];
    size_t length = data_answer(answer, 77, 0, 300, 8);
    struct script scripts[3] = {{ODB_WIRE_FETCH_FRAME, answer, length, 0, false},
                                {ODB_WIRE_FETCH_FRAME, answer, length, 0, false},
                                {ODB_WIRE_FETCH_FRAME, answer, 0, 0, false}};
    struct actor actor;
    actor_begin(&actor, scripts, 3);
    struct odb_span span = invented(&actor, 0, 300);
    CHECK_EQ(fetch(&span, 8), 0);
    CHECK_EQ(fetch(&span, 8), 0); /* the first connection was closed meanwhile */
    CHECK_EQ(fetch(&span, 8), -ECONNRESET);
    actor_end(&actor);
    CHECK_EQ(fetch(&span, 8), -ECONNREFUSED);
}

static void an_answer_that_breaks_off_is_an_error_and_not_asked_again(void) {
    begin();
    uint8_t answer[ODB_WIRE_DATA_FRAME + 300];
    size_t length = data_answer(answer, 77, 0, 300, 8);
    for (size_t cut = 1; cut < length; cut += 41) {
        struct script script = {ODB_WIRE_FETCH_FRAME, answer, cut, 0, false};
        struct actor actor;
        actor_begin(&actor, &script, 1);
        struct odb_span span = invented(&actor, 0, 300);
        CHECK_EQ(fetch(&span, 8), -ECONNRESET);
        actor_end(&actor);
    }
}

static void a_silent_origin_times_out(void) {
    begin();
    static struct odb_channels impatient;
    static struct odb_options hurried;
    hurried = options;
    hurried.deadline_ms = 150;
    odb_channels_init(&impatient, &hurried, stats);
    uint8_t answer[ODB_WIRE_DATA_FRAME + 300];
    data_answer(answer, 77, 0, 300, 8);
    struct script scripts[2] = {{ODB_WIRE_FETCH_FRAME, answer, 0, 0, true},
                                {ODB_WIRE_FETCH_FRAME, answer, 100, 0, true}};
    struct actor actor;
    actor_begin(&actor, scripts, 2);
    struct odb_span span = invented(&actor, 0, 300);
    for (int i = 0; i < 2; i++) {
        uint64_t since = odb_clock_ms();
        CHECK_EQ(fetch_from(&impatient, &span, 8), -ETIMEDOUT);
        CHECK(odb_clock_ms() - since >= 150);
    }
    actor_end(&actor);
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

static void *fetch_parts(void *argument) {
    const struct odb_span *spans = argument; /* a file of seed 9 and memory of seed 10 */
    uint64_t random = (uint64_t)(uintptr_t)&random;
    for (int i = 0; i < 60; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const struct odb_span *span = &spans[i % 2];
        uint64_t skip = (random >> 20) % span->length, length = 1 + (random >> 40) % (span->length - skip);
        struct odb_span part = odb_span_part(span, skip, length < 200000 ? length : 200000);
        CHECK_EQ(fetch(&part, i % 2 == 0 ? 9 : 10), 0);
        if (i % 10 == 0) {
            odb_channels_release(&channels, &spans[1]);
        }
    }
    return NULL;
}

static void threads_may_fetch_at_once(void) {
    begin();
    int fd = fixture_file(3 << 20, 9);
    struct odb_span spans[2] = {announce_file(fd, 100, (3 << 20) - 100), announce_memory(1 << 20, 10)};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, fetch_parts, spans) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    close(fd);
}

static void a_held_pool_delays_nobody(void) {
    begin();
    struct odb_span span = announce_memory(10000, 1);
    CHECK_EQ(fetch(&span, 1), 0);
    odb_lock_take(&channels.lock); /* as if a handler had interrupted the holder */
    CHECK_EQ(fetch(&span, 1), 0);
    odb_channels_release(&channels, &span);
    odb_lock_drop(&channels.lock);
    CHECK_EQ(fetch(&span, 1), 0);
}

static void idle_connections_are_bounded_and_used_in_turn(void) {
    begin();
    static struct odb_channels few;
    static struct odb_options small;
    small = options;
    small.channels_max = 1;
    odb_channels_init(&few, &small, stats);
    struct odb_span span = announce_memory(100, 1);
    uint64_t before = count(ODB_STAT_channels_opened);
    odb_lock_take(&few.lock);
    CHECK_EQ(fetch_from(&few, &span, 1), 0); /* unknown to the pool: closed */
    odb_lock_drop(&few.lock);
    CHECK_EQ(fetch_from(&few, &span, 1), 0);
    CHECK_EQ(fetch_from(&few, &span, 1), 0);
    CHECK_EQ(count(ODB_STAT_channels_opened) - before, 2);
    CHECK_EQ(few.origins[0].idle, 1);
    odb_channels_after_fork_child(&few);
    CHECK_EQ(few.origins[0].idle, 0);
}

static void releases_travel_with_the_next_fetch(void) {
    begin();
    struct odb_span spans[2] = {announce_memory(10000, 1), announce_memory(10000, 2)};
    CHECK_EQ(fetch(&spans[0], 1), 0);
    odb_channels_release(&channels, &spans[0]);
    CHECK_EQ(fetch(&spans[1], 2), 0);
    odb_store_reap(&store, odb_clock_ms() + options.lease_ms / 2);
    CHECK_EQ(fetch(&spans[0], 1), -ESTALE);
    CHECK_EQ(fetch(&spans[1], 2), 0);
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
    CHECK_CASE(memory_and_files_arrive_byte_for_byte),
    CHECK_CASE(one_connection_serves_consecutive_fetches),
    CHECK_CASE(a_refusal_is_reported_and_the_channel_goes_on),
    CHECK_CASE(a_changed_file_is_stale),
    CHECK_CASE(a_file_truncated_while_it_is_served_breaks_the_channel_and_is_not_padded),
    CHECK_CASE(pipelined_requests_are_answered_in_order_however_they_are_cut),
    CHECK_CASE(a_long_pipeline_is_answered_to_the_end),
    CHECK_CASE(a_consumer_that_does_not_read_does_not_hold_up_others),
    CHECK_CASE(garbage_to_the_origin_resets_that_channel_only),
    CHECK_CASE(an_answer_may_come_byte_by_byte),
    CHECK_CASE(garbage_from_the_origin_is_a_protocol_error),
    CHECK_CASE(a_stale_pooled_channel_is_replaced_once),
    CHECK_CASE(an_answer_that_breaks_off_is_an_error_and_not_asked_again),
    CHECK_CASE(a_silent_origin_times_out),
    CHECK_CASE(a_killed_origin_is_an_error_and_no_hang),
    CHECK_CASE(an_origin_short_of_descriptors_closes_the_oldest_idle_channel),
    CHECK_CASE(threads_may_fetch_at_once),
    CHECK_CASE(a_held_pool_delays_nobody),
    CHECK_CASE(idle_connections_are_bounded_and_used_in_turn),
    CHECK_CASE(releases_travel_with_the_next_fetch),
    CHECK_CASE(a_forked_child_shares_no_channel_with_its_parent),
    CHECK_CASE(the_channel_option_says_where_to_listen),
};

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--origin") == 0) {
        return run_origin(argv[2]);
    }
    return check_run(cases, sizeof cases / sizeof cases[0], argc, argv);
}
