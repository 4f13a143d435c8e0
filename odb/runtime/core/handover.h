/* handover.h: a framed connection that goes on in another program image: over exec, or passed through a unix socket.
 *
 * The kernel hands over the socket; what we know about it (does it speak frames, where in a frame are we, what was received and not yet read) is written to a small file named
 * by the socket's cookie, which every process that has the socket can ask for, and taken by whoever meets the socket next with the library loaded. Files are readable by their owner only: a program
 * that changes its user before exec cannot hand streams over.
 */
#ifndef ODB_CORE_HANDOVER_H
#define ODB_CORE_HANDOVER_H

#include "core/runtime.h"

/* Writes the record of one descriptor's stream; does nothing for other descriptors. What is parked is sent first, for drain_ms at most. */
void odb_handover_offer(struct odb_runtime *runtime, int fd);

/* Offers every stream that survives exec. Also in a vfork child. */
void odb_handover_before_exec(struct odb_runtime *runtime);

/* The same for a child that posix_spawn makes, with what odb_handover_pass_on() has been told of as well. */
void odb_handover_before_spawn(struct odb_runtime *runtime);

/* A file action of posix_spawn duplicates `fd` for the new image, which so gets it even if it is marked close-on-exec. */
void odb_handover_pass_on(struct odb_runtime *runtime, int fd);

/* exec has failed: takes the offers back. */
void odb_handover_after_failed_exec(struct odb_runtime *runtime);

/* Makes `fd` the stream that its record describes, if there is one. */
void odb_handover_take(struct odb_runtime *runtime, int fd);

/* At the start of a process image. */
void odb_handover_take_inherited(struct odb_runtime *runtime);

/* For sendmsg and recvmsg on unix sockets: the descriptors in SCM_RIGHTS. */
struct msghdr;
void odb_handover_before_send(struct odb_runtime *runtime, const struct msghdr *message);
void odb_handover_after_receive(struct odb_runtime *runtime, struct msghdr *message);

#endif
