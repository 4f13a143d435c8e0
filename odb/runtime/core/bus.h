/* bus.h: SIGBUS, which a touch of a mapping behind the end of its file causes, for core/careful.h; and the application's view of that signal.
 *
 * What is not caught there ends as the application has said. A process that ignores SIGBUS, or has a handler that is to be called once, keeps the signal to itself; nor is a thread helped that blocks it.
 */
#ifndef ODB_CORE_BUS_H
#define ODB_CORE_BUS_H

#include <signal.h>

/* Installs the handler. */
void odb_bus_install(void);

/* In the child: another thread may have been changing it. */
void odb_bus_after_fork_child(void);

/* sigaction for SIGBUS as the application sees it, once the handler is installed. */
int odb_bus_action(const struct sigaction *action, struct sigaction *old);

#endif
