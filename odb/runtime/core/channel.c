/* channel.c: one fetch on one connection, without ever waiting. */
#include "core/channel.h"

#include "os/fds.h"
#include "os/real.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

enum { WINDOW = 16 }; /* iovec entries per call */

static socklen_t socket_address(const struct odb_origin_address *origin, struct sockaddr_storage *out) {
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memset(out, 0, sizeof *out);
    if (memcmp(origin->address, mapped, sizeof mapped) == 0) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)out;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(origin->port);
        memcpy(&v4->sin_addr, origin->address + 12, 4);
        return sizeof *v4;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(origin->port);
    memcpy(&v6->sin6_addr, origin->address, 16);
    return sizeof *v6;
}

int odb_channel_connect(const struct odb_origin_address *origin) {
    struct sockaddr_storage address;
    socklen_t length = socket_address(origin, &address);
    int made = odb_real.socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made < 0) {
        return -errno;
    }
    int fd = odb_fds_adopt(made), on = 1;
    if (fd < 0) {
        return -EMFILE;
    }
    odb_real.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (odb_real.connect(fd, (struct sockaddr *)&address, length) != 0 && errno != EINPROGRESS && errno != EINTR) {
        int error = -errno;
        odb_fds_close(fd);
        return error;
    }
    return fd;
}

static size_t introduce(struct odb_channel *channel) {
    struct odb_wire_push message = {.consumer = channel->consumer};
    if (!channel->connecting || channel->consumer == 0) {
        return 0;
    }
    odb_wire_push_encode(channel->request, &message);
    return ODB_WIRE_PUSH_FRAME;
}

void odb_channel_begin(struct odb_channel *channel, const struct odb_span *span, const struct iovec *iov, int count,
                       const uint64_t *releases, size_t release_count) {
    struct odb_wire_fetch fetch = {.payload = span->payload, .offset = span->offset, .length = span->length};
    memcpy(fetch.token, span->token, sizeof fetch.token);
    channel->request_length = introduce(channel);
    channel->request_length +=
        odb_wire_release_encode(channel->request + channel->request_length, releases, release_count);
    odb_wire_fetch_encode(channel->request + channel->request_length, &fetch);
    channel->request_length += ODB_WIRE_FETCH_FRAME;
    channel->request_sent = 0;
    channel->header_length = 0;
    channel->answered = false;
    channel->error = 0;
    channel->moved = 0;
    channel->span = *span;
    channel->into = (struct odb_scatter){.iov = iov, .count = count};
    channel->body_left = span->length;
    channel->leave = 0;
}

static enum odb_progress fail(struct odb_channel *channel, int error) {
    channel->error = error;
    return ODB_CHANNEL_FAILED;
}

/* What a call that would have blocked, or failed, means; `want` is what it was waiting for. */
static enum odb_progress stopped(struct odb_channel *channel, enum odb_progress want) {
    return errno == EAGAIN || errno == EWOULDBLOCK ? want : fail(channel, errno == EPIPE ? -ECONNRESET : -errno);
}

/* A refused or unreachable origin shows here, with the error that connect() would have had. */
static enum odb_progress finish_connect(struct odb_channel *channel) {
    int error = 0;
    socklen_t size = sizeof error;
    if (odb_real.getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        return fail(channel, error != 0 ? -error : -errno);
    }
    return ODB_CHANNEL_DONE;
}

static enum odb_progress send_request(struct odb_channel *channel) {
    if (channel->connecting && finish_connect(channel) == ODB_CHANNEL_FAILED) {
        return ODB_CHANNEL_FAILED;
    }
    while (channel->request_sent < channel->request_length) {
        ssize_t sent = odb_real.send(channel->fd, channel->request + channel->request_sent,
                                     channel->request_length - channel->request_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            return stopped(channel, ODB_CHANNEL_WANT_WRITE);
        }
        channel->connecting = false;
        channel->request_sent += (size_t)sent;
        channel->moved += (size_t)sent;
    }
    return ODB_CHANNEL_DONE;
}

