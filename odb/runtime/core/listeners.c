/* listeners.c: from descriptors that listen to their entries in the registry. */
#include "core/listeners.h"

#include "core/registry.h"

#include <stddef.h>

enum { FREE = 0, CHANGING = -1 };

static struct odb_listener_record *find(struct odb_listeners *listeners, int fd) {
    int high = atomic_load_explicit(&listeners->high, memory_order_acquire);
    for (int i = 0; i < high; i++) {
        if (atomic_load_explicit(&listeners->records[i].key, memory_order_acquire) == fd + 1) {
            return &listeners->records[i];
        }
    }
    return NULL;
}

static struct odb_listener_record *claim(struct odb_listeners *listeners) {
    for (int i = 0; i < ODB_LISTENERS; i++) {
        int expected = FREE;
        if (!atomic_compare_exchange_strong(&listeners->records[i].key, &expected, CHANGING)) {
            continue;
        }
        int high = atomic_load(&listeners->high);
        while (high <= i && !atomic_compare_exchange_weak(&listeners->high, &high, i + 1)) {
        }
        return &listeners->records[i];
    }
    return NULL;
}

void odb_listeners_enter(struct odb_listeners *listeners, const char *stats_dir, int fd) {
    struct odb_listener_record *record = fd < 0 || find(listeners, fd) != NULL ? NULL : claim(listeners);
    if (record == NULL) {
        return;
    }
    record->entry = odb_registry_enter(stats_dir, fd);
    atomic_store_explicit(&record->key, record->entry >= 0 ? fd + 1 : FREE, memory_order_release);
}

static void release(struct odb_listener_record *record, int key) {
    if (key > 0 && atomic_compare_exchange_strong(&record->key, &key, CHANGING)) {
        odb_registry_leave(record->entry);
        atomic_store_explicit(&record->key, FREE, memory_order_release);
    }
}

void odb_listeners_forget(struct odb_listeners *listeners, int fd) {
    struct odb_listener_record *record = fd < 0 ? NULL : find(listeners, fd);
    if (record != NULL) {
        release(record, fd + 1);
    }
}

void odb_listeners_forget_all(struct odb_listeners *listeners) {
    int high = atomic_load(&listeners->high);
    for (int i = 0; i < high; i++) {
        release(&listeners->records[i], atomic_load(&listeners->records[i].key));
    }
}
