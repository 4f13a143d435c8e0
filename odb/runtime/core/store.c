/* store.c: capturing and serving payloads. Reclaiming is in store_reap.c. */
#include "core/store.h"

#include "core/store_reap.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"
#include "wire/message.h"

#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* File payloads take at most a quarter of the descriptors that the process may have. */
static uint32_t files_max(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > 16384) {
        return 4096;
    }
    return limit.rlim_cur < 32 ? 8 : (uint32_t)limit.rlim_cur / 4;
}

void odb_store_init(struct odb_store *store, const struct odb_options *options, struct odb_stats *stats) {
    store->options = options;
    store->stats = stats;
    store->files_max = files_max();
    odb_payloads_map(&store->payloads, (uint32_t)options->payload_max);
}

void odb_file_version_of(const struct stat *status, struct odb_file_version *out) {
    out->device = status->st_dev;
    out->inode = status->st_ino;
    out->size = (uint64_t)status->st_size;
    out->modified_ns = (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
}

bool odb_store_file_version(int fd, struct odb_file_version *out) {
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        return false;
    }
    odb_file_version_of(&status, out);
    return true;
}

static void announce(struct odb_store *store, struct odb_payload *payload, uint64_t offset, uint64_t length,
                     uint64_t now, struct odb_span *out) {
    payload->first = offset < payload->first ? offset : payload->first;
    payload->end = offset + length > payload->end ? offset + length : payload->end;
    payload->announced_ms = now;
    payload->announced_bytes += length;
    payload->released = false;
    out->payload = payload->id;
    memcpy(out->token, payload->token, sizeof out->token);
    out->offset = offset;
    out->length = length;
    out->push_channel = 0;
    out->push_position = 0;
    out->expires_ms = now + store->options->lease_ms;
    odb_count(store->stats, ODB_STAT_payload_bytes_captured, length);
}

/* With the lock held: gives the new payload its id, adds and announces it. False when the table is full. */
static bool add(struct odb_store *store, struct odb_payload *fields, uint64_t length, struct odb_span *out) {
    uint64_t now = odb_clock_ms();
    fields->id = store->next_id;
    fields->announced_ms = now;
    fields->due_ms = now + odb_store_keep_ms(store, fields);
    struct odb_payload *payload = odb_payloads_add(&store->payloads, fields);
    if (payload == NULL) {
        return false;
    }
    store->next_id++;
    announce(store, payload, fields->first, length, now, out);
    odb_count(store->stats, ODB_STAT_payloads_captured, 1);
    odb_count(store->stats, ODB_STAT_payloads_live, 1);
    if (fields->kind == ODB_PAYLOAD_MEMORY) {
        odb_count(store->stats, ODB_STAT_store_bytes_live, length);
    }
    return true;
}

/* Ids begin anywhere, so that those of an earlier process with the same port mean nothing. */
static bool choose_first_id(struct odb_store *store) {
    uint64_t id;
    if (odb_real.getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id) {
        return false;
    }
    odb_lock_take(&store->lock);
    if (store->next_id == 0) {
        store->next_id = (id >> 1) | 1;
    }
    odb_lock_drop(&store->lock);
    return true;
}

static bool prepare(struct odb_store *store, struct odb_payload *fields) {
    odb_lock_take(&store->lock);
    bool ready = store->payloads.records != NULL, chosen = store->next_id != 0;
    odb_lock_drop(&store->lock);
    return ready && (chosen || choose_first_id(store)) && odb_tokens_take(&store->tokens, fields->token);
}

/* The known payload of that file, if any, announced again. */
static bool announce_known(struct odb_store *store, const struct odb_file_version *file, uint64_t offset,
                           uint64_t length, struct odb_span *out) {
    struct odb_payload *payload = store->payloads.records == NULL
                                      ? NULL
                                      : odb_payloads_find_file(&store->payloads, file, offset, offset + length);
    if (payload == NULL) {
        return false;
    }
    announce(store, payload, offset, length, odb_clock_rough_ms(), out);
    odb_payloads_renew(&store->payloads, payload);
    return true;
}

/* Adds a file payload, or announces the one that another thread has made meanwhile (then the descriptor is not needed:
 * *kept is false). */
static bool add_file(struct odb_store *store, struct odb_payload *fields, uint64_t length, struct odb_span *out,
                     bool *kept) {
    odb_lock_take(&store->lock);
    bool known = announce_known(store, &fields->file, fields->first, length, out);
    *kept = !known && store->payloads.files < store->files_max && add(store, fields, length, out);
    odb_lock_drop(&store->lock);
    return known || *kept;
}

