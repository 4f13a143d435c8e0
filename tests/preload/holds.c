/* holds.c: an event loop's sends leave, whatever the program does instead of waiting: holds CASE.
 *
 * The server answers in its loop, in pieces that the library may hold back, and then does what CASE says. The client checks every byte; where the server is not to
 * wait, it is told so by memory that both share.
 */
#include "scene.h"

#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/epoll.h>
#include <sys/mman.h>

enum { SEED = 51, ROUNDS = 3, MANY = 12 << 20 };

static const size_t pieces[] = {300, 20000, 17, 4096, 4096, 65536, 1, 1, 30000, 200};
enum { PIECES = sizeof pieces / sizeof pieces[0] };

static struct {
    sem_t seen;           /* the client has had all of a round */
    _Atomic bool stalled; /* the server was told that there is no room */
} * shared;

static const char *what;
static int pipes[2]; /* what the client writes, the server reads */

static bool is(const char *name) {
    return strcmp(what, name) == 0;
}

static size_t round_length(void) {
    size_t length = 0;
    for (int i = 0; i < PIECES; i++) length += pieces[i];
    return length;
}

/* A connection in a loop of its own: non-blocking, and in the set that this thread waits on. */
static int enter_loop(int listener, int *set) {
    int fd = answer(listener);
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
    tell(fd); /* from here on frames are spoken */
    must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    must((*set = epoll_create1(EPOLL_CLOEXEC)) >= 0 && epoll_ctl(*set, EPOLL_CTL_ADD, fd, &event) == 0);
    return fd;
}

static void turn(int set, int fd) {
    struct epoll_event event;
    must(epoll_wait(set, &event, 1, -1) == 1 && event.data.fd == fd);
    await(fd);
}

static void turn_to_end(int set, int fd) {
    struct epoll_event event;
    must(epoll_wait(set, &event, 1, -1) == 1 && event.data.fd == fd);
    await_end(fd);
}

static void send_round(int fd, size_t done) {
    char *bytes = malloc(round_length());
    fill(bytes, round_length(), SEED, done);
    for (size_t i = 0, at = 0; i < PIECES; at += pieces[i++]) send_all(fd, bytes + at, pieces[i]);
    free(bytes);
}

static void check_round(int fd, size_t done) {
    char *bytes = malloc(round_length());
    recv_all(fd, bytes, round_length());
    must(holds(bytes, round_length(), SEED, done));
    free(bytes);
}

static void be_elsewhere(void) {
    char byte;
    if (is("computes")) {
        while (sem_trywait(&shared->seen) != 0) continue;
    } else if (is("yields")) {
        while (sem_trywait(&shared->seen) != 0) sched_yield();
    } else if (is("reads")) {
        must(read(pipes[0], &byte, 1) == 1);
    } else {
        must(is("sleeps"));
        while (sem_wait(&shared->seen) != 0) must(errno == EINTR);
    }
}

/* The loop does something that takes until the client has everything. */
static void serve_and_be_elsewhere(int listener) {
    int set, fd = enter_loop(listener, &set);
    for (size_t i = 0; i < ROUNDS; i++) {
        turn(set, fd);
        send_round(fd, i * round_length());
        be_elsewhere();
    }
    turn_to_end(set, fd);
}

static void read_rounds(uint16_t port) {
    int fd = call_up(port);
    await(fd);
    for (size_t i = 0; i < ROUNDS; i++) {
        tell(fd);
        check_round(fd, i * round_length());
        must(is("reads") ? write(pipes[1], "!", 1) == 1 : sem_post(&shared->seen) == 0);
    }
    close(fd);
}

static void read_to_end(uint16_t port) {
    int fd = call_up(port);
    await(fd);
    tell(fd);
    check_round(fd, 0);
    await_end(fd);
    close(fd);
}

