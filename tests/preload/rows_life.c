/* rows_life.c: the rows of hooks.def about the life of descriptors, FILEs on them, and waiting for them. */
#include "rows.h"

#include <linux/close_range.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>

int __dprintf_chk(int fd, int level, const char *format, ...);
int __vdprintf_chk(int fd, int level, const char *format, va_list list);
int __poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room);

/* The rest of a body of which nothing, or a part, has been received. */
static void receive_rest(int fd, size_t from) {
    char *bytes = malloc(BODY);
    recv_all(fd, bytes, BODY - from);
    must(holds(bytes, BODY - from, SEED, from));
    free(bytes);
}

static void converse(int fd) {
    command(fd, 'b', BODY);
    receive_rest(fd, 0);
    command(fd, 'r', BODY);
    send_content(fd, BODY, SEED);
    confirm(fd);
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

/* A number that was a connection until the kernel took it away by itself. */
static void fresh(const char *name, bool intercepted) {
    int old = open_stream(intercepted), fds[2] = {-1, -1}, zero = -1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char byte;
    converse(old);
    close(old);
    if (equal(name, "socketpair")) {
        must(keeping_errno(FUNCTION(socketpair, name)(AF_UNIX, SOCK_STREAM, 0, fds)) == 0);
        must(write(fds[0], "x", 1) == 1 && read(fds[1], &byte, 1) == 1 && byte == 'x');
        close(fds[0]), close(fds[1]);
    } else {
        struct sockaddr_in address = address_of_server(intercepted);
        must((zero = keeping_errno(FUNCTION(socket, name)(AF_INET, SOCK_STREAM, 0))) >= 0);
        must(connect(zero, (struct sockaddr *)&address, sizeof address) == 0);
        send_all(zero, "h", 1);
        converse(zero);
        close(zero);
        must(FUNCTION(socket, name)(-1, SOCK_STREAM, 0) == -1 && errno == EAFNOSUPPORT);
    }
    close(null);
}

static int listen_here(bool intercepted, uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(intercepted ? INADDR_LOOPBACK : PLAIN_ADDRESS)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(fd, (struct sockaddr *)&address, length) == 0);
    must(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

/* A listener in this process and a connection to it: both ends are here. */
static void accepting(const char *name, bool intercepted) {
    uint16_t port, server = rows_port;
    int listener = listen_here(intercepted, &port), made;
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    must(keeping_errno(FUNCTION(listen, equal(name, "listen") ? name : "listen")(listener, 5)) == 0);
    rows_port = port;
    int fd = open_stream(intercepted);
    rows_port = server;
    if (equal(name, "accept4"))
        made = keeping_errno(FUNCTION(accept4, name)(listener, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC));
    else
        made = keeping_errno(
            FUNCTION(accept, equal(name, "listen") ? "accept" : name)(listener, (struct sockaddr *)&peer, &length));
    must(made >= 0 && length == sizeof peer && peer.sin_family == AF_INET);
    char letter;
    pthread_t thread;
    must(recv(made, &letter, 1, 0) == 1 && letter == 'h');
    must(pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)made) == 0);
    converse(fd);
    close(fd);
    close(listener);
    pthread_join(thread, NULL);
}

static void connecting(const char *name, bool intercepted) {
    struct sockaddr_in address = address_of_server(intercepted);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(keeping_errno(FUNCTION(connect, name)(fd, (struct sockaddr *)&address, sizeof address)) == 0);
    must(FUNCTION(connect, name)(fd, (struct sockaddr *)&address, sizeof address) == -1 && errno == EISCONN);
    send_all(fd, "h", 1);
    converse(fd);
    close(fd);
}

static void optional(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), value = 3000, got = 0;
    socklen_t length = sizeof got;
    if (equal(name, "setsockopt"))
        must(keeping_errno(FUNCTION(setsockopt, name)(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value)) == 0);
    else
        must(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value) == 0);
    if (equal(name, "getsockopt"))
        must(keeping_errno(FUNCTION(getsockopt, name)(fd, SOL_SOCKET, SO_RCVLOWAT, &got, &length)) == 0);
    else
        must(getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &got, &length) == 0);
    command(fd, 'b', BODY);
    must(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1) == 1);
    say(" %d", got);
    receive_rest(fd, 0);
    close(fd);
}

