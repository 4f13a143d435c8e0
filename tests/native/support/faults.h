/* faults.h: makes real calls fail on purpose, in the calling thread only. */
#ifndef ODB_TESTS_FAULTS_H
#define ODB_TESTS_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

/* Puts the faulty calls into odb_real. After world_begin(), and not under ThreadSanitizer: the helper thread reads the table. */
void faults_install(void);
void faults_clear(void);

/* What is to fail; all zero: nothing. */
struct world_faults {
    size_t recv_max;     /* most bytes of one recv */
    size_t send_budget;  /* bytes that sendmsg still takes; only when send_limited */
    bool send_limited;   /* when the budget is used up: EAGAIN */
    unsigned interrupt;  /* every n-th recv, sendmsg and send says EINTR first */
    int fail_mmap;       /* the n-th mmap from now on says ENOMEM, counting from 1 */
    int fail_mprotect;   /* ... */
    int fail_mremap;     /* ... */
    int fail_malloc;     /* ... */
    unsigned long calls; /* made so far */
};
extern _Thread_local struct world_faults world_faults;

#endif
