/* frames.h: a batch of stream frames on their way into one sendmsg.
 *
 * Built on the stack from pieces; points into the caller's memory, which must stay until the batch is sent or parked. Knows nothing of sockets.
 */
#ifndef ODB_CORE_FRAMES_H
#define ODB_CORE_FRAMES_H

#include "core/pushes.h"
#include "core/resolve.h"
#include "core/strategy.h"

enum {
    ODB_FRAMES = 16,
    ODB_FRAME_IOVS = ODB_FRAMES * 4
}; /* three for a descriptor and its edges, and one for every piece of bytes */

#define ODB_REAL_MAX ((size_t)256 << 10) /* application bytes of one REAL frame: about the most that is ever parked */

struct odb_frame {
    uint8_t start[ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE];
    size_t wire;     /* bytes on the wire */
    size_t accepted; /* application bytes it stands for */
    size_t real;     /* of those, bytes that travel */
    int first_iov;
    uint8_t type;          /* enum odb_wire_type */
    struct odb_push *push; /* taken for the body; null: not pushed */
    bool read;             /* of a file that was read, some time ago */
    bool unwritten;        /* its descriptor is written when it is sent: until then it may become part of another one */
    bool late;             /* the body is to be pushed once nothing can be added to it any more */
    struct odb_span body;  /* of a descriptor; what is pushed */
};

/* The bytes of the last frame, where they go from a file straight to the socket; length 0: there are none. */
struct odb_file_tail {
    int file;
    uint64_t offset;
    size_t length;
};

struct odb_frames {
    struct iovec iov[ODB_FRAME_IOVS];
    int iovs;
    struct odb_frame frame[ODB_FRAMES];
    int count;
    struct odb_pushes *pushes; /* null: bodies are not pushed */
    bool hold;                 /* the batch will probably be held */
    uint64_t consumer;         /* to whom, as far as this stream has learned */
    uint64_t turn_sent;        /* bytes before this batch, since the peer last said something */
    struct odb_file_tail tail;
};

static inline bool odb_frames_full(const struct odb_frames *frames) {
    return frames->count == ODB_FRAMES;
}

/* Header and descriptor for the first cut.head + cut.body + cut.tail bytes of a span. */
void odb_frames_encode_span(uint8_t start[ODB_WIRE_HEADER_SIZE + ODB_WIRE_DESCRIPTOR_SIZE], const struct odb_span *span,
                            const struct odb_cut *cut);

void odb_frames_add_hello(struct odb_frames *frames, uint16_t channel_port);
void odb_frames_add_hint(struct odb_frames *frames, const struct odb_geometry *geometry, uint16_t strategy);
void odb_frames_add_consumer(struct odb_frames *frames, uint64_t consumer);

/* A VIRTUAL frame for the first cut.head + cut.body + cut.tail bytes of a span; head and tail are null where the cut has none. */
void odb_frames_add_span(struct odb_frames *frames, const struct odb_span *span, const struct odb_cut *cut,
                         const void *head, const void *tail);

/* Pushes the body of a frame that consists of a descriptor, begins at `start` and has not been pushed, if there is somebody to push to. */
void odb_frames_push_late(struct odb_pushes *pushes, uint64_t consumer, uint8_t *start, struct odb_span *body);

/* The same for a payload of this very process: the body is pushed if there is somebody to push to. */
void odb_frames_add_own(struct odb_frames *frames, const struct odb_span *span, const struct odb_cut *cut,
                        const void *head, const void *tail);

/* A REAL frame of a file's bytes, which are not part of the iovs and follow them on the wire. The last frame of the batch. */
void odb_frames_add_tail(struct odb_frames *frames, const struct odb_file_tail *tail);

/* The cut for the next frame of a payload of this process, of which `left` bytes (not 0) are to be announced, behind `before` bytes of this batch. */
struct odb_cut odb_frames_cut(const struct odb_frames *frames, const struct odb_options *options,
                              const struct odb_geometry *receiver, size_t left, size_t before);

/* As many of the pieces as fit, cut for `receiver`. */
void odb_frames_add_pieces(struct odb_frames *frames, const struct odb_options *options,
                           const struct odb_geometry *receiver, const struct odb_piece *pieces, int count);

/* Writes what is unwritten of a frame, or of all: before its iovs are used. */
void odb_frames_write(struct odb_frame *frame);
static inline void odb_frames_write_all(struct odb_frames *frames) {
    for (int i = 0; i < frames->count; i++) odb_frames_write(&frames->frame[i]);
}

/* The iovs of frame `index`. */
static inline int odb_frames_iov(const struct odb_frames *frames, int index, const struct iovec **iov) {
    int first = frames->frame[index].first_iov;
    *iov = frames->iov + first;
    return (index + 1 < frames->count ? frames->frame[index + 1].first_iov : frames->iovs) - first;
}

#endif
