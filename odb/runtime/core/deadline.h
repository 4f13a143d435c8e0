/* deadline.h: the time left of a wait that may have to be begun again. */
#ifndef ODB_CORE_DEADLINE_H
#define ODB_CORE_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

struct odb_deadline {
    bool forever;
    struct timespec at;
};

static inline struct odb_deadline odb_deadline_in(const struct timespec *timeout) {
    struct odb_deadline deadline = {.forever = timeout == NULL};
    if (!timeout || (timeout->tv_sec == 0 && timeout->tv_nsec == 0)) return deadline; /* or: over long ago */
    clock_gettime(CLOCK_MONOTONIC, &deadline.at);
    deadline.at.tv_sec += timeout->tv_sec;
    deadline.at.tv_nsec += timeout->tv_nsec;
    if (deadline.at.tv_nsec >= 1000000000) deadline.at.tv_sec++, deadline.at.tv_nsec -= 1000000000;
    return deadline;
}

/* Zero when it has passed. */
static inline struct timespec odb_deadline_left(const struct odb_deadline *deadline) {
    struct timespec now, left;
    clock_gettime(CLOCK_MONOTONIC, &now);
    left.tv_sec = deadline->at.tv_sec - now.tv_sec;
    left.tv_nsec = deadline->at.tv_nsec - now.tv_nsec;
    if (left.tv_nsec < 0) left.tv_sec--, left.tv_nsec += 1000000000;
    if (left.tv_sec < 0) left = (struct timespec){0, 0};
    return left;
}

#endif
