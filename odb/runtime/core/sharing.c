/* sharing.c: moves the state of streams between processes' own memory and the memory that they share. */
#include "core/sharing.h"

#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PULLED = 262144, /* body bytes that a receive fetches ahead into the head */
    EDGES = (int)(ODB_WIRE_HEAD_MAX + ODB_WIRE_TAIL_MAX) + PULLED,
    PARKED = EDGES + (1 << 20), /* the rest of a frame */
    PATIENCE = 1000             /* turns that a fork waits for another thread to let go of a stream */
};

#define TAKEN UINT32_C(0x80000000) /* instead of a number of holders: the last of them has it to itself again */

static _Thread_local uint64_t forked; /* the walk of this thread's last fork */

/* Pages of it that nothing was written to do not exist. */
struct odb_sharing {
    pthread_mutex_t in_lock, out_lock; /* robust: they outlive a killed process */
    _Atomic uint32_t holders;          /* processes; or TAKEN */
    _Atomic bool broken;               /* one of them was killed at work */
    _Atomic int out_mode; /* enum odb_out_mode: the highest that one of them knows of; none ever goes back */
    _Atomic int in_mode;  /* enum odb_in_mode */
    uint64_t hinted_geometry, peer_geometry;
    size_t parked_length;
    struct odb_inbox inbox; /* from `decoder` on, without the pointers */
    uint8_t buffer[ODB_STREAM_BUFFER], edges[EDGES], parked[PARKED];
};

static size_t edges_of(const struct odb_inbox *in) {
    return in->has_span ? in->head + in->tail : 0;
}

/* Everything that only the lock protects, but the memory that `buffer` and `edges` point to. */
static void copy_fields(struct odb_inbox *to, const struct odb_inbox *from) {
    uint8_t *buffer = to->buffer, *edges = to->edges;
    memcpy(&to->decoder, &from->decoder, sizeof *to - offsetof(struct odb_inbox, decoder));
    to->buffer = buffer;
    to->edges = edges;
}

static void raise_out_mode(struct odb_sharing *sharing, int mode) {
    int known = atomic_load(&sharing->out_mode);
    while (known < mode && !atomic_compare_exchange_weak(&sharing->out_mode, &known, mode)) continue;
}

static void put_in(struct odb_stream *stream) {
    struct odb_sharing *sharing = stream->sharing;
    struct odb_inbox *in = &stream->in;
    copy_fields(&sharing->inbox, in);
    if (in->end > in->begin) memcpy(sharing->buffer + in->begin, in->buffer + in->begin, in->end - in->begin);
    if (edges_of(in) > 0) memcpy(sharing->edges, in->edges, edges_of(in));
    sharing->peer_geometry = atomic_load(&stream->peer_geometry);
    atomic_store(&sharing->in_mode, (int)atomic_load(&in->mode));
    raise_out_mode(sharing, (int)atomic_load(&stream->out_mode));
}

static bool make_room(uint8_t **memory, size_t size) {
    if (!*memory) *memory = odb_real.malloc(size);
    return *memory != NULL;
}

static void get_modes(struct odb_stream *stream) {
    struct odb_sharing *sharing = stream->sharing;
    raise_out_mode(sharing, (int)atomic_load(&stream->out_mode));
    atomic_store(&stream->out_mode, (enum odb_out_mode)atomic_load(&sharing->out_mode));
    atomic_store(&stream->in.mode, (enum odb_in_mode)atomic_load(&sharing->in_mode));
}

/* What cannot be had is lost: the same as after a process that was killed. */
static void mark_broken(struct odb_stream *stream) {
    stream->in.begin = stream->in.end = stream->in.real = stream->in.kept = 0;
    stream->in.has_span = false;
    stream->in.error = ECONNRESET;
    stream->in.ended = true;
}

