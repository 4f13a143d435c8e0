/* The C codec holds every shared vector, both ways. */
#include "check.h"
#include "vectors.h"

#include "wire/crc32c.h"
#include "wire/crc8.h"

#define FOR_EACH(vector, table)                                                                                        \
    for (const __typeof__((table)[0]) *vector = (table); vector < (table) + sizeof(table) / sizeof((table)[0]);        \
         vector++)

/* Names the vector that a failure belongs to. */
static bool named(bool held, const char *name) {
    if (!held) {
        fprintf(stderr, "    in vector %s\n", name);
    }
    return held;
}

static void checksums_hold_their_vectors(void) {
    FOR_EACH(vector, vectors_crc8) {
        named(CHECK_EQ(odb_wire_crc8(0, vector->bytes, vector->size), vector->value), vector->name);
    }
    FOR_EACH(vector, vectors_crc32c) {
        named(CHECK_EQ(odb_wire_crc32c(vector->bytes, vector->size), vector->value), vector->name);
        named(CHECK_EQ(odb_wire_crc32c_by_table(vector->bytes, vector->size), vector->value), vector->name);
    }
}

static void header_holds_its_vectors(void) {
    FOR_EACH(vector, vectors_header) {
        struct odb_wire_header header = {.type = 99, .length = 99};
        named(CHECK_EQ(odb_wire_header_decode(&header, vector->bytes), vector->result), vector->name);
        if (vector->result != ODB_WIRE_OK) {
            named(CHECK(header.type == 99 && header.length == 99), vector->name);
            continue;
        }
        uint8_t encoded[ODB_WIRE_HEADER_SIZE];
        odb_wire_header_encode(encoded, vector->fields.type, vector->fields.length);
        named(CHECK_MEM_EQ(encoded, vector->bytes, sizeof encoded), vector->name);
        named(CHECK(vector_same_header(&header, &vector->fields)), vector->name);
    }
}

static void hello_prefix_holds_its_vectors(void) {
    FOR_EACH(vector, vectors_hello_prefix) {
        named(CHECK_EQ(odb_wire_hello_prefix(vector->bytes, vector->size), vector->could_be), vector->name);
    }
}

static void descriptor_holds_its_vectors(void) {
    FOR_EACH(vector, vectors_descriptor) {
        struct odb_wire_descriptor descriptor;
        named(CHECK_EQ(odb_wire_descriptor_decode(&descriptor, vector->bytes), vector->result), vector->name);
        if (vector->result != ODB_WIRE_OK) {
            continue;
        }
        uint8_t encoded[ODB_WIRE_DESCRIPTOR_SIZE];
        named(CHECK_EQ(odb_wire_descriptor_check(&vector->fields), ODB_WIRE_OK), vector->name);
        odb_wire_descriptor_encode(encoded, &vector->fields);
        named(CHECK_MEM_EQ(encoded, vector->bytes, sizeof encoded), vector->name);
        named(CHECK(vector_same_descriptor(&descriptor, &vector->fields)), vector->name);
    }
}

/* Bodies whose content cannot be wrong have decoders without a result; bring them to the common shape. */
static enum odb_wire_result decode_hint(struct odb_wire_hint *hint, const uint8_t *body) {
    odb_wire_hint_decode(hint, body);
    return ODB_WIRE_OK;
}

static enum odb_wire_result decode_auth(struct odb_wire_auth *auth, const uint8_t *body) {
    odb_wire_auth_decode(auth, body);
    return ODB_WIRE_OK;
}

