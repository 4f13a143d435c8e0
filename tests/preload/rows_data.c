/* rows_data.c: the rows of hooks.def that move data: through connections, to and from files, later, by number, and into buffers of the kernel's choice. */
#include "rows.h"

#include <aio.h>
#include <dirent.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

enum { OFFSET = 7 };

ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room);
ssize_t __recv_chk(int fd, void *buffer, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buffer, size_t size, size_t room, int flags, struct sockaddr *address,
                       socklen_t *length);
ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room);
ssize_t __readlink_chk(const char *path, char *buffer, size_t size, size_t room);
ssize_t __readlinkat_chk(int directory, const char *path, char *buffer, size_t size, size_t room);
size_t __fread_chk(void *buffer, size_t room, size_t size, size_t count, FILE *file);

/* One receive by the function of that name. */
static ssize_t take(const char *name, int fd, char *to, size_t room) {
    struct iovec iov[2] = {{to, room / 2}, {to + room / 2, room - room / 2}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    struct mmsghdr messages = {.msg_hdr = message};
    if (within("recvfrom_chk", name)) return FUNCTION(__recvfrom_chk, name)(fd, to, room, room, 0, NULL, NULL);
    if (within("recv_chk", name)) return FUNCTION(__recv_chk, name)(fd, to, room, room, 0);
    if (within("read_chk", name)) return FUNCTION(__read_chk, name)(fd, to, room, room);
    if (equal(name, "readv")) return FUNCTION(readv, name)(fd, iov, 2);
    if (equal(name, "recvmsg")) return FUNCTION(recvmsg, name)(fd, &message, 0);
    if (equal(name, "recvfrom")) return FUNCTION(recvfrom, name)(fd, to, room, 0, NULL, NULL);
    if (equal(name, "recv")) return FUNCTION(recv, name)(fd, to, room, 0);
    if (equal(name, "recvmmsg"))
        return FUNCTION(recvmmsg, name)(fd, &messages, 1, 0, NULL) == 1 ? (ssize_t)messages.msg_len : -1;
    return FUNCTION(read, name)(fd, to, room);
}

/* A message with room for one descriptor. */
struct parcel {
    char byte;
    struct iovec iov;
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr head;
    } control;
    struct mmsghdr message;
};

static void wrap(struct parcel *parcel) {
    *parcel = (struct parcel){.byte = 'd'};
    parcel->iov = (struct iovec){&parcel->byte, 1};
    parcel->message.msg_hdr = (struct msghdr){.msg_iov = &parcel->iov,
                                              .msg_iovlen = 1,
                                              .msg_control = parcel->control.bytes,
                                              .msg_controllen = sizeof parcel->control.bytes};
}

/* In another process, which has never heard of the connection. */
static int receive_passed(const char *name, int from) {
    struct parcel parcel;
    int fd;
    wrap(&parcel);
    if (equal(name, "recvmmsg"))
        must(FUNCTION(recvmmsg, name)(from, &parcel.message, 1, 0, NULL) == 1);
    else
        must(FUNCTION(recvmsg, equal(name, "recvmsg") ? name : "recvmsg")(from, &parcel.message.msg_hdr, 0) == 1);
    memcpy(&fd, CMSG_DATA(&parcel.control.head), sizeof fd);
    char *rest = malloc(BODY);
    recv_all(fd, rest, BODY - 100);
    return holds(rest, BODY - 100, SEED, 100) ? 0 : 1;
}

/* A connection of which the beginning has been received goes to another process. */
static void passing(const char *name, bool intercepted) {
    int pair[2], status = -1;
    struct parcel parcel;
    must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0);
    pid_t child = fork();
    if (child == 0) _exit(receive_passed(name, pair[0]));
    int fd = open_stream(intercepted);
    command(fd, 'b', BODY);
    recv_all(fd, (char[100]){0}, 100);
    wrap(&parcel);
    parcel.control.head = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&parcel.control.head), &fd, sizeof fd);
    if (equal(name, "sendmmsg"))
        must(FUNCTION(sendmmsg, name)(pair[1], &parcel.message, 1, 0) == 1);
    else
        must(FUNCTION(sendmsg, equal(name, "sendmsg") ? name : "sendmsg")(pair[1], &parcel.message.msg_hdr, 0) == 1);
    must(waitpid(child, &status, 0) == child && status == 0);
    close(pair[0]), close(pair[1]), close(fd);
}

