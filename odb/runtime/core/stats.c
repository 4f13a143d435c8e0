/* stats.c: creates and removes the shared page of counters. */
#include "core/stats.h"

#include "os/fds.h"
#include "os/real.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct page_header {
    char magic[8];
    uint32_t version;
    uint32_t pid;
    uint64_t start_time;
    uint32_t count;
    uint32_t entry_size;
    char comm[16];
    char reserved[16];
};

_Static_assert(sizeof(struct page_header) == 64, "readers rely on a 64-byte header");
_Static_assert(sizeof(struct odb_stat_entry) == 48, "readers rely on 48-byte entries");

#define PAGE_SIZE_BYTES (sizeof(struct page_header) + ODB_STAT_COUNT * sizeof(struct odb_stat_entry))

static const char *const names[ODB_STAT_COUNT] = {
#define ODB_STAT(name, doc) #name,
#include "stats.def"
#undef ODB_STAT
};

/* Used when no page can be had at all. */
static struct odb_stat_entry private_entries[ODB_STAT_COUNT];

/* Field 22 of /proc/self/stat: clock ticks after boot; together with the pid it names a process for good. */
static uint64_t start_time(void) {
    char text[1024];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = odb_real.read(fd, text, sizeof text - 1);
    odb_real.close(fd);
    if (length <= 0) return 0;
    text[length] = '\0';
    char *at = strrchr(text, ')'); /* the command's name may hold anything */
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

static void *map_file(struct odb_stats *stats, const char *directory, uint64_t started) {
    if (mkdir(directory, 01777) == 0) (void)chmod(directory, 01777);
    snprintf(stats->path, sizeof stats->path, "%s/%d.%llu", directory, (int)getpid(), (unsigned long long)started);
    int fd = open(stats->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) return NULL;
    void *page = MAP_FAILED;
    if (ftruncate(fd, (off_t)PAGE_SIZE_BYTES) == 0)
        page = odb_real.mmap(NULL, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    odb_real.close(fd);
    if (page != MAP_FAILED) return page;
    unlink(stats->path);
    return NULL;
}

void odb_stats_open(struct odb_stats *stats, const char *directory) {
    if (stats->tried) return;
    stats->tried = true;
    if (!stats->entries) stats->entries = private_entries;
    uint64_t started = start_time();
    struct page_header *header = map_file(stats, directory, started);
    if (!header) {
        stats->path[0] = '\0';
        return;
    }
    memcpy(header->magic, "ODBSTAT1", 8);
    header->version = 1;
    header->pid = (uint32_t)getpid();
    header->start_time = started;
    header->count = ODB_STAT_COUNT;
    header->entry_size = sizeof(struct odb_stat_entry);
    prctl(PR_GET_NAME, header->comm);
    struct odb_stat_entry *entries = (struct odb_stat_entry *)(void *)(header + 1);
    for (int i = 0; i < ODB_STAT_COUNT; i++) {
        strncpy(entries[i].name, names[i], sizeof entries[i].name - 1);
        atomic_store(&entries[i].value, atomic_load(&private_entries[i].value));
    }
    stats->entries = entries;
}

void odb_stats_after_fork_child(struct odb_stats *stats) {
    for (int i = 0; i < ODB_STAT_COUNT; i++) atomic_store(&private_entries[i].value, 0);
    if (stats->path[0]) odb_real.munmap((struct page_header *)(void *)stats->entries - 1, PAGE_SIZE_BYTES);
    stats->entries = private_entries;
    stats->path[0] = '\0';
    stats->tried = false;
}

void odb_stats_close(struct odb_stats *stats) {
    if (stats->path[0]) unlink(stats->path);
    stats->path[0] = '\0';
}
