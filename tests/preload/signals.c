/* signals.c: what a program believes about SIGSEGV and signal masks, and windows that are touched where it believes signals are blocked: signals CASE. */
#include "scene.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <ucontext.h>

enum { SIZE = 65536, SEED = 23 };

static char *body;                                         /* received and not looked at */
static volatile int *volatile nowhere = (volatile int *)8; /* a compiler that sees through it complains */

static void serve(int listener) {
    int fd = answer(listener);
    send_content(fd, SIZE, SEED);
    await_end(fd);
}

static sigset_t only(int number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    return set;
}

static sigset_t all(void) {
    sigset_t set;
    sigfillset(&set);
    return set;
}

static bool is_blocked(int number) {
    sigset_t now;
    must(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
    return sigismember(&now, number) == 1;
}

static void look(void) {
    must(holds(body, SIZE, SEED, 0));
}

static void touched_while_all_is_blocked(void) {
    sigset_t everything = all(), before, segv = only(SIGSEGV);
    must(sigprocmask(SIG_SETMASK, &everything, &before) == 0 && sigismember(&before, SIGSEGV) == 0);
    must(is_blocked(SIGSEGV) && is_blocked(SIGUSR1));
    look();
    must(sigprocmask(SIG_UNBLOCK, &segv, NULL) == 0 && !is_blocked(SIGSEGV) && is_blocked(SIGUSR1));
    must(sigprocmask(SIG_SETMASK, &before, &everything) == 0 && sigismember(&everything, SIGSEGV) == 0);
    must(pthread_sigmask(99, &segv, NULL) == EINVAL && sigprocmask(99, &segv, NULL) == -1 && errno == EINVAL);
    say("blocked and touched\n");
}

static void on_user(int number) {
    (void)number;
    look();
}

static void touched_in_a_handler(void) {
    struct sigaction action = {.sa_handler = on_user, .sa_mask = all()}, old;
    must(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR1, NULL, &old) == 0);
    must(old.sa_handler == on_user && sigismember(&old.sa_mask, SIGSEGV) == 1 &&
         sigismember(&old.sa_mask, SIGHUP) == 1);
    must(raise(SIGUSR1) == 0);
    sigemptyset(&action.sa_mask);
    must(sigaction(SIGUSR1, &action, &old) == 0 && sigismember(&old.sa_mask, SIGSEGV) == 1);
    must(sigaction(SIGUSR1, NULL, &old) == 0 && sigismember(&old.sa_mask, SIGSEGV) == 0);
    say("handled and touched\n");
}

static sigjmp_buf back;
static volatile int crashes;

static void on_crash(int number) {
    must(number == SIGSEGV);
    crashes++;
    look();
    jump_back(back);
}

static void touched_in_a_handler_of_crashes(void) {
    must(signal(SIGSEGV, on_crash) == SIG_DFL);
    for (int i = 0; i < 3; i++)
        if (sigsetjmp(back, 1) == 0) *nowhere = 1;
    must(crashes == 3 && !is_blocked(SIGSEGV) && signal(SIGSEGV, SIG_DFL) == on_crash);
    say("crashed %d times\n", crashes);
}

static void *thread_that_looks(void *wanted) {
    must(is_blocked(SIGSEGV) == (wanted != NULL));
    look();
    return NULL;
}

static void threads_inherit_masks(void) {
    pthread_t thread;
    sigset_t segv = only(SIGSEGV);
    must(pthread_create(&thread, NULL, thread_that_looks, NULL) == 0 && pthread_join(thread, NULL) == 0);
    must(pthread_sigmask(SIG_BLOCK, &segv, NULL) == 0);
    must(pthread_create(&thread, NULL, thread_that_looks, &segv) == 0 && pthread_join(thread, NULL) == 0);
    must(is_blocked(SIGSEGV));
    say("inherited\n");
}

static volatile int seen;

static void count(int number) {
    (void)number;
    seen++;
}

static void sent_signals_wait_until_unblocked(void) {
    sigset_t segv = only(SIGSEGV);
    struct sigaction action = {.sa_handler = count};
    must(sigaction(SIGSEGV, &action, NULL) == 0);
    must(raise(SIGSEGV) == 0 && seen == 1);
    must(sigprocmask(SIG_BLOCK, &segv, NULL) == 0 && raise(SIGSEGV) == 0 && seen == 1);
    look();
    must(seen == 1 && sigprocmask(SIG_UNBLOCK, &segv, NULL) == 0 && seen == 2);
    say("seen %d\n", seen);
}

