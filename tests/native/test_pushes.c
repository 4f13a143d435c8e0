/* Pushing, both sides: this process is origin and consumer. Whatever is predicted wrongly may cost bytes, never correctness. */
#include "channel_fixture.h"
#include "os/clock.h"
#include "os/fds.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

static struct odb_channels direct;
static struct odb_options direct_options;

enum { PATIENCE_MS = 30000 };

static bool in_time(uint64_t since) {
    sched_yield();
    return odb_clock_ms() - since < PATIENCE_MS;
}

/* A consumer that is new to the origin, and the only one. */
static void begin_direct(void) {
    uint64_t since = odb_clock_ms();
    begin();
    odb_channels_after_fork_child(&direct); /* closes the channels of the case before */
    while (odb_pushes_wanted(&origin.pushes)) REQUIRE(in_time(since));
    direct_options = options;
    direct_options.strategy = ODB_STRATEGY_DIRECT;
    odb_channels_init(&direct, &direct_options, stats);
}

/* Fetches make a consumer known; then there is a channel with credits for `length` bytes. */
static struct odb_push *take_push(uint64_t length) {
    struct odb_span span = announce_memory(100, 1);
    uint64_t since = odb_clock_ms();
    struct odb_push *push;
    while (!(push = odb_pushes_take(&origin.pushes, 0, length))) {
        CHECK_EQ(fetch_from(&direct, &span, 1), 0);
        REQUIRE(in_time(since));
    }
    return push;
}

/* The span as its descriptor would announce it. */
static struct odb_span pushed_on(const struct odb_push *push, const struct odb_span *span) {
    struct odb_span announced = *span;
    announced.push_channel = push->number;
    announced.push_position = push->position;
    return announced;
}

static struct odb_span push_span(struct odb_push *push, const struct odb_span *span) {
    struct odb_span announced = pushed_on(push, span);
    odb_pushes_send(&origin.pushes, push, span, true);
    return announced;
}

/* The same channel again, once what was pushed on it is written. */
static struct odb_push *take_again(uint32_t number, uint64_t length) {
    uint64_t since = odb_clock_ms();
    for (;;) {
        struct odb_push *push = odb_pushes_take(&origin.pushes, 0, length);
        if (push && push->number == number) return push;
        if (push) odb_pushes_give_back(&origin.pushes, push);
        REQUIRE(in_time(since));
    }
}

/* ---- cases ---- */

static void a_pushed_body_is_taken_without_asking(void) {
    for (int ignored = 0; ignored < 2; ignored++) {
        begin_direct();
        REQUIRE(signal(SIGPIPE, ignored ? SIG_IGN : SIG_DFL) != SIG_ERR); /* who writes depends on it */
        odb_pushes_sigpipe_changed(&origin.pushes);
        struct odb_span span = announce_memory(300000, 2);
        struct odb_span announced = push_span(take_push(span.length), &span);
        uint64_t fetches = count(ODB_STAT_fetches), taken = count(ODB_STAT_push_bytes_taken);
        for (uint64_t at = 0; at < span.length; at += 70001) {
            uint64_t left = span.length - at;
            struct odb_span part = odb_span_part(&announced, at, left < 70001 ? left : 70001);
            CHECK_EQ(fetch_from(&direct, &part, 2), 0);
        }
        CHECK_EQ(count(ODB_STAT_fetches), fetches);
        CHECK_EQ(count(ODB_STAT_push_bytes_taken) - taken, span.length);
    }
}

