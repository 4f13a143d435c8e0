/* pipes.c: makes, keeps and closes pipes. */
#include "core/pipes.h"

#include "os/fds.h"
#include "os/real.h"

#include <unistd.h>

enum use { NONE, IDLE, TAKEN };

void odb_pipes_init(struct odb_pipes *pipes) {
    for (uint32_t i = 0; i < ODB_PIPES; i++) {
        atomic_store(&pipes->pipe[i].out_of, -1);
        atomic_store(&pipes->pipe[i].into, -1);
        atomic_store(&pipes->pipe[i].use, NONE);
    }
}

/* Forgotten before they are closed, so that a forked child never closes a stranger. */
static void close_ends(struct odb_pipe *pipe) {
    int out_of = atomic_exchange(&pipe->out_of, -1), into = atomic_exchange(&pipe->into, -1);
    if (odb_fds_is_internal(out_of)) odb_fds_close(out_of);
    if (odb_fds_is_internal(into)) odb_fds_close(into);
}

void odb_pipes_after_fork_child(struct odb_pipes *pipes) {
    for (uint32_t i = 0; i < ODB_PIPES; i++) odb_pipes_break(&pipes->pipe[i]);
}

static bool claim(struct odb_pipe *pipe, int use) {
    return atomic_load_explicit(&pipe->use, memory_order_relaxed) == use &&
           atomic_compare_exchange_strong(&pipe->use, &use, TAKEN);
}

static bool make(struct odb_pipe *pipe) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) {
        odb_real.fcntl(ends[1], F_SETPIPE_SZ, ODB_PIPE_SIZE);
        atomic_store(&pipe->out_of, odb_fds_adopt(ends[0]));
        atomic_store(&pipe->into, odb_fds_adopt(ends[1]));
        return true;
    }
    atomic_store(&pipe->use, NONE);
    return false;
}

struct odb_pipe *odb_pipes_take(struct odb_pipes *pipes) {
    for (uint32_t i = 0; i < ODB_PIPES; i++)
        if (claim(&pipes->pipe[i], IDLE)) return &pipes->pipe[i];
    for (uint32_t i = 0; i < ODB_PIPES; i++)
        if (claim(&pipes->pipe[i], NONE)) return make(&pipes->pipe[i]) ? &pipes->pipe[i] : NULL;
    return NULL;
}

void odb_pipes_give_back(struct odb_pipe *pipe) {
    atomic_store(&pipe->use, IDLE);
}

void odb_pipes_break(struct odb_pipe *pipe) {
    close_ends(pipe);
    atomic_store(&pipe->use, NONE);
}