static int status_of(pid_t child) {
    int status;
    must(child > 0 && waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 1000 + WEXITSTATUS(status);
}

static void never(int number) {
    (void)number;
    _exit(7);
}

/* A blocked SIGSEGV that an instruction causes ends the process, handler or not. */
static void crash_while_blocked_is_fatal(void) {
    pid_t child = fork();
    if (child == 0) {
        sigset_t segv = only(SIGSEGV);
        signal(SIGSEGV, never);
        sigprocmask(SIG_BLOCK, &segv, NULL);
        look();
        *nowhere = 1;
        _exit(8);
    }
    say("ended by %d\n", status_of(child));
    look();
}

static void waits_with_masks(void) {
    sigset_t everything = all(), but_user = all();
    struct timespec at_once = {0, 0};
    struct pollfd none = {.fd = -1};
    struct epoll_event event;
    int set = epoll_create1(0);
    sigdelset(&but_user, SIGUSR1);
    struct sigaction action = {.sa_handler = on_user};
    must(sigaction(SIGUSR1, &action, NULL) == 0);
    must(sigprocmask(SIG_SETMASK, &everything, NULL) == 0);
    must(ppoll(&none, 1, &at_once, &everything) == 0 && pselect(0, NULL, NULL, NULL, &at_once, &everything) == 0);
    must(epoll_pwait(set, &event, 1, 0, &everything) == 0);
    must(raise(SIGUSR1) == 0);
    must(sigsuspend(&but_user) == -1 && errno == EINTR); /* the handler touches the body */
    must(is_blocked(SIGSEGV) && is_blocked(SIGUSR1));
    say("waited\n");
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static void old_names(void) {
    must(sigset(SIGSEGV, count) == SIG_DFL && sighold(SIGSEGV) == 0 && is_blocked(SIGSEGV));
    look();
    must(raise(SIGSEGV) == 0 && seen == 0 && sigrelse(SIGSEGV) == 0 && seen == 1);
    must(sigset(SIGSEGV, SIG_HOLD) == count && sigset(SIGSEGV, count) == SIG_HOLD && !is_blocked(SIGSEGV));
    const int segv = 1 << (SIGSEGV - 1), hup = 1 << (SIGHUP - 1);
    must(sigblock(segv | hup) == 0 && is_blocked(SIGSEGV));
    must(sigsetmask(hup) == (segv | hup) && !is_blocked(SIGSEGV) && sigsetmask(0) == hup);
    must(sysv_signal(SIGSEGV, count) == count && raise(SIGSEGV) == 0 && seen == 2 &&
         signal(SIGSEGV, SIG_IGN) == SIG_DFL);
    must(raise(SIGSEGV) == 0 && sigignore(SIGSEGV) == 0 && raise(SIGSEGV) == 0 && seen == 2);
    say("old names\n");
}

#pragma GCC diagnostic pop

/* Crash reporters ask the kernel in this way whether they may read an address. */
static void probed_memory(void) {
    enum { MASK = 8, NEITHER = ~0 };
    char *absent = (char *)1;
    must(syscall(SYS_rt_sigprocmask, NEITHER, absent, NULL, MASK) == -1 && errno == EFAULT);
    must(syscall(SYS_rt_sigprocmask, NEITHER, body, NULL, MASK) == -1 && errno == EINVAL);
    must(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, absent, MASK) == -1 && errno == EFAULT);
    must(syscall(SYS_rt_sigaction, SIGSEGV, absent, NULL, MASK) == -1 && errno == EFAULT);
    must(syscall(SYS_rt_sigaction, SIGUSR1, NULL, absent, MASK) == -1 && errno == EFAULT);
    must(syscall(SYS_rt_sigsuspend, absent, MASK) == -1 && errno == EFAULT);
    look();
    say("probed\n");
}

/* As those who start programs do in the child, one signal after the other. */
static void reset_by_a_vfork_child(void) {
    int status;
    struct sigaction action = {.sa_handler = count}, now;
    must(sigaction(SIGSEGV, &action, NULL) == 0);
    pid_t child = vfork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        action.sa_handler = SIG_DFL;
        sigaction(SIGSEGV, &action, NULL);
        _exit(0);
    }
    must(waitpid(child, &status, 0) == child && status == 0);
    must(sigaction(SIGSEGV, NULL, &now) == 0 && now.sa_handler == count);
    look();
    must(raise(SIGSEGV) == 0 && seen == 1);
    say("still handled\n");
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {{"touched_while_all_is_blocked", touched_while_all_is_blocked},
             {"touched_in_a_handler", touched_in_a_handler},
             {"touched_in_a_handler_of_crashes", touched_in_a_handler_of_crashes},
             {"threads_inherit_masks", threads_inherit_masks},
             {"sent_signals_wait_until_unblocked", sent_signals_wait_until_unblocked},
             {"crash_while_blocked_is_fatal", crash_while_blocked_is_fatal},
             {"waits_with_masks", waits_with_masks},
             {"old_names", old_names},
             {"probed_memory", probed_memory},
             {"reset_by_a_vfork_child", reset_by_a_vfork_child}};

static const char *chosen;

static void consume(uint16_t port) {
    int fd = call_up(port);
    body = malloc(SIZE);
    must(recv(fd, body, SIZE, MSG_WAITALL) == SIZE);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(chosen, cases[i].name) == 0) cases[i].run();
    must(scene.used > 0);
    close(fd);
}

int main(int argc, char **argv) {
    must(argc == 2);
    chosen = argv[1];
    return perform(serve, consume);
}
