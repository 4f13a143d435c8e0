/* process.c: hooks of thread creation, and of fork, of which pthread_atfork does not say when it fails. A new thread has SIGSEGV open, and believes of it what its creator believes, or what its
 * attributes say. */
#include "core/fault.h"
#include "core/masks.h"
#include "core/sharing.h"

#include "hooks/hook.h"

struct beginning {
    union {
        void *(*posix)(void *);
        thrd_start_t c11;
    } start;
    void *argument;
};

/* glibc has it from 2.32 on. */
extern int pthread_attr_getsigmask_np(const pthread_attr_t *attributes, sigset_t *mask) __attribute__((weak));

static bool will_wish(const pthread_attr_t *attributes) {
    sigset_t mask;
    bool named = attributes && pthread_attr_getsigmask_np && pthread_attr_getsigmask_np(attributes, &mask) == 0;
    return named ? sigismember(&mask, SIGSEGV) == 1 : odb_mask_wished();
}

/* Runs in a thread that is to believe that SIGSEGV is blocked. */
static struct beginning take(void *argument) {
    struct beginning beginning = *(struct beginning *)argument;
    sigset_t segv;
    sigemptyset(&segv);
    sigaddset(&segv, SIGSEGV);
    odb_real.free(argument);
    odb_real.pthread_sigmask(SIG_UNBLOCK, &segv, NULL);
    odb_mask_inherit(true);
    return beginning;
}

static void *begin(void *argument) {
    struct beginning beginning = take(argument);
    return beginning.start.posix(beginning.argument);
}

static int begin_c11(void *argument) {
    struct beginning beginning = take(argument);
    return beginning.start.c11(beginning.argument);
}

/* From the second thread on, fetched content has to appear in one step. */
static struct beginning *prepare(const pthread_attr_t *attributes) {
    struct odb_runtime *runtime = odb_enter();
    if (!runtime) return NULL;
    atomic_store(&runtime->windows.threads, true);
    odb_gather_stop(runtime);
    return odb_fault_installed() && will_wish(attributes) ? odb_real.malloc(sizeof(struct beginning)) : NULL;
}

ODB_EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                              void *argument) {
    struct beginning *beginning = prepare(attributes);
    if (!beginning) return odb_real.pthread_create(thread, attributes, start, argument);
    *beginning = (struct beginning){.start.posix = start, .argument = argument};
    int error = odb_real.pthread_create(thread, attributes, begin, beginning);
    if (error) odb_real.free(beginning);
    return error;
}

/* libc makes such a thread without passing by pthread_create. */
ODB_EXPORT int thrd_create(thrd_t *thread, thrd_start_t start, void *argument) {
    struct beginning *beginning = prepare(NULL);
    if (!beginning) return odb_real.thrd_create(thread, start, argument);
    *beginning = (struct beginning){.start.c11 = start, .argument = argument};
    int result = odb_real.thrd_create(thread, begin_c11, beginning);
    if (result != thrd_success) odb_real.free(beginning);
    return result;
}

ODB_EXPORT pid_t fork(void) {
    struct odb_runtime *runtime = odb_enter();
    pid_t child = odb_real.fork();
    int saved = errno;
    if (child < 0 && runtime && !odb_runtime_is_foreign(runtime)) odb_sharing_after_failed_fork(&runtime->fds);
    errno = saved;
    return child;
}

ODB_ALIAS(fork, __fork);
