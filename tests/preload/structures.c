/* structures.c: structures, arrays and addresses that were received and not looked at, handed to calls that read or fill them. */
#include "scene.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <time.h>

enum { ROOM = 16 * 4096 };

static void serve(int listener) {
    int fd = answer(listener);
    char *bytes = malloc(ROOM);
    while (recv(fd, bytes, ROOM, MSG_WAITALL) == ROOM) send_all(fd, bytes, ROOM);
    close(fd);
    free(bytes);
}

static int echo;   /* what is sent there comes back */
static char *room; /* into which it is received, so that nobody has looked at it since */

/* `bytes` at the beginning of the room, as they come from the network. */
static void *received(const void *bytes, size_t length) {
    char *page = calloc(1, ROOM);
    memcpy(page, bytes, length);
    send_all(echo, page, ROOM);
    recv_all(echo, room, ROOM);
    free(page);
    return room;
}
#define RECEIVED(variable) ((__typeof__(variable) *)received(&(variable), sizeof(variable)))

static void positioned(int pipes[2], int file) {
    char bytes[8], text[] = "abcdef";
    struct iovec out[2] = {{text, 2}, {text + 2, 4}}, in[2] = {{bytes, 3}, {bytes + 3, 5}};
    off64_t offset = 1;
    must(writev(pipes[1], *RECEIVED(out), 2) == 6);
    must(readv(pipes[0], *RECEIVED(in), 2) == 6 && memcmp(bytes, "abcdef", 6) == 0);
    must(pwritev(file, *RECEIVED(out), 2, 0) == 6);
    must(preadv(file, *RECEIVED(in), 2, 2) == 4 && memcmp(bytes, "cdef", 4) == 0);
    must(sendfile64(pipes[1], file, RECEIVED(offset), 3) == 3 && *(off64_t *)(void *)room == 4);
    must(splice(file, RECEIVED(offset), pipes[1], NULL, 2, 0) == 2);
    must(read(pipes[0], bytes, 8) == 5 && memcmp(bytes, "bcdbc", 5) == 0);
    must(vmsplice(pipes[1], *RECEIVED(out), 2, 0) == 6 && read(pipes[0], bytes, 8) == 6);
    say("vectors and offsets\n");
}

static void messages(int pair[2]) {
    char bytes[8], text[] = "ghijkl";
    struct iovec out = {text, 6}, in = {bytes, 8};
    struct {
        struct msghdr message;
        struct iovec part;
    } both = {.message = {.msg_iovlen = 1}};
    struct mmsghdr several = {.msg_hdr = {.msg_iov = &out, .msg_iovlen = 1}};
    both.message.msg_iov = (struct iovec *)(void *)(room + sizeof both.message);
    both.part = out;
    must(sendmsg(pair[0], &RECEIVED(both)->message, 0) == 6);
    both.part = in;
    must(recvmsg(pair[1], &RECEIVED(both)->message, 0) == 6 && memcmp(bytes, text, 6) == 0);
    must(sendmmsg(pair[0], RECEIVED(several), 1, 0) == 1 && ((struct mmsghdr *)(void *)room)->msg_len == 6);
    several.msg_hdr.msg_iov = &in;
    must(recvmmsg(pair[1], RECEIVED(several), 1, 0, NULL) == 1 && ((struct mmsghdr *)(void *)room)->msg_len == 6);
    say("messages\n");
}

static void addresses(void) {
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, where;
    socklen_t length = sizeof where;
    int one = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), two = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0),
        on = 1;
    char byte;
    must(bind(one, (struct sockaddr *)&any, sizeof any) == 0);
    must(getsockname(one, (struct sockaddr *)&where, &length) == 0);
    must(sendto(two, "a", 1, 0, (struct sockaddr *)RECEIVED(where), sizeof where) == 1);
    struct {
        socklen_t length;
        struct sockaddr_in address;
    } from = {.length = sizeof from.address}, *got = RECEIVED(from);
    must(recvfrom(one, &byte, 1, 0, (struct sockaddr *)&got->address, &got->length) == 1);
    must(got->length == sizeof from.address && got->address.sin_family == AF_INET);
    must(connect(two, (struct sockaddr *)RECEIVED(where), sizeof where) == 0);
    must(setsockopt(two, SOL_SOCKET, SO_REUSEADDR, RECEIVED(on), sizeof on) == 0);
    struct {
        socklen_t length;
        int value;
    } option = {.length = sizeof option.value}, *asked = RECEIVED(option);
    must(getsockopt(two, SOL_SOCKET, SO_REUSEADDR, &asked->value, &asked->length) == 0 && asked->value == 1);
    close(one);
    close(two);
    say("addresses and options\n");
}

static void waits(int pair[2]) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = 77}, none = {.events = 0};
    struct pollfd ready = {.fd = pair[1], .events = POLLIN};
    struct timespec time = {0, 1};
    struct timeval short_time = {0, 1};
    fd_set set;
    int epoll = epoll_create1(EPOLL_CLOEXEC), count = 4711;
    must(send(pair[0], "x", 1, 0) == 1);
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, pair[1], RECEIVED(event)) == 0);
    must(epoll_wait(epoll, RECEIVED(none), 1, -1) == 1 && ((struct epoll_event *)(void *)room)->data.fd == 77);
    must(poll(RECEIVED(ready), 1, -1) == 1 && ((struct pollfd *)(void *)room)->revents == POLLIN);
    must(ppoll(NULL, 0, RECEIVED(time), NULL) == 0);
    must(select(0, NULL, NULL, NULL, RECEIVED(short_time)) == 0);
    must(pselect(0, NULL, NULL, NULL, RECEIVED(time), NULL) == 0);
    FD_ZERO(&set);
    FD_SET(pair[1], &set);
    must(select(pair[1] + 1, RECEIVED(set), NULL, NULL, NULL) == 1 && FD_ISSET(pair[1], (fd_set *)(void *)room));
    must(ioctl(pair[1], FIONREAD, RECEIVED(count)) == 0 && *(int *)(void *)room == 1);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int file = file_of(10, 1);
    must(fcntl(file, F_SETLK, RECEIVED(lock)) == 0);
    close(file);
    close(epoll);
    say("waits\n");
}

static void client(uint16_t port) {
    int pipes[2], pair[2], file = file_of(0, 1);
    must(pipe(pipes) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    echo = call_up(port);
    must(posix_memalign((void **)&room, PAGE, ROOM) == 0);
    positioned(pipes, file);
    messages(pair);
    addresses();
    waits(pair);
    close(echo);
    free(room);
}

int main(void) {
    return perform(serve, client);
}
