/* outlet.h: what is known of connections, first of all the plain ones that core/gather.h keeps something for.
 *
 * To ask the kernel each time whether it is TCP, whether it waits, and what it holds back costs as much as a small send. So the answers are remembered until the program changes the connection, copies its
 * descriptor or closes it. Only of connections that this process has made or accepted: others, and those that have ever been copied, may have further descriptors, and are asked about each time. What another
 * process does to a connection that it shares goes unseen.
 *
 * Thread safety: all functions. Async-signal-safe. errno is not preserved.
 */
#ifndef ODB_CORE_OUTLET_H
#define ODB_CORE_OUTLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct odb_fdtable;
struct odb_runtime;

/* What a connection surely takes now, sent in whatever parts. */
struct odb_outlet_room {
    size_t left;  /* bytes of its send buffer; 0: none, or it is none to keep anything for */
    bool wide;    /* its peer takes large segments */
    bool splices; /* what is sent may be spliced, in whatever call */
};

void odb_outlet_room(struct odb_runtime *runtime, int fd, struct odb_outlet_room *room);

/* Is there room for so many bytes? The kernel charges the buffer for every segment besides: small ones with as much again, large ones with a third at most, and with a twenty-fourth where
 * they are made of whole pages or of what came in segments. */
static inline bool odb_outlet_takes(const struct odb_outlet_room *room, size_t copied, size_t spliced) {
    if (!room->wide) return copied + spliced <= room->left / 2;
    return copied + copied / 3 + spliced + spliced / 24 <= room->left;
}

/* Is it known to be plain TCP that never waits, with no other descriptor in this process? */
bool odb_outlet_is_known(const struct odb_fdtable *fds, int fd);

/* The kernel's name of the socket, which copies of its descriptor share; 0: it has none. */
uint64_t odb_outlet_cookie(struct odb_fdtable *fds, int fd);

/* Does a call on `fd` that waits for nothing else never wait, because of O_NONBLOCK? */
bool odb_outlet_never_waits(struct odb_fdtable *fds, int fd);

/* Is there anything to forget of `fd` when it is closed? */
bool odb_outlet_has_memory(const struct odb_fdtable *fds, int fd);

/* `fd` is a socket that this process has just made or accepted. */
void odb_outlet_made(struct odb_fdtable *fds, int fd);

/* An option or a status flag of `fd` may have changed. */
void odb_outlet_changed(struct odb_fdtable *fds, int fd);

/* `fd` is something else from here on, or nothing. */
void odb_outlet_forget(struct odb_fdtable *fds, int fd);

/* There are two descriptors for it now. */
void odb_outlet_copied(struct odb_fdtable *fds, int from, int to);

#endif
