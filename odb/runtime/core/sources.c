/* sources.c: the table of files that windows of reads stand for. */
#include "core/sources.h"

#include "core/store.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

enum { IDLE_MS = 1000 };

/* The number of a source's place is in the lowest bits of its id. */
static struct odb_source *place_of(const struct odb_sources *sources, uint64_t id) {
    return (struct odb_source *)(uintptr_t)&sources->source[id % ODB_SOURCES];
}

static uint64_t hold_known(struct odb_sources *sources, const struct odb_file_version *version) {
    for (uint32_t i = 0; i < ODB_SOURCES; i++) {
        struct odb_source *source = &sources->source[i];
        if (source->id != 0 && odb_file_version_equal(&source->version, version)) {
            source->references++;
            return source->id;
        }
    }
    return 0;
}

/* A free place, or that of the one that has been idle for longest, whose descriptor is to be closed then. */
static struct odb_source *free_place(struct odb_sources *sources, int *old) {
    struct odb_source *best = NULL;
    *old = -1;
    for (uint32_t i = 0; i < ODB_SOURCES; i++) {
        struct odb_source *source = &sources->source[i];
        if (source->id == 0) return source;
        if (source->references == 0 && (!best || source->idle_ms < best->idle_ms)) best = source;
    }
    if (best) *old = best->fd;
    return best;
}

/* File systems of this host that note every write through a descriptor. */
static bool keeps_time(int fd) {
    struct statfs system;
    if (fstatfs(fd, &system) != 0) return false;
    switch ((unsigned long)system.f_type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
        return true;
    default:
        return false;
    }
}

uint64_t odb_sources_take(struct odb_sources *sources, int fd, const struct odb_file_version *version) {
    odb_lock_take(&sources->lock);
    uint64_t id = hold_known(sources, version);
    odb_lock_drop(&sources->lock);
    if (id != 0) return id;
    int copy = keeps_time(fd) ? odb_real.fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1, old;
    copy = copy < 0 ? -1 : odb_fds_adopt(copy);
    if (copy < 0) return 0;
    odb_lock_take(&sources->lock);
    struct odb_source *source = free_place(sources, &old);
    if (source) {
        id = ++sources->made * ODB_SOURCES + (uint64_t)(source - sources->source);
        *source = (struct odb_source){.fd = copy, .version = *version, .id = id, .references = 1};
    }
    odb_lock_drop(&sources->lock);
    odb_fds_close(source ? old : copy);
    return id;
}

int odb_sources_hold(struct odb_sources *sources, uint64_t id, struct odb_file_version *version) {
    struct odb_source *source = place_of(sources, id);
    odb_lock_take(&sources->lock);
    int fd = source->id == id ? source->fd : -1;
    if (fd >= 0) source->references++, *version = source->version;
    odb_lock_drop(&sources->lock);
    return fd;
}

void odb_sources_let_go(struct odb_sources *sources, uint64_t id) {
    struct odb_source *source = place_of(sources, id);
    odb_lock_take(&sources->lock);
    if (--source->references == 0) source->idle_ms = odb_clock_ms();
    odb_lock_drop(&sources->lock);
}

static bool is_unchanged(const struct odb_source *source) {
    struct odb_file_version now;
    return odb_store_file_version(source->fd, &now) && odb_file_version_equal(&now, &source->version);
}

static int read_all(int fd, const struct iovec *iov, int count, uint64_t offset) {
    for (int i = 0; i < count; i++)
        for (size_t done = 0; done < iov[i].iov_len;) {
            ssize_t got =
                odb_real.pread64(fd, (char *)iov[i].iov_base + done, iov[i].iov_len - done, (off64_t)(offset + done));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return -errno;
            if (got == 0) return -ESTALE;
            done += (size_t)got;
            if (done == iov[i].iov_len) offset += done;
        }
    return 0;
}

/* The version is looked at afterwards: what had changed before or meanwhile shows. */
int odb_sources_read(const struct odb_sources *sources, const struct odb_span *span, const struct iovec *iov,
                     int count) {
    int saved = errno;
    const struct odb_source *source = place_of(sources, span->payload);
    int error = read_all(source->fd, iov, count, span->offset);
    if (!error && !is_unchanged(source)) error = -ESTALE;
    errno = saved;
    return error;
}

void odb_sources_reap(struct odb_sources *sources, uint64_t now_ms) {
    int fds[ODB_SOURCES], count = 0;
    odb_lock_take(&sources->lock);
    for (uint32_t i = 0; i < ODB_SOURCES; i++) {
        struct odb_source *source = &sources->source[i];
        if (source->id == 0 || source->references > 0 || source->idle_ms + IDLE_MS > now_ms) continue;
        fds[count++] = source->fd;
        source->id = 0;
    }
    odb_lock_drop(&sources->lock);
    while (count > 0) odb_fds_close(fds[--count]);
}
