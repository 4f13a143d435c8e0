/* spawn.c: hooks of the calls by which libc itself forks: streams are handed over to the new image, and a parent that ends inside libc serves its payloads first. */
#include "core/handover.h"

#include "hooks/hook.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct odb_runtime *before(void) {
    struct odb_runtime *runtime = odb_enter();
    int saved = errno;
    if (runtime) odb_handover_before_spawn(runtime);
    errno = saved;
    return runtime;
}

static void take_back(struct odb_runtime *runtime) {
    int saved = errno;
    if (runtime) odb_handover_after_failed_exec(runtime);
    errno = saved;
}

ODB_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                           const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {
    struct odb_runtime *runtime = before();
    int error = odb_real.posix_spawn(pid, path, actions, attributes, arguments, environment);
    if (error) take_back(runtime);
    return error;
}

ODB_EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                            const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[]) {
    struct odb_runtime *runtime = before();
    int error = odb_real.posix_spawnp(pid, file, actions, attributes, arguments, environment);
    if (error) take_back(runtime);
    return error;
}

/* What is duplicated for the new image survives exec, whatever its flags say. */
ODB_EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int from, int to) {
    struct odb_runtime *runtime = odb_enter();
    int error = odb_real.posix_spawn_file_actions_adddup2(actions, from, to);
    if (runtime && !error) odb_handover_pass_on(runtime, from);
    return error;
}

ODB_EXPORT int system(const char *command) {
    struct odb_runtime *runtime = command ? before() : NULL;
    int status = odb_real.system(command);
    if (status == -1) take_back(runtime);
    return status;
}

ODB_EXPORT FILE *popen(const char *command, const char *mode) {
    struct odb_runtime *runtime = before();
    FILE *file = odb_real.popen(command, mode);
    if (!file) take_back(runtime);
    return file;
}

ODB_ALIAS(popen, _IO_popen);

/* The parent ends inside libc, where neither _exit nor a destructor is seen. */
ODB_EXPORT int daemon(int keep_directory, int keep_standard) {
    struct odb_runtime *runtime = odb_enter();
    int saved = errno;
    if (runtime) odb_runtime_drain(runtime);
    errno = saved;
    return odb_real.daemon(keep_directory, keep_standard);
}
