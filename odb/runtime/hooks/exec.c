/* exec.c: hooks of the calls that end a program image, by starting another or by ending the process at once. Argument lists of the execl family are copied to the stack: a vfork child must not allocate. */
#include "core/handover.h"
#include "core/sharing.h"

#include "hooks/hook.h"

#include <alloca.h>
#include <stdarg.h>
#include <unistd.h>

static struct odb_runtime *before(void) {
    struct odb_runtime *runtime = odb_enter();
    int saved = errno;
    if (runtime) odb_handover_before_exec(runtime);
    if (runtime) odb_runtime_drain(runtime); /* nobody serves payloads after exec */
    if (runtime && !odb_runtime_is_foreign(runtime)) odb_sharing_before_end(&runtime->fds);
    errno = saved;
    return runtime;
}

static int failed(struct odb_runtime *runtime, int result) {
    int saved = errno;
    if (runtime) odb_handover_after_failed_exec(runtime);
    if (runtime && !odb_runtime_is_foreign(runtime)) odb_sharing_after_failed_exec(&runtime->fds);
    errno = saved;
    return result;
}

ODB_EXPORT int execve(const char *path, char *const arguments[], char *const environment[]) {
    struct odb_runtime *runtime = before();
    return failed(runtime, odb_real.execve(path, arguments, environment));
}

ODB_EXPORT int execv(const char *path, char *const arguments[]) {
    struct odb_runtime *runtime = before();
    return failed(runtime, odb_real.execv(path, arguments));
}

ODB_EXPORT int execvp(const char *file, char *const arguments[]) {
    struct odb_runtime *runtime = before();
    return failed(runtime, odb_real.execvp(file, arguments));
}

ODB_EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[]) {
    struct odb_runtime *runtime = before();
    return failed(runtime, odb_real.execvpe(file, arguments, environment));
}

ODB_EXPORT int fexecve(int fd, char *const arguments[], char *const environment[]) {
    struct odb_runtime *runtime = before();
    return failed(runtime, odb_real.fexecve(fd, arguments, environment));
}

ODB_EXPORT int execveat(int fd, const char *path, char *const arguments[], char *const environment[], int flags) {
    struct odb_runtime *runtime = before();
    return failed(runtime, odb_real.execveat(fd, path, arguments, environment, flags));
}

static size_t count_arguments(va_list list) {
    size_t count = 0;
    while (va_arg(list, const char *)) count++;
    return count;
}

/* The variable arguments behind `first` as a vector; afterwards `list` stands behind the terminating null. */
#define ODB_COLLECT(vector, first, list)                                                                               \
    va_list odb_counted;                                                                                               \
    va_start(list, first);                                                                                             \
    va_copy(odb_counted, list);                                                                                        \
    size_t odb_count = count_arguments(odb_counted);                                                                   \
    va_end(odb_counted);                                                                                               \
    char **vector = alloca((odb_count + 2) * sizeof *vector);                                                          \
    vector[0] = (char *)(uintptr_t)first;                                                                              \
    for (size_t odb_i = 1; odb_i <= odb_count + 1; odb_i++) vector[odb_i] = va_arg(list, char *)

ODB_EXPORT int execl(const char *path, const char *argument, ...) {
    va_list list;
    ODB_COLLECT(vector, argument, list);
    va_end(list);
    return execv(path, vector);
}

ODB_EXPORT int execlp(const char *file, const char *argument, ...) {
    va_list list;
    ODB_COLLECT(vector, argument, list);
    va_end(list);
    return execvp(file, vector);
}

ODB_EXPORT int execle(const char *path, const char *argument, ...) {
    va_list list;
    ODB_COLLECT(vector, argument, list);
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return execve(path, vector, environment);
}

/* Ends the process without running destructors: what they would do for us is done here. */
static void end(void) {
    struct odb_runtime *runtime = odb_enter();
    if (runtime) odb_runtime_end(runtime);
}

ODB_EXPORT void _exit(int status) {
    end();
    odb_real._exit(status);
    __builtin_unreachable();
}

ODB_EXPORT void _Exit(int status) {
    end();
    odb_real._exit(status);
    __builtin_unreachable();
}
