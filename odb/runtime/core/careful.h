/* careful.h: touches memory that the program has named as the kernel would: what is not there is EFAULT, and no signal.
 *
 * Copies that the kernel makes without us are made here with us. A touch that fails, also of a file mapping behind the end of its file, is caught by the handlers of
 * core/fault.h and core/bus.h. Guarded memory is fetched by being touched. All functions are async-signal-safe, keep errno, and return 0 or -EFAULT.
 */
#ifndef ODB_CORE_CAREFUL_H
#define ODB_CORE_CAREFUL_H

#include <signal.h>
#include <stddef.h>

/* Is there a byte in every page of the range? */
int odb_careful_readable(const void *memory, size_t length);

/* May the whole range be written? Its content stays. */
int odb_careful_writable(void *memory, size_t length);

/* Copies our bytes into the program's memory; on failure any part of them. */
int odb_careful_put(void *to, const void *bytes, size_t length);

/* In a handler of SIGSEGV or SIGBUS: does not return if the signal comes from one of the above in this thread. */
void odb_careful_catch(const siginfo_t *info, void *context);

#endif
