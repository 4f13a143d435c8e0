/* syscall.c: hook of syscall(): numbers of calls that have a hook go to it, everything else passes with all six arguments. Of the routed calls those with masks take the kernel's, which is shorter
 * than libc's. */
#include "core/careful.h"
#include "core/fault.h"
#include "core/masks.h"

#include "hooks/hook.h"

#include <linux/aio_abi.h>
#include <stdarg.h>
#include <dirent.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KERNEL_MASK = 8 };

struct call {
    long number;
    long a, b, c, d, e, f;
};

#define INT(value) ((int)(value))
#define UNSIGNED(value) ((unsigned)(value))
#define SIZE(value) ((size_t)(value))
#define POINTER(value) ((void *)(value))

static const sigset_t *widened(const void *mask, sigset_t *copy) {
    if (!mask) return NULL;
    sigemptyset(copy);
    memcpy(copy, mask, KERNEL_MASK);
    return copy;
}

static bool data_in(const struct call *call, long *result) {
    switch (call->number) {
    case SYS_read:
        *result = read(INT(call->a), POINTER(call->b), SIZE(call->c));
        return true;
    case SYS_readv:
        *result = readv(INT(call->a), POINTER(call->b), INT(call->c));
        return true;
    case SYS_recvfrom:
        *result =
            recvfrom(INT(call->a), POINTER(call->b), SIZE(call->c), INT(call->d), POINTER(call->e), POINTER(call->f));
        return true;
    case SYS_recvmsg:
        *result = recvmsg(INT(call->a), POINTER(call->b), INT(call->c));
        return true;
    case SYS_recvmmsg:
        *result = recvmmsg(INT(call->a), POINTER(call->b), UNSIGNED(call->c), INT(call->d), POINTER(call->e));
        return true;
    case SYS_pread64:
        *result = pread64(INT(call->a), POINTER(call->b), SIZE(call->c), call->d);
        return true;
    case SYS_preadv:
        *result = preadv64(INT(call->a), POINTER(call->b), INT(call->c), call->d);
        return true;
    case SYS_preadv2:
        *result = preadv64v2(INT(call->a), POINTER(call->b), INT(call->c), call->d, INT(call->f));
        return true;
    default:
        return false;
    }
}

static bool data_out(const struct call *call, long *result) {
    switch (call->number) {
    case SYS_write:
        *result = write(INT(call->a), POINTER(call->b), SIZE(call->c));
        return true;
    case SYS_writev:
        *result = writev(INT(call->a), POINTER(call->b), INT(call->c));
        return true;
    case SYS_sendto:
        *result =
            sendto(INT(call->a), POINTER(call->b), SIZE(call->c), INT(call->d), POINTER(call->e), (socklen_t)call->f);
        return true;
    case SYS_sendmsg:
        *result = sendmsg(INT(call->a), POINTER(call->b), INT(call->c));
        return true;
    case SYS_sendmmsg:
        *result = sendmmsg(INT(call->a), POINTER(call->b), UNSIGNED(call->c), INT(call->d));
        return true;
    case SYS_sendfile:
        *result = sendfile64(INT(call->a), INT(call->b), POINTER(call->c), SIZE(call->d));
        return true;
    case SYS_splice:
        *result =
            splice(INT(call->a), POINTER(call->b), INT(call->c), POINTER(call->d), SIZE(call->e), UNSIGNED(call->f));
        return true;
    case SYS_vmsplice:
        *result = vmsplice(INT(call->a), POINTER(call->b), SIZE(call->c), UNSIGNED(call->d));
        return true;
    case SYS_pwrite64:
        *result = pwrite64(INT(call->a), POINTER(call->b), SIZE(call->c), call->d);
        return true;
    case SYS_pwritev:
        *result = pwritev64(INT(call->a), POINTER(call->b), INT(call->c), call->d);
        return true;
    case SYS_pwritev2:
        *result = pwritev64v2(INT(call->a), POINTER(call->b), INT(call->c), call->d, INT(call->f));
        return true;
    default:
        return false;
    }
}

