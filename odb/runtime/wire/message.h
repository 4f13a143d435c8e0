/* The channel messages. Every *_encode writes the whole frame, header included (..._FRAME bytes, to be followed by
 * the raw bytes in the case of DATA); every *_decode reads the body behind a header that was already checked, and
 * its output is meaningful only when the result is ODB_WIRE_OK. Reserved bytes travel as zero and are checked. */
#ifndef ODB_WIRE_MESSAGE_H
#define ODB_WIRE_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "wire/descriptor.h"
#include "wire/header.h"

#define ODB_WIRE_NONCE_SIZE 16u
#define ODB_WIRE_PROOF_SIZE 32u
#define ODB_WIRE_AUTH_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_AUTH_SIZE)
#define ODB_WIRE_FETCH_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_FETCH_SIZE)
#define ODB_WIRE_DATA_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_DATA_SIZE)
#define ODB_WIRE_FAIL_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_FAIL_SIZE)
#define ODB_WIRE_RELEASE_FRAME_MAX (ODB_WIRE_HEADER_SIZE + ODB_WIRE_RELEASE_MAX)
#define ODB_WIRE_QUERY_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_QUERY_SIZE)
#define ODB_WIRE_ANSWER_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_ANSWER_SIZE)
#define ODB_WIRE_PUSH_FRAME (ODB_WIRE_HEADER_SIZE + ODB_WIRE_PUSH_SIZE)

struct odb_wire_auth {
    uint8_t nonce[ODB_WIRE_NONCE_SIZE]; /* the sender's, fresh for this channel */
    uint8_t proof[ODB_WIRE_PROOF_SIZE]; /* HMAC-SHA-256 under the shared key */
};
void odb_wire_auth_encode(uint8_t out[ODB_WIRE_AUTH_FRAME], const struct odb_wire_auth *auth);
void odb_wire_auth_decode(struct odb_wire_auth *auth, const uint8_t body[ODB_WIRE_AUTH_SIZE]);

/* length > 0; offset + length must not overflow: BAD_LENGTH. */
struct odb_wire_fetch {
    uint64_t payload;
    uint8_t token[ODB_WIRE_TOKEN_SIZE];
    uint64_t offset; /* within the payload */
    uint64_t length; /* bytes */
};
void odb_wire_fetch_encode(uint8_t out[ODB_WIRE_FETCH_FRAME], const struct odb_wire_fetch *fetch);
enum odb_wire_result odb_wire_fetch_decode(struct odb_wire_fetch *fetch, const uint8_t body[ODB_WIRE_FETCH_SIZE]);

/* Followed by `length` raw bytes that no header counts. length > 0; offset + length must not overflow: BAD_LENGTH. */
struct odb_wire_data {
    uint64_t payload;
    uint64_t offset;
    uint64_t length;
};
void odb_wire_data_encode(uint8_t out[ODB_WIRE_DATA_FRAME], const struct odb_wire_data *data);
enum odb_wire_result odb_wire_data_decode(struct odb_wire_data *data, const uint8_t body[ODB_WIRE_DATA_SIZE]);

enum odb_wire_reason {
    ODB_WIRE_GONE = 1,      /* released or its lease ran out */
    ODB_WIRE_CHANGED = 2,   /* the file behind the payload is not the one that was announced */
    ODB_WIRE_DENIED = 3,    /* wrong token or outside the announced range */
    ODB_WIRE_OVERLOADED = 4 /* the origin cannot serve now */
};

/* A reason outside the enumeration is BAD_FIELD. */
struct odb_wire_fail {
    uint64_t payload;
    uint16_t reason; /* enum odb_wire_reason */
};
void odb_wire_fail_encode(uint8_t out[ODB_WIRE_FAIL_FRAME], const struct odb_wire_fail *fail);
enum odb_wire_result odb_wire_fail_decode(struct odb_wire_fail *fail, const uint8_t body[ODB_WIRE_FAIL_SIZE]);

/* RELEASE is a list of 1..ODB_WIRE_RELEASE_COUNT_MAX payload ids. Encoding returns the bytes written, header
 * included, or 0 when count is out of bounds. Reading: the body's length / ODB_WIRE_RELEASE_UNIT ids. */
size_t odb_wire_release_encode(uint8_t *out, const uint64_t *payloads, size_t count);
uint64_t odb_wire_release_payload(const uint8_t *body, size_t index);

struct odb_wire_query {
    uint8_t address[ODB_WIRE_ADDRESS_SIZE]; /* IPv6 or IPv4-mapped */
    uint16_t port;
};
void odb_wire_query_encode(uint8_t out[ODB_WIRE_QUERY_FRAME], const struct odb_wire_query *query);
enum odb_wire_result odb_wire_query_decode(struct odb_wire_query *query, const uint8_t body[ODB_WIRE_QUERY_SIZE]);

struct odb_wire_answer {
    uint8_t address[ODB_WIRE_ADDRESS_SIZE]; /* as in the query */
    uint16_t port;
    uint8_t framed;  /* 1: whoever listens there speaks frames; 0: it does not; else BAD_FIELD */
    uint32_t ttl_ms; /* how long the answer may be cached */
};
void odb_wire_answer_encode(uint8_t out[ODB_WIRE_ANSWER_FRAME], const struct odb_wire_answer *answer);
enum odb_wire_result odb_wire_answer_decode(struct odb_wire_answer *answer, const uint8_t body[ODB_WIRE_ANSWER_SIZE]);

/* Names the consumer of a fetch channel (channel 0), or dedicates the connection to pushes and then reports on them.
 * BAD_FIELD: consumer 0, or channel 0 together with credits, position or skipped. */
struct odb_wire_push {
    uint64_t consumer; /* random number of the consumer process, never 0 */
    uint32_t channel;  /* random number of the push channel, chosen by the consumer; 0: this is a fetch channel */
    uint64_t credits;  /* bytes that the origin may push in addition; 0 in a message that only reports */
    uint64_t position; /* first message: where the push stream begins (random); later: passed up to here */
    uint64_t skipped;  /* bytes passed since the last message that nobody claimed */
};
void odb_wire_push_encode(uint8_t out[ODB_WIRE_PUSH_FRAME], const struct odb_wire_push *push);
enum odb_wire_result odb_wire_push_decode(struct odb_wire_push *push, const uint8_t body[ODB_WIRE_PUSH_SIZE]);

#endif
