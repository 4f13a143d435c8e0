/* geometry.c: what is learned from the buffers of receives. */
#include "core/geometry.h"

#include "core/inbox.h"

/* Does the application fill whole pages one behind the other, header and body alike? It shows where a body begins within a page of a buffer that ends with one, and as long as
 * what follows lies where it then should. */
static bool flows(struct odb_stream *stream, const void *to, size_t room) {
    uint64_t received = atomic_load_explicit(&stream->turn_received, memory_order_relaxed);
    uintptr_t start = (uintptr_t)to;
    struct odb_geometry flow = {.buffer = ODB_GEOMETRY_FLOW, .offset = (uint16_t)((start - received) % ODB_PAGE)};
    uint64_t packed = odb_stream_pack_geometry(flow);
    if ((start + room) % ODB_PAGE != 0) return false;
    if (atomic_load_explicit(&stream->own_geometry, memory_order_relaxed) == packed) return true;
    if (stream->in.span_at > stream->in.head || start % ODB_PAGE == 0) return false;
    atomic_store_explicit(&stream->own_geometry, packed, memory_order_relaxed);
    return true;
}

void odb_geometry_note(struct odb_stream *stream, const void *to, size_t room) {
    if (flows(stream, to, room)) return;
    struct odb_geometry geometry = {.buffer = room < UINT32_MAX ? (uint32_t)room : UINT32_MAX,
                                    .offset = (uint16_t)((uintptr_t)to % ODB_PAGE)};
    bool aligned = geometry.offset == 0 && room % ODB_PAGE == 0;
    if (room >= 2 * ODB_PAGE)
        atomic_store_explicit(&stream->own_geometry, aligned ? 0 : odb_stream_pack_geometry(geometry),
                              memory_order_relaxed);
}