/* One case per frame of a fixed size: header and body decode to the fields, the fields encode to the bytes. */
#define FRAME_CASE(frame, frame_type, decode)                                                                          \
    static void frame##_holds_its_vectors(void) {                                                                      \
        FOR_EACH(vector, vectors_##frame) {                                                                            \
            struct odb_wire_header header;                                                                             \
            struct odb_wire_##frame decoded;                                                                           \
            uint8_t encoded[ODB_WIRE_##frame_type##_FRAME];                                                            \
            REQUIRE(vector->size == sizeof encoded);                                                                   \
            named(CHECK_EQ(odb_wire_header_decode(&header, vector->bytes), ODB_WIRE_OK), vector->name);                \
            named(CHECK_EQ(header.type, ODB_WIRE_##frame_type), vector->name);                                         \
            named(CHECK_EQ(header.length, ODB_WIRE_##frame_type##_SIZE), vector->name);                                \
            named(CHECK_EQ(decode(&decoded, vector->bytes + ODB_WIRE_HEADER_SIZE), vector->result), vector->name);     \
            if (vector->result == ODB_WIRE_OK) {                                                                       \
                odb_wire_##frame##_encode(encoded, &vector->fields);                                                   \
                named(CHECK_MEM_EQ(encoded, vector->bytes, sizeof encoded), vector->name);                             \
                named(CHECK(vector_same_##frame(&decoded, &vector->fields)), vector->name);                            \
            }                                                                                                          \
        }                                                                                                              \
    }

FRAME_CASE(hello, HELLO, odb_wire_hello_decode)
FRAME_CASE(hint, HINT, decode_hint)
FRAME_CASE(auth, AUTH, decode_auth)
FRAME_CASE(fetch, FETCH, odb_wire_fetch_decode)
FRAME_CASE(data, DATA, odb_wire_data_decode)
FRAME_CASE(fail, FAIL, odb_wire_fail_decode)
FRAME_CASE(query, QUERY, odb_wire_query_decode)
FRAME_CASE(answer, ANSWER, odb_wire_answer_decode)
FRAME_CASE(push, PUSH, odb_wire_push_decode)

static void release_holds_its_vectors(void) {
    static uint8_t encoded[ODB_WIRE_RELEASE_FRAME_MAX];
    FOR_EACH(vector, vectors_release) {
        struct odb_wire_header header;
        named(CHECK_EQ(odb_wire_header_decode(&header, vector->bytes), vector->result), vector->name);
        if (vector->result != ODB_WIRE_OK) {
            continue;
        }
        named(CHECK_EQ(header.length / ODB_WIRE_RELEASE_UNIT, vector->count), vector->name);
        for (size_t i = 0; i < vector->count; i++) {
            uint64_t payload = odb_wire_release_payload(vector->bytes + ODB_WIRE_HEADER_SIZE, i);
            named(CHECK_EQ(payload, vector->payloads[i]), vector->name);
        }
        REQUIRE(odb_wire_release_encode(encoded, vector->payloads, vector->count) == vector->size);
        named(CHECK_MEM_EQ(encoded, vector->bytes, vector->size), vector->name);
    }
}

static void release_of_nothing_or_too_much_is_not_encoded(void) {
    uint8_t untouched = 0x5a;
    uint64_t payload = 1;
    CHECK_EQ(odb_wire_release_encode(&untouched, &payload, 0), 0);
    CHECK_EQ(odb_wire_release_encode(&untouched, &payload, ODB_WIRE_RELEASE_COUNT_MAX + 1), 0);
    CHECK_EQ(untouched, 0x5a);
}

/* What a decoder reported: adjacent slices of one section joined. */
struct transcript {
    struct odb_wire_event events[16];
    uint8_t bytes[16][128];
    size_t count;
};

static bool is_slice(enum odb_wire_event_kind kind) {
    return kind == ODB_WIRE_EVENT_REAL || kind == ODB_WIRE_EVENT_HEAD || kind == ODB_WIRE_EVENT_TAIL;
}

static void append(struct transcript *transcript, const struct odb_wire_event *event, bool joins) {
    if (!joins) {
        REQUIRE(transcript->count < 16);
        transcript->events[transcript->count] = *event;
        transcript->count++;
        if (is_slice(event->kind)) {
            transcript->events[transcript->count - 1].length = 0;
        }
    }
    if (is_slice(event->kind)) {
        struct odb_wire_event *last = &transcript->events[transcript->count - 1];
        uint8_t *bytes = transcript->bytes[transcript->count - 1];
        REQUIRE(last->kind == event->kind && last->length + event->length <= sizeof transcript->bytes[0]);
        memcpy(bytes + last->length, event->bytes, event->length);
        last->bytes = bytes;
        last->length += event->length;
    }
}

/* Feeds n bytes in slices of at most `step` bytes. With `skipping`, sections are taken past the decoder: only
 * odb_wire_decoder_skip() hears of them, as when a caller receives into the application's buffer. */
static void decode(struct odb_wire_decoder *decoder, struct transcript *transcript, const uint8_t *in, size_t n,
                   size_t step, bool skipping) {
    static const enum odb_wire_event_kind kind_of[] = {[ODB_WIRE_SECTION_REAL] = ODB_WIRE_EVENT_REAL,
                                                       [ODB_WIRE_SECTION_HEAD] = ODB_WIRE_EVENT_HEAD,
                                                       [ODB_WIRE_SECTION_TAIL] = ODB_WIRE_EVENT_TAIL};
    bool joins = false; /* does the next slice continue the section of the last one? */
    for (size_t at = 0; at < n;) {
        struct odb_wire_event event;
        size_t slice = n - at < step ? n - at : step;
        if (skipping && decoder->remaining > 0) {
            event.kind = kind_of[decoder->section];
            event.bytes = in + at;
            event.length = slice < decoder->remaining ? slice : decoder->remaining;
            CHECK(!odb_wire_decoder_skip(decoder, (size_t)decoder->remaining + 1));
            CHECK(odb_wire_decoder_skip(decoder, event.length));
            at += event.length;
        } else {
            size_t used = odb_wire_decoder_feed(decoder, in + at, slice, &event);
            REQUIRE(used <= slice);
            REQUIRE(event.kind != ODB_WIRE_EVENT_NONE || used == slice);
            REQUIRE(!is_slice(event.kind) || (event.bytes >= in + at && event.bytes + event.length == in + at + used));
            at += used;
        }
        if (event.kind != ODB_WIRE_EVENT_NONE) {
            append(transcript, &event, joins);
            joins = is_slice(event.kind) && decoder->remaining > 0 && event.kind == kind_of[decoder->section];
        }
        if (event.kind == ODB_WIRE_EVENT_ERROR) {
            return;
        }
    }
}

static bool same_event(const struct odb_wire_event *a, const struct odb_wire_event *b) {
    if (a->kind != b->kind) {
        return false;
    }
    switch (a->kind) {
    case ODB_WIRE_EVENT_HELLO:
        return vector_same_hello(&a->hello, &b->hello);
    case ODB_WIRE_EVENT_HINT:
        return vector_same_hint(&a->hint, &b->hint);
    case ODB_WIRE_EVENT_VIRTUAL:
        return vector_same_descriptor(&a->descriptor, &b->descriptor);
    case ODB_WIRE_EVENT_ERROR:
        return a->result == b->result;
    case ODB_WIRE_EVENT_NONE:
        return true;
    case ODB_WIRE_EVENT_REAL:
    case ODB_WIRE_EVENT_HEAD:
    case ODB_WIRE_EVENT_TAIL:
        return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
    }
    return false;
}

static void check_stream(size_t step, bool skipping) {
    FOR_EACH(vector, vectors_stream) {
        static struct transcript transcript;
        struct odb_wire_decoder decoder;
        transcript.count = 0;
        odb_wire_decoder_init(&decoder, vector->hello_first);
        decode(&decoder, &transcript, vector->bytes, vector->size, step, skipping);
        named(CHECK_EQ(odb_wire_decoder_at_boundary(&decoder), vector->boundary), vector->name);
        if (!named(CHECK_EQ(transcript.count, vector->count), vector->name)) {
            continue;
        }
        for (size_t i = 0; i < vector->count; i++) {
            named(CHECK(same_event(&transcript.events[i], &vector->events[i])), vector->name);
        }
    }
}

static void stream_decodes_whole(void) {
    check_stream(SIZE_MAX, false);
}

static void stream_decodes_in_slices_of_every_size(void) {
    for (size_t step = 1; step <= 100; step++) {
        check_stream(step, false);
    }
}

static void stream_decodes_with_sections_taken_past_the_decoder(void) {
    check_stream(SIZE_MAX, true);
    for (size_t step = 1; step <= 10; step++) {
        check_stream(step, true);
    }
}

static void stream_error_is_sticky_and_consumes_nothing(void) {
    struct odb_wire_decoder decoder;
    struct odb_wire_event event;
    uint8_t real[ODB_WIRE_HEADER_SIZE];
    odb_wire_header_encode(real, ODB_WIRE_REAL, 4);
    odb_wire_decoder_init(&decoder, false);
    CHECK_EQ(odb_wire_decoder_feed(&decoder, (const uint8_t *)"GET / HTTP", 10, &event), ODB_WIRE_HEADER_SIZE);
    CHECK_EQ(event.kind, ODB_WIRE_EVENT_ERROR);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(odb_wire_decoder_feed(&decoder, real, sizeof real, &event), 0);
        CHECK_EQ(event.kind, ODB_WIRE_EVENT_ERROR);
        CHECK_EQ(event.result, ODB_WIRE_BAD_MAGIC);
    }
    CHECK(!odb_wire_decoder_at_boundary(&decoder));
}

static void stream_remaining_counts_down(void) {
    struct odb_wire_decoder decoder;
    struct odb_wire_event event;
    uint8_t real[ODB_WIRE_HEADER_SIZE + 2] = {0};
    odb_wire_header_encode(real, ODB_WIRE_REAL, ODB_WIRE_REAL_MAX);
    odb_wire_decoder_init(&decoder, false);
    CHECK_EQ(odb_wire_decoder_feed(&decoder, NULL, 0, &event), 0);
    CHECK_EQ(event.kind, ODB_WIRE_EVENT_NONE);
    CHECK_EQ(odb_wire_decoder_feed(&decoder, real, sizeof real, &event), sizeof real);
    CHECK_EQ(event.kind, ODB_WIRE_EVENT_REAL);
    CHECK_EQ(event.length, 2);
    CHECK_EQ(decoder.section, ODB_WIRE_SECTION_REAL);
    CHECK_EQ(decoder.remaining, ODB_WIRE_REAL_MAX - 2);
    CHECK(!odb_wire_decoder_skip(&decoder, ODB_WIRE_REAL_MAX - 1));
    CHECK_EQ(decoder.remaining, ODB_WIRE_REAL_MAX - 2);
    CHECK(odb_wire_decoder_skip(&decoder, ODB_WIRE_REAL_MAX - 2));
    CHECK_EQ(decoder.remaining, 0);
    CHECK(odb_wire_decoder_at_boundary(&decoder));
    CHECK(!odb_wire_decoder_skip(&decoder, 1));
}

static void results_have_distinct_texts(void) {
    for (int a = ODB_WIRE_OK; a <= ODB_WIRE_BAD_FIELD; a++) {
        for (int b = ODB_WIRE_OK; b < a; b++) {
            CHECK(strcmp(odb_wire_result_text((enum odb_wire_result)a),
                         odb_wire_result_text((enum odb_wire_result)b)) != 0);
        }
    }
}

static const struct check_case cases[] = {
    CHECK_CASE(checksums_hold_their_vectors),
    CHECK_CASE(header_holds_its_vectors),
    CHECK_CASE(hello_prefix_holds_its_vectors),
    CHECK_CASE(descriptor_holds_its_vectors),
    CHECK_CASE(hello_holds_its_vectors),
    CHECK_CASE(hint_holds_its_vectors),
    CHECK_CASE(auth_holds_its_vectors),
    CHECK_CASE(fetch_holds_its_vectors),
    CHECK_CASE(data_holds_its_vectors),
    CHECK_CASE(fail_holds_its_vectors),
    CHECK_CASE(query_holds_its_vectors),
    CHECK_CASE(answer_holds_its_vectors),
    CHECK_CASE(push_holds_its_vectors),
    CHECK_CASE(release_holds_its_vectors),
    CHECK_CASE(release_of_nothing_or_too_much_is_not_encoded),
    CHECK_CASE(stream_decodes_whole),
    CHECK_CASE(stream_decodes_in_slices_of_every_size),
    CHECK_CASE(stream_decodes_with_sections_taken_past_the_decoder),
    CHECK_CASE(stream_error_is_sticky_and_consumes_nothing),
    CHECK_CASE(stream_remaining_counts_down),
    CHECK_CASE(results_have_distinct_texts),
};
CHECK_MAIN(cases)
