/* The C codec behind two plain functions, for the test that compares it with its Python twin through ctypes. */
#include <string.h>

#include "wire/bytes.h"
#include "wire/message.h"
#include "wire/stream_decoder.h"

int twin_frame(const uint8_t *in, size_t n, uint8_t *out);
size_t twin_stream(const uint8_t *in, size_t n, bool hello_first, size_t step, uint8_t *out);

#define BODY_CASE(frame, frame_type, decode)                                                                           \
    case ODB_WIRE_##frame_type: {                                                                                      \
        struct odb_wire_##frame value;                                                                                 \
        result = decode(&value, body);                                                                                 \
        if (result == ODB_WIRE_OK) {                                                                                   \
            odb_wire_##frame##_encode(out, &value);                                                                    \
        }                                                                                                              \
        return (int)result;                                                                                            \
    }

/* Decodes a whole frame of a fixed size and encodes it again into `out` (n bytes). Returns the result, or -1 when
 * the frame is not of that kind or not n bytes long. */
int twin_frame(const uint8_t *in, size_t n, uint8_t *out) {
    struct odb_wire_header header;
    enum odb_wire_result result = odb_wire_header_decode(&header, in);
    const uint8_t *body = in + ODB_WIRE_HEADER_SIZE;
    if (result != ODB_WIRE_OK) {
        return (int)result;
    }
    if (n != ODB_WIRE_HEADER_SIZE + header.length) {
        return -1;
    }
    switch (header.type) {
        BODY_CASE(hello, HELLO, odb_wire_hello_decode)
        BODY_CASE(fetch, FETCH, odb_wire_fetch_decode)
        BODY_CASE(data, DATA, odb_wire_data_decode)
        BODY_CASE(fail, FAIL, odb_wire_fail_decode)
        BODY_CASE(query, QUERY, odb_wire_query_decode)
        BODY_CASE(answer, ANSWER, odb_wire_answer_decode)
        BODY_CASE(push, PUSH, odb_wire_push_decode)
    case ODB_WIRE_AUTH: {
        struct odb_wire_auth auth;
        odb_wire_auth_decode(&auth, body);
        odb_wire_auth_encode(out, &auth);
        return ODB_WIRE_OK;
    }
    case ODB_WIRE_HINT: {
        struct odb_wire_hint hint;
        odb_wire_hint_decode(&hint, body);
        odb_wire_hint_encode(out, &hint);
        return ODB_WIRE_OK;
    }
    default:
        return -1;
    }
}

/* Appends one record: kind (1 byte), length (4 bytes), content. */
static size_t record(uint8_t *out, enum odb_wire_event_kind kind, const uint8_t *bytes, size_t n) {
    out[0] = (uint8_t)kind;
    odb_wire_put32(out + 1, (uint32_t)n);
    memcpy(out + 5, bytes, n);
    return 5 + n;
}

static size_t record_event(uint8_t *out, const struct odb_wire_event *event) {
    uint8_t bytes[ODB_WIRE_DESCRIPTOR_SIZE];
    switch (event->kind) {
    case ODB_WIRE_EVENT_NONE:
        return 0;
    case ODB_WIRE_EVENT_HELLO:
        odb_wire_hello_encode(bytes, &event->hello);
        return record(out, event->kind, bytes, ODB_WIRE_HELLO_FRAME);
    case ODB_WIRE_EVENT_HINT:
        odb_wire_hint_encode(bytes, &event->hint);
        return record(out, event->kind, bytes, ODB_WIRE_HINT_FRAME);
    case ODB_WIRE_EVENT_VIRTUAL:
        odb_wire_descriptor_encode(bytes, &event->descriptor);
        return record(out, event->kind, bytes, ODB_WIRE_DESCRIPTOR_SIZE);
    case ODB_WIRE_EVENT_ERROR:
        bytes[0] = (uint8_t)event->result;
        return record(out, event->kind, bytes, 1);
    case ODB_WIRE_EVENT_REAL:
    case ODB_WIRE_EVENT_HEAD:
    case ODB_WIRE_EVENT_TAIL:
        return record(out, event->kind, event->bytes, event->length);
    }
    return 0;
}

/* Feeds n bytes in slices of `step`, appends a record per event to `out` (room: 100 bytes per byte of input), then
 * one byte: does the stream end between frames? Returns the bytes written. */
size_t twin_stream(const uint8_t *in, size_t n, bool hello_first, size_t step, uint8_t *out) {
    struct odb_wire_decoder decoder;
    struct odb_wire_event event = {.kind = ODB_WIRE_EVENT_NONE};
    size_t written = 0;
    odb_wire_decoder_init(&decoder, hello_first);
    for (size_t at = 0; at < n && event.kind != ODB_WIRE_EVENT_ERROR;) {
        at += odb_wire_decoder_feed(&decoder, in + at, n - at < step ? n - at : step, &event);
        written += record_event(out + written, &event);
    }
    out[written] = odb_wire_decoder_at_boundary(&decoder) ? 1 : 0;
    return written + 1;
}