static void what_nobody_claims_is_skipped_and_can_still_be_fetched(void) {
    begin_direct();
    struct odb_span lost = announce_memory(50000, 3), wanted = announce_memory(60000, 4);
    struct odb_push *push = take_push(lost.length);
    struct odb_span first = push_span(push, &lost);
    struct odb_span second = push_span(take_again(first.push_channel, wanted.length), &wanted);
    uint64_t fetches = count(ODB_STAT_fetches), skipped = count(ODB_STAT_push_bytes_skipped);
    CHECK_EQ(second.push_position, first.push_position + lost.length);
    CHECK_EQ(fetch_from(&direct, &second, 4), 0);
    CHECK_EQ(count(ODB_STAT_fetches), fetches);
    CHECK_EQ(count(ODB_STAT_push_bytes_skipped) - skipped, lost.length);
    CHECK_EQ(fetch_from(&direct, &first, 3), 0); /* its position has passed */
    CHECK_EQ(count(ODB_STAT_fetches) - fetches, 1);
}

static void a_channel_that_is_given_back_is_as_it_was(void) {
    begin_direct();
    struct odb_span span = announce_memory(20000, 5);
    struct odb_push *push = take_push(span.length);
    uint32_t number = push->number;
    uint64_t position = push->position, pushes = count(ODB_STAT_pushes);
    odb_pushes_give_back(&origin.pushes, push);
    push = take_again(number, span.length);
    CHECK_EQ(push->position, position);
    CHECK_EQ(count(ODB_STAT_pushes), pushes);
    struct odb_span announced = push_span(push, &span);
    uint64_t fetches = count(ODB_STAT_fetches);
    CHECK_EQ(fetch_from(&direct, &announced, 5), 0);
    CHECK_EQ(count(ODB_STAT_fetches), fetches);
}

static void a_wrong_announcement_costs_a_fetch_and_no_bytes_of_others(void) {
    begin_direct();
    struct odb_span span = announce_memory(30000, 6), other = announce_memory(30000, 7);
    struct odb_span right = push_span(take_push(span.length), &span);
    struct odb_span wrong[4] = {other, other, other, other};
    for (int i = 0; i < 4; i++) {
        wrong[i].push_channel = right.push_channel;
        wrong[i].push_position = right.push_position;
    }
    wrong[0].push_channel += ODB_PUSHED_SLOTS; /* a channel of somebody else */
    wrong[1].push_channel++;
    wrong[2].push_position -= 1;                /* has passed */
    wrong[3].push_position += ODB_PUSH_CREDITS; /* was never granted */
    for (int i = 0; i < 4; i++) {
        uint64_t fetches = count(ODB_STAT_fetches);
        CHECK_EQ(fetch_from(&direct, &wrong[i], 7), 0);
        CHECK_EQ(count(ODB_STAT_fetches) - fetches, 1);
    }
    uint64_t fetches = count(ODB_STAT_fetches);
    CHECK_EQ(fetch_from(&direct, &right, 6), 0);
    CHECK_EQ(count(ODB_STAT_fetches), fetches);
}

static void too_small_and_too_large_bodies_are_not_pushed(void) {
    begin_direct();
    odb_pushes_give_back(&origin.pushes, take_push(ODB_PUSH_MIN));
    CHECK(odb_pushes_take(&origin.pushes, 0, ODB_PUSH_MIN - 1) == NULL);
    CHECK(odb_pushes_take(&origin.pushes, 0, ODB_PUSH_MAX + 1) == NULL);
}

/* Pushes into the void until nothing goes any more. */
static void what_is_pushed_and_not_taken_is_bounded_by_credits_which_come_back(void) {
    begin_direct();
    struct odb_span span = announce_memory(ODB_PUSH_MAX, 8), last = {.length = 0};
    struct odb_push *push = take_push(span.length);
    uint32_t number = push->number;
    uint64_t start = push->position, since = odb_clock_ms();
    for (; push; push = odb_pushes_take(&origin.pushes, 0, span.length)) {
        bool same = push->number == number;
        CHECK(push->limit - push->position >= span.length);
        struct odb_span announced = push_span(push, &span);
        if (same) last = announced;
    }
    CHECK(last.push_position + last.length - start <= ODB_PUSH_CREDITS);
    CHECK_EQ(fetch_from(&direct, &last, 8), 0); /* skips what lies before, and reports */
    push = NULL;
    while (!push) {
        push = odb_pushes_take(&origin.pushes, 0, span.length);
        if (push && push->number != number) {
            odb_pushes_give_back(&origin.pushes, push);
            push = NULL;
        }
        REQUIRE(in_time(since));
    }
    last = push_span(push, &span);
    CHECK_EQ(fetch_from(&direct, &last, 8), 0);
}

