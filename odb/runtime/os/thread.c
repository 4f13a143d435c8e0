/* thread.c: by the thread library that the application uses, past the hooks. */
#include "os/thread.h"

#include "os/real.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

static int start_with_stack(void *(*run)(void *argument), void *argument, size_t size) {
    pthread_attr_t attributes;
    pthread_t thread;
    int error = pthread_attr_init(&attributes);
    if (error) return error;
    pthread_attr_setstacksize(&attributes, size);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    error = odb_real.pthread_create(&thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    return error;
}

/* A small stack is refused where the program's thread-local variables, which lie on it, are large. */
bool odb_thread_start(void *(*run)(void *argument), void *argument) {
    static const size_t stacks[] = {256 * 1024, 2 * 1024 * 1024, 16 * 1024 * 1024};
    int error = EINVAL;
    sigset_t all, before;
    sigfillset(&all);
    odb_real.pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t i = 0; error == EINVAL && i < sizeof stacks / sizeof stacks[0]; i++)
        error = start_with_stack(run, argument, stacks[i]);
    odb_real.pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0;
}
