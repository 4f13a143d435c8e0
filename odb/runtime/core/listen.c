/* listen.c: binds the channel socket as the option `channel` says, and the one of discovery. */
#include "core/listen.h"

#include "os/fds.h"
#include "os/real.h"

#include <netinet/in.h>
#include <string.h>

enum { BACKLOG = 512 };

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* Address family and socket address for `address`; null stands for any address of `family`. */
static socklen_t local_address(int family, const uint8_t *address, uint16_t port, struct sockaddr_storage *out) {
    memset(out, 0, sizeof *out);
    if (family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)out;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        if (address != NULL) {
            memcpy(&v4->sin_addr, address + sizeof mapped, 4);
        }
        return sizeof *v4;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    if (address != NULL) {
        memcpy(&v6->sin6_addr, address, 16);
    }
    return sizeof *v6;
}

static int listen_at(int family, const uint8_t *address, uint16_t port, bool together) {
    struct sockaddr_storage local;
    socklen_t length = local_address(family, address, port, &local);
    int on = 1, off = 0;
    int made = odb_real.socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int fd = made < 0 ? -1 : odb_fds_adopt(made);
    if (fd < 0) {
        return -1;
    }
    odb_real.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (together) {
        odb_real.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    }
    bool dual = family != AF_INET6 || odb_real.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0;
    if (!dual || bind(fd, (struct sockaddr *)&local, length) != 0 || odb_real.listen(fd, BACKLOG) != 0) {
        odb_fds_close(fd);
        return -1;
    }
    return fd;
}

/* One socket for both families, or IPv4 alone where there is no IPv6. */
static int listen_anywhere(uint16_t port, bool together) {
    int fd = listen_at(AF_INET6, NULL, port, together);
    return fd >= 0 ? fd : listen_at(AF_INET, NULL, port, together);
}

/* Null is any address. */
static int listen_on(const uint8_t *address, uint16_t port) {
    if (address != NULL) {
        return listen_at(memcmp(address, mapped, sizeof mapped) == 0 ? AF_INET : AF_INET6, address, port, false);
    }
    return listen_anywhere(port, false);
}

static int listen_by_rule(const struct odb_rule *rule) {
    const uint8_t *address = rule->prefix == 0 ? NULL : rule->address;
    if (rule->first_port == 0) {
        return listen_on(address, 0); /* a rule without a port */
    }
    int fd = -1;
    for (uint32_t port = rule->first_port; fd < 0 && port <= rule->last_port; port++) {
        fd = listen_on(address, (uint16_t)port);
    }
    return fd;
}

static bool port_of(int fd, uint16_t *port) {
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    uint8_t address[16];
    return getsockname(fd, (struct sockaddr *)&local, &length) == 0 &&
           odb_address_from((struct sockaddr *)&local, address, port);
}

int odb_listen(const struct odb_rules *rules, uint16_t *port) {
    int fd = rules->count == 0 ? listen_on(NULL, 0) : -1;
    for (size_t i = 0; fd < 0 && i < rules->count; i++) {
        fd = listen_by_rule(&rules->rule[i]);
    }
    if (fd >= 0 && !port_of(fd, port)) {
        odb_fds_close(fd);
        fd = -1;
    }
    return fd;
}

int odb_listen_together(uint16_t port) {
    return listen_anywhere(port, true);
}
