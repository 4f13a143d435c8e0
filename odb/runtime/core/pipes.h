/* pipes.h: the process's pipes through which pushed bodies go from a channel to a socket without passing through memory.
 *
 * A pipe costs the user from a quota of pages that all processes share, so there are few, and whoever has emptied one gives it back.
 * Thread safety: all functions. Async-signal-safe: no locks, no allocation.
 */
#ifndef ODB_CORE_PIPES_H
#define ODB_CORE_PIPES_H

#include <stdatomic.h>
#include <stdint.h>

#define ODB_PIPES 32u
#define ODB_PIPE_SIZE 262144 /* asked for; where the quota does not allow it, a pipe has what the system gives */

struct odb_pipe {
    _Atomic int use;          /* enum in pipes.c */
    _Atomic int out_of, into; /* descriptors, -1: none */
};

struct odb_pipes {
    struct odb_pipe pipe[ODB_PIPES];
};

void odb_pipes_init(struct odb_pipes *pipes);
/* The child closes its copies: what is in them is the parent's. */
void odb_pipes_after_fork_child(struct odb_pipes *pipes);

/* An empty pipe that belongs to the caller, both ends non-blocking; null when all are in use or none can be made. */
struct odb_pipe *odb_pipes_take(struct odb_pipes *pipes);
/* The pipe is empty again. */
void odb_pipes_give_back(struct odb_pipe *pipe);
/* The pipe goes, with whatever is in it. */
void odb_pipes_break(struct odb_pipe *pipe);

#endif
