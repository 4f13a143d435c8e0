/* store_reap.h: what capturing and reclaiming share within the store. */
#ifndef ODB_CORE_STORE_REAP_H
#define ODB_CORE_STORE_REAP_H

#include "core/store.h"

/* How long after its last announcement a payload stays, in its present state. The lock is held. */
uint64_t odb_store_keep_ms(const struct odb_store *store, const struct odb_payload *payload);

/* For a capture that found no room: reaps, and takes descriptors from the oldest file payloads that are past their
 * lease. */
void odb_store_make_room(struct odb_store *store, uint64_t now_ms);

#endif