static void half_closing(const char *name, bool intercepted) {
    int fd = open_stream(intercepted);
    command(fd, 'b', BODY);
    must(keeping_errno(FUNCTION(shutdown, name)(fd, SHUT_WR)) == 0);
    receive_rest(fd, 0);
    await_end(fd);
    must(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    close(fd);
}

static void closing(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), high = fcntl(fd, F_DUPFD_CLOEXEC, 900);
    converse(fd);
    if (equal(name, "close_range"))
        must(keeping_errno(FUNCTION(close_range, name)((unsigned)high, (unsigned)high + 20, 0)) == 0);
    else if (equal(name, "closefrom"))
        FUNCTION(closefrom, name)(high);
    else
        must(keeping_errno(FUNCTION(close, name)(high)) == 0);
    must(!is_open(high) && is_open(fd));
    converse(fd);
    close(fd);
}

static void duplicating(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), other = open_stream(intercepted), copy;
    command(fd, 'b', BODY);
    recv_all(fd, (char[100]){0}, 100);
    converse(other);
    if (equal(name, "dup"))
        copy = keeping_errno(FUNCTION(dup, name)(fd));
    else if (equal(name, "dup3"))
        copy = keeping_errno(FUNCTION(dup3, name)(fd, other, O_CLOEXEC));
    else if (within("dup2", name))
        copy = keeping_errno(FUNCTION(dup2, name)(fd, other));
    else
        copy = keeping_errno(FUNCTION(fcntl, name)(fd, F_DUPFD, 50));
    must(copy >= 0 && (copy == other || !within("dup", name) || equal(name, "dup")));
    close(fd);
    receive_rest(copy, 100);
    converse(copy);
    close(copy);
    if (copy != other) close(other);
}

static void counting(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), queued = 0;
    command(fd, 'b', 1000);
    while (queued < 1000) must(keeping_errno(FUNCTION(ioctl, name)(fd, FIONREAD, &queued)) == 0);
    must(queued == 1000 && recv(fd, (char[400]){0}, 400, 0) == 400);
    must(FUNCTION(ioctl, name)(fd, FIONREAD, &queued) == 0 && queued == 600);
    must(FUNCTION(ioctl, name)(fd, FIONBIO, &(int){1}) == 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK));
    close(fd);
}

/* A FILE on a connection on which something has been said. */
static FILE *file_on(const char *name, int fd) {
    FILE *file = FUNCTION(fdopen, within("fdopen", name) ? name : "fdopen")(fd, "r+");
    must(file != NULL);
    return file;
}

static void opening(const char *name, bool intercepted) {
    int fd = open_stream(intercepted);
    converse(fd);
    command(fd, 'b', BODY);
    FILE *file = file_on(name, fd);
    char *bytes = malloc(BODY);
    must(fread(bytes, 1, BODY, file) == BODY && holds(bytes, BODY, SEED, 0));
    must(FUNCTION(fdopen, within("fdopen", name) ? name : "fdopen")(-1, "r") == NULL);
    if (within("fileno", name)) must(FUNCTION(fileno, name)(file) == fd);
    if (within("fclose", name)) {
        must(keeping_errno(FUNCTION(fclose, name)(file)) == 0);
    } else if (within("freopen", name)) {
        must((file = FUNCTION(freopen, name)("/dev/null", "r", file)) != NULL && fgetc(file) == EOF);
        fclose(file);
    } else {
        fclose(file);
    }
    must(!is_open(fd));
    free(bytes);
}

static __attribute__((format(printf, 3, 4))) int print(const char *name, int fd, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int length = within("_chk", name) ? FUNCTION(__vdprintf_chk, name)(fd, 1, format, list)
                                      : FUNCTION(vdprintf, name)(fd, format, list);
    va_end(list);
    return length;
}

static void printing(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), length;
    char text[5000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = letter_at(i);
    command(fd, 'p', 5000);
    if (within("__vd", name) || within("vd", name))
        length = print(name, fd, "%.*s", 5000, text);
    else if (within("_chk", name))
        length = FUNCTION(__dprintf_chk, name)(fd, 1, "%.*s", 5000, text);
    else
        length = FUNCTION(dprintf, name)(fd, "%.*s", 5000, text);
    must(length == 5000);
    confirm(fd);
    close(fd);
}

