/* Stands between a program and libc: counts the calls that change files below some folders, and spoils one of them.

   Loaded by LD_PRELOAD. The program arms it (`crash_arm`, by ctypes) when its preparations are over; until then every
   call goes through uncounted. Only paths below the armed folders count, so that interpreter and sources are left alone.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN, CREATE, WRITE, ALLOCATE, TRUNCATE, SYNC, SYNCFS, RENAME, LINK, UNLINK, MKDIR, CHMOD, FLOCK, KINDS };
enum fault { COUNT, KILL, TEAR, FAIL, FULL, CUT, COMMIT_AND_CUT };

static const char *const names[KINDS] = {"open",   "create", "write",  "allocate", "truncate", "sync", "syncfs",
                                         "rename", "link",   "unlink", "mkdir",    "chmod",    "flock"};
static char roots[2][4096];
static enum fault fault;
static int armed, wanted, code, report, skip_sync;
static long at;
static atomic_long counts[KINDS];
static atomic_int full;

/* The files that were written and not synced since, by their inodes. */
static struct {
    pthread_mutex_t lock;
    long inodes[1024];
    int count;
} dirty = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* What is to be counted and spoilt: the `number`-th call of `kind`, 1 for the first; the place is written to `to`. */
void crash_arm(const char *one, const char *two, int kind, long number, int how, int error, int to, int no_sync) {
    snprintf(roots[0], sizeof roots[0], "%s", one);
    snprintf(roots[1], sizeof roots[1], "%s", two);
    wanted = kind, at = number, fault = how, code = error, report = to, skip_sync = no_sync;
    full = 0;
    dirty.count = 0;
    for (int i = 0; i < KINDS; i++) counts[i] = 0;
    armed = 1;
}

void crash_disarm(void) { armed = 0; }
int crash_kinds(void) { return KINDS; }
const char *crash_kind(int kind) { return names[kind]; }
long crash_count(int kind) { return counts[kind]; }

static int below(const char *path) {
    for (int i = 0; i < 2; i++) {
        size_t length = strlen(roots[i]);
        if (length && !strncmp(path, roots[i], length) && (path[length] == '/' || !path[length])) return 1;
    }
    return 0;
}

static int path_of(int file, char *into, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, into, size - 1);
    if (length < 0) return 0;
    into[length] = 0;
    return 1;
}

/* Whether such calls take room on the volume, which a full one refuses. */
static int takes_room(enum kind kind) {
    return kind == CREATE || kind == WRITE || kind == ALLOCATE || kind == RENAME || kind == LINK || kind == MKDIR;
}

static long inode_of(int file) {
    struct stat found;
    return fstat(file, &found) ? 0 : (long)found.st_ino;
}

static void forget_dirty(long inode) {
    int left = 0;
    for (int i = 0; i < dirty.count; i++)
        if (dirty.inodes[i] != inode) dirty.inodes[left++] = dirty.inodes[i];
    dirty.count = left;
}

static void written(int file) {
    char path[4096];
    if (!armed || !path_of(file, path, sizeof path) || !below(path)) return;
    long inode = inode_of(file);
    pthread_mutex_lock(&dirty.lock);
    forget_dirty(inode);
    if (dirty.count < 1024) dirty.inodes[dirty.count++] = inode;
    pthread_mutex_unlock(&dirty.lock);
}

static void synced(enum kind kind, int file) {
    if (!armed) return;
    pthread_mutex_lock(&dirty.lock);
    if (kind == SYNCFS)
        dirty.count = 0;
    else
        forget_dirty(inode_of(file));
    pthread_mutex_unlock(&dirty.lock);
}

