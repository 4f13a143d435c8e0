/* files.c: hooks of positioned file calls: guarded memory concerns us there, and large reads. */
#include "core/reads.h"
#include "core/transfer.h"

#include "hooks/given.h"

static ssize_t read_at(struct odb_runtime *runtime, int fd, void *buffer, size_t size, off64_t offset) {
    struct iovec iov = {buffer, size};
    return ODB_KEEPING_ERRNO(odb_preadv(runtime, fd, &iov, 1, offset));
}

static ssize_t write_at(struct odb_runtime *runtime, int fd, const void *buffer, size_t size, off64_t offset) {
    struct iovec iov = {(void *)(uintptr_t)buffer, size};
    return ODB_KEEPING_ERRNO(odb_pwritev(runtime, fd, &iov, 1, offset));
}

static bool guarded(const struct odb_runtime *runtime) {
    return runtime && odb_windows_any(&runtime->windows);
}

/* Does a read into this memory need more than the kernel? */
static bool reads(struct odb_runtime *runtime, size_t size) {
    return runtime && (odb_windows_any(&runtime->windows) || odb_reads_may(runtime, size));
}

ODB_EXPORT ssize_t pread(int fd, void *buffer, size_t size, off_t offset) {
    struct odb_runtime *runtime = odb_enter();
    return reads(runtime, size) ? read_at(runtime, fd, buffer, size, offset) : odb_real.pread(fd, buffer, size, offset);
}

ODB_EXPORT ssize_t pread64(int fd, void *buffer, size_t size, off64_t offset) {
    struct odb_runtime *runtime = odb_enter();
    return reads(runtime, size) ? read_at(runtime, fd, buffer, size, offset)
                                : odb_real.pread64(fd, buffer, size, offset);
}

ODB_EXPORT ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room) {
    struct odb_runtime *runtime = odb_enter();
    if (!reads(runtime, size) || size > room) return odb_real.__pread_chk(fd, buffer, size, offset, room);
    return read_at(runtime, fd, buffer, size, offset);
}

ODB_EXPORT ssize_t __pread64_chk(int fd, void *buffer, size_t size, off64_t offset, size_t room) {
    struct odb_runtime *runtime = odb_enter();
    if (!reads(runtime, size) || size > room) return odb_real.__pread64_chk(fd, buffer, size, offset, room);
    return read_at(runtime, fd, buffer, size, offset);
}

ODB_EXPORT ssize_t preadv(int fd, const struct iovec *iov, int count, off_t offset) {
    struct odb_runtime *runtime = odb_enter();
    if (!reads(runtime, SIZE_MAX) || !odb_given_vector(iov, count)) return odb_real.preadv(fd, iov, count, offset);
    return ODB_KEEPING_ERRNO(odb_preadv(runtime, fd, iov, count, offset));
}

ODB_EXPORT ssize_t preadv64(int fd, const struct iovec *iov, int count, off64_t offset) {
    struct odb_runtime *runtime = odb_enter();
    if (!reads(runtime, SIZE_MAX) || !odb_given_vector(iov, count)) return odb_real.preadv64(fd, iov, count, offset);
    return ODB_KEEPING_ERRNO(odb_preadv(runtime, fd, iov, count, offset));
}

ODB_EXPORT ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) ? write_at(runtime, fd, buffer, size, offset) : odb_real.pwrite(fd, buffer, size, offset);
}

ODB_EXPORT ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t offset) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) ? write_at(runtime, fd, buffer, size, offset) : odb_real.pwrite64(fd, buffer, size, offset);
}

ODB_EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset) {
    struct odb_runtime *runtime = odb_enter();
    if (!guarded(runtime) || !odb_given_vector(iov, count)) return odb_real.pwritev(fd, iov, count, offset);
    return ODB_KEEPING_ERRNO(odb_pwritev(runtime, fd, iov, count, offset));
}

ODB_EXPORT ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t offset) {
    struct odb_runtime *runtime = odb_enter();
    if (!guarded(runtime) || !odb_given_vector(iov, count)) return odb_real.pwritev64(fd, iov, count, offset);
    return ODB_KEEPING_ERRNO(odb_pwritev(runtime, fd, iov, count, offset));
}

static int missing(void) {
    errno = ENOSYS;
    return -1;
}

static bool concerns(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count) {
    return runtime && odb_transfer_matters(runtime, fd) && odb_given_vector(iov, count);
}

ODB_EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags) {
    struct odb_runtime *runtime = odb_enter();
    if (!odb_real.preadv2) return missing();
    if (!concerns(runtime, fd, iov, count)) return odb_real.preadv2(fd, iov, count, offset, flags);
    return ODB_KEEPING_ERRNO(odb_preadv2(runtime, fd, iov, count, offset, flags));
}

ODB_EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags) {
    return preadv2(fd, iov, count, offset, flags);
}

ODB_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags) {
    struct odb_runtime *runtime = odb_enter();
    if (!odb_real.pwritev2) return missing();
    if (!concerns(runtime, fd, iov, count)) return odb_real.pwritev2(fd, iov, count, offset, flags);
    return ODB_KEEPING_ERRNO(odb_pwritev2(runtime, fd, iov, count, offset, flags));
}

ODB_EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags) {
    return pwritev2(fd, iov, count, offset, flags);
}

ODB_ALIAS(pread64, __pread64);
ODB_ALIAS(pwrite64, __pwrite64);
