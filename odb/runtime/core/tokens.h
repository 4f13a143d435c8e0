/* tokens.h: unguessable 16-byte capabilities, taken from the kernel's generator a few dozen at a time.
 *
 * All-zero memory is an empty, valid source. Thread-safe; not for signal handlers. A forked child must call
 * odb_tokens_forget(), or it would hand out its parent's tokens.
 */
#ifndef ODB_CORE_TOKENS_H
#define ODB_CORE_TOKENS_H

#include "os/lock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ODB_TOKEN_SIZE 16u

struct odb_tokens {
    struct odb_lock lock;
    size_t left; /* unused bytes at the front of `bytes` */
    uint8_t bytes[32 * ODB_TOKEN_SIZE];
};

/* False when the kernel gives no random bytes. */
bool odb_tokens_take(struct odb_tokens *tokens, uint8_t out[ODB_TOKEN_SIZE]);
void odb_tokens_forget(struct odb_tokens *tokens);

/* Takes the same time wherever the first difference is. */
bool odb_token_equal(const uint8_t a[ODB_TOKEN_SIZE], const uint8_t b[ODB_TOKEN_SIZE]);

#endif
