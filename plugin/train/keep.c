// The last checkpoints of a training, under names of their own.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/rows_file.h"
#include "train/checkpoint.h"

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// "dir/stem" of "dir/stem.h5"; a name without a dot has no ending.
static size_t stem_length(const char *path)
{
    const char *name = name_of(path), *dot = strrchr(name, '.');
    return dot && dot != name ? (size_t)(dot - path) : strlen(path);
}

// Whether a name is "<stem>-<step><ending>".
static bool is_kept(const char *name, const char *stem, size_t stem_size, const char *ending)
{
    if (strncmp(name, stem, stem_size) != 0 || name[stem_size] != '-')
        return false;
    const char *digits = name + stem_size + 1;
    size_t count = strspn(digits, "0123456789");
    return count && count < 20 && !strcmp(digits + count, ending);
}

static bool is_older(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

// Nothing else that happens to have such a name is deleted.
static bool is_checkpoint(const char *path)
{
    char *format = lf_rows_read_text(path, "@format");
    bool is = format && !strcmp(format, "lavaflow-model");
    free(format);
    return is;
}

// Deletes the oldest kept file if there are more than `keep`; false: there was none to delete. By their dates, since an
// earlier training may have left higher steps.
static bool drop_oldest(const char *path, unsigned keep)
{
    const char *name = name_of(path);
    size_t stem = stem_length(path), folder = (size_t)(name - path), size = folder + NAME_MAX + 2;
    char *whole = malloc(size), *oldest = calloc(1, size);
    struct stat file, first = { 0 };
    unsigned count = 0;
    DIR *dir = NULL;
    if (whole && oldest) {
        snprintf(whole, size, "%.*s", folder ? (int)folder : 1, folder ? path : ".");
        dir = opendir(whole);
    }
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(whole, size, "%.*s%s", (int)folder, path, entry->d_name);
        if (!is_kept(entry->d_name, name, stem - folder, path + stem) || stat(whole, &file) != 0 ||
            !is_checkpoint(whole))
            continue;
        count++;
        if (!*oldest || is_older(&file.st_mtim, &first.st_mtim)) {
            first = file;
            strcpy(oldest, whole);
        }
    }
    bool dropped = count > keep && unlink(oldest) == 0;
    if (dir)
        closedir(dir);
    free(oldest);
    free(whole);
    return dropped;
}

bool lf_checkpoint_keep(const char *path, uint64_t step, unsigned keep, lf_error *err)
{
    size_t stem = stem_length(path), size = strlen(path) + 32;
    char *kept = malloc(size);
    if (!kept) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", path);
        return false;
    }
    snprintf(kept, size, "%.*s-%" PRIu64 "%s", (int)stem, path, step, path + stem);
    // A second name costs nothing: the next checkpoint is a new file that takes the first name.
    bool ok = (unlink(kept) == 0 || errno == ENOENT) && linkat(AT_FDCWD, path, AT_FDCWD, kept, AT_SYMLINK_FOLLOW) == 0;
    if (!ok)
        lf_error_set(err, LF_EIO, "%s: cannot be kept as %s: %s", path, kept, strerror(errno));
    while (ok && drop_oldest(path, keep))
        ;
    free(kept);
    return ok;
}
