/* payloads.h: the table of payload records of an origin: found by id, by file, by the time they fall due, and, files,
 * by age.
 *
 * Pure bookkeeping: the owner's lock is held for every call, nothing but map enters the kernel, nothing is freed or
 * closed here. A record's address stays the same from odb_payloads_add() to odb_payloads_drop().
 */
#ifndef ODB_CORE_PAYLOADS_H
#define ODB_CORE_PAYLOADS_H

#include "core/memory_file.h"

#include <stdbool.h>
#include <stdint.h>

enum odb_payload_kind { ODB_PAYLOAD_NONE = 0, ODB_PAYLOAD_FILE, ODB_PAYLOAD_MEMORY };

/* A file in one state of its content, as far as stat can tell. */
struct odb_file_version {
    uint64_t device;
    uint64_t inode;
    uint64_t size;
    int64_t modified_ns;
};

struct odb_payload {
    enum odb_payload_kind kind;
    bool used;           /* fetched completely at least once */
    bool released;       /* a consumer has said that it will not ask again */
    uint32_t references; /* answers under way */
    uint64_t id;
    uint8_t token[16];
    uint64_t first; /* announced interval [first, end) */
    uint64_t end;
    uint64_t announced_ms;    /* last time */
    uint64_t announced_bytes; /* in total */
    uint64_t served_bytes;    /* in total */
    int fd;                   /* file: own duplicate, position unused; else -1 */
    struct odb_file_version file;
    struct odb_memory_run run; /* memory */
    _Atomic(_Atomic uint64_t *)
        announcer;    /* where to note who fetches it: a field of the stream that announced it last */
    uint64_t due_ms;  /* when to look whether it can go */
    uint32_t heap_at; /* the links below are record numbers + 1, zero is none */
    uint32_t next_by_id;
    uint32_t next_by_file;
    uint32_t older;
    uint32_t newer;
};

struct odb_payloads {
    struct odb_payload *records; /* null: not mapped */
    uint32_t *by_id;
    uint32_t *by_file;
    uint32_t *heap; /* record numbers, the one that falls due first in front */
    size_t mapped;
    uint32_t capacity;
    uint32_t mask;  /* of the two hash tables */
    uint32_t count; /* records in use */
    uint32_t high;  /* records ever used; those beyond are untouched memory */
    uint32_t free;
    uint32_t files; /* file payloads: each holds a descriptor */
    uint32_t oldest_file;
    uint32_t newest_file;
};

/* Reserves address space for `capacity` records; memory is touched as records are used. */
bool odb_payloads_map(struct odb_payloads *payloads, uint32_t capacity);
/* Empties the table, whatever state it is in. */
void odb_payloads_clear(struct odb_payloads *payloads);

/* Adds a copy of `fields` (kind, id, token, interval, file or run, due_ms; links are overwritten); null when the table
 * is full. */
struct odb_payload *odb_payloads_add(struct odb_payloads *payloads, const struct odb_payload *fields);
void odb_payloads_drop(struct odb_payloads *payloads, struct odb_payload *payload);

struct odb_payload *odb_payloads_find(const struct odb_payloads *payloads, uint64_t id);
/* The payload of this version of a file whose announced interval overlaps or touches [first, end). */
struct odb_payload *odb_payloads_find_file(const struct odb_payloads *payloads, const struct odb_file_version *file,
                                           uint64_t first, uint64_t end);

/* A file payload was announced again: it is now the newest. */
void odb_payloads_renew(struct odb_payloads *payloads, struct odb_payload *payload);
struct odb_payload *odb_payloads_oldest_file(const struct odb_payloads *payloads);
struct odb_payload *odb_payloads_newer_file(const struct odb_payloads *payloads, const struct odb_payload *payload);

/* The payload with the least due_ms; null when there is none. */
struct odb_payload *odb_payloads_first_due(const struct odb_payloads *payloads);
void odb_payloads_set_due(struct odb_payloads *payloads, struct odb_payload *payload, uint64_t due_ms);

bool odb_file_version_equal(const struct odb_file_version *a, const struct odb_file_version *b);

#endif
