/* options.c: turns the flat option file into struct odb_options, driven by options.def. */
#include "core/options.h"

#include <string.h>

static bool parse_word(const char *words, const char *value, size_t length, unsigned *index) {
    for (*index = 0;; (*index)++) {
        size_t size = strcspn(words, "|");
        if (size == length && strncmp(words, value, length) == 0) return true;
        if (words[size] == '\0') return false;
        words += size + 1;
    }
}

static bool set_enum(unsigned *out, const char *words, const char *value) {
    unsigned index;
    if (!parse_word(words, value, strlen(value), &index)) return false;
    *out = index;
    return true;
}

static bool set_set(unsigned *out, const char *words, const char *value) {
    unsigned bits = 0, index;
    while (*value) {
        size_t length = strcspn(value, ",");
        if (!parse_word(words, value, length, &index) || (bits & (1u << index))) return false;
        bits |= 1u << index;
        value += length + (value[length] == ',');
    }
    *out = bits;
    return true;
}

static bool set_flag(bool *out, const char *value) {
    if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0) return false;
    *out = value[1] == 'n';
    return true;
}

static bool set_number(uint64_t *out, const char *value, uint64_t min, uint64_t max, bool suffixes) {
    uint64_t number = 0;
    const char *at = value;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
            return false;
    if (at == value) return false;
    unsigned shift = 0;
    if (suffixes && (*at == 'K' || *at == 'M' || *at == 'G')) shift = *at == 'K' ? 10 : *at == 'M' ? 20 : 30, at++;
    if (*at != '\0' || number > (UINT64_MAX >> shift)) return false;
    number <<= shift;
    if (number < min || number > max) return false;
    *out = number;
    return true;
}

static bool set_path(char out[PATH_MAX], const char *value) {
    size_t length = strlen(value);
    if (value[0] != '/' || length >= PATH_MAX) return false;
    memcpy(out, value, length + 1);
    return true;
}

bool odb_options_set(struct odb_options *options, const char *key, const char *value) {
#define ODB_ROW(name, call)                                                                                            \
    if (strcmp(key, #name) == 0) return call;
#define ODB_ENUM(name, standard, words, doc) ODB_ROW(name, set_enum(&options->name, words, value))
#define ODB_SET(name, standard, words, doc) ODB_ROW(name, set_set(&options->name, words, value))
#define ODB_FLAG(name, standard, doc) ODB_ROW(name, set_flag(&options->name, value))
#define ODB_SIZE(name, standard, min, max, doc) ODB_ROW(name, set_number(&options->name, value, min, max, true))
#define ODB_COUNT(name, standard, min, max, doc) ODB_ROW(name, set_number(&options->name, value, min, max, false))
#define ODB_MS(name, standard, min, max, doc) ODB_ROW(name, set_number(&options->name, value, min, max, false))
#define ODB_RULES(name, standard, doc) ODB_ROW(name, odb_rules_parse(&options->name, value))
#define ODB_PATH(name, standard, doc) ODB_ROW(name, set_path(options->name, value))
#define ODB_PROFILE(name, pairs, doc)
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
#undef ODB_ROW
    return false;
}

/* Numbers stand bare in options.def, words in quotes; both reach odb_options_set as text. */
static const char *as_text(const char *token, char *copy) {
    size_t length = strlen(token);
    if (token[0] != '"') return token;
    memcpy(copy, token + 1, length - 2);
    copy[length - 2] = '\0';
    return copy;
}

void odb_options_default(struct odb_options *options) {
    char copy[256];
    memset(options, 0, sizeof *options);
#define ODB_ROW(name, standard) odb_options_set(options, #name, as_text(#standard, copy));
#define ODB_ENUM(name, standard, words, doc) ODB_ROW(name, standard)
#define ODB_SET(name, standard, words, doc) ODB_ROW(name, standard)
#define ODB_FLAG(name, standard, doc) ODB_ROW(name, standard)
#define ODB_SIZE(name, standard, min, max, doc) ODB_ROW(name, standard)
#define ODB_COUNT(name, standard, min, max, doc) ODB_ROW(name, standard)
#define ODB_MS(name, standard, min, max, doc) ODB_ROW(name, standard)
#define ODB_RULES(name, standard, doc) ODB_ROW(name, standard)
#define ODB_PATH(name, standard, doc) ODB_ROW(name, standard)
#define ODB_PROFILE(name, pairs, doc)
#include "options.def"
#undef ODB_ROW
}

static char *trim(char *text) {
    while (*text == ' ' || *text == '\t') text++;
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r", text[length - 1])) text[--length] = '\0';
    return text;
}

int odb_options_parse(struct odb_options *options, char *text) {
    for (int number = 1; *text; number++) {
        char *line = text;
        size_t length = strcspn(text, "\n");
        text += length + (text[length] == '\n');
        line[length] = '\0';
        line = trim(line);
        if (*line == '\0' || *line == '#') continue;
        char *equals = strchr(line, '=');
        if (!equals) return number;
        *equals = '\0';
        if (!odb_options_set(options, trim(line), trim(equals + 1))) return number;
    }
    return 0;
}
