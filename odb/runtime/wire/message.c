/* Encodes and decodes the channel messages. */
#include "wire/message.h"

#include <string.h>

#include "wire/bytes.h"

enum { BODY = ODB_WIRE_HEADER_SIZE };

static enum odb_wire_result check_range(uint64_t offset, uint64_t length) {
    return length == 0 || offset > UINT64_MAX - length ? ODB_WIRE_BAD_LENGTH : ODB_WIRE_OK;
}

void odb_wire_auth_encode(uint8_t out[ODB_WIRE_AUTH_FRAME], const struct odb_wire_auth *auth) {
    odb_wire_header_encode(out, ODB_WIRE_AUTH, ODB_WIRE_AUTH_SIZE);
    memcpy(out + BODY, auth->nonce, ODB_WIRE_NONCE_SIZE);
    memcpy(out + BODY + ODB_WIRE_NONCE_SIZE, auth->proof, ODB_WIRE_PROOF_SIZE);
}

void odb_wire_auth_decode(struct odb_wire_auth *auth, const uint8_t body[ODB_WIRE_AUTH_SIZE]) {
    memcpy(auth->nonce, body, ODB_WIRE_NONCE_SIZE);
    memcpy(auth->proof, body + ODB_WIRE_NONCE_SIZE, ODB_WIRE_PROOF_SIZE);
}

void odb_wire_fetch_encode(uint8_t out[ODB_WIRE_FETCH_FRAME], const struct odb_wire_fetch *fetch) {
    odb_wire_header_encode(out, ODB_WIRE_FETCH, ODB_WIRE_FETCH_SIZE);
    odb_wire_put64(out + BODY, fetch->payload);
    memcpy(out + BODY + 8, fetch->token, ODB_WIRE_TOKEN_SIZE);
    odb_wire_put64(out + BODY + 24, fetch->offset);
    odb_wire_put64(out + BODY + 32, fetch->length);
}

enum odb_wire_result odb_wire_fetch_decode(struct odb_wire_fetch *fetch, const uint8_t body[ODB_WIRE_FETCH_SIZE]) {
    fetch->payload = odb_wire_get64(body);
    memcpy(fetch->token, body + 8, ODB_WIRE_TOKEN_SIZE);
    fetch->offset = odb_wire_get64(body + 24);
    fetch->length = odb_wire_get64(body + 32);
    return check_range(fetch->offset, fetch->length);
}

void odb_wire_data_encode(uint8_t out[ODB_WIRE_DATA_FRAME], const struct odb_wire_data *data) {
    odb_wire_header_encode(out, ODB_WIRE_DATA, ODB_WIRE_DATA_SIZE);
    odb_wire_put64(out + BODY, data->payload);
    odb_wire_put64(out + BODY + 8, data->offset);
    odb_wire_put64(out + BODY + 16, data->length);
}

enum odb_wire_result odb_wire_data_decode(struct odb_wire_data *data, const uint8_t body[ODB_WIRE_DATA_SIZE]) {
    data->payload = odb_wire_get64(body);
    data->offset = odb_wire_get64(body + 8);
    data->length = odb_wire_get64(body + 16);
    return check_range(data->offset, data->length);
}

void odb_wire_fail_encode(uint8_t out[ODB_WIRE_FAIL_FRAME], const struct odb_wire_fail *fail) {
    odb_wire_header_encode(out, ODB_WIRE_FAIL, ODB_WIRE_FAIL_SIZE);
    odb_wire_put64(out + BODY, fail->payload);
    odb_wire_put16(out + BODY + 8, fail->reason);
    odb_wire_put16(out + BODY + 10, 0);
}

enum odb_wire_result odb_wire_fail_decode(struct odb_wire_fail *fail, const uint8_t body[ODB_WIRE_FAIL_SIZE]) {
    fail->payload = odb_wire_get64(body);
    fail->reason = odb_wire_get16(body + 8);
    bool known = fail->reason >= ODB_WIRE_GONE && fail->reason <= ODB_WIRE_OVERLOADED;
    return known && odb_wire_get16(body + 10) == 0 ? ODB_WIRE_OK : ODB_WIRE_BAD_FIELD;
}

