/* CRC-32C (Castagnoli, reflected, initial and final inversion): protects the descriptor. */
#ifndef ODB_WIRE_CRC32C_H
#define ODB_WIRE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of n bytes. Pure; thread and signal safe. */
uint32_t odb_wire_crc32c(const uint8_t *bytes, size_t n);

/* The same as any processor can do it. */
uint32_t odb_wire_crc32c_by_table(const uint8_t *bytes, size_t n);

#endif
