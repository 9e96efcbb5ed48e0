#include "io/atomic.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

// A writer holds a lock on its temporary file, and the kernel drops the lock when the writer dies. Unlike a process id
// this also holds between containers that share a folder. Where files cannot be locked the id in the name decides.
static bool writer_is_dead(int fd, long pid)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    return errno != EWOULDBLOCK && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

// Removes `name` if its writer is dead.
static bool remove_stale(int folder, const char *name, long pid)
{
    int fd = openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool removed = writer_is_dead(fd, pid) && unlinkat(folder, name, 0) == 0;
    close(fd);
    return removed;
}

// Of the target's name, so that a temporary file's name has room for the rest.
enum { NAME_KEPT = 200 };

static void remove_stale_files(int folder, const char *target)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (!entries) {
        if (fd >= 0)
            close(fd);
        return;
    }
    size_t length = strnlen(target, NAME_KEPT);
    for (struct dirent *entry; (entry = readdir(entries));) {
        const char *name = entry->d_name;
        if (name[0] != '.' || strncmp(name + 1, target, length) != 0 || name[1 + length] != '.')
            continue;
        char *end;
        long pid = strtol(name + length + 2, &end, 10);
        if (pid > 0 && (*end == '-' || *end == '.') && strspn(end, "-0123456789") + 4 == strlen(end) &&
            strcmp(end + strlen(end) - 4, ".tmp") == 0)
            remove_stale(folder, name, pid);
    }
    closedir(entries);
}

// Creates and locks a temporary file; its name goes to `temporary`. Negative, with errno, on failure.
static int create_temporary(int folder, const char *target, char temporary[NAME_MAX + 1])
{
    enum { TRIES = 1000 };
    for (int i = 0; i < TRIES; i++) {
        int length = i == 0
                         ? snprintf(temporary, NAME_MAX + 1, ".%.*s.%ld.tmp", NAME_KEPT, target, (long)getpid())
                         : snprintf(temporary, NAME_MAX + 1, ".%.*s.%ld-%d.tmp", NAME_KEPT, target, (long)getpid(), i);
        if (length > NAME_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            return -1;
        if (fd < 0) { // another thread's, or left by a dead process that had our id
            i -= remove_stale(folder, temporary, (long)getpid());
            continue;
        }
        // Between creation and lock another writer may have taken it for a dead one's and removed it.
        struct stat info;
        if ((flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) && fstat(fd, &info) == 0 && info.st_nlink > 0)
            return fd;
        close(fd);
    }
    errno = EEXIST;
    return -1;
}

static bool write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, bytes, size < (1u << 30) ? size : 1u << 30);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}

static bool replace_in(int folder, const char *target, const char *path, const void *bytes, size_t size, lf_error *err)
{
    char temporary[NAME_MAX + 1];
    struct stat old;
    bool exists = fstatat(folder, target, &old, 0) == 0;
    if (exists && !S_ISREG(old.st_mode)) {
        lf_error_set(err, LF_EIO, "%s: cannot write: %s", path,
                     S_ISDIR(old.st_mode) ? "is a folder" : "is not a plain file");
        return false;
    }
    int fd = create_temporary(folder, target, temporary);
    if (fd < 0) {
        lf_error_set(err, LF_EIO, "%s: cannot create a file beside it: %s", path, strerror(errno));
        return false;
    }
    if (exists && fchmod(fd, old.st_mode & 07777) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot set permissions %o: %s", path, (unsigned)old.st_mode & 07777,
                     strerror(errno));
        goto error;
    }
    if (!write_all(fd, bytes, size) || fsync(fd) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot write %zu bytes: %s", path, size, strerror(errno));
        goto error;
    }
    if (renameat(folder, temporary, folder, target) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot replace the file: %s", path, strerror(errno));
        goto error;
    }
    close(fd); // after the rename, so that the lock covers the temporary file's whole life; fsync reported errors
    // Some file systems cannot sync a folder and say so; that is no failure of the write.
    if (fsync(folder) != 0 && errno != EINVAL && errno != ENOTSUP) {
        lf_error_set(err, LF_EIO, "%s: is written, but its folder cannot be synced: %s", path, strerror(errno));
        return false;
    }
    remove_stale_files(folder, target);
    return true;
error:
    unlinkat(folder, temporary, 0);
    close(fd);
    return false;
}

bool lf_file_replace(const char *path, const void *bytes, size_t size, lf_error *err)
{
    struct stat info;
    char *real = lstat(path, &info) == 0 && S_ISLNK(info.st_mode) ? realpath(path, NULL) : NULL;
    char *copy = real ? real : strdup(path);
    if (!copy) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
        return false;
    }
    bool good = false;
    char *slash = strrchr(copy, '/');
    const char *target = slash ? slash + 1 : copy;
    const char *parent = !slash ? "." : slash == copy ? "/" : copy; // read after the slash is cut
    if (!*target) {
        lf_error_set(err, LF_EARG, "\"%s\": names no file to write", path);
        goto done;
    }
    if (slash)
        *slash = 0;
    int folder = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        lf_error_set(err, errno == ENOENT ? LF_ENOTFOUND : LF_EIO, "%s: cannot open the folder %s: %s", path, parent,
                     strerror(errno));
        goto done;
    }
    good = replace_in(folder, target, path, bytes, size, err);
    close(folder);
done:
    free(copy);
    return good;
}
