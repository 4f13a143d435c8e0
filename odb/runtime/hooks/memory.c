/* memory.c: hooks of the calls that change mappings: only guarded pages concern us. */
#include "core/heap.h"

#include "hooks/hook.h"

#include <stdarg.h>
#include <sys/mman.h>

static bool guarded(const struct odb_runtime *runtime) {
    return runtime && odb_windows_any(&runtime->windows);
}

ODB_EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) ? odb_mmap(runtime, address, length, protection, flags, fd, offset)
                            : odb_real.mmap(address, length, protection, flags, fd, offset);
}

ODB_EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) ? odb_mmap(runtime, address, length, protection, flags, fd, offset)
                            : odb_real.mmap64(address, length, protection, flags, fd, offset);
}

ODB_EXPORT int munmap(void *address, size_t length) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) ? odb_munmap(runtime, address, length) : odb_real.munmap(address, length);
}

ODB_EXPORT void *mremap(void *address, size_t old_length, size_t new_length, int flags, ...) {
    struct odb_runtime *runtime = odb_enter();
    va_list arguments;
    va_start(arguments, flags);
    void *target = va_arg(arguments, void *);
    va_end(arguments);
    return guarded(runtime) ? odb_mremap(runtime, address, old_length, new_length, flags, target)
                            : odb_real.mremap(address, old_length, new_length, flags, target);
}

ODB_EXPORT int madvise(void *address, size_t length, int advice) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) ? odb_madvise(runtime, address, length, advice) : odb_real.madvise(address, length, advice);
}

ODB_EXPORT int mprotect(void *address, size_t length, int protection) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) ? odb_mprotect(runtime, address, length, protection)
                            : odb_real.mprotect(address, length, protection);
}

ODB_EXPORT int pkey_mprotect(void *address, size_t length, int protection, int key) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) && odb_make_real(runtime, address, length) != 0
               ? -1
               : odb_real.pkey_mprotect(address, length, protection, key);
}

/* Pages that cannot be touched cannot be locked. */
ODB_EXPORT int mlock(const void *address, size_t length) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) && odb_make_real(runtime, (void *)(uintptr_t)address, length) != 0
               ? -1
               : odb_real.mlock(address, length);
}

ODB_EXPORT int mlock2(const void *address, size_t length, unsigned flags) {
    struct odb_runtime *runtime = odb_enter();
    return guarded(runtime) && odb_make_real(runtime, (void *)(uintptr_t)address, length) != 0
               ? -1
               : odb_real.mlock2(address, length, flags);
}