/* The connection ends right behind what was sent. */
static void serve_and_end(int listener) {
    int set, fd = enter_loop(listener, &set), copy = -1;
    turn(set, fd);
    if (is("replaced")) must((copy = dup(fd)) >= 0);
    send_round(fd, 0);
    if (is("closed")) close(fd);
    if (is("ranged")) must(close_range((unsigned)fd, (unsigned)fd, 0) == 0);
    if (is("shut")) {
        must(shutdown(fd, SHUT_WR) == 0);
        must(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    }
    if (is("replaced")) {
        must(dup2(listener, fd) == fd && close(copy) == 0);
    }
}

/* So does the process. */
static void serve_and_die(int listener) {
    pid_t child = fork();
    int set, fd, status;
    if (child == 0) {
        fd = enter_loop(listener, &set);
        must(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
        turn(set, fd);
        send_round(fd, 0);
        if (is("exit")) exit(5);
        if (is("underscore_exit")) _exit(5);
        if (is("quick_exit")) quick_exit(5);
        execl("/bin/sh", "sh", "-c", "exit 5", NULL);
    }
    must(waitpid(child, &status, 0) == child);
    say("ended with %d\n", WEXITSTATUS(status));
}

/* Parent, child and parent again, each in its turn: nothing twice, nothing missing. */
static void serve_over_fork(int listener) {
    int set, fd = enter_loop(listener, &set), status;
    turn(set, fd);
    send_round(fd, 0);
    pid_t child = fork();
    if (child == 0) {
        send_round(fd, round_length());
        _exit(5);
    }
    must(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5);
    send_round(fd, 2 * round_length());
    close(fd);
}

static void read_over_fork(uint16_t port) {
    int fd = call_up(port);
    await(fd);
    tell(fd);
    for (size_t i = 0; i < 3; i++) check_round(fd, i * round_length());
    await_end(fd);
    close(fd);
}

/* One thread sends and never waits again, another one waits on the same set. */
static void *wait_for_end(void *context) {
    const int *loop = context;
    turn_to_end(loop[0], loop[1]);
    return NULL;
}

static void serve_by_threads(int listener) {
    pthread_t thread;
    int loop[2];
    loop[1] = enter_loop(listener, &loop[0]);
    turn(loop[0], loop[1]);
    send_round(loop[1], 0);
    must(pthread_create(&thread, NULL, wait_for_end, loop) == 0);
    for (size_t i = 1; i < ROUNDS; i++) {
        while (sem_trywait(&shared->seen) != 0) continue;
        send_round(loop[1], i * round_length());
    }
    must(pthread_join(thread, NULL) == 0);
}

static void read_from_threads(uint16_t port) {
    int fd = call_up(port);
    await(fd);
    tell(fd);
    for (size_t i = 0; i < ROUNDS; i++) {
        check_round(fd, i * round_length());
        must(sem_post(&shared->seen) == 0);
    }
    close(fd);
}

/* Small pieces until there is no room, then the edge that tells of room, again and again. */
static void serve_against_a_full_socket(int listener) {
    static const size_t sizes[] = {700, 1400, 333, 9000, 40};
    int set, fd = enter_loop(listener, &set);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
    char *bytes = filled(MANY, SEED);
    must(epoll_ctl(set, EPOLL_CTL_MOD, fd, &event) == 0);
    for (size_t done = 0, i = 0; done < MANY;) {
        must(epoll_wait(set, &event, 1, -1) == 1);
        while (done < MANY && (event.events & EPOLLOUT)) {
            size_t length = sizes[i++ % 5];
            ssize_t sent = send(fd, bytes + done, length < MANY - done ? length : MANY - done, MSG_NOSIGNAL);
            if (sent < 0) {
                must(errno == EAGAIN);
                shared->stalled = true;
                break;
            }
            done += (size_t)sent;
        }
    }
    free(bytes);
    close(fd);
}

static void read_late(uint16_t port) {
    int fd = call_up(port);
    await(fd);
    while (!shared->stalled) usleep(1000);
    char *bytes = malloc(MANY);
    recv_all(fd, bytes, MANY);
    must(holds(bytes, MANY, SEED, 0));
    await_end(fd);
    free(bytes);
    close(fd);
}

static volatile sig_atomic_t broken_pipes;

static void on_broken_pipe(int number) {
    (void)number;
    broken_pipes++;
}

/* The peer has gone: soon a send says so, and from then on every one, by error and by signal. */
static void serve_nobody(int listener) {
    int set, fd = enter_loop(listener, &set);
    struct epoll_event event;
    signal(SIGPIPE, on_broken_pipe);
    turn(set, fd);
    must(sem_wait(&shared->seen) == 0);
    while (send(fd, "x", 1, MSG_NOSIGNAL) == 1) must(epoll_wait(set, &event, 1, 0) >= 0);
    must(errno == EPIPE || errno == ECONNRESET);
    must(broken_pipes == 0);
    must(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE && broken_pipes == 0);
    must(send(fd, "x", 1, 0) == -1 && errno == EPIPE && broken_pipes == 1);
    must(epoll_wait(set, &event, 1, 0) == 1);
    close(fd);
}

static void go_away(uint16_t port) {
    struct linger reset = {.l_onoff = 1};
    int fd = call_up(port);
    await(fd);
    tell(fd);
    must(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    close(fd);
    must(sem_post(&shared->seen) == 0);
}

static void set_pace(int fd, int option, int value) {
    int found = -1;
    socklen_t length = sizeof found;
    must(setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value) == 0);
    must(getsockopt(fd, IPPROTO_TCP, option, &found, &length) == 0 && length == sizeof found);
    say("%d: %d\n", option, found);
}

/* Options that ask for or against waiting read back as they were set. */
static void serve_with_options(int listener) {
    int set, fd = enter_loop(listener, &set);
    turn(set, fd);
    set_pace(fd, TCP_CORK, 1);
    send_round(fd, 0);
    set_pace(fd, TCP_NODELAY, 1);
    set_pace(fd, TCP_CORK, 0);
    set_pace(fd, TCP_NODELAY, 0);
    must(setsockopt(fd, IPPROTO_TCP, TCP_CORK, &set, 1) == -1 && errno == EINVAL);
    close(fd);
}

static const struct {
    const char *name;
    void (*server)(int listener);
    void (*client)(uint16_t port);
} cases[] = {{"computes", serve_and_be_elsewhere, read_rounds},
             {"yields", serve_and_be_elsewhere, read_rounds},
             {"reads", serve_and_be_elsewhere, read_rounds},
             {"sleeps", serve_and_be_elsewhere, read_rounds},
             {"closed", serve_and_end, read_to_end},
             {"ranged", serve_and_end, read_to_end},
             {"shut", serve_and_end, read_to_end},
             {"replaced", serve_and_end, read_to_end},
             {"exit", serve_and_die, read_to_end},
             {"underscore_exit", serve_and_die, read_to_end},
             {"quick_exit", serve_and_die, read_to_end},
             {"exec", serve_and_die, read_to_end},
             {"fork", serve_over_fork, read_over_fork},
             {"threads", serve_by_threads, read_from_threads},
             {"full", serve_against_a_full_socket, read_late},
             {"gone", serve_nobody, go_away},
             {"options", serve_with_options, read_to_end}};

int main(int argc, char **argv) {
    must(argc == 2 && pipe(pipes) == 0);
    what = argv[1];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED && sem_init(&shared->seen, 1, 0) == 0);
    say("%s\n", what);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (is(cases[i].name)) return perform(cases[i].server, cases[i].client);
    return 2;
}
