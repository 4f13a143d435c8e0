/* served.c: answers the requests of one channel. */
#include "core/served.h"

#include "os/real.h"

#include <errno.h>
#include <string.h>

enum {
    TURN = 1 << 20,      /* bytes per turn, so that one large answer does not hold up the others */
    REQUEST_COST = 4096, /* what a request counts for, besides its bytes */
};

/* The step's work is done; go on with the next. */
#define NEXT ((enum odb_served_turn) - 1)

void odb_served_begin(struct odb_served *served, struct odb_watch *watch, struct odb_store *store,
                      struct odb_stats *stats, struct odb_pushes *pushes) {
    served->fd = watch->fd;
    served->watch = watch;
    served->pushes = pushes;
    served->push.state = ODB_PUSH_NONE;
    served->consumer = 0;
    served->store = store;
    served->stats = stats;
    served->in_begin = served->in_end = 0;
    served->release_left = 0;
    served->out_length = served->out_sent = 0;
    served->serving.payload = NULL;
    served->body_length = served->body_sent = 0;
}

void odb_served_end(struct odb_served *served) {
    odb_pushes_detach(served->pushes, &served->push);
    if (served->serving.payload != NULL) {
        odb_count(served->stats, ODB_STAT_serve_failures, 1);
        odb_store_close_serving(served->store, &served->serving, served->body_sent);
    }
}

static enum odb_served_turn protocol_error(struct odb_served *served) {
    odb_count(served->stats, ODB_STAT_protocol_errors, 1);
    return ODB_SERVED_BROKEN;
}

static bool would_block(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

static enum odb_served_turn send_header(struct odb_served *served) {
    /* The body follows at once: let both leave in one segment. */
    int more = served->serving.payload != NULL ? MSG_MORE : 0;
    while (served->out_sent < served->out_length) {
        ssize_t sent = odb_real.send(served->fd, served->out + served->out_sent, served->out_length - served->out_sent,
                                     MSG_NOSIGNAL | MSG_DONTWAIT | more);
        if (sent < 0 && errno != EINTR) {
            return would_block() ? ODB_SERVED_WANT_WRITE : ODB_SERVED_CLOSED;
        }
        served->out_sent += sent > 0 ? (size_t)sent : 0;
    }
    return NEXT;
}

static enum odb_served_turn send_body(struct odb_served *served, size_t *budget) {
    while (served->body_sent < served->body_length) {
        uint64_t left = served->body_length - served->body_sent;
        off64_t offset = (off64_t)(served->serving.offset + served->body_sent);
        if (*budget == 0) {
            return ODB_SERVED_WANT_WRITE;
        }
        ssize_t sent =
            odb_real.sendfile64(served->fd, served->serving.fd, &offset, left < *budget ? (size_t)left : *budget);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            return would_block() ? ODB_SERVED_WANT_WRITE : ODB_SERVED_BROKEN;
        }
        if (sent == 0) {
            return ODB_SERVED_BROKEN; /* the file has become shorter: nothing is invented in place of the missing bytes */
        }
        served->body_sent += (uint64_t)sent;
        *budget -= (size_t)sent;
    }
    odb_count(served->stats, ODB_STAT_serves, 1);
    odb_count(served->stats, ODB_STAT_serve_bytes, served->body_length);
    odb_store_close_serving(served->store, &served->serving, served->body_length);
    return NEXT;
}

/* Payloads announced on the same stream are probably wanted by the same consumer. */
static void learn(const struct odb_served *served) {
    _Atomic uint64_t *announcer = atomic_load(&served->serving.payload->announcer);
    if (announcer != NULL && served->consumer != 0) {
        atomic_store_explicit(announcer, served->consumer, memory_order_relaxed);
    }
}

static enum odb_served_turn answer_push(struct odb_served *served, const uint8_t *body) {
    struct odb_wire_push push;
    if (odb_wire_push_decode(&push, body) != ODB_WIRE_OK) {
        return protocol_error(served);
    }
    if (push.channel == 0) {
        served->consumer = push.consumer;
        return NEXT;
    }
    return odb_pushes_message(served->pushes, &served->push, served->watch, &push) ? NEXT : ODB_SERVED_CLOSED;
}

