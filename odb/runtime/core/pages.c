/* pages.c: reserves the levels of the page table. */
#include "core/pages.h"

#include "os/real.h"

#include <sys/mman.h>

enum { ENTRIES = 1 << 18 };

static void *reserve(void) {
    void *level = odb_real.mmap(NULL, ENTRIES * sizeof(uintptr_t), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return level == MAP_FAILED ? NULL : level;
}

bool odb_pages_init(struct odb_pages *pages) {
    pages->top = reserve();
    return pages->top != NULL;
}

odb_page_entry *odb_pages_make(struct odb_pages *pages, uintptr_t address) {
    if (address >> 48) return NULL;
    _Atomic(odb_page_entry *) *slot = &pages->top[address >> 30];
    if (!atomic_load_explicit(slot, memory_order_acquire)) {
        odb_page_entry *fresh = reserve(), *expected = NULL;
        if (!fresh) return NULL;
        if (!atomic_compare_exchange_strong(slot, &expected, fresh))
            odb_real.munmap((void *)fresh, ENTRIES * sizeof(uintptr_t));
    }
    return odb_pages_find(pages, address);
}
