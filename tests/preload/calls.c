/* calls.c: a body goes out by one call and comes in by another: calls OUT IN. */
#include "scene.h"

#include <sys/sendfile.h>

enum { BODY = 300007, CHUNK = 65536, SEED = 3 };

static const char *out_call, *in_call;

static bool is(const char *name, const char *expected) {
    return strcmp(name, expected) == 0;
}

static ssize_t put_splice(int fd, int file, size_t length) {
    static int pipes[2] = {-1, -1};
    if (pipes[0] < 0) must(pipe(pipes) == 0);
    ssize_t filled_in = splice(file, NULL, pipes[1], NULL, length, 0), done = 0;
    must(filled_in > 0);
    while (done < filled_in) {
        ssize_t moved = splice(pipes[0], NULL, fd, NULL, (size_t)(filled_in - done), 0);
        must(moved > 0);
        done += moved;
    }
    return done;
}

static ssize_t put_messages(int fd, const char *bytes, size_t length) {
    struct iovec parts[3] = {{(void *)(uintptr_t)bytes, 1}, {NULL, 0}, {(void *)(uintptr_t)(bytes + 1), length - 1}};
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 2}},
                                  {.msg_hdr = {.msg_iov = parts + 2, .msg_iovlen = 1}}};
    int sent = sendmmsg(fd, messages, 2, 0);
    must(sent > 0);
    must(messages[0].msg_len == 1);
    return sent == 2 ? 1 + (ssize_t)messages[1].msg_len : 1;
}

static ssize_t put(int fd, const char *bytes, size_t length, int file, size_t position) {
    struct iovec parts[3] = {{(void *)(uintptr_t)bytes, length / 3},
                             {(void *)(uintptr_t)(bytes + length / 3), 0},
                             {(void *)(uintptr_t)(bytes + length / 3), length - length / 3}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    off_t offset = (off_t)position;
    off64_t offset64 = (off64_t)position;
    if (is(out_call, "write")) return write(fd, bytes, length);
    if (is(out_call, "writev")) return writev(fd, parts, 3);
    if (is(out_call, "send")) return send(fd, bytes, length, 0);
    if (is(out_call, "sendto")) return sendto(fd, bytes, length, MSG_NOSIGNAL, NULL, 0);
    if (is(out_call, "sendmsg")) return sendmsg(fd, &message, 0);
    if (is(out_call, "sendmmsg")) return put_messages(fd, bytes, length);
    if (is(out_call, "splice")) return put_splice(fd, file, length);
    if (is(out_call, "sendfile")) { /* at the file's own position */
        ssize_t sent = sendfile(fd, file, NULL, length);
        must(lseek(file, 0, SEEK_CUR) == (off_t)position + (sent > 0 ? sent : 0));
        return sent;
    }
    if (is(out_call, "sendfile_offset")) {
        ssize_t sent = sendfile(fd, file, &offset, length);
        must(offset == (off_t)position + (sent > 0 ? sent : 0));
        return sent;
    }
    must(is(out_call, "sendfile64"));
    ssize_t sent = sendfile64(fd, file, &offset64, length + 99999); /* beyond the end of the file */
    must(offset64 == (off64_t)position + (sent > 0 ? sent : 0));
    return sent;
}

static void serve(int listener) {
    int fd = answer(listener), file = file_of(BODY, SEED);
    char *bytes = filled(BODY, SEED);
    for (size_t done = 0; done < BODY;) {
        ssize_t sent = keeping_errno(put(fd, bytes + done, BODY - done, file, done));
        must(sent > 0);
        done += (size_t)sent;
    }
    if (strncmp(out_call, "sendfile", 8) == 0) must(sendfile(fd, file, &(off_t){BODY}, 100) == 0);
    must(keeping_errno(shutdown(fd, SHUT_WR)) == 0);
    memset(bytes, 0, BODY);
    await_end(fd);
    must(keeping_errno(close(fd)) == 0);
}

static ssize_t get_messages(int fd, char *to, size_t room) {
    struct iovec parts[2] = {{to, room / 2}, {to + room / 2, room - room / 2}};
    struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}},
                                  {.msg_hdr = {.msg_iov = parts + 1, .msg_iovlen = 1}}};
    int got = recvmmsg(fd, messages, 2, MSG_WAITFORONE, NULL);
    must(got > 0);
    if (got == 2) memmove(to + messages[0].msg_len, to + room / 2, messages[1].msg_len);
    return (ssize_t)messages[0].msg_len + (got == 2 ? (ssize_t)messages[1].msg_len : 0);
}

