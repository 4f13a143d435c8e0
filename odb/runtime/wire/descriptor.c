/* Encodes, decodes and checks descriptors. */
#include "wire/descriptor.h"

#include <string.h>

#include "wire/bytes.h"
#include "wire/crc32c.h"

enum { CRC_AT = 80 };

enum odb_wire_result odb_wire_descriptor_check(const struct odb_wire_descriptor *descriptor) {
    if (descriptor->head > ODB_WIRE_HEAD_MAX || descriptor->body > ODB_WIRE_BODY_MAX ||
        descriptor->tail > ODB_WIRE_TAIL_MAX) {
        return ODB_WIRE_BAD_LENGTH;
    }
    uint64_t total = (uint64_t)descriptor->head + descriptor->body + descriptor->tail;
    if (total == 0 || descriptor->offset > UINT64_MAX - total) {
        return ODB_WIRE_BAD_LENGTH;
    }
    if ((descriptor->flags & ~ODB_WIRE_FLAG_ALL) != 0) {
        return ODB_WIRE_BAD_FIELD;
    }
    bool pushed = (descriptor->flags & ODB_WIRE_FLAG_PUSHED) != 0;
    if (pushed != (descriptor->push_channel != 0) || (!pushed && descriptor->push_position != 0) ||
        descriptor->push_position > UINT64_MAX - descriptor->body) {
        return ODB_WIRE_BAD_FIELD;
    }
    return ODB_WIRE_OK;
}

void odb_wire_descriptor_encode(uint8_t out[ODB_WIRE_DESCRIPTOR_SIZE], const struct odb_wire_descriptor *descriptor) {
    odb_wire_put64(out, descriptor->payload);
    memcpy(out + 8, descriptor->token, ODB_WIRE_TOKEN_SIZE);
    odb_wire_put64(out + 24, descriptor->offset);
    odb_wire_put32(out + 32, descriptor->head);
    odb_wire_put32(out + 36, descriptor->body);
    odb_wire_put32(out + 40, descriptor->tail);
    odb_wire_put32(out + 44, descriptor->lease_ms);
    memcpy(out + 48, descriptor->address, ODB_WIRE_ADDRESS_SIZE);
    odb_wire_put16(out + 64, descriptor->port);
    odb_wire_put16(out + 66, descriptor->flags);
    odb_wire_put32(out + 68, descriptor->push_channel);
    odb_wire_put64(out + 72, descriptor->push_position);
    odb_wire_put32(out + CRC_AT, odb_wire_crc32c(out, CRC_AT));
}

enum odb_wire_result odb_wire_descriptor_decode(struct odb_wire_descriptor *descriptor,
                                                const uint8_t in[ODB_WIRE_DESCRIPTOR_SIZE]) {
    if (odb_wire_get32(in + CRC_AT) != odb_wire_crc32c(in, CRC_AT)) {
        return ODB_WIRE_BAD_CRC;
    }
    descriptor->payload = odb_wire_get64(in);
    memcpy(descriptor->token, in + 8, ODB_WIRE_TOKEN_SIZE);
    descriptor->offset = odb_wire_get64(in + 24);
    descriptor->head = odb_wire_get32(in + 32);
    descriptor->body = odb_wire_get32(in + 36);
    descriptor->tail = odb_wire_get32(in + 40);
    descriptor->lease_ms = odb_wire_get32(in + 44);
    memcpy(descriptor->address, in + 48, ODB_WIRE_ADDRESS_SIZE);
    descriptor->port = odb_wire_get16(in + 64);
    descriptor->flags = odb_wire_get16(in + 66);
    descriptor->push_channel = odb_wire_get32(in + 68);
    descriptor->push_position = odb_wire_get64(in + 72);
    return odb_wire_descriptor_check(descriptor);
}
