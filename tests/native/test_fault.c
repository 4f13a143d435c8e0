/* Touches of guarded memory, genuine crashes beside them, and fork: in child processes, because that is where crashes belong. */
#include "check.h"
#include "core/fault.h"
#include "core/heap.h"
#include "os/real.h"
#include "payload_fixture.h"
#include "support/world.h"

#include <errno.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

#define P ((size_t)ODB_PAGE)

enum { HELD = 0, HANDLER = 42, BROKEN = 1 };

/* Runs `body` in a child that has followed fork as the hooks do; its wait status. */
static int in_child(void (*body)(void)) {
    int status;
    odb_runtime_before_fork(&world);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        odb_runtime_after_fork_child(&world);
        body();
        _exit(HELD);
    }
    odb_runtime_after_fork_parent(&world);
    REQUIRE(waitpid(child, &status, 0) == child);
    return status;
}

static void check_exit(int status, int code) {
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), code);
}

static void check_killed(int status, int number) {
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), number);
}

/* In a child: a failed expectation ends it. */
static void expect(bool held) {
    if (!held) _exit(BROKEN);
}

static uint8_t *window(const struct odb_span *span) {
    uint8_t *pages = world_pages(span->length);
    REQUIRE(odb_windows_map(&world.windows, pages, span->length, span) == 0);
    return pages;
}

static void standard_action(void) {
    struct sigaction standard = {.sa_handler = SIG_DFL};
    expect(odb_sigaction(SIGSEGV, &standard, NULL) == 0);
}

static void touching_one_byte_brings_the_whole_window(void) {
    struct odb_span span = world_payload(1, 16 * P);
    uint8_t *pages = window(&span);
    uint64_t faults = world_count(ODB_STAT_faults), fetches = world_count(ODB_STAT_fetches);
    errno = EXDEV;
    CHECK_EQ(*(volatile uint8_t *)(pages + 5 * P + 3), fixture_byte(1, 5 * P + 3));
    CHECK_EQ(errno, EXDEV);
    CHECK(fixture_same(pages, 16 * P, 1, 0));
    CHECK_EQ(world_count(ODB_STAT_faults) - faults, 1);
    CHECK_EQ(world_count(ODB_STAT_fetches) - fetches, 1);
    odb_free(&world, pages);
}

static void writing_one_byte_keeps_the_others(void) {
    struct odb_span span = world_payload(2, 4 * P);
    uint8_t *pages = window(&span);
    *(volatile uint8_t *)(pages + P + 100) = 0xEE;
    CHECK(fixture_same(pages, P + 100, 2, 0));
    CHECK_EQ(pages[P + 100], 0xEE);
    CHECK(fixture_same(pages + P + 101, 3 * P - 101, 2, P + 101));
    odb_free(&world, pages);
}

/* I8: everything below. */

static volatile char *crash_at;
static char *unmap_first; /* in the child, where nothing else can take the place */

static void remember_address(int number, siginfo_t *info, void *context) {
    (void)context;
    _exit(number == SIGSEGV && info->si_addr == crash_at ? HANDLER : BROKEN);
}

static void install(void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    expect(odb_sigaction(SIGSEGV, &action, NULL) == 0);
}

static void crash_with_handler(void) {
    install(remember_address, 0);
    if (unmap_first) expect(odb_real.munmap(unmap_first, P) == 0);
    *crash_at = 1;
}

static void crash_without_handler(void) {
    standard_action();
    *crash_at = 1;
}

