/* odb.h: the public C interface of libodb.so, and its only public header. */
#ifndef ODB_H
#define ODB_H

#ifdef __cplusplus
extern "C" {
#endif

#define ODB_API __attribute__((visibility("default")))

/* Would this library take the flat option file at `path`? 0: yes; a line number: that line is unknown to it or bad; -1: the file cannot be read or is empty.
 * Changes nothing. Not thread-safe. */
ODB_API int odb_check_options(const char *path);

#ifdef __cplusplus
}
#endif

#endif
