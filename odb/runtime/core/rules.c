/* rules.c: parses and matches address rules. */
#include "core/rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool parse_number(const char *text, size_t length, unsigned max, unsigned *out) {
    unsigned value = 0;
    if (length == 0 || length > 5) return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *out = value;
    return value <= max;
}

static bool parse_ports(struct odb_rule *rule, const char *text, size_t length) {
    const char *dash = memchr(text, '-', length);
    size_t first_length = dash ? (size_t)(dash - text) : length;
    unsigned first, last;
    if (!parse_number(text, first_length, 65535, &first)) return false;
    last = first;
    if (dash && !parse_number(dash + 1, length - first_length - 1, 65535, &last)) return false;
    rule->first_port = (uint16_t)first;
    rule->last_port = (uint16_t)last;
    return first <= last;
}

static bool parse_address(struct odb_rule *rule, const char *text, size_t length) {
    char copy[INET6_ADDRSTRLEN + 1];
    const char *slash = memchr(text, '/', length);
    size_t address_length = slash ? (size_t)(slash - text) : length;
    if (address_length >= sizeof copy) return false;
    memcpy(copy, text, address_length);
    copy[address_length] = '\0';
    unsigned bits, base;
    struct in_addr v4;
    if (inet_pton(AF_INET, copy, &v4) == 1) {
        memcpy(rule->address, mapped, sizeof mapped);
        memcpy(rule->address + 12, &v4, 4);
        base = 96;
        bits = 32;
    } else if (inet_pton(AF_INET6, copy, rule->address) == 1) {
        base = 0;
        bits = 128;
    } else {
        return false;
    }
    if (slash && !parse_number(slash + 1, length - address_length - 1, bits, &bits)) return false;
    rule->prefix = (uint8_t)(base + bits);
    return true;
}

/* Where the port part begins: after "]:" for bracketed addresses, after the only ':' otherwise; null when there is none. */
static const char *port_separator(const char *text, size_t length) {
    const char *first = memchr(text, ':', length);
    if (!first || text[0] == '[') return NULL;
    return memchr(first + 1, ':', length - (size_t)(first - text) - 1) ? NULL : first;
}

static bool parse_rule(struct odb_rule *rule, const char *text, size_t length) {
    *rule = (struct odb_rule){.first_port = 0, .last_port = 65535};
    if (length == 0) return false;
    if (text[0] == '[') {
        const char *end = memchr(text, ']', length);
        if (!end || !parse_address(rule, text + 1, (size_t)(end - text) - 1)) return false;
        size_t rest = length - (size_t)(end - text) - 1;
        return rest == 0 || (end[1] == ':' && parse_ports(rule, end + 2, rest - 1));
    }
    const char *colon = port_separator(text, length);
    size_t address_length = colon ? (size_t)(colon - text) : length;
    if (address_length > 0 && !parse_address(rule, text, address_length)) return false;
    return !colon || parse_ports(rule, colon + 1, length - address_length - 1);
}

bool odb_rules_parse(struct odb_rules *rules, const char *text) {
    memset(rules, 0, sizeof *rules);
    while (*text) {
        size_t length = strcspn(text, ",");
        const char *start = text;
        text += length + (text[length] == ',');
        while (length > 0 && *start == ' ') start++, length--;
        while (length > 0 && start[length - 1] == ' ') length--;
        if (rules->count == ODB_RULES_MAX || !parse_rule(&rules->rule[rules->count], start, length)) {
            memset(rules, 0, sizeof *rules);
            return false;
        }
        rules->count++;
    }
    return true;
}

static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits) {
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0) return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

bool odb_rules_match(const struct odb_rules *rules, const uint8_t address[16], uint16_t port) {
    for (size_t i = 0; i < rules->count; i++) {
        const struct odb_rule *rule = &rules->rule[i];
        if (port >= rule->first_port && port <= rule->last_port && same_prefix(rule->address, address, rule->prefix))
            return true;
    }
    return false;
}

bool odb_address_from(const struct sockaddr *address, uint8_t out[16], uint16_t *port) {
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        memcpy(out, mapped, sizeof mapped);
        memcpy(out + 12, &v4.sin_addr, 4);
        *port = ntohs(v4.sin_port);
        return true;
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        memcpy(out, &v6.sin6_addr, 16);
        *port = ntohs(v6.sin6_port);
        return true;
    }
    return false;
}
