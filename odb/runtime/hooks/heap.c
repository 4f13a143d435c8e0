/* heap.c: hooks of the malloc family. */
#include "core/heap.h"

#include "hooks/hook.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* dlsym may allocate while the table of real functions is being filled. Such blocks are few, small and never given back. */
enum { EARLY_SIZE = 16384, EARLY_ALIGN = 16 };

static _Alignas(EARLY_ALIGN) char early[EARLY_SIZE];
static size_t early_used;

static void *early_block(size_t size) {
    size_t rounded = (size + EARLY_ALIGN - 1) & ~(size_t)(EARLY_ALIGN - 1);
    if (size > EARLY_SIZE || rounded > EARLY_SIZE - early_used) {
        errno = ENOMEM;
        return NULL;
    }
    void *block = early + early_used;
    early_used += rounded;
    return block;
}

static bool is_early(const void *block) {
    return (const char *)block >= early && (const char *)block < early + EARLY_SIZE;
}

/* False while the table is being filled by this very thread, further up its stack. */
static bool ready(void) {
    static volatile bool loading; /* to an optimiser that sees the whole library, dlsym never comes back here */
    if (__builtin_expect(odb_real.mprotect != NULL, 1)) return true;
    if (loading) return false;
    loading = true;
    odb_hook_load();
    loading = false;
    return true;
}

ODB_EXPORT void *malloc(size_t size) {
    if (!ready()) return early_block(size);
    return odb_hook_runtime ? odb_malloc(odb_hook_runtime, size) : odb_real.malloc(size);
}

ODB_EXPORT void *calloc(size_t count, size_t size) {
    if (!ready()) return count && size > EARLY_SIZE / count ? NULL : early_block(count * size);
    return odb_hook_runtime ? odb_calloc(odb_hook_runtime, count, size) : odb_real.calloc(count, size);
}

ODB_EXPORT void free(void *block) {
    if (is_early(block) || !ready()) return;
    if (odb_hook_runtime && block)
        odb_free(odb_hook_runtime, block);
    else
        odb_real.free(block);
}

ODB_EXPORT void *realloc(void *block, size_t size) {
    if (is_early(block) || !ready()) {
        void *fresh = malloc(size);
        size_t room = is_early(block) ? (size_t)(early + EARLY_SIZE - (char *)block) : 0;
        if (fresh && block) memcpy(fresh, block, size < room ? size : room);
        return fresh;
    }
    return odb_hook_runtime ? odb_realloc(odb_hook_runtime, block, size) : odb_real.realloc(block, size);
}

ODB_EXPORT void *reallocarray(void *block, size_t count, size_t size) {
    size_t total;
    if (!__builtin_mul_overflow(count, size, &total)) return realloc(block, total);
    errno = ENOMEM;
    return NULL;
}

static void *aligned(size_t alignment, size_t size) {
    if (!ready()) return NULL;
    bool power = alignment && (alignment & (alignment - 1)) == 0;
    return odb_hook_runtime && power ? odb_aligned(odb_hook_runtime, alignment, size)
                                     : odb_real.memalign(alignment, size);
}

ODB_EXPORT int posix_memalign(void **block, size_t alignment, size_t size) {
    if (alignment % sizeof(void *) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
    int saved = errno;
    void *fresh = aligned(alignment, size);
    errno = saved;
    if (!fresh) return ENOMEM;
    *block = fresh;
    return 0;
}

ODB_EXPORT void *aligned_alloc(size_t alignment, size_t size) {
    return aligned(alignment, size);
}

ODB_EXPORT void *memalign(size_t alignment, size_t size) {
    return aligned(alignment, size);
}

ODB_EXPORT void *valloc(size_t size) {
    return aligned(ODB_PAGE, size);
}

ODB_EXPORT void *pvalloc(size_t size) {
    size_t rounded = odb_page_up(size);
    if (rounded >= size) return aligned(ODB_PAGE, rounded);
    errno = ENOMEM;
    return NULL;
}

ODB_EXPORT size_t malloc_usable_size(void *block) {
    if (!ready() || is_early(block)) return 0;
    return odb_hook_runtime ? odb_usable_size(odb_hook_runtime, block) : odb_real.malloc_usable_size(block);
}

ODB_ALIAS(malloc, __libc_malloc);
ODB_ALIAS(calloc, __libc_calloc);
ODB_ALIAS(realloc, __libc_realloc);
ODB_ALIAS(free, __libc_free);
ODB_ALIAS(free, cfree);
ODB_ALIAS(memalign, __libc_memalign);
ODB_ALIAS(valloc, __libc_valloc);
ODB_ALIAS(pvalloc, __libc_pvalloc);
