/* driver.c: the helper thread and its event loop. */
#include "core/driver.h"

#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"
#include "os/thread.h"

#include <errno.h>
#include <sys/eventfd.h>

enum { BATCH = 64, TICK_MS = 1000 };

/* The events being delivered; only the helper thread touches it. */
struct batch {
    struct epoll_event events[BATCH];
    int count;
    int next;
};

static _Thread_local struct batch *current;

static void run_ticks(struct odb_driver *driver, uint64_t now) {
    odb_lock_take(&driver->lock);
    struct odb_tick *tick = driver->ticks;
    odb_lock_drop(&driver->lock);
    for (; tick; tick = tick->next) tick->run(tick, now); /* ticks are only ever put in front */
}

static bool has_ticks(struct odb_driver *driver) {
    odb_lock_take(&driver->lock);
    bool has = driver->ticks != NULL;
    odb_lock_drop(&driver->lock);
    return has;
}

static void deliver(struct odb_driver *driver, struct batch *batch) {
    while (batch->next < batch->count) {
        struct epoll_event event = batch->events[batch->next++];
        struct odb_watch *watch = event.data.ptr;
        uint64_t wakeups;
        if (watch) {
            watch->ready(watch, event.events);
        } else if (odb_real.read(driver->wakeup, &wakeups, sizeof wakeups) < 0) {
            continue; /* somebody else's wake-up was already taken */
        }
    }
}

static void *run(void *argument) {
    struct odb_driver *driver = argument;
    struct batch batch;
    uint64_t next_tick = odb_clock_ms() + TICK_MS;
    current = &batch;
    for (;;) {
        uint64_t now = odb_clock_ms();
        if (now >= next_tick) {
            run_ticks(driver, now);
            next_tick = now + TICK_MS;
        }
        int timeout = has_ticks(driver) ? (int)(next_tick - now) : -1;
        batch.next = 0;
        batch.count = odb_real.epoll_wait(driver->set, batch.events, BATCH, timeout);
        if (batch.count < 0 && errno != EINTR) return NULL;
        atomic_load(&driver->additions); /* what was written into a watch before it was added is seen from here on */
        deliver(driver, &batch);
    }
}

static bool open_descriptors(struct odb_driver *driver) {
    driver->set = odb_fds_adopt(epoll_create1(EPOLL_CLOEXEC));
    driver->wakeup = odb_fds_adopt(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (driver->set >= 0 && driver->wakeup >= 0 &&
        odb_real.epoll_ctl(driver->set, EPOLL_CTL_ADD, driver->wakeup, &event) == 0)
        return true;
    odb_fds_close(driver->set);
    odb_fds_close(driver->wakeup);
    return false;
}

bool odb_driver_start(struct odb_driver *driver) {
    if (atomic_load_explicit(&driver->running, memory_order_acquire)) return true;
    odb_lock_take(&driver->lock);
    bool running = atomic_load(&driver->running);
    if (!running && open_descriptors(driver)) {
        running = odb_thread_start(run, driver);
        if (!running) {
            odb_fds_close(driver->set);
            odb_fds_close(driver->wakeup);
        }
        atomic_store_explicit(&driver->running, running, memory_order_release);
    }
    odb_lock_drop(&driver->lock);
    return running;
}

static bool control(struct odb_driver *driver, int operation, struct odb_watch *watch, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return odb_real.epoll_ctl(driver->set, operation, watch->fd, &event) == 0;
}

bool odb_driver_add(struct odb_driver *driver, struct odb_watch *watch, uint32_t events) {
    atomic_fetch_add(&driver->additions, 1);
    return control(driver, EPOLL_CTL_ADD, watch, events);
}

bool odb_driver_change(struct odb_driver *driver, struct odb_watch *watch, uint32_t events) {
    return control(driver, EPOLL_CTL_MOD, watch, events);
}

void odb_driver_remove(struct odb_driver *driver, struct odb_watch *watch) {
    control(driver, EPOLL_CTL_DEL, watch, 0);
    if (!current) return;
    for (int i = current->next; i < current->count;) {
        if (current->events[i].data.ptr == watch)
            current->events[i] = current->events[--current->count];
        else
            i++;
    }
}

void odb_driver_add_tick(struct odb_driver *driver, struct odb_tick *tick) {
    odb_lock_take(&driver->lock);
    tick->next = driver->ticks;
    driver->ticks = tick;
    odb_lock_drop(&driver->lock);
    uint64_t one = 1;
    if (atomic_load(&driver->running) && odb_real.write(driver->wakeup, &one, sizeof one) < 0)
        return; /* a full counter wakes it just as well */
}

void odb_driver_after_fork_child(struct odb_driver *driver) {
    odb_lock_reset(&driver->lock);
    if (atomic_exchange(&driver->running, false)) {
        odb_fds_close(driver->set);
        odb_fds_close(driver->wakeup);
    }
    driver->ticks = NULL;
}
