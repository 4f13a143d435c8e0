/* served.h: the origin's side of one channel, as a state machine that never blocks: reads FETCH and RELEASE, answers
 * DATA or FAIL.
 *
 * Requests are answered in the order in which they came; while an answer is under way nothing is read, so a consumer
 * that does not take its bytes stops itself. One thread at a time.
 */
#ifndef ODB_CORE_SERVED_H
#define ODB_CORE_SERVED_H

#include "core/pushes.h"
#include "core/stats.h"
#include "core/store.h"
#include "wire/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ODB_SERVED_BUFFER 512u

struct odb_served {
    int fd;
    struct odb_store *store;
    struct odb_stats *stats;
    uint8_t in[ODB_SERVED_BUFFER]; /* in[in_begin, in_end) is not parsed yet */
    size_t in_begin;
    size_t in_end;
    bool drained; /* the last receive of this turn left nothing: the next event tells of more */
    struct odb_pushes *pushes;
    struct odb_watch *watch;
    struct odb_push push;  /* what makes it a push channel */
    uint64_t consumer;     /* who is at the other end, if it has said so */
    uint32_t release_left; /* bytes of a RELEASE's list that are still to be read */
    uint8_t out[ODB_WIRE_DATA_FRAME];
    size_t out_length;
    size_t out_sent;
    struct odb_serving serving; /* meaningful while payload is not null */
    uint64_t body_length;
    uint64_t body_sent;
};

enum odb_served_turn {
    ODB_SERVED_WANT_READ,  /* idle, or in the middle of a request */
    ODB_SERVED_WANT_WRITE, /* an answer is under way, or there is more to do: call again when writable */
    ODB_SERVED_CLOSED,     /* the consumer has closed: close */
    ODB_SERVED_BROKEN      /* protocol error or a body that cannot be delivered: reset */
};

/* `watch` is the connection in the helper thread; its fd is non-blocking and stays the caller's. */
void odb_served_begin(struct odb_served *served, struct odb_watch *watch, struct odb_store *store,
                      struct odb_stats *stats, struct odb_pushes *pushes);

/* Does at most about 1 MiB worth of work. Counts serves, serve_bytes, serve_failures and protocol_errors. The calling
 * thread must have SIGPIPE blocked: sendfile has no MSG_NOSIGNAL, and blocked, the signal stays pending for this
 * thread alone and harms nobody. */
enum odb_served_turn odb_served_turn(struct odb_served *served);

/* Gives up an answer that is under way. */
void odb_served_end(struct odb_served *served);

#endif
