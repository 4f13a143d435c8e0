/* Encodes and decodes HINT. */
#include "wire/hint.h"

#include "wire/bytes.h"

void odb_wire_hint_encode(uint8_t out[ODB_WIRE_HINT_FRAME], const struct odb_wire_hint *hint) {
    odb_wire_header_encode(out, ODB_WIRE_HINT, ODB_WIRE_HINT_SIZE);
    odb_wire_put32(out + 8, hint->buffer_size);
    odb_wire_put16(out + 12, hint->page_offset);
    odb_wire_put16(out + 14, hint->strategy);
}

void odb_wire_hint_decode(struct odb_wire_hint *hint, const uint8_t body[ODB_WIRE_HINT_SIZE]) {
    hint->buffer_size = odb_wire_get32(body);
    hint->page_offset = odb_wire_get16(body + 4);
    hint->strategy = odb_wire_get16(body + 6);
}
