/* real.c: fills the table of real libc functions. The only file that calls dlsym. */
#include "os/real.h"

#include <dlfcn.h>

struct odb_real odb_real;

bool odb_real_load(void) {
#define ODB_POLICY(...)
#define ODB_HOOK(type, name, parameters, arguments, policy) *(void **)(&odb_real.name) = dlsym(RTLD_NEXT, #name);
#include "hooks/hooks.def"
#undef ODB_HOOK
#undef ODB_POLICY
    return odb_real.read && odb_real.write && odb_real.close && odb_real.sendmsg && odb_real.recvmsg &&
           odb_real.epoll_wait && odb_real.poll && odb_real.malloc && odb_real.free && odb_real.mprotect &&
           odb_real.sigaction;
}
