/* interest.c: the registry of epoll registrations. */
#include "core/interest.h"

#include "os/fds.h"
#include "os/real.h"

#include <sys/eventfd.h>
#include <sys/mman.h>

static struct odb_interest **fd_bucket(struct odb_interests *interests, int fd) {
    return &interests->by_fd[(unsigned)fd % ODB_INTEREST_BUCKETS];
}

static struct odb_interest **data_bucket(struct odb_interests *interests, int set, epoll_data_t data) {
    uint64_t mixed = (data.u64 ^ ((uint64_t)set << 40)) * 0x9e3779b97f4a7c15u;
    return &interests->by_data[(mixed >> 40) % ODB_INTEREST_BUCKETS];
}

static struct odb_interest *find(struct odb_interests *interests, int set, int fd) {
    struct odb_interest *at = *fd_bucket(interests, fd);
    while (at && (at->fd != fd || at->set != set)) at = at->next_of_fd;
    return at;
}

static void link_data(struct odb_interests *interests, struct odb_interest *interest) {
    struct odb_interest **bucket = data_bucket(interests, interest->set, interest->data);
    interest->next_of_data = *bucket;
    *bucket = interest;
}

static void unlink_data(struct odb_interests *interests, struct odb_interest *interest) {
    struct odb_interest **at = data_bucket(interests, interest->set, interest->data);
    while (*at != interest) at = &(*at)->next_of_data;
    *at = interest->next_of_data;
}

/* An edge in every set that the waker is in; only those with a sleeper are worth it. */
static void wake_sleepers(struct odb_interests *interests, int set) {
    uint64_t one = 1;
    int waker = atomic_load(&interests->waker);
    if (atomic_load(&interests->sleepers[(unsigned)set % ODB_INTEREST_BUCKETS]) == 0 || waker == 0) return;
    if (odb_real.write(waker, &one, sizeof one) < 0) return; /* never full: 2^64 of them */
}

static void set_owed(struct odb_interests *interests, struct odb_interest *interest, bool owed) {
    if (interest->owed == owed) return;
    interest->owed = owed;
    if (owed) {
        interest->owed_next = NULL;
        interest->owed_previous = interests->owed_last;
        *(interests->owed_last ? &interests->owed_last->owed_next : &interests->owed) = interest;
        interests->owed_last = interest;
        atomic_fetch_add(&interests->owed_count, 1);
        wake_sleepers(interests, interest->set);
        return;
    }
    *(interest->owed_previous ? &interest->owed_previous->owed_next : &interests->owed) = interest->owed_next;
    *(interest->owed_next ? &interest->owed_next->owed_previous : &interests->owed_last) = interest->owed_previous;
    atomic_fetch_sub(&interests->owed_count, 1);
}

static struct odb_interest *take_free(struct odb_interests *interests) {
    if (!interests->free) {
        size_t size = 64 * 1024;
        struct odb_interest *chunk =
            odb_real.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (chunk == MAP_FAILED) return NULL;
        for (size_t i = 0; i < size / sizeof *chunk; i++) {
            chunk[i].next_of_fd = interests->free;
            interests->free = &chunk[i];
        }
    }
    struct odb_interest *interest = interests->free;
    interests->free = interest->next_of_fd;
    return interest;
}

static void remove_interest(struct odb_interests *interests, struct odb_interest *interest) {
    struct odb_interest **at = fd_bucket(interests, interest->fd);
    while (*at != interest) at = &(*at)->next_of_fd;
    *at = interest->next_of_fd;
    unlink_data(interests, interest);
    set_owed(interests, interest, false);
    interest->next_of_fd = interests->free;
    interests->free = interest;
}

static void add(struct odb_interests *interests, int set, int fd, const struct epoll_event *event) {
    struct odb_interest *interest = find(interests, set, fd), **bucket = fd_bucket(interests, fd);
    if (interest) remove_interest(interests, interest); /* of a descriptor closed behind our back */
    interest = take_free(interests);
    if (!interest) return;
    *interest = (struct odb_interest){
        .set = set, .fd = fd, .events = event->events, .data = event->data, .next_of_fd = *bucket};
    *bucket = interest;
    link_data(interests, interest);
}

/* EPOLL_CTL_MOD makes the kernel report again what is there; so do we. */
static void modify(struct odb_interests *interests, struct odb_interest *interest, const struct epoll_event *event) {
    unlink_data(interests, interest);
    interest->events = event->events;
    interest->data = event->data;
    interest->disarmed = false;
    link_data(interests, interest);
    if (event->events & EPOLLIN) set_owed(interests, interest, true);
}

