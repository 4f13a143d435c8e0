/* splice_out.h: sends windows on sockets that do not speak ODB straight from the channel that their bytes were pushed on. */
#ifndef ODB_CORE_SPLICE_OUT_H
#define ODB_CORE_SPLICE_OUT_H

#include "core/runtime.h"

#include <sys/socket.h>

enum odb_splice_out {
    ODB_SPLICE_OUT_NOT,  /* nothing was done: nothing here can be spliced */
    ODB_SPLICE_OUT_DONE, /* `*result` is what sendmsg would return, or a negative errno */
    ODB_SPLICE_OUT_LOST  /* the socket is owed bytes that cannot be had */
};

/* Sends a message to the kernel's own stream, copying only what is not at hand on a channel. What has been sent stays mapped: who reads it after all fetches it.
 * A result that is short means that the socket is full, or has failed. */
enum odb_splice_out odb_splice_out(struct odb_runtime *runtime, int fd, const struct msghdr *message, int flags,
                                   ssize_t *result);

/* May a window on this span be spliced: was it pushed on a channel of ours? */
static inline bool odb_splice_out_may(const struct odb_runtime *runtime, const struct odb_span *span) {
    return runtime->options.splice && odb_pushed_is_own(&runtime->channels.pushed, span->push_channel);
}

#endif
