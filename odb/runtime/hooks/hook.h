/* hook.h: what every exported function begins with. */
#ifndef ODB_HOOKS_HOOK_H
#define ODB_HOOKS_HOOK_H

#include "core/runtime.h"
#include "os/real.h"

#include <errno.h>
#include <limits.h>

#define ODB_EXPORT __attribute__((visibility("default")))

/* One more exported name for a hook of the same file, as libc has them. */
#if __has_attribute(copy)
#define ODB_ALIAS(name, other) ODB_EXPORT extern __typeof__(name) other __attribute__((alias(#name), copy(name)))
#else
#define ODB_ALIAS(name, other) ODB_EXPORT extern __typeof__(name) other __attribute__((alias(#name)))
#endif

extern struct odb_runtime *odb_hook_runtime; /* null: classic */

/* The first call of a process may come before our constructor. */
void odb_hook_load(void);

/* The runtime, or null when this call is to go straight to libc. Afterwards odb_real is filled. This is for calls that send, receive and wait for events; they look after what is gathered by themselves. */
static inline struct odb_runtime *odb_enter_transfer(void) {
    if (__builtin_expect(!odb_real.mprotect, 0)) odb_hook_load();
    return odb_hook_runtime;
}

/* The same for all other calls: they meet every connection with all bytes that the program has sent on it. */
static inline struct odb_runtime *odb_enter(void) {
    struct odb_runtime *runtime = odb_enter_transfer();
    if (runtime && __builtin_expect(odb_gather_any(&runtime->gather), 0)) odb_gather_flush(runtime);
    return runtime;
}

static inline struct odb_runtime *odb_enter_receive(int fd) {
    struct odb_runtime *runtime = odb_enter_transfer();
    if (runtime && __builtin_expect(odb_gather_minds_receive(&runtime->gather, fd), 0)) odb_gather_receive(runtime, fd);
    return runtime;
}

static inline struct odb_runtime *odb_enter_send(int fd) {
    struct odb_runtime *runtime = odb_enter_transfer();
    if (runtime && __builtin_expect(odb_gather_minds_send(&runtime->gather, fd), 0)) odb_gather_resume(runtime, fd);
    return runtime;
}

/* Calls that tell something of one descriptor. */
static inline struct odb_runtime *odb_enter_look(int fd) {
    struct odb_runtime *runtime = odb_enter_transfer();
    if (runtime && __builtin_expect(odb_gather_any(&runtime->gather), 0)) odb_gather_look(runtime, fd);
    return runtime;
}

/* A call that succeeds leaves errno as it was. */
#define ODB_KEEPING_ERRNO(call)                                                                                        \
    ({                                                                                                                 \
        int odb_saved_errno = errno;                                                                                   \
        __auto_type odb_result = (call);                                                                               \
        if (odb_result >= 0) errno = odb_saved_errno;                                                                  \
        odb_result;                                                                                                    \
    })

#endif
