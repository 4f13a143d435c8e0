/* payloads.c: hash chains, a binary heap and a list through one array of records. */
#include "core/payloads.h"

#include "os/real.h"

#include <string.h>
#include <sys/mman.h>

static uint32_t number_of(const struct odb_payloads *payloads, const struct odb_payload *payload) {
    return (uint32_t)(payload - payloads->records);
}

static struct odb_payload *linked(const struct odb_payloads *payloads, uint32_t link) {
    return link == 0 ? NULL : &payloads->records[link - 1];
}

static uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 32)) * 0x9E3779B97F4A7C15u;
    return value ^ (value >> 29);
}

static uint32_t *id_bucket(const struct odb_payloads *payloads, uint64_t id) {
    return &payloads->by_id[mix(id) & payloads->mask];
}

static uint32_t *file_bucket(const struct odb_payloads *payloads, const struct odb_file_version *file) {
    uint64_t hash = mix(mix(mix(file->inode) + file->device) + (uint64_t)file->modified_ns) + file->size;
    return &payloads->by_file[mix(hash) & payloads->mask];
}

bool odb_file_version_equal(const struct odb_file_version *a, const struct odb_file_version *b) {
    return a->inode == b->inode && a->device == b->device && a->size == b->size && a->modified_ns == b->modified_ns;
}

bool odb_payloads_map(struct odb_payloads *payloads, uint32_t capacity) {
    uint32_t buckets = 64;
    while (buckets < capacity && buckets < (1u << 24)) {
        buckets *= 2;
    }
    size_t size =
        capacity * (sizeof *payloads->records + sizeof *payloads->heap) + buckets * 2 * sizeof *payloads->by_id;
    char *memory =
        odb_real.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memset(payloads, 0, sizeof *payloads);
    if (memory == MAP_FAILED) {
        return false;
    }
    payloads->records = (struct odb_payload *)(void *)memory;
    payloads->by_id = (uint32_t *)(void *)(memory + capacity * sizeof *payloads->records);
    payloads->by_file = payloads->by_id + buckets;
    payloads->heap = payloads->by_file + buckets;
    payloads->mapped = size;
    payloads->capacity = capacity;
    payloads->mask = buckets - 1;
    return true;
}

void odb_payloads_clear(struct odb_payloads *payloads) {
    if (payloads->records == NULL) {
        return;
    }
    /* Private anonymous memory comes back as zeros, and costs nothing until it is touched again. */
    if (odb_real.madvise(payloads->records, payloads->mapped, MADV_DONTNEED) != 0) {
        memset(payloads->records, 0, payloads->mapped);
    }
    payloads->count = payloads->high = payloads->free = payloads->files = 0;
    payloads->oldest_file = payloads->newest_file = 0;
}

static void place(struct odb_payloads *payloads, uint32_t at, uint32_t number) {
    payloads->heap[at] = number;
    payloads->records[number].heap_at = at;
}

static uint64_t due_at(const struct odb_payloads *payloads, uint32_t at) {
    return payloads->records[payloads->heap[at]].due_ms;
}

/* Restores the order around position `at` of a heap of `count` records. */
static void settle(struct odb_payloads *payloads, uint32_t at, uint32_t count) {
    uint32_t number = payloads->heap[at];
    uint64_t due = payloads->records[number].due_ms;
    while (at > 0 && due < due_at(payloads, (at - 1) / 2)) {
        place(payloads, at, payloads->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && due_at(payloads, child + 1) < due_at(payloads, child)) {
            child++;
        }
        if (due <= due_at(payloads, child)) {
            break;
        }
        place(payloads, at, payloads->heap[child]);
        at = child;
    }
    place(payloads, at, number);
}

static void age_insert(struct odb_payloads *payloads, struct odb_payload *payload) {
    uint32_t link = number_of(payloads, payload) + 1;
    payload->newer = 0;
    payload->older = payloads->newest_file;
    if (payload->older != 0) {
        linked(payloads, payload->older)->newer = link;
    } else {
        payloads->oldest_file = link;
    }
    payloads->newest_file = link;
}