enum odb_capture odb_store_capture_file(struct odb_store *store, int fd, uint64_t offset, uint64_t length,
                                        struct odb_span *out) {
    struct odb_file_version version;
    int access = odb_real.fcntl(fd, F_GETFL);
    if (access < 0 || (access & O_ACCMODE) == O_WRONLY || (access & O_PATH) != 0 ||
        !odb_store_file_version(fd, &version)) {
        return ODB_CAPTURE_FAILED;
    }
    return odb_store_capture_version(store, fd, &version, offset, length, out);
}

enum odb_capture odb_store_capture_version(struct odb_store *store, int fd, const struct odb_file_version *version,
                                           uint64_t offset, uint64_t length, struct odb_span *out) {
    struct odb_payload fields = {.kind = ODB_PAYLOAD_FILE, .file = *version};
    if (length == 0 || offset >= fields.file.size) {
        return ODB_CAPTURE_FAILED;
    }
    length = length < fields.file.size - offset ? length : fields.file.size - offset;
    odb_lock_take(&store->lock);
    bool known = announce_known(store, &fields.file, offset, length, out);
    odb_lock_drop(&store->lock);
    if (known) {
        return ODB_CAPTURED;
    }
    int copy = prepare(store, &fields) ? odb_real.fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    fields.fd = copy < 0 ? -1 : odb_fds_adopt(copy);
    if (fields.fd < 0) {
        return ODB_CAPTURE_FAILED;
    }
    fields.first = offset;
    fields.end = offset + length;
    bool kept, added = add_file(store, &fields, length, out, &kept);
    if (!added) {
        odb_store_make_room(store, odb_clock_ms());
        added = add_file(store, &fields, length, out, &kept);
    }
    if (!kept) {
        odb_fds_close(fields.fd);
    }
    return added ? ODB_CAPTURED : ODB_CAPTURE_FULL;
}

/* Makes the memory file on first need; the slow part happens without the lock. */
static bool memory_ready(struct odb_store *store) {
    odb_lock_take(&store->lock);
    bool ready = store->memory.pages != 0;
    odb_lock_drop(&store->lock);
    struct odb_memory_file made;
    if (ready || !odb_memory_file_open(&made, store->options->store_max)) {
        return ready;
    }
    odb_lock_take(&store->lock);
    bool late = store->memory.pages != 0;
    if (!late) {
        store->memory = made;
    }
    odb_lock_drop(&store->lock);
    if (late) {
        odb_memory_file_close(&made);
    }
    return true;
}

static bool take_run(struct odb_store *store, uint32_t pages, struct odb_memory_run *out) {
    odb_lock_take(&store->lock);
    bool taken = store->payloads.count < store->payloads.capacity && odb_memory_file_take(&store->memory, pages, out);
    odb_lock_drop(&store->lock);
    return taken;
}

enum odb_capture odb_store_capture_memory(struct odb_store *store, const struct iovec *iov, int count, size_t length,
                                          struct odb_span *out) {
    struct odb_payload fields = {.kind = ODB_PAYLOAD_MEMORY, .fd = -1, .end = length};
    if (length > store->options->store_max) {
        return ODB_CAPTURE_FULL;
    }
    if (length == 0 || !memory_ready(store) || !prepare(store, &fields)) {
        return ODB_CAPTURE_FAILED;
    }
    uint32_t pages = (uint32_t)((length + ODB_MEMORY_PAGE - 1) / ODB_MEMORY_PAGE);
    if (!take_run(store, pages, &fields.run)) {
        odb_store_make_room(store, odb_clock_ms());
        if (!take_run(store, pages, &fields.run)) {
            return ODB_CAPTURE_FULL;
        }
    }
    bool copied = odb_memory_file_write(&store->memory, fields.run, iov, count, length);
    odb_lock_take(&store->lock);
    bool added = copied && add(store, &fields, length, out);
    if (!added) {
        odb_memory_file_give(&store->memory, fields.run);
    }
    odb_lock_drop(&store->lock);
    return added ? ODB_CAPTURED : copied ? ODB_CAPTURE_FULL : ODB_CAPTURE_FAILED;
}

