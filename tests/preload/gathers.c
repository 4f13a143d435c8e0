/* gathers.c: the parts of a body that a loop relays to a plain connection arrive whole and in order, whatever the program does between two of them: gathers CASE.
 *
 * The client sends bodies on one connection, on which frames are spoken, and gets them back on a plain one: the server's loop takes them part by part. After the second
 * part of each the server does what CASE says: something that leaves a mark on the plain connection, that takes until the client has those two parts, or that ends it.
 */
#include "scene.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

enum { SEED = 77, ROUNDS = 6, PART = 4096, BEFORE = 2 * PART, BODY = 40000, SMALL = 5000, HEADER = 500 };

static struct {
    sem_t sent; /* a body lies in the socket of the server */
    sem_t seen; /* the client has had both parts */
} * shared;

static const char *what;
static int plain_listener, plain = -1, pipes[2], mark; /* `mark`: a file that holds one */
static uint16_t plain_port;

static void send_mark(void) {
    must(send(plain, "#", 1, MSG_NOSIGNAL) == 1);
}

static void by_send(void) {
    send_mark();
}

static void by_write(void) {
    must(write(plain, "#", 1) == 1);
}

static void by_vector(void) {
    struct iovec iov[] = {{"", 0}, {"#", 1}, {"", 0}};
    must(writev(plain, iov, 3) == 1);
}

static void by_number(void) {
    must(syscall(SYS_write, plain, "#", 1) == 1);
}

static void by_copy(void) {
    int copy = dup(plain);
    must(write(copy, "#", 1) == 1 && close(copy) == 0);
}

static void by_file(void) {
    off_t at = 0;
    must(sendfile(plain, mark, &at, 1) == 1);
}

static void by_splice(void) {
    must(write(pipes[1], "#", 1) == 1 && splice(pipes[0], NULL, plain, NULL, 1, 0) == 1);
}

static void by_stdio(void) {
    FILE *file = fdopen(dup(plain), "w");
    must(fputc('#', file) == '#' && fclose(file) == 0);
}

static void by_print(void) {
    must(dprintf(plain, "#") == 1);
}

static void by_child(void) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        send_mark();
        _exit(5);
    }
    must(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5);
}

