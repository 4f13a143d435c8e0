/* ahead.c: announced bytes of a stream against served bytes of the process. */
#include "core/ahead.h"

enum { SMALL_BUFFER = 65536 }; /* who makes it smaller means to be told to wait; larger ones are a matter of speed */

static uint64_t counted(struct odb_stats *stats, enum odb_stat which) {
    return atomic_load_explicit(&stats->entries[which].value, memory_order_relaxed);
}

/* Announced and not taken since, as of now. */
static uint64_t outstanding(struct odb_stream *stream, struct odb_stats *stats) {
    uint64_t taken = counted(stats, ODB_STAT_serve_bytes) + counted(stats, ODB_STAT_push_bytes_passed);
    uint64_t before = atomic_exchange_explicit(&stream->ahead.taken, taken, memory_order_relaxed);
    uint64_t progress = taken > before ? taken - before : 0; /* counters begin anew in a child of fork */
    uint64_t announced = atomic_load_explicit(&stream->ahead.announced, memory_order_relaxed);
    announced = announced > progress ? announced - progress : 0;
    atomic_store_explicit(&stream->ahead.announced, announced, memory_order_relaxed);
    return announced;
}

size_t odb_ahead_room(struct odb_stream *stream, const struct odb_options *options, struct odb_stats *stats) {
    if (odb_stream_peer_wants_real(stream)) {
        odb_count(stats, ODB_STAT_fallback_wanted, 1);
        return 0;
    }
    uint64_t bound = options->ahead_max, small = atomic_load_explicit(&stream->ahead.bound, memory_order_relaxed);
    uint64_t ahead = outstanding(stream, stats);
    bound = small > 0 && small < bound ? small : bound;
    if (ahead + options->virtual_min <= bound) {
        return (size_t)(bound - ahead);
    }
    odb_count(stats, ODB_STAT_fallback_ahead, 1);
    return 0;
}

void odb_ahead_add(struct odb_stream *stream, size_t length) {
    atomic_fetch_add_explicit(&stream->ahead.announced, length, memory_order_relaxed);
}

void odb_ahead_bound_by(struct odb_stream *stream, int send_buffer) {
    bool small = send_buffer > 0 && send_buffer < SMALL_BUFFER;
    atomic_store_explicit(&stream->ahead.bound, small ? (uint64_t)send_buffer : 0, memory_order_relaxed);
}
