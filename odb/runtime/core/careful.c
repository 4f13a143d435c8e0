/* careful.c: attempts that a signal handler may jump out of. */
#include "core/careful.h"

#include "os/guard.h"
#include "os/real.h"

#include <errno.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>

struct attempt {
    uintptr_t
        start; /* of the program's memory; a crash elsewhere, in a handler that has interrupted this, is none of ours */
    size_t length;
    struct attempt *outer; /* that the calling signal handler has interrupted */
    sigjmp_buf back;
};

static _Thread_local struct attempt *current;

/* Sets all but `back`: clearing that as well, as an initialiser would, takes longer than most attempts. */
static inline void prepare(struct attempt *attempt, uintptr_t start, size_t length) {
    attempt->start = start;
    attempt->length = length;
    attempt->outer = current;
}

/* The program's memory is touched between the two. */
static inline void begin(struct attempt *attempt) {
    current = attempt;
    atomic_signal_fence(memory_order_seq_cst);
}

static inline void end(const struct attempt *attempt) {
    atomic_signal_fence(memory_order_seq_cst);
    current = attempt->outer;
}

#define TOUCHING __attribute__((noinline, no_sanitize("address", "thread", "undefined")))

static TOUCHING void read_pages(uintptr_t start, size_t pages) {
    for (uintptr_t at = start; pages > 0; pages--, at = odb_page_down(at) + ODB_PAGE) (void)*(const volatile char *)at;
}

static TOUCHING void write_pages(uintptr_t start, size_t pages) {
    for (uintptr_t at = start; pages > 0; pages--, at = odb_page_down(at) + ODB_PAGE)
        __atomic_fetch_or((char *)at, 0, __ATOMIC_RELAXED); /* other threads may be writing there */
}

static int touch(uintptr_t start, size_t length, void (*pages)(uintptr_t, size_t)) {
    struct attempt attempt;
    if (length == 0) return 0;
    prepare(&attempt, start, length);
    if (sigsetjmp(attempt.back, 0) != 0) {
        end(&attempt);
        return -EFAULT;
    }
    begin(&attempt);
    pages(start, (start % ODB_PAGE + length - 1) / ODB_PAGE + 1);
    end(&attempt);
    return 0;
}

int odb_careful_readable(const void *memory, size_t length) {
    return touch((uintptr_t)memory, length, read_pages);
}

int odb_careful_writable(void *memory, size_t length) {
    return touch((uintptr_t)memory, length, write_pages);
}

int odb_careful_put(void *to, const void *bytes, size_t length) {
    struct attempt attempt;
    prepare(&attempt, (uintptr_t)to, length);
    if (sigsetjmp(attempt.back, 0) != 0) {
        end(&attempt);
        return -EFAULT;
    }
    begin(&attempt);
    memcpy(to, bytes, length);
    end(&attempt);
    return 0;
}

/* SI_KERNEL: an address that no memory can have, and that is not told. */
void odb_careful_catch(const siginfo_t *info, void *context) {
    struct attempt *attempt = current;
    const ucontext_t *interrupted = context;
    if (!attempt || info->si_code <= 0) return;
    if (info->si_code != SI_KERNEL && (uintptr_t)info->si_addr - attempt->start >= attempt->length) return;
    odb_real.pthread_sigmask(SIG_SETMASK, &interrupted->uc_sigmask, NULL);
    siglongjmp(attempt->back, 1);
}
