/* aside.c: a table without order. */
#include "core/aside.h"

struct odb_aside_entry *odb_aside_put(struct odb_aside *aside, int fd, uint64_t cookie) {
    int count = atomic_load(&aside->count);
    if (count == ODB_ASIDE_MOST || cookie == 0) return NULL;
    aside->entry[count].fd = fd;
    aside->entry[count].cookie = cookie;
    atomic_store(&aside->count, count + 1);
    return &aside->entry[count];
}

struct odb_aside_entry *odb_aside_find(struct odb_aside *aside, int fd, uint64_t cookie) {
    int count = atomic_load(&aside->count);
    for (int i = 0; i < count; i++)
        if (aside->entry[i].fd == fd || (cookie != 0 && aside->entry[i].cookie == cookie)) return &aside->entry[i];
    return NULL;
}

void odb_aside_drop(struct odb_aside *aside, struct odb_aside_entry *entry) {
    int last = atomic_load(&aside->count) - 1;
    if (entry != &aside->entry[last]) *entry = aside->entry[last];
    atomic_store(&aside->count, last);
}