static void receiving(const char *name, bool intercepted) {
    int fd = open_stream(intercepted);
    char *buffer = malloc(BODY);
    must(recv(fd, buffer, 0, MSG_DONTWAIT) == -1 && errno == EAGAIN && read(fd, buffer, 0) == 0);
    command(fd, 'b', BODY);
    must(keeping_errno(recv(fd, buffer, 0, 0)) == 0); /* waits, and takes nothing */
    for (size_t done = 0; done < BODY;) {
        ssize_t got = keeping_errno(take(name, fd, buffer, BODY));
        must(got > 0 && holds(buffer, (size_t)got, SEED, done));
        done += (size_t)got;
    }
    command(fd, 'e', 0);
    must(keeping_errno(take(name, fd, buffer, BODY)) == 0);
    close(fd);
    must(take(name, -1, buffer, BODY) == -1 && errno == EBADF);
    if (within("msg", name)) passing(name, intercepted);
    free(buffer);
}

static ssize_t give(const char *name, int fd, char *bytes, size_t length) {
    struct iovec iov[2] = {{bytes, length / 2}, {bytes + length / 2, length - length / 2}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};
    struct mmsghdr messages = {.msg_hdr = message};
    if (equal(name, "writev")) return FUNCTION(writev, name)(fd, iov, 2);
    if (equal(name, "sendmsg")) return FUNCTION(sendmsg, name)(fd, &message, MSG_NOSIGNAL);
    if (equal(name, "sendto")) return FUNCTION(sendto, name)(fd, bytes, length, MSG_NOSIGNAL, NULL, 0);
    if (equal(name, "sendmmsg"))
        return FUNCTION(sendmmsg, name)(fd, &messages, 1, MSG_NOSIGNAL) == 1 ? (ssize_t)messages.msg_len : -1;
    if (within("send", name)) return FUNCTION(send, name)(fd, bytes, length, MSG_NOSIGNAL);
    return FUNCTION(write, name)(fd, bytes, length);
}

static void sending(const char *name, bool intercepted) {
    char *bytes = window(intercepted);
    int fd = open_stream(intercepted);
    command(fd, 'r', BODY);
    for (size_t done = 0; done < BODY;) {
        ssize_t put = keeping_errno(give(name, fd, bytes + done, BODY - done));
        must(put > 0);
        done += (size_t)put;
    }
    confirm(fd);
    close(fd);
    must(give(name, -1, bytes, BODY) == -1 && errno == EBADF);
    if (within("msg", name)) passing(name, intercepted);
    free(bytes);
}

static void sending_files(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), file = file_of(BODY, SEED);
    off64_t offset = 0;
    command(fd, 'r', BODY);
    while (offset < BODY) must(keeping_errno(FUNCTION(sendfile64, name)(fd, file, &offset, BODY - (size_t)offset)) > 0);
    must(offset == BODY);
    confirm(fd);
    close(file);
    close(fd);
}

/* Whoever cannot splice writes. */
static void splicing(const char *name, bool intercepted) {
    int fd = open_stream(intercepted), pipes[2];
    char bytes[4000], again[sizeof bytes];
    fill(bytes, sizeof bytes, SEED, 0);
    must(pipe(pipes) == 0 && write(pipes[1], bytes, sizeof bytes) == (ssize_t)sizeof bytes);
    command(fd, 'r', sizeof bytes);
    ssize_t moved = FUNCTION(splice, name)(pipes[0], NULL, fd, NULL, sizeof bytes, 0);
    must(moved == (ssize_t)sizeof bytes || (intercepted && moved == -1 && errno == EINVAL));
    if (moved < 0) {
        must(read_whole(pipes[0], again, sizeof again));
        send_all(fd, again, sizeof again);
    }
    confirm(fd);
    close(pipes[0]), close(pipes[1]), close(fd);
}

