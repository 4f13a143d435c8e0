/* The flat option file and its table: what is accepted, what is refused, and that a refusal changes nothing. */
#include "check.h"
#include "core/options.h"

#include <stdint.h>

static struct odb_options options;

static bool set(const char *key, const char *value) {
    return odb_options_set(&options, key, value);
}

static void check_bounds(uint64_t value, uint64_t min, uint64_t max) {
    CHECK(value >= min && value <= max);
}

/* Every row of options.def has a default that its own rules accept, and profiles are made of options that exist. */
static void defaults_and_profiles_are_values_that_would_be_accepted(void) {
    odb_options_default(&options);
#define ODB_ENUM(name, value, words, doc) CHECK(set(#name, value));
#define ODB_SET(name, value, words, doc) CHECK(set(#name, value));
#define ODB_FLAG(name, value, doc) CHECK(set(#name, value));
#define ODB_SIZE(name, value, min, max, doc) check_bounds(options.name, min, max);
#define ODB_COUNT(name, value, min, max, doc) check_bounds(options.name, min, max);
#define ODB_MS(name, value, min, max, doc) check_bounds(options.name, min, max);
#define ODB_RULES(name, value, doc) CHECK(set(#name, value));
#define ODB_PATH(name, value, doc) CHECK_STR_EQ(options.name, value);
#define ODB_PROFILE(name, pairs, doc)                                                                                  \
    {                                                                                                                  \
        char text[] = pairs;                                                                                           \
        for (char *at = text; (at = strchr(at, ' ')) != NULL;) *at = '\n';                                             \
        CHECK_EQ(odb_options_parse(&options, text), 0);                                                                \
    }
#include "options.def"
#undef ODB_ENUM
#undef ODB_SET
#undef ODB_FLAG
#undef ODB_SIZE
#undef ODB_COUNT
#undef ODB_MS
#undef ODB_RULES
#undef ODB_PATH
#undef ODB_PROFILE
}

static void defaults_are_those_of_the_table(void) {
    odb_options_default(&options);
    CHECK_EQ(options.mode, ODB_MODE_PORTS);
    CHECK_EQ(options.capture, ODB_CAPTURE_FILE | ODB_CAPTURE_MEMORY);
    CHECK(options.align && options.coalesce);
    CHECK_EQ(options.virtual_min, 32768);
    CHECK_EQ(options.memory_min, 65536);
    CHECK_EQ(options.listen.count, 0);
}

static void sizes_take_suffixes_of_1024_within_their_bounds(void) {
    odb_options_default(&options);
    CHECK(set("fault_chunk", "4096") && options.fault_chunk == 4096);
    CHECK(set("fault_chunk", "64K") && options.fault_chunk == 65536);
    CHECK(set("fault_chunk", "2M") && options.fault_chunk == 2 << 20);
    CHECK(set("store_max", "64G") && options.store_max == 64ull << 30);
    CHECK(set("store_max", "0") && options.store_max == 0);
    static const char *const bad[] = {"",
                                      " ",
                                      "K",
                                      "4k",
                                      "4KB",
                                      "4 K",
                                      "-1",
                                      "+4096",
                                      "0x1000",
                                      "4095",
                                      "65M",
                                      "1e6",
                                      "4096.0",
                                      "18446744073709551616",
                                      "18446744073709551615K",
                                      "36028797018963968K",
                                      "9999999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(!set("fault_chunk", bad[i]));
        CHECK_EQ(options.fault_chunk, 2 << 20);
    }
}

static void counts_and_times_take_no_suffix(void) {
    odb_options_default(&options);
    CHECK(set("channels_max", "4096") && options.channels_max == 4096);
    CHECK(!set("channels_max", "4K"));
    CHECK(!set("channels_max", "4097"));
    CHECK(!set("channels_max", "0"));
    CHECK(set("lease_ms", "4294967295") && options.lease_ms == UINT32_MAX);
    CHECK(!set("lease_ms", "4294967296"));
    CHECK(!set("deadline_ms", "5s"));
    CHECK_EQ(options.channels_max, 4096);
}