static bool socket_life(const struct call *call, long *result) {
    switch (call->number) {
    case SYS_socket:
        *result = socket(INT(call->a), INT(call->b), INT(call->c));
        return true;
    case SYS_socketpair:
        *result = socketpair(INT(call->a), INT(call->b), INT(call->c), POINTER(call->d));
        return true;
    case SYS_accept:
        *result = accept(INT(call->a), POINTER(call->b), POINTER(call->c));
        return true;
    case SYS_accept4:
        *result = accept4(INT(call->a), POINTER(call->b), POINTER(call->c), INT(call->d));
        return true;
    case SYS_connect:
        *result = connect(INT(call->a), POINTER(call->b), (socklen_t)call->c);
        return true;
    case SYS_listen:
        *result = listen(INT(call->a), INT(call->b));
        return true;
    case SYS_setsockopt:
        *result = setsockopt(INT(call->a), INT(call->b), INT(call->c), POINTER(call->d), (socklen_t)call->e);
        return true;
    case SYS_getsockopt:
        *result = getsockopt(INT(call->a), INT(call->b), INT(call->c), POINTER(call->d), POINTER(call->e));
        return true;
    case SYS_shutdown:
        *result = shutdown(INT(call->a), INT(call->b));
        return true;
    case SYS_close:
        *result = close(INT(call->a));
        return true;
    case SYS_close_range:
        *result = close_range(UNSIGNED(call->a), UNSIGNED(call->b), INT(call->c));
        return true;
    case SYS_dup:
        *result = dup(INT(call->a));
        return true;
#ifdef SYS_dup2
    case SYS_dup2:
        *result = dup2(INT(call->a), INT(call->b));
        return true;
#endif
    case SYS_dup3:
        *result = dup3(INT(call->a), INT(call->b), INT(call->c));
        return true;
    case SYS_fcntl:
        *result = fcntl(INT(call->a), INT(call->b), POINTER(call->c));
        return true;
    case SYS_ioctl:
        *result = ioctl(INT(call->a), (unsigned long)call->b, POINTER(call->c));
        return true;
    default:
        return false;
    }
}

/* pselect6's last argument: a mask and its size. */
static const sigset_t *packed_mask(const void *packed, sigset_t *copy) {
    const void *mask = NULL;
    if (packed) memcpy(&mask, packed, sizeof mask);
    return widened(mask, copy);
}

static bool waiting(const struct call *call, long *result) {
    sigset_t mask;
    switch (call->number) {
    case SYS_epoll_ctl:
        *result = epoll_ctl(INT(call->a), INT(call->b), INT(call->c), POINTER(call->d));
        return true;
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
        *result = epoll_wait(INT(call->a), POINTER(call->b), INT(call->c), INT(call->d));
        return true;
    case SYS_poll:
        *result = poll(POINTER(call->a), (nfds_t)call->b, INT(call->c));
        return true;
    case SYS_select:
        *result = select(INT(call->a), POINTER(call->b), POINTER(call->c), POINTER(call->d), POINTER(call->e));
        return true;
#endif
    case SYS_epoll_pwait:
        *result =
            epoll_pwait(INT(call->a), POINTER(call->b), INT(call->c), INT(call->d), widened(POINTER(call->e), &mask));
        return true;
#ifdef SYS_epoll_pwait2
    case SYS_epoll_pwait2:
        *result = epoll_pwait2(INT(call->a), POINTER(call->b), INT(call->c), POINTER(call->d),
                               widened(POINTER(call->e), &mask));
        return true;
#endif
    case SYS_ppoll:
        *result = ppoll(POINTER(call->a), (nfds_t)call->b, POINTER(call->c), widened(POINTER(call->d), &mask));
        return true;
    case SYS_pselect6:
        *result = pselect(INT(call->a), POINTER(call->b), POINTER(call->c), POINTER(call->d), POINTER(call->e),
                          packed_mask(POINTER(call->f), &mask));
        return true;
    default:
        return false;
    }
}

