/* early.c: keeps one fetch per stream under way, on a channel of its own. */
#include "core/early.h"

#include "core/exact.h"
#include "core/inbox.h"
#include "core/peers.h"
#include "os/clock.h"
#include "os/real.h"

enum { MOST = 64 }; /* at once: each keeps a channel and what the kernel buffers for it */

struct odb_early {
    struct odb_channels *channels;
    struct odb_channel channel; /* channel.span: what was asked for */
    uint32_t forks;             /* of the process that has begun it */
};

static bool may(const struct odb_runtime *runtime) {
    return runtime->options.strategy != ODB_STRATEGY_DIRECT && runtime->options.delivery != ODB_DELIVERY_WINDOW;
}

static void forget(struct odb_stream *stream) {
    struct odb_early *early = stream->early;
    stream->early = NULL;
    if (early->forks == early->channels->forks) atomic_fetch_sub(&early->channels->early, 1);
    odb_real.free(early);
}

void odb_early_end(struct odb_stream *stream) {
    if (!stream->early) return;
    if (stream->early->forks == stream->early->channels->forks)
        odb_channels_abandon(stream->early->channels, &stream->early->channel);
    forget(stream);
}

static bool is_in_reach(struct odb_runtime *runtime, const struct odb_stream *stream, const struct odb_span *span) {
    const struct odb_origin_address *origin = &span->origin;
    struct odb_unreachable *unreachable = &runtime->channels.unreachable;
    return odb_peers_allowed(&runtime->options, origin->address, origin->port, stream->peer) &&
           !(odb_unreachable_any(unreachable) &&
             odb_unreachable_has(unreachable, origin->address, origin->port, odb_clock_ms()));
}

bool odb_early_begin(struct odb_runtime *runtime, struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    size_t at = in->span_at > in->head ? in->span_at - in->head : 0, left = in->span.length - at;
    struct odb_span part = odb_span_part(&in->span, at, left < ODB_EARLY_BYTES ? left : ODB_EARLY_BYTES);
    if (!may(runtime) || stream->early || part.length == 0 || !is_in_reach(runtime, stream, &part)) return false;
    if (atomic_fetch_add(&runtime->channels.early, 1) < MOST) {
        struct odb_early *early = odb_real.malloc(sizeof *early);
        if (early && odb_channels_begin(&runtime->channels, &part, &early->channel) == 0) {
            early->channels = &runtime->channels;
            early->forks = runtime->channels.forks;
            stream->early = early;
            return true;
        }
        odb_real.free(early);
    }
    atomic_fetch_sub(&runtime->channels.early, 1);
    return false;
}

size_t odb_early_has(struct odb_runtime *runtime, struct odb_stream *stream, const struct odb_span *part) {
    const struct odb_early *early = stream->early;
    if (!early) return 0;
    const struct odb_span *asked = &early->channel.span;
    uint64_t next = asked->offset + asked->length - early->channel.body_left;
    if (early->forks == runtime->channels.forks && next == part->offset && odb_span_same_payload(asked, part))
        return early->channel.body_left < part->length ? early->channel.body_left : part->length;
    odb_early_end(stream);
    return 0;
}

bool odb_early_take(struct odb_stream *stream, void *to, size_t amount) {
    struct odb_early *early = stream->early;
    bool taken = odb_channels_take(early->channels, &early->channel, to, amount) == 0;
    if (!taken || early->channel.body_left == 0) forget(stream);
    return taken;
}

/* Does this process fetch what it receives, as far as is known? */
static bool fetches(const struct odb_runtime *runtime) {
    return runtime->options.delivery == ODB_DELIVERY_FETCH ||
           atomic_load_explicit(&runtime->windows.asked.fetching, memory_order_relaxed) > 0;
}

void odb_early_look(struct odb_runtime *runtime, struct odb_stream *stream) {
    struct odb_inbox *in = &stream->in;
    if (!may(runtime) || !fetches(runtime) || odb_exact_wanted(stream) || in->kept > 0) return;
    odb_inbox_join_bytes(runtime, stream);
    if (!in->has_span || in->span_at >= in->head + in->span.length) return;
    odb_inbox_join_spans(runtime, in);
    size_t at = in->span_at > in->head ? in->span_at - in->head : 0;
    struct odb_span rest = odb_span_part(&in->span, at, in->span.length - at);
    if (rest.length >= ODB_PAGE && odb_early_has(runtime, stream, &rest) == 0) odb_early_begin(runtime, stream);
}
