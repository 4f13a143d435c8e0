/* tsan.c: lies between ThreadSanitizer's library and libc, and makes up for three things which that (of GCC 12 at least) does to every program, whatever else is loaded:
 *   - It blocks all signals while any handler runs, whatever the program has asked for. A handler that touches a window would be killed: SIGSEGV stays open here.
 *   - It does not see _longjmp, by which the library leaves a handler, and goes on as if that still ran. Here it is longjmp, which it knows.
 *   - It does not see threads of C11 begin, and its own code crashes in them. Here they are threads of POSIX, which it knows.
 * Nothing of this is instrumented: part of it runs before ThreadSanitizer is ready.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <threads.h>

/* ThreadSanitizer's own definitions, under the names that nobody intercepts. */
int __interceptor_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                                 void *argument);
int __interceptor_pthread_join(pthread_t thread, void **result);
int __interceptor_pthread_detach(pthread_t thread);
void __interceptor_longjmp(jmp_buf back, int value) __attribute__((noreturn));

#define OPEN __attribute__((visibility("default")))
#define NEXT(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static const sigset_t *without_segv(const sigset_t *mask, sigset_t *copy) {
    if (!mask) return NULL;
    *copy = *mask;
    sigdelset(copy, SIGSEGV);
    return copy;
}

OPEN int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    struct sigaction open;
    if (action) {
        open = *action;
        if (number == SIGSEGV)
            sigemptyset(&open.sa_mask); /* as the library has asked, which alone ever sets this one */
        else
            sigdelset(&open.sa_mask, SIGSEGV);
    }
    return NEXT(sigaction)(number, action ? &open : NULL, old);
}

OPEN int sigprocmask(int how, const sigset_t *set, sigset_t *old) {
    sigset_t copy;
    return NEXT(sigprocmask)(how, how == SIG_UNBLOCK ? set : without_segv(set, &copy), old);
}

OPEN int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) {
    sigset_t copy;
    return NEXT(pthread_sigmask)(how, how == SIG_UNBLOCK ? set : without_segv(set, &copy), old);
}

OPEN void _longjmp(jmp_buf back, int value) {
    __interceptor_longjmp(back, value);
}

/* A thread of C11 returns an int, one of POSIX a pointer: no program here asks for the int. */
OPEN int thrd_create(thrd_t *thread, thrd_start_t start, void *argument) {
    int error = __interceptor_pthread_create(thread, NULL, (void *(*)(void *))(void (*)(void))start, argument);
    return error == 0 ? thrd_success : error == ENOMEM ? thrd_nomem : thrd_error;
}

OPEN int thrd_join(thrd_t thread, int *result) {
    void *returned;
    if (__interceptor_pthread_join(thread, &returned) != 0) return thrd_error;
    if (result) *result = (int)(intptr_t)returned;
    return thrd_success;
}

OPEN int thrd_detach(thrd_t thread) {
    return __interceptor_pthread_detach(thread) == 0 ? thrd_success : thrd_error;
}
