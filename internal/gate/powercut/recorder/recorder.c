/*
 * Records which bytes of which files a program made durable, so that a power cut
 * can be acted out after it was killed: the page cache survives SIGKILL, and a
 * program that never syncs looks safe until the machine loses power.
 *
 * Preloaded, it wraps the calls by which the C and C++ parts of a program create
 * and sync files below the directory VARVE_POWERCUT_DIR, and appends one line for
 * each of them to the file VARVE_POWERCUT_LOG:
 *
 *   c <inode> <inode of its directory>   a file was created
 *   s <inode> <bytes>                    the first bytes of a file are durable
 *   d <inode>                            the entries of a directory are durable
 *   r <inode>                            a file was renamed to a name in a directory
 *
 * The size is taken before the sync, since bytes that arrive during it need not
 * be covered, and the line is written after it, since it may be interrupted. Both
 * err on the side of durability that was not promised to anyone.
 *
 * Only calls through the C library are seen: Go's own files are not.
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
#include <unistd.h>

static int log_fd = -1;
static const char *dir;
static size_t dir_bytes;

__attribute__((constructor)) static void start(void) {
  const char *path = getenv("VARVE_POWERCUT_LOG");
  dir = getenv("VARVE_POWERCUT_DIR");
  if (path == NULL || dir == NULL) return;
  dir_bytes = strlen(dir);
  log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void record(const char *line, int bytes) {
  int saved = errno;
  /* One write of a few bytes with O_APPEND is not mixed with that of others. */
  if (write(log_fd, line, (size_t)bytes) != bytes) abort();
  errno = saved;
}

static int below_dir(const char *path) {
  return log_fd >= 0 && strncmp(path, dir, dir_bytes) == 0 && path[dir_bytes] == '/';
}

/* existed says whether a file that is about to be opened is there already. */
static int existed(const char *path) {
  struct stat st;
  int saved = errno, there = stat(path, &st) == 0;
  errno = saved;
  return there;
}

/* parent_of finds the directory of a path. */
static int parent_of(const char *path, struct stat *parent) {
  char buffer[PATH_MAX];
  char *slash;
  if (strlen(path) >= sizeof buffer) return 0;
  strcpy(buffer, path);
  slash = strrchr(buffer, '/');
  if (slash == NULL) return 0;
  *slash = 0;
  return stat(buffer, parent) == 0;
}

static void created(const char *path, int fd) {
  struct stat file, parent;
  char line[96];
  if (fd < 0 || fstat(fd, &file) != 0 || !parent_of(path, &parent)) return;
  record(line, snprintf(line, sizeof line, "c %lu %lu\n", (unsigned long)file.st_ino, (unsigned long)parent.st_ino));
}

#define WRAP_OPEN(name)                                                    \
  int name(const char *path, int flags, ...) {                             \
    static int (*real)(const char *, int, ...);                            \
    mode_t mode = 0;                                                       \
    int fd, is_new;                                                        \
    if (real == NULL) real = dlsym(RTLD_NEXT, #name);                      \
    if (flags & (O_CREAT | O_TMPFILE)) {                                   \
      va_list rest;                                                        \
      va_start(rest, flags);                                               \
      mode = va_arg(rest, mode_t);                                         \
      va_end(rest);                                                        \
    }                                                                      \
    is_new = (flags & O_CREAT) && below_dir(path) && !existed(path);       \
    fd = real(path, flags, mode);                                          \
    if (is_new) created(path, fd);                                         \
    return fd;                                                             \
  }
WRAP_OPEN(open)
WRAP_OPEN(open64)

#define WRAP_FOPEN(name)                                                   \
  FILE *name(const char *path, const char *mode) {                         \
    static FILE *(*real)(const char *, const char *);                      \
    FILE *file;                                                            \
    int is_new = mode[0] != 'r' && below_dir(path) && !existed(path);      \
    if (real == NULL) real = dlsym(RTLD_NEXT, #name);                      \
    file = real(path, mode);                                               \
    if (is_new && file != NULL) created(path, fileno(file));               \
    return file;                                                           \
  }
WRAP_FOPEN(fopen)
WRAP_FOPEN(fopen64)

static int synced(int (*real)(int), int fd) {
  struct stat st;
  char line[96];
  int known = log_fd >= 0 && fstat(fd, &st) == 0;
  int result = real(fd);
  if (result == 0 && known) {
    if (S_ISDIR(st.st_mode))
      record(line, snprintf(line, sizeof line, "d %lu\n", (unsigned long)st.st_ino));
    else
      record(line, snprintf(line, sizeof line, "s %lu %lld\n", (unsigned long)st.st_ino, (long long)st.st_size));
  }
  return result;
}

#define WRAP_SYNC(name)                               \
  int name(int fd) {                                  \
    static int (*real)(int);                          \
    if (real == NULL) real = dlsym(RTLD_NEXT, #name); \
    return synced(real, fd);                          \
  }
WRAP_SYNC(fsync)
WRAP_SYNC(fdatasync)

int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  struct stat parent;
  char line[96];
  int result;
  if (real == NULL) real = dlsym(RTLD_NEXT, "rename");
  result = real(from, to);
  if (result == 0 && below_dir(to) && parent_of(to, &parent))
    record(line, snprintf(line, sizeof line, "r %lu\n", (unsigned long)parent.st_ino));
  return result;
}
