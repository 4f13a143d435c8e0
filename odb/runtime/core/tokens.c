/* tokens.c: the buffered source of tokens. */
#include "core/tokens.h"

#include "os/real.h"

#include <string.h>
#include <sys/random.h>

/* Hands out a token if one is left, and wipes it from the buffer. */
static bool take_buffered(struct odb_tokens *tokens, uint8_t out[ODB_TOKEN_SIZE]) {
    bool some = false;
    odb_lock_take(&tokens->lock);
    if (tokens->left >= ODB_TOKEN_SIZE) {
        tokens->left -= ODB_TOKEN_SIZE;
        memcpy(out, tokens->bytes + tokens->left, ODB_TOKEN_SIZE);
        explicit_bzero(tokens->bytes + tokens->left, ODB_TOKEN_SIZE);
        some = true;
    }
    odb_lock_drop(&tokens->lock);
    return some;
}

bool odb_tokens_take(struct odb_tokens *tokens, uint8_t out[ODB_TOKEN_SIZE]) {
    if (take_buffered(tokens, out)) {
        return true;
    }
    /* At most 256 bytes come in one piece and uninterrupted; asked for outside the lock, because early in a machine's
     * life this may wait. */
    uint8_t fresh[16 * ODB_TOKEN_SIZE];
    if (odb_real.getrandom(fresh, sizeof fresh, 0) != (ssize_t)sizeof fresh) {
        return false;
    }
    memcpy(out, fresh, ODB_TOKEN_SIZE);
    odb_lock_take(&tokens->lock);
    size_t room = sizeof tokens->bytes - tokens->left;
    size_t kept = sizeof fresh - ODB_TOKEN_SIZE < room ? sizeof fresh - ODB_TOKEN_SIZE : room;
    memcpy(tokens->bytes + tokens->left, fresh + ODB_TOKEN_SIZE, kept);
    tokens->left += kept;
    odb_lock_drop(&tokens->lock);
    explicit_bzero(fresh, sizeof fresh);
    return true;
}

void odb_tokens_forget(struct odb_tokens *tokens) {
    explicit_bzero(tokens->bytes, sizeof tokens->bytes);
    tokens->left = 0;
    odb_lock_reset(&tokens->lock);
}

/* Takes as long whatever differs. */
bool odb_token_equal(const uint8_t a[ODB_TOKEN_SIZE], const uint8_t b[ODB_TOKEN_SIZE]) {
    uint64_t of_a[ODB_TOKEN_SIZE / 8], of_b[ODB_TOKEN_SIZE / 8], difference = 0;
    memcpy(of_a, a, sizeof of_a);
    memcpy(of_b, b, sizeof of_b);
    for (size_t i = 0; i < ODB_TOKEN_SIZE / 8; i++) difference |= of_a[i] ^ of_b[i];
    return difference == 0;
}
