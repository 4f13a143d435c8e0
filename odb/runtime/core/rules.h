/* rules.h: lists of [address[/prefix]][:port[-port]] that say where ODB is active and whom it trusts.
 *
 * Immutable after parsing. Addresses are IPv6 or IPv4-mapped, network order. A rule without address matches every address; one without port every port.
 */
#ifndef ODB_CORE_RULES_H
#define ODB_CORE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr;

#define ODB_RULES_MAX 64

struct odb_rule {
    uint8_t address[16];
    uint8_t prefix; /* 0..128, in IPv6 bits */
    uint16_t first_port;
    uint16_t last_port;
};

struct odb_rules {
    size_t count;
    struct odb_rule rule[ODB_RULES_MAX];
};

/* Parses a comma-separated list; false when a rule is malformed or there are too many (rules are then empty). */
bool odb_rules_parse(struct odb_rules *rules, const char *text);
bool odb_rules_match(const struct odb_rules *rules, const uint8_t address[16], uint16_t port);

/* Splits an AF_INET or AF_INET6 address; false for every other family. The port comes in host order. */
bool odb_address_from(const struct sockaddr *address, uint8_t out[16], uint16_t *port);

#endif
