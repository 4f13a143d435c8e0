/* arena.h: page-granular heap blocks whose bookkeeping lies elsewhere.
 *
 * Large blocks of the interposed malloc family come from here, so that a received body covers whole pages. Blocks
 * start on a page, are whole pages long, and may be guarded (PROT_NONE) at any time: the arena never reads or writes a
 * block, neither when it is handed out nor when it is taken back.
 *
 * Life of the pages:   clean --alloc--> live --free, below ODB_ARENA_BIG--> cached --alloc of that size--> live
 *                        ^                |                                   |
 *                        +---- release ---+------- free, at least BIG --------+---- cache over its limit, oldest first
 *
 * Clean pages read as zeros and merge with clean neighbours. Cached blocks keep their size, their memory and their
 * guards, and the one freed last is used first: a role (say, a proxy buffer) keeps getting memory in the state in
 * which that role left it.
 *
 * Threads: every function may be called from any thread. odb_arena_contains, _find and _usable take no lock and may be
 * called from signal handlers and fault handlers; the others may not be called from a handler that can interrupt one
 * of them. No lock is held while the release callback runs. No function changes errno. An arena is never destroyed.
 */
#ifndef ODB_CORE_ARENA_H
#define ODB_CORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ODB_ARENA_BIG ((size_t)1 << 20) /* blocks of at least this size give their memory back when they are freed */
#define ODB_ARENA_CACHE_LIMIT ((size_t)64 << 20) /* cached bytes unless odb_arena_set_cache_limit says otherwise */
#define ODB_ARENA_RESERVE_MIN ((size_t)1 << 30)  /* less address space than this is not worth an arena */
#define ODB_ARENA_RESERVE_MAX ((size_t)64 << 30) /* more is cut to this (with pages of 4 KiB) */

/* The part of an arena that odb_arena_contains looks at; the rest follows it in memory. */
struct odb_arena {
    uintptr_t start;
    size_t length;
};

/* Called for a range of `length` bytes (whole pages) that has just stopped being live or cached and is not yet free:
 * nobody else has it. The callback must leave the range readable and writable (drop guards); the arena then gives the
 * memory back with MADV_DONTNEED itself, because whether that worked decides whether the pages may be called zero.
 * Called without the arena's lock: it may allocate and free. */
typedef void odb_arena_release(void *context, void *start, size_t length);

/* Reserves address space: `reserve` bytes, else smaller powers of two down to ODB_ARENA_RESERVE_MIN, and never more
 * than half of what RLIMIT_AS leaves. Memory is committed in steps as blocks reach it. NULL: not even the minimum is
 * to be had. Calls odb_real.mmap, .munmap, .mprotect, .madvise. */
struct odb_arena *odb_arena_create(size_t reserve);

/* What to do before memory goes back to the system; `release` may be NULL (nothing to do, the initial state). */
void odb_arena_set_release(struct odb_arena *arena, odb_arena_release *release, void *context);

/* Bound of the bytes kept in freed blocks. Takes effect at the next free. */
void odb_arena_set_cache_limit(struct odb_arena *arena, size_t bytes);

/* A block of at least `size` bytes (0 counts as 1), rounded up to whole pages; a cached block that is up to an eighth
 * larger may be used as it is. `alignment` is 0 or a power of two; at least the page size is always given. NULL: no
 * room, the caller takes libc's. */
void *odb_arena_alloc(struct odb_arena *arena, size_t size, size_t alignment);
/* The same; *is_zero says that the block is known to read as zeros, so that calloc need not touch it. Not written when
   NULL is returned. */
void *odb_arena_alloc_zeroed(struct odb_arena *arena, size_t size, size_t alignment, bool *is_zero);

/* False: `block` is not the start of a live block of this arena (foreign, inside a block, freed already); nothing has
   changed then. */
bool odb_arena_free(struct odb_arena *arena, void *block);

/* Shrinks in place, or grows in place if what follows is free. False: not live, or no room behind it; nothing has
   changed then. */
bool odb_arena_resize(struct odb_arena *arena, void *block, size_t size);

/* Does `p` lie in the arena's address range? */
static inline bool odb_arena_contains(const struct odb_arena *arena, const void *p) {
    return (uintptr_t)p - arena->start < arena->length;
}

/* Bytes usable in a block, 0 if `block` is not the start of a live block. */
size_t odb_arena_usable(const struct odb_arena *arena, const void *block);

/* The live block that contains `p`. Exact as long as nobody frees or resizes that block meanwhile; otherwise the
   answer may be out of date, no worse. */
bool odb_arena_find(const struct odb_arena *arena, const void *p, void **start, size_t *size);

/* Around fork(): _before in the parent, then _after_fork_parent and _after_fork_child. A range that another thread was
 * releasing during the fork is cached in the child: its content and guards are what they were at that moment. */
void odb_arena_before_fork(struct odb_arena *arena);
void odb_arena_after_fork_parent(struct odb_arena *arena);
void odb_arena_after_fork_child(struct odb_arena *arena);

struct odb_arena_report {
    size_t reserved;     /* bytes of address space */
    size_t live_bytes;   /* bytes in live blocks, whole pages */
    size_t cached_bytes; /* bytes in freed blocks that keep their memory */
    size_t blocks;       /* live blocks */
};
struct odb_arena_report odb_arena_report(const struct odb_arena *arena);

/* Checks every block, list and counter; for tests and debug builds, takes time proportional to the memory ever used. */
bool odb_arena_is_valid(const struct odb_arena *arena);

#endif
