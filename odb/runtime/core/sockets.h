/* sockets.h: how descriptors become streams, are duplicated, and end. Policies of the hooks in hooks/sockets.c; -1 and errno as the calls they stand for. */
#ifndef ODB_CORE_SOCKETS_H
#define ODB_CORE_SOCKETS_H

#include "core/runtime.h"

#include <sys/socket.h>

int odb_accept(struct odb_runtime *runtime, int fd, struct sockaddr *address, socklen_t *length, int flags);
int odb_connect(struct odb_runtime *runtime, int fd, const struct sockaddr *address, socklen_t length);
int odb_listening(struct odb_runtime *runtime, int fd, int backlog);
int odb_shutdown(struct odb_runtime *runtime, int fd, int how);
int odb_close(struct odb_runtime *runtime, int fd);
int odb_close_range(struct odb_runtime *runtime, unsigned first, unsigned last, int flags);
int odb_dup2(struct odb_runtime *runtime, int from, int to, int flags);

/* Everything known about a descriptor number that has come to mean something else. */
void odb_forget_descriptor(struct odb_runtime *runtime, int fd);

/* The same, where the descriptor still is what it was: what its stream holds leaves first. */
void odb_leave_descriptor(struct odb_runtime *runtime, int fd);

/* After a successful dup or fcntl(F_DUPFD): `to` stands for what `from` stands for. Returns `to`. */
int odb_duplicated(struct odb_runtime *runtime, int from, int to);

/* ioctl(FIONREAD) in application bytes; false: not a stream, ask the kernel. */
bool odb_available(struct odb_runtime *runtime, int fd, int *bytes);

#endif
