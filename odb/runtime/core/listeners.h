/* listeners.h: the listening sockets of this process that are entered in the registry.
 *
 * A fixed table; one more listener than it holds is not entered, and its clients stay classic. Thread-safe.
 */
#ifndef ODB_CORE_LISTENERS_H
#define ODB_CORE_LISTENERS_H

#include <stdatomic.h>
#include <stdbool.h>

#define ODB_LISTENERS 256

/* All-zero memory is an empty table. */
struct odb_listeners {
    _Atomic int high; /* records ever used */
    struct odb_listener_record {
        _Atomic int key; /* descriptor + 1; 0: free, -1: being changed */
        int entry;       /* holds the registry's entry */
    } records[ODB_LISTENERS];
};

/* Enters `fd`, which listens on TCP, unless it is in the table already. */
void odb_listeners_enter(struct odb_listeners *listeners, const char *stats_dir, int fd);

/* `fd` has come to mean something else. Cheap for descriptors that never listened. */
void odb_listeners_forget(struct odb_listeners *listeners, int fd);

/* At the end of the process. */
void odb_listeners_forget_all(struct odb_listeners *listeners);

#endif
