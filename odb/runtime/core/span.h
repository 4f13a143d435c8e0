/* span.h: a range of a payload that lives at its origin. The one value that streams, windows, outboxes and channels hand to each other.
 *
 * Plain data, copied freely; owning a span owns nothing. Lengths and offsets are bytes within the payload.
 */
#ifndef ODB_CORE_SPAN_H
#define ODB_CORE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct odb_origin_address {
    uint8_t address[16]; /* IPv6, or IPv4-mapped; network order */
    uint16_t port;       /* host order; where the origin accepts channels */
};

struct odb_span {
    struct odb_origin_address origin;
    uint64_t payload;
    uint8_t token[16];
    uint64_t offset;
    uint64_t length;
    uint32_t push_channel;  /* random number of the channel that the bytes were pushed on, 0: not pushed */
    uint64_t push_position; /* of the first byte in it */
    uint64_t expires_ms;    /* odb_clock_ms() after which the origin may have dropped the payload */
};

static inline bool odb_span_same_payload(const struct odb_span *a, const struct odb_span *b) {
    return a->payload == b->payload && a->origin.port == b->origin.port &&
           memcmp(a->origin.address, b->origin.address, sizeof a->origin.address) == 0 &&
           memcmp(a->token, b->token, sizeof a->token) == 0;
}

/* True when b begins where a ends, in the same payload and, if they were pushed, on the same channel. */
static inline bool odb_span_continues(const struct odb_span *a, const struct odb_span *b) {
    bool pushed_alike = a->push_channel == b->push_channel &&
                        (a->push_channel == 0 || a->push_position + a->length == b->push_position);
    return a->offset + a->length == b->offset && pushed_alike && odb_span_same_payload(a, b);
}

/* The part of a span that begins `skip` bytes in and is `length` long; the caller keeps it inside. */
static inline struct odb_span odb_span_part(const struct odb_span *span, uint64_t skip, uint64_t length) {
    struct odb_span part = *span;
    part.offset += skip;
    if (part.push_channel) part.push_position += skip;
    part.length = length;
    return part;
}

#endif
