#include "io/h5_disk.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include "io/h5_write.h"
#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

// HDF5's handle of the file.
typedef struct handle {
    H5FD_t base; // first
    lf_h5_disk *disk;
    haddr_t eoa, eof; // end of what is allocated, of what is written
} handle;

bool lf_h5_disk_write(int fd, const void *values, size_t size, off_t at)
{
    const char *bytes = values;
    while (size > 0) {
        ssize_t written = pwrite(fd, bytes, size < (1u << 30) ? size : 1u << 30, at);
        if (written < 0 && errno == EINTR)
            continue;
        if (written == 0)
            errno = EIO;
        if (written <= 0)
            return false;
        bytes += written;
        at += written;
        size -= (size_t)written;
    }
    return true;
}

static H5FD_t *disk_open(const char *name, unsigned flags, hid_t access, haddr_t most)
{
    (void)name;
    (void)flags;
    (void)most;
    lf_h5_disk *const *disk = H5Pget_driver_info(access);
    handle *file = disk ? calloc(1, sizeof *file) : NULL;
    if (!file)
        return NULL;
    file->disk = *disk;
    return &file->base;
}

static herr_t disk_close(H5FD_t *file)
{
    free(file);
    return 0;
}

// How HDF5 finds out that two open files are one.
static int disk_compare(const H5FD_t *a, const H5FD_t *b)
{
    uintptr_t left = (uintptr_t)((const handle *)a)->disk, right = (uintptr_t)((const handle *)b)->disk;
    return (left > right) - (left < right);
}

static herr_t disk_query(const H5FD_t *file, unsigned long *flags)
{
    (void)file;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_SUPPORTS_SWMR_IO;
    return 0;
}

static haddr_t disk_eoa(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const handle *)file)->eoa;
}

static herr_t disk_set_eoa(H5FD_t *file, H5FD_mem_t type, haddr_t end)
{
    (void)type;
    ((handle *)file)->eoa = end;
    return 0;
}

static haddr_t disk_eof(const H5FD_t *file, H5FD_mem_t type)
{
    (void)type;
    return ((const handle *)file)->eof;
}

static herr_t disk_read(H5FD_t *base, H5FD_mem_t type, hid_t list, haddr_t at, size_t size, void *to)
{
    (void)type;
    (void)list;
    handle *file = (handle *)base;
    char *bytes = to;
    while (size > 0) {
        ssize_t got = pread(file->disk->fd, bytes, size, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && !file->disk->error)
            file->disk->error = errno;
        if (got <= 0)
            break;
        bytes += got;
        at += (haddr_t)got;
        size -= (size_t)got;
    }
    memset(bytes, 0, size); // beyond the end
    return 0;
}

static herr_t disk_write(H5FD_t *base, H5FD_mem_t type, hid_t list, haddr_t at, size_t size, const void *from)
{
    (void)type;
    (void)list;
    handle *file = (handle *)base;
    if (!file->disk->error && !lf_h5_disk_write(file->disk->fd, from, size, (off_t)at))
        file->disk->error = errno;
    if (at + size > file->eof)
        file->eof = at + size;
    return 0;
}

static herr_t disk_truncate(H5FD_t *base, hid_t list, hbool_t closing)
{
    (void)list;
    (void)closing;
    handle *file = (handle *)base;
    if (!file->disk->error && ftruncate(file->disk->fd, (off_t)file->eoa) != 0)
        file->disk->error = errno;
    file->eof = file->eoa;
    return 0;
}

// The file is not seen by others until it may be followed. But only a driver that can lock has its files marked as
// being written.
static herr_t disk_lock(H5FD_t *file, hbool_t writing)
{
    (void)file;
    (void)writing;
    return 0;
}

static herr_t disk_unlock(H5FD_t *file)
{
    (void)file;
    return 0;
}

hid_t lf_h5_disk_create(lf_h5_disk *disk, lf_error *err)
{
    const H5FD_class_t class = {
#ifdef H5FD_CLASS_VERSION
        .version = H5FD_CLASS_VERSION,
        .value = (H5FD_class_value_t)600, // of the range for private use
#endif
        .name = "lavaflow",
        .maxaddr = INT64_MAX,
        .fc_degree = H5F_CLOSE_WEAK,
        .fapl_size = sizeof disk,
        .open = disk_open,
        .close = disk_close,
        .cmp = disk_compare,
        .query = disk_query,
        .get_eoa = disk_eoa,
        .set_eoa = disk_set_eoa,
        .get_eof = disk_eof,
        .read = disk_read,
        .write = disk_write,
        .truncate = disk_truncate,
        .lock = disk->followers ? disk_lock : NULL,
        .unlock = disk->followers ? disk_unlock : NULL,
        .fl_map = H5FD_FLMAP_DICHOTOMY,
    };
    hid_t driver = H5FDregister(&class), access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE);
    hid_t file = -1;
    if (driver >= 0 && access >= 0 && H5Pset_driver(access, driver, &disk) >= 0 && lf_h5_prepare(creation, true) &&
        (!disk->followers || H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0))
        file = H5Fcreate("lavaflow-disk", H5F_ACC_TRUNC, creation, access);
    if (file < 0)
        lf_h5_error(err, LF_EIO, "cannot create an HDF5 file");
    H5Pclose(creation);
    H5Pclose(access);
    if (driver >= 0)
        H5FDunregister(driver); // the open file keeps it
    return file;
}
