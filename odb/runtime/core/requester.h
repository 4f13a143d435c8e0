/* requester.h: for whom a thread is about to ask: the consumer that was named on the connection from which it has received last.
 *
 * An intermediary receives a request and then sends one. Naming the consumer upstream (HINT, see docs/PROTOCOL.md) lets the origin push the body to the one who will need it, also
 * when several consumers share one connection to the origin. A guess that is wrong costs bytes only.
 *
 * Per thread; async-signal-safe.
 */
#ifndef ODB_CORE_REQUESTER_H
#define ODB_CORE_REQUESTER_H

#include <stdint.h>

/* A client that does not speak ODB, or nobody: this process will need the bytes. */
#define ODB_REQUESTER_SELF ((uint64_t)0)
#define ODB_REQUESTER_UNKNOWN (~(uint64_t)0) /* somebody who has not been named */
#define ODB_CONSUMER_BITS 48                 /* of a consumer's number, so that a HINT can name it */

/* Something has been received on its behalf. */
void odb_requester_is(uint64_t consumer);
uint64_t odb_requester(void);

#endif
