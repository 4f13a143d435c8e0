/* waiting_fixture.h: one framed connection in one epoll set, and a count of the waits that reach the kernel. */
#ifndef WAITING_FIXTURE_H
#define WAITING_FIXTURE_H

#include "check.h"
#include "core/sockets.h"
#include "core/transfer.h"
#include "core/waiting.h"
#include "os/clock.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <sys/socket.h>

/* Waits that reached the kernel: a busy loop shows here. */
static _Atomic unsigned kernel_waits;
static int (*genuine_pwait2)(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);
static int (*genuine_wait)(int, struct epoll_event *, int, int);
static int (*genuine_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static int (*genuine_pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *);

static inline int counted_pwait2(int set, struct epoll_event *events, int room, const struct timespec *timeout,
                                 const sigset_t *mask) {
    atomic_fetch_add(&kernel_waits, 1);
    return genuine_pwait2(set, events, room, timeout, mask);
}

static inline int counted_wait(int from, struct epoll_event *into, int room, int timeout) {
    atomic_fetch_add(&kernel_waits, 1);
    return genuine_wait(from, into, room, timeout);
}

static inline int counted_ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout,
                                const sigset_t *mask) {
    atomic_fetch_add(&kernel_waits, 1);
    return genuine_ppoll(fds, count, timeout, mask);
}

static inline int counted_pselect(int count, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
                                  const sigset_t *mask) {
    atomic_fetch_add(&kernel_waits, 1);
    return genuine_pselect(count, in, out, except, timeout, mask);
}

static int raw, fd, set;
static struct epoll_event events[64];

static inline void put(const void *bytes, size_t length) {
    REQUIRE(odb_real.send(raw, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
}

static inline void put_real(const char *text) {
    uint8_t frame[200];
    put(frame, world_real(frame, text, strlen(text)));
}

static inline void begin(uint32_t interest) {
    uint8_t hello[ODB_WIRE_HELLO_FRAME];
    world_raw_client(&raw, &fd);
    world_nonblocking(fd);
    set = world_set_made();
    world_epoll(set, EPOLL_CTL_ADD, fd, interest);
    put(hello, world_hello(hello));
}

static inline void end(void) {
    world_close(raw);
    world_close(fd);
    world_close(set);
}

static inline void take(const char *expected) {
    char bytes[64];
    size_t length = strlen(expected);
    CHECK_EQ(world_recv(fd, bytes, length, 0), length);
    CHECK_MEM_EQ(bytes, expected, length);
}

static inline void take_nothing(void) {
    char byte;
    CHECK(world_recv(fd, &byte, 1, 0) == -1 && errno == EAGAIN);
}

static inline void check_event(int patience_ms, uint32_t wanted) {
    CHECK_EQ(world_wait(set, events, 64, patience_ms), 1);
    CHECK_EQ(events[0].data.fd, fd);
    CHECK_EQ(events[0].events & wanted, wanted);
}

static inline void check_silent(void) {
    CHECK_EQ(world_wait(set, events, 64, 0), 0);
}

/* From here on `kernel_waits` counts. */
static inline void count_kernel_waits(void) {
    genuine_pwait2 = odb_real.epoll_pwait2;
    genuine_wait = odb_real.epoll_wait;
    genuine_ppoll = odb_real.ppoll;
    genuine_pselect = odb_real.pselect;
    odb_real.epoll_pwait2 = genuine_pwait2 ? counted_pwait2 : NULL;
    odb_real.epoll_wait = counted_wait;
    odb_real.ppoll = counted_ppoll;
    odb_real.pselect = counted_pselect;
}

#endif
