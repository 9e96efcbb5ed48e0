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
        int fd = openat(folder, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
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

struct lf_replacement {
    char *path;   // as the caller named it, for messages
    char *parent; // the folder's path
    char target[NAME_MAX + 1], temporary[NAME_MAX + 1];
    int folder, fd;
    mode_t mode; // the old file's; 0: there is none
};

static void replacement_free(lf_replacement *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    if (file->folder >= 0)
        close(file->folder);
    free(file->parent);
    free(file->path);
    free(file);
}

void lf_replace_abandon(lf_replacement *file)
{
    if (file && file->fd >= 0)
        unlinkat(file->folder, file->temporary, 0);
    replacement_free(file);
}

// Splits a path, after links, into its folder and the name in it.
static bool split_path(lf_replacement *file, lf_error *err)
{
    struct stat info;
    char *real = lstat(file->path, &info) == 0 && S_ISLNK(info.st_mode) ? realpath(file->path, NULL) : NULL;
    char *copy = real ? real : strdup(file->path);
    if (!copy) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", file->path);
        return false;
    }
    char *slash = strrchr(copy, '/');
    const char *target = slash ? slash + 1 : copy;
    bool good = false;
    if (!*target) {
        lf_error_set(err, LF_EARG, "\"%s\": names no file to write", file->path);
    } else if (strlen(target) > NAME_MAX) {
        lf_error_set(err, LF_EIO, "%s: cannot create a file beside it: %s", file->path, strerror(ENAMETOOLONG));
    } else {
        strcpy(file->target, target);
        if (slash)
            *slash = 0;
        file->parent = strdup(!slash ? "." : slash == copy ? "/" : copy);
        good = file->parent;
        if (!good)
            lf_error_set(err, LF_ENOMEM, "%s: out of memory", file->path);
    }
    free(copy);
    return good;
}

static bool temporary_make(lf_replacement *file, lf_error *err)
{
    struct stat old;
    bool exists = fstatat(file->folder, file->target, &old, 0) == 0;
    if (exists && !S_ISREG(old.st_mode)) {
        lf_error_set(err, LF_EIO, "%s: cannot write: %s", file->path,
                     S_ISDIR(old.st_mode) ? "is a folder" : "is not a plain file");
        return false;
    }
    file->fd = create_temporary(file->folder, file->target, file->temporary);
    if (file->fd < 0) {
        lf_error_set(err, LF_EIO, "%s: cannot create a file beside it: %s", file->path, strerror(errno));
        return false;
    }
    // While it is written its owner may write it, whatever the old file's mode.
    file->mode = exists ? old.st_mode & 07777 : 0;
    if (exists && fchmod(file->fd, file->mode | S_IRUSR | S_IWUSR) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot set permissions %o: %s", file->path, (unsigned)file->mode,
                     strerror(errno));
        return false;
    }
    return true;
}

lf_replacement *lf_replace_begin(const char *path, lf_error *err)
{
    lf_replacement *file = calloc(1, sizeof *file);
    if (file)
        file->folder = file->fd = -1;
    if (!file || !(file->path = strdup(path))) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
        goto error;
    }
    if (!split_path(file, err))
        goto error;
    file->folder = open(file->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file->folder < 0) {
        lf_error_set(err, errno == ENOENT ? LF_ENOTFOUND : LF_EIO, "%s: cannot open the folder %s: %s", path,
                     file->parent, strerror(errno));
        goto error;
    }
    if (temporary_make(file, err))
        return file;
error:
    lf_replace_abandon(file);
    return NULL;
}

int lf_replace_fd(const lf_replacement *file)
{
    return file->fd;
}

bool lf_replace_finish(lf_replacement *file, lf_error *err)
{
    bool renamed = false, good = false;
    if (fsync(file->fd) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot write: %s", file->path, strerror(errno));
    } else if (file->mode && fchmod(file->fd, file->mode) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot set permissions %o: %s", file->path, (unsigned)file->mode,
                     strerror(errno));
    } else if (renameat(file->folder, file->temporary, file->folder, file->target) != 0) {
        lf_error_set(err, LF_EIO, "%s: cannot replace the file: %s", file->path, strerror(errno));
    } else {
        renamed = true;
    }
    if (!renamed) {
        lf_replace_abandon(file);
        return false;
    }
    close(file->fd); // after the rename, so that the lock covers the temporary file's whole life; fsync reported errors
    file->fd = -1;
    // Some file systems cannot sync a folder and say so; that is no failure of the write.
    if (fsync(file->folder) != 0 && errno != EINVAL && errno != ENOTSUP) {
        lf_error_set(err, LF_EIO, "%s: is written, but its folder cannot be synced: %s", file->path, strerror(errno));
    } else {
        remove_stale_files(file->folder, file->target);
        good = true;
    }
    replacement_free(file);
    return good;
}

bool lf_file_replace(const char *path, const void *bytes, size_t size, lf_error *err)
{
    lf_replacement *file = lf_replace_begin(path, err);
    if (!file)
        return false;
    if (!write_all(file->fd, bytes, size)) {
        lf_error_set(err, LF_EIO, "%s: cannot write %zu bytes: %s", path, size, strerror(errno));
        lf_replace_abandon(file);
        return false;
    }
    return lf_replace_finish(file, err);
}
