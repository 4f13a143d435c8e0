/* interest.h: what the application waits for with epoll.
 *
 * The kernel only knows what is in a socket; a framed stream may owe the application bytes that have already left it, and may have got frames that give the application nothing.
 * So every epoll registration is remembered with the data the application chose (which is never changed): events are matched to streams by it.
 *
 * One lock for all registrations, held for short list work only.
 */
#ifndef ODB_CORE_INTEREST_H
#define ODB_CORE_INTEREST_H

#include "os/lock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#define ODB_INTEREST_BUCKETS 4096u
#define ODB_INTEREST_SETS (1u << 20) /* sets with larger numbers are not filtered */

struct odb_interest {
    int set;
    int fd;
    uint32_t events;   /* as the application asked, EPOLLET and the like included */
    epoll_data_t data; /* the application's */
    bool owed;         /* look at the stream before the next wait on `set` */
    bool disarmed;     /* EPOLLONESHOT has fired */
    struct odb_interest *next_of_fd;
    struct odb_interest *next_of_data;
    struct odb_interest *owed_next, *owed_previous;
};

struct odb_interests {
    struct odb_lock lock;
    struct odb_interest *by_fd[ODB_INTEREST_BUCKETS];
    struct odb_interest *by_data[ODB_INTEREST_BUCKETS];
    struct odb_interest *owed, *owed_last; /* in the order in which they became so */
    struct odb_interest *free;
    _Atomic size_t owed_count;
    _Atomic uint64_t sets[ODB_INTEREST_SETS / 64];   /* a bit per descriptor that is an epoll set with registrations */
    _Atomic uint64_t wakers[ODB_INTEREST_SETS / 64]; /* a bit per set that the waker has been added to */
    _Atomic int waker; /* an eventfd, edge-triggered in the sets that threads sleep on; 0: none yet */
    _Atomic unsigned sleepers[ODB_INTEREST_BUCKETS]; /* threads that sleep on a set, by its number */
    _Atomic unsigned turns;
};

/* epoll_ctl: in the kernel and here in one step, so that no event of the one is met by the other's old state. Without memory the registration stays
 * unknown: its events then pass unfiltered and nothing is injected. Result and errno of epoll_ctl. */
int odb_interest_control(struct odb_interests *interests, int set, int operation, int fd, struct epoll_event *event);

/* False: `fd` is neither registered nor a set with registrations. */
bool odb_interest_may_know(struct odb_interests *interests, int fd);

/* A descriptor is being closed: forgets its registrations and, if it is an epoll set, those in it. */
void odb_interest_close(struct odb_interests *interests, int fd);

/* Marks every registration of `fd` that asks for input, and those of the epoll sets they are in: its stream may owe bytes. */
void odb_interest_owe(struct odb_interests *interests, int fd);

/* As odb_interest_owe, but for the registration in `set`. */
void odb_interest_owe_elsewhere(struct odb_interests *interests, int fd, int set);

/* Takes up to `room` owed registrations of a set off the list, as copies. */
int odb_interest_take_owed(struct odb_interests *interests, int set, struct odb_interest *out, int room);

/* Puts one back (level-triggered registrations stay owed while the stream is readable). */
void odb_interest_put_back(struct odb_interests *interests, const struct odb_interest *interest);

/* Calls `readable` for the owed registrations of a set until one says true. */
bool odb_interest_any_owed(struct odb_interests *interests, int set, bool (*readable)(void *context, int fd),
                           void *context);

/* The registration that an event of `set` with `data` belongs to; false when it is unknown or there are several. */
bool odb_interest_find(struct odb_interests *interests, int set, epoll_data_t data, struct odb_interest *out);

/* Is `fd` registered in `set`? */
bool odb_interest_has(struct odb_interests *interests, int set, int fd);

/* Around a wait in the kernel, of a process with several threads: what another thread makes owed to `set` meanwhile ends the wait with an event that is
 * odb_interest_is_waker(). Begin before looking for what is owed. */
void odb_interest_sleep(struct odb_interests *interests, int set);
void odb_interest_wake(struct odb_interests *interests, int set);

static inline bool odb_interest_is_waker(const struct odb_interests *interests, const struct epoll_event *event) {
    return event->data.ptr == (const void *)&interests->waker;
}

/* True: sets may hold the waker, so that what they report has to be looked through. */
static inline bool odb_interest_has_waker(const struct odb_interests *interests) {
    return atomic_load_explicit(&interests->waker, memory_order_acquire) != 0;
}

/* There is an event for a one-shot registration, of the kernel's or injected. True for the one caller who may report it, until the application arms it again;
 * the kernel keeps quiet until then. *interest is then what is registered now. */
bool odb_interest_claim(struct odb_interests *interests, struct odb_interest *interest, bool injected);

/* The kernel's event for a one-shot registration told nothing: the kernel is to look on, if the application still waits. */
void odb_interest_rearm(struct odb_interests *interests, const struct odb_interest *interest);

#endif
