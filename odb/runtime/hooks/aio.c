/* aio.c: hooks of POSIX asynchronous I/O, whose threads call the kernel where nobody sees it: memory is made real when a request is made, and streams are refused as a kernel without such I/O
 * for sockets would refuse them. */
#include "hooks/hook.h"

#include <aio.h>

static int prepare(int fd, volatile void *buffer, size_t length) {
    struct odb_runtime *runtime = odb_enter();
    if (!runtime) return 0;
    if (odb_fdtable_has(&runtime->fds, fd)) {
        errno = ENOSYS;
        return -1;
    }
    struct iovec range = {(void *)(uintptr_t)buffer, length};
    int saved = errno, error = odb_windows_materialise(&runtime->windows, &range, 1);
    errno = error ? EIO : saved;
    return error ? -1 : 0;
}

ODB_EXPORT int aio_read(struct aiocb *request) {
    return prepare(request->aio_fildes, request->aio_buf, request->aio_nbytes) == 0 ? odb_real.aio_read(request) : -1;
}

ODB_EXPORT int aio_read64(struct aiocb64 *request) {
    return prepare(request->aio_fildes, request->aio_buf, request->aio_nbytes) == 0 ? odb_real.aio_read64(request) : -1;
}

ODB_EXPORT int aio_write(struct aiocb *request) {
    return prepare(request->aio_fildes, request->aio_buf, request->aio_nbytes) == 0 ? odb_real.aio_write(request) : -1;
}

ODB_EXPORT int aio_write64(struct aiocb64 *request) {
    return prepare(request->aio_fildes, request->aio_buf, request->aio_nbytes) == 0 ? odb_real.aio_write64(request)
                                                                                    : -1;
}

ODB_EXPORT int lio_listio(int mode, struct aiocb *const requests[], int count, struct sigevent *event) {
    for (int i = 0; i < count; i++)
        if (requests[i] && requests[i]->aio_lio_opcode != LIO_NOP &&
            prepare(requests[i]->aio_fildes, requests[i]->aio_buf, requests[i]->aio_nbytes) != 0)
            return -1;
    return odb_real.lio_listio(mode, requests, count, event);
}

ODB_EXPORT int lio_listio64(int mode, struct aiocb64 *const requests[], int count, struct sigevent *event) {
    for (int i = 0; i < count; i++)
        if (requests[i] && requests[i]->aio_lio_opcode != LIO_NOP &&
            prepare(requests[i]->aio_fildes, requests[i]->aio_buf, requests[i]->aio_nbytes) != 0)
            return -1;
    return odb_real.lio_listio64(mode, requests, count, event);
}
