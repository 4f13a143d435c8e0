/* fdopen.c: hooks of stdio on descriptors. libc reads and writes by calls that nobody sees, so a FILE on a stream is one whose calls are ours (fopencookie), and what closes a descriptor inside libc is
 * told to the core before. Where nothing has been said on a stream it becomes an ordinary descriptor instead. */
#include "core/retire.h"
#include "core/sockets.h"

#include "hooks/hook.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A FILE whose calls are ours; its descriptor is remembered because libc knows of none. */
struct file {
    FILE *file;
    int fd;
    struct file *next;
};

static struct {
    struct odb_lock lock;
    struct file *first;
} files;

static ssize_t read_file(void *cookie, char *to, size_t size) {
    return read(((struct file *)cookie)->fd, to, size);
}

/* What stdio's writer expects of an error is 0. */
static ssize_t write_file(void *cookie, const char *bytes, size_t size) {
    ssize_t sent = write(((struct file *)cookie)->fd, bytes, size);
    return sent < 0 ? 0 : sent;
}

static int seek_file(void *cookie, off64_t *position, int whence) {
    off64_t now = lseek64(((struct file *)cookie)->fd, *position, whence);
    if (now < 0) return -1;
    *position = now;
    return 0;
}

static int close_file(void *cookie) {
    struct file *file = cookie, **at = &files.first;
    int fd = file->fd;
    odb_lock_take(&files.lock);
    while (*at && *at != file) at = &(*at)->next;
    if (*at) *at = file->next;
    odb_lock_drop(&files.lock);
    odb_real.free(file);
    return close(fd);
}

static FILE *open_on_stream(int fd, const char *mode) {
    struct file *file = odb_real.malloc(sizeof *file);
    if (!file) return NULL;
    *file = (struct file){.fd = fd};
    file->file = fopencookie(file, mode, (cookie_io_functions_t){read_file, write_file, seek_file, close_file});
    if (!file->file) {
        int error = errno;
        odb_real.free(file);
        errno = error;
        return NULL;
    }
    odb_lock_take(&files.lock);
    file->next = files.first;
    files.first = file;
    odb_lock_drop(&files.lock);
    return file->file;
}

static bool is_socket(int fd) {
    int type, saved = errno;
    socklen_t size = sizeof type;
    bool is = odb_real.getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
    errno = saved;
    return is;
}

ODB_EXPORT FILE *fdopen(int fd, const char *mode) {
    struct odb_runtime *runtime = odb_enter();
    if (runtime && is_socket(fd)) odb_gather_stop(runtime); /* libc may write to it at any time */
    if (!runtime || odb_retire(runtime, fd)) return odb_real.fdopen(fd, mode);
    return open_on_stream(fd, mode);
}

/* -1 with EBADF: it has none. */
static int descriptor_of(const FILE *wanted) {
    odb_lock_take(&files.lock);
    const struct file *at = files.first;
    while (at && at->file != wanted) at = at->next;
    int fd = at ? at->fd : -1;
    odb_lock_drop(&files.lock);
    if (fd < 0) errno = EBADF;
    return fd;
}

ODB_EXPORT int fileno(FILE *file) {
    odb_enter();
    int saved = errno, fd = odb_real.fileno(file);
    if (fd >= 0) return fd;
    errno = saved;
    return descriptor_of(file);
}

ODB_EXPORT int fileno_unlocked(FILE *file) {
    odb_enter();
    int saved = errno, fd = odb_real.fileno_unlocked(file);
    if (fd >= 0) return fd;
    errno = saved;
    return descriptor_of(file);
}

/* libc is about to close or replace the descriptor by itself. */
static void leaving(FILE *file) {
    struct odb_runtime *runtime = odb_enter();
    if (!runtime || !file || odb_runtime_is_foreign(runtime)) return;
    int saved = errno, fd = odb_real.fileno(file);
    odb_leave_descriptor(runtime, fd);
    errno = saved;
}

ODB_EXPORT int fclose(FILE *file) {
    leaving(file);
    return odb_real.fclose(file);
}

static int flags_of(const char *mode) {
    int flags = *mode == 'r' ? 0 : *mode == 'a' ? O_CREAT | O_APPEND : O_CREAT | O_TRUNC;
    flags |= strchr(mode, '+') ? O_RDWR : *mode == 'r' ? O_RDONLY : O_WRONLY;
    return flags | (strchr(mode, 'x') ? O_EXCL : 0) | (strchr(mode, 'e') ? O_CLOEXEC : 0);
}

/* libc cannot open a FILE of ours anew, so the descriptor under it is exchanged. Without a path only the mode would change: it stays. */
static FILE *exchange(const char *path, const char *mode, FILE *file, int fd) {
    if (!path) return file;
    int flags = flags_of(mode), opened = open(path, flags | O_CLOEXEC, 0666);
    fflush(file);
    __fpurge(file);
    clearerr(file);
    if (opened >= 0 && dup3(opened, fd, flags & O_CLOEXEC) == fd) {
        close(opened);
        return file;
    }
    int error = errno;
    if (opened >= 0) close(opened);
    fclose(file);
    errno = error;
    return NULL;
}

static FILE *reopen(const char *path, const char *mode, FILE *file,
                    FILE *(*real)(const char *path, const char *mode, FILE *file)) {
    int saved = errno, fd = descriptor_of(file);
    errno = saved;
    if (fd >= 0) return exchange(path, mode, file, fd);
    leaving(file);
    return real(path, mode, file);
}

ODB_EXPORT FILE *freopen(const char *path, const char *mode, FILE *file) {
    odb_enter();
    return reopen(path, mode, file, odb_real.freopen);
}

ODB_EXPORT FILE *freopen64(const char *path, const char *mode, FILE *file) {
    odb_enter();
    return reopen(path, mode, file, odb_real.freopen64);
}

ODB_ALIAS(fdopen, _IO_fdopen);
ODB_ALIAS(fclose, _IO_fclose);

/* dprintf writes by itself too. */
static int print(int fd, const char *format, va_list list) {
    char *text;
    int length = vasprintf(&text, format, list);
    if (length < 0) return -1;
    for (int done = 0; done < length;) {
        ssize_t sent = write(fd, text + done, (size_t)(length - done));
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) {
            length = -1;
            break;
        }
        done += (int)sent;
    }
    int saved = errno;
    free(text);
    errno = saved;
    return length;
}

static bool is_stream(int fd) {
    struct odb_runtime *runtime = odb_enter();
    return runtime && odb_fdtable_has(&runtime->fds, fd);
}

ODB_EXPORT int vdprintf(int fd, const char *format, va_list list) {
    return is_stream(fd) ? print(fd, format, list) : odb_real.vdprintf(fd, format, list);
}

ODB_EXPORT int __vdprintf_chk(int fd, int level, const char *format, va_list list) {
    return is_stream(fd) ? print(fd, format, list) : odb_real.__vdprintf_chk(fd, level, format, list);
}

ODB_EXPORT int dprintf(int fd, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int result = vdprintf(fd, format, list);
    va_end(list);
    return result;
}

ODB_EXPORT int __dprintf_chk(int fd, int level, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int result = __vdprintf_chk(fd, level, format, list);
    va_end(list);
    return result;
}
