/* fds.h: descriptors that belong to the library, kept out of the application's way.
 *
 * They are moved to high numbers, close-on-exec, and registered so that the application's close(), close_range() or dup2() cannot hit them.
 */
#ifndef ODB_OS_FDS_H
#define ODB_OS_FDS_H

#include <stdbool.h>

/* Takes ownership of `fd` and returns it (or its replacement with a high number), close-on-exec and registered; -1 and fd closed on failure. */
int odb_fds_adopt(int fd);
/* Closes an adopted descriptor. -1 is allowed and ignored. */
void odb_fds_close(int fd);
bool odb_fds_is_internal(int fd);

#endif
