/* detect.h: does a direction begin with a HELLO?
 *
 * Decided by looking at the first bytes without taking them (MSG_PEEK), one call per direction of a connection: one that
 * turns out classic has lost nothing and can be used by calls, programs and processes that know nothing of ODB.
 *
 * Fewer than 16 bytes that might become a HELLO leave the direction undecided, for detect_ms at most. Meanwhile the
 * kernel keeps quiet about them (SO_RCVLOWAT), so that no wait returns in vain; more bytes, the end of the stream, or
 * the helper thread that lowers the mark again when the time is over, make the kernel itself wake whoever waits, in
 * whatever way.
 */
#ifndef ODB_CORE_DETECT_H
#define ODB_CORE_DETECT_H

#include "core/driver.h"
#include "core/fdtable.h"
#include "core/options.h"
#include "os/lock.h"

#include <stdbool.h>
#include <stdint.h>

struct odb_runtime;

/* The streams that are undecided, in the order in which their time ends. */
struct odb_undecided {
    struct odb_driver *driver;
    struct odb_fdtable *fds;
    struct odb_lock lock;
    struct odb_watch timer;
    struct odb_stream *first, *last;
};

void odb_undecided_init(struct odb_undecided *undecided, struct odb_driver *driver, struct odb_fdtable *fds);
/* The child starts with none; what it inherits is looked at anew. */
void odb_undecided_after_fork_child(struct odb_undecided *undecided);

/* Under the inbox's lock, in mode `detect`. True: the direction is decided, or there is an error or the end to tell of;
 * false: nothing can be said now. */
bool odb_detect(struct odb_runtime *runtime, struct odb_stream *stream, int fd);

/* Waits, if the direction is undecided, until that may have changed, and says whether it did. Without locks. */
bool odb_detect_wait(struct odb_stream *stream, int fd);

#endif
