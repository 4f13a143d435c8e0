/* fault.c: serves touches of guarded memory. */
#include "core/fault.h"

#include "os/lock.h"
#include "os/real.h"

#include <errno.h>

static struct {
    struct odb_windows *windows;
    struct odb_lock lock;
    struct sigaction application; /* what the application has asked for SIGSEGV */
} fault;

/* A page may have become plain between the touch and its handler; the second fault in a row at one address is a genuine one. */
static _Thread_local void *last_plain __attribute__((tls_model("initial-exec")));

/* Sent by somebody (kill, raise) instead of caused by an instruction. */
static bool is_sent(const siginfo_t *info) {
    return info->si_code <= 0;
}

static void give_to_default(const siginfo_t *info) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    odb_real.sigaction(SIGSEGV, &standard, NULL); /* the instruction faults again, now fatally and with the right address */
    if (is_sent(info)) raise(SIGSEGV);            /* delivered when this handler returns */
}

static void give_to_application(int number, siginfo_t *info, void *context) {
    odb_lock_take(&fault.lock);
    struct sigaction action = fault.application;
    if (action.sa_flags & (int)SA_RESETHAND) fault.application = (struct sigaction){.sa_handler = SIG_DFL};
    odb_lock_drop(&fault.lock);
    if (!(action.sa_flags & SA_SIGINFO) && (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) {
        if (action.sa_handler == SIG_DFL || !is_sent(info)) give_to_default(info);
        return;
    }
    sigset_t mask = action.sa_mask, before;
    if (!(action.sa_flags & SA_NODEFER)) sigaddset(&mask, SIGSEGV);
    pthread_sigmask(SIG_BLOCK, &mask, &before);
    if (action.sa_flags & SA_NODEFER) {
        sigset_t self;
        sigemptyset(&self);
        sigaddset(&self, SIGSEGV);
        pthread_sigmask(SIG_UNBLOCK, &self, NULL);
    }
    if (action.sa_flags & SA_SIGINFO) action.sa_sigaction(number, info, context);
    else action.sa_handler(number);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void handle(int number, siginfo_t *info, void *context) {
    int saved = errno, result = 0;
    if (info->si_code == SEGV_ACCERR || info->si_code == SEGV_MAPERR) result = odb_windows_fault(fault.windows, info->si_addr);
    if (result == 0 && info->si_code == SEGV_ACCERR && last_plain != info->si_addr) {
        last_plain = info->si_addr;
        result = 1;
    } else if (result == 1) {
        last_plain = NULL;
    }
    if (result < 0) raise(SIGBUS); /* memory whose content is lost, as when a mapped file is truncated */
    else if (result == 0) give_to_application(number, info, context);
    errno = saved;
}

void odb_fault_install(struct odb_windows *windows) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    fault.windows = windows;
    odb_real.sigaction(SIGSEGV, &action, &fault.application);
}

int odb_sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    if (number != SIGSEGV || !fault.windows) return odb_real.sigaction(number, action, old);
    odb_lock_take(&fault.lock);
    struct sigaction before = fault.application;
    if (action) fault.application = *action;
    odb_lock_drop(&fault.lock);
    if (old) *old = before;
    return 0;
}

sighandler_t odb_signal(int number, sighandler_t handler) {
    if (number != SIGSEGV || !fault.windows) return odb_real.signal(number, handler);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    sigemptyset(&action.sa_mask);
    odb_sigaction(number, &action, &old);
    return old.sa_handler;
}
