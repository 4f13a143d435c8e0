/* origin.c: the listener and the table of served channels. */
#include "core/origin.h"

#include "core/listen.h"
#include "os/clock.h"
#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum { IDLE = 0, STARTING, RUNNING };
enum { ACCEPT_BATCH = 64, RETRY_MS = 1000 };

struct odb_origin_channel {
    struct odb_watch watch; /* first: the callback finds the channel through it. fd is -1 while the record is unused */
    struct odb_origin_server *server;
    struct odb_served served;
    uint32_t interest; /* EPOLL* */
    bool idle;         /* in the idle list */
    uint32_t older;    /* idle list; `older` also links the free records */
    uint32_t newer;
};

static struct odb_origin_channel *linked(const struct odb_origin_server *server, uint32_t link) {
    return link == 0 ? NULL : &server->channels[link - 1];
}

static uint32_t link_to(const struct odb_origin_channel *channel) {
    return (uint32_t)(channel - channel->server->channels) + 1;
}

static void leave_idle(struct odb_origin_channel *channel) {
    struct odb_origin_server *server = channel->server;
    if (channel->idle) {
        *(channel->older != 0 ? &linked(server, channel->older)->newer : &server->oldest) = channel->newer;
        *(channel->newer != 0 ? &linked(server, channel->newer)->older : &server->newest) = channel->older;
        channel->idle = false;
    }
}

static void become_idle(struct odb_origin_channel *channel) {
    struct odb_origin_server *server = channel->server;
    leave_idle(channel);
    channel->idle = true;
    channel->newer = 0;
    channel->older = server->newest;
    *(server->newest != 0 ? &linked(server, server->newest)->newer : &server->oldest) = link_to(channel);
    server->newest = link_to(channel);
}

/* A level-triggered listener that cannot be emptied would spin. */
static void pause_listener(struct odb_origin_server *server, bool pause) {
    if (server->paused != pause && odb_driver_change(server->driver, &server->listener, pause ? 0 : EPOLLIN)) {
        server->paused = pause;
    }
}

static void close_channel(struct odb_origin_channel *channel, bool reset) {
    struct odb_origin_server *server = channel->server;
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    int fd = channel->watch.fd;
    leave_idle(channel);
    odb_served_end(&channel->served);
    odb_driver_remove(server->driver, &channel->watch);
    if (reset) {
        odb_real.setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    channel->watch.fd = -1; /* forgotten before it is closed, so that a forked child never closes a stranger */
    odb_fds_close(fd);
    channel->older = server->free;
    server->free = link_to(channel);
    pause_listener(server, false);
}

/* Its interest is the business of core/pushes.c, and it is never idle: the consumer closes it. */
static void push_channel_ready(struct odb_origin_channel *channel, uint32_t events) {
    bool sound = !(events & EPOLLOUT) || odb_pushes_continue(&channel->server->pushes, &channel->served.push);
    if (!sound || odb_served_turn(&channel->served) != ODB_SERVED_WANT_READ) {
        close_channel(channel, !sound);
    }
}

static void channel_ready(struct odb_watch *watch, uint32_t events) {
    struct odb_origin_channel *channel = (struct odb_origin_channel *)(void *)watch;
    if (channel->served.push.state != ODB_PUSH_NONE) {
        push_channel_ready(channel, events);
        return;
    }
    enum odb_served_turn turn = odb_served_turn(&channel->served);
    (void)events; /* errors and hang-ups show as results of the calls */
    if (turn == ODB_SERVED_CLOSED || turn == ODB_SERVED_BROKEN) {
        close_channel(channel, turn == ODB_SERVED_BROKEN);
        return;
    }
    if (channel->served.push.state != ODB_PUSH_NONE) {
        leave_idle(channel);
        return;
    }
    uint32_t interest = turn == ODB_SERVED_WANT_READ ? EPOLLIN : EPOLLOUT;
    if (interest != channel->interest) {
        channel->interest = interest;
        odb_driver_change(channel->server->driver, watch, interest);
    }
    /* Half a request counts as idle too, or slow requests could fill the table. */
    if (turn == ODB_SERVED_WANT_READ) {
        become_idle(channel);
    } else {
        leave_idle(channel);
    }
}

static struct odb_origin_channel *new_record(struct odb_origin_server *server) {
    struct odb_origin_channel *channel = linked(server, server->free);
    if (server->channels == NULL) {
        return NULL;
    }
    if (channel != NULL) {
        server->free = channel->older;
    } else if (server->high < server->limit) {
        channel = &server->channels[server->high];
        channel->watch.fd = -1;
        server->high++;
    }
    return channel;
}

/* Frees a record or a descriptor by closing the channel that has been idle for longest; false when none is idle. */
static bool close_oldest(struct odb_origin_server *server) {
    struct odb_origin_channel *oldest = linked(server, server->oldest);
    if (oldest != NULL) {
        close_channel(oldest, false);
    }
    return oldest != NULL;
}

static void add_channel(struct odb_origin_server *server, int fd) {
    int on = 1;
    struct odb_origin_channel *channel = new_record(server);
    if (channel == NULL && close_oldest(server)) {
        channel = new_record(server);
    }
    if (channel == NULL) {
        odb_fds_close(fd); /* all are answering */
        return;
    }
    odb_real.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    odb_real.setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    channel->server = server;
    channel->idle = false;
    channel->interest = EPOLLIN;
    channel->watch.ready = channel_ready;
    channel->watch.fd = fd;
    odb_served_begin(&channel->served, &channel->watch, server->store, server->stats, &server->pushes);
    odb_count(server->stats, ODB_STAT_channels_accepted, 1);
    become_idle(channel);
    if (!odb_driver_add(server->driver, &channel->watch, EPOLLIN)) {
        close_channel(channel, true);
    }
}

static void listener_ready(struct odb_watch *watch, uint32_t events) {
    struct odb_origin_server *server =
        (struct odb_origin_server *)(void *)((char *)watch - offsetof(struct odb_origin_server, listener));
    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int made = odb_real.accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        int fd = made < 0 ? -1 : odb_fds_adopt(made);
        if (fd >= 0) {
            add_channel(server, fd);
        } else if (made < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        } else if (made >= 0 || errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            if (!close_oldest(server)) {
                pause_listener(server, true);
                return;
            }
        }
    }
}

