/* delivery.h: whether bodies are better mapped as windows or fetched into the buffer at once.
 *
 * A process that ends up fetching nearly everything it maps (the front-end of a chain) pays for guards that protect nothing. So a while of windows is a sample; when most of its
 * bytes were fetched after all, the next bodies are fetched as they are received, and then a new sample is taken.
 * A process that passes its windows on, but has to ask for the ends of nearly each of them because its buffers begin anywhere in a page, waits for more answers than the windows
 * are worth: then the peers are asked to send real bytes for a while, before a new sample is taken.
 *
 * Thread safety: all functions; relaxed counters, an occasional miscount does no harm.
 */
#ifndef ODB_CORE_DELIVERY_H
#define ODB_CORE_DELIVERY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define ODB_DELIVERY_SAMPLE ((uint64_t)1 << 20)    /* bytes mapped before a judgement */
#define ODB_DELIVERY_TRUST ((uint64_t)64 << 20)    /* bytes fetched at once before the next sample */
#define ODB_DELIVERY_PROOFS 6u                     /* doublings of that, for real bytes */
#define ODB_DELIVERY_QUESTION ((uint64_t)64 << 10) /* bytes that are copied in the time of a question and its answer */

struct odb_delivery {
    _Atomic uint64_t mapped;       /* bytes, in this sample */
    _Atomic uint64_t materialised; /* bytes, in this sample */
    _Atomic uint64_t questions;    /* asked in this sample for what lies beside the pages of windows */
    _Atomic uint64_t fetching;     /* bytes still to be fetched at once; 0: sampling */
    _Atomic uint64_t real;         /* bytes that peers are still to send for real; 0: they need not */
    _Atomic unsigned proofs;       /* samples in a row that have shown real bytes to be cheaper */
};

static inline void odb_delivery_materialised(struct odb_delivery *delivery, uint64_t bytes) {
    atomic_fetch_add_explicit(&delivery->materialised, bytes, memory_order_relaxed);
}

/* Was it cheaper to have the ends of windows for real, in this sample? All connections take part in the next sample, so it comes the later the more often the answer was yes. */
static inline void odb_delivery_judge_ends(struct odb_delivery *delivery, bool cheaper) {
    unsigned proofs = atomic_load_explicit(&delivery->proofs, memory_order_relaxed);
    atomic_store_explicit(&delivery->proofs,
                          !cheaper                       ? 0
                          : proofs < ODB_DELIVERY_PROOFS ? proofs + 1
                                                         : proofs,
                          memory_order_relaxed);
    if (cheaper) atomic_store_explicit(&delivery->real, ODB_DELIVERY_TRUST << proofs, memory_order_relaxed);
}

/* The window that is mapped just now has not had its chance yet: the sample ends before it. `quarters`: more than so many of the bytes make it "most". */
static inline void odb_delivery_mapped(struct odb_delivery *delivery, uint64_t bytes, unsigned quarters) {
    uint64_t mapped = atomic_load_explicit(&delivery->mapped, memory_order_relaxed);
    if (mapped >= ODB_DELIVERY_SAMPLE) {
        uint64_t materialised = atomic_exchange_explicit(&delivery->materialised, 0, memory_order_relaxed);
        uint64_t questions = atomic_exchange_explicit(&delivery->questions, 0, memory_order_relaxed);
        bool fetches = materialised * 4 > mapped * quarters;
        if (fetches) atomic_store_explicit(&delivery->fetching, ODB_DELIVERY_TRUST, memory_order_relaxed);
        odb_delivery_judge_ends(delivery, !fetches && questions * ODB_DELIVERY_QUESTION > mapped);
        mapped = 0;
    }
    atomic_store_explicit(&delivery->mapped, mapped + bytes, memory_order_relaxed);
}

/* A head or tail that no window covers had to be asked for. */
static inline void odb_delivery_questioned(struct odb_delivery *delivery) {
    atomic_fetch_add_explicit(&delivery->questions, 1, memory_order_relaxed);
}

/* Are real bytes cheaper than windows whose ends have to be asked for? */
static inline bool odb_delivery_wants_real(const struct odb_delivery *delivery) {
    return atomic_load_explicit(&delivery->real, memory_order_relaxed) > 0;
}

/* Real bytes have arrived. */
static inline void odb_delivery_received(struct odb_delivery *delivery, uint64_t bytes) {
    uint64_t left = atomic_load_explicit(&delivery->real, memory_order_relaxed);
    if (left > 0) atomic_store_explicit(&delivery->real, left > bytes ? left - bytes : 0, memory_order_relaxed);
}

/* Should these bytes be fetched at once? */
static inline bool odb_delivery_fetches(struct odb_delivery *delivery, uint64_t bytes) {
    uint64_t left = atomic_load_explicit(&delivery->fetching, memory_order_relaxed);
    if (left == 0) return false;
    atomic_store_explicit(&delivery->fetching, left > bytes ? left - bytes : 0, memory_order_relaxed);
    return true;
}

#endif
