/* retire.c: makes a silent stream classic. */
#include "core/retire.h"

#include "core/sharing.h"
#include "core/sockopt.h"

/* Under both locks. The connecting side decides whether frames are spoken at all, as long as it has said nothing; an accepting side has to wait for what its peer says. */
static bool is_silent(const struct odb_stream *stream) {
    enum odb_out_mode out = atomic_load(&stream->out_mode);
    enum odb_in_mode in = atomic_load(&stream->in.mode);
    bool nothing_held = stream->in.begin == stream->in.end && !stream->in.ended && !stream->in.error &&
                        odb_outbox_is_empty(&stream->out);
    if (!nothing_held || atomic_load(&stream->undecided.listed) || stream->undecided.marked) return false;
    return (out == ODB_OUT_HELLO && in != ODB_IN_FRAMED) || (out == ODB_OUT_CLASSIC && in == ODB_IN_CLASSIC);
}

bool odb_retire(struct odb_runtime *runtime, int fd) {
    struct odb_stream *stream = odb_fdtable_hold(&runtime->fds, fd);
    if (!stream) return true;
    odb_in_take(stream);
    odb_out_take(stream);
    bool silent = is_silent(stream);
    if (silent) {
        atomic_store(&stream->in.mode, ODB_IN_CLASSIC);
        atomic_store(&stream->out_mode, ODB_OUT_CLASSIC);
    }
    odb_out_drop(stream);
    odb_in_drop(stream);
    if (silent) {
        odb_count(&runtime->stats, ODB_STAT_streams_classic, 1);
        odb_sockopt_give_back(stream, fd);
        odb_fdtable_clear(&runtime->fds, fd);
    }
    odb_fdtable_let_go(&runtime->fds, stream);
    return silent;
}
