/* Encodes, decodes and recognises HELLO. */
#include "wire/hello.h"

#include <string.h>

#include "wire/bytes.h"

/* Drawn at random once: makes it implausible that a classic byte stream is taken for a framed one. */
static const uint8_t cookie[ODB_WIRE_COOKIE_SIZE] = {0xC5, 0x7E, 0x1B, 0x93, 0xAF, 0x60, 0xD2, 0x48};

void odb_wire_hello_encode(uint8_t out[ODB_WIRE_HELLO_FRAME], const struct odb_wire_hello *hello) {
    odb_wire_header_encode(out, ODB_WIRE_HELLO, ODB_WIRE_HELLO_SIZE);
    memcpy(out + 8, cookie, sizeof cookie);
    odb_wire_put16(out + 16, hello->capabilities);
    odb_wire_put16(out + 18, hello->channel_port);
    odb_wire_put32(out + 20, 0);
}

enum odb_wire_result odb_wire_hello_decode(struct odb_wire_hello *hello, const uint8_t body[ODB_WIRE_HELLO_SIZE]) {
    if (memcmp(body, cookie, sizeof cookie) != 0) {
        return ODB_WIRE_BAD_COOKIE;
    }
    if (odb_wire_get32(body + 12) != 0) {
        return ODB_WIRE_BAD_FIELD;
    }
    hello->capabilities = odb_wire_get16(body + 8);
    hello->channel_port = odb_wire_get16(body + 10);
    return ODB_WIRE_OK;
}

bool odb_wire_hello_prefix(const uint8_t *bytes, size_t n) {
    uint8_t expected[ODB_WIRE_HEADER_SIZE + ODB_WIRE_COOKIE_SIZE];
    odb_wire_header_encode(expected, ODB_WIRE_HELLO, ODB_WIRE_HELLO_SIZE);
    memcpy(expected + ODB_WIRE_HEADER_SIZE, cookie, sizeof cookie);
    return n == 0 || memcmp(bytes, expected, n < sizeof expected ? n : sizeof expected) == 0;
}