static void get_in(struct odb_stream *stream) {
    struct odb_sharing *sharing = stream->sharing;
    struct odb_inbox *in = &stream->in;
    copy_fields(in, &sharing->inbox);
    odb_real.free(in->edges);
    in->edges = NULL;
    bool buffer = in->begin == in->end || make_room(&in->buffer, ODB_STREAM_BUFFER);
    bool edges = edges_of(in) == 0 || make_room(&in->edges, edges_of(in));
    if (buffer && in->begin < in->end) memcpy(in->buffer + in->begin, sharing->buffer + in->begin, in->end - in->begin);
    if (in->edges && edges_of(in) > 0) memcpy(in->edges, sharing->edges, edges_of(in));
    if (!buffer || !edges || (atomic_load(&sharing->broken) && !in->ended)) mark_broken(stream);
    atomic_store(&stream->peer_geometry, sharing->peer_geometry);
    atomic_store(&in->drained, false);
    get_modes(stream);
}

static void put_out(struct odb_stream *stream) {
    struct odb_sharing *sharing = stream->sharing;
    struct odb_outbox *out = &stream->out;
    sharing->parked_length = out->end - out->begin;
    if (sharing->parked_length > 0) memcpy(sharing->parked, out->parked + out->begin, sharing->parked_length);
    odb_outbox_forget(out);
    sharing->hinted_geometry = stream->hinted_geometry;
    raise_out_mode(sharing, (int)atomic_load(&stream->out_mode));
}

static void get_out(struct odb_stream *stream) {
    struct odb_sharing *sharing = stream->sharing;
    struct odb_outbox *out = &stream->out;
    odb_outbox_forget(out);
    if (sharing->parked_length > 0 && make_room(&out->parked, sharing->parked_length)) {
        memcpy(out->parked, sharing->parked, sharing->parked_length);
        out->end = sharing->parked_length;
        out->stalled = true;
    } else if (sharing->parked_length > 0) {
        atomic_store(&sharing->broken, true);
    }
    if (atomic_load(&sharing->broken)) out->error = ECONNRESET;
    stream->hinted_geometry = sharing->hinted_geometry;
    get_modes(stream);
}

static pthread_mutex_t *mutex_of(struct odb_sharing *sharing, bool in) {
    return in ? &sharing->in_lock : &sharing->out_lock;
}

/* A holder that has ended in between has left the state as it was, and may have moved bytes that this state does not know of. */
static bool lock_shared(struct odb_sharing *sharing, bool in, bool wait) {
    pthread_mutex_t *mutex = mutex_of(sharing, in);
    int error = wait ? pthread_mutex_lock(mutex) : pthread_mutex_trylock(mutex);
    if (error == EOWNERDEAD) {
        atomic_store(&sharing->broken, true);
        error = pthread_mutex_consistent(mutex);
    }
    return error == 0;
}

static void give_up(struct odb_stream *stream) {
    struct odb_sharing *sharing = stream->sharing;
    stream->sharing = NULL;
    odb_real.munmap(sharing, sizeof *sharing);
}

/* Nobody else has the stream any more. Under one private lock and the shared one that belongs to it; the other private lock is only tried for: next time will do. */
static void become_sole(struct odb_stream *stream, bool in) {
    struct odb_sharing *sharing = stream->sharing;
    struct odb_lock *other = in ? &stream->out.lock : &stream->in.lock;
    uint32_t alone = 1;
    if (!odb_lock_try(other)) return;
    bool locked = lock_shared(sharing, !in, false);
    if (locked && !atomic_compare_exchange_strong(&sharing->holders, &alone, TAKEN)) {
        pthread_mutex_unlock(mutex_of(sharing, !in)); /* somebody's exec has failed */
    } else if (locked) {
        in ? get_out(stream) : get_in(stream);
        pthread_mutex_unlock(mutex_of(sharing, !in));
        pthread_mutex_unlock(mutex_of(sharing, in));
        give_up(stream);
    }
    odb_lock_drop(other);
}

bool odb_sharing_enter(struct odb_stream *stream, bool in, bool wait) {
    int saved = errno;
    bool entered = lock_shared(stream->sharing, in, wait);
    if (entered) {
        in ? get_in(stream) : get_out(stream);
        if (atomic_load(&stream->sharing->holders) == 1 && !stream->retreated) become_sole(stream, in);
    }
    errno = saved;
    return entered;
}

