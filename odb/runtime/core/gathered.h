/* gathered.h: messages to one plain connection that leave together: bytes, which are copied, and spans, which stay on their push channel until they leave.
 *
 * Not thread-safe. Adding and sending allocate nothing; sending waits no longer than the socket takes to have room, or a fetch to end. errno is not preserved.
 */
#ifndef ODB_CORE_GATHERED_H
#define ODB_CORE_GATHERED_H

#include "core/outlet.h"
#include "core/span.h"

#include <sys/socket.h>

struct odb_runtime;

#define ODB_GATHERED_MOST                                                                                              \
    262144u /* bytes and spans: what a pipe holds, several segments as the kernel hands them to a device */
#define ODB_GATHERED_FIRST (65536u + 4096u) /* the same of what a body begins with: a header and 64 KiB */
#define ODB_GATHERED_BYTES 131072u          /* bytes among them */
#define ODB_GATHERED_PIECES 16

struct odb_pipe;

/* All-zero memory is an empty one that has no room. */
struct odb_gathered {
    char *memory;          /* room for the bytes, and behind it for a span that has to be fetched after all */
    size_t length;         /* of all pieces */
    size_t used;           /* of the room for bytes */
    struct odb_pipe *pipe; /* into which spans are drawn in their order; null: none has been */
    int count;
    struct odb_gathered_piece {
        size_t bytes;         /* in memory; 0: the piece is a span */
        size_t piped;         /* the beginning of it, in the pipe */
        struct odb_span span; /* the rest of it, on its channel */
    } piece[ODB_GATHERED_PIECES];
};

/* Maps the room. False: there is none. */
bool odb_gathered_begin(struct odb_gathered *gathered);

/* Adds a message, whole, or nothing of it, if all is at most `most` bytes then and fits into the room: where that splices also windows on bytes that are on a channel of ours, and other
 * memory in parts of at most 32 KiB. */
bool odb_gathered_add(struct odb_runtime *runtime, struct odb_gathered *gathered, const struct msghdr *message,
                      size_t most, const struct odb_outlet_room *room);

/* What has been cleared begins with so many bytes, ODB_GATHERED_BYTES at most. */
void odb_gathered_begin_with(struct odb_gathered *gathered, const char *bytes, size_t length);

void odb_gathered_clear(struct odb_gathered *gathered);

/* Is there a span in it? */
bool odb_gathered_has_span(const struct odb_gathered *gathered);

/* Draws the spans from their channels, so that what follows them there can be taken. False: not all of their bytes have come, or they fill the pipe. */
bool odb_gathered_draw(struct odb_runtime *runtime, struct odb_gathered *gathered);

/* Sends all of it, which is then gone. 0, the errno that the socket has answered with, or -1: there is something that cannot be had, or that the socket will not take. */
int odb_gathered_send(struct odb_runtime *runtime, struct odb_gathered *gathered, int fd);

/* Sends bytes; `flags` are further flags of send. As odb_gathered_send. */
int odb_gathered_send_bytes(int fd, const char *bytes, size_t length, int flags);

#endif