static uint64_t set_bit(int set) {
    return 1ull << ((unsigned)set % 64);
}

static int make_waker(struct odb_interests *interests) {
    int known = 0, made = odb_fds_adopt(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (made < 0) return 0;
    if (atomic_compare_exchange_strong(&interests->waker, &known, made)) return made;
    odb_fds_close(made);
    return known;
}

/* Puts the waker into a set that somebody sleeps on and that has registrations; whoever makes the second of these true does it. */
static void add_waker(struct odb_interests *interests, int set) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = &interests->waker};
    bool sleeper = atomic_load(&interests->sleepers[(unsigned)set % ODB_INTEREST_BUCKETS]) > 0;
    if (!sleeper || !(atomic_load(&interests->sets[set / 64]) & set_bit(set)) ||
        (atomic_load(&interests->wakers[set / 64]) & set_bit(set)))
        return;
    if (atomic_fetch_or(&interests->wakers[set / 64], set_bit(set)) & set_bit(set)) return;
    int waker = atomic_load(&interests->waker);
    if (waker == 0) waker = make_waker(interests);
    if (waker != 0) odb_real.epoll_ctl(set, EPOLL_CTL_ADD, waker, &event);
}

static void note_set(struct odb_interests *interests, int set) {
    atomic_fetch_or(&interests->sets[set / 64], set_bit(set));
    add_waker(interests, set);
}

int odb_interest_control(struct odb_interests *interests, int set, int operation, int fd, struct epoll_event *event) {
    if ((unsigned)set >= ODB_INTEREST_SETS) return odb_real.epoll_ctl(set, operation, fd, event);
    odb_lock_take(&interests->lock);
    int result = odb_real.epoll_ctl(set, operation, fd, event);
    struct odb_interest *interest = result == 0 ? find(interests, set, fd) : NULL;
    if (result == 0 && operation == EPOLL_CTL_ADD) {
        note_set(interests, set);
        add(interests, set, fd, event);
    } else if (operation == EPOLL_CTL_MOD && interest) {
        modify(interests, interest, event);
    } else if (operation == EPOLL_CTL_DEL && interest) {
        remove_interest(interests, interest);
    }
    odb_lock_drop(&interests->lock);
    return result;
}

static void forget_set(struct odb_interests *interests, int set) {
    for (unsigned i = 0; i < ODB_INTEREST_BUCKETS; i++)
        for (struct odb_interest *at = interests->by_fd[i], *next; at; at = next) {
            next = at->next_of_fd;
            if (at->set == set) remove_interest(interests, at);
        }
}

bool odb_interest_may_know(struct odb_interests *interests, int fd) {
    bool is_set = (unsigned)fd < ODB_INTEREST_SETS &&
                  (atomic_load_explicit(&interests->sets[fd / 64], memory_order_relaxed) & set_bit(fd));
    return is_set || *fd_bucket(interests, fd);
}

void odb_interest_close(struct odb_interests *interests, int fd) {
    bool is_set =
        (unsigned)fd < ODB_INTEREST_SETS && (atomic_fetch_and(&interests->sets[fd / 64], ~set_bit(fd)) & set_bit(fd));
    if (is_set) atomic_fetch_and(&interests->wakers[fd / 64], ~set_bit(fd));
    if (!is_set && !*fd_bucket(interests, fd)) return;
    odb_lock_take(&interests->lock);
    for (struct odb_interest *at = *fd_bucket(interests, fd), *next; at; at = next) {
        next = at->next_of_fd;
        if (at->fd == fd) remove_interest(interests, at);
    }
    if (is_set) forget_set(interests, fd);
    odb_lock_drop(&interests->lock);
}

enum { NO_SET = -1 };

/* The kernel allows sets in sets five deep. */
static void owe(struct odb_interests *interests, int fd, int but, int depth) {
    for (struct odb_interest *at = *fd_bucket(interests, fd); at; at = at->next_of_fd) {
        if (at->fd != fd || at->set == but || !(at->events & EPOLLIN) || at->disarmed) continue;
        set_owed(interests, at, true);
        if (depth > 0) owe(interests, at->set, NO_SET, depth - 1);
    }
}

void odb_interest_owe(struct odb_interests *interests, int fd) {
    odb_interest_owe_elsewhere(interests, fd, NO_SET);
}