static void lending(const char *name, bool intercepted) {
    char *bytes = window(intercepted), *copy = malloc(BODY);
    int pipes[2];
    must(pipe(pipes) == 0);
    for (size_t done = 0; done < BODY;) {
        struct iovec iov = {bytes + done, BODY - done};
        ssize_t moved = keeping_errno(FUNCTION(vmsplice, name)(pipes[1], &iov, 1, 0));
        must(moved > 0 && read_whole(pipes[0], copy + done, (size_t)moved));
        done += (size_t)moved;
    }
    must(holds(copy, BODY, SEED, 0));
    close(pipes[0]), close(pipes[1]);
    free(bytes);
    free(copy);
}

static ssize_t take_at(const char *name, int file, char *to, off64_t offset) {
    struct iovec iov[2] = {{to, BODY / 2}, {to + BODY / 2, BODY - BODY / 2}};
    if (within("_chk", name)) return FUNCTION(__pread_chk, name)(file, to, BODY, offset, BODY);
    if (within("v2", name)) return FUNCTION(preadv2, name)(file, iov, 2, offset, 0);
    if (within("preadv", name)) return FUNCTION(preadv, name)(file, iov, 2, offset);
    return FUNCTION(pread, name)(file, to, BODY, offset);
}

static void reading_at(const char *name, bool intercepted) {
    char *buffer = window(intercepted);
    int file = file_of(BODY + OFFSET, SEED + 1);
    must(keeping_errno(take_at(name, file, buffer, OFFSET)) == BODY && holds(buffer, BODY, SEED + 1, OFFSET));
    must(lseek(file, 0, SEEK_CUR) == 0 && take_at(name, -1, buffer, 0) == -1 && errno == EBADF);
    close(file);
    free(buffer);
}

static ssize_t give_at(const char *name, int file, char *bytes, off64_t offset) {
    struct iovec iov[2] = {{bytes, BODY / 2}, {bytes + BODY / 2, BODY - BODY / 2}};
    if (within("v2", name)) return FUNCTION(pwritev2, name)(file, iov, 2, offset, 0);
    if (within("pwritev", name)) return FUNCTION(pwritev, name)(file, iov, 2, offset);
    return FUNCTION(pwrite, name)(file, bytes, BODY, offset);
}

static void expect_in_file(int file) {
    char *copy = malloc(BODY);
    must(pread(file, copy, BODY, OFFSET) == BODY && holds(copy, BODY, SEED, 0));
    free(copy);
}

static void writing_at(const char *name, bool intercepted) {
    char *bytes = window(intercepted);
    int file = file_of(1, 1);
    must(keeping_errno(give_at(name, file, bytes, OFFSET)) == BODY);
    expect_in_file(file);
    must(give_at(name, -1, bytes, 0) == -1 && errno == EBADF);
    close(file);
    free(bytes);
}

/* The requests of 32 and 64 bits have one layout here. */
static void later(const char *name, bool intercepted) {
    char *buffer = window(intercepted);
    bool in = within("read", name);
    int file = file_of(in ? BODY + OFFSET : 1, SEED + 1);
    struct aiocb request = {
        .aio_fildes = file, .aio_buf = buffer, .aio_nbytes = BODY, .aio_offset = OFFSET, .aio_lio_opcode = LIO_WRITE};
    struct aiocb *requests[] = {&request};
    if (within("lio", name)) {
        must(FUNCTION(lio_listio, name)(LIO_WAIT, requests, 1, NULL) == 0);
    } else {
        must(FUNCTION(aio_read, name)(&request) == 0);
        while (aio_error(&request) == EINPROGRESS) aio_suspend((const struct aiocb *const *)requests, 1, NULL);
    }
    must(aio_return(&request) == BODY);
    if (in)
        must(holds(buffer, BODY, SEED + 1, OFFSET));
    else
        expect_in_file(file);
    close(file);
    free(buffer);
}

static void by_number(const char *name, bool intercepted) {
    char *buffer = malloc(BODY);
    int fd = open_stream(intercepted);
    command(fd, 'b', BODY);
    for (size_t done = 0; done < BODY;) {
        long got = keeping_errno(FUNCTION(syscall, name)(SYS_read, fd, buffer + done, BODY - done));
        must(got > 0);
        done += (size_t)got;
    }
    must(FUNCTION(syscall, name)(SYS_close, fd) == 0 && FUNCTION(syscall, name)(SYS_getpid) == getpid());
    must(holds(buffer, BODY, SEED, 0));
    free(buffer);
}

