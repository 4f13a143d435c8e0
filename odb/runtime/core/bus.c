/* bus.c: a handler of SIGBUS in front of the application's. */
#include "core/bus.h"

#include "core/careful.h"
#include "os/lock.h"
#include "os/real.h"

#include <errno.h>

typedef void handler_function(int number, siginfo_t *info, void *context);

static struct {
    struct odb_lock lock;
    struct sigaction application; /* under the lock: what the application has asked for while our handler is there */
    _Atomic(handler_function *) called; /* its handler, or null for the default */
} bus;

static void give_to_default(const siginfo_t *info) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    odb_real.sigaction(SIGBUS, &standard, NULL); /* the instruction faults again */
    if (info->si_code <= 0 || info->si_code == BUS_MCEERR_AO)
        raise(SIGBUS); /* no instruction's: delivered when this handler returns */
}

static void handle(int number, siginfo_t *info, void *context) {
    int saved = errno;
    odb_careful_catch(info, context);
    handler_function *called = atomic_load(&bus.called);
    if (called)
        called(number, info, context);
    else
        give_to_default(info);
    errno = saved;
}

static bool is_handler(const struct sigaction *action) {
    return action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
}

/* Flags and mask are the application's, so that the kernel does with them what it would do without us. */
static int put_in_front(const struct sigaction *action, struct sigaction *old) {
    struct sigaction ours = *action;
    bool handled = is_handler(action);
    if (!handled) ours.sa_flags = SA_ONSTACK | SA_RESTART, sigemptyset(&ours.sa_mask);
    ours.sa_flags |= SA_SIGINFO;
    ours.sa_sigaction = handle;
    atomic_store(&bus.called, handled ? action->sa_sigaction : NULL);
    bus.application = *action;
    return odb_real.sigaction(SIGBUS, &ours, old);
}

static bool is_left_alone(const struct sigaction *action) {
    return action->sa_handler == SIG_IGN || (is_handler(action) && (action->sa_flags & (int)SA_RESETHAND));
}

int odb_bus_action(const struct sigaction *action, struct sigaction *old) {
    struct sigaction before, wanted = action ? *action : (struct sigaction){.sa_handler = SIG_DFL};
    odb_lock_take(&bus.lock);
    struct sigaction own = bus.application;
    if (wanted.sa_sigaction == handle) wanted = own; /* libc has shown it to somebody */
    int result = !action || is_left_alone(&wanted) ? odb_real.sigaction(SIGBUS, action ? &wanted : NULL, &before)
                                                   : put_in_front(&wanted, &before);
    odb_lock_drop(&bus.lock);
    if (result == 0 && old) *old = before.sa_sigaction == handle ? own : before;
    return result;
}

void odb_bus_install(void) {
    struct sigaction now;
    if (odb_real.sigaction(SIGBUS, NULL, &now) == 0 && now.sa_sigaction != handle) odb_bus_action(&now, NULL);
}

void odb_bus_after_fork_child(void) {
    odb_lock_reset(&bus.lock);
}
