/* hold_fixture.h: a connection whose client turns an event loop, and so holds what it sends. */
#ifndef HOLD_FIXTURE_H
#define HOLD_FIXTURE_H

#include "check.h"
#include "core/sockets.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>

static int client, server, set;
static struct epoll_event events[4];

/* The client's end is in a loop, has said HELLO, and the loop has turned. */
static inline void begin_turn(void) {
    world_nonblocking(client);
    set = world_set_made();
    world_epoll(set, EPOLL_CTL_ADD, client, EPOLLIN);
    CHECK_EQ(world_wait(set, events, 4, 0), 0);
    CHECK_EQ(world_send(client, "!", 1, 0), 1);
    CHECK_EQ(world_count(ODB_STAT_sends_held), 0);
}

static inline void begin(void) {
    char byte;
    atomic_store(&world.stats.entries[ODB_STAT_sends_held].value, 0);
    atomic_store(&world.stats.entries[ODB_STAT_hold_rescues].value, 0);
    world_connect(&client, &server);
    begin_turn();
    world_recv_all(server, &byte, 1, 1);
}

static inline void end(void) {
    world_close(client);
    world_close(server);
    world_close(set);
}

static inline void next_turn(void) {
    CHECK_EQ(world_wait(set, events, 4, 0), 0);
}

static inline void say(const char *text) {
    CHECK_EQ(world_send(client, text, strlen(text), 0), strlen(text));
}

static inline void hear(const char *text) {
    char bytes[64];
    world_recv_all(server, bytes, strlen(text), sizeof bytes);
    CHECK_MEM_EQ(bytes, text, strlen(text));
}

static inline size_t held_now(void) {
    struct odb_outbox *out = &world_stream(client)->out;
    odb_lock_take(&out->lock);
    size_t held = out->end - out->begin;
    odb_lock_drop(&out->lock);
    return held;
}

static inline void begin_holding(void) {
    world_begin((const char *const[]){"capture=file", NULL}); /* large writes stay real */
    atomic_store(&world.windows.threads, true);
    atomic_store(&world.holds.ticking,
                 true); /* what is held stays so, however slow this machine is: the timer counts as armed already */
}

static inline void nothing_is_left_behind(void) {
    /* The helper thread lets go of a stream a moment after it has sent for it. */
    for (int i = 0; i < 5000 && atomic_load(&world.fds.streams) > 0; i++) odb_real.poll(NULL, 0, 1);
    CHECK_EQ(atomic_load(&world.fds.streams), 0);
    CHECK_EQ(atomic_load(&world.holds.count), 0);
}

#endif
