/* fault.h: the SIGSEGV handler that fetches windows on touch, and the application's view of that signal.
 *
 * Our handler stays first; faults that are not ours reach the handler that the application has installed, or end the process at the faulting instruction as
 * if we were not there. The handler is async-signal-safe and runs on the application's alternate stack if it has one.
 */
#ifndef ODB_CORE_FAULT_H
#define ODB_CORE_FAULT_H

#include "core/windows.h"

#include <signal.h>

/* Installs the handler. `windows` is kept. */
void odb_fault_install(struct odb_windows *windows);

/* True once it is installed: SIGSEGV and the masks are ours. */
bool odb_fault_installed(void);

/* In the child: another thread may have been changing a handler. */
void odb_fault_after_fork_child(void);

/* sigaction and signal as the application sees them. */
int odb_sigaction(int number, const struct sigaction *action, struct sigaction *old);
sighandler_t odb_signal(int number, sighandler_t handler);
/* The old relatives of signal, which differ in `flags` (SA_*). */
sighandler_t odb_signal_with(int number, sighandler_t handler, int flags);

#endif
