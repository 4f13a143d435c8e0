/* Windows on pushed bodies leave for classic sockets without passing through memory. This process is origin and consumer; the client is a bare socket. What goes
 * wrong may cost a fetch, never a byte. */
#include "check.h"
#include "core/heap.h"
#include "core/transfer.h"
#include "os/clock.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

enum { PATIENCE_MS = 30000, WINDOW = 65536 };

static uint64_t fetches, spliced, skipped, materialised;

static void note_counters(void) {
    fetches = world_count(ODB_STAT_fetches);
    spliced = world_count(ODB_STAT_spliced_bytes);
    skipped = world_count(ODB_STAT_push_bytes_skipped);
    materialised = world_count(ODB_STAT_materialised_bytes);
}

static void check_counters(uint64_t more_fetches, uint64_t more_spliced) {
    CHECK_EQ(world_count(ODB_STAT_fetches) - fetches, more_fetches);
    CHECK_EQ(world_count(ODB_STAT_spliced_bytes) - spliced, more_spliced);
}

/* A channel with credits for `length` bytes: `number` names one that is known, 0 is any. */
static struct odb_push *take_push(uint32_t number, uint64_t length) {
    uint64_t since = odb_clock_ms();
    struct odb_span small = world_payload(1, 100);
    for (;;) {
        uint8_t byte[100];
        struct iovec iov = {byte, sizeof byte};
        struct odb_push *push = odb_pushes_take(&world.origin.pushes, 0, length);
        if (push && (number == 0 || push->number == number)) return push;
        if (push)
            odb_pushes_give_back(&world.origin.pushes, push);
        else
            CHECK_EQ(odb_channels_fetch(&world.channels, &small, &iov, 1), 0); /* makes us known */
        sched_yield();
        REQUIRE(odb_clock_ms() - since < PATIENCE_MS);
    }
}

/* Announces the whole payload on a channel, and writes the first `written` bytes of it there. */
static struct odb_span pushed_in_part(uint32_t number, uint32_t seed, size_t length, size_t written) {
    struct odb_span span = world_payload(seed, length);
    struct odb_push *push = take_push(number, length);
    struct odb_span announced = span, part = odb_span_part(&span, 0, written);
    announced.push_channel = push->number;
    announced.push_position = push->position;
    odb_pushes_send(&world.origin.pushes, push, &part, true);
    return announced;
}

static struct odb_span pushed(uint32_t number, uint32_t seed, size_t length) {
    return pushed_in_part(number, seed, length, length);
}

static uint8_t *mapped(const struct odb_span *span) {
    uint8_t *memory = world_pages(span->length);
    REQUIRE(odb_windows_map(&world.windows, memory, span->length, span) == 0);
    return memory;
}

static void client_of(int family, int *server, int *client) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listening, ends[2];
    if (family == AF_UNIX) {
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        *server = ends[0], *client = ends[1];
        return;
    }
    listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(listening, (struct sockaddr *)&address, length) == 0 && listen(listening, 1) == 0);
    REQUIRE(getsockname(listening, (struct sockaddr *)&address, &length) == 0);
    *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(*client, (struct sockaddr *)&address, length) == 0);
    *server = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    REQUIRE(*server >= 0);
    close(listening);
}

static void tcp(int *server, int *client) {
    client_of(AF_INET, server, client);
    world_nonblocking(*server);
}

static void check_arrives(int client, size_t length, uint32_t seed, uint64_t offset) {
    uint8_t *bytes = malloc(length);
    for (size_t done = 0; done < length;) {
        ssize_t got = recv(client, bytes + done, length - done, 0);
        REQUIRE(got > 0);
        done += (size_t)got;
    }
    CHECK(fixture_same(bytes, length, seed, offset));
    free(bytes);
}

static void done_with(uint8_t *memory, int server, int client) {
    odb_free(&world, memory);
    close(server);
    close(client);
}

/* ---- cases ---- */

