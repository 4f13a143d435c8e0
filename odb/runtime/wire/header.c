/* Encodes and checks the frame header. */
#include "wire/header.h"

#include "wire/bytes.h"
#include "wire/crc8.h"

struct bounds {
    uint32_t min;
    uint32_t max;  /* 0: the type does not exist */
    uint32_t unit; /* the length is a multiple of this */
};

static const struct bounds bounds_of[16] = {
    [ODB_WIRE_HELLO] = {ODB_WIRE_HELLO_SIZE, ODB_WIRE_HELLO_SIZE, 1},
    [ODB_WIRE_REAL] = {ODB_WIRE_REAL_MIN, ODB_WIRE_REAL_MAX, 1},
    [ODB_WIRE_VIRTUAL] = {ODB_WIRE_VIRTUAL_MIN, ODB_WIRE_VIRTUAL_MAX, 1},
    [ODB_WIRE_HINT] = {ODB_WIRE_HINT_SIZE, ODB_WIRE_HINT_SIZE, 1},
    [ODB_WIRE_AUTH] = {ODB_WIRE_AUTH_SIZE, ODB_WIRE_AUTH_SIZE, 1},
    [ODB_WIRE_FETCH] = {ODB_WIRE_FETCH_SIZE, ODB_WIRE_FETCH_SIZE, 1},
    [ODB_WIRE_DATA] = {ODB_WIRE_DATA_SIZE, ODB_WIRE_DATA_SIZE, 1},
    [ODB_WIRE_FAIL] = {ODB_WIRE_FAIL_SIZE, ODB_WIRE_FAIL_SIZE, 1},
    [ODB_WIRE_RELEASE] = {ODB_WIRE_RELEASE_UNIT, ODB_WIRE_RELEASE_MAX, ODB_WIRE_RELEASE_UNIT},
    [ODB_WIRE_QUERY] = {ODB_WIRE_QUERY_SIZE, ODB_WIRE_QUERY_SIZE, 1},
    [ODB_WIRE_ANSWER] = {ODB_WIRE_ANSWER_SIZE, ODB_WIRE_ANSWER_SIZE, 1},
    [ODB_WIRE_PUSH] = {ODB_WIRE_PUSH_SIZE, ODB_WIRE_PUSH_SIZE, 1},
};

/* The checksum of the header's other seven bytes. */
static uint8_t checksum(const uint8_t header[ODB_WIRE_HEADER_SIZE]) {
    return odb_wire_crc8(odb_wire_crc8(0, header, 3), header + 4, 4);
}

bool odb_wire_type_is_known(uint8_t type) {
    return type < 16 && bounds_of[type].max != 0;
}

bool odb_wire_type_is_stream(uint8_t type) {
    return type <= ODB_WIRE_HINT;
}

bool odb_wire_length_is_valid(uint8_t type, uint32_t length) {
    if (!odb_wire_type_is_known(type)) {
        return false;
    }
    const struct bounds *bounds = &bounds_of[type];
    return length >= bounds->min && length <= bounds->max && length % bounds->unit == 0;
}

void odb_wire_header_encode(uint8_t out[ODB_WIRE_HEADER_SIZE], uint8_t type, uint32_t length) {
    out[0] = ODB_WIRE_MAGIC_0;
    out[1] = ODB_WIRE_MAGIC_1;
    out[2] = (uint8_t)((ODB_WIRE_VERSION << 4) | (type & 0x0fu));
    odb_wire_put32(out + 4, length);
    out[3] = checksum(out);
}

enum odb_wire_result odb_wire_header_decode(struct odb_wire_header *header, const uint8_t in[ODB_WIRE_HEADER_SIZE]) {
    uint8_t type = in[2] & 0x0fu;
    uint32_t length = odb_wire_get32(in + 4);
    if (in[0] != ODB_WIRE_MAGIC_0 || in[1] != ODB_WIRE_MAGIC_1) {
        return ODB_WIRE_BAD_MAGIC;
    }
    if (in[2] >> 4 != ODB_WIRE_VERSION) {
        return ODB_WIRE_BAD_VERSION;
    }
    if (in[3] != checksum(in)) {
        return ODB_WIRE_BAD_CRC;
    }
    if (!odb_wire_type_is_known(type)) {
        return ODB_WIRE_BAD_TYPE;
    }
    if (!odb_wire_length_is_valid(type, length)) {
        return ODB_WIRE_BAD_LENGTH;
    }
    header->type = type;
    header->length = length;
    return ODB_WIRE_OK;
}

const char *odb_wire_result_text(enum odb_wire_result result) {
    switch (result) {
    case ODB_WIRE_OK:
        return "ok";
    case ODB_WIRE_BAD_MAGIC:
        return "bad magic";
    case ODB_WIRE_BAD_VERSION:
        return "bad version";
    case ODB_WIRE_BAD_TYPE:
        return "bad type";
    case ODB_WIRE_BAD_CRC:
        return "bad crc";
    case ODB_WIRE_BAD_LENGTH:
        return "bad length";
    case ODB_WIRE_BAD_COOKIE:
        return "bad cookie";
    case ODB_WIRE_BAD_FIELD:
        return "bad field";
    }
    return "unknown result";
}
