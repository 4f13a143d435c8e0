/* world.c: builds the world and its connections. */
#include "world.h"

#include "../check.h"
#include "core/heap.h"
#include "core/outlet.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "core/waiting.h"
#include "os/clock.h"
#include "os/real.h"
#include "../payload_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>

enum { WATCHDOG_SECONDS = 90 };

struct odb_runtime world;

void world_set(const char *key, const char *value) {
    REQUIRE(odb_options_set(&world.options, key, value));
}

void world_begin(const char *const *settings) {
    alarm(WATCHDOG_SECONDS);
    REQUIRE(odb_real_load());
    odb_options_default(&world.options);
    world.options.virtual_min = world.options.memory_min = 8192; /* so that small bodies do for the tests */
    world_set("listen", ":0-65535");
    world_set("connect", ":0-65535");
    world_set("channel", "127.0.0.1:0-65535");
    world_set("stats_dir", "/proc/no-such-directory");
    for (; settings && *settings; settings++) {
        char key[64];
        size_t length = strcspn(*settings, "=");
        REQUIRE(length < sizeof key);
        memcpy(key, *settings, length);
        key[length] = '\0';
        world_set(key, *settings + length + 1);
    }
    REQUIRE(odb_runtime_init(&world));
}

uint64_t world_count(enum odb_stat which) {
    return fixture_count(&world.stats, which);
}

static int listener(struct sockaddr_in *address) {
    socklen_t length = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    REQUIRE(fd >= 0 && bind(fd, (struct sockaddr *)address, sizeof *address) == 0 && listen(fd, 8) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)address, &length) == 0);
    return fd;
}

