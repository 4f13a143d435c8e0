/* crashes.c: genuine faults, deaths, broken pipes and interruptions of a program whose windows are served by faults too: crashes CASE. */
#include "scene.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>

enum { SIZE = 65536, SEED = 23, CONNECTIONS = 3 };

static void serve(int listener) {
    for (int i = 0; i < CONNECTIONS; i++) {
        int fd = answer(listener);
        send_content(fd, SIZE, SEED + (uint64_t)i);
        await_end(fd);
        usleep(100000 * (i == 0)); /* for those who want to be interrupted while they wait for the end */
        close(fd);
    }
}

static uint16_t port_of_server;
static uint64_t next_seed = SEED;

static char *window(void) {
    char *memory = malloc(SIZE);
    int fd = call_up(port_of_server);
    must(recv(fd, memory, SIZE, MSG_WAITALL) == SIZE);
    close(fd);
    return memory;
}

static bool intact(const char *memory) {
    return holds(memory, SIZE, next_seed++, 0);
}

static sigjmp_buf back;
static volatile sig_atomic_t handled;
static void *volatile fault_address;
static volatile bool on_alternate, usr1_blocked;
static char alternate[65536];
static char *volatile nowhere = (char *)24;

static void note(int number, siginfo_t *info, void *context) {
    sigset_t mask;
    char here;
    (void)context;
    must(number == SIGSEGV);
    handled++;
    fault_address = info->si_addr;
    on_alternate = &here >= alternate && &here < alternate + sizeof alternate;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    usr1_blocked = sigismember(&mask, SIGUSR1) == 1;
    jump_back(back);
}

static void note_plainly(int number) {
    must(number == SIGSEGV);
    handled++;
    jump_back(back);
}

static void touch(char *address) {
    if (sigsetjmp(back, 1) == 0) *(volatile char *)address = 1;
}

static void handle_with(int flags, bool usr1) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | flags}, seen;
    sigemptyset(&action.sa_mask);
    if (usr1) sigaddset(&action.sa_mask, SIGUSR1);
    must(keeping_errno(sigaction(SIGSEGV, &action, NULL)) == 0 && sigaction(SIGSEGV, NULL, &seen) == 0);
    must(seen.sa_sigaction == note && (seen.sa_flags & (SA_SIGINFO | flags)) == (SA_SIGINFO | flags));
    must(sigismember(&seen.sa_mask, SIGUSR1) == usr1);
}

/* Genuine faults reach the program with the right address; touches of windows do not reach it. */
static void handlers(void) {
    char *readonly = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *first = window();
    handle_with(0, true);
    must(intact(first) && handled == 0);
    touch(nowhere);
    must(handled == 1 && fault_address == nowhere && usr1_blocked && !on_alternate);
    touch(readonly + 5);
    must(handled == 2 && fault_address == readonly + 5);
    handle_with(SA_NODEFER, false);
    char *second = window();
    touch((char *)4096);
    must(handled == 3 && fault_address == (void *)4096 && !usr1_blocked);
    must(intact(second) && handled == 3);
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    must(sigaltstack(&stack, NULL) == 0);
    handle_with(SA_ONSTACK, false);
    char *third = window();
    touch(nowhere);
    must(handled == 4 && on_alternate);
    must(intact(third) && handled == 4);
}

static void old_handlers(void) {
    must(signal(SIGSEGV, note_plainly) == SIG_DFL);
    char *first = window();
    touch(nowhere);
    must(handled == 1 && intact(first) && handled == 1);
    struct sigaction seen;
    must(sigaction(SIGSEGV, NULL, &seen) == 0 && seen.sa_handler == note_plainly && (seen.sa_flags & SA_RESTART));
    must(signal(SIGSEGV, SIG_DFL) == note_plainly && sigaction(SIGSEGV, NULL, &seen) == 0 &&
         seen.sa_handler == SIG_DFL);
    struct sigaction once = {.sa_handler = note_plainly, .sa_flags = (int)SA_RESETHAND};
    must(sigaction(SIGSEGV, &once, NULL) == 0);
    char *second = window();
    must(intact(second) && handled == 1);
    touch(nowhere);
    must(handled == 2 && sigaction(SIGSEGV, NULL, &seen) == 0 && seen.sa_handler == SIG_DFL);
}

static void *touch_on_little_stack(void *memory) {
    return intact(memory) ? memory : NULL;
}

/* Beside the kernel's frame, which is the larger the more registers the machine has. An instrumented handler needs more. */
#ifdef __SANITIZE_THREAD__
enum { LITTLE = 14336 };
#else
enum { LITTLE = 6144 };
#endif

/* A touch needs little room: it is served on small stacks of threads and on small alternate stacks. */
static void little_stacks(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    void *result, *first = window();
    must(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, (size_t)32768) == 0);
    must(pthread_create(&thread, &attributes, touch_on_little_stack, first) == 0 &&
         pthread_join(thread, &result) == 0 && result == first);
    stack_t stack = {.ss_sp = alternate, .ss_size = (size_t)sysconf(_SC_MINSIGSTKSZ) + LITTLE};
    must(sigaltstack(&stack, NULL) == 0);
    char *second = window();
    must(intact(second));
}

