/* registry.c: entries of listening sockets. */
#include "core/registry.h"

#include "core/listening.h"
#include "core/rules.h"
#include "os/fds.h"
#include "os/real.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 64 };

struct entry_path {
    char text[PATH_MAX + 128];
};

/* 0 when there is no /proc. */
static unsigned long long own_namespace(void) {
    struct stat status;
    return stat("/proc/self/ns/net", &status) == 0 ? (unsigned long long)status.st_ino : 0;
}

static void path_of(struct entry_path *path, const char *stats_dir, uint16_t port, unsigned long long inode) {
    snprintf(path->text, sizeof path->text, "%s/listen/%llu.%u.%llu", stats_dir, own_namespace(), port, inode);
}

static void make_directory(const char *path) {
    if (mkdir(path, 01777) == 0) {
        (void)chmod(path, 01777); /* whatever the umask says: processes of all users enter their sockets */
    }
}

static void make_directories(const char *stats_dir) {
    struct entry_path path;
    snprintf(path.text, sizeof path.text, "%s/listen", stats_dir);
    make_directory(stats_dir);
    make_directory(path.text);
}

static bool take_lock(int fd, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    return odb_real.fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

static bool is_held(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return odb_real.fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static bool still_there(int fd, const char *path) {
    struct stat open_file, named;
    return fstat(fd, &open_file) == 0 && stat(path, &named) == 0 && open_file.st_ino == named.st_ino &&
           open_file.st_dev == named.st_dev;
}

/* Whoever removes a stale file holds its lock alone, for a moment: what was locked after that is no entry any more. */
static int hold(const char *path) {
    for (int i = 0; i < TRIES; i++) {
        int made = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (made < 0 && errno == EACCES) {
            made = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW); /* of another user, from whom the socket comes */
        }
        int fd = made < 0 ? -1 : odb_fds_adopt(made);
        if (fd < 0) {
            return -1;
        }
        if (take_lock(fd, F_RDLCK) && still_there(fd, path)) {
            return fd;
        }
        odb_fds_close(fd);
        sched_yield();
    }
    return -1;
}

int odb_registry_enter(const char *stats_dir, int fd) {
    struct stat status;
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    struct entry_path path;
    uint8_t address[16];
    uint16_t port;
    if (fstat(fd, &status) != 0 || getsockname(fd, (struct sockaddr *)&local, &length) != 0 ||
        !odb_address_from((struct sockaddr *)&local, address, &port)) {
        return -1;
    }
    make_directories(stats_dir);
    path_of(&path, stats_dir, port, (unsigned long long)status.st_ino);
    return hold(path.text);
}

/* Removes the file unless somebody holds it. */
static void remove_stale(const char *path) {
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return; /* gone, or of another user */
    }
    if (take_lock(fd, F_WRLCK) && still_there(fd, path)) {
        unlink(path);
    }
    odb_real.close(fd);
}

void odb_registry_leave(int entry) {
    char link[64];
    struct entry_path path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", entry);
    ssize_t length = odb_real.readlink(link, path.text, sizeof path.text - 1);
    odb_fds_close(entry);
    if (length > 0) {
        path.text[length] = '\0';
        remove_stale(path.text);
    }
}

void odb_registry_prune(const char *stats_dir) {
    struct entry_path path;
    struct dirent *found;
    snprintf(path.text, sizeof path.text, "%s/listen", stats_dir);
    DIR *directory = opendir(path.text);
    while (directory != NULL && (found = readdir(directory)) != NULL) {
        if (found->d_name[0] >= '0' && found->d_name[0] <= '9') {
            snprintf(path.text, sizeof path.text, "%s/listen/%s", stats_dir, found->d_name);
            remove_stale(path.text);
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
}

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_zero(const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Might the socket accept connections to `address`? The unspecified IPv6 address stands for both families: whether it
 * does for this socket is not to be seen. */
static bool covers(const struct odb_listening *socket, const uint8_t address[16]) {
    bool v4 = memcmp(address, mapped, sizeof mapped) == 0, of_v4 = memcmp(socket->address, mapped, sizeof mapped) == 0;
    if (is_zero(socket->address, 16)) {
        return true;
    }
    if (of_v4 && is_zero(socket->address + 12, 4)) {
        return v4;
    }
    return memcmp(socket->address, address, 16) == 0;
}

static bool has_entry(const char *stats_dir, const struct odb_listening *socket) {
    struct entry_path path;
    struct stat status;
    path_of(&path, stats_dir, socket->port, socket->inode);
    int fd = open(path.text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return false;
    }
    bool held = is_held(fd);
    bool entitled = fstat(fd, &status) == 0 && (status.st_uid == 0 || status.st_uid == socket->uid);
    odb_real.close(fd);
    if (!held) {
        remove_stale(path.text);
    }
    return held && entitled;
}

/* What the sockets seen so far say together. */
struct judgement {
    const char *stats_dir;
    const uint8_t *address;
    bool some; /* one with an entry */
    bool none; /* one without */
};

/* Cheap: most ports have none, and then nobody has to look for sockets. */
static bool any_entry(const char *stats_dir, uint16_t port) {
    struct entry_path path;
    struct dirent *found;
    char prefix[64];
    bool any = false;
    int length = snprintf(prefix, sizeof prefix, "%llu.%u.", own_namespace(), port);
    snprintf(path.text, sizeof path.text, "%s/listen", stats_dir);
    DIR *directory = opendir(path.text);
    while (directory != NULL && !any && (found = readdir(directory)) != NULL) {
        any = strncmp(found->d_name, prefix, (size_t)length) == 0;
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return any;
}

static bool judge(void *context, const struct odb_listening *socket) {
    struct judgement *judgement = context;
    if (covers(socket, judgement->address)) {
        *(has_entry(judgement->stats_dir, socket) ? &judgement->some : &judgement->none) = true;
    }
    return !judgement->none;
}

bool odb_registry_speaks(const char *stats_dir, const uint8_t address[16], uint16_t port) {
    struct judgement judgement = {stats_dir, address, false, false};
    return any_entry(stats_dir, port) && odb_listening_each(port, judge, &judgement) && judgement.some &&
           !judgement.none;
}