void odb_sharing_leave(struct odb_stream *stream, bool in) {
    in ? put_in(stream) : put_out(stream);
    pthread_mutex_unlock(mutex_of(stream->sharing, in));
}

static struct odb_sharing *make(void) {
    pthread_mutexattr_t attributes;
    int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
    struct odb_sharing *sharing = odb_real.mmap(NULL, sizeof *sharing, protection, flags, -1, 0);
    if (sharing == MAP_FAILED) return NULL;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&sharing->in_lock, &attributes);
    pthread_mutex_init(&sharing->out_lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    atomic_store(&sharing->holders, 1);
    return sharing;
}

static bool try_both(struct odb_stream *stream) {
    for (int turn = 0; turn < PATIENCE; turn++, sched_yield()) {
        if (!odb_lock_try(&stream->in.lock)) continue;
        if (odb_lock_try(&stream->out.lock)) return true;
        odb_lock_drop(&stream->in.lock);
    }
    return false;
}

/* One more process will have it. */
static void share(struct odb_stream *stream) {
    stream->passed_on = false;
    stream->busy = !try_both(stream);
    if (stream->busy) return;
    struct odb_outbox *out = &stream->out;
    if (!stream->sharing && !odb_outbox_is_empty(out) && !out->stalled) { /* held since a moment ago: core/hold.h */
        out->held.patient = true;
        int result = odb_outbox_flush(out, out->held.fd);
        out->held.patient = false;
        if (result < 0 && result != -EAGAIN) out->error = -result;
    }
    if (!stream->sharing && (stream->sharing = make()) != NULL) {
        put_in(stream);
        put_out(stream);
    }
    stream->passed_on = stream->sharing != NULL;
    if (stream->sharing) atomic_fetch_add(&stream->sharing->holders, 1);
    odb_lock_drop(&stream->out.lock);
    odb_lock_drop(&stream->in.lock);
}

/* Every stream once, however many descriptors stand for it. */
static void each_stream(struct odb_fdtable *table, void (*act)(struct odb_stream *stream)) {
    if (atomic_load(&table->streams) == 0) return;
    uint64_t round = ++table->round;
    for (int fd = 0; fd <= atomic_load(&table->highest); fd++) {
        struct odb_stream *stream = odb_fdtable_hold(table, fd);
        if (!stream) continue;
        if (stream->round != round) act(stream);
        stream->round = round;
        odb_fdtable_let_go(table, stream);
    }
}

void odb_sharing_before_fork(struct odb_fdtable *table) {
    odb_lock_take(&table->forking);
    each_stream(table, share);
    forked = table->round;
    if (atomic_load(&table->streams) > 0) atomic_store(&table->shared, true);
}

void odb_sharing_after_fork_parent(struct odb_fdtable *table) {
    odb_lock_drop(&table->forking);
}

/* Another thread may have forked since, and have shared it anew: then it stays shared. */
static void take_back(struct odb_stream *stream) {
    if (!stream->passed_on || stream->round != forked) return;
    stream->passed_on = false;
    if (stream->sharing) atomic_fetch_sub(&stream->sharing->holders, 1);
}

void odb_sharing_after_failed_fork(struct odb_fdtable *table) {
    odb_lock_take(&table->forking);
    each_stream(table, take_back);
    odb_lock_drop(&table->forking);
}

/* A thread of the parent was at work on it, or another process has it to itself: nobody here knows where it stands. Good for being closed. */
static void spoil(struct odb_stream *stream) {
    if (stream->sharing) give_up(stream); /* this process is not counted */
    if (atomic_load(&stream->in.mode) == ODB_IN_CLASSIC && atomic_load(&stream->out_mode) == ODB_OUT_CLASSIC) return;
    mark_broken(stream);
    stream->out.error = ECONNRESET;
}