static void die(int way) {
    if (way == 1 || way == 3) signal(SIGSEGV, SIG_IGN);
    if (way == 4) handle_with((int)SA_RESETHAND, false);
    if (way < 2) *(volatile char *)nowhere = 1;
    if (way == 2 || way == 3) raise(SIGSEGV);
    if (way == 4) {
        touch(nowhere);
        *(volatile char *)nowhere = 1;
    }
    if (way == 5) kill(getpid(), SIGSEGV);
    if (way == 6) {
        handle_with(0, false);
        if (sigsetjmp(back, 1) == 0) raise(SIGSEGV);
        _exit(40 + handled);
    }
    _exit(3);
}

/* How children end that crash or are sent the signal, with windows alive. */
static void deaths(void) {
    int status;
    char *memory = window();
    for (int way = 0; way < 7; way++) {
        pid_t child = fork();
        if (child == 0) die(way);
        must(waitpid(child, &status, 0) == child);
        say("way %d: %s %d\n", way, WIFSIGNALED(status) ? "signal" : "exit",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    must(intact(memory));
}

static void serve_broken(int listener) {
    struct linger reset = {1, 0};
    int fd = answer(listener);
    tell(fd);
    await(fd);
    must(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0 && close(fd) == 0);
    serve(listener);
}

/* The peer has reset the connection, and this side knows. */
static int broken_socket(void) {
    int fd = call_up(port_of_server);
    char byte;
    await(fd);
    tell(fd);
    while (recv(fd, &byte, 1, 0) > 0) continue;
    must(errno == ECONNRESET);
    return fd;
}

static void count_pipes(int number) {
    must(number == SIGPIPE);
    handled++;
}

/* Writing where nobody reads: the signal and the error, and only the error with MSG_NOSIGNAL. */
static void broken_pipes(void) {
    int file = file_of(SIZE, 1), fd = broken_socket();
    char *bytes = filled(SIZE, 1);
    signal(SIGPIPE, count_pipes);
    must(write(fd, "x", 1) == -1 && errno == EPIPE && handled == 1);
    must(send(fd, bytes, SIZE, 0) == -1 && errno == EPIPE && handled == 2);
    must(send(fd, bytes, SIZE, MSG_NOSIGNAL) == -1 && errno == EPIPE && handled == 2);
    must(writev(fd, &(struct iovec){bytes, SIZE}, 1) == -1 && errno == EPIPE && handled == 3);
    must(sendfile(fd, file, &(off_t){0}, SIZE) == -1 && errno == EPIPE && handled == 4);
    must(sendfile(fd, file, &(off_t){0}, 100) == -1 && errno == EPIPE && handled == 5);
    close(fd);
    say("pipes broken %d times\n", handled);
}

static void count_alarms(int number) {
    must(number == SIGALRM);
    handled++;
}

/* A timer that fires again and again interrupts, or restarts, as the call and SA_RESTART say. */
static void interrupted(void) {
    struct sigaction action = {.sa_handler = count_alarms};
    struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    int fd = call_up(port_of_server);
    char *bytes = malloc(SIZE), more;
    recv_all(fd, bytes, SIZE);
    must(intact(bytes));
    must(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    must(recv(fd, &more, 1, 0) == -1 && errno == EINTR);
    must(recv(fd, &more, 1, MSG_PEEK) == -1 && errno == EINTR);
    must(read(fd, &more, 1) == -1 && errno == EINTR);
    must(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1) == -1 && errno == EINTR);
    action.sa_flags = SA_RESTART;
    must(sigaction(SIGALRM, &action, NULL) == 0);
    must(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1) == -1 && errno == EINTR);
    fd_set in;
    FD_ZERO(&in);
    FD_SET(fd, &in);
    must(select(fd + 1, &in, NULL, NULL, NULL) == -1 && errno == EINTR);
    int before = handled;
    shutdown(fd, SHUT_WR); /* the server then closes, after several alarms */
    must(recv(fd, &more, 1, 0) == 0 && handled > before);
    must(setitimer(ITIMER_REAL, &never, NULL) == 0);
    signal(SIGALRM, SIG_DFL);
    alarm(PATIENCE);
    close(fd);
}

static const struct {
    const char *name;
    void (*run)(void);
    void (*server)(int listener);
    int windows;
} cases[] = {{"handlers", handlers, serve, 3},
             {"old_handlers", old_handlers, serve, 2},
             {"little_stacks", little_stacks, serve, 2},
             {"deaths", deaths, serve, 1},
             {"broken_pipes", broken_pipes, serve_broken, 0},
             {"interrupted", interrupted, serve, 1}};

static size_t chosen;

static void consume(uint16_t port) {
    port_of_server = port;
    cases[chosen].run();
    signal(SIGSEGV, SIG_DFL);
    for (int used = cases[chosen].windows; used < CONNECTIONS; used++) must(intact(window()));
    say("%s: as it should be\n", cases[chosen].name);
}

int main(int argc, char **argv) {
    must(argc == 2);
    for (chosen = 0; chosen < sizeof cases / sizeof cases[0]; chosen++)
        if (strcmp(argv[1], cases[chosen].name) == 0) return perform(cases[chosen].server, consume);
    return 2;
}
