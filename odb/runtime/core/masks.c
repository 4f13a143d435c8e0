/* masks.c: keeps SIGSEGV open and remembers who wanted it blocked. */
#include "core/masks.h"

#include "os/real.h"

#include <errno.h>

static bool installed;
static _Thread_local volatile sig_atomic_t wished;
static _Thread_local volatile sig_atomic_t postponed;

void odb_masks_install(void) {
    sigset_t segv, before;
    sigemptyset(&segv);
    sigaddset(&segv, SIGSEGV);
    installed = true;
    if (odb_real.pthread_sigmask(SIG_UNBLOCK, &segv, &before) == 0) wished = sigismember(&before, SIGSEGV) == 1;
}

const sigset_t *odb_mask_without(const sigset_t *mask, sigset_t *copy) {
    if (!installed || !mask || sigismember(mask, SIGSEGV) != 1) return mask;
    *copy = *mask;
    sigdelset(copy, SIGSEGV);
    return copy;
}

bool odb_mask_wished(void) {
    return wished;
}

void odb_mask_inherit(bool wish) {
    wished = wish;
}

void odb_mask_postpone(void) {
    postponed = 1;
}

static void wish(int how, bool named) {
    if (how == SIG_SETMASK)
        wished = named;
    else if (named)
        wished = how == SIG_BLOCK;
    if (wished || !postponed) return;
    postponed = 0;
    raise(SIGSEGV);
}

int odb_sigmask(int how, const sigset_t *set, sigset_t *old) {
    sigset_t copy;
    bool before = wished, named = set && sigismember(set, SIGSEGV) == 1;
    int error = odb_real.pthread_sigmask(how, odb_mask_without(set, &copy), old);
    if (error || !installed) return error;
    if (old && before) sigaddset(old, SIGSEGV);
    if (set) wish(how, named);
    return 0;
}
