/* fds.c: keeps the library's own descriptors high, close-on-exec and known. */
#include "os/fds.h"

#include "os/real.h"

#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>

enum { TRACKED = 1 << 20, WORD = 64 };

static _Atomic uint64_t internal[TRACKED / WORD];

static uint64_t bit(int fd) {
    return 1ull << ((unsigned)fd % WORD);
}

/* A quarter of the allowed range, at its top, is where no application expects its descriptors. */
static int lowest(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == 0) return 3;
    uint64_t soft = limit.rlim_cur < 65536 ? limit.rlim_cur : 65536;
    return (int)(soft - soft / 4);
}

int odb_fds_adopt(int fd) {
    if (fd < 0) return -1;
    int high = odb_real.fcntl(fd, F_DUPFD_CLOEXEC, lowest());
    if (high >= 0) {
        odb_real.close(fd);
        fd = high;
    } else {
        odb_real.fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    if (fd < TRACKED) atomic_fetch_or(&internal[fd / WORD], bit(fd));
    return fd;
}

void odb_fds_close(int fd) {
    if (fd < 0) return;
    if (fd < TRACKED) atomic_fetch_and(&internal[fd / WORD], ~bit(fd));
    odb_real.close(fd);
}

bool odb_fds_is_internal(int fd) {
    return fd >= 0 && fd < TRACKED && (atomic_load_explicit(&internal[fd / WORD], memory_order_relaxed) & bit(fd)) != 0;
}