static uint64_t passed(void) {
    return count(ODB_STAT_push_bytes_passed);
}

/* Reports cost a packet and wake a thread; but what a long body's sender may announce next depends on them, and so does what becomes of a consumer that skips. */
static void small_bodies_are_reported_seldom_and_long_or_skipped_ones_soon(void) {
    begin_direct();
    struct odb_span small = announce_memory(65536, 12), large = announce_memory(ODB_PUSH_MAX, 13);
    struct odb_push *push = take_push(large.length);
    uint32_t number = push->number;
    uint64_t before = passed(), taken = 0, since = odb_clock_ms();
    for (; taken <= ODB_PUSH_REPORT_SOON; taken += small.length) {
        struct odb_span announced = push_span(push, &small);
        CHECK_EQ(fetch_from(&direct, &announced, 12), 0);
        push = take_again(number, large.length);
    }
    CHECK_EQ(passed(), before);
    struct odb_span announced = push_span(push, &large);
    CHECK_EQ(fetch_from(&direct, &announced, 13), 0);
    while (passed() - before != taken + large.length) REQUIRE(in_time(since));
    before = passed();
    push_span(take_again(number, large.length), &large); /* nobody wants it */
    announced = push_span(take_again(number, small.length), &small);
    CHECK_EQ(fetch_from(&direct, &announced, 12), 0);
    while (passed() - before != large.length + small.length) REQUIRE(in_time(since));
}

static void a_consumer_that_goes_is_forgotten(void) {
    begin_direct();
    struct odb_span span = announce_memory(ODB_PUSH_MAX, 9);
    struct odb_span announced = push_span(take_push(span.length), &span);
    uint64_t since = odb_clock_ms();
    odb_channels_after_fork_child(&direct);
    while (odb_pushes_wanted(&origin.pushes)) REQUIRE(in_time(since));
    CHECK(odb_pushes_take(&origin.pushes, 0, span.length) == NULL);
    CHECK_EQ(fetch_from(&direct, &announced, 9), 0);
}

static int inherited[ODB_PUSHED_SLOTS];

static int act_as_child(const struct odb_span *announced) {
    atomic_store(&check_failures, 0);
    stats = fixture_stats_begin(&counters);
    odb_driver_after_fork_child(&driver);
    odb_origin_after_fork_child(&origin);
    odb_channels_after_fork_child(&channels);
    odb_channels_after_fork_child(&direct);
    odb_store_after_fork_child(&store);
    for (uint32_t i = 0; i < ODB_PUSHED_SLOTS; i++) {
        CHECK(inherited[i] < 0 || (!odb_fds_is_internal(inherited[i]) && fcntl(inherited[i], F_GETFD) == -1));
        CHECK_EQ(atomic_load(&direct.pushed.channel[i].fd), -1);
    }
    CHECK(!odb_pushes_wanted(&origin.pushes));
    CHECK_EQ(fetch_from(&direct, announced, 10), 0); /* from the parent, by asking */
    CHECK_EQ(count(ODB_STAT_fetches), 1);
    CHECK_EQ(count(ODB_STAT_push_bytes_taken), 0);
    return atomic_load(&check_failures) == 0 ? 0 : 1;
}