/* Say which call was spoilt, and which files a sync that fails does not make durable. */
static void tell(enum kind kind, long number, const char *path, int file) {
    char line[32768];
    if (report < 0) return;
    int length = snprintf(line, sizeof line, "{\"spoilt\": \"%s %ld %s\", \"dirty\": [0", names[kind], number, path);
    long only = kind == SYNC ? inode_of(file) : 0;
    for (int i = 0; i < dirty.count; i++)
        if (!only || dirty.inodes[i] == only)
            length += snprintf(line + length, sizeof line - length, ", %ld", dirty.inodes[i]);
    length += snprintf(line + length, sizeof line - length, "]}\n");
    syscall(SYS_write, report, line, length);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    pause();
}

/* Cut the power of the volume that the first folder lies on: what its journal has not committed is lost. Before that,
   let it commit, so that all names and sizes are there, and the bytes that nobody synced are not. */
static void cut(void) {
    char path[4200];
    int file, flag = 2; /* EXT4_GOING_FLAGS_NOLOGFLUSH */
    if (fault == COMMIT_AND_CUT) {
        snprintf(path, sizeof path, "%s/../unrelated", roots[0]);
        file = syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY, 0600);
        syscall(SYS_write, file, "x", 1);
        syscall(SYS_fsync, file);
    }
    snprintf(path, sizeof path, "%s/..", roots[0]);
    file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    ioctl(file, 0x8004587D /* EXT4_IOC_SHUTDOWN */, &flag);
}

/* Count a call. 0: let it through; 1: tear it; -1: it fails, and errno says why. */
static int meet(enum kind kind, const char *path, int file) {
    if (!armed || !below(path)) return 0;
    long number = ++counts[kind];
    if (full && takes_room(kind)) {
        errno = code;
        return -1;
    }
    if (kind != (enum kind)wanted || number != at || fault == COUNT) return 0;
    tell(kind, number, path, file);
    if (fault == CUT || fault == COMMIT_AND_CUT) cut();
    if (fault == KILL || fault == CUT || fault == COMMIT_AND_CUT) die();
    if (fault == TEAR) return 1;
    if (fault == FULL) full = 1;
    errno = code;
    return -1;
}

static int meet_file(enum kind kind, int file) {
    char path[4096];
    return armed && path_of(file, path, sizeof path) ? meet(kind, path, file) : 0;
}

static int meet_at(enum kind kind, int folder, const char *path) {
    char whole[8192];
    if (!armed) return 0;
    if (path[0] == '/') return meet(kind, path, -1);
    if (folder == AT_FDCWD ? !getcwd(whole, 4096) : !path_of(folder, whole, 4096)) return 0;
    strncat(whole, "/", 2);
    strncat(whole, path, 4000);
    return meet(kind, whole, -1);
}

/* libc's own function of a name. */
#define REAL(type, name, parameters)                                                              \
    static type (*real) parameters;                                                               \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);

#define OPEN_CALL(name)                                                                           \
    int name(const char *path, int flags, ...) {                                                  \
        REAL(int, name, (const char *, int, ...))                                                 \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                   \
        va_end(rest);                                                                             \
        return meet_at(flags & O_CREAT ? CREATE : OPEN, AT_FDCWD, path) < 0 ? -1 : real(path, flags, mode);\
    }
OPEN_CALL(open)
OPEN_CALL(open64)

#define OPENAT_CALL(name)                                                                         \
    int name(int folder, const char *path, int flags, ...) {                                      \
        REAL(int, name, (int, const char *, int, ...))                                            \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                   \
        va_end(rest);                                                                             \
        return meet_at(flags & O_CREAT ? CREATE : OPEN, folder, path) < 0 ? -1 : real(folder, path, flags, mode);\
    }
OPENAT_CALL(openat)
OPENAT_CALL(openat64)

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, write, (int, const void *, size_t))
    int what = meet_file(WRITE, file);
    if (what < 0) return -1;
    if (what) real(file, data, size / 2), die();
    written(file);
    return real(file, data, size);
}

#define PWRITE_CALL(name, offset_type)                                                            \
    ssize_t name(int file, const void *data, size_t size, offset_type offset) {                   \
        REAL(ssize_t, name, (int, const void *, size_t, offset_type))                             \
        int what = meet_file(WRITE, file);                                                        \
        if (what < 0) return -1;                                                                  \
        if (what) real(file, data, size / 2 & ~(size_t)(size > 4096 ? 4095 : 0), offset), die();  \
        written(file);                                                                            \
        return real(file, data, size, offset);                                                    \
    }
