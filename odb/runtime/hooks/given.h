/* given.h: structures and arrays that calls read and fill, wherever the program keeps them. */
#ifndef ODB_HOOKS_GIVEN_H
#define ODB_HOOKS_GIVEN_H

#include "core/careful.h"

#include "hooks/hook.h"

/* Before the kernel reads or fills it: what of it lies in a window is fetched. */
static inline void odb_given(struct odb_runtime *runtime, const void *memory, size_t length) {
    if (!runtime || !memory || !odb_windows_touch(&runtime->windows, memory, length)) return;
    struct iovec range = {(void *)(uintptr_t)memory, length};
    int saved = errno;
    odb_windows_materialise(&runtime->windows, &range, 1); /* what is lost, the kernel finds inaccessible */
    errno = saved;
}

/* Before we read it: is it there? If not, the call is the kernel's to refuse. Fetches as above. */
static inline bool odb_given_is_there(const void *memory, size_t length) {
    return odb_careful_readable(memory, length) == 0;
}

/* The same of a message and its list of buffers, which is not too long then. */
static inline bool odb_given_message(const struct msghdr *message) {
    return odb_given_is_there(message, sizeof *message) && message->msg_iovlen <= IOV_MAX &&
           odb_given_is_there(message->msg_iov, message->msg_iovlen * sizeof *message->msg_iov);
}

/* What else belongs to a message. */
static inline void odb_given_parts(struct odb_runtime *runtime, const struct msghdr *message) {
    odb_given(runtime, message->msg_name, message->msg_namelen);
    odb_given(runtime, message->msg_control, message->msg_controllen);
}

static inline bool odb_given_vector(const struct iovec *iov, long count) {
    return count > 0 && count <= IOV_MAX && odb_given_is_there(iov, (size_t)count * sizeof *iov);
}

/* An address that the kernel fills, and its length. */
static inline void odb_given_address(struct odb_runtime *runtime, const void *address, const socklen_t *length) {
    if (!runtime || !odb_windows_any(&runtime->windows) || !address || !length) return;
    odb_given(runtime, length, sizeof *length);
    if (odb_given_is_there(length, sizeof *length)) odb_given(runtime, address, *length);
}

#endif