static int wait_epoll(const char *name, int set, int fd, int milliseconds) {
    struct epoll_event event = {.events = 0};
    struct timespec time = {0, milliseconds * 1000000L};
    int count;
    if (equal(name, "epoll_pwait2"))
        count = FUNCTION(epoll_pwait2, name)(set, &event, 1, milliseconds < 0 ? NULL : &time, NULL);
    else if (equal(name, "epoll_pwait"))
        count = FUNCTION(epoll_pwait, name)(set, &event, 1, milliseconds, NULL);
    else
        count = FUNCTION(epoll_wait, equal(name, "epoll_ctl") ? "epoll_wait" : name)(set, &event, 1, milliseconds);
    must(count == 0 || (count == 1 && event.data.fd == fd && (event.events & EPOLLIN)));
    return count;
}

static int wait_once(const char *name, int fd, int milliseconds) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    struct timespec time = {0, milliseconds * 1000000L};
    struct timeval coarse = {0, milliseconds * 1000L};
    fd_set in;
    FD_ZERO(&in);
    FD_SET(fd, &in);
    if (equal(name, "pselect"))
        return FUNCTION(pselect, name)(fd + 1, &in, NULL, NULL, milliseconds < 0 ? NULL : &time, NULL);
    if (within("select", name))
        return FUNCTION(select, name)(fd + 1, &in, NULL, NULL, milliseconds < 0 ? NULL : &coarse);
    if (within("ppoll_chk", name))
        return FUNCTION(__ppoll_chk, name)(&entry, 1, milliseconds < 0 ? NULL : &time, NULL, sizeof entry);
    if (within("poll_chk", name)) return FUNCTION(__poll_chk, name)(&entry, 1, milliseconds, sizeof entry);
    if (equal(name, "ppoll")) return FUNCTION(ppoll, name)(&entry, 1, milliseconds < 0 ? NULL : &time, NULL);
    return FUNCTION(poll, name)(&entry, 1, milliseconds);
}

/* Readable as long as a part of what came is not received, and not afterwards. */
static void waiting(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), set = -1;
    char *bytes = malloc(BODY);
    bool epoll = within("epoll", name);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll) must((set = epoll_create1(EPOLL_CLOEXEC)) >= 0);
    if (epoll)
        must(keeping_errno(FUNCTION(epoll_ctl, equal(name, "epoll_ctl") ? name : "epoll_ctl")(set, EPOLL_CTL_ADD, fd,
                                                                                              &event)) == 0);
    for (int round = 0; round < 2; round++) {
        must(keeping_errno(epoll ? wait_epoll(name, set, fd, 10) : wait_once(name, fd, 10)) == 0);
        command(fd, 'b', BODY);
        for (size_t done = 0; done < BODY;) {
            must(keeping_errno(epoll ? wait_epoll(name, set, fd, -1) : wait_once(name, fd, -1)) == 1);
            ssize_t got = recv(fd, bytes, 9000, MSG_DONTWAIT);
            must(got > 0 && holds(bytes, (size_t)got, SEED, done));
            done += (size_t)got;
        }
    }
    if (epoll) close(set);
    close(fd);
    free(bytes);
}

static const struct row rows[] = {
    {"socket", fresh},           {"socketpair", fresh},        {"accept", accepting},     {"accept4", accepting},
    {"listen", accepting},       {"connect", connecting},      {"__connect", connecting}, {"getsockopt", optional},
    {"setsockopt", optional},    {"shutdown", half_closing},   {"close", closing},        {"__close", closing},
    {"close_range", closing},    {"closefrom", closing},       {"dup", duplicating},      {"dup2", duplicating},
    {"__dup2", duplicating},     {"dup3", duplicating},        {"fcntl", duplicating},    {"__fcntl", duplicating},
    {"fcntl64", duplicating},    {"ioctl", counting},          {"fdopen", opening},       {"_IO_fdopen", opening},
    {"fclose", opening},         {"_IO_fclose", opening},      {"freopen", opening},      {"freopen64", opening},
    {"fileno", opening},         {"fileno_unlocked", opening}, {"dprintf", printing},     {"vdprintf", printing},
    {"__dprintf_chk", printing}, {"__vdprintf_chk", printing}, {"epoll_ctl", waiting},    {"epoll_wait", waiting},
    {"epoll_pwait", waiting},    {"epoll_pwait2", waiting},    {"poll", waiting},         {"__poll", waiting},
    {"__poll_chk", waiting},     {"ppoll", waiting},           {"__ppoll_chk", waiting},  {"select", waiting},
    {"__select", waiting},       {"pselect", waiting},
};

static void consume(uint16_t port) {
    ROWS(rows, port);
}

int main(void) {
    return perform(serve_rows, consume);
}