static void connect_pair(int *client, int *server, bool framed_client, bool framed_server) {
    struct sockaddr_in address;
    int on = 1, listening = listener(&address);
    *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(*client >= 0);
    if (framed_client) {
        REQUIRE(odb_connect(&world, *client, (struct sockaddr *)&address, sizeof address) == 0);
    } else {
        REQUIRE(connect(*client, (struct sockaddr *)&address, sizeof address) == 0);
    }
    *server = framed_server ? odb_accept(&world, listening, NULL, NULL, SOCK_CLOEXEC)
                            : accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    REQUIRE(*server >= 0);
    REQUIRE(setsockopt(*client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    REQUIRE(setsockopt(*server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    world_close(listening);
}

void world_connect(int *client, int *server) {
    connect_pair(client, server, true, true);
}

void world_raw_client(int *raw, int *server) {
    connect_pair(raw, server, false, true);
}

void world_raw_server(int *client, int *raw) {
    connect_pair(client, raw, true, false);
}

void world_nonblocking(int fd) {
    REQUIRE(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

void world_close(int fd) {
    REQUIRE(odb_close(&world, fd) == 0);
}

struct odb_stream *world_stream(int fd) {
    struct odb_stream *stream = odb_fdtable_hold(&world.fds, fd);
    REQUIRE(stream != NULL);
    odb_fdtable_let_go(&world.fds, stream);
    return stream;
}

unsigned world_segments(int fd) {
    struct tcp_info info;
    socklen_t length = sizeof info;
    REQUIRE(odb_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
    return info.tcpi_data_segs_out;
}

void world_plain(int *near, int *far) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listening = odb_real.socket(AF_INET, SOCK_STREAM, 0);
    *near = odb_real.socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(bind(listening, (struct sockaddr *)&address, size) == 0 && odb_real.listen(listening, 1) == 0);
    REQUIRE(getsockname(listening, (struct sockaddr *)&address, &size) == 0);
    REQUIRE(odb_real.connect(*near, (struct sockaddr *)&address, size) == 0);
    *far = odb_real.accept(listening, NULL, NULL);
    REQUIRE(*far >= 0);
    odb_real.close(listening);
    odb_outlet_made(&world.fds, *near);
    world_nonblocking(*near);
}

ssize_t world_send(int fd, const void *bytes, size_t length, int flags) {
    struct iovec iov = {(void *)(uintptr_t)bytes, length};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (odb_gather_minds_send(&world.gather, fd)) odb_gather_resume(&world, fd); /* as the hooks do */
    return odb_send(&world, fd, &message, flags, ODB_SOCKET_CALL);
}

ssize_t world_recv(int fd, void *to, size_t room, int flags) {
    struct iovec iov = {to, room};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (odb_gather_minds_receive(&world.gather, fd)) odb_gather_receive(&world, fd);
    return odb_receive(&world, fd, &message, flags, ODB_SOCKET_CALL);
}

void world_send_all(int fd, const void *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        ssize_t sent = world_send(fd, (const char *)bytes + done, length - done, MSG_NOSIGNAL);
        REQUIRE(sent > 0);
        done += (size_t)sent;
    }
}

void world_recv_all(int fd, void *to, size_t length, size_t per_call) {
    for (size_t done = 0; done < length;) {
        size_t room = length - done < per_call ? length - done : per_call;
        ssize_t got = world_recv(fd, (char *)to + done, room, 0);
        REQUIRE(got > 0 && (size_t)got <= room);
        done += (size_t)got;
    }
}

int world_set_made(void) {
    int set = epoll_create1(EPOLL_CLOEXEC);
    REQUIRE(set >= 0);
    return set;
}

void world_epoll(int set, int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    REQUIRE(odb_interest_control(&world.interests, set, operation, fd, &event) == 0);
    if (operation == EPOLL_CTL_ADD) odb_waiting_added(&world, fd);
}

int world_wait(int set, struct epoll_event *events, int room, int ms) {
    struct timespec timeout = {ms / 1000, ms % 1000 * 1000000L};
    return odb_epoll_wait(&world, set, events, room, ms < 0 ? NULL : &timeout, NULL);
}

bool world_same(const void *bytes, size_t length, uint32_t seed, uint64_t offset) {
    struct iovec iov = {(void *)(uintptr_t)bytes, length};
    REQUIRE(odb_windows_materialise(&world.windows, &iov, 1) == 0);
    return fixture_same(bytes, length, seed, offset);
}

static void set_origin(struct odb_span *span, uint16_t port) {
    static const uint8_t loopback[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1};
    memcpy(span->origin.address, loopback, sizeof loopback);
    span->origin.port = port;
}

struct odb_span world_payload(uint32_t seed, size_t length) {
    struct odb_span span;
    struct iovec iov = {odb_real.malloc(length), length};
    REQUIRE(iov.iov_base != NULL);
    REQUIRE(odb_origin_start(&world.origin, &world.options, &world.stats, &world.store, &world.driver));
    fixture_fill(iov.iov_base, length, seed, 0);
    REQUIRE(odb_store_capture_memory(&world.store, &iov, 1, length, &span) == ODB_CAPTURED);
    odb_real.free(iov.iov_base);
    set_origin(&span, odb_origin_port(&world.origin));
    return span;
}

struct odb_span world_unknown(size_t length) {
    struct odb_span span = world_payload(0, 1);
    span = (struct odb_span){.payload = 1, .length = length, .expires_ms = odb_clock_ms() + 60000};
    set_origin(&span, odb_origin_port(&world.origin));
    return span;
}

/* The port of a listener that is closed again: nobody answers there. */
struct odb_span world_unreachable(size_t length) {
    struct sockaddr_in address;
    struct odb_span span = world_unknown(length);
    world_close(listener(&address));
    set_origin(&span, ntohs(address.sin_port));
    return span;
}

size_t world_hello(uint8_t *out) {
    struct odb_wire_hello hello = {.channel_port = odb_origin_port(&world.origin)};
    odb_wire_hello_encode(out, &hello);
    return ODB_WIRE_HELLO_FRAME;
}

size_t world_real(uint8_t *out, const void *bytes, size_t length) {
    odb_wire_header_encode(out, ODB_WIRE_REAL, (uint32_t)length);
    memcpy(out + ODB_WIRE_HEADER_SIZE, bytes, length);
    return ODB_WIRE_HEADER_SIZE + length;
}

size_t world_virtual(uint8_t *out, const struct odb_span *span, uint32_t seed, size_t head, size_t tail) {
    struct odb_wire_descriptor descriptor = {.payload = span->payload,
                                             .offset = span->offset,
                                             .head = (uint32_t)head,
                                             .body = (uint32_t)(span->length - head - tail),
                                             .tail = (uint32_t)tail,
                                             .lease_ms = 60000,
                                             .port = span->origin.port};
    memcpy(descriptor.address, span->origin.address, sizeof descriptor.address);
    memcpy(descriptor.token, span->token, sizeof descriptor.token);
    REQUIRE(odb_wire_descriptor_check(&descriptor) == ODB_WIRE_OK);
    odb_wire_header_encode(out, ODB_WIRE_VIRTUAL, (uint32_t)(ODB_WIRE_DESCRIPTOR_SIZE + head + tail));
    odb_wire_descriptor_encode(out + ODB_WIRE_HEADER_SIZE, &descriptor);
    uint8_t *edges = out + ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE;
    fixture_fill(edges, head, seed, span->offset);
    fixture_fill(edges + head, tail, seed, span->offset + span->length - tail);
    return ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE + head + tail;
}

uint8_t *world_pages(size_t length) {
    uint8_t *pages = odb_malloc(&world, length);
    REQUIRE(pages != NULL && (uintptr_t)pages % ODB_PAGE == 0);
    return pages;
}
