/* retire.h: takes a stream out of ODB's hands for life, where nothing has been said on it yet: for calls that use the descriptor behind our back. */
#ifndef ODB_CORE_RETIRE_H
#define ODB_CORE_RETIRE_H

#include "core/runtime.h"

/* True: `fd` is an ordinary descriptor (now). False: frames have been or may be spoken on it, by us or by the peer; it stays a stream. */
bool odb_retire(struct odb_runtime *runtime, int fd);

#endif
