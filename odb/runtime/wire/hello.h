/* HELLO, the frame that opens a framed direction of a stream; and its detection in the first bytes of a connection. */
#ifndef ODB_WIRE_HELLO_H
#define ODB_WIRE_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/header.h"

#define ODB_WIRE_COOKIE_SIZE 8u
#define ODB_WIRE_HELLO_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_HELLO_SIZE)

struct odb_wire_hello {
    uint16_t capabilities; /* bits that the reader does not know are ignored */
    uint16_t channel_port; /* where the sender accepts channels; 0: it accepts none */
};

/* Writes header and body: 24 bytes. */
void odb_wire_hello_encode(uint8_t out[ODB_WIRE_HELLO_FRAME], const struct odb_wire_hello *hello);

/* Reads the 16 bytes behind the header; `hello` is written only when the result is ODB_WIRE_OK. */
enum odb_wire_result odb_wire_hello_decode(struct odb_wire_hello *hello, const uint8_t body[ODB_WIRE_HELLO_SIZE]);

/* Could these first n bytes of a connection still be the beginning of a HELLO frame? Compares header and cookie as
 * far as n reaches (16 bytes at most); true for n = 0. Once true for n >= 16, the peer speaks frames. */
bool odb_wire_hello_prefix(const uint8_t *bytes, size_t n);

#endif
