/* interrupted.h: what a signal does to a call that waits.
 *
 * The runtime often waits by poll where the application's own call would wait in the kernel. A signal handler ends poll in any case, such a call only if the handler
 * was installed without SA_RESTART. Thread-safe; errno is left alone.
 */
#ifndef ODB_CORE_INTERRUPTED_H
#define ODB_CORE_INTERRUPTED_H

#include <stdbool.h>

/* After EINTR: would the kernel have gone on with the call? Which handler has run nobody tells; as soon as one does not want calls restarted, the answer is
 * no. Handlers of crashes (SIGSEGV, SIGBUS, SIGFPE, SIGILL) do not count. */
bool odb_interrupted_restarts(void);

#endif
