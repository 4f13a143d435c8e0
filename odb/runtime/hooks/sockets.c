/* sockets.c: hooks of the calls that make, duplicate and end descriptors. */
#include "core/outlet.h"
#include "core/sockets.h"
#include "core/sockopt.h"

#include "hooks/given.h"

#include <linux/close_range.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <sys/ioctl.h>

/* A number that is free for the kernel may be known to us as a stream that was closed where nobody saw it. */
static void fresh(struct odb_runtime *runtime, int fd) {
    if (fd >= 0 && !odb_runtime_is_foreign(runtime)) odb_forget_descriptor(runtime, fd);
}

ODB_EXPORT int socket(int domain, int type, int protocol) {
    struct odb_runtime *runtime = odb_enter();
    int fd = odb_real.socket(domain, type, protocol);
    if (runtime) fresh(runtime, fd);
    if (runtime && !odb_runtime_is_foreign(runtime)) odb_outlet_made(&runtime->fds, fd);
    return fd;
}

ODB_EXPORT int socketpair(int domain, int type, int protocol, int fds[2]) {
    struct odb_runtime *runtime = odb_enter();
    int result = odb_real.socketpair(domain, type, protocol, fds);
    if (runtime && result == 0) fresh(runtime, fds[0]), fresh(runtime, fds[1]);
    return result;
}

/* An address is ours to fill, and none is shorter than this: otherwise the kernel says what is wrong with it. */
static bool may_fill(struct sockaddr *address, const socklen_t *length) {
    if (!address || !length) return true;
    if (!odb_given_is_there(length, sizeof *length)) return false;
    size_t least = sizeof(struct sockaddr_in);
    return odb_careful_writable(address, *length < least ? *length : least) == 0;
}

ODB_EXPORT int accept(int fd, struct sockaddr *address, socklen_t *length) {
    struct odb_runtime *runtime = odb_enter();
    odb_given_address(runtime, address, length);
    return runtime && may_fill(address, length) ? ODB_KEEPING_ERRNO(odb_accept(runtime, fd, address, length, 0))
                                                : odb_real.accept(fd, address, length);
}

ODB_EXPORT int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    struct odb_runtime *runtime = odb_enter();
    odb_given_address(runtime, address, length);
    return runtime && may_fill(address, length) ? ODB_KEEPING_ERRNO(odb_accept(runtime, fd, address, length, flags))
                                                : odb_real.accept4(fd, address, length, flags);
}

ODB_EXPORT int connect(int fd, const struct sockaddr *address, socklen_t length) {
    struct odb_runtime *runtime = odb_enter();
    bool whole = length <= sizeof(struct sockaddr_storage) && odb_given_is_there(address, length);
    return runtime && whole ? ODB_KEEPING_ERRNO(odb_connect(runtime, fd, address, length))
                            : odb_real.connect(fd, address, length);
}

ODB_EXPORT int setsockopt(int fd, int level, int option, const void *value, socklen_t length) {
    struct odb_runtime *runtime = odb_enter();
    odb_given(runtime, value, length);
    if (runtime) odb_outlet_changed(&runtime->fds, fd);
    if (!runtime || !odb_sockopt_matters(runtime, fd, level) ||
        !odb_given_is_there(value, length < sizeof(int) ? length : sizeof(int)))
        return odb_real.setsockopt(fd, level, option, value, length);
    return ODB_KEEPING_ERRNO(odb_setsockopt(runtime, fd, level, option, value, length));
}

ODB_EXPORT int getsockopt(int fd, int level, int option, void *value, socklen_t *length) {
    struct odb_runtime *runtime = odb_enter_look(fd);
    odb_given_address(runtime, value, length);
    if (!runtime || !odb_fdtable_has(&runtime->fds, fd)) return odb_real.getsockopt(fd, level, option, value, length);
    return ODB_KEEPING_ERRNO(odb_getsockopt(runtime, fd, level, option, value, length));
}

