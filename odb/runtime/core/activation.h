/* activation.h: on which connections ODB is spoken: by the rules of the options, and in mode `standalone` by asking and
 * being asked.
 */
#ifndef ODB_CORE_ACTIVATION_H
#define ODB_CORE_ACTIVATION_H

#include "core/runtime.h"

void odb_activation_init(struct odb_runtime *runtime);
void odb_activation_after_fork_child(struct odb_runtime *runtime);
/* At the end of the process: its listeners leave the registry. */
void odb_activation_end(struct odb_runtime *runtime);

/* May clients of the listening descriptor `fd` speak ODB? Found out once per descriptor; in mode `standalone` it is
 * then entered in the registry, and the discovery service runs in this process. */
bool odb_activation_accepts(struct odb_runtime *runtime, int fd);

/* `fd` has begun to listen. */
void odb_activation_listens(struct odb_runtime *runtime, int fd);

/* `fd` has come under an epoll set's watch: a child of fork that waits for connections serves questions as well. */
void odb_activation_watched(struct odb_runtime *runtime, int fd);

/* Can any connection open framed at all? */
bool odb_activation_may_open(const struct odb_runtime *runtime);

/* Might odb_activation_asks() say yes? Cheap. */
bool odb_activation_may_ask(const struct odb_runtime *runtime, const uint8_t address[16], uint16_t port);

/* Is whoever listens at `address`:`port` known to speak ODB, though no rule says so? For servers on the loopback
 * interface the registry knows; others are asked, and until they have answered they are not known to. Waits for nobody. */
bool odb_activation_asks(struct odb_runtime *runtime, const uint8_t address[16], uint16_t port);

/* A connection there has failed. */
void odb_activation_failed(struct odb_runtime *runtime, const uint8_t address[16], uint16_t port);

/* `fd` is being closed or replaced. */
void odb_activation_forget(struct odb_runtime *runtime, int fd);

#endif
