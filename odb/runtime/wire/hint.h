/* HINT, the advisory stream frame that tells the peer how this side receives. */
#ifndef ODB_WIRE_HINT_H
#define ODB_WIRE_HINT_H

#include <stdint.h>

#include "wire/header.h"

#define ODB_WIRE_HINT_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_HINT_SIZE)

#define ODB_WIRE_HINT_REAL ((uint16_t)5) /* a strategy: whoever says so cannot fetch and wants real bytes only */

struct odb_wire_hint {
    uint32_t buffer_size; /* bytes the application usually offers to one receive */
    uint16_t page_offset; /* where such a buffer begins in its page, in bytes */
    uint16_t strategy;    /* wanted strategy, 0: no wish; a value that the reader does not know is ignored */
};

/* Writes header and body: 16 bytes. */
void odb_wire_hint_encode(uint8_t out[ODB_WIRE_HINT_FRAME], const struct odb_wire_hint *hint);

/* Reads the 8 bytes behind the header. Any content is acceptable. */
void odb_wire_hint_decode(struct odb_wire_hint *hint, const uint8_t body[ODB_WIRE_HINT_SIZE]);

#endif