static void in_blocks(const char *name, bool intercepted) {
    char *buffer = window(intercepted);
    bool in = within("read", name), fortified = within("_chk", name);
    int fd = file_of(in ? BODY : 1, SEED + 1);
    FILE *file = fdopen(fd, "r+");
    if (fortified)
        must(FUNCTION(__fread_chk, name)(buffer, BODY, 1, BODY, file) == BODY);
    else if (in)
        must(FUNCTION(fread, name)(buffer, 1, BODY, file) == BODY);
    else
        must(fseek(file, OFFSET, SEEK_SET) == 0 && FUNCTION(fwrite, name)(buffer, 1, BODY, file) == BODY &&
             fflush(file) == 0);
    if (in)
        must(holds(buffer, BODY, SEED + 1, 0));
    else
        expect_in_file(fd);
    fclose(file);
    free(buffer);
}

static ssize_t link_by(const char *name, const char *path, char *to) {
    if (within("at_chk", name)) return FUNCTION(__readlinkat_chk, name)(AT_FDCWD, path, to, BODY, BODY);
    if (within("_chk", name)) return FUNCTION(__readlink_chk, name)(path, to, BODY, BODY);
    if (within("at", name)) return FUNCTION(readlinkat, name)(AT_FDCWD, path, to, BODY);
    return FUNCTION(readlink, name)(path, to, BODY);
}

