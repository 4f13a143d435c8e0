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

struct odb_fdtable;
struct odb_runtime;

/* How many bytes the connection surely takes now, sent in whatever parts; 0: none, or it is none to keep anything for. *splices: what is sent may be spliced, in whatever call. */
size_t odb_outlet_room(struct odb_runtime *runtime, int fd, bool *splices);

/* Is it known to be plain TCP that never waits, with no other descriptor in this process? */
bool odb_outlet_is_known(const struct odb_fdtable *fds, int fd);

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
