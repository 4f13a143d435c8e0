/* thread.h: threads of the library's own. */
#ifndef ODB_OS_THREAD_H
#define ODB_OS_THREAD_H

#include <stdbool.h>

/* Starts a detached thread. It never takes a signal: those belong to the application, and a blocked SIGPIPE makes sendfile to a closed channel an ordinary error. Not in
 * signal handlers. */
bool odb_thread_start(void *(*run)(void *argument), void *argument);

#endif