/* The buffer is the inside of a window, and what is around it stays. */
static void filling(const char *name, bool intercepted) {
    char *block = window(intercepted), *to = first_page(block) + PAGE, path[64];
    ssize_t got = -1;
    if (within("readlink", name)) {
        snprintf(path, sizeof path, "scene-link-%d", getpid());
        must(symlink("to nowhere", path) == 0);
        got = keeping_errno(link_by(name, path, to));
        must(got == 10 && memcmp(to, "to nowhere", 10) == 0 && unlink(path) == 0);
    } else if (equal(name, "getrandom")) {
        got = keeping_errno(FUNCTION(getrandom, name)(to, 100, 0));
        must(got == 100);
    } else if (equal(name, "getentropy")) {
        got = keeping_errno(FUNCTION(getentropy, name)(to, 100)) == 0 ? 100 : -1;
        must(got == 100);
    } else {
        int directory = open("/proc/self/ns", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        must((got = keeping_errno(FUNCTION(getdents64, name)(directory, to, 4000))) > 0);
        close(directory);
    }
    must(holds(to + got, (size_t)(block + BODY - (to + got)), SEED, (size_t)(to + got - block)));
    must(holds(block, (size_t)(to - block), SEED, 0));
    free(block);
}

static void messages(const char *name, bool intercepted) {
    char *block = window(intercepted), *to = first_page(block) + PAGE;
    struct {
        long type;
        char text[50];
    } one = {1, "a message"};
    int queue = msgget(IPC_PRIVATE, 0600);
    must(queue >= 0);
    if (equal(name, "msgsnd")) {
        long type = 2;
        memcpy(&one, to + PAGE, sizeof one); /* touched: the next pages are not */
        memcpy(to + 8 * PAGE - sizeof type, &type, sizeof type);
        must(FUNCTION(msgsnd, name)(queue, to + 8 * PAGE - sizeof type, 50, 0) == 0);
        must(msgrcv(queue, &one, 50, 0, 0) == 50 && one.type == 2 &&
             holds(one.text, 50, SEED, (size_t)(to + 8 * PAGE - block)));
    } else {
        must(msgsnd(queue, &one, 50, 0) == 0 && FUNCTION(msgrcv, name)(queue, to, 50, 0, 0) == 50);
        must(memcmp(to, &one, sizeof(long) + 50) == 0);
    }
    must(msgctl(queue, IPC_RMID, NULL) == 0);
    free(block);
}

static ssize_t attribute_in(const char *name, int file, const char *path, char *to) {
    if (equal(name, "fgetxattr")) return FUNCTION(fgetxattr, name)(file, "user.scene", to, 1000);
    if (within("getxattr", name)) return FUNCTION(getxattr, name)(path, "user.scene", to, 1000);
    if (equal(name, "flistxattr")) return FUNCTION(flistxattr, name)(file, to, 1000);
    return FUNCTION(listxattr, name)(path, to, 1000);
}

/* Where the file system has no attributes, the error is the same. */
static void attributes(const char *name, bool intercepted) {
    char *block = window(intercepted), *inside = first_page(block) + PAGE, path[] = "scene-file-XXXXXX", copy[100];
    int file = mkstemp(path), result;
    must(file >= 0);
    if (within("set", name)) {
        result = equal(name, "fsetxattr") ? FUNCTION(fsetxattr, name)(file, "user.scene", inside, 100, 0)
                                          : FUNCTION(setxattr, name)(path, "user.scene", inside, 100, 0);
        if (result == 0)
            must(getxattr(path, "user.scene", copy, 100) == 100 && memcmp(copy, inside, 100) == 0);
        else
            must(errno == ENOTSUP);
    } else {
        result = setxattr(path, "user.scene", "value", 5, 0);
        ssize_t got = attribute_in(name, file, path, inside);
        must(result != 0 || got == (within("list", name) ? 11 : 5) || within("list", name));
        must(got >= 0 || errno == ENOTSUP || errno == ENODATA);
        if (result == 0 && within("get", name)) must(memcmp(inside, "value", 5) == 0);
    }
    say(" %d", result);
    must(unlink(path) == 0 && close(file) == 0);
    free(block);
}

static const struct row rows[] = {
    {"read", receiving},
    {"__read", receiving},
    {"__read_chk", receiving},
    {"readv", receiving},
    {"recv", receiving},
    {"__recv_chk", receiving},
    {"recvfrom", receiving},
    {"__recvfrom_chk", receiving},
    {"recvmsg", receiving},
    {"recvmmsg", receiving},
    {"pread", reading_at},
    {"pread64", reading_at},
    {"__pread64", reading_at},
    {"__pread_chk", reading_at},
    {"__pread64_chk", reading_at},
    {"preadv", reading_at},
    {"preadv64", reading_at},
    {"preadv2", reading_at},
    {"preadv64v2", reading_at},
    {"write", sending},
    {"__write", sending},
    {"writev", sending},
    {"send", sending},
    {"__send", sending},
    {"sendto", sending},
    {"sendmsg", sending},
    {"sendmmsg", sending},
    {"sendfile", sending_files},
    {"sendfile64", sending_files},
    {"splice", splicing},
    {"vmsplice", lending},
    {"pwrite", writing_at},
    {"pwrite64", writing_at},
    {"__pwrite64", writing_at},
    {"pwritev", writing_at},
    {"pwritev64", writing_at},
    {"pwritev2", writing_at},
    {"pwritev64v2", writing_at},
    {"aio_read", later},
    {"aio_read64", later},
    {"aio_write", later},
    {"aio_write64", later},
    {"lio_listio", later},
    {"lio_listio64", later},
    {"syscall", by_number},
    {"fwrite", in_blocks},
    {"_IO_fwrite", in_blocks},
    {"fwrite_unlocked", in_blocks},
    {"fread", in_blocks},
    {"_IO_fread", in_blocks},
    {"fread_unlocked", in_blocks},
    {"__fread_chk", in_blocks},
    {"__fread_unlocked_chk", in_blocks},
    {"readlink", filling},
    {"readlinkat", filling},
    {"__readlink_chk", filling},
    {"__readlinkat_chk", filling},
    {"getrandom", filling},
    {"getentropy", filling},
    {"getdents64", filling},
    {"msgsnd", messages},
    {"msgrcv", messages},
    {"getxattr", attributes},
    {"lgetxattr", attributes},
    {"fgetxattr", attributes},
    {"listxattr", attributes},
    {"llistxattr", attributes},
    {"flistxattr", attributes},
    {"setxattr", attributes},
    {"lsetxattr", attributes},
    {"fsetxattr", attributes},
};

static void consume(uint16_t port) {
    ROWS(rows, port);
}

int main(void) {
    return perform(serve_rows, consume);
}
