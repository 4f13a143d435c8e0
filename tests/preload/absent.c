/* absent.c: memory that is not there, handed to calls on a connection, is EFAULT and nothing else happens: absent CASE. */
#include "scene.h"

#include <sys/epoll.h>
#include <sys/mman.h>

enum { LARGE = 200000, SEED = 17 };

/* Pages behind the end of a file: a touch is SIGBUS. */
static char *truncated(size_t length) {
    int file = file_of(length, SEED);
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    must(memory != MAP_FAILED && ftruncate(file, 0) == 0 && close(file) == 0);
    return memory;
}

static char *forbidden(size_t length) {
    char *memory = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED);
    return memory;
}

enum { KINDS = 4 };

static void *absent(int kind, size_t length) {
    if (kind == 0) return (void *)1;
    if (kind == 1) return (void *)(uintptr_t)0xdead000000000000u;
    return kind == 2 ? forbidden(length) : truncated(length);
}

static void refused(ssize_t result) {
    must(result == -1 && errno == EFAULT);
}

/* As an event loop, whose small sends may be held back. */
static void turn(int fd) {
    static int set = -1;
    struct epoll_event event = {.events = EPOLLOUT};
    if (set < 0) must((set = epoll_create1(0)) >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    must(epoll_wait(set, &event, 1, -1) == 1);
}

static void serve_whole(int listener) {
    int fd = answer(listener);
    char *bytes = malloc(LARGE);
    for (int kind = 0; kind < KINDS; kind++) {
        recv_all(fd, bytes, LARGE);
        must(holds(bytes, LARGE, SEED, 0));
        recv_all(fd, bytes, 10);
        must(holds(bytes, 10, SEED, 7));
    }
    await_end(fd);
    close(fd);
    free(bytes);
}

/* What is refused leaves no trace in what is sent before and behind it. */
static void send_absent(uint16_t port) {
    int fd = call_up(port);
    char *bytes = filled(LARGE, SEED);
    for (int kind = 0; kind < KINDS; kind++) {
        void *small = absent(kind, 100), *large = absent(kind, LARGE);
        struct iovec parts[2] = {{bytes, 5}, {small, 100}};
        turn(fd);
        refused(send(fd, small, 100, 0));
        send_all(fd, bytes, LARGE);
        refused(send(fd, large, LARGE, 0));
        refused(write(fd, small, 1));
        refused(writev(fd, parts, 2));
        turn(fd);
        send_all(fd, bytes + 7, 10);
        refused(send(fd, small, 100, MSG_DONTWAIT));
        refused(sendto(fd, large, LARGE, 0, NULL, 0));
        say("kind %d refused\n", kind);
    }
    must(shutdown(fd, SHUT_WR) == 0);
    await_end(fd);
    close(fd);
    free(bytes);
}

static void serve_twice(int listener) {
    int fd = answer(listener);
    char *bytes = filled(LARGE, SEED);
    for (int kind = 0; kind < KINDS; kind++) {
        send_all(fd, bytes, 10);
        await(fd);
        send_all(fd, bytes, LARGE);
        await(fd);
    }
    await_end(fd);
    close(fd);
    free(bytes);
}

static void receive_into_absent(uint16_t port) {
    int fd = call_up(port);
    char *bytes = malloc(LARGE), byte;
    for (int kind = 0; kind < KINDS; kind++) {
        char *memory = absent(kind, LARGE);
        must(recv(fd, &byte, 1, MSG_PEEK) == 1);
        refused(recv(fd, memory, 10, 0));
        refused(recv(fd, memory, 10, MSG_PEEK));
        recv_all(fd, bytes, 10);
        must(holds(bytes, 10, SEED, 0));
        tell(fd);
        must(recv(fd, &byte, 1, MSG_PEEK) == 1);
        refused(recv(fd, memory, 100, MSG_DONTWAIT));
        refused(read(fd, memory, LARGE));
        recv_all(fd, bytes, LARGE);
        must(holds(bytes, LARGE, SEED, 0));
        tell(fd);
        say("kind %d refused\n", kind);
    }
    must(close(fd) == 0);
    free(bytes);
}

/* The structures themselves. */
/* ThreadSanitizer looks at what poll is given before the kernel does, and crashes where no memory can be. */
static void poll_absent(void *memory, int kind) {
#ifdef __SANITIZE_THREAD__
    if (kind == 1) return;
#endif
    (void)kind;
    refused(poll(memory, 1, 0));
}

static void name_absent(uint16_t port) {
    int fd = call_up(port);
    char *bytes = malloc(LARGE);
    for (int kind = 0; kind < KINDS; kind++) {
        void *memory = absent(kind, 4096);
        struct msghdr message = {.msg_iov = memory, .msg_iovlen = 2};
        recv_all(fd, bytes, 10);
        tell(fd);
        refused(sendmsg(fd, memory, 0));
        refused(sendmsg(fd, &message, 0));
        refused(recvmsg(fd, memory, 0));
        refused(recvmsg(fd, &message, 0));
        refused(readv(fd, memory, 2));
        refused(writev(fd, memory, 2));
        refused(sendmmsg(fd, memory, 1, 0));
        poll_absent(memory, kind);
        refused(connect(fd, memory, sizeof(struct sockaddr_in)));
        refused(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, memory, sizeof(int)));
        recv_all(fd, bytes, LARGE);
        must(holds(bytes, LARGE, SEED, 0));
        tell(fd);
        say("kind %d refused\n", kind);
    }
    must(close(fd) == 0);
    free(bytes);
}

