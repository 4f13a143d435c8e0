/* lock.h: a small lock that the runtime may take in places where pthread's must not be taken: a fault handler, a fork handler.
 *
 * Three states (free, held, held with waiters); an uncontended take or drop is one atomic operation. Not recursive. Holders never block and never
 * touch application memory, so a fault handler that waits for another thread's hold always gets it. errno is left alone. All-zero memory
 * is a free lock.
 */
#ifndef ODB_OS_LOCK_H
#define ODB_OS_LOCK_H

#include "os/real.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct odb_lock {
    _Atomic uint32_t state;
};

static inline bool odb_lock_try(struct odb_lock *lock) {
    uint32_t expected = 0;
    return atomic_compare_exchange_strong_explicit(&lock->state, &expected, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

static inline void odb_lock_take(struct odb_lock *lock) {
    if (odb_lock_try(lock)) return;
    for (int spins = 0; spins < 64; spins++) {
        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == 0 && odb_lock_try(lock)) return;
    }
    int saved = errno;
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0)
        odb_real.syscall(SYS_futex, &lock->state, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    errno = saved;
}

static inline void odb_lock_drop(struct odb_lock *lock) {
    if (atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2)
        odb_real.syscall(SYS_futex, &lock->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* After fork, in the child: whoever held it does not exist any more. */
static inline void odb_lock_reset(struct odb_lock *lock) {
    atomic_store_explicit(&lock->state, 0, memory_order_relaxed);
}

#endif