static void age_remove(struct odb_payloads *payloads, struct odb_payload *payload) {
    *(payload->older != 0 ? &linked(payloads, payload->older)->newer : &payloads->oldest_file) = payload->newer;
    *(payload->newer != 0 ? &linked(payloads, payload->newer)->older : &payloads->newest_file) = payload->older;
}

struct odb_payload *odb_payloads_add(struct odb_payloads *payloads, const struct odb_payload *fields) {
    struct odb_payload *payload = linked(payloads, payloads->free);
    if (payloads->records == NULL) {
        return NULL;
    }
    if (payload != NULL) {
        payloads->free = payload->next_by_id;
    } else if (payloads->high < payloads->capacity) {
        payload = &payloads->records[payloads->high++];
    } else {
        return NULL;
    }
    uint32_t number = number_of(payloads, payload);
    uint32_t *bucket = id_bucket(payloads, fields->id);
    *payload = *fields;
    payload->next_by_id = *bucket;
    *bucket = number + 1;
    if (payload->kind == ODB_PAYLOAD_FILE) {
        bucket = file_bucket(payloads, &payload->file);
        payload->next_by_file = *bucket;
        *bucket = number + 1;
        age_insert(payloads, payload);
        payloads->files++;
    }
    place(payloads, payloads->count, number);
    payloads->count++;
    settle(payloads, payloads->count - 1, payloads->count);
    return payload;
}

void odb_payloads_drop(struct odb_payloads *payloads, struct odb_payload *payload) {
    uint32_t link = number_of(payloads, payload) + 1;
    uint32_t *at = id_bucket(payloads, payload->id);
    while (*at != link) {
        at = &linked(payloads, *at)->next_by_id;
    }
    *at = payload->next_by_id;
    if (payload->kind == ODB_PAYLOAD_FILE) {
        at = file_bucket(payloads, &payload->file);
        while (*at != link) {
            at = &linked(payloads, *at)->next_by_file;
        }
        *at = payload->next_by_file;
        age_remove(payloads, payload);
        payloads->files--;
    }
    payloads->count--;
    if (payload->heap_at != payloads->count) {
        place(payloads, payload->heap_at, payloads->heap[payloads->count]);
        settle(payloads, payload->heap_at, payloads->count);
    }
    payload->kind = ODB_PAYLOAD_NONE;
    payload->fd = -1;
    payload->next_by_id = payloads->free;
    payloads->free = link;
}

struct odb_payload *odb_payloads_find(const struct odb_payloads *payloads, uint64_t id) {
    struct odb_payload *payload = linked(payloads, *id_bucket(payloads, id));
    while (payload != NULL && payload->id != id) {
        payload = linked(payloads, payload->next_by_id);
    }
    return payload;
}

struct odb_payload *odb_payloads_find_file(const struct odb_payloads *payloads, const struct odb_file_version *file,
                                           uint64_t first, uint64_t end) {
    struct odb_payload *payload = linked(payloads, *file_bucket(payloads, file));
    while (payload != NULL &&
           !(odb_file_version_equal(&payload->file, file) && first <= payload->end && end >= payload->first)) {
        payload = linked(payloads, payload->next_by_file);
    }
    return payload;
}

void odb_payloads_renew(struct odb_payloads *payloads, struct odb_payload *payload) {
    if (payload->newer != 0) {
        age_remove(payloads, payload);
        age_insert(payloads, payload);
    }
}

struct odb_payload *odb_payloads_oldest_file(const struct odb_payloads *payloads) {
    return linked(payloads, payloads->oldest_file);
}

struct odb_payload *odb_payloads_newer_file(const struct odb_payloads *payloads, const struct odb_payload *payload) {
    return linked(payloads, payload->newer);
}

struct odb_payload *odb_payloads_first_due(const struct odb_payloads *payloads) {
    return payloads->count == 0 ? NULL : &payloads->records[payloads->heap[0]];
}

void odb_payloads_set_due(struct odb_payloads *payloads, struct odb_payload *payload, uint64_t due_ms) {
    payload->due_ms = due_ms;
    settle(payloads, payload->heap_at, payloads->count);
}