static void a_forked_child_shares_no_push_channel_with_its_parent(void) {
    begin_direct();
    struct odb_span span = announce_memory(100000, 10);
    struct odb_push *push = take_push(span.length);
    struct odb_span announced = push_span(push, &span);
    int status;
    odb_pushes_give_back(&origin.pushes, take_again(announced.push_channel, span.length)); /* it is written */
    for (uint32_t i = 0; i < ODB_PUSHED_SLOTS; i++) inherited[i] = atomic_load(&direct.pushed.channel[i].fd);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) _exit(act_as_child(&announced));
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    uint64_t fetches = count(ODB_STAT_fetches);
    CHECK_EQ(fetch_from(&direct, &announced, 10), 0); /* nobody has taken it away */
    CHECK_EQ(count(ODB_STAT_fetches), fetches);
}

/* ---- an origin of before: it closes on everything but FETCH ---- */

enum { OLD_SIZE = 300, OLD_SEED = 11 };

static void answer_fetches(int fd) {
    uint8_t frame[ODB_WIRE_FETCH_FRAME], answer[ODB_WIRE_DATA_FRAME + OLD_SIZE];
    struct odb_wire_header header;
    struct odb_wire_data data = {.payload = 77, .offset = 0, .length = OLD_SIZE};
    odb_wire_data_encode(answer, &data);
    fixture_fill(answer + ODB_WIRE_DATA_FRAME, OLD_SIZE, OLD_SEED, 0);
    while (receive_all(fd, frame, ODB_WIRE_HEADER_SIZE) && odb_wire_header_decode(&header, frame) == ODB_WIRE_OK &&
           header.type == ODB_WIRE_FETCH &&
           receive_all(fd, frame + ODB_WIRE_HEADER_SIZE, sizeof frame - ODB_WIRE_HEADER_SIZE))
        REQUIRE(send(fd, answer, sizeof answer, MSG_NOSIGNAL) == (ssize_t)sizeof answer);
}

static void *act_of_old(void *argument) {
    int listener = *(const int *)argument;
    for (int i = 0; i < 2; i++) { /* one that introduces itself, one that does not */
        int fd = accept(listener, NULL, NULL);
        REQUIRE(fd >= 0);
        answer_fetches(fd);
        close(fd);
    }
    return NULL;
}

static void an_origin_that_closes_on_the_introduction_is_asked_without(void) {
    begin_direct();
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    pthread_t thread;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 8) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    REQUIRE(pthread_create(&thread, NULL, act_of_old, &listener) == 0);
    struct odb_span span = located((struct odb_span){.payload = 77, .length = OLD_SIZE}, ntohs(address.sin_port));
    uint64_t opened = count(ODB_STAT_channels_opened), errors = count(ODB_STAT_fetch_failures);
    for (int i = 0; i < 5; i++) CHECK_EQ(fetch_from(&direct, &span, OLD_SEED), 0);
    CHECK_EQ(count(ODB_STAT_channels_opened) - opened, 2); /* and no push channel beside them */
    CHECK_EQ(count(ODB_STAT_fetch_failures), errors);
    odb_channels_after_fork_child(&direct);
    pthread_join(thread, NULL);
    close(listener);
}

static const struct check_case cases[] = {
    CHECK_CASE(a_pushed_body_is_taken_without_asking),
    CHECK_CASE(what_nobody_claims_is_skipped_and_can_still_be_fetched),
    CHECK_CASE(a_channel_that_is_given_back_is_as_it_was),
    CHECK_CASE(a_wrong_announcement_costs_a_fetch_and_no_bytes_of_others),
    CHECK_CASE(too_small_and_too_large_bodies_are_not_pushed),
    CHECK_CASE(what_is_pushed_and_not_taken_is_bounded_by_credits_which_come_back),
    CHECK_CASE(small_bodies_are_reported_seldom_and_long_or_skipped_ones_soon),
    CHECK_CASE(a_consumer_that_goes_is_forgotten),
    CHECK_CASE(a_forked_child_shares_no_push_channel_with_its_parent),
    CHECK_CASE(an_origin_that_closes_on_the_introduction_is_asked_without),
};

CHECK_MAIN(cases)
