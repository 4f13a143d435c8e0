/* geometry.h: how the application offers memory for bodies, for the next HINT. Page-aligned buffers are what senders assume anyway.
 *
 * Thread safety: under the stream's inbox lock.
 */
#ifndef ODB_CORE_GEOMETRY_H
#define ODB_CORE_GEOMETRY_H

#include "core/stream.h"

/* A receive offers `room` bytes at `to` for the body at hand. */
void odb_geometry_note(struct odb_stream *stream, const void *to, size_t room);

#endif