static int errno_of(uint16_t reason) {
    switch (reason) {
    case ODB_WIRE_DENIED:
        return -EACCES;
    case ODB_WIRE_OVERLOADED:
        return -EBUSY;
    default:
        return -ESTALE;
    }
}

/* `behind` bytes of something else have arrived behind the header's bytes. */
static enum odb_progress read_fail(struct odb_channel *channel, size_t behind) {
    struct odb_wire_fail answer;
    if (channel->header_length < ODB_WIRE_FAIL_FRAME) {
        return ODB_CHANNEL_WANT_READ;
    }
    if (channel->header_length > ODB_WIRE_FAIL_FRAME || behind > 0 ||
        odb_wire_fail_decode(&answer, channel->header + ODB_WIRE_HEADER_SIZE) != ODB_WIRE_OK ||
        answer.payload != channel->span.payload) {
        return fail(channel, -EPROTO);
    }
    channel->error = errno_of(answer.reason);
    return ODB_CHANNEL_REFUSED;
}

static enum odb_progress read_answer(struct odb_channel *channel, size_t behind) {
    struct odb_wire_header header;
    struct odb_wire_data data;
    if (channel->header_length < ODB_WIRE_HEADER_SIZE) {
        return ODB_CHANNEL_WANT_READ;
    }
    if (odb_wire_header_decode(&header, channel->header) != ODB_WIRE_OK) {
        return fail(channel, -EPROTO);
    }
    if (header.type == ODB_WIRE_FAIL) {
        return read_fail(channel, behind);
    }
    if (header.type != ODB_WIRE_DATA) {
        return fail(channel, -EPROTO);
    }
    if (channel->header_length < ODB_WIRE_DATA_FRAME) {
        return ODB_CHANNEL_WANT_READ;
    }
    if (odb_wire_data_decode(&data, channel->header + ODB_WIRE_HEADER_SIZE) != ODB_WIRE_OK ||
        data.payload != channel->span.payload || data.offset != channel->span.offset ||
        data.length != channel->span.length) {
        return fail(channel, -EPROTO);
    }
    return ODB_CHANNEL_DONE;
}

/* Receives header and body with one call where they arrive together: the body's bytes go where they belong. */
static enum odb_progress receive(struct odb_channel *channel) {
    struct iovec window[WINDOW];
    size_t header_left = ODB_WIRE_DATA_FRAME - channel->header_length;
    int used = 0;
    if (header_left > 0) {
        window[used++] = (struct iovec){channel->header + channel->header_length, header_left};
    }
    used += odb_scatter_window(&channel->into, channel->body_left - channel->leave, window + used, WINDOW - used);
    struct msghdr message = {.msg_iov = window, .msg_iovlen = (size_t)used};
    ssize_t received = odb_real.recvmsg(channel->fd, &message, MSG_DONTWAIT);
    if (received < 0) {
        return errno == EINTR ? ODB_CHANNEL_DONE : stopped(channel, ODB_CHANNEL_WANT_READ);
    }
    if (received == 0) {
        return fail(channel, -ECONNRESET);
    }
    size_t size = (size_t)received, header_size = size < header_left ? size : header_left;
    channel->answered = true;
    channel->moved += size;
    channel->header_length += header_size;
    enum odb_progress progress = header_left > 0 ? read_answer(channel, size - header_size) : ODB_CHANNEL_DONE;
    if (progress == ODB_CHANNEL_DONE) {
        odb_scatter_advance(&channel->into, size - header_size);
        channel->body_left -= size - header_size;
    }
    return progress == ODB_CHANNEL_WANT_READ ? ODB_CHANNEL_DONE : progress;
}

enum odb_progress odb_channel_progress(struct odb_channel *channel) {
    enum odb_progress progress = ODB_CHANNEL_DONE;
    if (channel->request_sent < channel->request_length) {
        progress = send_request(channel);
    }
    while (progress == ODB_CHANNEL_DONE && channel->body_left > channel->leave) {
        progress = receive(channel);
    }
    return progress;
}
