/* heap.c: which blocks come from the arena, and what becomes of windows when memory changes hands. */
#include "core/heap.h"

#include "os/real.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool wanted(const struct odb_runtime *runtime, size_t size) {
    return runtime->arena && size >= runtime->options.align_min;
}

static bool ours(const struct odb_runtime *runtime, const void *block) {
    return runtime->arena && odb_arena_contains(runtime->arena, block);
}

/* Windows are only put where nothing but this process's own code looks: heap blocks. Shared mappings are read by others, and stacks that fault leave no place for the
 * handler; a program may also have allocated the stack it runs on from the heap. */
bool odb_heap_is_block(const struct odb_runtime *runtime, const void *start, size_t length) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0), address = (uintptr_t)start;
    if (!runtime->arena) return address >= runtime->heap_start && address + length <= (uintptr_t)sbrk(0);
    for (uintptr_t at = address, end = address + length;
         at < end;) { /* programs merge neighbouring buffers into one iovec entry */
        void *block;
        size_t size;
        if (!odb_arena_contains(runtime->arena, (void *)at) ||
            !odb_arena_find(runtime->arena, (void *)at, &block, &size))
            return false;
        if (here - (uintptr_t)block < size) return false;
        at = (uintptr_t)block + size;
    }
    return true;
}

void odb_heap_release(void *context, void *start, size_t length) {
    struct odb_runtime *runtime = context;
    odb_windows_open(&runtime->windows, start, length);
}

/* Guards survive in freed blocks, but a block that is handed out may go straight to the kernel by calls that nobody intercepts (readdir, fread, ...): its pages
 * have to be ordinary. */
static void *ordinary(struct odb_runtime *runtime, void *block) {
    if (block) odb_windows_open(&runtime->windows, block, odb_arena_usable(runtime->arena, block));
    return block;
}

void *odb_malloc(struct odb_runtime *runtime, size_t size) {
    void *block = wanted(runtime, size) ? ordinary(runtime, odb_arena_alloc(runtime->arena, size, 0)) : NULL;
    return block ? block : odb_real.malloc(size);
}

void *odb_aligned(struct odb_runtime *runtime, size_t alignment, size_t size) {
    void *block = wanted(runtime, size) ? ordinary(runtime, odb_arena_alloc(runtime->arena, size, alignment)) : NULL;
    return block ? block : odb_real.memalign(alignment, size);
}

void *odb_calloc(struct odb_runtime *runtime, size_t count, size_t size) {
    size_t total;
    bool zero = false;
    if (__builtin_mul_overflow(count, size, &total) || !wanted(runtime, total)) return odb_real.calloc(count, size);
    void *block = ordinary(runtime, odb_arena_alloc_zeroed(runtime->arena, total, 0, &zero));
    if (!block) return odb_real.calloc(count, size);
    return zero ? block : memset(block, 0, total);
}

/* libc writes its links into a block that is freed: what is guarded in it must be opened first. Less than a page is never guarded. */
static void open_foreign(struct odb_runtime *runtime, void *block) {
    if (!block || !odb_windows_any(&runtime->windows)) return;
    size_t size = odb_real.malloc_usable_size(block);
    if (size >= ODB_PAGE) odb_windows_open(&runtime->windows, block, size);
}

void odb_free(struct odb_runtime *runtime, void *block) {
    if (!ours(runtime, block)) {
        open_foreign(runtime, block);
        odb_real.free(block);
        return;
    }
    odb_windows_drop(&runtime->windows, block, odb_arena_usable(runtime->arena, block));
    if (!odb_arena_free(runtime->arena, block))
        odb_real.free(block); /* not a block: libc says what it says of such pointers */
}

size_t odb_usable_size(struct odb_runtime *runtime, void *block) {
    return ours(runtime, block) ? odb_arena_usable(runtime->arena, block) : odb_real.malloc_usable_size(block);
}

static bool resize_in_place(struct odb_runtime *runtime, void *block, size_t old, size_t size) {
    if (size < runtime->options.align_min) return false;
    size_t kept = odb_page_up(size);
    if (kept < old) odb_windows_drop(&runtime->windows, (char *)block + kept, old - kept);
    if (!odb_arena_resize(runtime->arena, block, size)) return false;
    size_t now = odb_arena_usable(runtime->arena, block);
    if (now > old) odb_windows_open(&runtime->windows, (char *)block + old, now - old);
    return true;
}

static void *move(struct odb_runtime *runtime, void *block, size_t old, size_t size) {
    void *fresh = odb_malloc(runtime, size);
    if (!fresh) return NULL;
    memcpy(fresh, block, old < size ? old : size); /* guarded pages are fetched by the fault handler */
    odb_free(runtime, block);
    return fresh;
}

void *odb_realloc(struct odb_runtime *runtime, void *block, size_t size) {
    if (!block) return odb_malloc(runtime, size);
    if (!ours(runtime, block)) {
        size_t old = odb_real.malloc_usable_size(block);
        if (wanted(runtime, size) && old < size) return move(runtime, block, old, size);
        struct iovec whole = {block, old};
        odb_windows_materialise(&runtime->windows, &whole, 1);
        return odb_real.realloc(block, size);
    }
    size_t old = odb_arena_usable(runtime->arena, block);
    if (old == 0) return odb_real.realloc(block, size); /* not a block: libc says what it says of such pointers */
    if (size == 0) {
        odb_free(runtime, block);
        return NULL;
    }
    if (resize_in_place(runtime, block, old, size)) return block;
    return move(runtime, block, old, size);
}

void *odb_mmap(struct odb_runtime *runtime, void *address, size_t length, int protection, int flags, int fd,
               off64_t offset) {
    void *mapped = odb_real.mmap64(address, length, protection, flags, fd, offset);
    if (mapped != MAP_FAILED) odb_windows_forget(&runtime->windows, mapped, length);
    return mapped;
}

int odb_munmap(struct odb_runtime *runtime, void *address, size_t length) {
    int result = odb_real.munmap(address, length);
    if (result == 0) odb_windows_forget(&runtime->windows, address, length);
    return result;
}

int odb_make_real(struct odb_runtime *runtime, void *address, size_t length) {
    struct iovec range = {address, length};
    if (odb_windows_materialise(&runtime->windows, &range, 1) == 0) return 0;
    errno = ENOMEM;
    return -1;
}

void *odb_mremap(struct odb_runtime *runtime, void *address, size_t old_length, size_t new_length, int flags,
                 void *target) {
    if (odb_make_real(runtime, address, old_length) != 0) return MAP_FAILED;
    void *moved = odb_real.mremap(address, old_length, new_length, flags, target);
    if (moved != MAP_FAILED && (flags & MREMAP_FIXED)) odb_windows_forget(&runtime->windows, moved, new_length);
    return moved;
}

/* Advice that gives content up gives windows up too. */
int odb_madvise(struct odb_runtime *runtime, void *address, size_t length, int advice) {
    if (advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_REMOVE)
        odb_windows_open(&runtime->windows, address, length);
    return odb_real.madvise(address, length, advice);
}

int odb_mprotect(struct odb_runtime *runtime, void *address, size_t length, int protection) {
    if (odb_make_real(runtime, address, length) != 0) return -1;
    return odb_real.mprotect(address, length, protection);
}
