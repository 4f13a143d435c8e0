/* transmit_fixture.h: what has been sent and must be received, and writes to a socket that takes only so many bytes. */
#ifndef TRANSMIT_FIXTURE_H
#define TRANSMIT_FIXTURE_H

#include "check.h"
#include "core/transfer.h"
#include "payload_fixture.h"
#include "support/faults.h"
#include "support/world.h"

#include <errno.h>
#include <sys/socket.h>

#define P ((size_t)ODB_PAGE)

enum { ROOM = 1 << 20 };

static uint8_t sent_bytes[ROOM], got_bytes[ROOM];
static size_t sent_length;

static inline void note(const void *bytes, size_t length) {
    REQUIRE(sent_length + length <= ROOM);
    memcpy(sent_bytes + sent_length, bytes, length);
    sent_length += length;
}

/* One write under the given budget; an EAGAIN lifts the limit, as a socket that gets room would. */
static inline void write_limited(int fd, const void *bytes, size_t length, size_t budget) {
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

static inline void check_received(int fd) {
    world_recv_all(fd, got_bytes, sent_length, 50000);
    CHECK_MEM_EQ(got_bytes, sent_bytes, sent_length);
}

static inline void nothing_is_left_behind(void) {
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
    CHECK_EQ(atomic_load(&world.fds.outboxes.waiting), 0);
    CHECK_EQ(world.windows.live, 0);
}

#endif
