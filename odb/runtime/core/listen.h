/* listen.h: the socket on which an origin accepts channels. */
#ifndef ODB_CORE_LISTEN_H
#define ODB_CORE_LISTEN_H

#include "core/rules.h"

#include <stdint.h>

/* Listens on the first address and port of `rules` that is free; without rules on any address (IPv6 and IPv4 where
 * there is IPv6) and a port that the system picks. Returns a non-blocking descriptor of the library and the port in
 * host order, or -1. */
int odb_listen(const struct odb_rules *rules, uint16_t *port);

#endif
