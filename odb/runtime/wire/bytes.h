/* Big-endian integers in byte arrays, whatever the alignment. Private to wire/. */
#ifndef ODB_WIRE_BYTES_H
#define ODB_WIRE_BYTES_H

#include <stdint.h>

static inline void odb_wire_put16(uint8_t *out, uint16_t value) {
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)value;
}

static inline void odb_wire_put32(uint8_t *out, uint32_t value) {
    odb_wire_put16(out, (uint16_t)(value >> 16));
    odb_wire_put16(out + 2, (uint16_t)value);
}

static inline void odb_wire_put64(uint8_t *out, uint64_t value) {
    odb_wire_put32(out, (uint32_t)(value >> 32));
    odb_wire_put32(out + 4, (uint32_t)value);
}

static inline uint16_t odb_wire_get16(const uint8_t *in) {
    return (uint16_t)((in[0] << 8) | in[1]);
}

static inline uint32_t odb_wire_get32(const uint8_t *in) {
    return ((uint32_t)odb_wire_get16(in) << 16) | odb_wire_get16(in + 2);
}

static inline uint64_t odb_wire_get64(const uint8_t *in) {
    return ((uint64_t)odb_wire_get32(in) << 32) | odb_wire_get32(in + 4);
}

#endif