static void genuine_crash_reaches_the_handler_with_its_address(void) {
    struct odb_span span = world_payload(3, 2 * P);
    uint8_t *pages = window(&span);
    char *forbidden = odb_real.mmap(NULL, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *gone = odb_real.mmap(NULL, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(forbidden != MAP_FAILED && gone != MAP_FAILED);
    crash_at = forbidden + 123;
    check_exit(in_child(crash_with_handler), HANDLER);
    crash_at = gone + 77;
    unmap_first = gone;
    check_exit(in_child(crash_with_handler), HANDLER);
    unmap_first = NULL;
    crash_at = (char *)8;
    check_exit(in_child(crash_with_handler), HANDLER);
    odb_free(&world, pages);
}

static void genuine_crash_without_handler_kills_by_SIGSEGV(void) {
    struct odb_span span = world_payload(3, 2 * P);
    uint8_t *pages = window(&span);
    char *forbidden = odb_real.mmap(NULL, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    crash_at = forbidden;
    check_killed(in_child(crash_without_handler), SIGSEGV);
    crash_at = (char *)8;
    check_killed(in_child(crash_without_handler), SIGSEGV);
    odb_free(&world, pages);
}

static void end_with_handler(int number) {
    (void)number;
    _exit(HANDLER);
}

/* The library's handler, as if the calling thread had touched `page` while it was guarded. */
static void arrive_at(void *page) {
    struct sigaction ours;
    siginfo_t info = {.si_signo = SIGSEGV, .si_code = SEGV_ACCERR, .si_addr = page};
    ucontext_t context = {0};
    expect(odb_real.sigaction(SIGSEGV, NULL, &ours) == 0);
    ours.sa_sigaction(SIGSEGV, &info, &context);
}

static struct odb_span opened_span;
static uint8_t *opened;

/* The other thread is faster every time. */
static void come_too_late(void) {
    expect(odb_signal(SIGSEGV, end_with_handler) != SIG_ERR);
    for (int i = 0; i < 3; i++) {
        odb_windows_open(&world.windows, opened, P);
        arrive_at(opened);
        expect(odb_windows_map(&world.windows, opened, P, &opened_span) == 0);
    }
}

static void come_too_late_then_crash(void) {
    come_too_late();
    odb_windows_open(&world.windows, opened, P);
    arrive_at(opened);
    arrive_at(opened);
}

static void pages_that_others_open_first_are_no_crash_however_often(void) {
    opened_span = world_payload(3, P);
    opened = window(&opened_span);
    check_exit(in_child(come_too_late), HELD);
    check_exit(in_child(come_too_late_then_crash), HANDLER);
    odb_free(&world, opened);
}

static void crash_that_is_ignored(void) {
    expect(odb_signal(SIGSEGV, SIG_IGN) != SIG_ERR);
    *crash_at = 1;
}

static void genuine_crash_kills_although_the_signal_is_ignored(void) {
    crash_at = (char *)8;
    check_killed(in_child(crash_that_is_ignored), SIGSEGV);
}

static sigjmp_buf back;
static volatile int jumps;

static void jump(int number) {
    jumps++;
    siglongjmp(back, number);
}

/* As garbage collectors and probes do: many crashes, each survived, windows working in between. */
static void survive_crashes(void) {
    struct odb_span span = world_payload(4, 2 * P);
    expect(odb_signal(SIGSEGV, jump) != SIG_ERR);
    for (int i = 0; i < 10; i++) {
        uint8_t *pages = window(&span);
        if (sigsetjmp(back, 1) == 0) {
            *crash_at = 1;
            _exit(BROKEN);
        }
        expect(*(volatile uint8_t *)(pages + 10) == fixture_byte(4, 10));
        odb_free(&world, pages);
    }
    expect(jumps == 10);
}

static void handler_that_jumps_out_can_do_so_again_and_again(void) {
    char *forbidden = odb_real.mmap(NULL, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    crash_at = forbidden;
    check_exit(in_child(survive_crashes), HELD);
    crash_at = (char *)8;
    check_exit(in_child(survive_crashes), HELD);
}

static void crash_once_then_again(int number) {
    (void)number;
    jumps++;
}

static void crash_with_resethand(void) {
    struct sigaction action = {.sa_handler = crash_once_then_again, .sa_flags = (int)SA_RESETHAND}, now;
    expect(odb_sigaction(SIGSEGV, &action, NULL) == 0);
    raise(SIGSEGV);
    expect(jumps == 1 && odb_sigaction(SIGSEGV, NULL, &now) == 0 && now.sa_handler == SIG_DFL);
    *crash_at = 1;
}

static void one_shot_handler_is_called_once(void) {
    crash_at = (char *)8;
    check_killed(in_child(crash_with_resethand), SIGSEGV);
}

static void sigaction_reports_the_applications_handler_only(void) {
    struct sigaction action = {.sa_handler = crash_once_then_again, .sa_flags = SA_RESTART}, old, now;
    CHECK_EQ(odb_sigaction(SIGSEGV, &action, &old), 0);
    CHECK_EQ(odb_sigaction(SIGSEGV, NULL, &now), 0);
    CHECK(now.sa_handler == crash_once_then_again && now.sa_flags == SA_RESTART);
    CHECK(odb_signal(SIGSEGV, SIG_DFL) == crash_once_then_again);
    CHECK_EQ(odb_sigaction(SIGSEGV, &old, NULL), 0);
}

static void handler_may_be_asked_to_leave_the_others_alone(void) {
    struct sigaction action = {.sa_handler = SIG_IGN}, old;
    CHECK_EQ(odb_sigaction(SIGUSR1, &action, &old), 0);
    CHECK_EQ(raise(SIGUSR1), 0);
    CHECK(odb_signal(SIGUSR1, SIG_DFL) == SIG_IGN);
}

/* A SIGSEGV that somebody sends is no touch of memory. */
static void be_sent_ignored(void) {
    struct odb_span span = world_payload(5, 2 * P);
    uint8_t *pages = window(&span);
    expect(odb_signal(SIGSEGV, SIG_IGN) != SIG_ERR);
    expect(kill(getpid(), SIGSEGV) == 0);
    expect(*(volatile uint8_t *)pages == fixture_byte(5, 0)); /* our handler is still there */
}

static void be_sent_by_default(void) {
    standard_action();
    kill(getpid(), SIGSEGV);
}

static void be_sent_with_handler(void) {
    expect(odb_signal(SIGSEGV, crash_once_then_again) != SIG_ERR);
    expect(kill(getpid(), SIGSEGV) == 0 && jumps == 1);
}

static void sent_signal_is_ignored_handled_or_deadly_as_the_application_says(void) {
    check_exit(in_child(be_sent_ignored), HELD);
    check_exit(in_child(be_sent_with_handler), HELD);
    check_killed(in_child(be_sent_by_default), SIGSEGV);
}

/* I3: lost bytes end the process, they do not become zeros. */
static void touch_lost_window(void) {
    struct odb_span span = world_unknown(2 * P);
    uint8_t *pages = window(&span);
    odb_real.signal(SIGBUS, SIG_DFL);
    expect(*(volatile uint8_t *)pages == 0);
}

static void lost_window_kills_by_SIGBUS(void) {
    check_killed(in_child(touch_lost_window), SIGBUS);
}

/* I11: windows alive in parent and child. */
static uint8_t *inherited;

static void read_inherited(void) {
    expect(*(volatile uint8_t *)(inherited + 3) == fixture_byte(6, 3));
    expect(fixture_same(inherited, 4 * P, 6, 0));
    inherited[0] = (uint8_t)~inherited[0];
}

static void child_and_parent_each_fetch_an_inherited_window(void) {
    struct odb_span span = world_payload(6, 4 * P);
    inherited = window(&span);
    check_exit(in_child(read_inherited), HELD);
    CHECK(odb_windows_touch(&world.windows, inherited, 4 * P));
    CHECK_EQ(*(volatile uint8_t *)inherited, fixture_byte(6, 0));
    CHECK(fixture_same(inherited, 4 * P, 6, 0));
    odb_free(&world, inherited);
}

/* The bytes are here before the thread that has sent them counts that it has. */
static bool serves(void) {
    for (int turn = 0; world_count(ODB_STAT_serves) == 0 && turn < 5000; turn++) poll(NULL, 0, 1);
    return world_count(ODB_STAT_serves) > 0;
}

static void announce_in_child(void) {
    expect(odb_origin_port(&world.origin) == 0);
    struct odb_span span = world_payload(7, 4 * P);
    uint8_t *pages = window(&span);
    expect(*(volatile uint8_t *)pages == fixture_byte(7, 0) && fixture_same(pages, 4 * P, 7, 0));
    expect(serves());
}

static void child_is_an_origin_of_its_own(void) {
    check_exit(in_child(announce_in_child), HELD);
}

static void leave_internal_descriptors(void) {
    expect(atomic_load(&world.driver.running) == false);
    expect(world.pid == getpid() && !odb_runtime_is_foreign(&world));
}

static void child_has_no_helper_thread_until_it_needs_one(void) {
    check_exit(in_child(leave_internal_descriptors), HELD);
}

static const struct check_case cases[] = {
    CHECK_CASE(touching_one_byte_brings_the_whole_window),
    CHECK_CASE(writing_one_byte_keeps_the_others),
    CHECK_CASE(genuine_crash_reaches_the_handler_with_its_address),
    CHECK_CASE(genuine_crash_without_handler_kills_by_SIGSEGV),
    CHECK_CASE(pages_that_others_open_first_are_no_crash_however_often),
    CHECK_CASE(genuine_crash_kills_although_the_signal_is_ignored),
    CHECK_CASE(handler_that_jumps_out_can_do_so_again_and_again),
    CHECK_CASE(one_shot_handler_is_called_once),
    CHECK_CASE(sigaction_reports_the_applications_handler_only),
    CHECK_CASE(handler_may_be_asked_to_leave_the_others_alone),
    CHECK_CASE(sent_signal_is_ignored_handled_or_deadly_as_the_application_says),
    CHECK_CASE(lost_window_kills_by_SIGBUS),
    CHECK_CASE(child_and_parent_each_fetch_an_inherited_window),
    CHECK_CASE(child_is_an_origin_of_its_own),
    CHECK_CASE(child_has_no_helper_thread_until_it_needs_one),
};

int main(int argc, char **argv) {
    world_begin(NULL);
    return check_run(cases, sizeof cases / sizeof *cases, argc, argv);
}
