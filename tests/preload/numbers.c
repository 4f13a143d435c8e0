/* numbers.c: calls made by syscall(), by libc's other names, and the rarer ones: numbers CASE. */
#include "scene.h"

#include <aio.h>
#include <linux/aio_abi.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { BODY = 200000, CHUNK = 65536, SEED = 43 };

ssize_t __read(int fd, void *buffer, size_t size);
ssize_t __write(int fd, const void *buffer, size_t size);
ssize_t __send(int fd, const void *buffer, size_t size, int flags);
ssize_t __pread64(int fd, void *buffer, size_t size, off64_t offset);
ssize_t __pwrite64(int fd, const void *buffer, size_t size, off64_t offset);
int __close(int fd);
int __connect(int fd, const struct sockaddr *address, socklen_t length);
int __dup2(int from, int to);
int __fcntl(int fd, int command, ...);
int __poll(struct pollfd *fds, nfds_t count, int timeout);
int __select(int count, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout);

static const char *chosen;

static bool is(const char *name) {
    return strcmp(chosen, name) == 0;
}

static ssize_t put(int fd, char *bytes, size_t length, int turn) {
    struct iovec iov[2] = {{bytes, length / 2}, {bytes + length / 2, length - length / 2}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    struct mmsghdr messages = {.msg_hdr = message};
    if (is("names")) return turn % 2 ? __write(fd, bytes, length) : __send(fd, bytes, length, MSG_NOSIGNAL);
    if (is("flagged")) return pwritev2(fd, iov, 2, -1, turn % 2 ? 0 : RWF_HIPRI);
    switch (turn % 6) {
    case 0:
        return syscall(SYS_write, fd, bytes, length);
    case 1:
        return syscall(SYS_writev, fd, iov, 2);
    case 2:
        return syscall(SYS_sendto, fd, bytes, length, MSG_NOSIGNAL, NULL, 0);
    case 3:
        return syscall(SYS_sendmsg, fd, &message, 0);
    case 4:
        return syscall(SYS_sendmmsg, fd, &messages, 1, 0) == 1 ? (ssize_t)messages.msg_len : -1;
    default:
        return syscall(SYS_pwritev2, fd, iov, 2, -1L, -1L, 0);
    }
}

static ssize_t get(int fd, char *to, size_t room, int turn) {
    struct iovec iov[2] = {{to, room / 2}, {to + room / 2, room - room / 2}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    struct mmsghdr messages = {.msg_hdr = message};
    if (is("names")) return __read(fd, to, room);
    if (is("flagged")) return preadv2(fd, iov, 2, -1, 0);
    switch (turn % 6) {
    case 0:
        return syscall(SYS_read, fd, to, room);
    case 1:
        return syscall(SYS_readv, fd, iov, 2);
    case 2:
        return syscall(SYS_recvfrom, fd, to, room, 0, NULL, NULL);
    case 3:
        return syscall(SYS_recvmsg, fd, &message, 0);
    case 4:
        return syscall(SYS_recvmmsg, fd, &messages, 1, 0, NULL) == 1 ? (ssize_t)messages.msg_len : -1;
    default:
        return syscall(SYS_preadv2, fd, iov, 2, -1L, -1L, 0);
    }
}

static bool readable(int fd, int milliseconds) {
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    struct timeval zero = {0, milliseconds * 1000};
    struct timespec time = {0, milliseconds * 1000000};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    if (is("names"))
        return __poll(&entry, 1, milliseconds) == 1 &&
               __select(fd + 1, &set, NULL, NULL, milliseconds < 0 ? NULL : &zero) == 1;
    return syscall(SYS_ppoll, &entry, 1, milliseconds < 0 ? NULL : &time, NULL, 8) == 1;
}

/* The five calls that make, copy and end a descriptor. */
static void serve(int listener) {
    int fd = is("numbers") ? (int)syscall(SYS_accept4, listener, NULL, NULL, 0) : accept(listener, NULL, NULL);
    char byte, *bytes = filled(BODY, SEED);
    must(fd >= 0 && recv(fd, &byte, 1, 0) == 1);
    for (size_t done = 0, turn = 0; done < BODY; turn++) {
        ssize_t sent = keeping_errno(put(fd, bytes + done, BODY - done < CHUNK ? BODY - done : CHUNK, (int)turn));
        must(sent > 0);
        done += (size_t)sent;
    }
    int copy = is("numbers") ? (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 20)
               : is("names") ? __dup2(fd, 20)
                             : __fcntl(fd, F_DUPFD, 20);
    must(copy >= 20 && (is("numbers") ? syscall(SYS_close, fd) : __close(fd)) == 0);
    must((is("numbers") ? syscall(SYS_shutdown, copy, SHUT_WR) : shutdown(copy, SHUT_WR)) == 0);
    await_end(copy);
    close(copy);
}

static void consume(uint16_t port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), queued = 0;
    must((is("numbers") ? syscall(SYS_connect, fd, &address, sizeof address)
                        : __connect(fd, (struct sockaddr *)&address, sizeof address)) == 0);
    tell(fd);
    must(readable(fd, -1));
    must(syscall(SYS_ioctl, fd, FIONREAD, &queued) == 0 && queued > 0);
    char *buffer = malloc(CHUNK);
    size_t done = 0;
    for (int turn = 0;; turn++) {
        ssize_t got = keeping_errno(get(fd, buffer, CHUNK, turn));
        must(got >= 0);
        if (got == 0) break;
        must(holds(buffer, (size_t)got, SEED, done));
        done += (size_t)got;
    }
    must(done == BODY && readable(fd, 0));
    must(syscall(SYS_getpid) == getpid() && syscall(SYS_close, -1) == -1 && errno == EBADF);
    say("%s: %zu\n", chosen, done);
    close(fd);
}

/* What the kernel does with windows by rarer calls. */
static void serve_window(int listener) {
    int fd = answer(listener);
    send_content(fd, BODY, SEED);
    await_end(fd);
}

static void to_a_pipe(char *window, int file) {
    int pipes[2];
    char *bytes = malloc(BODY);
    (void)file;
    must(pipe(pipes) == 0);
    for (size_t done = 0; done < BODY;) {
        struct iovec iov = {window + done, BODY - done};
        ssize_t moved = keeping_errno(vmsplice(pipes[1], &iov, 1, 0));
        must(moved > 0 && read_whole(pipes[0], bytes + done, (size_t)moved));
        done += (size_t)moved;
    }
    must(holds(bytes, BODY, SEED, 0));
}

static void by_aio(char *window, int file) {
    struct aiocb request = {.aio_fildes = file, .aio_buf = window, .aio_nbytes = BODY, .aio_offset = 7};
    const struct aiocb *requests[] = {&request};
    must(aio_write(&request) == 0 && aio_suspend(requests, 1, NULL) == 0 && aio_return(&request) == BODY);
    char *bytes = malloc(BODY);
    must(__pread64(file, bytes, BODY, 7) == BODY && holds(bytes, BODY, SEED, 0));
}

static void by_aio_list(char *window, int file) {
    struct aiocb request = {.aio_fildes = file, .aio_buf = window, .aio_nbytes = BODY, .aio_lio_opcode = LIO_WRITE};
    struct aiocb *requests[] = {&request};
    must(lio_listio(LIO_WAIT, requests, 1, NULL) == 0 && aio_return(&request) == BODY);
    char *bytes = malloc(BODY);
    must(pread(file, bytes, BODY, 0) == BODY && holds(bytes, BODY, SEED, 0));
}

static void by_kernel_aio(char *window, int file) {
    aio_context_t context = 0;
    struct iocb request = {.aio_lio_opcode = IOCB_CMD_PWRITE,
                           .aio_fildes = (unsigned)file,
                           .aio_buf = (uintptr_t)window,
                           .aio_nbytes = BODY};
    struct iocb *requests[] = {&request};
    struct io_event event;
    must(syscall(SYS_io_setup, 8, &context) == 0 && syscall(SYS_io_submit, context, 1L, requests) == 1);
    must(syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL) == 1 && event.res == BODY &&
         syscall(SYS_io_destroy, context) == 0);
    char *bytes = malloc(BODY);
    must(pread(file, bytes, BODY, 0) == BODY && holds(bytes, BODY, SEED, 0));
}