void odb_interest_owe_elsewhere(struct odb_interests *interests, int fd, int set) {
    if (!*fd_bucket(interests, fd)) return;
    odb_lock_take(&interests->lock);
    owe(interests, fd, set, 5);
    odb_lock_drop(&interests->lock);
}

bool odb_interest_any_owed(struct odb_interests *interests, int set, bool (*readable)(void *context, int fd),
                           void *context) {
    enum { MOST = 64 };
    int fds[MOST], count = 0;
    if (atomic_load_explicit(&interests->owed_count, memory_order_relaxed) == 0) return false;
    odb_lock_take(&interests->lock);
    for (struct odb_interest *at = interests->owed; at && count < MOST; at = at->owed_next)
        if (at->set == set) fds[count++] = at->fd;
    odb_lock_drop(&interests->lock);
    for (int i = 0; i < count; i++)
        if (readable(context, fds[i])) return true;
    return false;
}

int odb_interest_take_owed(struct odb_interests *interests, int set, struct odb_interest *out, int room) {
    int taken = 0;
    if (atomic_load_explicit(&interests->owed_count, memory_order_relaxed) == 0) return 0;
    odb_lock_take(&interests->lock);
    for (struct odb_interest *at = interests->owed, *next; at && taken < room; at = next) {
        next = at->owed_next;
        if (at->set != set) continue;
        set_owed(interests, at, false);
        out[taken++] = *at;
    }
    odb_lock_drop(&interests->lock);
    return taken;
}

void odb_interest_put_back(struct odb_interests *interests, const struct odb_interest *interest) {
    odb_lock_take(&interests->lock);
    struct odb_interest *at = find(interests, interest->set, interest->fd);
    if (at && (at->events & EPOLLIN) && !at->disarmed) set_owed(interests, at, true);
    odb_lock_drop(&interests->lock);
}

bool odb_interest_find(struct odb_interests *interests, int set, epoll_data_t data, struct odb_interest *out) {
    int found = 0;
    odb_lock_take(&interests->lock);
    for (struct odb_interest *at = *data_bucket(interests, set, data); at; at = at->next_of_data) {
        if (at->set != set || at->data.u64 != data.u64) continue;
        *out = *at;
        found++;
    }
    odb_lock_drop(&interests->lock);
    return found == 1;
}

bool odb_interest_has(struct odb_interests *interests, int set, int fd) {
    odb_lock_take(&interests->lock);
    bool has = find(interests, set, fd) != NULL;
    odb_lock_drop(&interests->lock);
    return has;
}

bool odb_interest_claim(struct odb_interests *interests, struct odb_interest *interest, bool injected) {
    odb_lock_take(&interests->lock);
    struct odb_interest *at = find(interests, interest->set, interest->fd);
    bool mine =
        at && !at->disarmed && (!injected || (at->events & (EPOLLIN | EPOLLONESHOT)) == (EPOLLIN | EPOLLONESHOT));
    if (mine && injected) {
        struct epoll_event nothing = {.events = EPOLLONESHOT, .data = at->data};
        odb_real.epoll_ctl(at->set, EPOLL_CTL_MOD, at->fd, &nothing);
    }
    if (mine) {
        at->disarmed = true;
        set_owed(interests, at, false);
        *interest = *at;
    }
    odb_lock_drop(&interests->lock);
    return mine;
}

void odb_interest_rearm(struct odb_interests *interests, const struct odb_interest *interest) {
    odb_lock_take(&interests->lock);
    struct odb_interest *at = find(interests, interest->set, interest->fd);
    if (at && !at->disarmed) {
        struct epoll_event event = {.events = at->events, .data = at->data};
        odb_real.epoll_ctl(at->set, EPOLL_CTL_MOD, at->fd, &event);
    }
    odb_lock_drop(&interests->lock);
}

void odb_interest_sleep(struct odb_interests *interests, int set) {
    if ((unsigned)set >= ODB_INTEREST_SETS) return;
    atomic_fetch_add(&interests->sleepers[(unsigned)set % ODB_INTEREST_BUCKETS], 1);
    add_waker(interests, set);
}

void odb_interest_wake(struct odb_interests *interests, int set) {
    if ((unsigned)set < ODB_INTEREST_SETS)
        atomic_fetch_sub(&interests->sleepers[(unsigned)set % ODB_INTEREST_BUCKETS], 1);
}
