#include "io/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// Where an external link wanted to lead, noted by the callback that refuses it. Guarded by the lock.
static char refused_link[512];

void lf_h5_enter(lf_h5_scope *scope)
{
    pthread_mutex_lock(&lock);
    scope->report = NULL;
    scope->user = NULL;
    H5Eget_auto2(H5E_DEFAULT, &scope->report, &scope->user);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void lf_h5_leave(const lf_h5_scope *scope)
{
    H5Eset_auto2(H5E_DEFAULT, scope->report, scope->user);
    pthread_mutex_unlock(&lock);
}

static herr_t take_innermost(unsigned depth, const H5E_error2_t *entry, void *user)
{
    (void)depth;
    char *text = user;
    if (!*text && entry->desc && *entry->desc)
        snprintf(text, 400, "%s", entry->desc);
    return 0;
}

void lf_h5_error(lf_error *err, lf_code code, const char *format, ...)
{
    char inner[400] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, inner);
    for (char *c = inner; *c; c++)
        if (*c == '\n') // HDF5 puts ctime() into some messages
            *c = ' ';
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (*inner)
        lf_error_set(err, code, "%s: %s", text, inner);
    else
        lf_error_set(err, code, "%s", text);
}

// Who replaces a file holds its lock for a moment longer; HDF5 does not wait for one, but fails.
static void wait_for_lock(int fd)
{
    enum { TRIES = 200 };
    const struct timespec pause = { .tv_nsec = 1000000 };
    for (int i = 0; i < TRIES && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK; i++)
        nanosleep(&pause, NULL);
}

static uint64_t get_u64(const unsigned char *at)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

// A file that is being written for readers to follow, or was, by one who was killed, says so in its superblock (version
// 3: flags at byte 11, end of the file at byte 28). *whole: it is no shorter than when that began, which HDF5 does not
// check here.
static bool has_followers(int fd, bool *whole)
{
    enum { VERSION = 8, OFFSET_SIZE = 9, FLAGS = 11, END = 28, BYTES = 48, WRITING = 1 | 4 };
    unsigned char block[BYTES];
    struct stat info;
    if (pread(fd, block, BYTES, 0) != BYTES || block[VERSION] < 3 || block[OFFSET_SIZE] != 8 ||
        (block[FLAGS] & WRITING) != WRITING || fstat(fd, &info) != 0)
        return false;
    *whole = get_u64(block + END) <= (uint64_t)info.st_size;
    return true;
}

// As a reader beside a writer. Where a checksum does not match, HDF5 waits for the writer and reads again, each time
// after twice the nanoseconds: its own 100 attempts would not end with a damaged file, these take 70 ms.
static hid_t open_followed(const char *path)
{
    enum { ATTEMPTS = 26 };
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), file = -1;
    if (access >= 0 && H5Pset_metadata_read_attempts(access, ATTEMPTS) >= 0)
        file = H5Fopen(path, H5F_ACC_RDONLY | H5F_ACC_SWMR_READ, access);
    H5Pclose(access);
    return file;
}

// Opens the file whose descriptor is `fd`, or what has taken its place at `path` since.
static hid_t open_checked(const char *path, int fd, const struct stat *info, lf_error *err)
{
    wait_for_lock(fd);
    bool whole = true, followed = S_ISREG(info->st_mode) && has_followers(fd, &whole);
    flock(fd, LOCK_UN);
    if (!S_ISREG(info->st_mode)) {
        lf_error_set(err, LF_EFORMAT, "%s: %s, not an HDF5 file", path,
                     S_ISDIR(info->st_mode) ? "is a folder" : "is not a plain file");
        return -1;
    }
    if (H5Fis_hdf5(path) <= 0) {
        lf_error_set(err, LF_EFORMAT, "%s: is not an HDF5 file (%llu bytes without HDF5's signature)", path,
                     (unsigned long long)info->st_size);
        return -1;
    }
    if (!whole) {
        lf_error_set(err, LF_EFORMAT, "%s: is cut short: it has only %llu bytes", path,
                     (unsigned long long)info->st_size);
        return -1;
    }
    hid_t file = followed ? open_followed(path) : -1;
    if (file < 0) // or its writer has just closed it
        file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0)
        lf_h5_error(err, LF_EFORMAT, "%s: cannot open the HDF5 file", path);
    return file;
}

