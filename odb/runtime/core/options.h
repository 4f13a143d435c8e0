/* options.h: what can be set, as one immutable structure made from options.def and the flat option file that `odb run` writes.
 *
 * Thread safety: written once before other threads exist, read-only afterwards.
 */
#ifndef ODB_CORE_OPTIONS_H
#define ODB_CORE_OPTIONS_H

#include "core/rules.h"

#include <limits.h>

enum { ODB_MODE_OFF, ODB_MODE_PORTS, ODB_MODE_STANDALONE }; /* the words of `mode`, in the order of options.def */
enum { ODB_STRATEGY_STATIC, ODB_STRATEGY_DYNAMIC, ODB_STRATEGY_ANTICIPATED, ODB_STRATEGY_DIRECT };
enum { ODB_DELIVERY_WINDOW, ODB_DELIVERY_FETCH, ODB_DELIVERY_LEARN };
enum { ODB_GUARD_STICKY, ODB_GUARD_EAGER };
enum { ODB_READINESS_INJECT, ODB_READINESS_LEVEL };
enum { ODB_CAPTURE_FILE = 1, ODB_CAPTURE_MEMORY = 2, ODB_CAPTURE_READS = 4 }; /* the words of `capture`, as bits */

struct odb_options {
#define ODB_ENUM(name, value, words, doc) unsigned name;
#define ODB_SET(name, value, words, doc) unsigned name;
#define ODB_FLAG(name, value, doc) bool name;
#define ODB_SIZE(name, value, min, max, doc) uint64_t name;
#define ODB_COUNT(name, value, min, max, doc) uint64_t name;
#define ODB_MS(name, value, min, max, doc) uint64_t name;
#define ODB_RULES(name, value, doc) struct odb_rules name;
#define ODB_PATH(name, value, doc) char name[PATH_MAX];
#define ODB_PROFILE(name, value, doc)
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
};

void odb_options_default(struct odb_options *options);

/* Sets one option from text; false for an unknown key or a bad value (the option keeps its value). */
bool odb_options_set(struct odb_options *options, const char *key, const char *value);

/* Applies "key = value" lines; blank lines and lines that begin with '#' are skipped. `text` is modified. 0, or the number of the first bad line. */
int odb_options_parse(struct odb_options *options, char *text);

#endif
