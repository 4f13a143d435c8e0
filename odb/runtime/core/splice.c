/* splice.c: moves bytes between streams and pipes through memory, never taking more from one side than the other has room for. */
#include "core/splice.h"

#include "core/interrupted.h"
#include "core/transfer.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, MOST = 65536 }; /* a pipe's usual capacity */

static bool is_pipe(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
}

/* Waits for the pipe as the call may: its revents, or 0 and errno. */
static short await_pipe(int pipe, short event, unsigned flags) {
    struct pollfd entry = {.fd = pipe, .events = event};
    int status = odb_real.fcntl(pipe, F_GETFL);
    bool waits = status >= 0 && !(status & O_NONBLOCK) && !(flags & SPLICE_F_NONBLOCK);
    int ready;
    do ready = odb_real.poll(&entry, 1, waits ? -1 : 0);
    while (ready < 0 && errno == EINTR && odb_interrupted_restarts());
    if (ready > 0) return entry.revents;
    if (ready == 0) errno = EAGAIN;
    return 0;
}

/* What the pipe surely takes: all that it can hold when it is empty, else one page, because that much it had room for when poll said so. */
static size_t room_in(int pipe) {
    int held = 0, capacity = odb_real.fcntl(pipe, F_GETPIPE_SZ);
    if (capacity < PAGE || odb_real.ioctl(pipe, FIONREAD, &held) != 0 || held > 0) return PAGE;
    return capacity < MOST ? (size_t)capacity : MOST;
}

/* Only another writer to the same pipe can make this wait. */
static ssize_t write_whole(int pipe, const char *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        struct pollfd entry = {.fd = pipe, .events = POLLOUT};
        ssize_t written = odb_real.write(pipe, bytes + done, length - done);
        if (written >= 0)
            done += (size_t)written;
        else if (errno == EAGAIN)
            odb_real.poll(&entry, 1, -1);
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)length;
}

static ssize_t into_pipe(struct odb_runtime *runtime, int stream, int pipe, char *buffer, size_t size, unsigned flags) {
    short ready = await_pipe(pipe, POLLOUT, flags);
    if (!ready) return -1;
    if (ready & POLLERR) return odb_real.write(pipe, buffer, 1); /* nobody reads: EPIPE, and its signal */
    size_t room = room_in(pipe);
    struct iovec iov = {buffer, size < room ? size : room};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t got = odb_receive(runtime, stream, &message, 0, ODB_SOCKET_CALL);
    return got > 0 ? write_whole(pipe, buffer, (size_t)got) : got;
}

static ssize_t read_whole(int pipe, char *bytes, size_t length) {
    size_t done = 0;
    while (done < length) {
        ssize_t got = odb_real.read(pipe, bytes + done, length - done);
        if (got == 0 || (got < 0 && errno != EINTR)) break;
        done += got > 0 ? (size_t)got : 0;
    }
    return (ssize_t)done;
}

/* What is in the pipe, without taking it: a second pipe gets the same pages. */
static ssize_t peek_pipe(int pipe, char *buffer, size_t size) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return -1;
    int from = odb_fds_adopt(ends[0]), to = odb_fds_adopt(ends[1]);
    ssize_t seen = from < 0 || to < 0 ? -1 : tee(pipe, to, size, SPLICE_F_NONBLOCK);
    int saved = errno;
    if (seen > 0) seen = read_whole(from, buffer, (size_t)seen);
    odb_fds_close(from);
    odb_fds_close(to);
    errno = saved;
    return seen;
}

static ssize_t out_of_pipe(struct odb_runtime *runtime, int pipe, int stream, char *buffer, size_t size,
                           unsigned flags) {
    short ready = await_pipe(pipe, POLLIN, flags);
    if (!ready) return -1;
    ssize_t seen = ready & POLLIN ? peek_pipe(pipe, buffer, size) : 0; /* without POLLIN: nobody writes any more */
    if (seen <= 0) return seen;
    struct iovec iov = {buffer, (size_t)seen};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t sent = odb_send(runtime, stream, &message, flags & SPLICE_F_MORE ? MSG_MORE : 0, ODB_SOCKET_CALL);
    if (sent > 0) read_whole(pipe, buffer, (size_t)sent);
    return sent;
}

ssize_t odb_splice(struct odb_runtime *runtime, int in, const off64_t *in_offset, int out, const off64_t *out_offset,
                   size_t size, unsigned flags) {
    bool inwards = is_pipe(out), outwards = is_pipe(in);
    if (in_offset || out_offset || inwards == outwards) {
        errno = in_offset || out_offset ? ESPIPE : EINVAL;
        return -1;
    }
    if (size == 0) return 0;
    size = size < MOST ? size : MOST;
    char *buffer = odb_real.malloc(size);
    if (!buffer) {
        errno = ENOMEM;
        return -1;
    }
    ssize_t moved =
        inwards ? into_pipe(runtime, in, out, buffer, size, flags) : out_of_pipe(runtime, in, out, buffer, size, flags);
    odb_real.free(buffer);
    return moved;
}
