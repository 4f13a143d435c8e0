/* outbox.c: parks the rest of a started frame and sends it when the socket has room. */
#include "core/outbox.h"

#include "core/sharing.h"
#include "os/fds.h"
#include "os/real.h"
#include "wire/header.h"

#include <errno.h>
#include <string.h>

enum { ROOM_FIRST = 1024 };

void odb_outbox_forget(struct odb_outbox *outbox) {
    odb_real.free(outbox->parked);
    outbox->parked = NULL;
    outbox->begin = outbox->end = outbox->room = 0;
    outbox->stalled = false;
    outbox->held.last = ODB_WIRE_HELLO;
    outbox->held.late = false;
    outbox->held.sends = 0;
    outbox->held.expects = outbox->held.postponed = false;
}

bool odb_outbox_prepare(struct odb_outbox *outbox, size_t more) {
    size_t needed = outbox->end + more, room = outbox->room ? outbox->room : ROOM_FIRST;
    if (needed <= outbox->room) return true;
    while (room < needed) room *= 2;
    uint8_t *memory = odb_real.realloc(outbox->parked, room);
    if (!memory) return false;
    outbox->parked = memory;
    outbox->room = room;
    return true;
}

static bool start_watching(struct odb_outbox *outbox, int fd);

/* The socket is full. True: the helper thread goes on, or a patient caller will; false: nobody else does, and there is room again. */
static bool stall(struct odb_outbox *outbox, int fd) {
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    outbox->stalled = true;
    if (start_watching(outbox, fd)) return true;
    if (outbox->held.patient) {
        outbox->stalled = false;
        outbox->held.last = ODB_WIRE_HELLO; /* it may have left in part: it grows and changes no more */
        outbox->held.late = false;
        return true;
    }
    odb_real.poll(&room, 1, -1);
    return false;
}

int odb_outbox_flush(struct odb_outbox *outbox, int fd) {
    while (!odb_outbox_is_empty(outbox)) {
        ssize_t sent =
            odb_real.send(fd, outbox->parked + outbox->begin, outbox->end - outbox->begin, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) {
            if (stall(outbox, fd)) return -EAGAIN;
            continue;
        }
        if (sent < 0) {
            int error = errno;
            odb_outbox_forget(outbox);
            return -error;
        }
        outbox->begin += (size_t)sent;
    }
    odb_outbox_forget(outbox);
    return 0;
}

/* In the helper thread: the socket has room, or is broken. */
static void room(struct odb_watch *watch, uint32_t events) {
    struct odb_outbox *outbox = (struct odb_outbox *)(void *)((char *)watch - offsetof(struct odb_outbox, watch));
    struct odb_stream *stream = (struct odb_stream *)(void *)((char *)outbox - offsetof(struct odb_stream, out));
    struct odb_outboxes *shared = outbox->shared;
    (void)events; /* a broken socket shows in the send */
    odb_out_take(stream);
    int result = odb_outbox_flush(outbox, watch->fd);
    if (result == -EAGAIN) {
        odb_out_drop(stream);
        return;
    }
    if (result < 0) outbox->error = -result;
    if (outbox->shutdown) odb_real.shutdown(watch->fd, SHUT_WR);
    odb_driver_remove(shared->driver, watch);
    odb_fds_close(watch->fd);
    outbox->watching = false;
    odb_out_drop(stream);
    atomic_fetch_sub(&shared->waiting, 1);
    shared->let_go(shared, outbox);
}

static bool start_watching(struct odb_outbox *outbox, int fd) {
    struct odb_outboxes *shared = outbox->shared;
    if (outbox->watching) return true;
    if (!odb_driver_start(shared->driver)) return false;
    int copy = odb_fds_adopt(odb_real.fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (copy < 0) return false;
    outbox->watch = (struct odb_watch){.fd = copy, .ready = room};
    shared->hold(shared, outbox);
    atomic_fetch_add(&shared->waiting, 1);
    outbox->watching = true;
    if (odb_driver_add(shared->driver, &outbox->watch, EPOLLOUT)) return true;
    outbox->watching = false;
    atomic_fetch_sub(&shared->waiting, 1);
    odb_fds_close(copy);
    shared->let_go(shared, outbox);
    return false;
}

bool odb_outbox_park(struct odb_outbox *outbox, int fd, const struct iovec *iov, int count, size_t sent) {
    size_t total = 0, skip = sent;
    for (int i = 0; i < count; i++) total += iov[i].iov_len;
    uint8_t *parked = odb_real.malloc(total - sent);
    if (!parked) return false;
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        size_t gone = skip < iov[i].iov_len ? skip : iov[i].iov_len;
        memcpy(parked + at, (const char *)iov[i].iov_base + gone, iov[i].iov_len - gone);
        at += iov[i].iov_len - gone;
        skip -= gone;
    }
    odb_outbox_forget(outbox); /* empty, perhaps with memory from holding */
    outbox->parked = parked;
    outbox->begin = 0;
    outbox->end = total - sent;
    outbox->stalled = true;
    if (!start_watching(outbox, fd)) {
        odb_outbox_forget(outbox);
        return false;
    }
    odb_count(outbox->shared->stats, ODB_STAT_parked_bytes, total - sent);
    return true;
}
