/* runtime.h: the one object that holds everything a process knows about ODB. It is passed explicitly; only hooks/init.c keeps a pointer to it. */
#ifndef ODB_CORE_RUNTIME_H
#define ODB_CORE_RUNTIME_H

#include "core/answerer.h"
#include "core/arena.h"
#include "core/asker.h"
#include "core/channel.h"
#include "core/detect.h"
#include "core/driver.h"
#include "core/fdtable.h"
#include "core/gather.h"
#include "core/hold.h"
#include "core/interest.h"
#include "core/listeners.h"
#include "core/options.h"
#include "core/origin.h"
#include "core/stats.h"
#include "core/store.h"
#include "core/unreachable.h"
#include "core/windows.h"

#include <sys/types.h>

struct odb_runtime {
    struct odb_options options; /* immutable after odb_runtime_init */
    struct odb_stats stats;
    struct odb_driver driver;
    struct odb_fdtable fds;
    struct odb_holds holds;
    struct odb_gather gather;
    struct odb_interests interests;
    struct odb_windows windows;
    struct odb_channels channels;
    struct odb_unreachable spoilt_peers; /* whose streams carry spans of origins that are out of reach */
    struct odb_store store;
    struct odb_origin_server origin;
    struct odb_undecided undecided;
    struct odb_listeners listeners;
    struct odb_asker asker;
    struct odb_answerer answerer;
    struct odb_arena *arena; /* null: heap blocks come from libc */
    uintptr_t heap_start;    /* libc's own heap begins here or before */
    struct odb_tick reaper;
    struct {
        _Atomic bool low_water, zerocopy, send_buffer;
    } sockopts; /* has the process ever set SO_RCVLOWAT, SO_ZEROCOPY, SO_SNDBUF on a socket that was no stream? */
    pid_t pid;  /* differs from getpid() in a vfork child, which must leave our state alone */
};

/* Builds the runtime from options that are already set. False: not enough address space; the process stays classic. */
bool odb_runtime_init(struct odb_runtime *runtime);

/* Before a process or its program image ends: waits, drain_ms at most, until parked bytes have left and announced payloads have been fetched. */
void odb_runtime_drain(struct odb_runtime *runtime);
/* Before a process ends: drains and removes the statistics page. */
void odb_runtime_end(struct odb_runtime *runtime);

void odb_runtime_before_fork(struct odb_runtime *runtime);
void odb_runtime_after_fork_parent(struct odb_runtime *runtime);
void odb_runtime_after_fork_child(struct odb_runtime *runtime);

/* In a vfork child, which shares our memory but has descriptors of its own, and in a child that has a copy of our memory but ran no handlers of pthread_atfork. */
bool odb_runtime_is_foreign(const struct odb_runtime *runtime);

#endif
