/* listening.h: the TCP sockets of this network namespace that listen on a port, whoever has them. */
#ifndef ODB_CORE_LISTENING_H
#define ODB_CORE_LISTENING_H

#include <stdbool.h>
#include <stdint.h>

struct odb_listening {
    uint8_t address[16]; /* IPv6 or IPv4-mapped; all zero: any address, perhaps of both families */
    uint16_t port;
    unsigned uid;
    unsigned long long inode;
};

/* Calls `visit` for each, until it says false. False: the system does not tell. Thread-safe. */
bool odb_listening_each(uint16_t port, bool (*visit)(void *context, const struct odb_listening *socket), void *context);

#endif