static enum odb_served_turn answer_fetch(struct odb_served *served, const uint8_t *body) {
    struct odb_wire_fetch fetch;
    if (odb_wire_fetch_decode(&fetch, body) != ODB_WIRE_OK) {
        return protocol_error(served);
    }
    int reason =
        odb_store_open(served->store, fetch.payload, fetch.token, fetch.offset, fetch.length, &served->serving);
    served->out_sent = 0;
    if (reason != 0) {
        struct odb_wire_fail fail = {.payload = fetch.payload, .reason = (uint16_t)reason};
        served->serving.payload = NULL;
        odb_wire_fail_encode(served->out, &fail);
        served->out_length = ODB_WIRE_FAIL_FRAME;
        odb_count(served->stats, ODB_STAT_serve_failures, 1);
        return NEXT;
    }
    learn(served);
    struct odb_wire_data data = {.payload = fetch.payload, .offset = fetch.offset, .length = fetch.length};
    odb_wire_data_encode(served->out, &data);
    served->out_length = ODB_WIRE_DATA_FRAME;
    served->body_length = fetch.length;
    served->body_sent = 0;
    return NEXT;
}

/* Makes room behind what is not parsed yet and reads more. */
static enum odb_served_turn read_more(struct odb_served *served) {
    memmove(served->in, served->in + served->in_begin, served->in_end - served->in_begin);
    served->in_end -= served->in_begin;
    served->in_begin = 0;
    if (served->drained) {
        return ODB_SERVED_WANT_READ;
    }
    size_t room = sizeof served->in - served->in_end;
    ssize_t received = odb_real.recv(served->fd, served->in + served->in_end, room, MSG_DONTWAIT);
    if (received < 0) {
        return errno == EINTR ? NEXT : would_block() ? ODB_SERVED_WANT_READ : ODB_SERVED_CLOSED;
    }
    served->drained = (size_t)received < room;
    served->in_end += (size_t)received;
    return received == 0 ? ODB_SERVED_CLOSED : NEXT;
}

/* The ids of a RELEASE are taken one by one, so that its length needs no buffer. */
static enum odb_served_turn read_release(struct odb_served *served) {
    while (served->release_left > 0) {
        if (served->in_end - served->in_begin < ODB_WIRE_RELEASE_UNIT) {
            return read_more(served);
        }
        odb_store_release(served->store, odb_wire_release_payload(served->in + served->in_begin, 0));
        served->in_begin += ODB_WIRE_RELEASE_UNIT;
        served->release_left -= ODB_WIRE_RELEASE_UNIT;
    }
    return NEXT;
}

static enum odb_served_turn read_request(struct odb_served *served) {
    struct odb_wire_header header;
    size_t have = served->in_end - served->in_begin;
    const uint8_t *frame = served->in + served->in_begin;
    if (have < ODB_WIRE_HEADER_SIZE) {
        return read_more(served);
    }
    if (odb_wire_header_decode(&header, frame) != ODB_WIRE_OK) {
        return protocol_error(served);
    }
    if (header.type == ODB_WIRE_RELEASE) {
        served->in_begin += ODB_WIRE_HEADER_SIZE;
        served->release_left = header.length;
        return NEXT;
    }
    if (header.type == ODB_WIRE_PUSH) {
        if (have < ODB_WIRE_PUSH_FRAME) {
            return read_more(served);
        }
        served->in_begin += ODB_WIRE_PUSH_FRAME;
        return answer_push(served, frame + ODB_WIRE_HEADER_SIZE);
    }
    if (header.type != ODB_WIRE_FETCH || served->push.state != ODB_PUSH_NONE) {
        return protocol_error(served);
    }
    if (have < ODB_WIRE_FETCH_FRAME) {
        return read_more(served);
    }
    served->in_begin += ODB_WIRE_FETCH_FRAME;
    return answer_fetch(served, frame + ODB_WIRE_HEADER_SIZE);
}

static enum odb_served_turn step(struct odb_served *served, size_t *budget) {
    enum odb_served_turn turn = send_header(served);
    if (turn == NEXT && served->serving.payload != NULL) {
        turn = send_body(served, budget);
    }
    if (turn != NEXT) {
        return turn;
    }
    if (*budget < REQUEST_COST) {
        return ODB_SERVED_WANT_WRITE;
    }
    *budget -= REQUEST_COST;
    return served->release_left > 0 ? read_release(served) : read_request(served);
}

enum odb_served_turn odb_served_turn(struct odb_served *served) {
    size_t budget = TURN;
    enum odb_served_turn turn;
    served->drained = false;
    do {
        turn = step(served, &budget);
    } while (turn == NEXT);
    return turn;
}
