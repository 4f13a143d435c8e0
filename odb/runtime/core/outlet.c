/* outlet.c: asks the kernel about plain connections, and remembers. */
#include "core/outlet.h"

#include "core/runtime.h"
#include "os/real.h"

#include <fcntl.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* Of a strange descriptor nobody can tell whether it is the only one of its connection. That a stream never waits is all that is known of it. */
enum outlet { STRANGE, OWN, NEVER_WAITS, KNOWN };

/* Who has offered so much gets segments of half of it or more, and the kernel's charge for each of them is small beside it. */
enum { WIDE_WINDOW = 16384 };

static _Atomic uint8_t *memory_of(const struct odb_fdtable *fds, int fd) {
    return fd >= 0 && fd < ODB_FDS ? &fds->slots[fd].outlet : NULL;
}

static void become(struct odb_fdtable *fds, int fd, uint8_t what) {
    _Atomic uint8_t *memory = memory_of(fds, fd);
    if (!memory || atomic_load_explicit(memory, memory_order_relaxed) == what) return;
    if (what != KNOWN) atomic_store_explicit(&fds->slots[fd].cookie, 0, memory_order_relaxed);
    atomic_store(memory, what);
}

bool odb_outlet_has_memory(const struct odb_fdtable *fds, int fd) {
    const _Atomic uint8_t *memory = memory_of(fds, fd);
    return memory && atomic_load_explicit(memory, memory_order_relaxed) != STRANGE;
}

void odb_outlet_made(struct odb_fdtable *fds, int fd) {
    become(fds, fd, OWN);
}

void odb_outlet_changed(struct odb_fdtable *fds, int fd) {
    if (odb_outlet_has_memory(fds, fd)) become(fds, fd, OWN);
}

void odb_outlet_forget(struct odb_fdtable *fds, int fd) {
    become(fds, fd, STRANGE);
}

void odb_outlet_copied(struct odb_fdtable *fds, int from, int to) {
    become(fds, from, STRANGE);
    become(fds, to, STRANGE);
}

/* Not something upon TCP (TLS), and nothing that limits what is unsent: what is kept could be refused then. */
static bool is_plain_tcp(int fd) {
    char name[16];
    uint32_t lowat;
    socklen_t size = sizeof name, lowat_size = sizeof lowat;
    return odb_real.getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &size) == 0 && size == 0 &&
           odb_real.getsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, &lowat_size) == 0 && lowat == 0;
}

static void learn(struct odb_fdtable *fds, int fd, uint8_t what) {
    if (odb_outlet_has_memory(fds, fd)) become(fds, fd, what);
}

/* A process that has connections in common with its children has their descriptors in common as well. */
static uint8_t recall(const struct odb_fdtable *fds, int fd) {
    const _Atomic uint8_t *memory = memory_of(fds, fd);
    return memory && !atomic_load_explicit(&fds->shared, memory_order_relaxed)
               ? atomic_load_explicit(memory, memory_order_relaxed)
               : STRANGE;
}

bool odb_outlet_never_waits(struct odb_fdtable *fds, int fd) {
    uint8_t known = recall(fds, fd);
    if (known == NEVER_WAITS || known == KNOWN) return true;
    int status = odb_real.fcntl(fd, F_GETFL);
    bool never = status >= 0 && (status & O_NONBLOCK);
    if (never) learn(fds, fd, NEVER_WAITS);
    return never;
}

static bool has_wide_window(int fd) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    memset(&info, 0, sizeof info);
    return odb_real.getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_snd_wnd >= WIDE_WINDOW;
}

static size_t left_of(int fd) {
    uint32_t memory[SK_MEMINFO_VARS];
    socklen_t size = sizeof memory;
    if (odb_real.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) != 0 || size < sizeof memory ||
        memory[SK_MEMINFO_SNDBUF] <= memory[SK_MEMINFO_WMEM_QUEUED])
        return 0;
    return memory[SK_MEMINFO_SNDBUF] - memory[SK_MEMINFO_WMEM_QUEUED];
}

/* Splicing has no MSG_NOSIGNAL, and may happen in another call than the program's own. */
static bool may_splice(struct odb_runtime *runtime) {
    return runtime->options.splice && odb_pushes_sigpipe_is_ignored(&runtime->origin.pushes);
}

bool odb_outlet_is_known(const struct odb_fdtable *fds, int fd) {
    return recall(fds, fd) == KNOWN;
}

uint64_t odb_outlet_cookie(struct odb_fdtable *fds, int fd) {
    bool known = odb_outlet_is_known(fds, fd);
    uint64_t cookie = known ? atomic_load_explicit(&fds->slots[fd].cookie, memory_order_relaxed) : 0;
    socklen_t size = sizeof cookie;
    if (cookie != 0 || odb_real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return cookie;
    if (known) atomic_store_explicit(&fds->slots[fd].cookie, cookie, memory_order_relaxed);
    return cookie;
}

void odb_outlet_room(struct odb_runtime *runtime, int fd, struct odb_outlet_room *room) {
    bool known = odb_outlet_is_known(&runtime->fds, fd), waits = false;
    *room = (struct odb_outlet_room){.left = 0};
    if (!known) {
        if (!is_plain_tcp(fd)) return;
        waits = !odb_outlet_never_waits(&runtime->fds, fd);
        known = !waits && has_wide_window(fd);
        if (known) learn(&runtime->fds, fd, KNOWN);
    }
    *room = (struct odb_outlet_room){.left = left_of(fd), .wide = known, .splices = !waits && may_splice(runtime)};
}