size_t odb_wire_release_encode(uint8_t *out, const uint64_t *payloads, size_t count) {
    if (count == 0 || count > ODB_WIRE_RELEASE_COUNT_MAX) {
        return 0;
    }
    size_t length = count * ODB_WIRE_RELEASE_UNIT;
    odb_wire_header_encode(out, ODB_WIRE_RELEASE, (uint32_t)length);
    for (size_t i = 0; i < count; i++) {
        odb_wire_put64(out + BODY + i * ODB_WIRE_RELEASE_UNIT, payloads[i]);
    }
    return BODY + length;
}

uint64_t odb_wire_release_payload(const uint8_t *body, size_t index) {
    return odb_wire_get64(body + index * ODB_WIRE_RELEASE_UNIT);
}

void odb_wire_query_encode(uint8_t out[ODB_WIRE_QUERY_FRAME], const struct odb_wire_query *query) {
    odb_wire_header_encode(out, ODB_WIRE_QUERY, ODB_WIRE_QUERY_SIZE);
    memcpy(out + BODY, query->address, ODB_WIRE_ADDRESS_SIZE);
    odb_wire_put16(out + BODY + 16, query->port);
    odb_wire_put16(out + BODY + 18, 0);
}

enum odb_wire_result odb_wire_query_decode(struct odb_wire_query *query, const uint8_t body[ODB_WIRE_QUERY_SIZE]) {
    memcpy(query->address, body, ODB_WIRE_ADDRESS_SIZE);
    query->port = odb_wire_get16(body + 16);
    return odb_wire_get16(body + 18) == 0 ? ODB_WIRE_OK : ODB_WIRE_BAD_FIELD;
}

void odb_wire_answer_encode(uint8_t out[ODB_WIRE_ANSWER_FRAME], const struct odb_wire_answer *answer) {
    odb_wire_header_encode(out, ODB_WIRE_ANSWER, ODB_WIRE_ANSWER_SIZE);
    memcpy(out + BODY, answer->address, ODB_WIRE_ADDRESS_SIZE);
    odb_wire_put16(out + BODY + 16, answer->port);
    out[BODY + 18] = answer->framed;
    out[BODY + 19] = 0;
    odb_wire_put32(out + BODY + 20, answer->ttl_ms);
}

enum odb_wire_result odb_wire_answer_decode(struct odb_wire_answer *answer, const uint8_t body[ODB_WIRE_ANSWER_SIZE]) {
    memcpy(answer->address, body, ODB_WIRE_ADDRESS_SIZE);
    answer->port = odb_wire_get16(body + 16);
    answer->framed = body[18];
    answer->ttl_ms = odb_wire_get32(body + 20);
    return answer->framed <= 1 && body[19] == 0 ? ODB_WIRE_OK : ODB_WIRE_BAD_FIELD;
}

void odb_wire_push_encode(uint8_t out[ODB_WIRE_PUSH_FRAME], const struct odb_wire_push *push) {
    odb_wire_header_encode(out, ODB_WIRE_PUSH, ODB_WIRE_PUSH_SIZE);
    odb_wire_put64(out + BODY, push->consumer);
    odb_wire_put32(out + BODY + 8, push->channel);
    odb_wire_put32(out + BODY + 12, 0);
    odb_wire_put64(out + BODY + 16, push->credits);
    odb_wire_put64(out + BODY + 24, push->position);
    odb_wire_put64(out + BODY + 32, push->skipped);
}

enum odb_wire_result odb_wire_push_decode(struct odb_wire_push *push, const uint8_t body[ODB_WIRE_PUSH_SIZE]) {
    push->consumer = odb_wire_get64(body);
    push->channel = odb_wire_get32(body + 8);
    push->credits = odb_wire_get64(body + 16);
    push->position = odb_wire_get64(body + 24);
    push->skipped = odb_wire_get64(body + 32);
    bool names_only = push->credits == 0 && push->position == 0 && push->skipped == 0;
    bool valid = push->consumer != 0 && odb_wire_get32(body + 12) == 0 && (push->channel != 0 || names_only);
    return valid ? ODB_WIRE_OK : ODB_WIRE_BAD_FIELD;
}