static void a_pushed_window_is_spliced_and_can_still_be_read_and_sent_again(void) {
    int server, client;
    struct odb_span span = pushed(0, 2, WINDOW);
    uint8_t *memory = mapped(&span);
    tcp(&server, &client);
    note_counters();
    CHECK_EQ(world_send(server, memory, WINDOW, 0), WINDOW);
    check_arrives(client, WINDOW, 2, 0);
    check_counters(0, WINDOW);
    CHECK_EQ(world_count(ODB_STAT_materialised_bytes), materialised);
    CHECK_EQ(world_send(server, memory, WINDOW, 0), WINDOW); /* its position has passed */
    check_arrives(client, WINDOW, 2, 0);
    check_counters(1, WINDOW);
    CHECK(fixture_same(memory, WINDOW, 2, 0));
    done_with(memory, server, client);
}

static void what_was_spliced_is_fetched_when_it_is_touched(void) {
    int server, client;
    struct odb_span span = pushed(0, 3, WINDOW);
    uint8_t *memory = mapped(&span);
    tcp(&server, &client);
    note_counters();
    CHECK_EQ(world_send(server, memory, WINDOW, 0), WINDOW);
    CHECK_EQ(odb_windows_fault(&world.windows, memory + 5000), 1);
    CHECK(fixture_same(memory, WINDOW, 3, 0));
    check_counters(1, WINDOW);
    check_arrives(client, WINDOW, 3, 0);
    done_with(memory, server, client);
}

