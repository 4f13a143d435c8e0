/* world.h: one process that is origin, intermediary and consumer at once, for tests of the core against real sockets.
 *
 * One runtime with a real store, origin and helper thread; connections are loopback TCP. What is "application" here calls the policies (odb_receive ...)
 * where a program would call libc. Everything ends the program with a message when it cannot do its work: none of it is what is being tested.
 */
#ifndef ODB_TESTS_WORLD_H
#define ODB_TESTS_WORLD_H

#include "core/runtime.h"

extern struct odb_runtime world;

/* Once per program, before anything else. `settings` are "key=value" strings that differ from the defaults, ended by null. A test that hangs is killed by SIGALRM. */
void world_begin(const char *const *settings);
/* Changes one option of the running world. */
void world_set(const char *key, const char *value);
uint64_t world_count(enum odb_stat which);

/* Connections. "framed" ends are streams of the runtime; "raw" ends are bare sockets on which a test plays a peer of its own. All block. */
void world_connect(int *client, int *server);
void world_raw_client(int *raw, int *server);
void world_raw_server(int *client, int *raw);
void world_plain(int *near, int *far); /* both ends are bare sockets, `near` does not block */
void world_nonblocking(int fd);
void world_close(int fd);
struct odb_stream *world_stream(int fd); /* borrowed */
unsigned world_segments(int fd);         /* with bytes, that a TCP socket has sent */

/* Application calls. Results and errno of the calls they stand for. */
ssize_t world_send(int fd, const void *bytes, size_t length, int flags);
ssize_t world_recv(int fd, void *to, size_t room, int flags);
/* All of it, however many calls that takes (blocking). */
void world_send_all(int fd, const void *bytes, size_t length);
void world_recv_all(int fd, void *to, size_t length, size_t per_call);
/* True when [bytes, bytes + length) holds the content of a span of payload `seed` from `offset` on, read as the kernel would see it. */
bool world_same(const void *bytes, size_t length, uint32_t seed, uint64_t offset);

/* epoll, as the hooks do it. `data` of a registration is its descriptor. world_wait: number of events, at most `room`, or -1; forever if `ms` is negative. */
int world_set_made(void);
void world_epoll(int set, int operation, int fd, uint32_t events);
int world_wait(int set, struct epoll_event *events, int room, int ms);

/* A payload of fixture_byte(seed, ...) in the store of this process, announced as reachable over loopback. */
struct odb_span world_payload(uint32_t seed, size_t length);
/* A span whose origin cannot be reached, and one that the origin knows nothing of. */
struct odb_span world_unreachable(size_t length);
struct odb_span world_unknown(size_t length);

/* Frames as bytes; `out` has room. Each returns its length. */
size_t world_hello(uint8_t *out);
size_t world_real(uint8_t *out, const void *bytes, size_t length);
/* The first `head` and last `tail` bytes of the span travel for real. */
size_t world_virtual(uint8_t *out, const struct odb_span *span, uint32_t seed, size_t head, size_t tail);

/* Whole pages of ordinary heap memory of the runtime (odb_malloc), on which windows may be put. Freed with odb_free. */
uint8_t *world_pages(size_t length);

#endif