/* A handler of the program's own stays in charge of what the program touches itself. */
static volatile sig_atomic_t caught;
static char *volatile touched;

static void catch (int number, siginfo_t *info, void *context) {
    (void)context;
    must(number == SIGBUS && info->si_addr == touched);
    caught = caught + 1;
    must(mmap(touched, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == touched);
}

static void handle_absent(uint16_t port) {
    int fd = call_up(port), status;
    char *bytes = filled(LARGE, SEED), *memory = truncated(LARGE);
    struct sigaction action = {.sa_sigaction = catch, .sa_flags = SA_SIGINFO | SA_RESTART}, old;
    must(sigaction(SIGBUS, &action, &old) == 0 && old.sa_handler == SIG_DFL);
    touched = memory + PAGE;
    must(*touched == 0 && caught == 1);
    turn(fd);
    refused(send(fd, memory, 100, 0));
    must(caught == 1 && sigaction(SIGBUS, NULL, &old) == 0);
    must(old.sa_sigaction == catch && (old.sa_flags & ~0x04000000) == (SA_SIGINFO | SA_RESTART));
    must(signal(SIGBUS, SIG_DFL) == (sighandler_t)(void *)catch);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 0); /* no core file */
        _exit(memory[2 * PAGE]);
    }
    must(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    must(signal(SIGBUS, SIG_IGN) == SIG_DFL && raise(SIGBUS) == 0 && signal(SIGBUS, SIG_DFL) == SIG_IGN);
    for (int kind = 0; kind < KINDS; kind++) {
        refused(send(fd, memory, 100, 0));
        send_all(fd, bytes, LARGE);
        send_all(fd, bytes + 7, 10);
    }
    must(shutdown(fd, SHUT_WR) == 0);
    await_end(fd);
    close(fd);
    free(bytes);
    say("handled\n");
}

int main(int count, char **arguments) {
    static const struct {
        const char *name;
        void (*server)(int listener);
        void (*client)(uint16_t port);
    } cases[] = {
        {"sent", serve_whole, send_absent},
        {"received", serve_twice, receive_into_absent},
        {"named", serve_twice, name_absent},
        {"handled", serve_whole, handle_absent},
    };
    for (size_t i = 0; count == 2 && i < sizeof cases / sizeof *cases; i++)
        if (strcmp(arguments[1], cases[i].name) == 0) return perform(cases[i].server, cases[i].client);
    return 2;
}
