/* registry.h: which listening sockets of this host belong to processes that speak ODB, as small files that every
 * process of the host can read.
 *
 * An entry is `<stats_dir>/listen/<network namespace>.<port>.<socket inode>`, kept alive by a lock on the open file. The
 * lock goes with the descriptor: children of fork share it, exec ends it (close-on-exec), and so does the end of the
 * last process that has it. So an entry without a lock is stale, whatever has become of pids; daemons that fork and
 * drop their rights keep theirs without doing anything.
 *
 * An entry counts only for a socket that listens now, and only if root or the owner of that socket has made it.
 * Thread-safe; not for signal handlers.
 */
#ifndef ODB_CORE_REGISTRY_H
#define ODB_CORE_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

/* Enters the listening TCP socket `fd`. A descriptor that holds the entry, or -1 when there can be none. */
int odb_registry_enter(const char *stats_dir, int fd);

/* Gives `entry` up. Its file goes with the last holder. */
void odb_registry_leave(int entry);

/* Does every socket that could accept a connection to `address`:`port` in this network namespace have an entry? False
 * when there is none. Address: IPv6 or IPv4-mapped. Removes stale entries that it meets. */
bool odb_registry_speaks(const char *stats_dir, const uint8_t address[16], uint16_t port);

/* Removes stale entries. */
void odb_registry_prune(const char *stats_dir);

#endif
