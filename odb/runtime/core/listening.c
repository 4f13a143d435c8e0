/* listening.c: asks the kernel by netlink, which costs some ten microseconds; where there is no such netlink, reads /proc,
 * which costs a hundred times that because the kernel looks at the connected sockets as well.
 */
#include "core/listening.h"

#include "os/real.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LISTEN_STATE = 10, ROW = 512, ANSWER = 16384 };

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

struct visitor {
    uint16_t port;
    bool (*visit)(void *context, const struct odb_listening *socket);
    void *context;
    bool goes_on;
};

static void pass_on(struct visitor *visitor, const struct odb_listening *socket) {
    if (visitor->goes_on && socket->port == visitor->port) {
        visitor->goes_on = visitor->visit(visitor->context, socket);
    }
}

/* ---- netlink ---- */

static bool ask(int fd, uint8_t family, uint16_t port) {
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 wanted;
    } request = {.header = {.nlmsg_len = sizeof request,
                            .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
                 .wanted = {.sdiag_family = family,
                            .sdiag_protocol = IPPROTO_TCP,
                            .idiag_states = 1u << LISTEN_STATE,
                            .id.idiag_sport = htons(port)}};
    return odb_real.send(fd, &request, sizeof request, MSG_NOSIGNAL) == (ssize_t)sizeof request;
}

static void take_message(struct visitor *visitor, const struct inet_diag_msg *message) {
    struct odb_listening socket = {
        .port = ntohs(message->id.idiag_sport), .uid = message->idiag_uid, .inode = message->idiag_inode};
    if (message->idiag_family == AF_INET) {
        memcpy(socket.address, mapped, sizeof mapped);
        memcpy(socket.address + sizeof mapped, message->id.idiag_src, 4);
    } else {
        memcpy(socket.address, message->id.idiag_src, sizeof socket.address);
    }
    pass_on(visitor, &socket);
}

enum reading { GOES_ON, COMPLETE, BROKEN };

static enum reading take_answer(struct visitor *visitor, const char *answer, size_t length) {
    struct nlmsghdr header;
    for (size_t at = 0; at + sizeof header <= length; at += NLMSG_ALIGN(header.nlmsg_len)) {
        memcpy(&header, answer + at, sizeof header);
        if (header.nlmsg_type == NLMSG_DONE) {
            return COMPLETE;
        }
        if (header.nlmsg_type == NLMSG_ERROR || header.nlmsg_len < sizeof header || header.nlmsg_len > length - at) {
            return BROKEN;
        }
        struct inet_diag_msg message;
        if (header.nlmsg_type == SOCK_DIAG_BY_FAMILY && header.nlmsg_len >= NLMSG_HDRLEN + sizeof message) {
            memcpy(&message, answer + at + NLMSG_HDRLEN, sizeof message);
            take_message(visitor, &message);
        }
    }
    return GOES_ON;
}

static bool dump(struct visitor *visitor, int fd, uint8_t family) {
    char answer[ANSWER];
    enum reading reading = ask(fd, family, visitor->port) ? GOES_ON : BROKEN;
    while (reading == GOES_ON) {
        ssize_t got = odb_real.recv(fd, answer, sizeof answer, 0);
        reading = got > 0 ? take_answer(visitor, answer, (size_t)got) : BROKEN;
    }
    return reading == COMPLETE;
}

static bool by_netlink(struct visitor *visitor) {
    int fd = odb_real.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    bool complete = fd >= 0 && dump(visitor, fd, AF_INET) && dump(visitor, fd, AF_INET6);
    if (fd >= 0) {
        odb_real.close(fd);
    }
    return complete;
}

/* ---- /proc ---- */

/* The kernel prints addresses as 32-bit words in its own byte order. */
static bool parse_address(const char *hex, uint8_t out[16]) {
    size_t words = strlen(hex) / 8;
    memcpy(out, mapped, sizeof mapped);
    uint8_t *at = words == 1 ? out + sizeof mapped : out;
    for (size_t i = 0; i < words; i++, at += 4) {
        unsigned word;
        char digits[9];
        memcpy(digits, hex + 8 * i, 8);
        digits[8] = '\0';
        if (sscanf(digits, "%x", &word) != 1) {
            return false;
        }
        memcpy(at, &word, 4);
    }
    return words == 1 || words == 4;
}

/* False for a row that does not listen. */
static bool parse_row(const char *row, struct odb_listening *out) {
    char hex[33];
    unsigned port, state;
    int got = sscanf(row, " %*u: %32[0-9A-F]:%x %*[0-9A-F]:%*x %x %*x:%*x %*x:%*x %*x %u %*u %llu", hex, &port, &state,
                     &out->uid, &out->inode);
    out->port = (uint16_t)port;
    return got == 5 && state == LISTEN_STATE && parse_address(hex, out->address);
}

/* Listening sockets stand in front of all others, so that the rest of a long table is never read. */
static bool read_table(struct visitor *visitor, const char *table) {
    char row[ROW];
    struct odb_listening socket;
    FILE *file = fopen(table, "re");
    if (file == NULL) {
        return false;
    }
    bool more = fgets(row, sizeof row, file) != NULL; /* the heading */
    while (more && fgets(row, sizeof row, file) != NULL && parse_row(row, &socket)) {
        pass_on(visitor, &socket);
    }
    odb_real.fclose(file);
    return true;
}

bool odb_listening_each(uint16_t port, bool (*visit)(void *context, const struct odb_listening *socket),
                        void *context) {
    struct visitor visitor = {port, visit, context, true};
    if (by_netlink(&visitor)) {
        return true;
    }
    bool v4 = read_table(&visitor, "/proc/self/net/tcp"), v6 = read_table(&visitor, "/proc/self/net/tcp6");
    return v4 || v6;
}