static void a_full_socket_takes_a_part_and_the_rest_follows_in_order(void) {
    enum { BODY = 16 * WINDOW };
    int server, client, small = 8192;
    struct odb_span span = pushed(0, 4, BODY);
    uint8_t *memory = mapped(&span), *bytes = malloc(BODY);
    tcp(&server, &client);
    REQUIRE(setsockopt(server, SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    note_counters();
    size_t sent = 0, arrived = 0, calls = 0, refusals = 0;
    while (arrived < BODY) {
        for (; sent < BODY; calls++) {
            ssize_t now = world_send(server, memory + sent, BODY - sent, 0);
            if (now < 0) break;
            sent += (size_t)now;
        }
        if (sent < BODY) {
            CHECK_EQ(errno, EAGAIN);
            refusals++;
            struct pollfd either[2] = {{.fd = server, .events = POLLOUT}, {.fd = client, .events = POLLIN}};
            REQUIRE(poll(either, 2, PATIENCE_MS) > 0);
            if (!(either[1].revents & POLLIN)) continue; /* it waits for an acknowledgement, not for us */
        }
        ssize_t got = recv(client, bytes + arrived, BODY - arrived, 0);
        REQUIRE(got > 0);
        arrived += (size_t)got;
    }
    CHECK(refusals > 0 && calls > 1);
    CHECK(fixture_same(bytes, BODY, 4, 0));
    CHECK_EQ(world_count(ODB_STAT_fetches), fetches);
    free(bytes);
    done_with(memory, server, client);
}

static void a_short_result_is_followed_by_an_edge_of_writability(void) {
    enum { BODY = 16 * WINDOW };
    int server, client, small = 8192, set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
    struct odb_span span = pushed(0, 5, BODY);
    uint8_t *memory = mapped(&span), *bytes = malloc(BODY);
    tcp(&server, &client);
    REQUIRE(setsockopt(server, SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    REQUIRE(epoll_ctl(set, EPOLL_CTL_ADD, server, &event) == 0);
    REQUIRE(epoll_wait(set, &event, 1, PATIENCE_MS) == 1);
    size_t sent = 0;
    while (sent < BODY) { /* as nginx does: a short count means that the socket is full */
        ssize_t now = world_send(server, memory + sent, BODY - sent, 0);
        REQUIRE(now > 0);
        sent += (size_t)now;
        if (sent == BODY) break;
        for (int ready = 0; ready == 0;) {
            REQUIRE(recv(client, bytes, BODY, MSG_DONTWAIT) > 0 || errno == EAGAIN);
            ready = epoll_wait(set, &event, 1, 0);
        }
    }
    close(set);
    free(bytes);
    done_with(memory, server, client);
}

static void a_channel_that_breaks_in_the_middle_costs_a_fetch(void) {
    int server, client;
    struct odb_span span = pushed_in_part(0, 6, 2 * WINDOW, WINDOW);
    uint8_t *memory = mapped(&span);
    int channel = atomic_load(&world.channels.pushed.channel[span.push_channel % ODB_PUSHED_SLOTS].fd);
    tcp(&server, &client);
    for (int held = 0; held < WINDOW;) REQUIRE(ioctl(channel, FIONREAD, &held) == 0); /* it is on its way */
    REQUIRE(odb_real.shutdown(channel, SHUT_RD) == 0);
    note_counters();
    CHECK_EQ(world_send(server, memory, 2 * WINDOW, 0), 2 * WINDOW);
    check_arrives(client, 2 * WINDOW, 6, 0);
    check_counters(1, WINDOW);
    done_with(memory, server, client);
}

static void a_body_that_is_lost_in_the_middle_resets_the_connection(void) {
    int server, client;
    char bytes[WINDOW];
    struct odb_span span = pushed_in_part(0, 7, 2 * WINDOW, WINDOW), unknown = world_unknown(2 * WINDOW);
    int channel = atomic_load(&world.channels.pushed.channel[span.push_channel % ODB_PUSHED_SLOTS].fd);
    unknown.push_channel = span.push_channel;
    unknown.push_position = span.push_position;
    uint8_t *memory = mapped(&unknown);
    tcp(&server, &client);
    for (int held = 0; held < WINDOW;) REQUIRE(ioctl(channel, FIONREAD, &held) == 0);
    REQUIRE(odb_real.shutdown(channel, SHUT_RD) == 0);
    CHECK_EQ(world_send(server, memory, 2 * WINDOW, 0), -1);
    CHECK_EQ(errno, ECONNRESET);
    close(server);
    ssize_t got;
    while ((got = recv(client, bytes, sizeof bytes, 0)) > 0) {
    }
    CHECK(got < 0 && errno == ECONNRESET);
    close(client);
    odb_free(&world, memory);
}

static void memory_before_between_and_behind_windows_keeps_its_place(void) {
    enum { EDGE = 300 };
    int server, client;
    uint8_t edges[3][EDGE];
    struct odb_span span = pushed(0, 8, 2 * WINDOW);
    struct odb_span halves[2] = {odb_span_part(&span, 0, WINDOW), odb_span_part(&span, WINDOW, WINDOW)};
    uint8_t *memory[2] = {mapped(&halves[0]), mapped(&halves[1])};
    for (uint32_t i = 0; i < 3; i++) fixture_fill(edges[i], EDGE, 20 + i, 0);
    struct iovec iov[7] = {{edges[0], 100},  {edges[0] + 100, EDGE - 100}, {memory[0], WINDOW},
                           {edges[1], EDGE}, {memory[1], WINDOW},          {edges[2], EDGE},
                           {edges[2], 0}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 7};
    tcp(&server, &client);
    note_counters();
    CHECK_EQ(odb_send(&world, server, &message, 0, ODB_FILE_CALL), 2 * WINDOW + 3 * EDGE);
    check_arrives(client, EDGE, 20, 0);
    check_arrives(client, WINDOW, 8, 0);
    check_arrives(client, EDGE, 21, 0);
    check_arrives(client, WINDOW, 8, WINDOW);
    check_arrives(client, EDGE, 22, 0);
    check_counters(0, 2 * WINDOW);
    odb_free(&world, memory[1]);
    done_with(memory[0], server, client);
}

static void parts_that_begin_inside_pages_are_spliced_too(void) {
    int server, client;
    struct odb_span span = pushed(0, 9, WINDOW);
    uint8_t *memory = mapped(&span);
    tcp(&server, &client);
    note_counters();
    for (size_t at = 0, part; at < WINDOW; at += part) {
        part = at + 10001 < WINDOW - 10001 ? 10001 : WINDOW - at;
        CHECK_EQ(world_send(server, memory + at, part, 0), (ssize_t)part);
    }
    check_arrives(client, WINDOW, 9, 0);
    check_counters(0, WINDOW);
    done_with(memory, server, client);
}

static void other_sockets_and_flags_get_the_bytes_from_memory(void) {
    for (int kind = 0; kind < 4; kind++) {
        int server, client;
        struct odb_span span = pushed(0, 10, WINDOW);
        uint8_t *memory = mapped(&span);
        client_of(kind == 1 ? AF_UNIX : AF_INET, &server, &client);
        if (kind != 0) world_nonblocking(server);
        if (kind == 3) world_set("splice", "off");
        note_counters();
        CHECK_EQ(world_send(server, memory, WINDOW, kind == 2 ? MSG_NOSIGNAL : 0), WINDOW);
        check_arrives(client, WINDOW, 10, 0);
        check_counters(0, 0);
        world_set("splice", "on");
        done_with(memory, server, client);
    }
}

static void a_window_that_is_sent_after_a_later_one_is_fetched(void) {
    int server, client;
    struct odb_span span = pushed(0, 11, 2 * WINDOW);
    struct odb_span halves[2] = {odb_span_part(&span, 0, WINDOW), odb_span_part(&span, WINDOW, WINDOW)};
    uint8_t *memory[2] = {mapped(&halves[0]), mapped(&halves[1])};
    tcp(&server, &client);
    note_counters();
    CHECK_EQ(world_send(server, memory[1], WINDOW, 0), WINDOW);
    CHECK_EQ(world_send(server, memory[0], WINDOW, 0), WINDOW);
    check_arrives(client, WINDOW, 11, WINDOW);
    check_arrives(client, WINDOW, 11, 0);
    check_counters(1, WINDOW);
    CHECK_EQ(world_count(ODB_STAT_push_bytes_skipped) - skipped, WINDOW);
    odb_free(&world, memory[1]);
    done_with(memory[0], server, client);
}

static void a_window_is_fetched_rather_than_skipped_by_what_is_taken_behind_it(void) {
    struct odb_span span = pushed(0, 12, 2 * WINDOW);
    struct odb_span first = odb_span_part(&span, 0, WINDOW), second = odb_span_part(&span, WINDOW, WINDOW);
    uint8_t *memory = mapped(&first), *taken = malloc(WINDOW);
    struct iovec iov = {taken, WINDOW};
    note_counters();
    odb_windows_fetch_before(&world.windows, &second);
    CHECK_EQ(odb_channels_fetch(&world.channels, &second, &iov, 1), 0);
    CHECK(fixture_same(taken, WINDOW, 12, WINDOW));
    CHECK(fixture_same(memory, WINDOW, 12, 0));
    CHECK_EQ(world_count(ODB_STAT_push_bytes_skipped), skipped);
    check_counters(0, 0);
    free(taken);
    odb_free(&world, memory);
}

/* The first part of a window draws all of it, and what follows, into a pipe; some of that is then taken, some skipped, some spliced. */
static void what_a_pipe_holds_comes_out_in_order_whatever_becomes_of_it(void) {
    int server, client;
    struct odb_span span = pushed(0, 13, 2 * WINDOW);
    int channel = atomic_load(&world.channels.pushed.channel[span.push_channel % ODB_PUSHED_SLOTS].fd);
    uint8_t *memory = mapped(&span), *taken = malloc(WINDOW);
    struct odb_span part = odb_span_part(&span, 20000, 30000);
    struct iovec iov[2] = {{taken, 11}, {taken + 11, 29989}};
    tcp(&server, &client);
    for (int held = 0; held < 2 * WINDOW;) REQUIRE(ioctl(channel, FIONREAD, &held) == 0);
    note_counters();
    CHECK_EQ(world_send(server, memory, 10000, 0), 10000);
    CHECK_EQ(odb_channels_fetch(&world.channels, &part, iov, 2), 0); /* skips 10000 */
    CHECK(fixture_same(taken, 30000, 13, 20000));
    CHECK_EQ(world_send(server, memory + 50000, 2 * WINDOW - 50000, 0), 2 * WINDOW - 50000);
    check_arrives(client, 10000, 13, 0);
    check_arrives(client, 2 * WINDOW - 50000, 13, 50000);
    check_counters(0, 2 * WINDOW - 40000);
    CHECK_EQ(world_count(ODB_STAT_push_bytes_skipped) - skipped, 10000);
    CHECK(world_same(memory, 2 * WINDOW, 13, 0));
    free(taken);
    done_with(memory, server, client);
}

static void a_client_that_has_gone_is_an_error_and_costs_nobody_else(void) {
    int server, client, other, other_client;
    struct odb_span span = pushed(0, 14, WINDOW);
    uint8_t *memory = mapped(&span);
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    tcp(&server, &client);
    tcp(&other, &other_client);
    REQUIRE(setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    close(client);
    REQUIRE(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    note_counters();
    CHECK_EQ(world_send(server, memory, WINDOW, 0), -1);
    CHECK(errno == ECONNRESET || errno == EPIPE);
    CHECK_EQ(world_send(other, memory, WINDOW, 0), WINDOW); /* nothing of it was lost */
    check_arrives(other_client, WINDOW, 14, 0);
    check_counters(0, WINDOW);
    close(other_client);
    done_with(memory, server, other);
}

static void a_forked_child_takes_nothing_out_of_its_parents_pipes(void) {
    int server, client, status;
    struct odb_span span = pushed(0, 15, WINDOW);
    int channel = atomic_load(&world.channels.pushed.channel[span.push_channel % ODB_PUSHED_SLOTS].fd);
    uint8_t *memory = mapped(&span);
    tcp(&server, &client);
    for (int held = 0; held < WINDOW;) REQUIRE(ioctl(channel, FIONREAD, &held) == 0);
    CHECK_EQ(world_send(server, memory, 10000, 0), 10000);
    check_arrives(client, 10000, 15, 0);
    note_counters();
    odb_runtime_before_fork(&world);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        odb_runtime_after_fork_child(&world);
        ssize_t sent = world_send(server, memory + 10000, 20000, 0); /* from the parent, by asking */
        _exit(sent == 20000 && fixture_same(memory + 10000, 20000, 15, 10000) ? 0 : 1);
    }
    odb_runtime_after_fork_parent(&world);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    check_arrives(client, 20000, 15, 10000);
    CHECK_EQ(world_send(server, memory + 10000, WINDOW - 10000, 0), WINDOW - 10000);
    check_arrives(client, WINDOW - 10000, 15, 10000);
    check_counters(0, WINDOW - 10000);
    done_with(memory, server, client);
}

static void without_a_pipe_the_bytes_are_taken_into_memory(void) {
    int server, client;
    struct odb_pipe *all[ODB_PIPES];
    struct odb_span span = pushed(0, 16, WINDOW);
    uint8_t *memory = mapped(&span);
    uint32_t count = 0;
    tcp(&server, &client);
    while (count < ODB_PIPES && (all[count] = odb_pipes_take(&world.channels.pushed.pipes)) != NULL) count++;
    CHECK(odb_pipes_take(&world.channels.pushed.pipes) == NULL);
    note_counters();
    CHECK_EQ(world_send(server, memory, WINDOW, 0), WINDOW);
    check_arrives(client, WINDOW, 16, 0);
    check_counters(0, 0);
    while (count > 0) odb_pipes_give_back(all[--count]);
    done_with(memory, server, client);
}

static const struct check_case cases[] = {
    CHECK_CASE(a_pushed_window_is_spliced_and_can_still_be_read_and_sent_again),
    CHECK_CASE(what_was_spliced_is_fetched_when_it_is_touched),
    CHECK_CASE(a_full_socket_takes_a_part_and_the_rest_follows_in_order),
    CHECK_CASE(a_short_result_is_followed_by_an_edge_of_writability),
    CHECK_CASE(a_channel_that_breaks_in_the_middle_costs_a_fetch),
    CHECK_CASE(a_body_that_is_lost_in_the_middle_resets_the_connection),
    CHECK_CASE(memory_before_between_and_behind_windows_keeps_its_place),
    CHECK_CASE(parts_that_begin_inside_pages_are_spliced_too),
    CHECK_CASE(other_sockets_and_flags_get_the_bytes_from_memory),
    CHECK_CASE(a_window_that_is_sent_after_a_later_one_is_fetched),
    CHECK_CASE(a_window_is_fetched_rather_than_skipped_by_what_is_taken_behind_it),
    CHECK_CASE(what_a_pipe_holds_comes_out_in_order_whatever_becomes_of_it),
    CHECK_CASE(a_client_that_has_gone_is_an_error_and_costs_nobody_else),
    CHECK_CASE(a_forked_child_takes_nothing_out_of_its_parents_pipes),
    CHECK_CASE(without_a_pipe_the_bytes_are_taken_into_memory),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