static ssize_t get_peeked(int fd, char *to, size_t room) {
    static char seen[CHUNK];
    ssize_t peeked = recv(fd, seen, room / 2, MSG_PEEK);
    if (peeked <= 0) return peeked;
    ssize_t got = recv(fd, to, (size_t)peeked, MSG_WAITALL);
    must(got == peeked && memcmp(seen, to, (size_t)got) == 0);
    return got;
}

static ssize_t get_spliced(int fd, char *to, size_t room) {
    static int pipes[2] = {-1, -1};
    if (pipes[0] < 0) must(pipe(pipes) == 0);
    ssize_t held = (ssize_t)write(pipes[1], "x", 1), moved = splice(fd, NULL, pipes[1], NULL, room, 0);
    must(held == 1);
    if (moved >= 0) must(read_whole(pipes[0], to, 1) && read_whole(pipes[0], to, (size_t)moved));
    return moved;
}

static ssize_t get_address(int fd, char *to, size_t room) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    ssize_t got = recvfrom(fd, to, room, 0, (struct sockaddr *)&address, &length);
    must(got < 0 || length == 0);
    return got;
}

static ssize_t get_message(int fd, char *to, size_t room) {
    char control[256];
    struct iovec parts[3] = {{to, 7}, {to + 7, 4096}, {to + 4103, room - 4103}};
    struct msghdr message = {.msg_iov = parts,
                             .msg_iovlen = 3,
                             .msg_control = control,
                             .msg_controllen = sizeof control,
                             .msg_flags = MSG_TRUNC};
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    must(got < 0 || ((message.msg_flags & ~MSG_CMSG_CLOEXEC) == 0 && message.msg_controllen == 0));
    return got;
}

static ssize_t get_ready(int fd, char *to, size_t room) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    must(poll(&ready, 1, -1) == 1 && (ready.revents & POLLIN));
    return recv(fd, to, room, MSG_DONTWAIT);
}

static ssize_t get(int fd, char *to, size_t room) {
    struct iovec parts[3] = {{to, 5000}, {to + 5000, 0}, {to + 5000, room - 5000}};
    if (is(in_call, "read")) return read(fd, to, room);
    if (is(in_call, "readv")) return readv(fd, parts, 3);
    if (is(in_call, "recv")) return recv(fd, to, room, 0);
    if (is(in_call, "recvfrom")) return get_address(fd, to, room);
    if (is(in_call, "recvmsg")) return get_message(fd, to, room);
    if (is(in_call, "recvmmsg")) return get_messages(fd, to, room);
    if (is(in_call, "peek")) return get_peeked(fd, to, room);
    if (is(in_call, "splice")) return get_spliced(fd, to, room);
    if (is(in_call, "dontwait")) return get_ready(fd, to, room);
    must(is(in_call, "waitall"));
    return recv(fd, to, room, MSG_WAITALL);
}

static void consume(uint16_t port) {
    int fd = call_up(port);
    char *buffer = malloc(CHUNK);
    size_t done = 0;
    for (;;) {
        ssize_t got = keeping_errno(get(fd, buffer, CHUNK));
        must(got >= 0);
        if (got == 0) break;
        must(holds(buffer, (size_t)got, SEED, done));
        must(!is(in_call, "waitall") || got == CHUNK || done + (size_t)got == BODY);
        done += (size_t)got;
    }
    say("received %zu\n", done);
    must(recv(fd, buffer, CHUNK, 0) == 0);
    close(fd);
}

int main(int argc, char **argv) {
    must(argc == 3);
    out_call = argv[1];
    in_call = argv[2];
    return perform(serve, consume);
}
