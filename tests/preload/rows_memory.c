/* rows_memory.c: the rows of hooks.def about memory, signals and threads. */
#include "rows.h"

#include <malloc.h>
#include <sys/mman.h>
#include <threads.h>

enum { SMALL = 100 };

static void *block_by(const char *name, size_t size) {
    void *block = NULL;
    if (within("calloc", name)) return FUNCTION(calloc, name)(2, (size + 1) / 2);
    if (equal(name, "reallocarray")) return FUNCTION(reallocarray, name)(NULL, 2, (size + 1) / 2);
    if (within("realloc", name)) return FUNCTION(realloc, name)(malloc(3), size);
    if (equal(name, "posix_memalign"))
        return FUNCTION(posix_memalign, name)(&block, 256, size) == 0 && (uintptr_t)block % 256 == 0 ? block : NULL;
    if (within("align", name)) {
        block = FUNCTION(aligned_alloc, name)(256, (size + 255) & ~(size_t)255);
        return (uintptr_t)block % 256 == 0 ? block : NULL;
    }
    if (within("valloc", name)) {
        block = FUNCTION(malloc, name)(size);
        return (uintptr_t)block % PAGE == 0 ? block : NULL;
    }
    return FUNCTION(malloc, name)(size);
}

/* A block that is received into; and what is small. */
static void allocating(const char *name, bool intercepted) {
    size_t size = intercepted ? BODY : SMALL;
    char *block = block_by(name, size);
    must(block != NULL && malloc_usable_size(block) >= size);
    if (within("calloc", name))
        for (size_t i = 0; i < size; i++) must(block[i] == 0);
    int fd = open_stream(intercepted);
    command(fd, 'b', size);
    must(recv(fd, block, size, MSG_WAITALL) == (ssize_t)size);
    close(fd);
    if (equal(name, "reallocarray"))
        must((block = FUNCTION(reallocarray, name)(block, 3, size)) != NULL);
    else if (within("realloc", name))
        must((block = FUNCTION(realloc, name)(block, 3 * size)) != NULL);
    must(holds(block, size, SEED, 0));
    free(block);
}

static void freeing(const char *name, bool intercepted) {
    FUNCTION(free, name)(intercepted ? window(true) : malloc(SMALL));
    FUNCTION(free, name)(NULL);
    char *again = malloc(intercepted ? BODY : SMALL);
    fill(again, SMALL, SEED, 0);
    must(holds(again, SMALL, SEED, 0));
    free(again);
}

static void measuring(const char *name, bool intercepted) {
    char *block = intercepted ? window(true) : malloc(SMALL);
    size_t size = FUNCTION(malloc_usable_size, name)(block);
    must(size >= (intercepted ? BODY : SMALL) && FUNCTION(malloc_usable_size, name)(NULL) == 0);
    memset(block, 1, size);
    free(block);
}

