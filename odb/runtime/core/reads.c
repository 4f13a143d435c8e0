/* reads.c: which reads become windows, and how they look to the caller. */
#include "core/reads.h"

#include "core/heap.h"
#include "os/clock.h"
#include "os/real.h"

#include <errno.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST = 0x7ffff000,
    KEPT_MS = 4000 /* the keeper makes an untouched window real after a quarter of this */
};

struct range {
    int fd;
    uint64_t offset;
    size_t length;
    uint64_t size; /* of the file */
    uint64_t source;
};

/* The whole pages of a piece of the buffer. False: not enough of them to become a window. */
static bool pages_of(const struct odb_runtime *runtime, const struct iovec *piece, size_t length, struct iovec *pages) {
    uintptr_t start = (uintptr_t)piece->iov_base, first = odb_page_up(start), last = odb_page_down(start + length);
    *pages = (struct iovec){(void *)first, last > first ? last - first : 0};
    return pages->iov_len >= runtime->options.virtual_min &&
           odb_heap_is_block(runtime, pages->iov_base, pages->iov_len);
}

static bool has_pages(const struct odb_runtime *runtime, const struct iovec *iov, int count, size_t length) {
    struct iovec pages;
    for (int i = 0; i < count && length > 0; i++) {
        size_t part = iov[i].iov_len < length ? iov[i].iov_len : length;
        if (!pages_of(runtime, &iov[i], part, &pages)) return false;
        length -= part;
    }
    return true;
}

static bool is_old(const struct timespec *change, const struct timespec *now, uint64_t age_ms) {
    int64_t age = ((int64_t)now->tv_sec - change->tv_sec) * 1000 + (now->tv_nsec - change->tv_nsec) / 1000000;
    return age >= (int64_t)age_ms;
}

/* The time of the last change of attributes as well: times of modification can be set. */
static bool is_settled(const struct odb_options *options, const struct stat *status) {
    struct timespec now;
    return clock_gettime(CLOCK_REALTIME, &now) == 0 && is_old(&status->st_mtim, &now, options->settled_ms) &&
           is_old(&status->st_ctim, &now, options->settled_ms);
}

static bool is_plain_reader(int fd) {
    int flags = odb_real.fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & (O_ACCMODE | O_DIRECT | O_PATH)) == O_RDONLY;
}

static size_t iov_length(const struct iovec *iov, int count) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += iov[i].iov_len;
    return total;
}

/* What lies behind the end of the file is not read, and never more than the kernel would in one call. */
static void clip(struct range *range) {
    uint64_t left = range->offset < range->size ? range->size - range->offset : 0;
    if (range->length > left) range->length = (size_t)left;
    if (range->length > MOST) range->length = MOST;
}

/* What the kernel would read, if it is to be taken. `offset` is where the read is expected to begin. */
static bool choose(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, uint64_t offset,
                   struct range *range) {
    struct stat status;
    struct odb_file_version version;
    if (!is_plain_reader(fd) || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size < 0 ||
        offset >= (uint64_t)status.st_size || !is_settled(&runtime->options, &status))
        return false;
    *range =
        (struct range){.fd = fd, .offset = offset, .length = iov_length(iov, count), .size = (uint64_t)status.st_size};
    clip(range);
    if (!has_pages(runtime, iov, count, range->length) || odb_delivery_fetches(&runtime->windows.reads, range->length))
        return false;
    odb_file_version_of(&status, &version);
    range->source = odb_sources_take(&runtime->windows.sources, fd, &version);
    return range->source != 0;
}

static ssize_t read_real(struct odb_runtime *runtime, const struct range *range, size_t done, void *to, size_t length) {
    if (length == 0) return 0;
    int error = odb_windows_overwrite(&runtime->windows, to, length);
    if (error) return error;
    ssize_t got = odb_real.pread64(range->fd, to, length, (off64_t)(range->offset + done));
    return got < 0 ? -errno : got;
}

static int map(struct odb_runtime *runtime, const struct range *range, size_t done, const struct iovec *pages) {
    struct odb_span span = {.payload = range->source,
                            .offset = range->offset + done,
                            .length = pages->iov_len,
                            .expires_ms = odb_clock_ms() + KEPT_MS};
    return odb_windows_map(&runtime->windows, pages->iov_base, pages->iov_len, &span);
}

/* One piece of the buffer: head, window, tail. Bytes read, fewer than `length` when the file has become shorter, or a negative errno. */
static ssize_t fill(struct odb_runtime *runtime, const struct range *range, size_t done, const struct iovec *piece,
                    size_t length) {
    struct iovec pages;
    char *to = piece->iov_base;
    if (!pages_of(runtime, piece, length, &pages)) return read_real(runtime, range, done, to, length);
    size_t head = (size_t)((char *)pages.iov_base - to), body = head + pages.iov_len;
    ssize_t got = read_real(runtime, range, done, to, head);
    if (got < 0 || (size_t)got < head) return got;
    if (map(runtime, range, done + head, &pages) != 0) {
        odb_count(&runtime->stats, ODB_STAT_fallback_guard_failed, 1);
        got = read_real(runtime, range, done + head, to + head, length - head);
        return got < 0 ? got : (ssize_t)head + got;
    }
    odb_count(&runtime->stats, ODB_STAT_reads_mapped, 1);
    got = read_real(runtime, range, done + body, to + body, length - body);
    return (ssize_t)body + (got > 0 ? got : 0);
}

static ssize_t fill_all(struct odb_runtime *runtime, const struct range *range, const struct iovec *iov, int count) {
    size_t done = 0;
    for (int i = 0; i < count && done < range->length; i++) {
        size_t left = range->length - done, part = iov[i].iov_len < left ? iov[i].iov_len : left;
        ssize_t got = fill(runtime, range, done, &iov[i], part);
        if (got < 0) return done > 0 ? (ssize_t)done : got;
        done += (size_t)got;
        if ((size_t)got < part) break;
    }
    return (ssize_t)done;
}

/* Takes the next bytes of the open file in one step, as the kernel does, so that two readers never get the same ones. If another one was faster meanwhile these are
 * others than expected, or there are fewer of them. */
static bool reserve(struct range *range) {
    off64_t end = lseek64(range->fd, (off64_t)range->length, SEEK_CUR);
    if (end < (off64_t)range->length) return false;
    range->offset = (uint64_t)end - range->length;
    return true;
}

static ssize_t take_next(struct odb_runtime *runtime, struct range *range, const struct iovec *iov, int count) {
    size_t reserved = range->length;
    clip(range);
    ssize_t got = fill_all(runtime, range, iov, count);
    off64_t unused = (off64_t)(reserved - (got > 0 ? (size_t)got : 0));
    if (unused > 0) lseek64(range->fd, -unused, SEEK_CUR);
    return got;
}

bool odb_reads_take(struct odb_runtime *runtime, int fd, const struct iovec *iov, int count, off64_t offset,
                    ssize_t *result) {
    bool moves = offset == -1;
    int saved = errno;
    struct range range;
    off64_t at = moves ? lseek64(fd, 0, SEEK_CUR) : offset;
    bool taken = at >= 0 && choose(runtime, fd, iov, count, (uint64_t)at, &range);
    if (taken && moves && !reserve(&range)) {
        odb_sources_let_go(&runtime->windows.sources, range.source);
        taken = false;
    }
    errno = saved;
    if (!taken) return false;
    *result = moves ? take_next(runtime, &range, iov, count) : fill_all(runtime, &range, iov, count);
    odb_sources_let_go(&runtime->windows.sources, range.source);
    errno = saved;
    return true;
}
