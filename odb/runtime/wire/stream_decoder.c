/* The state machine behind the stream decoder. */
#include "wire/stream_decoder.h"

#include <string.h>

static size_t fail(struct odb_wire_decoder *decoder, struct odb_wire_event *event, enum odb_wire_result result,
                   size_t consumed) {
    decoder->error = result;
    decoder->remaining = 0;
    event->kind = ODB_WIRE_EVENT_ERROR;
    event->result = result;
    return consumed;
}

static void enter(struct odb_wire_decoder *decoder, enum odb_wire_section section, uint32_t remaining) {
    decoder->section = section;
    decoder->remaining = remaining;
    decoder->collected = 0;
}

/* Leaves a section of zero remaining bytes for the next one that has any, or for the next header. */
static void advance(struct odb_wire_decoder *decoder) {
    if (decoder->section == ODB_WIRE_SECTION_HEAD && decoder->remaining == 0) {
        enter(decoder, ODB_WIRE_SECTION_TAIL, decoder->tail);
    }
    if (decoder->section >= ODB_WIRE_SECTION_REAL && decoder->remaining == 0) {
        enter(decoder, ODB_WIRE_SECTION_HEADER, 0);
    }
}

/* Moves bytes into the decoder's buffer until it holds `wanted`; returns how many were taken. */
static size_t collect(struct odb_wire_decoder *decoder, const uint8_t *in, size_t n, size_t wanted) {
    size_t missing = wanted - decoder->collected;
    size_t taken = n < missing ? n : missing;
    if (taken > 0) {
        memcpy(decoder->buffer + decoder->collected, in, taken);
        decoder->collected = (uint8_t)(decoder->collected + taken);
    }
    return taken;
}

static enum odb_wire_result begin_frame(struct odb_wire_decoder *decoder) {
    struct odb_wire_header header;
    enum odb_wire_result result = odb_wire_header_decode(&header, decoder->buffer);
    if (result != ODB_WIRE_OK) {
        return result;
    }
    if (!odb_wire_type_is_stream(header.type) || (header.type == ODB_WIRE_HELLO) != decoder->hello_next) {
        return ODB_WIRE_BAD_TYPE;
    }
    decoder->hello_next = false;
    decoder->type = header.type;
    decoder->length = header.length;
    if (header.type == ODB_WIRE_REAL) {
        enter(decoder, ODB_WIRE_SECTION_REAL, header.length);
    } else {
        enter(decoder, ODB_WIRE_SECTION_FIXED, 0);
    }
    return ODB_WIRE_OK;
}

static size_t fixed_size(uint8_t type) {
    switch (type) {
    case ODB_WIRE_HELLO:
        return ODB_WIRE_HELLO_SIZE;
    case ODB_WIRE_HINT:
        return ODB_WIRE_HINT_SIZE;
    default:
        return ODB_WIRE_DESCRIPTOR_SIZE;
    }
}

static enum odb_wire_result end_descriptor(struct odb_wire_decoder *decoder, struct odb_wire_descriptor *descriptor) {
    enum odb_wire_result result = odb_wire_descriptor_decode(descriptor, decoder->buffer);
    if (result != ODB_WIRE_OK) {
        return result;
    }
    if (decoder->length != ODB_WIRE_DESCRIPTOR_SIZE + descriptor->head + descriptor->tail) {
        return ODB_WIRE_BAD_LENGTH;
    }
    decoder->tail = descriptor->tail;
    enter(decoder, ODB_WIRE_SECTION_HEAD, descriptor->head);
    advance(decoder);
    return ODB_WIRE_OK;
}

static enum odb_wire_result end_fixed(struct odb_wire_decoder *decoder, struct odb_wire_event *event) {
    if (decoder->type == ODB_WIRE_VIRTUAL) {
        event->kind = ODB_WIRE_EVENT_VIRTUAL;
        return end_descriptor(decoder, &event->descriptor);
    }
    enum odb_wire_result result = ODB_WIRE_OK;
    if (decoder->type == ODB_WIRE_HELLO) {
        event->kind = ODB_WIRE_EVENT_HELLO;
        result = odb_wire_hello_decode(&event->hello, decoder->buffer);
    } else {
        event->kind = ODB_WIRE_EVENT_HINT;
        odb_wire_hint_decode(&event->hint, decoder->buffer);
    }
    enter(decoder, ODB_WIRE_SECTION_HEADER, 0);
    return result;
}

static size_t take_slice(struct odb_wire_decoder *decoder, const uint8_t *in, size_t n, struct odb_wire_event *event) {
    size_t taken = n < decoder->remaining ? n : decoder->remaining;
    event->kind = decoder->section == ODB_WIRE_SECTION_REAL   ? ODB_WIRE_EVENT_REAL
                  : decoder->section == ODB_WIRE_SECTION_HEAD ? ODB_WIRE_EVENT_HEAD
                                                              : ODB_WIRE_EVENT_TAIL;
    event->bytes = in;
    event->length = taken;
    odb_wire_decoder_skip(decoder, taken);
    return taken;
}

void odb_wire_decoder_init(struct odb_wire_decoder *decoder, bool hello_first) {
    memset(decoder, 0, sizeof *decoder);
    decoder->hello_next = hello_first;
}

size_t odb_wire_decoder_feed(struct odb_wire_decoder *decoder, const uint8_t *in, size_t n,
                             struct odb_wire_event *event) {
    size_t used = 0;
    if (decoder->error != ODB_WIRE_OK) {
        return fail(decoder, event, decoder->error, 0);
    }
    event->kind = ODB_WIRE_EVENT_NONE;
    if (decoder->section == ODB_WIRE_SECTION_HEADER) {
        used = collect(decoder, in, n, ODB_WIRE_HEADER_SIZE);
        if (decoder->collected < ODB_WIRE_HEADER_SIZE) {
            return used;
        }
        enum odb_wire_result result = begin_frame(decoder);
        if (result != ODB_WIRE_OK) {
            return fail(decoder, event, result, used);
        }
    }
    if (used == n) {
        return used;
    }
    if (decoder->section != ODB_WIRE_SECTION_FIXED) {
        return used + take_slice(decoder, in + used, n - used, event);
    }
    size_t wanted = fixed_size(decoder->type);
    used += collect(decoder, in + used, n - used, wanted);
    if (decoder->collected < wanted) {
        return used;
    }
    enum odb_wire_result result = end_fixed(decoder, event);
    return result == ODB_WIRE_OK ? used : fail(decoder, event, result, used);
}

bool odb_wire_decoder_skip(struct odb_wire_decoder *decoder, size_t n) {
    if (n > decoder->remaining) {
        return false;
    }
    decoder->remaining -= (uint32_t)n;
    advance(decoder);
    return true;
}

size_t odb_wire_decoder_wants(const struct odb_wire_decoder *decoder) {
    if (decoder->section == ODB_WIRE_SECTION_HEADER) {
        return (size_t)ODB_WIRE_HEADER_SIZE - decoder->collected;
    }
    return decoder->section == ODB_WIRE_SECTION_FIXED ? fixed_size(decoder->type) - decoder->collected
                                                      : decoder->remaining;
}

bool odb_wire_decoder_at_boundary(const struct odb_wire_decoder *decoder) {
    return decoder->error == ODB_WIRE_OK && decoder->section == ODB_WIRE_SECTION_HEADER && decoder->collected == 0;
}
