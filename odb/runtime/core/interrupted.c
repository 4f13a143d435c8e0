/* interrupted.c: asks the kernel which handlers there are. */
#include "core/interrupted.h"

#include "os/real.h"

#include <errno.h>
#include <signal.h>

static bool interrupts(int number) {
    struct sigaction action;
    if (odb_real.sigaction(number, NULL, &action) != 0) return false;
    bool handled = action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN;
    return handled && !(action.sa_flags & SA_RESTART);
}

/* Caused by an instruction, of which a thread that waits runs none: whoever reports crashes handles these, and cares for no call. */
static bool is_of_instructions(int number) {
    return number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL;
}

bool odb_interrupted_restarts(void) {
    int saved = errno;
    bool restarts = true;
    for (int number = 1; number < NSIG && restarts; number++)
        restarts = is_of_instructions(number) || !interrupts(number);
    errno = saved;
    return restarts;
}
