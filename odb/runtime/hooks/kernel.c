/* kernel.c: hooks of the calls that hand a buffer of the program to the kernel without moving data of a descriptor that we know: what is guarded in it is made real
 * first. What cannot be fetched stays guarded, and the kernel says of it what it says of such memory. */
#include "hooks/hook.h"

static void make_real(uintptr_t buffer, size_t length) {
    struct odb_runtime *runtime = odb_enter();
    if (!runtime || !odb_windows_any(&runtime->windows) || length == 0) return;
    struct iovec range = {(void *)buffer, length};
    int saved = errno;
    odb_windows_materialise(&runtime->windows, &range, 1);
    errno = saved;
}

#define ODB_REAL_FIRST(type, name, parameters, arguments, buffer, length)                                              \
    ODB_EXPORT type name parameters {                                                                                  \
        make_real((uintptr_t)(buffer), length);                                                                        \
        return odb_real.name arguments;                                                                                \
    }

ODB_REAL_FIRST(ssize_t, readlink, (const char *path, char *buffer, size_t size), (path, buffer, size), buffer, size)
ODB_REAL_FIRST(ssize_t, readlinkat, (int directory, const char *path, char *buffer, size_t size),
               (directory, path, buffer, size), buffer, size)
ODB_REAL_FIRST(ssize_t, __readlink_chk, (const char *path, char *buffer, size_t size, size_t room),
               (path, buffer, size, room), buffer, size < room ? size : room)
ODB_REAL_FIRST(ssize_t, __readlinkat_chk, (int directory, const char *path, char *buffer, size_t size, size_t room),
               (directory, path, buffer, size, room), buffer, size < room ? size : room)
ODB_REAL_FIRST(ssize_t, getrandom, (void *buffer, size_t size, unsigned flags), (buffer, size, flags), buffer, size)
ODB_REAL_FIRST(int, getentropy, (void *buffer, size_t size), (buffer, size), buffer, size)
ODB_REAL_FIRST(ssize_t, getdents64, (int fd, void *buffer, size_t size), (fd, buffer, size), buffer, size)
ODB_REAL_FIRST(ssize_t, getxattr, (const char *path, const char *name, void *value, size_t size),
               (path, name, value, size), value, size)
ODB_REAL_FIRST(ssize_t, lgetxattr, (const char *path, const char *name, void *value, size_t size),
               (path, name, value, size), value, size)
ODB_REAL_FIRST(ssize_t, fgetxattr, (int fd, const char *name, void *value, size_t size), (fd, name, value, size), value,
               size)
ODB_REAL_FIRST(ssize_t, listxattr, (const char *path, char *list, size_t size), (path, list, size), list, size)
ODB_REAL_FIRST(ssize_t, llistxattr, (const char *path, char *list, size_t size), (path, list, size), list, size)
ODB_REAL_FIRST(ssize_t, flistxattr, (int fd, char *list, size_t size), (fd, list, size), list, size)
ODB_REAL_FIRST(int, setxattr, (const char *path, const char *name, const void *value, size_t size, int flags),
               (path, name, value, size, flags), value, size)
ODB_REAL_FIRST(int, lsetxattr, (const char *path, const char *name, const void *value, size_t size, int flags),
               (path, name, value, size, flags), value, size)
ODB_REAL_FIRST(int, fsetxattr, (int fd, const char *name, const void *value, size_t size, int flags),
               (fd, name, value, size, flags), value, size)
ODB_REAL_FIRST(int, msgsnd, (int queue, const void *message, size_t size, int flags), (queue, message, size, flags),
               message, sizeof(long) + size)
ODB_REAL_FIRST(ssize_t, msgrcv, (int queue, void *message, size_t size, long type, int flags),
               (queue, message, size, type, flags), message, sizeof(long) + size)
