/* exact.c: takes from the kernel what the application is given, and not before. */
#include "core/exact.h"

#include "os/real.h"

#include <errno.h>

static ssize_t receive(int fd, void *to, size_t length, int flags) {
    ssize_t got;
    do got = odb_real.recv(fd, to, length, flags | MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got;
}

/* These bytes are there: we have seen them, and whoever receives from this socket holds our lock. */
static void discard(int fd, size_t length) {
    char bytes[4096];
    while (length > 0) {
        ssize_t gone = receive(fd, bytes, length < sizeof bytes ? length : sizeof bytes, 0);
        if (gone <= 0) return;
        length -= (size_t)gone;
    }
}

/* Does the descriptor that is being received end with the current section? */
static bool ends_descriptor(const struct odb_wire_decoder *decoder) {
    if (decoder->type != ODB_WIRE_VIRTUAL) return false;
    switch (decoder->section) {
    case ODB_WIRE_SECTION_FIXED:
        return decoder->length == ODB_WIRE_DESCRIPTOR_SIZE;
    case ODB_WIRE_SECTION_HEAD:
        return decoder->tail == 0;
    case ODB_WIRE_SECTION_TAIL:
        return true;
    case ODB_WIRE_SECTION_HEADER:
    case ODB_WIRE_SECTION_REAL:
        return false;
    }
    return false;
}

ssize_t odb_exact_receive(struct odb_inbox *in, int fd) {
    size_t wanted = odb_wire_decoder_wants(&in->decoder);
    bool bytes = in->decoder.section == ODB_WIRE_SECTION_REAL, ends = ends_descriptor(&in->decoder);
    size_t room = wanted < ODB_STREAM_BUFFER ? wanted : ODB_STREAM_BUFFER;
    atomic_store(&in->drained, true); /* before the call: a report that comes meanwhile must not get lost */
    ssize_t got = receive(fd, in->buffer, room, bytes || ends ? MSG_PEEK : 0);
    if (got > 0) atomic_store(&in->drained, false);
    if (got <= 0 || (!bytes && !ends)) return got;
    in->kept = bytes ? (size_t)got : (size_t)got == wanted ? 1 : 0;
    discard(fd, (size_t)got - in->kept);
    return got;
}

void odb_exact_release(struct odb_inbox *in, int fd, size_t amount) {
    size_t gone = amount < in->kept ? amount : in->kept;
    discard(fd, gone);
    in->kept -= gone;
}