static void by_position_and_flags(char *window, int file) {
    struct iovec halves[2] = {{window, BODY / 2}, {window + BODY / 2, BODY - BODY / 2}};
    must(keeping_errno(pwritev2(file, halves, 2, 3, RWF_DSYNC)) == BODY);
    char *bytes = malloc(BODY);
    must(pread(file, bytes, BODY, 3) == BODY && holds(bytes, BODY, SEED, 0));
    must(syscall(SYS_pwrite64, file, bytes, BODY, 9L) == BODY && __pwrite64(file, bytes, 9, 0) == 9);
    struct iovec whole = {bytes, BODY};
    must(keeping_errno(preadv2(file, &whole, 1, 9, 0)) == BODY && holds(bytes, BODY, SEED, 0));
}

/* Memory and signals by number. */
static void by_number(char *window, int file) {
    uint64_t mask = ~0ull, before = 0, after = 0;
    (void)file;
    must(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, 8) == 0 &&
         syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, &after, 8) == 0);
    must(after >> (SIGSEGV - 1) & 1);
    must(!(before >> (SIGSEGV - 1) & 1));
    char *page = (char *)(((uintptr_t)window + PAGE - 1) & ~(PAGE - 1));
    must(syscall(SYS_mprotect, page, 16 * PAGE, PROT_READ) == 0 && holds(window, BODY, SEED, 0));
    must(syscall(SYS_mprotect, page, 16 * PAGE, PROT_READ | PROT_WRITE) == 0);
    must(syscall(SYS_madvise, page, PAGE, MADV_WILLNEED) == 0);
    void *memory = (void *)syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    must(memory != MAP_FAILED && syscall(SYS_munmap, memory, PAGE) == 0);
}

static const struct {
    const char *name;
    void (*run)(char *window, int file);
} cases[] = {{"to_a_pipe", to_a_pipe},
             {"by_aio", by_aio},
             {"by_aio_list", by_aio_list},
             {"by_kernel_aio", by_kernel_aio},
             {"by_position_and_flags", by_position_and_flags},
             {"by_number", by_number}};

static void consume_window(uint16_t port) {
    int fd = call_up(port);
    char *window = malloc(BODY);
    must(recv(fd, window, BODY, MSG_WAITALL) == BODY);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (is(cases[i].name)) {
            cases[i].run(window, file_of(1, 1));
            say("%s\n", chosen);
        }
    must(scene.used > 0 && holds(window, BODY, SEED, 0));
    close(fd);
}

int main(int argc, char **argv) {
    must(argc == 2);
    chosen = argv[1];
    if (is("numbers") || is("names") || is("flagged")) return perform(serve, consume);
    return perform(serve_window, consume_window);
}