int odb_store_open_announced(struct odb_store *store, uint64_t id, const uint8_t token[16], uint64_t offset,
                             uint64_t length, struct odb_serving *out) {
    int reason = 0;
    odb_lock_take(&store->lock);
    struct odb_payload *payload = store->payloads.records == NULL ? NULL : odb_payloads_find(&store->payloads, id);
    if (payload == NULL) {
        reason = ODB_WIRE_GONE;
    } else if (!odb_token_equal(payload->token, token) || offset < payload->first || offset + length > payload->end) {
        reason = ODB_WIRE_DENIED;
    } else {
        bool file = payload->kind == ODB_PAYLOAD_FILE;
        payload->references++;
        out->payload = payload;
        out->fd = file ? payload->fd : store->memory.fd;
        out->offset = offset + (file ? 0 : (uint64_t)payload->run.first * ODB_MEMORY_PAGE);
    }
    odb_lock_drop(&store->lock);
    return reason;
}

int odb_store_open(struct odb_store *store, uint64_t id, const uint8_t token[16], uint64_t offset, uint64_t length,
                   struct odb_serving *out) {
    int reason = odb_store_open_announced(store, id, token, offset, length, out);
    struct odb_file_version now;
    /* A referenced payload's kind and version do not change, so they may be looked at without the lock; fstat may be
     * slow. */
    if (reason == 0 && out->payload->kind == ODB_PAYLOAD_FILE &&
        !(odb_store_file_version(out->fd, &now) && odb_file_version_equal(&now, &out->payload->file))) {
        odb_store_close_serving(store, out, 0);
        reason = ODB_WIRE_CHANGED;
    }
    return reason;
}

/* With the lock held. A client may take longer over a large file than gc_delay: as long as somebody fetches parts of it, it is as good as announced anew. */
static void renew_fetched_file(struct odb_store *store, struct odb_payload *payload) {
    uint64_t now = odb_clock_rough_ms();
    if (payload->kind == ODB_PAYLOAD_FILE && now > payload->announced_ms + store->options->lease_ms / 2) {
        payload->announced_ms = now;
        odb_payloads_renew(&store->payloads, payload);
    }
}

void odb_store_close_serving(struct odb_store *store, struct odb_serving *serving, uint64_t bytes_served) {
    odb_lock_take(&store->lock);
    struct odb_payload *payload = serving->payload;
    payload->references--;
    payload->served_bytes += bytes_served;
    if (bytes_served > 0) {
        renew_fetched_file(store, payload);
    }
    if (!payload->used && payload->served_bytes >= payload->end - payload->first) {
        payload->used = true;
        odb_payloads_set_due(&store->payloads, payload, payload->announced_ms + odb_store_keep_ms(store, payload));
    }
    odb_lock_drop(&store->lock);
    serving->payload = NULL;
}

void odb_store_release(struct odb_store *store, uint64_t id) {
    odb_lock_take(&store->lock);
    struct odb_payload *payload = store->payloads.records == NULL ? NULL : odb_payloads_find(&store->payloads, id);
    if (payload != NULL && !payload->released) {
        payload->released = true;
        odb_payloads_set_due(&store->payloads, payload, payload->announced_ms + odb_store_keep_ms(store, payload));
    }
    odb_lock_drop(&store->lock);
}

bool odb_store_pending(struct odb_store *store) {
    uint64_t now = odb_clock_ms();
    bool pending = false;
    odb_lock_take(&store->lock);
    for (uint32_t i = 0; i < store->payloads.high && !pending; i++) {
        const struct odb_payload *payload = &store->payloads.records[i];
        pending = payload->kind != ODB_PAYLOAD_NONE && !payload->released &&
                  payload->served_bytes < payload->announced_bytes &&
                  now < payload->announced_ms + store->options->lease_ms;
    }
    odb_lock_drop(&store->lock);
    return pending;
}

void odb_store_after_fork_child(struct odb_store *store) {
    /* Another thread may have been in the middle of a change: trust only descriptors, which are cleared before they
     * are closed. */
    for (uint32_t i = 0; i < store->payloads.high; i++) {
        const struct odb_payload *payload = &store->payloads.records[i];
        if (payload->kind == ODB_PAYLOAD_FILE && odb_fds_is_internal(payload->fd)) {
            odb_fds_close(payload->fd);
        }
    }
    odb_payloads_clear(&store->payloads);
    odb_memory_file_close(&store->memory);
    odb_tokens_forget(&store->tokens);
    store->next_id = 0;
    odb_lock_reset(&store->lock);
}

void odb_store_set_announcer(struct odb_store *store, uint64_t id, _Atomic uint64_t *consumer) {
    odb_lock_take(&store->lock);
    struct odb_payload *payload = odb_payloads_find(&store->payloads, id);
    if (payload != NULL) {
        atomic_store(&payload->announcer, consumer);
    }
    odb_lock_drop(&store->lock);
}