/* One page in the middle becomes new; what is around it stays. */
static void mapping(const char *name, bool intercepted) {
    char *block = window(intercepted), *page = first_page(block) + 3 * PAGE;
    if (equal(name, "madvise"))
        must(keeping_errno(FUNCTION(madvise, name)(page, PAGE, MADV_DONTNEED)) == 0);
    else
        must(FUNCTION(mmap, name)(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
             page);
    for (size_t i = 0; i < PAGE; i++) must(page[i] == 0);
    size_t before = (size_t)(page - block);
    must(holds(block, before, SEED, 0) && holds(page + PAGE, BODY - before - PAGE, SEED, before + PAGE));
    free(block);
}

/* A mapping of the program's own, while there is a window elsewhere. */
static void moving(const char *name, bool intercepted) {
    char *block = window(intercepted);
    size_t length = 64 * PAGE;
    char *own = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open_stream(intercepted);
    command(fd, 'b', BODY);
    must(own != MAP_FAILED && recv(fd, own, BODY, MSG_WAITALL) == BODY);
    close(fd);
    if (equal(name, "munmap")) {
        must(keeping_errno(FUNCTION(munmap, name)(own + length / 2, length / 2)) == 0);
        length /= 2;
    } else {
        must((own = FUNCTION(mremap, name)(own, length, 2 * length, MREMAP_MAYMOVE)) != MAP_FAILED);
        length *= 2;
    }
    must(holds(own, BODY, SEED, 0) && holds(block, BODY, SEED, 0));
    must(munmap(own, length) == 0);
    free(block);
}

static void protecting(const char *name, bool intercepted) {
    char *block = window(intercepted), *page = first_page(block);
    size_t length = 8 * PAGE;
    int result;
    if (equal(name, "mlock"))
        result = keeping_errno(FUNCTION(mlock, name)(page, length));
    else if (equal(name, "mlock2"))
        result = keeping_errno(FUNCTION(mlock2, name)(page, length, 0));
    else if (equal(name, "pkey_mprotect"))
        result = keeping_errno(FUNCTION(pkey_mprotect, name)(page, length, PROT_READ, -1));
    else
        result = keeping_errno(FUNCTION(mprotect, name)(page, length, PROT_READ));
    must(holds(block, BODY, SEED, 0));
    if (within("mprotect", name)) must(mprotect(page, length, PROT_READ | PROT_WRITE) == 0);
    munlock(page, length);
    memset(block, 1, BODY);
    say(" %d", result);
    free(block);
}

/* Signals: SIGSEGV is the one that is the library's. */
static volatile sig_atomic_t handled;
static char *volatile looked_at;

static void handler(int number) {
    (void)number;
    handled++;
    if (looked_at) must(holds(looked_at, BODY, SEED, 0));
}

typedef sighandler_t setter(int number, sighandler_t wanted);

static void handling(const char *name, bool intercepted) {
    int number = intercepted ? SIGSEGV : SIGUSR1, before = handled;
    struct sigaction action = {.sa_handler = handler}, old;
    char *block = window(true);
    if (within("sigaction", name)) {
        must(keeping_errno(FUNCTION(sigaction, name)(number, &action, &old)) == 0 && old.sa_handler == SIG_DFL);
        must(FUNCTION(sigaction, name)(number, NULL, &old) == 0 && old.sa_handler == handler);
    } else if (equal(name, "sigignore")) {
        must(((int (*)(int))function_named(name))(number) == 0);
    } else {
        must(FUNCTION(setter, name)(number, handler) == SIG_DFL);
    }
    must(holds(block, BODY, SEED, 0)); /* touches are still the library's */
    raise(number);
    must(handled == before + !equal(name, "sigignore"));
    must(signal(number, SIG_DFL) == (equal(name, "sigignore")      ? SIG_IGN
                                     : within("sysv_signal", name) ? SIG_DFL
                                                                   : handler));
    free(block);
}

static bool is_blocked(int number) {
    sigset_t now;
    must(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
    return sigismember(&now, number) == 1;
}

static void unblock_all(void) {
    sigset_t none;
    sigemptyset(&none);
    must(sigprocmask(SIG_SETMASK, &none, NULL) == 0);
}

static void masking(const char *name, bool intercepted) {
    int number = intercepted ? SIGSEGV : SIGUSR1;
    char *block = window(true);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, number);
    if (within("mask", name) && !equal(name, "sigsetmask"))
        must(keeping_errno(FUNCTION(sigprocmask, name)(SIG_BLOCK, &set, &old)) == 0 && !sigismember(&old, number));
    else if (equal(name, "sigblock") || equal(name, "sigsetmask"))
        must(((int (*)(int))function_named(name))(1 << (number - 1)) == 0);
    else
        must(((int (*)(int))function_named("sighold"))(number) == 0);
    must(is_blocked(number) && holds(block, BODY, SEED, 0));
    if (equal(name, "sigrelse"))
        must(((int (*)(int))function_named(name))(number) == 0);
    else
        unblock_all();
    must(!is_blocked(number));
    free(block);
}

/* The mask holds during the sleep, in which a handler touches a window. */
static void suspending(const char *name, bool intercepted) {
    int before = handled;
    sigset_t set, all;
    looked_at = window(true);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigfillset(&all);
    sigdelset(&all, SIGUSR2);
    if (!intercepted) sigdelset(&all, SIGSEGV);
    must(signal(SIGUSR2, handler) == SIG_DFL && sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    raise(SIGUSR2);
    must(handled == before && FUNCTION(sigsuspend, name)(&all) == -1 && errno == EINTR && handled == before + 1);
    must(signal(SIGUSR2, SIG_DFL) == handler);
    unblock_all();
    free(looked_at);
    looked_at = NULL;
}

static int expected_to_be_blocked;

static void *look(void *block) {
    must(expected_to_be_blocked == 0 || is_blocked(expected_to_be_blocked));
    must(holds(block, BODY, SEED, 0));
    return block;
}

static int look_too(void *block) {
    return look(block) == block ? 7 : 0;
}

static void threading(const char *name, bool intercepted) {
    char *block = window(intercepted);
    int result = 0;
    thrd_t other;
    pthread_t thread;
    void *back = NULL;
    pthread_attr_t attributes;
    sigset_t set;
    must(pthread_attr_init(&attributes) == 0);
    if (equal(name, "pthread_create")) {
        expected_to_be_blocked = intercepted ? SIGSEGV : SIGUSR1;
        sigemptyset(&set);
        sigaddset(&set, expected_to_be_blocked);
        must(pthread_attr_setsigmask_np(&attributes, &set) == 0);
    }
    if (equal(name, "thrd_create")) {
        must(FUNCTION(thrd_create, name)(&other, look_too, block) == thrd_success);
        must(thrd_join(other, &result) == thrd_success && result == 7);
    } else {
        must(FUNCTION(pthread_create, name)(&thread, &attributes, look, block) == 0);
        must(pthread_join(thread, &back) == 0 && back == block);
    }
    expected_to_be_blocked = 0;
    pthread_attr_destroy(&attributes);
    free(block);
}

static const struct row rows[] = {
    {"malloc", allocating},
    {"__libc_malloc", allocating},
    {"calloc", allocating},
    {"__libc_calloc", allocating},
    {"realloc", allocating},
    {"__libc_realloc", allocating},
    {"reallocarray", allocating},
    {"posix_memalign", allocating},
    {"aligned_alloc", allocating},
    {"memalign", allocating},
    {"__libc_memalign", allocating},
    {"valloc", allocating},
    {"__libc_valloc", allocating},
    {"pvalloc", allocating},
    {"__libc_pvalloc", allocating},
    {"free", freeing},
    {"__libc_free", freeing},
    {"cfree", freeing},
    {"malloc_usable_size", measuring},
    {"mmap", mapping},
    {"mmap64", mapping},
    {"madvise", mapping},
    {"munmap", moving},
    {"mremap", moving},
    {"mprotect", protecting},
    {"pkey_mprotect", protecting},
    {"mlock", protecting},
    {"mlock2", protecting},
    {"sigaction", handling},
    {"__sigaction", handling},
    {"signal", handling},
    {"bsd_signal", handling},
    {"ssignal", handling},
    {"sysv_signal", handling},
    {"__sysv_signal", handling},
    {"sigset", handling},
    {"sigignore", handling},
    {"sighold", masking},
    {"sigrelse", masking},
    {"sigblock", masking},
    {"sigsetmask", masking},
    {"sigprocmask", masking},
    {"pthread_sigmask", masking},
    {"sigsuspend", suspending},
    {"__sigsuspend", suspending},
    {"pthread_create", threading},
    {"thrd_create", threading},
};

static void consume(uint16_t port) {
    ROWS(rows, port);
}

int main(void) {
    return perform(serve_rows, consume);
}
