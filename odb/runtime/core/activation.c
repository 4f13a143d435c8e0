/* activation.c: asks rules, registry and discovery, in this order. */
#include "core/activation.h"

#include "core/registry.h"
#include "os/real.h"

#include <netinet/in.h>
#include <string.h>

static bool is_standalone(const struct odb_runtime *runtime) {
    return runtime->options.mode == ODB_MODE_STANDALONE;
}

static bool discovers(const struct odb_runtime *runtime) {
    return is_standalone(runtime) && runtime->options.discovery_port != 0;
}

void odb_activation_init(struct odb_runtime *runtime) {
    odb_undecided_init(&runtime->undecided, &runtime->driver, &runtime->fds);
    odb_asker_init(&runtime->asker, &runtime->options, &runtime->stats, &runtime->driver);
    odb_answerer_init(&runtime->answerer, &runtime->options, &runtime->stats, &runtime->driver);
}

void odb_activation_after_fork_child(struct odb_runtime *runtime) {
    odb_undecided_after_fork_child(&runtime->undecided);
    odb_asker_after_fork_child(&runtime->asker);
    odb_answerer_after_fork_child(&runtime->answerer);
}

void odb_activation_end(struct odb_runtime *runtime) {
    odb_listeners_forget_all(&runtime->listeners);
}

static int socket_number(int fd, int option) {
    int value = -1;
    socklen_t size = sizeof value;
    return odb_real.getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

static bool listens_on_tcp(int fd) {
    int domain = socket_number(fd, SO_DOMAIN);
    return (domain == AF_INET || domain == AF_INET6) && socket_number(fd, SO_PROTOCOL) == IPPROTO_TCP &&
           socket_number(fd, SO_ACCEPTCONN) == 1;
}

static bool is_ruled(const struct odb_runtime *runtime, int fd) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    uint8_t local[16];
    uint16_t port;
    return runtime->options.listen.count > 0 && getsockname(fd, (struct sockaddr *)&address, &length) == 0 &&
           odb_address_from((struct sockaddr *)&address, local, &port) &&
           odb_rules_match(&runtime->options.listen, local, port);
}

static void announce(struct odb_runtime *runtime, int fd) {
    odb_stats_open(&runtime->stats, runtime->options.stats_dir);
    odb_listeners_enter(&runtime->listeners, runtime->options.stats_dir, fd);
    odb_answerer_start(&runtime->answerer);
}

bool odb_activation_accepts(struct odb_runtime *runtime, int fd) {
    if (fd < 0 || fd >= ODB_FDS || runtime->options.mode == ODB_MODE_OFF) {
        return false;
    }
    _Atomic uint8_t *listener = &runtime->fds.slots[fd].listener;
    uint8_t known = atomic_load_explicit(listener, memory_order_relaxed);
    if (known == ODB_LISTENER_UNKNOWN) {
        bool spoken = is_standalone(runtime) ? listens_on_tcp(fd) : is_ruled(runtime, fd);
        known = spoken ? ODB_LISTENER_RULED : ODB_LISTENER_PLAIN;
        atomic_store_explicit(listener, known, memory_order_relaxed);
        if (spoken && discovers(runtime)) {
            announce(runtime, fd);
        }
    } else if (known == ODB_LISTENER_RULED && discovers(runtime)) {
        odb_answerer_start(&runtime->answerer); /* in a child of fork it is not running yet */
    }
    return known == ODB_LISTENER_RULED;
}

void odb_activation_listens(struct odb_runtime *runtime, int fd) {
    if (fd >= 0 && fd < ODB_FDS && is_standalone(runtime)) {
        uint8_t plain = ODB_LISTENER_PLAIN; /* said of it before it listened */
        atomic_compare_exchange_strong(&runtime->fds.slots[fd].listener, &plain, ODB_LISTENER_UNKNOWN);
        odb_activation_accepts(runtime, fd);
    }
}

void odb_activation_watched(struct odb_runtime *runtime, int fd) {
    if (discovers(runtime) && !odb_fdtable_has(&runtime->fds, fd)) {
        odb_activation_accepts(runtime, fd);
    }
}

bool odb_activation_may_open(const struct odb_runtime *runtime) {
    return is_standalone(runtime) || (runtime->options.mode == ODB_MODE_PORTS && runtime->options.connect.count > 0);
}

bool odb_activation_may_ask(const struct odb_runtime *runtime, const uint8_t address[16], uint16_t port) {
    return discovers(runtime) && port != 0 && odb_rules_match(&runtime->options.discovery_networks, address, port);
}

static bool is_loopback(const uint8_t address[16]) {
    static const uint8_t v4[13] = {[10] = 0xff, 0xff, 127}, v6[16] = {[15] = 1};
    return memcmp(address, v4, sizeof v4) == 0 || memcmp(address, v6, sizeof v6) == 0;
}

/* Processes with another stats_dir have another registry: they are asked. */
bool odb_activation_asks(struct odb_runtime *runtime, const uint8_t address[16], uint16_t port) {
    const char *directory = runtime->options.stats_dir;
    return (is_loopback(address) && odb_registry_speaks(directory, address, port)) ||
           odb_asker_knows(&runtime->asker, address, port);
}

void odb_activation_failed(struct odb_runtime *runtime, const uint8_t address[16], uint16_t port) {
    if (discovers(runtime)) {
        odb_asker_forget(&runtime->asker, address, port);
    }
}

void odb_activation_forget(struct odb_runtime *runtime, int fd) {
    odb_listeners_forget(&runtime->listeners, fd);
}
