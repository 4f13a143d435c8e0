/* Decodes one framed direction of a stream, slice by slice, without allocating and without copying payload bytes.
 *
 * Between frames and inside headers and descriptors the decoder collects bytes itself (84 at most). Inside REAL
 * bytes, head bytes and tail bytes it only counts: `section` says which, `remaining` how many are still to come, so
 * that a caller may receive them straight into the application's buffer and then call odb_wire_decoder_skip().
 * One decoder belongs to one direction; the caller serialises its use. */
#ifndef ODB_WIRE_STREAM_DECODER_H
#define ODB_WIRE_STREAM_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/descriptor.h"
#include "wire/header.h"
#include "wire/hello.h"
#include "wire/hint.h"

enum odb_wire_section {
    ODB_WIRE_SECTION_HEADER = 0, /* collecting a header */
    ODB_WIRE_SECTION_FIXED,      /* collecting the fixed body of HELLO, VIRTUAL or HINT */
    ODB_WIRE_SECTION_REAL,
    ODB_WIRE_SECTION_HEAD,
    ODB_WIRE_SECTION_TAIL
};

/* Readable by the caller: error, section, remaining. */
struct odb_wire_decoder {
    enum odb_wire_result error; /* sticky */
    enum odb_wire_section section;
    uint32_t remaining; /* bytes still to come in a REAL, HEAD or TAIL section (never 0 there), else 0 */
    uint32_t tail;      /* tail bytes that follow the head */
    uint32_t length;    /* the current frame's length */
    uint8_t type;       /* the current frame's type */
    uint8_t collected;  /* bytes in `buffer` */
    bool hello_next;    /* the next frame has to be the HELLO; at any other time HELLO is refused */
    uint8_t buffer[ODB_WIRE_DESCRIPTOR_SIZE];
};

enum odb_wire_event_kind {
    ODB_WIRE_EVENT_NONE = 0, /* need more: everything that was fed has been consumed */
    ODB_WIRE_EVENT_HELLO,    /* hello */
    ODB_WIRE_EVENT_REAL,     /* bytes, length */
    ODB_WIRE_EVENT_VIRTUAL,  /* descriptor; its head bytes, then its tail bytes follow as events */
    ODB_WIRE_EVENT_HEAD,     /* bytes, length */
    ODB_WIRE_EVENT_TAIL,     /* bytes, length */
    ODB_WIRE_EVENT_HINT,     /* hint */
    ODB_WIRE_EVENT_ERROR     /* result; every further call reports it again and consumes nothing */
};

struct odb_wire_event {
    enum odb_wire_event_kind kind;
    union {
        struct odb_wire_hello hello;
        struct odb_wire_descriptor descriptor;
        struct odb_wire_hint hint;
        enum odb_wire_result result;
        struct {
            const uint8_t *bytes; /* inside the slice that was fed */
            size_t length;        /* never 0 */
        };
    };
};

/* hello_first: the first frame has to be HELLO (false: the caller has consumed it already). */
void odb_wire_decoder_init(struct odb_wire_decoder *decoder, bool hello_first);

/* Consumes a prefix of the n bytes, returns its length and fills one event. Call again with the rest until the
 * event is NONE. */
size_t odb_wire_decoder_feed(struct odb_wire_decoder *decoder, const uint8_t *in, size_t n,
                             struct odb_wire_event *event);

/* Accounts for n bytes of the current section that the caller took from the socket by itself. False, and nothing
 * changes, when n > remaining. */
bool odb_wire_decoder_skip(struct odb_wire_decoder *decoder, size_t n);

/* How many bytes the header, the fixed body or the section that has begun is still short of; never 0. */
size_t odb_wire_decoder_wants(const struct odb_wire_decoder *decoder);

/* Between frames and without error: the only place where the end of the stream is not a truncation. */
bool odb_wire_decoder_at_boundary(const struct odb_wire_decoder *decoder);

#endif