static void tick(struct odb_tick *tick_, uint64_t now_ms) {
    struct odb_origin_server *server =
        (struct odb_origin_server *)(void *)((char *)tick_ - offsetof(struct odb_origin_server, tick));
    (void)now_ms;
    pause_listener(server, false);
}

/* Channels take at most a quarter of the descriptors that the process may have. */
static uint32_t channels_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur / 4 >= ODB_ORIGIN_CHANNELS) {
        return ODB_ORIGIN_CHANNELS;
    }
    return limit.rlim_cur / 4 < 4 ? 4 : (uint32_t)(limit.rlim_cur / 4);
}

static bool start(struct odb_origin_server *server) {
    size_t size = ODB_ORIGIN_CHANNELS * sizeof *server->channels;
    if (server->channels == NULL) {
        void *memory =
            odb_real.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        server->channels = memory == MAP_FAILED ? NULL : memory;
    }
    server->limit = channels_limit();
    server->listener = (struct odb_watch){.fd = -1, .ready = listener_ready};
    server->tick.run = tick;
    if (server->channels == NULL || !odb_driver_start(server->driver)) {
        return false;
    }
    server->listener.fd = odb_listen(&server->options->channel, &server->port);
    if (server->listener.fd >= 0 && odb_driver_add(server->driver, &server->listener, EPOLLIN)) {
        odb_driver_add_tick(server->driver, &server->tick);
        return true;
    }
    odb_fds_close(server->listener.fd);
    server->listener.fd = -1;
    return false;
}

bool odb_origin_start(struct odb_origin_server *server, const struct odb_options *options, struct odb_stats *stats,
                      struct odb_store *store, struct odb_driver *driver) {
    unsigned state = atomic_load_explicit(&server->state, memory_order_acquire);
    if (state == RUNNING) {
        return true;
    }
    if (state == STARTING || odb_clock_ms() < atomic_load(&server->retry_ms) ||
        !atomic_compare_exchange_strong(&server->state, &state, STARTING)) {
        return false;
    }
    server->options = options;
    server->stats = stats;
    server->store = store;
    server->driver = driver;
    odb_pushes_init(&server->pushes, store, stats, driver);
    bool running = start(server);
    if (!running) {
        atomic_store(&server->retry_ms, odb_clock_ms() + RETRY_MS);
    }
    atomic_store_explicit(&server->state, running ? RUNNING : IDLE, memory_order_release);
    return running;
}

uint16_t odb_origin_port(const struct odb_origin_server *server) {
    return atomic_load_explicit(&server->state, memory_order_acquire) == RUNNING ? server->port : 0;
}

void odb_origin_after_fork_child(struct odb_origin_server *server) {
    odb_pushes_after_fork_child(&server->pushes);
    for (uint32_t i = 0; i < server->high; i++) {
        if (odb_fds_is_internal(server->channels[i].watch.fd)) {
            odb_fds_close(server->channels[i].watch.fd);
        }
    }
    if (odb_fds_is_internal(server->listener.fd)) {
        odb_fds_close(server->listener.fd);
    }
    /* The records are used again from the first on; the memory stays mapped. */
    server->listener.fd = -1;
    server->high = server->free = server->oldest = server->newest = 0;
    server->paused = false;
    server->port = 0;
    atomic_store(&server->retry_ms, 0);
    atomic_store(&server->state, IDLE);
}
