/* memory_file.c: runs of pages with boundary tags: the first and the last page of every run say how long it is and
 * whether it is free, so that taking and giving cost the same however many payloads there are. */
#include "core/memory_file.h"

#include "core/scatter.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { PAGE_TAKEN = 0, PAGE_CLEAN, PAGE_DIRTY };

/* All numbers of pages in links are + 1: zero means none. */
struct odb_memory_page {
    uint32_t pages; /* length of the run that begins or ends here */
    uint32_t kind;
    uint32_t next; /* in the bin; first page of a free run only */
    uint32_t previous;
};

static unsigned bin_of(uint32_t pages) {
    return 31u - (unsigned)__builtin_clz(pages);
}

static void tag(struct odb_memory_file *file, struct odb_memory_run run, uint32_t kind) {
    struct odb_memory_page *head = &file->map[run.first], *tail = &file->map[run.first + run.pages - 1];
    head->pages = tail->pages = run.pages;
    head->kind = tail->kind = kind;
}

static void insert(struct odb_memory_file *file, struct odb_memory_run run, bool dirty) {
    uint32_t *bin = &file->bins[dirty][bin_of(run.pages)];
    tag(file, run, dirty ? PAGE_DIRTY : PAGE_CLEAN);
    file->map[run.first].previous = 0;
    file->map[run.first].next = *bin;
    if (*bin != 0) {
        file->map[*bin - 1].previous = run.first + 1;
    }
    *bin = run.first + 1;
}

static void take_out(struct odb_memory_file *file, struct odb_memory_run run) {
    struct odb_memory_page *head = &file->map[run.first];
    if (head->next != 0) {
        file->map[head->next - 1].previous = head->previous;
    }
    if (head->previous != 0) {
        file->map[head->previous - 1].next = head->next;
    } else {
        file->bins[head->kind == PAGE_DIRTY][bin_of(run.pages)] = head->next;
    }
    tag(file, run, PAGE_TAKEN);
}

bool odb_memory_file_open(struct odb_memory_file *file, uint64_t bound) {
    struct rlimit limit;
    memset(file, 0, sizeof *file);
    /* Growing a file beyond RLIMIT_FSIZE would raise SIGXFSZ in the application. */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < bound) {
        bound = limit.rlim_cur;
    }
    uint64_t pages = bound / ODB_MEMORY_PAGE;
    if (pages == 0 || pages >= UINT32_MAX) {
        return false;
    }
    void *map = odb_real.mmap(NULL, pages * sizeof *file->map, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        return false;
    }
    int made = memfd_create("odb-store", MFD_CLOEXEC);
    int fd = made < 0 ? -1 : odb_fds_adopt(made);
    if (fd < 0 || ftruncate(fd, (off_t)(pages * ODB_MEMORY_PAGE)) != 0) {
        odb_fds_close(fd);
        odb_real.munmap(map, pages * sizeof *file->map);
        return false;
    }
    file->fd = fd;
    file->map = map;
    file->pages = (uint32_t)pages;
    insert(file, (struct odb_memory_run){0, file->pages}, false);
    return true;
}

void odb_memory_file_close(struct odb_memory_file *file) {
    if (file->pages != 0) {
        odb_fds_close(file->fd);
        odb_real.munmap(file->map, file->pages * sizeof *file->map);
    }
    memset(file, 0, sizeof *file);
}

/* A clean run of at least `pages`: any of a higher bin fits; in the bin of that size itself only a few are looked at. */
static bool find(const struct odb_memory_file *file, uint32_t pages, struct odb_memory_run *out) {
    const uint32_t *bins = file->bins[false];
    unsigned own = bin_of(pages);
    uint32_t at = bins[own];
    for (int looks = 16; at != 0 && looks > 0; looks--, at = file->map[at - 1].next) {
        if (file->map[at - 1].pages >= pages) {
            break;
        }
    }
    if (at == 0 || file->map[at - 1].pages < pages) {
        at = 0;
        for (unsigned bin = own + 1; at == 0 && bin < ODB_MEMORY_BINS; bin++) {
            at = bins[bin];
        }
    }
    if (at == 0) {
        return false;
    }
    *out = (struct odb_memory_run){at - 1, file->map[at - 1].pages};
    return true;
}

bool odb_memory_file_take(struct odb_memory_file *file, uint32_t pages, struct odb_memory_run *out) {
    struct odb_memory_run found;
    if (pages == 0 || pages > file->pages || !find(file, pages, &found)) {
        return false;
    }
    take_out(file, found);
    *out = (struct odb_memory_run){found.first, pages};
    tag(file, *out, PAGE_TAKEN);
    if (found.pages > pages) {
        insert(file, (struct odb_memory_run){found.first + pages, found.pages - pages}, false);
    }
    return true;
}

static void give(struct odb_memory_file *file, struct odb_memory_run run, bool dirty) {
    if (run.first > 0 && file->map[run.first - 1].kind != PAGE_TAKEN) {
        const struct odb_memory_page *tail = &file->map[run.first - 1];
        struct odb_memory_run before = {run.first - tail->pages, tail->pages};
        dirty = dirty || tail->kind == PAGE_DIRTY;
        take_out(file, before);
        run = (struct odb_memory_run){before.first, before.pages + run.pages};
    }
    uint32_t end = run.first + run.pages;
    if (end < file->pages && file->map[end].kind != PAGE_TAKEN) {
        struct odb_memory_run after = {end, file->map[end].pages};
        dirty = dirty || file->map[end].kind == PAGE_DIRTY;
        take_out(file, after);
        run.pages += after.pages;
    }
    insert(file, run, dirty);
}

void odb_memory_file_give(struct odb_memory_file *file, struct odb_memory_run run) {
    give(file, run, true);
}

void odb_memory_file_give_clean(struct odb_memory_file *file, struct odb_memory_run run) {
    give(file, run, false);
}

bool odb_memory_file_take_dirty(struct odb_memory_file *file, struct odb_memory_run *out) {
    for (unsigned bin = ODB_MEMORY_BINS; bin-- > 0;) {
        uint32_t at = file->bins[true][bin];
        if (at != 0) {
            *out = (struct odb_memory_run){at - 1, file->map[at - 1].pages};
            take_out(file, *out);
            return true;
        }
    }
    return false;
}

bool odb_memory_file_punch(const struct odb_memory_file *file, struct odb_memory_run run) {
    return fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)run.first * ODB_MEMORY_PAGE,
                     (off_t)run.pages * ODB_MEMORY_PAGE) == 0;
}

bool odb_memory_file_write(const struct odb_memory_file *file, struct odb_memory_run run, const struct iovec *iov,
                           int count, size_t length) {
    struct odb_scatter at = {.iov = iov, .count = count};
    off64_t offset = (off64_t)run.first * ODB_MEMORY_PAGE;
    while (length > 0) {
        struct iovec window[64];
        int used = odb_scatter_window(&at, length, window, 64);
        ssize_t done = used == 0 ? 0 : odb_real.pwritev64(file->fd, window, used, offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return false;
        }
        odb_scatter_advance(&at, (size_t)done);
        offset += done;
        length -= (size_t)done;
    }
    return true;
}
