/* transfer.h: every call that moves data, for every descriptor: streams take their own way, everything else the kernel's, once the memory it will touch
 * is known not to be guarded (I6). Results and errno are those of recvmsg, sendmsg, preadv, pwritev and sendfile. */
#ifndef ODB_CORE_TRANSFER_H
#define ODB_CORE_TRANSFER_H

#include "core/runtime.h"

#include <sys/socket.h>

enum odb_family { ODB_SOCKET_CALL, ODB_FILE_CALL }; /* recv and send need a socket; read and write do not */

/* True when a call on `fd` with memory of the application needs this file's attention; else the hook calls libc straight away. */
static inline bool odb_transfer_matters(const struct odb_runtime *runtime, int fd) {
    return odb_windows_any(&runtime->windows) || odb_fdtable_has(&runtime->fds, fd) ||
           odb_gather_matters(&runtime->gather);
}

ssize_t odb_receive(struct odb_runtime *runtime, int fd, struct msghdr *message, int flags, enum odb_family family);
ssize_t odb_send(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags, enum odb_family family);
ssize_t odb_sendfile(struct odb_runtime *runtime, int out, int in, off64_t *offset, size_t size);

/* Files, with an offset. */
ssize_t odb_preadv(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset);
ssize_t odb_pwritev(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset);

/* With RWF_* flags. On a stream, at offset -1, they receive and send. */
ssize_t odb_preadv2(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset, int flags);
ssize_t odb_pwritev2(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset,
                     int flags);

/* Pipes take pages as they are. */
ssize_t odb_vmsplice(struct odb_runtime *runtime, int fd, const struct iovec *iov, size_t count, unsigned flags);

#endif