static bool memory(const struct call *call, long *result) {
    switch (call->number) {
    case SYS_mmap:
        *result = (long)mmap64(POINTER(call->a), SIZE(call->b), INT(call->c), INT(call->d), INT(call->e), call->f);
        return true;
    case SYS_munmap:
        *result = munmap(POINTER(call->a), SIZE(call->b));
        return true;
    case SYS_mremap:
        *result = (long)mremap(POINTER(call->a), SIZE(call->b), SIZE(call->c), INT(call->d), POINTER(call->e));
        return true;
    case SYS_madvise:
        *result = madvise(POINTER(call->a), SIZE(call->b), INT(call->c));
        return true;
    case SYS_mprotect:
        *result = mprotect(POINTER(call->a), SIZE(call->b), INT(call->c));
        return true;
    default:
        return false;
    }
}

enum { RESTORER = 0x04000000 }; /* SA_RESTORER, which is libc's business */

/* The kernel's struct sigaction. */
struct kernel_action {
    void *handler;
    unsigned long flags;
    void *restorer;
    char mask[KERNEL_MASK];
};

static void from_kernel(const struct kernel_action *kernel, struct sigaction *action) {
    *action = (struct sigaction){.sa_handler = (sighandler_t)(uintptr_t)kernel->handler,
                                 .sa_flags = (int)(kernel->flags & ~(unsigned long)RESTORER)};
    widened(kernel->mask, &action->sa_mask);
}

static void to_kernel(const struct sigaction *action, struct kernel_action *kernel) {
    *kernel = (struct kernel_action){.handler = (void *)(uintptr_t)action->sa_handler,
                                     .flags = (unsigned long)action->sa_flags};
    memcpy(kernel->mask, &action->sa_mask, KERNEL_MASK);
}

/* SIGSEGV is ours; of the other signals only the mask concerns us. */
static long set_action(const struct call *call) {
    struct kernel_action *wanted = POINTER(call->b), *before = POINTER(call->c), open;
    struct sigaction action, old;
    if (INT(call->a) != SIGSEGV && INT(call->a) != SIGBUS) {
        if (!wanted) return odb_real.syscall(call->number, call->a, call->b, call->c, call->d);
        open = *wanted;
        open.mask[(SIGSEGV - 1) / 8] &= (char)~(1 << (SIGSEGV - 1) % 8);
        return odb_real.syscall(call->number, call->a, &open, call->c, call->d);
    }
    if (wanted) from_kernel(wanted, &action);
    if (odb_sigaction(INT(call->a), wanted ? &action : NULL, &old) != 0) return -1;
    if (before) to_kernel(&old, before);
    return 0;
}

static long set_mask(const struct call *call) {
    sigset_t set, old;
    const sigset_t *wanted = widened(POINTER(call->b), &set);
    sigemptyset(&old);
    if (sigprocmask(INT(call->a), wanted, &old) != 0) return -1;
    if (call->c) memcpy(POINTER(call->c), &old, KERNEL_MASK);
    return 0;
}

/* What is to be read and what is to be filled; if not, the kernel is the one to refuse. */
static bool are_there(const struct call *call, size_t length) {
    return (!call->b || odb_careful_readable(POINTER(call->b), length) == 0) &&
           (!call->c || odb_careful_writable(POINTER(call->c), length) == 0);
}

static bool signals(const struct call *call, long *result) {
    sigset_t mask;
    if (!odb_fault_installed()) return false;
    switch (call->number) {
    case SYS_rt_sigaction:
        if (call->d != KERNEL_MASK || !are_there(call, sizeof(struct kernel_action))) return false;
        *result = set_action(call);
        return true;
    case SYS_rt_sigprocmask:
        if (call->d != KERNEL_MASK || !are_there(call, KERNEL_MASK)) return false;
        *result = set_mask(call);
        return true;
    case SYS_rt_sigsuspend:
        if (call->b != KERNEL_MASK || odb_careful_readable(POINTER(call->a), KERNEL_MASK) != 0) return false;
        *result = sigsuspend(widened(POINTER(call->a), &mask));
        return true;
    default:
        return false;
    }
}