PWRITE_CALL(pwrite, off_t)
PWRITE_CALL(pwrite64, off64_t)

#define FILE_CALL(name, kind, parameters, arguments)                                              \
    int name parameters {                                                                         \
        REAL(int, name, parameters)                                                               \
        return meet_file(kind, file) < 0 ? -1 : real arguments;                                   \
    }
FILE_CALL(ftruncate, TRUNCATE, (int file, off_t size), (file, size))
FILE_CALL(ftruncate64, TRUNCATE, (int file, off64_t size), (file, size))
FILE_CALL(fallocate, ALLOCATE, (int file, int mode, off_t from, off_t size), (file, mode, from, size))
FILE_CALL(fallocate64, ALLOCATE, (int file, int mode, off64_t from, off64_t size), (file, mode, from, size))
FILE_CALL(fchmod, CHMOD, (int file, mode_t mode), (file, mode))
FILE_CALL(flock, FLOCK, (int file, int how), (file, how))

/* These return the error and leave errno alone. */
int posix_fallocate(int file, off_t from, off_t size) {
    REAL(int, posix_fallocate, (int, off_t, off_t))
    return meet_file(ALLOCATE, file) < 0 ? errno : real(file, from, size);
}
int posix_fallocate64(int file, off64_t from, off64_t size) {
    REAL(int, posix_fallocate64, (int, off64_t, off64_t))
    return meet_file(ALLOCATE, file) < 0 ? errno : real(file, from, size);
}

#define SYNC_CALL(name, kind)                                                                     \
    int name(int file) {                                                                          \
        REAL(int, name, (int file))                                                               \
        if (meet_file(kind, file) < 0) return -1;                                                 \
        synced(kind, file);                                                                       \
        return armed && skip_sync ? 0 : real(file);                                               \
    }
SYNC_CALL(fsync, SYNC)
SYNC_CALL(fdatasync, SYNC)
SYNC_CALL(syncfs, SYNCFS)

#define PATH_CALL(name, kind, parameters, arguments)                                              \
    int name parameters {                                                                         \
        REAL(int, name, parameters)                                                               \
        return meet_at(kind, AT_FDCWD, path) < 0 ? -1 : real arguments;                           \
    }
PATH_CALL(rename, RENAME, (const char *from, const char *path), (from, path))
PATH_CALL(link, LINK, (const char *from, const char *path), (from, path))
PATH_CALL(unlink, UNLINK, (const char *path), (path))
PATH_CALL(rmdir, UNLINK, (const char *path), (path))
PATH_CALL(mkdir, MKDIR, (const char *path, mode_t mode), (path, mode))
PATH_CALL(chmod, CHMOD, (const char *path, mode_t mode), (path, mode))

#define AT_CALL(name, kind, parameters, arguments)                                                \
    int name parameters {                                                                         \
        REAL(int, name, parameters)                                                               \
        return meet_at(kind, folder, path) < 0 ? -1 : real arguments;                             \
    }
AT_CALL(renameat, RENAME, (int from, const char *old, int folder, const char *path), (from, old, folder, path))
AT_CALL(renameat2, RENAME, (int from, const char *old, int folder, const char *path, unsigned flags),
        (from, old, folder, path, flags))
AT_CALL(linkat, LINK, (int from, const char *old, int folder, const char *path, int flags),
        (from, old, folder, path, flags))
AT_CALL(unlinkat, UNLINK, (int folder, const char *path, int flags), (folder, path, flags))
AT_CALL(mkdirat, MKDIR, (int folder, const char *path, mode_t mode), (folder, path, mode))
AT_CALL(fchmodat, CHMOD, (int folder, const char *path, mode_t mode, int flags), (folder, path, mode, flags))
