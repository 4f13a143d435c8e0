/* listen.h: the sockets on which the library itself accepts: channels of an origin, questions of discovery. */
#ifndef ODB_CORE_LISTEN_H
#define ODB_CORE_LISTEN_H

#include "core/rules.h"

#include <stdint.h>

/* Listens on the first address and port of `rules` that is free; without rules on any address (IPv6 and IPv4 where
 * there is IPv6) and a port that the system picks. Returns a non-blocking descriptor of the library and the port in
 * host order, or -1. */
int odb_listen(const struct odb_rules *rules, uint16_t *port);

/* Listens on any address and `port`, which other processes of the same user may share. A non-blocking descriptor of the
 * library, or -1. */
int odb_listen_together(uint16_t port);

#endif
