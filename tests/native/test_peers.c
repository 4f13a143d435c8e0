/* The rules that say from which origins a process fetches. */
#include "check.h"
#include "core/peers.h"

#include <arpa/inet.h>

static struct odb_options options;

static void parse(const char *text, uint8_t out[16]) {
    char mapped[64];
    if (strchr(text, ':') == NULL) {
        snprintf(mapped, sizeof mapped, "::ffff:%s", text);
        text = mapped;
    }
    REQUIRE(inet_pton(AF_INET6, text, out) == 1);
}

static bool allowed(const char *origin, uint16_t port, const char *peer) {
    uint8_t a[16], b[16];
    parse(origin, a);
    parse(peer, b);
    return odb_peers_allowed(&options, a, port, b);
}

static void without_rules(void) {
    odb_options_default(&options);
}

static void with_rules(const char *rules) {
    odb_options_default(&options);
    REQUIRE(odb_options_set(&options, "allow", rules));
}

static void the_peer_itself_and_its_network_are_allowed(void) {
    without_rules();
    CHECK(allowed("10.1.2.3", 40000, "10.1.2.3"));
    CHECK(allowed("10.1.2.77", 40000, "10.1.2.3"));
    CHECK(allowed("2001:db8:0:1::9", 40000, "2001:db8:0:1:ffff::1"));
}

static void other_networks_are_refused(void) {
    without_rules();
    CHECK(!allowed("10.1.3.3", 40000, "10.1.2.3"));
    CHECK(!allowed("2001:db8:0:2::9", 40000, "2001:db8:0:1::9"));
    CHECK(!allowed("10.1.2.3", 40000, "2001:db8::1"));
    CHECK(!allowed("2001:db8::1", 40000, "10.1.2.3"));
}

static void loopback_is_for_loopback_peers_only(void) {
    without_rules();
    CHECK(allowed("127.0.0.1", 40000, "127.0.0.1"));
    CHECK(allowed("127.9.9.9", 40000, "127.0.0.1"));
    CHECK(allowed("::1", 40000, "::1"));
    CHECK(allowed("127.0.0.1", 40000, "::1"));
    CHECK(!allowed("127.0.0.1", 40000, "10.1.2.3"));
    CHECK(!allowed("::1", 40000, "2001:db8::1"));
    CHECK(!allowed("::2", 40000, "::1"));
    CHECK(!allowed("10.1.2.3", 40000, "127.0.0.1"));
}

static void rules_alone_decide_when_there_are_any(void) {
    with_rules("10.9.0.0/16:40000-40100,127.0.0.1");
    CHECK(allowed("10.9.200.1", 40050, "192.0.2.1"));
    CHECK(!allowed("10.9.200.1", 40101, "192.0.2.1"));
    CHECK(allowed("127.0.0.1", 5, "192.0.2.1"));
    CHECK(!allowed("192.0.2.1", 40050, "192.0.2.1"));
}

static void addresses_of_nobody_are_never_allowed(void) {
    with_rules("0.0.0.0/0,::/0");
    CHECK(allowed("192.0.2.1", 1, "192.0.2.1"));
    CHECK(!allowed("192.0.2.1", 0, "192.0.2.1"));
    CHECK(!allowed("0.0.0.0", 1, "192.0.2.1"));
    CHECK(!allowed("224.0.0.1", 1, "192.0.2.1"));
    CHECK(!allowed("255.255.255.255", 1, "192.0.2.1"));
    CHECK(!allowed("::", 1, "2001:db8::1"));
    CHECK(!allowed("ff02::1", 1, "2001:db8::1"));
    without_rules();
    CHECK(!allowed("::", 1, "::"));
    CHECK(!allowed("0.0.0.0", 1, "0.0.0.0"));
}

static const struct check_case cases[] = {
    CHECK_CASE(the_peer_itself_and_its_network_are_allowed), CHECK_CASE(other_networks_are_refused),
    CHECK_CASE(loopback_is_for_loopback_peers_only),         CHECK_CASE(rules_alone_decide_when_there_are_any),
    CHECK_CASE(addresses_of_nobody_are_never_allowed),
};

CHECK_MAIN(cases)
