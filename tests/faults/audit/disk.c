/* A disk for the audit suites, preloaded into a process under test (LD_PRELOAD).
 *
 * It acts on *.jsonl files below CBK_DISK_ROOT only. CBK_DISK_MODE names a file whose first byte is the
 * present mood, read at every call, so that a test changes it while the process runs:
 *
 *   o  everything works          w  write: half of it, then ENOSPC     r  write and create: EROFS
 *   e  sync: EIO                 1  sync: EIO once, then o             h  sync: waits until the mood changes
 *   s  sync: takes 50 ms
 *   f  statvfs: 4 KiB free               i  statvfs: 3 inodes free
 *   n  sync: reports success and does nothing (the control of the power-cut suite)
 *
 * CBK_DISK_LOG gets one line per event that matters to a power cut: C path (created), S size path (synced
 * up to that size), D path (directory synced). A sync is noted after it happened and before it returns.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static char mood(void) {
    const char *path = getenv("CBK_DISK_MODE");
    char found = 'o';
    if (path == NULL) return found;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return found;
    if (syscall(SYS_read, fd, &found, 1) != 1) found = 'o';
    syscall(SYS_close, fd);
    return found;
}

static void set_mood(char wanted) {
    int fd = syscall(SYS_openat, AT_FDCWD, getenv("CBK_DISK_MODE"), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    syscall(SYS_write, fd, &wanted, 1);
    syscall(SYS_close, fd);
}

static int is_below_root(const char *path) {
    const char *root = getenv("CBK_DISK_ROOT");
    return root != NULL && strncmp(path, root, strlen(root)) == 0;
}

static int is_segment(const char *path) {
    size_t length = strlen(path);
    return is_below_root(path) && length > 6 && strcmp(path + length - 6, ".jsonl") == 0;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static void note(char event, long size, const char *path) {
    const char *log = getenv("CBK_DISK_LOG");
    char line[PATH_MAX + 64];
    if (log == NULL) return;
    int length = snprintf(line, sizeof line, "%c %ld %s\n", event, size, path);
    int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, length);
    syscall(SYS_close, fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    char path[PATH_MAX];
    if (path_of(fd, path) && is_segment(path)) {
        char now = mood();
        if (now == 'r') { errno = EROFS; return -1; }
        if (now == 'w') {
            /* A full disk takes a part of the first write, and nothing of the next. */
            static int took_a_part = 0;
            took_a_part = !took_a_part;
            if (took_a_part && count > 1) return syscall(SYS_write, fd, bytes, count / 2);
            errno = ENOSPC;
            return -1;
        }
    }
    return syscall(SYS_write, fd, bytes, count);
}

static int synced(int fd, long number) {
    char path[PATH_MAX];
    struct stat found;
    if (!path_of(fd, path) || !is_below_root(path)) return syscall(number, fd);
    if (!is_segment(path)) {
        int done = syscall(number, fd);
        if (done == 0 && fstat(fd, &found) == 0 && S_ISDIR(found.st_mode)) note('D', 0, path);
        return done;
    }
    char now = mood();
    while (now == 'h') { usleep(2000); now = mood(); }
    if (now == 's') usleep(50000);
    if (now == '1') { set_mood('o'); errno = EIO; return -1; }
    if (now == 'e') { errno = EIO; return -1; }
    if (now == 'n') return 0;
    if (fstat(fd, &found) != 0) return -1;
    int done = syscall(number, fd);
    if (done == 0) note('S', (long)found.st_size, path);
    return done;
}

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int fsync(int fd) { return synced(fd, SYS_fsync); }

int statvfs(const char *path, struct statvfs *found) {
    static int (*real)(const char *, struct statvfs *);
    if (real == NULL) real = (int (*)(const char *, struct statvfs *))dlsym(RTLD_NEXT, "statvfs");
    int done = real(path, found);
    if (done != 0 || !is_below_root(path)) return done;
    char now = mood();
    if (now == 'f') { found->f_frsize = 4096; found->f_bavail = 1; }
    if (now == 'i') { found->f_files = 1000000; found->f_favail = 3; }
    return 0;
}

int statvfs64(const char *path, struct statvfs64 *found) {
    /* The same layout where long has 64 bits, which is where these suites run. */
    return statvfs(path, (struct statvfs *)found);
}

static int opened(const char *path, int flags, mode_t mode) {
    if ((flags & O_CREAT) && is_segment(path)) {
        char now = mood();
        if (now == 'r') { errno = EROFS; return -1; }
        if (now == 'w') { errno = ENOSPC; return -1; }
    }
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) && is_segment(path)) note('C', 0, path);
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return opened(path, flags | O_LARGEFILE, mode);
}
