/* The consumer's side of channels: fetches from a real origin, and from origins that misbehave. */
#include "channel_fixture.h"
#include "os/clock.h"

#include <sys/stat.h>

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

static const struct check_case cases[] = {
    CHECK_CASE(memory_and_files_arrive_byte_for_byte),
    CHECK_CASE(one_connection_serves_consecutive_fetches),
    CHECK_CASE(a_refusal_is_reported_and_the_channel_goes_on),
    CHECK_CASE(a_changed_file_is_stale),
    CHECK_CASE(an_answer_may_come_byte_by_byte),
    CHECK_CASE(garbage_from_the_origin_is_a_protocol_error),
    CHECK_CASE(a_stale_pooled_channel_is_replaced_once),
    CHECK_CASE(an_answer_that_breaks_off_is_an_error_and_not_asked_again),
    CHECK_CASE(a_silent_origin_times_out),
    CHECK_CASE(threads_may_fetch_at_once),
    CHECK_CASE(a_held_pool_delays_nobody),
    CHECK_CASE(idle_connections_are_bounded_and_used_in_turn),
    CHECK_CASE(releases_travel_with_the_next_fetch),
};

CHECK_MAIN(cases)
