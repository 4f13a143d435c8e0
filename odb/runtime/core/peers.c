/* peers.c: decides which origins may be connected to. */
#include "core/peers.h"

#include <string.h>

static bool is_v4(const uint8_t address[16]) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(address, mapped, sizeof mapped) == 0;
}

static bool is_loopback(const uint8_t address[16]) {
    static const uint8_t loopback[16] = {[15] = 1};
    return is_v4(address) ? address[12] == 127 : memcmp(address, loopback, sizeof loopback) == 0;
}

/* Addresses that name no single host: 0.0.0.0/8, 224.0.0.0/3 (multicast, reserved, broadcast), ::, ff00::/8. */
static bool is_nobody(const uint8_t address[16]) {
    static const uint8_t unspecified[16];
    if (is_v4(address)) {
        return address[12] == 0 || address[12] >= 224;
    }
    return address[0] == 0xff || memcmp(address, unspecified, sizeof unspecified) == 0;
}

bool odb_peers_allowed(const struct odb_options *options, const uint8_t origin[16], uint16_t port,
                       const uint8_t stream_peer[16]) {
    if (port == 0 || is_nobody(origin)) {
        return false;
    }
    if (options->allow.count > 0) {
        return odb_rules_match(&options->allow, origin, port);
    }
    if (is_loopback(origin) || is_loopback(stream_peer)) {
        return is_loopback(origin) && is_loopback(stream_peer);
    }
    return is_v4(origin) == is_v4(stream_peer) && memcmp(origin, stream_peer, is_v4(origin) ? 15 : 8) == 0;
}
