/* sockopt.h: socket options whose meaning on a stream is not the kernel's. Policies of setsockopt and getsockopt; -1 and errno as they answer.
 *
 *   SO_RCVLOWAT             in application bytes; the kernel's own mark stays at 1, because frames have to be read to know what is in them. Readiness cannot look behind
 *                           a span or farther than ODB_STREAM_BUFFER bytes: from there on a stream counts as readable.
 *   SO_SNDBUF               where it is small, also bounds what may be announced (core/ahead.h)
 *   SO_ERROR                also tells errors of bytes that were parked, and those that reading ahead has met
 *   TCP_NODELAY, TCP_CORK   remembered, without a system call, where sends are held (core/hold.h): one send per turn is what both are for
 *   SO_ZEROCOPY, SO_PEEK_OFF, SO_OOBINLINE, TCP_ULP, TCP_ZEROCOPY_RECEIVE, TCP_INQ
 *                           refused, with what a kernel says that does not have them. A socket that gets SO_ZEROCOPY before it connects stays classic.
 *
 * To look at every accepted connection would cost a system call each: that happens only in a process that has set such an option on a socket that was no stream yet.
 */
#ifndef ODB_CORE_SOCKOPT_H
#define ODB_CORE_SOCKOPT_H

#include "core/runtime.h"

#include <sys/socket.h>

/* True when an option of `level` on `fd` needs this file's attention; else the hook calls libc straight away. What is noted of sockets that are no streams yet is at SOL_SOCKET. */
static inline bool odb_sockopt_matters(const struct odb_runtime *runtime, int fd, int level) {
    return level == SOL_SOCKET || odb_fdtable_has(&runtime->fds, fd);
}

int odb_setsockopt(struct odb_runtime *runtime, int fd, int level, int option, const void *value, socklen_t length);
int odb_getsockopt(struct odb_runtime *runtime, int fd, int level, int option, void *value, socklen_t *length);

/* Has the application asked for completion notices, so that this socket has to stay classic? */
bool odb_sockopt_wants_classic(const struct odb_runtime *runtime, int fd);
/* A new stream takes over what was set on its descriptor before. */
void odb_sockopt_adopt(const struct odb_runtime *runtime, struct odb_stream *stream, int fd);
/* A stream is about to become an ordinary descriptor again. */
void odb_sockopt_give_back(const struct odb_stream *stream, int fd);

#endif
