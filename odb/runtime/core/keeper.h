/* keeper.h: windows that the application leaves alone for long become real memory before their origin lets the payload go.
 *
 * A thread of its own, because it blocks in fetches; it exists only while there are windows. A window is fetched when a quarter of what was left of its lease at
 * mapping has passed, and a second more at most: in time for leases of four seconds and more. Windows that a fork has copied are kept in the child once it maps one itself.
 */
#ifndef ODB_CORE_KEEPER_H
#define ODB_CORE_KEEPER_H

#include "core/windows.h"

/* There is a window to look after. Without memory for a thread nobody does. Not under the lock of `windows`. */
void odb_keeper_wake(struct odb_windows *windows);

/* When a window whose lease ends at `expires_ms` is to be fetched; UINT64_MAX: it is too late. */
uint64_t odb_keeper_due(uint64_t now_ms, uint64_t expires_ms);

#endif
