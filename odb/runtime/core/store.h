/* store.h: the payload store of an origin: what this process has announced and must keep until the leases end.
 *
 * File ranges are kept as a duplicated descriptor, memory as one copy in a memory file; both are served by sendfile.
 * One lock, held for bookkeeping only: no system call happens under it.
 *
 * Thread safety: every call but init and after_fork_child may come from any thread; none from a signal handler. The
 * store counts payloads_captured, payload_bytes_captured, payloads_live and store_bytes_live; the fallback counters
 * are the caller's.
 */
#ifndef ODB_CORE_STORE_H
#define ODB_CORE_STORE_H

#include "core/memory_file.h"
#include "core/options.h"
#include "core/payloads.h"
#include "core/span.h"
#include "core/stats.h"
#include "core/tokens.h"
#include "os/lock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

struct odb_store {
    const struct odb_options *options;
    struct odb_stats *stats;
    struct odb_lock lock;
    struct odb_payloads payloads;
    struct odb_memory_file memory;
    struct odb_tokens tokens;
    uint64_t next_id;   /* 0: not chosen yet */
    uint32_t files_max; /* descriptors that file payloads may hold */
};

/* Both are kept, not copied. `store` is zero. */
void odb_store_init(struct odb_store *store, const struct odb_options *options, struct odb_stats *stats);

/* What stat says of the file's version. */
void odb_file_version_of(const struct stat *status, struct odb_file_version *out);
/* The version of the regular file that `fd` is open on; false when it is none. */
bool odb_store_file_version(int fd, struct odb_file_version *out);

enum odb_capture { ODB_CAPTURED = 0, ODB_CAPTURE_FULL, ODB_CAPTURE_FAILED };

/* Announces a range of a regular file that can be read through `fd` (which stays the caller's). Like sendfile it stops
 * at the end of the file: out->length may be less than `length`; a range that begins at or behind the end is FAILED.
 * Announcing overlapping or adjacent ranges of an unchanged file yields one payload. Fills everything of `out` but the
 * origin. */
enum odb_capture odb_store_capture_file(struct odb_store *store, int fd, uint64_t offset, uint64_t length,
                                        struct odb_span *out);

/* The same for a caller who has just looked: `fd` can be read and `version` is its file's. */
enum odb_capture odb_store_capture_version(struct odb_store *store, int fd, const struct odb_file_version *version,
                                           uint64_t offset, uint64_t length, struct odb_span *out);

/* Copies `length` bytes (the sum of iov, or less) and announces them as a payload that begins at offset 0. The memory
 * has to be readable by the kernel. */
enum odb_capture odb_store_capture_memory(struct odb_store *store, const struct iovec *iov, int count, size_t length,
                                          struct odb_span *out);

/* A payload that is being served: it stays where it is until odb_store_close_serving(). */
struct odb_serving {
    struct odb_payload *payload;
    int fd;
    uint64_t offset; /* in fd, of the first byte asked for */
};

/* 0, or an enum odb_wire_reason: GONE for an unknown id, DENIED for a wrong token or bytes that were not announced,
 * CHANGED for a file that is not what it was. `length` is not 0 and offset + length does not overflow. */
int odb_store_open(struct odb_store *store, uint64_t id, const uint8_t token[16], uint64_t offset, uint64_t length,
                   struct odb_serving *out);
/* The same for whoever has announced the range in the very call that now serves it: the file was looked at then. */
int odb_store_open_announced(struct odb_store *store, uint64_t id, const uint8_t token[16], uint64_t offset,
                             uint64_t length, struct odb_serving *out);
void odb_store_close_serving(struct odb_store *store, struct odb_serving *serving, uint64_t bytes_served);

/* The payload was announced on a stream whose field `consumer` is to learn who fetches it. The field must stay memory of that kind for good. */
void odb_store_set_announcer(struct odb_store *store, uint64_t id, _Atomic uint64_t *consumer);

/* A consumer will not ask for this payload again. Unknown ids are ignored. */
void odb_store_release(struct odb_store *store, uint64_t id);

/* Drops what may go at `now_ms`: fetched payloads whose lease has run out, fetched and released memory after half the
 * lease, the never fetched gc_delay after their last announcement (never within the lease). File payloads live on
 * until gc_delay while descriptors are plentiful, counted anew while parts of them are being fetched. Gives memory back to the system. */
void odb_store_reap(struct odb_store *store, uint64_t now_ms);

/* Are there announced bytes, within their lease, that nobody has fetched? */
bool odb_store_pending(struct odb_store *store);

/* The child starts empty: what its parent announced is served by the parent. Statistics must be those of the child
 * already. */
void odb_store_after_fork_child(struct odb_store *store);

#endif
