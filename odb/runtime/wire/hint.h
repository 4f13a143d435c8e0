/* HINT, the advisory stream frame that tells the peer how this side receives. */
#ifndef ODB_WIRE_HINT_H
#define ODB_WIRE_HINT_H

#include <stdint.h>

#include "wire/header.h"

#define ODB_WIRE_HINT_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_HINT_SIZE)

#define ODB_WIRE_HINT_REAL ((uint16_t)5)     /* a strategy: whoever says so cannot fetch and wants real bytes only */
#define ODB_WIRE_HINT_CONSUMER ((uint16_t)6) /* not a geometry: names the consumer for whom is asked, see below */

struct odb_wire_hint {
    uint32_t buffer_size; /* bytes the application usually offers to one receive */
    uint16_t page_offset; /* where such a buffer begins in its page, in bytes */
    uint16_t strategy;    /* wanted strategy, 0: no wish; a value that the reader does not know is ignored */
};

/* With ODB_WIRE_HINT_CONSUMER the other two fields are the 48 bits of a consumer's number. */
static inline struct odb_wire_hint odb_wire_hint_of_consumer(uint64_t consumer) {
    return (struct odb_wire_hint){.buffer_size = (uint32_t)(consumer >> 16),
                                  .page_offset = (uint16_t)consumer,
                                  .strategy = ODB_WIRE_HINT_CONSUMER};
}

static inline uint64_t odb_wire_hint_consumer(const struct odb_wire_hint *hint) {
    return (uint64_t)hint->buffer_size << 16 | hint->page_offset;
}

/* Writes header and body: 16 bytes. */
void odb_wire_hint_encode(uint8_t out[ODB_WIRE_HINT_FRAME], const struct odb_wire_hint *hint);

/* Reads the 8 bytes behind the header. Any content is acceptable. */
void odb_wire_hint_decode(struct odb_wire_hint *hint, const uint8_t body[ODB_WIRE_HINT_SIZE]);

#endif
