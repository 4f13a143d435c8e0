/* stdio.c: hooks of the stdio calls that hand the application's memory to the kernel without passing by read or write. */
#include "hooks/hook.h"

#include <stdio.h>

#undef fread_unlocked /* libc's headers have macros of these names */
#undef fwrite_unlocked

/* What cannot be fetched stays guarded: libc then reports the error that the kernel gives. */
static void make_real(const void *buffer, size_t size, size_t count) {
    struct odb_runtime *runtime = odb_enter();
    size_t length;
    if (!runtime || __builtin_mul_overflow(size, count, &length) || length == 0) return;
    struct iovec range = {(void *)(uintptr_t)buffer, length};
    int saved = errno;
    odb_windows_materialise(&runtime->windows, &range, 1);
    errno = saved;
}

ODB_EXPORT size_t fwrite(const void *buffer, size_t size, size_t count, FILE *file) {
    make_real(buffer, size, count);
    return odb_real.fwrite(buffer, size, count, file);
}

ODB_EXPORT size_t fwrite_unlocked(const void *buffer, size_t size, size_t count, FILE *file) {
    make_real(buffer, size, count);
    return odb_real.fwrite_unlocked(buffer, size, count, file);
}

ODB_EXPORT size_t fread(void *buffer, size_t size, size_t count, FILE *file) {
    make_real(buffer, size, count);
    return odb_real.fread(buffer, size, count, file);
}

ODB_EXPORT size_t fread_unlocked(void *buffer, size_t size, size_t count, FILE *file) {
    make_real(buffer, size, count);
    return odb_real.fread_unlocked(buffer, size, count, file);
}

ODB_EXPORT size_t __fread_chk(void *buffer, size_t room, size_t size, size_t count, FILE *file) {
    make_real(buffer, size, count);
    return odb_real.__fread_chk(buffer, room, size, count, file);
}

ODB_EXPORT size_t __fread_unlocked_chk(void *buffer, size_t room, size_t size, size_t count, FILE *file) {
    make_real(buffer, size, count);
    return odb_real.__fread_unlocked_chk(buffer, room, size, count, file);
}

ODB_ALIAS(fwrite, _IO_fwrite);
ODB_ALIAS(fread, _IO_fread);
