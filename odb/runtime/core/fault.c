/* fault.c: serves touches of guarded memory. */
#include "core/fault.h"

#include "core/bus.h"
#include "core/careful.h"
#include "core/masks.h"
#include "os/lock.h"
#include "os/real.h"

#include <errno.h>

static struct {
    struct odb_windows *windows;
    struct odb_lock lock;
    struct sigaction application; /* what the application has asked for SIGSEGV */
} fault;

/* A page may have become plain between the touch and its handler: the touch is tried again. It is a genuine fault if it then faults at one address although no page has been opened in between; in a
 * program whose other threads open pages all the time, that takes some tries. */
static _Thread_local struct {
    void *address;
    size_t openings;
} last_plain;

/* The page at `address` is plain now. Was it perhaps not when it was touched? */
static bool may_have_been_opened(void *address) {
    size_t openings = atomic_load(&fault.windows->openings);
    bool again = last_plain.address == address && last_plain.openings == openings;
    last_plain.address = address;
    last_plain.openings = openings;
    return !again;
}

/* Sent by somebody (kill, raise) instead of caused by an instruction. */
static bool is_sent(const siginfo_t *info) {
    return info->si_code <= 0;
}

static void give_to_default(const siginfo_t *info) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    odb_real.sigaction(SIGSEGV, &standard,
                       NULL);          /* the instruction faults again, now fatally and with the right address */
    if (is_sent(info)) raise(SIGSEGV); /* delivered when this handler returns */
}

/* The application's handler runs with its own mask, but SIGSEGV stays open: the handler may touch a window. (If it faults by its own mistake it is called again.) */
static void call_handler(const struct sigaction *action, int number, siginfo_t *info, void *context) {
    sigset_t mask = action->sa_mask, segv, before;
    sigdelset(&mask, SIGSEGV);
    sigemptyset(&segv);
    sigaddset(&segv, SIGSEGV);
    odb_real.pthread_sigmask(SIG_BLOCK, &mask, &before);
    odb_real.pthread_sigmask(SIG_UNBLOCK, &segv, NULL);
    if (action->sa_flags & SA_SIGINFO)
        action->sa_sigaction(number, info, context);
    else
        action->sa_handler(number);
    odb_real.pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void give_to_application(int number, siginfo_t *info, void *context) {
    if (odb_mask_wished()) { /* as the kernel does with a blocked signal: one that was sent waits, one that an instruction has caused is fatal */
        if (is_sent(info))
            odb_mask_postpone();
        else
            give_to_default(info);
        return;
    }
    odb_lock_take(&fault.lock);
    struct sigaction action = fault.application;
    if (action.sa_flags & (int)SA_RESETHAND) fault.application = (struct sigaction){.sa_handler = SIG_DFL};
    odb_lock_drop(&fault.lock);
    if (!(action.sa_flags & SA_SIGINFO) && (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) {
        if (action.sa_handler == SIG_DFL || !is_sent(info)) give_to_default(info);
        return;
    }
    call_handler(&action, number, info, context);
}

static void handle(int number, siginfo_t *info, void *context) {
    int saved = errno, result = 0;
    if (info->si_code == SEGV_ACCERR || info->si_code == SEGV_MAPERR)
        result = odb_windows_fault(fault.windows, info->si_addr);
    if (result == 0 && info->si_code == SEGV_ACCERR && may_have_been_opened(info->si_addr)) result = 1;
    errno = saved;
    if (result <= 0) odb_careful_catch(info, context);
    if (result < 0)
        raise(SIGBUS); /* memory whose content is lost, as when a mapped file is truncated */
    else if (result == 0)
        give_to_application(number, info, context);
    errno = saved;
}

void odb_fault_install(struct odb_windows *windows) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    fault.windows = windows;
    odb_masks_install();
    odb_real.sigaction(SIGSEGV, &action, &fault.application);
    odb_bus_install();
}

bool odb_fault_installed(void) {
    return fault.windows != NULL;
}

/* Which signals' handlers the application wants to run with SIGSEGV blocked: read back to it, never done. */
static _Atomic bool in_mask[NSIG];

static int set_other(int number, const struct sigaction *action, struct sigaction *old) {
    struct sigaction open;
    if (number <= 0 || number >= NSIG) return odb_real.sigaction(number, action, old);
    bool named = action && sigismember(&action->sa_mask, SIGSEGV) == 1, before = atomic_load(&in_mask[number]);
    if (named) {
        open = *action;
        sigdelset(&open.sa_mask, SIGSEGV);
        action = &open;
    }
    int result = number == SIGBUS ? odb_bus_action(action, old) : odb_real.sigaction(number, action, old);
    if (result != 0) return result;
    if (old && before) sigaddset(&old->sa_mask, SIGSEGV);
    if (action) atomic_store(&in_mask[number], named);
    return 0;
}

int odb_sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    if (!fault.windows) return odb_real.sigaction(number, action, old);
    if (number != SIGSEGV) return set_other(number, action, old);
    odb_lock_take(&fault.lock);
    struct sigaction before = fault.application;
    if (action) fault.application = *action;
    odb_lock_drop(&fault.lock);
    if (old) *old = before;
    return 0;
}

sighandler_t odb_signal_with(int number, sighandler_t handler, int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, old;
    sigemptyset(&action.sa_mask);
    return odb_sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

sighandler_t odb_signal(int number, sighandler_t handler) {
    return (number == SIGSEGV || number == SIGBUS) && fault.windows ? odb_signal_with(number, handler, SA_RESTART)
                                                                    : odb_real.signal(number, handler);
}

void odb_fault_after_fork_child(void) {
    odb_lock_reset(&fault.lock);
    odb_bus_after_fork_child();
}
