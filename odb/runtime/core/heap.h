/* heap.h: the malloc family with large blocks on pages of their own.
 *
 * Every function accepts a null arena (align = off): blocks are libc's then, and only guards in them are taken care of. Semantics, errno included, are those of the calls they stand for.
 */
#ifndef ODB_CORE_HEAP_H
#define ODB_CORE_HEAP_H

#include "core/runtime.h"

void *odb_malloc(struct odb_runtime *runtime, size_t size);
void *odb_calloc(struct odb_runtime *runtime, size_t count, size_t size);
void *odb_realloc(struct odb_runtime *runtime, void *block, size_t size);
void odb_free(struct odb_runtime *runtime, void *block);
/* `alignment` is a power of two. */
void *odb_aligned(struct odb_runtime *runtime, size_t alignment, size_t size);
size_t odb_usable_size(struct odb_runtime *runtime, void *block);

/* For odb_arena_set_release. `context` is the runtime. */
void odb_heap_release(void *context, void *start, size_t length);

/* Is the range in heap blocks, and not in the one that the caller's stack lies in? */
bool odb_heap_is_block(const struct odb_runtime *runtime, const void *start, size_t length);

/* Mappings. */
void *odb_mmap(struct odb_runtime *runtime, void *address, size_t length, int protection, int flags, int fd,
               off64_t offset);
int odb_munmap(struct odb_runtime *runtime, void *address, size_t length);
void *odb_mremap(struct odb_runtime *runtime, void *address, size_t old_length, size_t new_length, int flags,
                 void *target);
int odb_madvise(struct odb_runtime *runtime, void *address, size_t length, int advice);
/* Fetches what is guarded in the range. 0, or -1 with ENOMEM. */
int odb_make_real(struct odb_runtime *runtime, void *address, size_t length);
int odb_mprotect(struct odb_runtime *runtime, void *address, size_t length, int protection);

#endif
