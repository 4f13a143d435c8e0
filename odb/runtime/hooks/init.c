/* init.c: the library's life in a process: reads the options, builds the runtime, follows fork, drains at exit. The only file that keeps the runtime's address and
 * reads the environment. */
#include "core/handover.h"
#include "hooks/hook.h"
#include "include/odb.h"

#include <stdlib.h>
#include <unistd.h>

enum { OPTIONS_MAX = 64 * 1024 };

struct odb_runtime *odb_hook_runtime;

static struct odb_runtime runtime;

void odb_hook_load(void) {
    odb_real_load();
}

/* 0; the number of the first line that this library does not take; or -1 for no file. The options are then not to be used. */
static int read_options(struct odb_options *options, const char *path) {
    static char text[OPTIONS_MAX];
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return -1;
    size_t length = 0;
    ssize_t got;
    while (length < OPTIONS_MAX - 1 && (got = odb_real.read(fd, text + length, OPTIONS_MAX - 1 - length)) > 0)
        length += (size_t)got;
    odb_real.close(fd);
    text[length] = '\0';
    odb_options_default(options);
    return length > 0 ? odb_options_parse(options, text) : -1;
}

ODB_API int odb_check_options(const char *path) {
    static struct odb_options scratch;
    if (!odb_real.read) odb_real_load();
    return read_options(&scratch, path);
}

static void before_fork(void) {
    odb_runtime_before_fork(&runtime);
}

static void after_fork_parent(void) {
    odb_runtime_after_fork_parent(&runtime);
}

static void after_fork_child(void) {
    odb_runtime_after_fork_child(&runtime);
}

__attribute__((destructor(101))) static void finish(void) {
    if (odb_hook_runtime) odb_runtime_end(&runtime);
}

/* The C library's heap sets itself up in its first call, which must not be made by two threads at once. Where another heap is in front of it, a sanitizer's
 * for one, that call is one of ours. */
static bool wake_heap(void) {
    odb_real.free(odb_real.malloc(1));
    return true;
}

__attribute__((constructor(101))) static void start(void) {
    int saved = errno;
    if (odb_real_load() && read_options(&runtime.options, getenv("ODB_OPTIONS")) == 0 &&
        (runtime.options.mode != ODB_MODE_OFF || runtime.options.align) && wake_heap() && odb_runtime_init(&runtime)) {
        at_quick_exit(finish);
        pthread_atfork(before_fork, after_fork_parent, after_fork_child);
        odb_hook_runtime = &runtime;
        if (runtime.options.mode != ODB_MODE_OFF) odb_handover_take_inherited(&runtime);
    }
    errno = saved;
}
