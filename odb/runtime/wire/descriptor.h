/* The 84-byte descriptor: stands for a range of a payload that stayed at its origin. */
#ifndef ODB_WIRE_DESCRIPTOR_H
#define ODB_WIRE_DESCRIPTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/header.h"

#define ODB_WIRE_TOKEN_SIZE 16u
#define ODB_WIRE_ADDRESS_SIZE 16u

/* Bits of `flags`; any other bit is refused. */
#define ODB_WIRE_FLAG_FILE 0x0001u   /* the payload is backed by a file at the origin */
#define ODB_WIRE_FLAG_PUSHED 0x0002u /* the body is on its way on push_channel */
#define ODB_WIRE_FLAG_ALL (ODB_WIRE_FLAG_FILE | ODB_WIRE_FLAG_PUSHED)

/* Application bytes in order: head (real), body (virtual), tail (real); all one contiguous range of the payload. */
struct odb_wire_descriptor {
    uint64_t payload; /* id, unique within the origin process */
    uint8_t token[ODB_WIRE_TOKEN_SIZE];
    uint64_t offset;                        /* of the first head byte within the payload */
    uint32_t head;                          /* bytes, at most ODB_WIRE_HEAD_MAX */
    uint32_t body;                          /* bytes, at most ODB_WIRE_BODY_MAX */
    uint32_t tail;                          /* bytes, at most ODB_WIRE_TAIL_MAX */
    uint32_t lease_ms;                      /* how long the origin keeps the span, counted from sending */
    uint8_t address[ODB_WIRE_ADDRESS_SIZE]; /* IPv6, or IPv4-mapped ::ffff:a.b.c.d */
    uint16_t port;                          /* the origin's channel port */
    uint16_t flags;
    uint32_t push_channel;  /* not 0 if and only if ODB_WIRE_FLAG_PUSHED */
    uint64_t push_position; /* of the body's first byte in the channel's push stream; 0 if not pushed */
};

/* ODB_WIRE_OK, or why this descriptor must not travel: BAD_LENGTH for head, body, tail or their place in the
 * payload; BAD_FIELD for flags and push fields. */
enum odb_wire_result odb_wire_descriptor_check(const struct odb_wire_descriptor *descriptor);

/* Precondition: odb_wire_descriptor_check() is ODB_WIRE_OK. */
void odb_wire_descriptor_encode(uint8_t out[ODB_WIRE_DESCRIPTOR_SIZE], const struct odb_wire_descriptor *descriptor);

/* BAD_CRC, or the result of odb_wire_descriptor_check(). `descriptor` is meaningful only when ODB_WIRE_OK. */
enum odb_wire_result odb_wire_descriptor_decode(struct odb_wire_descriptor *descriptor,
                                                const uint8_t in[ODB_WIRE_DESCRIPTOR_SIZE]);

#endif
