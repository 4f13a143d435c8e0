/* early.h: fetches that are begun when a descriptor arrives, for a process that fetches what it receives anyway.
 *
 * A fetch that is begun in the receive which needs it makes the program wait for a question and its answer, one response after the other. Begun when the event loop learns of
 * the descriptor, the answers to all that one wait reports are on their way together; a receive then takes what has come, straight from the channel.
 * Not where bodies are pushed: those need no question.
 *
 * Under in.lock of the stream, all but odb_early_end. A fetch that does not fit what is received next is abandoned: it costs its channel, never a byte.
 */
#ifndef ODB_CORE_EARLY_H
#define ODB_CORE_EARLY_H

#include "core/runtime.h"

#define ODB_EARLY_BYTES 262144u /* most bytes that are asked for at once */

/* The application will be told that the stream is readable: begins the fetch of a body at hand, if this process is one that fetches them. */
void odb_early_look(struct odb_runtime *runtime, struct odb_stream *stream);

/* Begins to fetch the body from the current position on, which is inside it. False: not now. */
bool odb_early_begin(struct odb_runtime *runtime, struct odb_stream *stream);

/* How many bytes from the beginning of `part` on a fetch under way will give; 0: none. */
size_t odb_early_has(struct odb_runtime *runtime, struct odb_stream *stream, const struct odb_span *part);

/* Takes so many of them, at most what odb_early_has says; waits. False: they did not come, and have to be asked for. */
bool odb_early_take(struct odb_stream *stream, void *to, size_t amount);

/* Gives up what is under way. With nobody else at work on the stream. */
void odb_early_end(struct odb_stream *stream);

#endif
