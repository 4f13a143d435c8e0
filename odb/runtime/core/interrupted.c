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

bool odb_interrupted_restarts(void) {
    int saved = errno;
    bool restarts = true;
    for (int number = 1; number < NSIG && restarts; number++)
        restarts = number == SIGSEGV || !interrupts(number); /* a touch of a window interrupts no call */
    errno = saved;
    return restarts;
}
