/* CRC-8 (polynomial 0x07, not reflected, no final inversion): protects the eight bytes of the frame header. */
#ifndef ODB_WIRE_CRC8_H
#define ODB_WIRE_CRC8_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 to begin) over n bytes. Pure; thread and signal safe. */
uint8_t odb_wire_crc8(uint8_t crc, const uint8_t *bytes, size_t n);

#endif