// How a file must be opened is known before HDF5 opens it, by its path; where another file has taken its place in
// between, it is the other's turn. Nobody replaces a file as often as this is tried.
hid_t lf_h5_file_open(const char *path, lf_error *err)
{
    enum { TRIES = 20 };
    lf_error why = { 0 };
    hid_t file = -1;
    bool replaced = true;
    for (int i = 0; i < TRIES && file < 0 && replaced; i++) {
        struct stat info, now;
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe must not wait for its writer
        if (fd < 0 || fstat(fd, &info) != 0) {
            int failure = errno;
            if (fd >= 0)
                close(fd);
            lf_error_set(&why, failure == ENOENT ? LF_ENOTFOUND : LF_EIO, "%s: cannot open: %s", path,
                         strerror(failure));
            break;
        }
        file = open_checked(path, fd, &info, &why);
        // An inode number is given to no other file while its file is open.
        replaced = stat(path, &now) != 0 || (now.st_ino != info.st_ino || now.st_dev != info.st_dev);
        close(fd);
    }
    if (file < 0 && err)
        *err = why;
    return file;
}

static herr_t refuse_link(const char *parent_file, const char *parent_group, const char *file, const char *object,
                          unsigned *flags, hid_t access, void *user)
{
    (void)parent_file;
    (void)parent_group;
    (void)flags;
    (void)access;
    (void)user;
    snprintf(refused_link, sizeof refused_link, "%s:%s", file, object);
    return -1;
}

bool lf_h5_exists(hid_t file, const char *path)
{
    hid_t access = H5Pcreate(H5P_LINK_ACCESS);
    char *prefix = strdup(path);
    refused_link[0] = 0;
    bool found = access >= 0 && prefix && H5Pset_elink_cb(access, refuse_link, NULL) >= 0;
    // H5Lexists wants every group on the way to exist.
    for (size_t i = 1; found && path[0] && i <= strlen(path); i++) {
        if ((path[i] != '/' && path[i] != 0) || path[i - 1] == '/')
            continue;
        prefix[i] = 0;
        htri_t there = H5Lexists(file, prefix, access);
        prefix[i] = path[i];
        // It fails below what is no group, and below an external link: opening then says where that leads.
        found = there > 0 || (there < 0 && refused_link[0]);
        if (there < 0)
            break;
    }
    free(prefix);
    H5Pclose(access);
    return found;
}

// ": it has the data sets /a, /b and 3 more"
static void append_datasets(hid_t file, const char *file_name, lf_error *err)
{
    enum { SHOWN = 12 };
    char text[700] = "";
    size_t used = 0, found = 0;
    lf_h5_listing listing = { 0 };
    if (!err || !lf_h5_list(file, file_name, "/", &listing, NULL))
        return;
    for (size_t i = 0; i < listing.count; i++) {
        if (listing.objects[i].is_group)
            continue;
        if (found++ < SHOWN && used < sizeof text)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", found > 1 ? ", " : "",
                                     listing.objects[i].path);
    }
    lf_h5_listing_finish(&listing);
    char message[sizeof err->text];
    memcpy(message, err->text, sizeof message);
    if (found == 0)
        lf_error_set(err, err->code, "%s: the file has no data sets", message);
    else if (found <= SHOWN)
        lf_error_set(err, err->code, "%s: the file has %s", message, text);
    else
        lf_error_set(err, err->code, "%s: the file has %s and %zu more", message, text, found - SHOWN);
}

static hid_t object_open(hid_t file, const char *file_name, const char *path, hid_t access, bool dataset, lf_error *err)
{
    hid_t object = -1;
    hid_t list = access == H5P_DEFAULT ? H5Pcreate(dataset ? H5P_DATASET_ACCESS : H5P_LINK_ACCESS) : H5Pcopy(access);
    if (list < 0 || H5Pset_elink_cb(list, refuse_link, NULL) < 0) {
        lf_h5_error(err, LF_ENOMEM, "%s:%s: cannot open", file_name, path);
        goto done;
    }
    refused_link[0] = 0;
    object = dataset ? H5Dopen2(file, path, list) : H5Oopen(file, path, list);
    if (object >= 0)
        goto done;
    lf_h5_error(err, LF_EFORMAT, "%s:%s: cannot open", file_name, path);
    if (refused_link[0]) {
        lf_error_set(err, LF_EUNSUPPORTED, "%s:%s: is an external link to %s; external links are not followed",
                     file_name, path, refused_link);
    } else if (!*path || !lf_h5_exists(file, path)) {
        lf_error_set(err, LF_ENOTFOUND, "%s:%s: no such object", file_name, path);
        append_datasets(file, file_name, err);
    } else if (dataset) {
        hid_t other = H5Oopen(file, path, H5P_DEFAULT);
        if (H5Iget_type(other) == H5I_GROUP)
            lf_error_set(err, LF_EFORMAT, "%s:%s: is a group, not a data set", file_name, path);
        H5Oclose(other);
    }
done:
    H5Pclose(list);
    return object;
}

hid_t lf_h5_dataset_open(hid_t file, const char *file_name, const char *path, hid_t access, lf_error *err)
{
    return object_open(file, file_name, path, access, true, err);
}

hid_t lf_h5_object_open(hid_t file, const char *file_name, const char *path, lf_error *err)
{
    return object_open(file, file_name, path, H5P_DEFAULT, false, err);
}
