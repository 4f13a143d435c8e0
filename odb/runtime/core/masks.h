/* masks.h: signal masks as the application sees them.
 *
 * SIGSEGV is never really blocked: a window may be touched anywhere, also where a program believes that nothing can interrupt it. The program's wish is kept per
 * thread and read back to it; what it wishes decides what becomes of a SIGSEGV that is no touch of a window (fault.c). All functions are async-signal-safe.
 *
 * What is not imitated: the mask during a handler (sigaction's sa_mask, and SIGSEGV in its own handler) reads back without SIGSEGV; a program that is exec'ed does
 * not inherit a blocked SIGSEGV; of several SIGSEGV that others have sent while it was blocked one is kept, without its siginfo, and sigpending, sigwait and
 * signalfd do not see it.
 */
#ifndef ODB_CORE_MASKS_H
#define ODB_CORE_MASKS_H

#include <signal.h>
#include <stdbool.h>

/* Before the first window, in the thread that starts the library: what this program has inherited becomes a wish. */
void odb_masks_install(void);

/* `mask` without SIGSEGV: `mask` itself or `*copy`. Null stays null. */
const sigset_t *odb_mask_without(const sigset_t *mask, sigset_t *copy);

/* pthread_sigmask: 0 or an error number. */
int odb_sigmask(int how, const sigset_t *set, sigset_t *old);

/* Does this thread believe that SIGSEGV is blocked? */
bool odb_mask_wished(void);
/* For a new thread: what its creator wished. */
void odb_mask_inherit(bool wished);
/* In the handler: somebody has sent a SIGSEGV that is to wait until it is unblocked. */
void odb_mask_postpone(void);

#endif
