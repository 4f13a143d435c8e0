/* signals.c: hooks of signal handlers and masks: SIGSEGV and SIGBUS are ours, and the program does not notice. */
#include "core/fault.h"
#include "core/masks.h"

#include "hooks/hook.h"

/* Writers of pushes need to know whether SIGPIPE is ignored. A vfork child sets its own SIGBUS, but what we remember of it is its parent's. */
static struct odb_runtime *changing(int number) {
    struct odb_runtime *runtime = odb_enter();
    if (runtime && number == SIGPIPE) odb_pushes_sigpipe_changed(&runtime->origin.pushes);
    return runtime && number == SIGBUS && odb_runtime_is_foreign(runtime) ? NULL : runtime;
}

static bool is_ours(int number) {
    return odb_enter() && (number == SIGSEGV || number == SIGBUS) && odb_fault_installed();
}

/* A vfork child shares our memory, and with it what its parent has said of SIGSEGV, whose handler has to stay: it is only told. Its exec sets the default. */
static bool only_asks(const struct odb_runtime *runtime, int number) {
    return number == SIGSEGV && odb_runtime_is_foreign(runtime);
}

ODB_EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    struct odb_runtime *runtime = changing(number);
    if (!runtime) return odb_real.sigaction(number, action, old);
    return odb_sigaction(number, only_asks(runtime, number) ? NULL : action, old);
}

ODB_EXPORT sighandler_t signal(int number, sighandler_t handler) {
    struct odb_runtime *runtime = changing(number);
    struct sigaction old;
    if (!runtime) return odb_real.signal(number, handler);
    if (!only_asks(runtime, number)) return odb_signal(number, handler);
    return odb_sigaction(number, NULL, &old) == 0 ? old.sa_handler : SIG_ERR;
}

/* The handler is taken away when the signal comes, and the signal is not blocked meanwhile. */
ODB_EXPORT sighandler_t sysv_signal(int number, sighandler_t handler) {
    return is_ours(number) ? odb_signal_with(number, handler, (int)(SA_RESETHAND | SA_NODEFER))
                           : odb_real.sysv_signal(number, handler);
}

ODB_ALIAS(sigaction, __sigaction);
ODB_ALIAS(signal, bsd_signal);
ODB_ALIAS(signal, ssignal);
ODB_ALIAS(sysv_signal, __sysv_signal);

static int as_result(int error) {
    if (error) errno = error;
    return error ? -1 : 0;
}

static int mask_one(int how, int number, sigset_t *old) {
    sigset_t one;
    sigemptyset(&one);
    if (sigaddset(&one, number) != 0) return -1;
    return as_result(odb_sigmask(how, &one, old));
}

ODB_EXPORT int sighold(int number) {
    return is_ours(number) ? mask_one(SIG_BLOCK, number, NULL) : odb_real.sighold(number);
}

ODB_EXPORT int sigrelse(int number) {
    return is_ours(number) ? mask_one(SIG_UNBLOCK, number, NULL) : odb_real.sigrelse(number);
}

ODB_EXPORT int sigignore(int number) {
    if (!is_ours(number)) return odb_real.sigignore(number);
    return odb_signal_with(number, SIG_IGN, 0) == SIG_ERR ? -1 : 0;
}

/* The handler that was there, or SIG_HOLD where the signal was blocked. */
ODB_EXPORT sighandler_t sigset(int number, sighandler_t disposition) {
    struct sigaction old;
    sigset_t before;
    if (!is_ours(number)) return odb_real.sigset(number, disposition);
    bool hold = disposition == SIG_HOLD;
    odb_sigaction(number, NULL, &old);
    if (!hold) odb_signal_with(number, disposition, 0);
    if (mask_one(hold ? SIG_BLOCK : SIG_UNBLOCK, number, &before) != 0) return SIG_ERR;
    return sigismember(&before, number) == 1 ? SIG_HOLD : old.sa_handler;
}

/* The masks of 4.2BSD: signal n is bit n - 1. */
static int bsd_mask(int how, int mask) {
    sigset_t set, old;
    unsigned before = 0;
    sigemptyset(&set);
    for (int number = 1; number <= 32; number++)
        if ((unsigned)mask >> (number - 1) & 1) sigaddset(&set, number);
    if (as_result(odb_sigmask(how, &set, &old)) != 0) return -1;
    for (int number = 1; number <= 32; number++)
        if (sigismember(&old, number) == 1) before |= 1u << (number - 1);
    return (int)before;
}

ODB_EXPORT int sigblock(int mask) {
    return odb_enter() && odb_fault_installed() ? bsd_mask(SIG_BLOCK, mask) : odb_real.sigblock(mask);
}

ODB_EXPORT int sigsetmask(int mask) {
    return odb_enter() && odb_fault_installed() ? bsd_mask(SIG_SETMASK, mask) : odb_real.sigsetmask(mask);
}

ODB_EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
    return odb_enter() ? odb_sigmask(how, set, old) : odb_real.pthread_sigmask(how, set, old);
}

ODB_EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old) {
    return odb_enter() ? as_result(odb_sigmask(how, set, old)) : odb_real.sigprocmask(how, set, old);
}

ODB_EXPORT int sigsuspend(const sigset_t *mask) {
    sigset_t copy;
    odb_enter();
    return odb_real.sigsuspend(odb_mask_without(mask, &copy));
}

ODB_ALIAS(sigsuspend, __sigsuspend);
