/* requester.c: one word per thread. */
#include "core/requester.h"

static _Thread_local uint64_t requester;

void odb_requester_is(uint64_t consumer) {
    requester = consumer;
}

uint64_t odb_requester(void) {
    return requester;
}
