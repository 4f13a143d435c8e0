/* aside.c: a table without order. */
#include "core/aside.h"

#include "os/real.h"

#include <sys/socket.h>

static uint64_t cookie_of(int fd) {
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    return odb_real.getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

struct odb_aside_entry *odb_aside_put(struct odb_aside *aside, int fd) {
    int count = atomic_load(&aside->count);
    uint64_t cookie = count < ODB_ASIDE_MOST ? cookie_of(fd) : 0;
    if (cookie == 0) return NULL;
    aside->entry[count].fd = fd;
    aside->entry[count].cookie = cookie;
    atomic_store(&aside->count, count + 1);
    return &aside->entry[count];
}

struct odb_aside_entry *odb_aside_find(struct odb_aside *aside, int fd, bool alone) {
    int count = atomic_load(&aside->count);
    for (int i = 0; i < count; i++)
        if (aside->entry[i].fd == fd) return &aside->entry[i];
    uint64_t cookie = count > 0 && !alone ? cookie_of(fd) : 0;
    for (int i = 0; i < count && cookie != 0; i++)
        if (aside->entry[i].cookie == cookie) return &aside->entry[i];
    return NULL;
}

void odb_aside_drop(struct odb_aside *aside, struct odb_aside_entry *entry) {
    int last = atomic_load(&aside->count) - 1;
    if (entry != &aside->entry[last]) *entry = aside->entry[last];
    atomic_store(&aside->count, last);
}