/* Threads of the parent may have been at work: what is in our memory means nothing, what is shared counts. */
static void begin_anew(struct odb_stream *stream) {
    struct odb_outbox *out = &stream->out;
    if (out->held.listed) atomic_fetch_sub(&stream->references, 1);
    out->held = (struct odb_held){.last = ODB_WIRE_HELLO};
    if (out->watching) { /* by a helper thread that does not exist here */
        if (odb_fds_is_internal(out->watch.fd)) odb_fds_close(out->watch.fd);
        atomic_fetch_sub(&stream->references, 1);
    }
    odb_lock_reset(&stream->in.lock);
    odb_lock_reset(&out->lock);
    atomic_store(&stream->in.waiters, 0);
    if (stream->passed_on || stream->busy) stream->in.buffer = stream->in.edges = NULL;
    out->parked = NULL;
    out->begin = out->end = out->room = 0;
    out->watching = out->shutdown = out->stalled = false;
    out->error = 0;
    if (stream->busy) spoil(stream);
}

void odb_sharing_after_fork_child(struct odb_fdtable *table) {
    odb_lock_reset(&table->forking);
    atomic_store(&table->outboxes.waiting, 0);
    each_stream(table, begin_anew);
}

/* Under the inbox's private lock. */
static void leave(struct odb_stream *stream) {
    if (!stream->sharing || stream->retreated) return;
    stream->retreated = true;
    atomic_fetch_sub(&stream->sharing->holders, 1);
}

/* Whoever is at work on it while the process ends keeps it. */
static void retreat(struct odb_stream *stream) {
    if (!odb_lock_try(&stream->in.lock)) return;
    leave(stream);
    odb_lock_drop(&stream->in.lock);
}

/* False: another process has had it to itself since, and does not look at what was shared any more. */
static bool is_held(struct odb_sharing *sharing) {
    uint32_t holders = atomic_load(&sharing->holders);
    while (holders != TAKEN && !atomic_compare_exchange_weak(&sharing->holders, &holders, holders + 1)) continue;
    return holders != TAKEN;
}

static void come_back(struct odb_stream *stream) {
    odb_lock_take(&stream->in.lock);
    odb_lock_take(&stream->out.lock);
    if (stream->sharing && stream->retreated) {
        stream->retreated = false;
        if (!is_held(stream->sharing)) spoil(stream);
    }
    odb_lock_drop(&stream->out.lock);
    odb_lock_drop(&stream->in.lock);
}

void odb_sharing_before_end(struct odb_fdtable *table) {
    if (!odb_lock_try(&table->forking)) return;
    each_stream(table, retreat);
    odb_lock_drop(&table->forking);
}

void odb_sharing_after_failed_exec(struct odb_fdtable *table) {
    odb_lock_take(&table->forking);
    each_stream(table, come_back);
    odb_lock_drop(&table->forking);
}

/* Under out.lock. The slot is emptied before the number can stand for something else, so this copy is of the stream's socket. */
static void send_parked(struct odb_fdtable *table, struct odb_stream *stream, int fd) {
    struct odb_outbox *out = &stream->out;
    int copy = odb_fds_adopt(odb_real.fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (copy < 0) return;
    if (atomic_load(&table->slots[fd].stream) == stream) {
        out->held.patient = true;
        int result = odb_outbox_flush(out, copy);
        out->held.patient = false;
        if (result < 0 && result != -EAGAIN) out->error = -result;
    }
    odb_fds_close(copy);
}

static void look_after(struct odb_fdtable *table, struct odb_stream *stream, int fd) {
    if (!odb_lock_try(&stream->out.lock)) return;
    bool entered = stream->sharing && odb_sharing_enter(stream, false, false);
    if (entered && !odb_outbox_is_empty(&stream->out) && !stream->out.watching) send_parked(table, stream, fd);
    if (entered)
        odb_out_drop(stream);
    else
        odb_lock_drop(&stream->out.lock);
}

void odb_sharing_tick(struct odb_fdtable *table) {
    if (!atomic_load(&table->shared) || !odb_lock_try(&table->forking)) return;
    for (int fd = 0; fd <= atomic_load(&table->highest); fd++) {
        struct odb_stream *stream = odb_fdtable_hold(table, fd);
        if (!stream) continue;
        look_after(table, stream, fd);
        odb_fdtable_let_go(table, stream);
    }
    odb_lock_drop(&table->forking);
}

void odb_sharing_close(struct odb_stream *stream) {
    if (!stream->sharing) return;
    leave(stream);
    give_up(stream);
}
