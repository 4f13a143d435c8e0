/* process.c: hooks of thread creation. */
#include "core/masks.h"

#include "hooks/hook.h"

struct beginning {
    void *(*start)(void *);
    void *argument;
};

/* For a thread whose creator believes that SIGSEGV is blocked: it believes so too. */
static void *begin(void *argument) {
    struct beginning beginning = *(struct beginning *)argument;
    odb_real.free(argument);
    odb_mask_inherit(true);
    return beginning.start(beginning.argument);
}

/* From the second thread on, fetched content has to appear in one step. */
ODB_EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                              void *argument) {
    struct odb_runtime *runtime = odb_enter();
    if (runtime) atomic_store(&runtime->windows.threads, true);
    struct beginning *beginning = runtime && odb_mask_wished() ? odb_real.malloc(sizeof *beginning) : NULL;
    if (!beginning) return odb_real.pthread_create(thread, attributes, start, argument);
    *beginning = (struct beginning){start, argument};
    int error = odb_real.pthread_create(thread, attributes, begin, beginning);
    if (error) odb_real.free(beginning);
    return error;
}

/* libc makes such a thread without passing by pthread_create. */
ODB_EXPORT int thrd_create(thrd_t *thread, thrd_start_t start, void *argument) {
    struct odb_runtime *runtime = odb_enter();
    if (runtime) atomic_store(&runtime->windows.threads, true);
    return odb_real.thrd_create(thread, start, argument);
}
