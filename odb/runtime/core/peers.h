/* peers.h: from which origins a process fetches, so that a forged descriptor cannot make it connect to just anywhere.
 * Pure; thread- and signal-safe. */
#ifndef ODB_CORE_PEERS_H
#define ODB_CORE_PEERS_H

#include "core/options.h"

#include <stdbool.h>
#include <stdint.h>

/* May payloads be fetched from `origin`:`port`, announced on a stream whose peer is `stream_peer`? Addresses are IPv6
 * or IPv4-mapped, network order. With rules in `allow` they alone decide. Without: the peer itself, its /24 (IPv4) or
 * /64 (IPv6) network; loopback only for a loopback peer. Port 0, unspecified, multicast and broadcast addresses are
 * never allowed. */
bool odb_peers_allowed(const struct odb_options *options, const uint8_t origin[16], uint16_t port,
                       const uint8_t stream_peer[16]);

#endif
