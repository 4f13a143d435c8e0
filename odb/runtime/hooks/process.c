/* process.c: hooks of signals and threads. */
#include "core/fault.h"

#include "hooks/hook.h"

ODB_EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    return odb_enter() ? odb_sigaction(number, action, old) : odb_real.sigaction(number, action, old);
}

ODB_EXPORT sighandler_t signal(int number, sighandler_t handler) {
    return odb_enter() ? odb_signal(number, handler) : odb_real.signal(number, handler);
}

/* From the second thread on, fetched content has to appear in one step. */
ODB_EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    struct odb_runtime *runtime = odb_enter();
    if (runtime) atomic_store(&runtime->windows.threads, true);
    return odb_real.pthread_create(thread, attributes, start, argument);
}
