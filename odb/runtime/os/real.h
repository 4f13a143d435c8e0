/* real.h: the real libc, behind one table.
 *
 * The library exports functions named like libc's. Everything inside it that needs the original calls it through `odb_real`, so that core
 * code never calls itself and unit tests can put their own functions in the table. Members are the names of hooks/hooks.def.
 *
 * odb_real_load() fills the table by dlsym(RTLD_NEXT) and may be called again; it is the only place that uses dlsym. Until it has run the
 * members are null. Thread safety: load once before other threads use the table; read-only afterwards (tests excepted).
 */
#ifndef ODB_OS_REAL_H
#define ODB_OS_REAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <aio.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <threads.h>
#include <time.h>

struct odb_real {
#define ODB_POLICY(...)
#define ODB_HOOK(type, name, parameters, arguments, policy) type(*name) parameters;
#include "hooks/hooks.def"
#undef ODB_HOOK
#undef ODB_POLICY
};

extern struct odb_real odb_real;

/* Returns false when a function that every libc has is missing; close_range, closefrom, epoll_pwait2 and the like may stay null. */
bool odb_real_load(void);

#endif
