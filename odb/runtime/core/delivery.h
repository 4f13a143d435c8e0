/* delivery.h: whether bodies are better mapped as windows or fetched into the buffer at once.
 *
 * A process that ends up fetching nearly everything it maps (the front-end of a chain) pays for guards that protect nothing. So a while of windows is a sample; when most of its
 * bytes were fetched after all, the next bodies are fetched as they are received, and then a new sample is taken.
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
#define ODB_DELIVERY_QUESTION ((uint64_t)64 << 10) /* bytes that are copied in the time of a question and its answer */

struct odb_delivery {
    _Atomic uint64_t mapped;       /* bytes, in this sample */
    _Atomic uint64_t materialised; /* bytes, in this sample */
    _Atomic uint64_t fetching;     /* bytes still to be fetched at once; 0: sampling */
};

static inline void odb_delivery_materialised(struct odb_delivery *delivery, uint64_t bytes) {
    atomic_fetch_add_explicit(&delivery->materialised, bytes, memory_order_relaxed);
}

/* The window that is mapped just now has not had its chance yet: the sample ends before it. `quarters`: more than so many of the bytes make it "most". */
static inline void odb_delivery_mapped(struct odb_delivery *delivery, uint64_t bytes, unsigned quarters) {
    uint64_t mapped = atomic_load_explicit(&delivery->mapped, memory_order_relaxed);
    if (mapped >= ODB_DELIVERY_SAMPLE) {
        uint64_t materialised = atomic_exchange_explicit(&delivery->materialised, 0, memory_order_relaxed);
        if (materialised * 4 > mapped * quarters)
            atomic_store_explicit(&delivery->fetching, ODB_DELIVERY_TRUST, memory_order_relaxed);
        mapped = 0;
    }
    atomic_store_explicit(&delivery->mapped, mapped + bytes, memory_order_relaxed);
}

/* Should these bytes be fetched at once? */
static inline bool odb_delivery_fetches(struct odb_delivery *delivery, uint64_t bytes) {
    uint64_t left = atomic_load_explicit(&delivery->fetching, memory_order_relaxed);
    if (left == 0) return false;
    atomic_store_explicit(&delivery->fetching, left > bytes ? left - bytes : 0, memory_order_relaxed);
    return true;
}

#endif
