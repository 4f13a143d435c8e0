/* What is out of reach is remembered for a while, longer each time, and forgotten when it is reached. */
#include "check.h"
#include "core/unreachable.h"

static const uint8_t first[16] = {[10] = 0xff, 0xff, 10, 0, 0, 1}, second[16] = {[10] = 0xff, 0xff, 10, 0, 0, 2};
static struct odb_unreachable table;

static void begin(void) {
    memset(&table, 0, sizeof table);
}

static void nothing_is_out_of_reach_at_first(void) {
    begin();
    CHECK(!odb_unreachable_any(&table));
    CHECK(!odb_unreachable_has(&table, first, 80, 1));
}

static void address_and_port_are_remembered_for_a_minute(void) {
    begin();
    odb_unreachable_add(&table, first, 80, 1000);
    CHECK(odb_unreachable_any(&table));
    CHECK(odb_unreachable_has(&table, first, 80, 1000));
    CHECK(odb_unreachable_has(&table, first, 80, 999 + ODB_UNREACHABLE_FIRST_MS));
    CHECK(!odb_unreachable_has(&table, first, 80, 1000 + ODB_UNREACHABLE_FIRST_MS));
    CHECK(!odb_unreachable_has(&table, first, 81, 1000));
    CHECK(!odb_unreachable_has(&table, second, 80, 1000));
}

/* How long it is remembered from `now` on. */
static uint64_t remembered(uint64_t now) {
    uint64_t low = 0, high = 2 * ODB_UNREACHABLE_LAST_MS;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (odb_unreachable_has(&table, first, 80, now + middle))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void finding_it_again_while_it_is_known_changes_nothing(void) {
    begin();
    odb_unreachable_add(&table, first, 80, 1000);
    odb_unreachable_add(&table, first, 80, 2000);
    CHECK_EQ(remembered(1000), ODB_UNREACHABLE_FIRST_MS);
}

static void every_new_trial_that_fails_doubles_the_time_up_to_an_hour(void) {
    uint64_t now = 1000, expected = ODB_UNREACHABLE_FIRST_MS;
    begin();
    for (int i = 0; i < 10; i++) {
        odb_unreachable_add(&table, first, 80, now);
        CHECK_EQ(remembered(now), expected);
        now += expected;
        expected = expected * 2 < ODB_UNREACHABLE_LAST_MS ? expected * 2 : ODB_UNREACHABLE_LAST_MS;
    }
    CHECK_EQ(expected, ODB_UNREACHABLE_LAST_MS);
}

static void an_old_failure_does_not_count(void) {
    begin();
    odb_unreachable_add(&table, first, 80, 1000);
    odb_unreachable_add(&table, first, 80, 1000 + 2 * ODB_UNREACHABLE_FIRST_MS);
    CHECK_EQ(remembered(1000 + 2 * ODB_UNREACHABLE_FIRST_MS), ODB_UNREACHABLE_FIRST_MS);
}

static void what_is_reached_is_forgotten(void) {
    begin();
    odb_unreachable_add(&table, first, 80, 1000);
    odb_unreachable_add(&table, second, 80, 1000);
    odb_unreachable_forget(&table, first, 80);
    CHECK(!odb_unreachable_has(&table, first, 80, 1000));
    CHECK(odb_unreachable_has(&table, second, 80, 1000));
    odb_unreachable_forget(&table, first, 80);
    odb_unreachable_forget(&table, second, 80);
    CHECK(!odb_unreachable_any(&table));
}

static void a_full_table_gives_up_what_is_over_soonest(void) {
    begin();
    for (uint16_t port = 1; port <= ODB_UNREACHABLE + 1; port++) odb_unreachable_add(&table, first, port, 1000u + port);
    CHECK_EQ(atomic_load(&table.count), ODB_UNREACHABLE);
    CHECK(!odb_unreachable_has(&table, first, 1, 2000));
    for (uint16_t port = 2; port <= ODB_UNREACHABLE + 1; port++) CHECK(odb_unreachable_has(&table, first, port, 2000));
}

static void only_the_network_says_so(void) {
    CHECK(odb_unreachable_says(ECONNREFUSED));
    CHECK(odb_unreachable_says(ETIMEDOUT));
    CHECK(odb_unreachable_says(ENETUNREACH));
    CHECK(!odb_unreachable_says(EMFILE));
    CHECK(!odb_unreachable_says(ECONNRESET));
    CHECK(!odb_unreachable_says(0));
}

static const struct check_case cases[] = {
    CHECK_CASE(nothing_is_out_of_reach_at_first),
    CHECK_CASE(address_and_port_are_remembered_for_a_minute),
    CHECK_CASE(finding_it_again_while_it_is_known_changes_nothing),
    CHECK_CASE(every_new_trial_that_fails_doubles_the_time_up_to_an_hour),
    CHECK_CASE(an_old_failure_does_not_count),
    CHECK_CASE(what_is_reached_is_forgotten),
    CHECK_CASE(a_full_table_gives_up_what_is_over_soonest),
    CHECK_CASE(only_the_network_says_so),
};
CHECK_MAIN(cases)
