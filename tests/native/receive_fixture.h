/* receive_fixture.h: a framed message with what the application must get from it, and a peer that sends it byte by byte as the test likes. */
#ifndef RECEIVE_FIXTURE_H
#define RECEIVE_FIXTURE_H

#include "check.h"
#include "core/heap.h"
#include "core/transfer.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/faults.h"
#include "support/world.h"

#include <errno.h>

#define P ((size_t)ODB_PAGE)

enum { MESSAGE_MAX = 1 << 16 };

/* A framed message and what the application must get from it. */
struct message {
    uint8_t wire[MESSAGE_MAX];
    size_t length;
    uint8_t plain[MESSAGE_MAX];
    size_t plain_length;
    size_t boundary[8]; /* ends of frames within wire */
    int boundaries;
};

static struct message message;

static inline void end_frame(size_t wire) {
    message.length += wire;
    message.boundary[message.boundaries++] = message.length;
}

static inline void add_real(const char *text) {
    end_frame(world_real(message.wire + message.length, text, strlen(text)));
    memcpy(message.plain + message.plain_length, text, strlen(text));
    message.plain_length += strlen(text);
}

static inline void add_virtual(const struct odb_span *span, uint32_t seed, size_t head, size_t tail) {
    end_frame(world_virtual(message.wire + message.length, span, seed, head, tail));
    fixture_fill(message.plain + message.plain_length, span->length, seed, span->offset);
    message.plain_length += span->length;
}

static inline void begin_message(void) {
    memset(&message, 0, sizeof message);
    end_frame(world_hello(message.wire));
}

/* Real bytes, a span with both edges, a hint, a span without edges, real bytes. */
static inline void mixed_message(void) {
    struct odb_span first = world_payload(1, 2 * P + 30), second = world_payload(2, P + 7);
    struct odb_wire_hint hint = {.buffer_size = 16384};
    begin_message();
    add_real("HTTP/1.1 200 OK\r\n\r\n");
    add_virtual(&first, 1, 13, 17);
    odb_wire_hint_encode(message.wire + message.length, &hint);
    end_frame(ODB_WIRE_HINT_FRAME);
    add_virtual(&second, 2, 0, 0);
    add_real("x");
}

static inline void put(int raw, const void *bytes, size_t length) {
    REQUIRE(odb_real.send(raw, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
}

static uint8_t got_bytes[2 * MESSAGE_MAX];

static inline void nothing_is_left_behind(void) {
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
    CHECK_EQ(world.windows.live, 0);
}

#endif
