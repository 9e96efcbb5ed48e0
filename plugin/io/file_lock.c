#include "io/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// A file may be removed between its opening and its lock: then the lock is of no use to anyone.
static bool is_still_there(int fd, const char *path)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_ino == named.st_ino &&
           held.st_dev == named.st_dev;
}

// For messages only: that it cannot be written changes nothing.
static void write_holder(int fd)
{
    char host[128] = "?", since[32] = "?", text[256];
    struct tm parts;
    const time_t now = time(NULL);
    gethostname(host, sizeof host - 1);
    if (gmtime_r(&now, &parts))
        strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &parts);
    int size = snprintf(text, sizeof text, "pid %ld on %s since %s\n", (long)getpid(), host, since);
    if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)size, 0) != size)
        (void)!ftruncate(fd, 0);
}

int lf_file_lock(const char *path, bool *busy, lf_error *err)
{
    *busy = false;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0) {
            lf_error_set(err, LF_EIO, "%s: cannot be opened: %s", path, strerror(errno));
            return -1;
        }
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            *busy = errno == EWOULDBLOCK;
            if (!*busy)
                lf_error_set(err, LF_EIO, "%s: cannot be locked: %s", path, strerror(errno));
            close(fd);
            return -1;
        }
        if (is_still_there(fd, path)) {
            write_holder(fd);
            return fd;
        }
        close(fd);
    }
}

void lf_file_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}