/* Linux's own asynchronous I/O works on files: the memory it is given has to be real, and a stream is no file. */
static bool submit(struct odb_runtime *runtime, const struct call *call, long *result) {
    struct iocb **requests = POINTER(call->c);
    for (long i = 0; i < call->b; i++) {
        const struct iocb *request = requests[i];
        bool vector = request->aio_lio_opcode == IOCB_CMD_PREADV || request->aio_lio_opcode == IOCB_CMD_PWRITEV;
        bool plain = request->aio_lio_opcode == IOCB_CMD_PREAD || request->aio_lio_opcode == IOCB_CMD_PWRITE;
        if (!vector && !plain) continue;
        bool stream = odb_fdtable_has(&runtime->fds, (int)request->aio_fildes);
        struct iovec range = {POINTER(request->aio_buf), SIZE(request->aio_nbytes)};
        const struct iovec *ranges = vector ? range.iov_base : &range;
        if (!stream && odb_windows_materialise(&runtime->windows, ranges, vector ? INT(request->aio_nbytes) : 1) == 0)
            continue;
        errno = stream ? EINVAL : EIO;
        *result = -1;
        return true;
    }
    return false;
}

static bool others(struct odb_runtime *runtime, const struct call *call, long *result) {
    switch (call->number) {
    case SYS_execve:
        *result = execve(POINTER(call->a), POINTER(call->b), POINTER(call->c));
        return true;
    case SYS_execveat:
        *result = execveat(INT(call->a), POINTER(call->b), POINTER(call->c), POINTER(call->d), INT(call->e));
        return true;
    case SYS_exit_group:
        _exit(INT(call->a));
    case SYS_io_submit:
        return submit(runtime, call, result);
#ifdef SYS_io_uring_setup
    /* A ring reads and writes behind everybody's back: it is not there, as in many containers. */
    case SYS_io_uring_setup:
        errno = ENOSYS;
        *result = -1;
        return true;
#endif
    default:
        return false;
    }
}

static bool buffers(const struct call *call, long *result) {
    switch (call->number) {
    case SYS_getrandom:
        *result = getrandom(POINTER(call->a), SIZE(call->b), UNSIGNED(call->c));
        return true;
    case SYS_getdents64:
        *result = getdents64(INT(call->a), POINTER(call->b), SIZE(call->c));
        return true;
    case SYS_readlinkat:
        *result = readlinkat(INT(call->a), POINTER(call->b), POINTER(call->c), SIZE(call->d));
        return true;
    case SYS_mlock:
        *result = mlock(POINTER(call->a), SIZE(call->b));
        return true;
    default:
        return false;
    }
}

static bool routed(struct odb_runtime *runtime, const struct call *call, long *result) {
    return data_in(call, result) || data_out(call, result) || socket_life(call, result) || waiting(call, result) ||
           memory(call, result) || buffers(call, result) || signals(call, result) || others(runtime, call, result);
}

ODB_EXPORT long syscall(long number, ...) {
    struct call call = {.number = number};
    va_list arguments;
    va_start(arguments, number);
    call.a = va_arg(arguments, long);
    call.b = va_arg(arguments, long);
    call.c = va_arg(arguments, long);
    call.d = va_arg(arguments, long);
    call.e = va_arg(arguments, long);
    call.f = va_arg(arguments, long);
    va_end(arguments);
    struct odb_runtime *runtime = odb_enter();
    long result;
    if (runtime && routed(runtime, &call, &result)) return result;
    return odb_real.syscall(number, call.a, call.b, call.c, call.d, call.e, call.f);
}