ODB_EXPORT int listen(int fd, int backlog) {
    struct odb_runtime *runtime = odb_enter();
    return runtime ? ODB_KEEPING_ERRNO(odb_listening(runtime, fd, backlog)) : odb_real.listen(fd, backlog);
}

ODB_EXPORT int shutdown(int fd, int how) {
    struct odb_runtime *runtime = odb_enter();
    return runtime ? ODB_KEEPING_ERRNO(odb_shutdown(runtime, fd, how)) : odb_real.shutdown(fd, how);
}

ODB_EXPORT int close(int fd) {
    struct odb_runtime *runtime = odb_enter();
    return runtime ? ODB_KEEPING_ERRNO(odb_close(runtime, fd)) : odb_real.close(fd);
}

ODB_EXPORT int close_range(unsigned int first, unsigned int last, int flags) {
    struct odb_runtime *runtime = odb_enter();
    if (runtime) return ODB_KEEPING_ERRNO(odb_close_range(runtime, first, last, flags));
    if (odb_real.close_range) return odb_real.close_range(first, last, flags);
    errno = ENOSYS;
    return -1;
}

ODB_EXPORT void closefrom(int first) {
    struct odb_runtime *runtime = odb_enter();
    if (!runtime)
        odb_real.closefrom(first);
    else
        odb_close_range(runtime, first < 0 ? 0 : (unsigned)first, ~0u, 0);
}

ODB_EXPORT int dup(int fd) {
    struct odb_runtime *runtime = odb_enter();
    return runtime ? ODB_KEEPING_ERRNO(odb_duplicated(runtime, fd, odb_real.dup(fd))) : odb_real.dup(fd);
}

ODB_EXPORT int dup2(int from, int to) {
    struct odb_runtime *runtime = odb_enter();
    return runtime ? ODB_KEEPING_ERRNO(odb_dup2(runtime, from, to, -1)) : odb_real.dup2(from, to);
}

ODB_EXPORT int dup3(int from, int to, int flags) {
    struct odb_runtime *runtime = odb_enter();
    return runtime && flags >= 0 ? ODB_KEEPING_ERRNO(odb_dup2(runtime, from, to, flags))
                                 : odb_real.dup3(from, to, flags);
}

static int after_fcntl(int fd, int command, int result) {
    struct odb_runtime *runtime = odb_hook_runtime;
    if (runtime && command == F_SETFL) odb_outlet_changed(&runtime->fds, fd);
    bool duplicates = command == F_DUPFD || command == F_DUPFD_CLOEXEC;
    return runtime && duplicates ? odb_duplicated(runtime, fd, result) : result;
}

enum { ARGUMENT = 64 }; /* bytes of what an argument points to, if it is a pointer; most are smaller */

/* Every fcntl argument is an int or a pointer; both travel in one register-sized slot. */
ODB_EXPORT int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    odb_given(odb_enter(), argument, ARGUMENT);
    return after_fcntl(fd, command, odb_real.fcntl(fd, command, argument));
}

ODB_EXPORT int fcntl64(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    odb_given(odb_enter(), argument, ARGUMENT);
    return after_fcntl(fd, command, odb_real.fcntl64(fd, command, argument));
}

ODB_EXPORT int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    struct odb_runtime *runtime = request == FIONREAD ? odb_enter_receive(fd) : odb_enter();
    int saved = errno;
    odb_given(runtime, argument, _IOC_SIZE(request) > ARGUMENT ? _IOC_SIZE(request) : ARGUMENT);
    bool answered = runtime && request == FIONREAD && argument && odb_available(runtime, fd, argument);
    errno = saved;
    if (answered) return 0;
    if (runtime && request != FIONREAD) odb_outlet_changed(&runtime->fds, fd);
    return odb_real.ioctl(fd, request, argument);
}

ODB_ALIAS(close, __close);
ODB_ALIAS(connect, __connect);
ODB_ALIAS(dup2, __dup2);
ODB_ALIAS(fcntl, __fcntl);
