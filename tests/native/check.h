/* A tiny assertion header for the native tests: one program is one table of named cases.
 *
 *     static void payload_is_released_once(void) { CHECK_EQ(count, 1); }
 *     static const struct check_case cases[] = {CHECK_CASE(payload_is_released_once)};
 *     CHECK_MAIN(cases)
 *
 * CHECK* record a failure, print where and what, and go on. REQUIRE ends the program: use it when going on makes
 * no sense. Both may be called from any thread. CHECK_SKIP names the missing capability; the case must then return.
 * The program prints failures, skips and one summary line; `program NAME` runs only the cases whose name contains NAME.
 * Exit status: 0 all held, 1 something failed, 2 no case matched, 77 everything was skipped.
 */
#ifndef ODB_TESTS_CHECK_H
#define ODB_TESTS_CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check_case {
    const char *name;
    void (*run)(void);
};

#define CHECK_CASE(function)                                                                                           \
    { #function, function }

static const char *check_current = "(no case)";
static atomic_int check_failures;
static atomic_int check_skipped;

__attribute__((unused)) static bool check_report(bool held, const char *file, int line, const char *what) {
    if (!held) {
        fprintf(stderr, "%s:%d: %s: %s\n", file, line, check_current, what);
        atomic_fetch_add(&check_failures, 1);
    }
    return held;
}

__attribute__((unused)) static bool check_equal(unsigned long long actual, unsigned long long expected,
                                                const char *file, int line, const char *what) {
    if (actual != expected) {
        fprintf(stderr, "%s:%d: %s: %s: %lld (0x%llx) instead of %lld (0x%llx)\n", file, line, check_current, what,
                (long long)actual, actual, (long long)expected, expected);
        atomic_fetch_add(&check_failures, 1);
    }
    return actual == expected;
}

__attribute__((unused)) static bool check_same_text(const char *actual, const char *expected, const char *file,
                                                    int line, const char *what) {
    bool same = actual == expected || (actual != NULL && expected != NULL && strcmp(actual, expected) == 0);
    if (!same) {
        fprintf(stderr, "%s:%d: %s: %s: \"%s\" instead of \"%s\"\n", file, line, check_current, what,
                actual != NULL ? actual : "(null)", expected != NULL ? expected : "(null)");
        atomic_fetch_add(&check_failures, 1);
    }
    return same;
}

__attribute__((unused)) static bool check_same_bytes(const void *actual, const void *expected, size_t n,
                                                     const char *file, int line, const char *what) {
    const unsigned char *a = (const unsigned char *)actual;
    const unsigned char *e = (const unsigned char *)expected;
    for (size_t i = 0; i < n; i++) {
        if (a[i] != e[i]) {
            fprintf(stderr, "%s:%d: %s: %s: byte %zu of %zu is 0x%02x instead of 0x%02x\n", file, line, check_current,
                    what, i, n, (unsigned)a[i], (unsigned)e[i]);
            atomic_fetch_add(&check_failures, 1);
            return false;
        }
    }
    return true;
}

/* Each evaluates its arguments once and yields whether it held. CHECK_EQ is for integers, enums and pointers. */
#define CHECK(condition) check_report((condition) ? true : false, __FILE__, __LINE__, #condition)
#define CHECK_EQ(actual, expected)                                                                                     \
    check_equal((unsigned long long)(actual), (unsigned long long)(expected), __FILE__, __LINE__,                      \
                #actual " == " #expected)
#define CHECK_STR_EQ(actual, expected)                                                                                 \
    check_same_text((actual), (expected), __FILE__, __LINE__, #actual " == " #expected)
#define CHECK_MEM_EQ(actual, expected, n)                                                                              \
    check_same_bytes((actual), (expected), (n), __FILE__, __LINE__, #actual " == " #expected)
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!CHECK(condition)) {                                                                                       \
            fflush(NULL);                                                                                              \
            _Exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)
#define CHECK_SKIP(reason)                                                                                             \
    do {                                                                                                               \
        fprintf(stderr, "skip %s: %s\n", check_current, (reason));                                                     \
        atomic_fetch_add(&check_skipped, 1);                                                                           \
    } while (0)

__attribute__((unused)) static int check_run(const struct check_case *cases, size_t count, int argc, char **argv) {
    int ran = 0;
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strstr(cases[i].name, argv[1]) == NULL) {
            continue;
        }
        int before = atomic_load(&check_failures);
        check_current = cases[i].name;
        cases[i].run();
        ran++;
        failed += atomic_load(&check_failures) != before ? 1 : 0;
    }
    int skipped = atomic_load(&check_skipped);
    printf("%d cases: %d held, %d failed, %d skipped\n", ran, ran - failed - skipped, failed, skipped);
    if (ran == 0) {
        return 2;
    }
    return failed != 0 ? 1 : skipped == ran ? 77 : 0;
}

#define CHECK_MAIN(cases)                                                                                              \
    int main(int argc, char **argv) {                                                                                  \
        return check_run((cases), sizeof(cases) / sizeof((cases)[0]), argc, argv);                                     \
    }

#endif
