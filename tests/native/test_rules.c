/* Address rules: what they say and what they match. */
#include "check.h"
#include "core/rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

static struct odb_rules rules;

static bool matches(const char *address, uint16_t port) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    uint8_t bytes[16];
    uint16_t found;
    if (inet_pton(AF_INET, address, &v4.sin_addr) == 1)
        REQUIRE(odb_address_from((struct sockaddr *)&v4, bytes, &found));
    else
        REQUIRE(inet_pton(AF_INET6, address, &v6.sin6_addr) == 1 &&
                odb_address_from((struct sockaddr *)&v6, bytes, &found));
    CHECK_EQ(found, port);
    return odb_rules_match(&rules, bytes, found);
}

static void rule_without_rules_matches_nobody(void) {
    CHECK(odb_rules_parse(&rules, ""));
    CHECK_EQ(rules.count, 0);
    CHECK(!matches("127.0.0.1", 80));
}

static void port_alone_matches_every_address(void) {
    CHECK(odb_rules_parse(&rules, ":8080"));
    CHECK(matches("127.0.0.1", 8080) && matches("::1", 8080) && matches("2001:db8::5", 8080));
    CHECK(!matches("127.0.0.1", 8081) && !matches("127.0.0.1", 0));
}

static void port_ranges_are_inclusive(void) {
    CHECK(odb_rules_parse(&rules, "10.0.0.1:8000-8010"));
    CHECK(matches("10.0.0.1", 8000) && matches("10.0.0.1", 8010));
    CHECK(!matches("10.0.0.1", 7999) && !matches("10.0.0.1", 8011) && !matches("10.0.0.2", 8005));
}

static void prefixes_compare_exactly_their_bits(void) {
    for (unsigned bits = 0; bits <= 32; bits++) {
        char text[64], other[INET_ADDRSTRLEN];
        snprintf(text, sizeof text, "170.85.170.85/%u", bits);
        CHECK(odb_rules_parse(&rules, text));
        CHECK(matches("170.85.170.85", 1));
        for (unsigned flipped = 0; flipped < 32; flipped++) {
            struct in_addr address = {.s_addr = htonl(0xAA55AA55u ^ (0x80000000u >> flipped))};
            REQUIRE(inet_ntop(AF_INET, &address, other, sizeof other) != NULL);
            CHECK_EQ(matches(other, 1), flipped >= bits);
        }
        CHECK(!matches("2001:db8::1", 1)); /* IPv4 prefixes, /0 too, speak of IPv4 */
    }
}

static void ipv6_addresses_stand_bare_or_in_brackets(void) {
    CHECK(odb_rules_parse(&rules, "2001:db8::/32,[fe80::1]:80,[::1],[2001:db9::/48]:1-2"));
    CHECK_EQ(rules.count, 4);
    CHECK(matches("2001:db8:ffff::1", 9) && matches("fe80::1", 80) && matches("::1", 1) &&
          matches("2001:db9:0:1::", 2));
    CHECK(!matches("2001:db7::1", 9) && !matches("fe80::1", 81) && !matches("2001:db9:1::", 2) &&
          !matches("2001:db9::", 3));
}

static void mapped_addresses_are_the_ipv4_ones(void) {
    CHECK(odb_rules_parse(&rules, "10.1.0.0/16"));
    CHECK(matches("::ffff:10.1.2.3", 5));
    CHECK(!matches("::ffff:10.2.2.3", 5));
}

static void lists_allow_blanks_around_rules(void) {
    CHECK(odb_rules_parse(&rules, " 10.0.0.1:80 , :443 "));
    CHECK_EQ(rules.count, 2);
    CHECK(matches("10.0.0.1", 80) && matches("10.9.9.9", 443));
}

static void malformed_rules_are_refused_and_leave_none(void) {
    static const char *const bad[] = {",",
                                      "10.0.0.1,,:80",
                                      " ",
                                      "10.0.0",
                                      "10.0.0.1.2",
                                      "10.0.0.1/33",
                                      "10.0.0.1/",
                                      "10.0.0.1/-1",
                                      "::1/129",
                                      "10.0.0.1:",
                                      ":65536",
                                      ":80-",
                                      ":-80",
                                      ":90-80",
                                      ":80-90-100",
                                      "[::1",
                                      "[::1]80",
                                      "[::1]:",
                                      "[]",
                                      "[]:80",
                                      "host:80",
                                      "10.0.0.1:http",
                                      ": 80",
                                      ":80 90",
                                      "10.0.0.1:8 0",
                                      ":000080",
                                      "1:2:3",
                                      "[10.0.0.1]:99999",
                                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[200];
        snprintf(text, sizeof text, "10.0.0.1:80,%s", bad[i]);
        if (!CHECK(!odb_rules_parse(&rules, text))) fprintf(stderr, "accepted: %s\n", bad[i]);
        CHECK_EQ(rules.count, 0);
    }
}

static void number_of_rules_is_bounded(void) {
    char text[ODB_RULES_MAX * 8 + 16] = "";
    for (int i = 0; i < ODB_RULES_MAX; i++) snprintf(text + strlen(text), 16, "%s:%d", i ? "," : "", 1000 + i);
    CHECK(odb_rules_parse(&rules, text));
    CHECK_EQ(rules.count, ODB_RULES_MAX);
    CHECK(matches("1.2.3.4", 1000 + ODB_RULES_MAX - 1));
    strcat(text, ",:1");
    CHECK(!odb_rules_parse(&rules, text));
}

static void other_families_have_no_address(void) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    uint8_t bytes[16];
    uint16_t port;
    CHECK(!odb_address_from((struct sockaddr *)&local, bytes, &port));
}

static const struct check_case cases[] = {
    CHECK_CASE(rule_without_rules_matches_nobody),
    CHECK_CASE(port_alone_matches_every_address),
    CHECK_CASE(port_ranges_are_inclusive),
    CHECK_CASE(prefixes_compare_exactly_their_bits),
    CHECK_CASE(ipv6_addresses_stand_bare_or_in_brackets),
    CHECK_CASE(mapped_addresses_are_the_ipv4_ones),
    CHECK_CASE(lists_allow_blanks_around_rules),
    CHECK_CASE(malformed_rules_are_refused_and_leave_none),
    CHECK_CASE(number_of_rules_is_bounded),
    CHECK_CASE(other_families_have_no_address),
};

CHECK_MAIN(cases)
