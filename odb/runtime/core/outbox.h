/* outbox.h: bytes of a framed stream that were accepted from the application and have not left: because the kernel had no room for them, or because they are held (core/hold.h).
 *
 * Once part of a frame has left, the rest must follow; it is parked here and sent before anything else: by the next send of the application or by the helper thread,
 * whoever finds room first. Bounded by what is held at most and what one send starts (one frame). `lock` protects everything; it is never held while waiting for the socket.
 */
#ifndef ODB_CORE_OUTBOX_H
#define ODB_CORE_OUTBOX_H

#include "core/driver.h"
#include "core/span.h"
#include "core/stats.h"
#include "os/lock.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct odb_outbox;

/* What the outboxes of a process share. */
struct odb_outboxes {
    struct odb_driver *driver;
    struct odb_stats *stats;
    _Atomic size_t waiting;                                                 /* outboxes in the helper thread's care */
    void (*hold)(struct odb_outboxes *outboxes, struct odb_outbox *outbox); /* keeps the outbox's memory until let_go */
    void (*let_go)(struct odb_outboxes *outboxes, struct odb_outbox *outbox);
};

/* The business of core/hold.c. */
struct odb_held {
    bool listed;
    int fd; /* to send on */
    struct odb_outbox *next;
    unsigned direct; /* sends that are not to be held */
    unsigned sends;  /* that are held */
    unsigned lone;   /* times in a row, up to a bound, that nothing joined the one that was held */
    uint8_t last;   /* type of the last frame, if it can grow: ODB_WIRE_REAL or ODB_WIRE_VIRTUAL, else ODB_WIRE_HELLO */
    size_t last_at; /* where it begins */
    bool late;      /* its body is to be pushed before it leaves */
    unsigned announced;   /* the turn in which it last left before the body of which it tells */
    unsigned series;      /* bodies that are not to be announced so, because one was followed by more in its turn */
    bool expects;         /* the last of it was sent while more was at hand of what the program relays */
    bool postponed;       /* for that it has outlasted a turn */
    bool patient;         /* whoever flushes comes back: it must not wait for the socket */
    uint64_t consumer;    /* to whom */
    struct odb_span span; /* what it stands for */
};

struct odb_outbox {
    struct odb_lock lock;
    uint8_t *parked; /* parked[begin, end) is still to be sent; null when nothing is */
    size_t begin;
    size_t end;
    size_t room;   /* bytes that `parked` has been made for, while it holds */
    bool stalled;  /* the socket was full; false with something parked: that is held */
    bool finished; /* the application has shut the direction down, now or later */
    struct odb_held held;
    struct odb_watch watch; /* watch.fd is a duplicate of our own, so that the application may close its descriptor */
    bool watching;
    bool shutdown; /* the application has shut the direction down: do so when empty */
    int error;     /* errno of a send by the helper thread, for the application's next call */
    struct odb_outboxes *shared;
};

static inline bool odb_outbox_is_empty(const struct odb_outbox *outbox) {
    return outbox->begin == outbox->end;
}

/* All under the lock. */

/* Sends what is parked, as far as there is room. 0: empty now; -EAGAIN: the helper thread takes care of the rest; or another negative errno. */
int odb_outbox_flush(struct odb_outbox *outbox, int fd);

/* Copies what lies behind the first `sent` bytes of iov and has the helper thread send it. The outbox must be empty.
 * False: nothing was parked; the caller must send by itself. */
bool odb_outbox_park(struct odb_outbox *outbox, int fd, const struct iovec *iov, int count, size_t sent);

/* Gets memory to hold `more` bytes. The outbox must not be stalled. */
bool odb_outbox_prepare(struct odb_outbox *outbox, size_t more);

/* Gives up what is parked. */
void odb_outbox_forget(struct odb_outbox *outbox);

#endif
