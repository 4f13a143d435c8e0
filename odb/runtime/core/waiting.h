/* waiting.h: epoll, poll and select in application bytes (I4).
 *
 * Before a wait, streams that owe bytes are reported at once; after it, wake-ups that gave the application nothing are absorbed and the wait goes on for the time left.
 * Results are those of the calls they stand for: -1 with errno.
 */
#ifndef ODB_CORE_WAITING_H
#define ODB_CORE_WAITING_H

#include "core/runtime.h"

#include <poll.h>

/* `timeout` null: for ever. `mask` null: none. */
int odb_epoll_wait(struct odb_runtime *runtime, int set, struct epoll_event *events, int room,
                   const struct timespec *timeout, const sigset_t *mask);
int odb_poll(struct odb_runtime *runtime, struct pollfd *fds, nfds_t count, const struct timespec *timeout,
             const sigset_t *mask);

/* For select: `left`, if not null, gets the time that was left. */
int odb_select(struct odb_runtime *runtime, int count, fd_set *in, fd_set *out, fd_set *except,
               const struct timespec *timeout, const sigset_t *mask, struct timespec *left);

/* Would a receive on `fd` return at once, or does an epoll set `fd` have something to report? False also when that is for the kernel to say. */
bool odb_waiting_readable(struct odb_runtime *runtime, int fd);

/* A receive on `fd` has ended: whoever waits for it by epoll must look again if more is owed. */
void odb_waiting_after_receive(struct odb_runtime *runtime, struct odb_stream *stream, int fd);

/* `fd` has come under an epoll set's watch: what it owes already, the kernel will not report. */
void odb_waiting_added(struct odb_runtime *runtime, int fd);

#endif
