/* driver.h: the helper thread of a process, which moves what the application's own calls cannot.
 *
 * It owns one epoll set: the channel listener and the channels that the origin serves, and outboxes whose socket was full. It is started on first need,
 * never before, and not inherited over fork (the child starts its own). All callbacks run in that thread, one at a time, and must not block.
 */
#ifndef ODB_CORE_DRIVER_H
#define ODB_CORE_DRIVER_H

#include "os/lock.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct odb_driver;

/* Embedded in what is watched; must stay valid until removed (from the callback itself or with the driver's lock-free odb_driver_remove in that thread). */
struct odb_watch {
    int fd;
    void (*ready)(struct odb_watch *watch, uint32_t events);
};

/* Something to do every now and then: reapers. Runs in the helper thread about every `period_ms`. */
struct odb_tick {
    void (*run)(struct odb_tick *tick, uint64_t now_ms);
    struct odb_tick *next;
};

struct odb_driver {
    struct odb_lock lock;
    _Atomic bool running;
    int set;    /* epoll */
    int wakeup; /* eventfd */
    struct odb_tick *ticks;
    _Atomic unsigned additions; /* of watches; the kernel hands them over, but the language does not know that */
};

/* Starts the thread if it is not running; false when it cannot be had. Thread-safe. */
bool odb_driver_start(struct odb_driver *driver);
/* Level-triggered interest; `events` are EPOLL*. From any thread. */
bool odb_driver_add(struct odb_driver *driver, struct odb_watch *watch, uint32_t events);
bool odb_driver_change(struct odb_driver *driver, struct odb_watch *watch, uint32_t events);
/* Only in the helper thread. Events already collected for a removed watch are not delivered. */
void odb_driver_remove(struct odb_driver *driver, struct odb_watch *watch);
void odb_driver_add_tick(struct odb_driver *driver, struct odb_tick *tick);
/* In the child after fork: forgets the thread, closes the inherited descriptors. Watches and ticks are forgotten too. */
void odb_driver_after_fork_child(struct odb_driver *driver);

#endif