static void by_program(void) {
    static char *const arguments[] = {"sh", "-c", "printf '#' >&9", NULL};
    static char *const nothing[] = {NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status;
    must(posix_spawn_file_actions_init(&actions) == 0 && posix_spawn_file_actions_adddup2(&actions, plain, 9) == 0);
    must(posix_spawn(&child, "/bin/sh", &actions, NULL, arguments, nothing) == 0);
    must(waitpid(child, &status, 0) == child && status == 0);
    posix_spawn_file_actions_destroy(&actions);
}

static void *in_thread(void *context) {
    send_mark();
    return context;
}

static void by_thread(void) {
    pthread_t thread;
    must(pthread_create(&thread, NULL, in_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
}

static void in_handler(int number) {
    (void)number;
    send_mark();
}

static void by_handler(void) {
    signal(SIGUSR1, in_handler);
    must(raise(SIGUSR1) == 0);
}

static void stay_away(void) {
    while (sem_trywait(&shared->seen) != 0) continue;
}

static void read_elsewhere(void) {
    char byte;
    must(read(pipes[0], &byte, 1) == 1);
}

static void look_elsewhere(void) {
    struct pollfd entry = {.fd = pipes[0], .events = POLLIN};
    must(poll(&entry, 1, -1) == 1);
    read_elsewhere();
}

static void end_by_close(void) {
    must(close(plain) == 0);
}

static void end_by_range(void) {
    must(close_range((unsigned)plain, (unsigned)plain, 0) == 0);
}

static void end_by_shutdown(void) {
    must(shutdown(plain, SHUT_WR) == 0);
}

static void end_by_replacing(void) {
    must(dup2(mark, plain) == plain);
}

static void end_by_exit(void) {
    exit(5);
}

static void end_at_once(void) {
    _exit(5);
}

static void end_by_program(void) {
    execl("/bin/sh", "sh", "-c", "exit 5", NULL);
}

enum kind { MARKS, TURNS, WAITS, ENDS, DIES };

static const struct {
    const char *name;
    enum kind kind;
    void (*act)(void);
} cases[] = {{"send", MARKS, by_send},
             {"write", MARKS, by_write},
             {"vector", MARKS, by_vector},
             {"number", MARKS, by_number},
             {"copy", MARKS, by_copy},
             {"file", MARKS, by_file},
             {"splice", MARKS, by_splice},
             {"stdio", MARKS, by_stdio},
             {"print", MARKS, by_print},
             {"child", MARKS, by_child},
             {"program", MARKS, by_program},
             {"thread", MARKS, by_thread},
             {"handler", MARKS, by_handler},
             {"remade", MARKS, by_send},
             {"turn", TURNS, NULL},
             {"computes", WAITS, stay_away},
             {"reads", WAITS, read_elsewhere},
             {"polls", WAITS, look_elsewhere},
             {"close", ENDS, end_by_close},
             {"range", ENDS, end_by_range},
             {"shutdown", ENDS, end_by_shutdown},
             {"replaced", ENDS, end_by_replacing},
             {"exit", DIES, end_by_exit},
             {"at_once", DIES, end_at_once},
             {"exec", DIES, end_by_program}};
enum { CASES = sizeof cases / sizeof cases[0] };

static size_t chosen;

static void watch(int set, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
}

/* All of a body is at hand when the loop turns to it. */
static void await_body(int set, int fd) {
    struct epoll_event event;
    while (sem_wait(&shared->sent) != 0) must(errno == EINTR);
    do must(epoll_wait(set, &event, 1, -1) == 1);
    while (event.data.fd != fd);
}

static void relay_body(int fd) {
    char bytes[PART];
    for (size_t done = 0; done < BODY;) {
        size_t most = done < BEFORE && BEFORE - done < sizeof bytes ? BEFORE - done : sizeof bytes;
        ssize_t got = recv(fd, bytes, most, 0);
        must(got > 0);
        if (strcmp(what, "remade") == 0) { /* sends other memory than it has received */
            char *made = memcpy(malloc((size_t)got), bytes, (size_t)got);
            send_all(plain, made, (size_t)got);
            memset(made, 0, (size_t)got);
            free(made);
        } else {
            send_all(plain, bytes, (size_t)got);
        }
        done += (size_t)got;
        if (done == BEFORE) cases[chosen].act();
        if (done == BEFORE && cases[chosen].kind >= ENDS) return;
    }
}

static unsigned segments(void) {
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    must(getsockopt(plain, IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
    return info.tcpi_data_segs_out;
}

/* A header, and the body that is at hand in the loop's next turn: with the library the header is no segment of its own, if it gathers. The body is one, or two as long as the client's window is small. */
static void relay_in_turns(int set, int fd, bool whole) {
    bool library = getenv("ODB_OPTIONS") && !strstr(getenv("ODB_OPTIONS"), "gather=off");
    unsigned before = segments();
    char bytes[BODY];
    struct epoll_event events[2];
    int count;
    must(recv(fd, bytes, HEADER, 0) == HEADER);
    send_all(plain, bytes, HEADER);
    must((count = epoll_wait(set, events, 2, -1)) > 0);
    must(events[0].data.fd == fd || (count == 2 && events[1].data.fd == fd));
    for (size_t done = HEADER; done < BODY;) {
        ssize_t got = recv(fd, bytes, PART, 0);
        must(got > 0);
        send_all(plain, bytes, (size_t)got);
        done += (size_t)got;
    }
    if (!whole) must(!library || segments() <= before + 2);
}

static void relay(int framed) {
    int set = epoll_create1(EPOLL_CLOEXEC);
    must((plain = accept4(plain_listener, NULL, NULL, SOCK_CLOEXEC)) >= 0);
    watch(set, plain, EPOLLOUT | EPOLLET);
    watch(set, framed, EPOLLIN);
    for (int i = 0; i < (cases[chosen].kind < ENDS ? ROUNDS : 1); i++) {
        await_body(set, framed);
        if (cases[chosen].kind == TURNS)
            relay_in_turns(set, framed, i % 2 == 1);
        else
            relay_body(framed);
    }
}

static void serve(int listener) {
    int framed, status;
    if (cases[chosen].kind < DIES) {
        relay(answer(listener));
        return;
    }
    pid_t child = fork();
    if (child == 0) {
        framed = answer(listener);
        must(fcntl(framed, F_SETFD, FD_CLOEXEC) == 0);
        relay(framed);
    }
    must(waitpid(child, &status, 0) == child);
    say("ended with %d\n", WEXITSTATUS(status));
}

static int connect_plainly(void) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(plain_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

/* A send that has returned may still wait at its sender, for its turn where the kernel paces. No event that can be waited for tells of its arrival; this asks the kernel, which knows. */
static void await_arrival(int fd) {
    for (int left = 1; left > 0; usleep(100)) must(ioctl(fd, SIOCOUTQ, &left) == 0);
}

/* As one body, which may travel as a descriptor, or in writes that are too small for that. */
static void send_body(int fd, bool whole) {
    char *bytes = filled(BODY, SEED);
    for (size_t at = 0, size = whole ? BODY : SMALL; at < BODY; at += size) send_all(fd, bytes + at, size);
    free(bytes);
    await_arrival(fd);
}

static void check(int fd, size_t from, size_t length) {
    char bytes[BODY];
    recv_all(fd, bytes, length);
    must(holds(bytes, length, SEED, from));
}

static void compare(uint16_t port) {
    enum kind kind = cases[chosen].kind;
    int framed = call_up(port), back = connect_plainly();
    char byte;
    for (int i = 0; i < (kind < ENDS ? ROUNDS : 1); i++) {
        send_body(framed, i % 2 == 1);
        must(sem_post(&shared->sent) == 0);
        check(back, 0, BEFORE);
        if (kind >= ENDS) {
            await_end(back);
            break;
        }
        if (kind == MARKS) must(recv(back, &byte, 1, MSG_WAITALL) == 1 && byte == '#');
        if (kind == WAITS)
            must(cases[chosen].act == stay_away ? sem_post(&shared->seen) == 0 : write(pipes[1], "!", 1) == 1);
        check(back, BEFORE, BODY - BEFORE);
    }
    close(back);
    close(framed);
}

static void listen_plainly(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1)};
    socklen_t length = sizeof address;
    plain_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(plain_listener >= 0 && bind(plain_listener, (struct sockaddr *)&address, length) == 0);
    must(listen(plain_listener, 8) == 0 && getsockname(plain_listener, (struct sockaddr *)&address, &length) == 0);
    plain_port = ntohs(address.sin_port);
}

int main(int argc, char **argv) {
    must(argc == 2 && pipe(pipes) == 0);
    what = argv[1];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED && sem_init(&shared->seen, 1, 0) == 0 && sem_init(&shared->sent, 1, 0) == 0);
    mark = file_of(1, 0);
    must(pwrite(mark, "#", 1, 0) == 1);
    listen_plainly();
    say("%s\n", what);
    for (chosen = 0; chosen < CASES; chosen++)
        if (strcmp(what, cases[chosen].name) == 0) return perform(serve, compare);
    return 2;
}
