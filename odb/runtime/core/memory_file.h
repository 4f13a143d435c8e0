/* memory_file.h: one memory file per process that holds the payloads captured from memory, so that sendfile can serve
 * them.
 *
 * Space is dealt out in runs of pages from a fixed bound; neighbouring free runs coalesce. A freed run keeps its
 * memory ("dirty") until it is trimmed, that is, punched out of the file; only then can it be taken again, because the
 * pages themselves may still be on their way: a socket's queue refers to what sendfile put there, and on one machine
 * splice hands them on. All-zero memory is a closed file.
 *
 * Thread safety: open, write and punch may run at any time; everything else wants the owner's lock. No call but open,
 * write, punch and close enters the kernel.
 */
#ifndef ODB_CORE_MEMORY_FILE_H
#define ODB_CORE_MEMORY_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define ODB_MEMORY_PAGE 4096u
#define ODB_MEMORY_BINS 32

struct odb_memory_run {
    uint32_t first; /* page number in the file */
    uint32_t pages;
};

struct odb_memory_page; /* what is known of a page; defined in memory_file.c */

struct odb_memory_file {
    int fd; /* meaningful when `pages` is not 0 */
    uint32_t pages;
    struct odb_memory_page *map;
    uint32_t bins[2][ODB_MEMORY_BINS]; /* [dirty][log2 of the run's pages]: first run, page number + 1 */
};

/* Makes the file, `bound` bytes at most (less where the process's file size limit says so); false when it cannot be
 * had. */
bool odb_memory_file_open(struct odb_memory_file *file, uint64_t bound);
/* Closes it; every run is lost. Harmless on a closed file. */
void odb_memory_file_close(struct odb_memory_file *file);

/* False when no trimmed run is large enough. */
bool odb_memory_file_take(struct odb_memory_file *file, uint32_t pages, struct odb_memory_run *out);
void odb_memory_file_give(struct odb_memory_file *file, struct odb_memory_run run);

/* Trimming in three steps, so that the slow one happens without the lock: take a dirty run out, punch it, give it back
 * clean. */
bool odb_memory_file_take_dirty(struct odb_memory_file *file, struct odb_memory_run *out);
bool odb_memory_file_punch(const struct odb_memory_file *file, struct odb_memory_run run);
void odb_memory_file_give_clean(struct odb_memory_file *file, struct odb_memory_run run);

/* Copies `length` bytes into a run that the caller has taken. False when they cannot all be read or stored (errno says
 * why). */
bool odb_memory_file_write(const struct odb_memory_file *file, struct odb_memory_run run, const struct iovec *iov,
                           int count, size_t length);

#endif
