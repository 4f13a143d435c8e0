/* guard.c: page guards by mprotect. */
#include "os/guard.h"

#include "os/real.h"

#include <errno.h>
#include <sys/mman.h>

static int protect(void *start, size_t length, int protection) {
    int saved = errno;
    int result = odb_real.mprotect(start, length, protection) == 0 ? 0 : -errno;
    errno = saved;
    return result;
}

int odb_guard_close(void *start, size_t length) {
    return protect(start, length, PROT_NONE);
}

int odb_guard_open(void *start, size_t length) {
    return protect(start, length, PROT_READ | PROT_WRITE);
}

void *odb_guard_scratch(size_t length) {
    void *scratch = odb_real.mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return scratch == MAP_FAILED ? NULL : scratch;
}

void odb_guard_scratch_free(void *scratch, size_t length) {
    odb_real.munmap(scratch, length);
}

int odb_guard_replace(void *start, void *scratch, size_t length) {
    int saved = errno;
    void *moved = odb_real.mremap(scratch, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, start);
    int result = moved == MAP_FAILED ? -errno : 0;
    errno = saved;
    return result;
}