static void words_are_whole_words(void) {
    odb_options_default(&options);
    CHECK(set("mode", "off") && options.mode == ODB_MODE_OFF);
    static const char *const bad[] = {"", "o", "offf", "off|ports", "OFF", "ports,off", "|"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!set("mode", bad[i]));
    CHECK_EQ(options.mode, ODB_MODE_OFF);
    CHECK(set("align", "off") && !options.align);
    CHECK(set("align", "on") && options.align);
    CHECK(!set("align", "true") && !set("align", "1") && !set("align", ""));
}

static void sets_hold_each_word_once_and_may_be_empty(void) {
    odb_options_default(&options);
    CHECK(set("capture", "") && options.capture == 0);
    CHECK(set("capture", "memory") && options.capture == ODB_CAPTURE_MEMORY);
    CHECK(set("capture", "memory,file") && options.capture == (ODB_CAPTURE_MEMORY | ODB_CAPTURE_FILE));
    CHECK(!set("capture", "file,file") && !set("capture", "files") && !set("capture", "file,,memory") &&
          !set("capture", ",file"));
    CHECK_EQ(options.capture, ODB_CAPTURE_MEMORY | ODB_CAPTURE_FILE);
}

static void paths_are_absolute_and_bounded(void) {
    static char path[PATH_MAX + 1];
    odb_options_default(&options);
    CHECK(set("stats_dir", "/tmp/a b"));
    CHECK_STR_EQ(options.stats_dir, "/tmp/a b");
    CHECK(!set("stats_dir", "tmp") && !set("stats_dir", ""));
    memset(path, 'x', PATH_MAX);
    path[0] = '/';
    CHECK(!set("stats_dir", path));
    path[PATH_MAX - 1] = '\0';
    CHECK(set("stats_dir", path));
}

static void unknown_keys_are_refused(void) {
    odb_options_default(&options);
    CHECK(!set("", "on") && !set("aligned", "on") && !set("alig", "on") && !set("ALIGN", "on"));
}

static bool parse(const char *text) {
    char copy[256];
    REQUIRE(strlen(text) < sizeof copy);
    strcpy(copy, text);
    odb_options_default(&options);
    return odb_options_parse(&options, copy) == 0;
}

static void files_have_lines_comments_and_blanks(void) {
    CHECK(parse(""));
    CHECK(parse("\n\n  \n# a = b\n   # c\n"));
    CHECK(parse("align = off\r\n  virtual_min\t=\t64K  \n#x\ncoalesce=off"));
    CHECK(!options.align && !options.coalesce && options.virtual_min == 65536);
    CHECK(parse("capture =\n") && options.capture == 0);
    CHECK(parse("align = off\nalign = on\n") && options.align);
}

static void files_with_one_bad_line_are_refused(void) {
    CHECK(!parse("align"));
    CHECK(!parse("align = maybe"));
    CHECK(!parse("align = off = on"));
    CHECK(!parse("align = off\nnonsense = 1\n"));
    CHECK(!parse("= on"));
    CHECK(!parse("align on"));
}

static const struct check_case cases[] = {
    CHECK_CASE(defaults_and_profiles_are_values_that_would_be_accepted),
    CHECK_CASE(defaults_are_those_of_the_table),
    CHECK_CASE(sizes_take_suffixes_of_1024_within_their_bounds),
    CHECK_CASE(counts_and_times_take_no_suffix),
    CHECK_CASE(words_are_whole_words),
    CHECK_CASE(sets_hold_each_word_once_and_may_be_empty),
    CHECK_CASE(paths_are_absolute_and_bounded),
    CHECK_CASE(unknown_keys_are_refused),
    CHECK_CASE(files_have_lines_comments_and_blanks),
    CHECK_CASE(files_with_one_bad_line_are_refused),
};

CHECK_MAIN(cases)
