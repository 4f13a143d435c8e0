/* faults.c: real calls that fail in the calling thread as its world_faults say. */
#include "faults.h"

#include "os/real.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>

_Thread_local struct world_faults world_faults;

static struct odb_real genuine;

static bool interrupted(void) {
    if (world_faults.interrupt == 0 || ++world_faults.calls % world_faults.interrupt != 0) return false;
    errno = EINTR;
    return true;
}

/* Counts down to the call that fails. */
static bool now(int *countdown) {
    if (*countdown == 0 || --*countdown > 0) return false;
    errno = ENOMEM;
    return true;
}

static ssize_t faulty_recv(int fd, void *buffer, size_t size, int flags) {
    if (interrupted()) return -1;
    if (world_faults.recv_max > 0 && size > world_faults.recv_max && !(flags & MSG_PEEK)) size = world_faults.recv_max;
    return genuine.recv(fd, buffer, size, flags);
}

static ssize_t faulty_send(int fd, const void *buffer, size_t size, int flags) {
    if (interrupted()) return -1;
    return genuine.send(fd, buffer, size, flags);
}

static ssize_t faulty_sendmsg(int fd, const struct msghdr *message, int flags) {
    struct iovec iov[128];
    struct msghdr shorter = *message;
    if (interrupted()) return -1;
    if (!world_faults.send_limited) return genuine.sendmsg(fd, message, flags);
    shorter.msg_iov = iov;
    shorter.msg_iovlen = 0;
    for (size_t i = 0; i < message->msg_iovlen && i < 128 && world_faults.send_budget > 0; i++) {
        size_t length = message->msg_iov[i].iov_len;
        length = length < world_faults.send_budget ? length : world_faults.send_budget;
        iov[shorter.msg_iovlen++] = (struct iovec){message->msg_iov[i].iov_base, length};
        world_faults.send_budget -= length;
    }
    if (shorter.msg_iovlen > 0) return genuine.sendmsg(fd, &shorter, flags);
    errno = EAGAIN;
    return -1;
}

static void *faulty_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return now(&world_faults.fail_mmap) ? MAP_FAILED : genuine.mmap(address, length, protection, flags, fd, offset);
}

static int faulty_mprotect(void *address, size_t length, int protection) {
    return now(&world_faults.fail_mprotect) ? -1 : genuine.mprotect(address, length, protection);
}

static void *faulty_mremap(void *address, size_t old_length, size_t new_length, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    void *target = va_arg(arguments, void *);
    va_end(arguments);
    return now(&world_faults.fail_mremap) ? MAP_FAILED : genuine.mremap(address, old_length, new_length, flags, target);
}

static void *faulty_malloc(size_t size) {
    return now(&world_faults.fail_malloc) ? NULL : genuine.malloc(size);
}

void faults_install(void) {
    genuine = odb_real;
    odb_real.recv = faulty_recv;
    odb_real.send = faulty_send;
    odb_real.sendmsg = faulty_sendmsg;
    odb_real.mmap = faulty_mmap;
    odb_real.mprotect = faulty_mprotect;
    odb_real.mremap = faulty_mremap;
    odb_real.malloc = faulty_malloc;
}

void faults_clear(void) {
    world_faults = (struct world_faults){0};
}
