/* Fuzz target over the C codec: whatever arrives is parsed, needs more, or is refused; what was parsed encodes to the
 * same bytes; and a stream means the same whole, byte by byte, and with sections taken past the decoder.
 *
 * The first input byte chooses. Checksums would stop almost every mutation, so half of the inputs are repaired first:
 * magic, version, checksums and the lengths that have to agree are put right, everything else stays as it came.
 * Built without libFuzzer, main() replays the files named as arguments. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/bytes.h"
#include "wire/crc32c.h"
#include "wire/message.h"
#include "wire/stream_decoder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                              \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

enum { INPUT_MAX = 4096 };

static void seal_descriptor(uint8_t *descriptor) {
    odb_wire_put32(descriptor + 80, odb_wire_crc32c(descriptor, 80));
}

static void check_descriptor(const uint8_t in[ODB_WIRE_DESCRIPTOR_SIZE]) {
    struct odb_wire_descriptor descriptor;
    if (odb_wire_descriptor_decode(&descriptor, in) != ODB_WIRE_OK) {
        return;
    }
    uint8_t encoded[ODB_WIRE_DESCRIPTOR_SIZE];
    uint64_t total = (uint64_t)descriptor.head + descriptor.body + descriptor.tail;
    MUST(total > 0 && descriptor.offset + total > descriptor.offset);
    MUST(descriptor.push_position + descriptor.body >= descriptor.push_position);
    odb_wire_descriptor_encode(encoded, &descriptor);
    MUST(memcmp(encoded, in, sizeof encoded) == 0);
}

/* Decodes a body of a fixed size if there are enough bytes; if it is accepted it encodes to itself. */
#define CHECK_BODY(frame, frame_type, decode)                                                                          \
    do {                                                                                                               \
        struct odb_wire_##frame value;                                                                                 \
        uint8_t encoded[ODB_WIRE_##frame_type##_FRAME];                                                                \
        struct odb_wire_header header;                                                                                 \
        if (n >= ODB_WIRE_##frame_type##_SIZE && (decode) == ODB_WIRE_OK) {                                            \
            odb_wire_##frame##_encode(encoded, &value);                                                                \
            MUST(odb_wire_header_decode(&header, encoded) == ODB_WIRE_OK);                                             \
            MUST(header.type == ODB_WIRE_##frame_type && header.length == ODB_WIRE_##frame_type##_SIZE);               \
            MUST(memcmp(encoded + ODB_WIRE_HEADER_SIZE, in, ODB_WIRE_##frame_type##_SIZE) == 0);                       \
        }                                                                                                              \
    } while (0)

static void check_release(const uint8_t *in, size_t n) {
    static uint8_t encoded[ODB_WIRE_RELEASE_FRAME_MAX];
    uint64_t payloads[INPUT_MAX / ODB_WIRE_RELEASE_UNIT];
    size_t count = n / ODB_WIRE_RELEASE_UNIT;
    for (size_t i = 0; i < count; i++) {
        payloads[i] = odb_wire_release_payload(in, i);
    }
    size_t written = odb_wire_release_encode(encoded, payloads, count);
    MUST(written == (count == 0 ? 0 : ODB_WIRE_HEADER_SIZE + count * ODB_WIRE_RELEASE_UNIT));
    MUST(written == 0 || memcmp(encoded + ODB_WIRE_HEADER_SIZE, in, written - ODB_WIRE_HEADER_SIZE) == 0);
}

static void check_push(const uint8_t in[ODB_WIRE_PUSH_SIZE]) {
    struct odb_wire_push push;
    if (odb_wire_push_decode(&push, in) == ODB_WIRE_OK) {
        MUST(push.consumer != 0);
        MUST(push.channel != 0 || (push.credits == 0 && push.position == 0 && push.skipped == 0));
    }
}

static void check_bodies(const uint8_t *in, size_t n) {
    CHECK_BODY(hello, HELLO, odb_wire_hello_decode(&value, in));
    CHECK_BODY(hint, HINT, (odb_wire_hint_decode(&value, in), ODB_WIRE_OK));
    CHECK_BODY(auth, AUTH, (odb_wire_auth_decode(&value, in), ODB_WIRE_OK));
    CHECK_BODY(fetch, FETCH, odb_wire_fetch_decode(&value, in));
    CHECK_BODY(data, DATA, odb_wire_data_decode(&value, in));
    CHECK_BODY(fail, FAIL, odb_wire_fail_decode(&value, in));
    CHECK_BODY(query, QUERY, odb_wire_query_decode(&value, in));
    CHECK_BODY(answer, ANSWER, odb_wire_answer_decode(&value, in));
    CHECK_BODY(push, PUSH, odb_wire_push_decode(&value, in));
    if (n >= ODB_WIRE_PUSH_SIZE) {
        check_push(in);
    }
    check_release(in, n);
}

static void check_header(const uint8_t *in, size_t n) {
    struct odb_wire_header header;
    uint8_t encoded[ODB_WIRE_HEADER_SIZE];
    if (n >= sizeof encoded && odb_wire_header_decode(&header, in) == ODB_WIRE_OK) {
        MUST(odb_wire_length_is_valid(header.type, header.length));
        odb_wire_header_encode(encoded, header.type, header.length);
        MUST(memcmp(encoded, in, sizeof encoded) == 0);
    }
    bool before = true; /* once a prefix is refused, every longer one is */
    for (size_t i = 0; i <= n && i <= ODB_WIRE_HELLO_FRAME; i++) {
        bool now = odb_wire_hello_prefix(in, i);
        MUST(before || !now);
        before = now;
    }
}

/* Puts the frames in `bytes` right, one behind the other. */
static void repair_stream(uint8_t *bytes, size_t n) {
    for (size_t at = 0; at + ODB_WIRE_HEADER_SIZE <= n;) {
        uint8_t *body = bytes + at + ODB_WIRE_HEADER_SIZE;
        uint8_t type = bytes[at + 2] & 0x07u;
        uint32_t length = (bytes[at + 4] & 0x3fu) + 1u;
        if (type == ODB_WIRE_HELLO) {
            uint8_t hello[ODB_WIRE_HELLO_FRAME];
            odb_wire_hello_encode(hello, &(struct odb_wire_hello){.capabilities = 1, .channel_port = 2});
            length = ODB_WIRE_HELLO_SIZE;
            if (at + sizeof hello <= n) {
                memcpy(body, hello + ODB_WIRE_HEADER_SIZE, ODB_WIRE_COOKIE_SIZE);
            }
        } else if (type == ODB_WIRE_HINT) {
            length = ODB_WIRE_HINT_SIZE;
        } else if (type == ODB_WIRE_VIRTUAL && at + ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE <= n) {
            uint32_t head = body[35] & 0x1fu;
            uint32_t tail = body[43] & 0x1fu;
            odb_wire_put32(body + 32, head);
            odb_wire_put32(body + 40, tail);
            body[66] = 0;
            body[67] = (uint8_t)(body[67] & 0x07u);
            if ((body[67] & ODB_WIRE_FLAG_PUSHED) == 0) {
                memset(body + 68, 0, 12);
            }
            seal_descriptor(body);
            length = ODB_WIRE_DESCRIPTOR_SIZE + head + tail;
        }
        odb_wire_header_encode(bytes + at, type, length);
        at += ODB_WIRE_HEADER_SIZE + length;
    }
}

/* What a stream meant, independent of how its sections were cut: FNV-1a over events and section bytes. */
struct meaning {
    uint64_t digest;
    enum odb_wire_result error;
    enum odb_wire_section section;
    uint32_t remaining;
    bool at_boundary;
};

static void fold(struct meaning *meaning, enum odb_wire_event_kind kind, const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        meaning->digest = (meaning->digest ^ (uint64_t)kind) * 0x100000001b3u;
        meaning->digest = (meaning->digest ^ bytes[i]) * 0x100000001b3u;
    }
}

static void fold_event(struct meaning *meaning, const struct odb_wire_event *event) {
    uint8_t bytes[ODB_WIRE_DESCRIPTOR_SIZE] = {0};
    switch (event->kind) {
    case ODB_WIRE_EVENT_NONE:
        return;
    case ODB_WIRE_EVENT_REAL:
    case ODB_WIRE_EVENT_HEAD:
    case ODB_WIRE_EVENT_TAIL:
        MUST(event->length > 0);
        fold(meaning, event->kind, event->bytes, event->length);
        return;
    case ODB_WIRE_EVENT_HELLO:
        odb_wire_hello_encode(bytes, &event->hello);
        break;
    case ODB_WIRE_EVENT_HINT:
        odb_wire_hint_encode(bytes, &event->hint);
        break;
    case ODB_WIRE_EVENT_VIRTUAL:
        odb_wire_descriptor_encode(bytes, &event->descriptor);
        break;
    case ODB_WIRE_EVENT_ERROR:
        MUST(event->result != ODB_WIRE_OK);
        bytes[0] = (uint8_t)event->result;
        break;
    }
    fold(meaning, event->kind, bytes, sizeof bytes);
}

static enum odb_wire_event_kind section_kind(const struct odb_wire_decoder *decoder) {
    return decoder->section == ODB_WIRE_SECTION_REAL   ? ODB_WIRE_EVENT_REAL
           : decoder->section == ODB_WIRE_SECTION_HEAD ? ODB_WIRE_EVENT_HEAD
                                                       : ODB_WIRE_EVENT_TAIL;
}

static struct meaning decode_stream(const uint8_t *in, size_t n, bool hello_first, size_t step, bool skipping) {
    struct meaning meaning = {.digest = 0xcbf29ce484222325u};
    struct odb_wire_decoder decoder;
    struct odb_wire_event event = {.kind = ODB_WIRE_EVENT_NONE};
    odb_wire_decoder_init(&decoder, hello_first);
    for (size_t at = 0; at < n && event.kind != ODB_WIRE_EVENT_ERROR;) {
        size_t slice = n - at < step ? n - at : step;
        if (skipping && decoder.remaining > 0) {
            size_t taken = slice < decoder.remaining ? slice : decoder.remaining;
            fold(&meaning, section_kind(&decoder), in + at, taken);
            MUST(odb_wire_decoder_skip(&decoder, taken));
            at += taken;
            continue;
        }
        size_t used = odb_wire_decoder_feed(&decoder, in + at, slice, &event);
        MUST(used <= slice);
        MUST(used > 0);
        MUST(event.kind != ODB_WIRE_EVENT_NONE || used == slice);
        at += used;
        fold_event(&meaning, &event);
    }
    meaning.error = decoder.error;
    meaning.section = decoder.section;
    meaning.remaining = decoder.remaining;
    meaning.at_boundary = odb_wire_decoder_at_boundary(&decoder);
    return meaning;
}

static void must_agree(const struct meaning *a, const struct meaning *b) {
    MUST(a->digest == b->digest);
    MUST(a->error == b->error);
    MUST(a->section == b->section);
    MUST(a->remaining == b->remaining);
    MUST(a->at_boundary == b->at_boundary);
}

static void check_stream(const uint8_t *in, size_t n, bool hello_first) {
    struct meaning whole = decode_stream(in, n, hello_first, SIZE_MAX, false);
    struct meaning bytewise = decode_stream(in, n, hello_first, 1, false);
    struct meaning skipping = decode_stream(in, n, hello_first, SIZE_MAX, true);
    struct meaning skipping_bytewise = decode_stream(in, n, hello_first, 1, true);
    must_agree(&whole, &bytewise);
    must_agree(&whole, &skipping);
    must_agree(&whole, &skipping_bytewise);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t repaired[INPUT_MAX];
    if (size == 0 || size > INPUT_MAX) {
        return 0;
    }
    const uint8_t *in = data + 1;
    size_t n = size - 1;
    check_header(in, n);
    check_bodies(in, n);
    if ((data[0] & 1) == 0) {
        memcpy(repaired, in, n);
        repair_stream(repaired, n);
        check_stream(repaired, n, (data[0] & 2) != 0);
        if (n >= ODB_WIRE_DESCRIPTOR_SIZE) {
            memcpy(repaired, in, n);
            seal_descriptor(repaired);
            check_descriptor(repaired);
        }
    } else {
        check_stream(in, n, (data[0] & 2) != 0);
        if (n >= ODB_WIRE_DESCRIPTOR_SIZE) {
            check_descriptor(in);
        }
    }
    return 0;
}

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if !defined(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION) && !__has_feature(coverage_sanitizer)
int main(int argc, char **argv) {
    static uint8_t input[INPUT_MAX + 1];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) {
            perror(argv[i]);
            return 1;
        }
        size_t size = fread(input, 1, sizeof input, file);
        fclose(file);
        LLVMFuzzerTestOneInput(input, size);
    }
    printf("%d inputs replayed\n", argc - 1);
    return 0;
}
#endif
