/* The 8-byte header that every frame and every channel message begins with, and the bounds of each type's length.
 * All functions of wire/ are pure: no allocation, no system call, nothing shared; thread and signal safe. */
#ifndef ODB_WIRE_HEADER_H
#define ODB_WIRE_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#define ODB_WIRE_HEADER_SIZE 8u
#define ODB_WIRE_MAGIC_0 0x9Du
#define ODB_WIRE_MAGIC_1 0x0Bu
#define ODB_WIRE_VERSION 1u

/* Types 0..3 travel on streams, 8..15 on channels. */
enum odb_wire_type {
    ODB_WIRE_HELLO = 0,
    ODB_WIRE_REAL = 1,
    ODB_WIRE_VIRTUAL = 2,
    ODB_WIRE_HINT = 3,
    ODB_WIRE_AUTH = 8,
    ODB_WIRE_FETCH = 9,
    ODB_WIRE_DATA = 10,
    ODB_WIRE_FAIL = 11,
    ODB_WIRE_RELEASE = 12,
    ODB_WIRE_QUERY = 13,
    ODB_WIRE_ANSWER = 14,
    ODB_WIRE_PUSH = 15
};

/* Everything but ODB_WIRE_OK is a remote protocol error: the connection is reset, never resynchronised. */
enum odb_wire_result {
    ODB_WIRE_OK = 0,
    ODB_WIRE_BAD_MAGIC,
    ODB_WIRE_BAD_VERSION,
    ODB_WIRE_BAD_TYPE,
    ODB_WIRE_BAD_CRC,
    ODB_WIRE_BAD_LENGTH,
    ODB_WIRE_BAD_COOKIE,
    ODB_WIRE_BAD_FIELD
};

/* Sizes of the bodies that follow the header; ranges where a type has one. In bytes. */
#define ODB_WIRE_HELLO_SIZE 16u
#define ODB_WIRE_REAL_MIN 1u
#define ODB_WIRE_REAL_MAX (16u << 20)
#define ODB_WIRE_DESCRIPTOR_SIZE 84u
#define ODB_WIRE_HEAD_MAX (1u << 20)
#define ODB_WIRE_TAIL_MAX (1u << 20)
#define ODB_WIRE_BODY_MAX 0x7fffffffu
#define ODB_WIRE_VIRTUAL_MIN ODB_WIRE_DESCRIPTOR_SIZE
#define ODB_WIRE_VIRTUAL_MAX (ODB_WIRE_DESCRIPTOR_SIZE + ODB_WIRE_HEAD_MAX + ODB_WIRE_TAIL_MAX)
#define ODB_WIRE_HINT_SIZE 8u
#define ODB_WIRE_AUTH_SIZE 48u
#define ODB_WIRE_FETCH_SIZE 40u
#define ODB_WIRE_DATA_SIZE 24u
#define ODB_WIRE_FAIL_SIZE 12u
#define ODB_WIRE_RELEASE_UNIT 8u
#define ODB_WIRE_RELEASE_COUNT_MAX 1024u
#define ODB_WIRE_RELEASE_MAX (ODB_WIRE_RELEASE_UNIT * ODB_WIRE_RELEASE_COUNT_MAX)
#define ODB_WIRE_QUERY_SIZE 20u
#define ODB_WIRE_ANSWER_SIZE 24u
#define ODB_WIRE_PUSH_SIZE 40u

struct odb_wire_header {
    uint8_t type;    /* enum odb_wire_type */
    uint32_t length; /* bytes that follow the header; for DATA without the raw bytes */
};

/* Precondition: `type` is of enum odb_wire_type and `length` within its bounds. */
void odb_wire_header_encode(uint8_t out[ODB_WIRE_HEADER_SIZE], uint8_t type, uint32_t length);

/* Checks magic, version, CRC, type and the bounds of the type's length, in this order; `header` is written only
 * when the result is ODB_WIRE_OK. */
enum odb_wire_result odb_wire_header_decode(struct odb_wire_header *header, const uint8_t in[ODB_WIRE_HEADER_SIZE]);

/* Does this type exist, and is it one of a stream's (HELLO, REAL, VIRTUAL, HINT)? */
bool odb_wire_type_is_known(uint8_t type);
bool odb_wire_type_is_stream(uint8_t type);

/* May a frame of this (known) type have this length? */
bool odb_wire_length_is_valid(uint8_t type, uint32_t length);

/* A short constant text for logs: "bad crc". */
const char *odb_wire_result_text(enum odb_wire_result result);

#endif
