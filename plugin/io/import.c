#include "io/import.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "io/atomic.h"
#include "io/h5_write.h"

// An IDX file of bytes: http://yann.lecun.com/exdb/mnist, "The IDX file format".
typedef struct idx {
    char path[4096];
    uint32_t dims[3];
    uint8_t *values;
    uint64_t size, read; // bytes: of the whole file by its header; read so far
} idx;

static bool find_file(const char *folder, const char *name, char path[4096], lf_error *err)
{
    static const char *const endings[] = { "", ".gz" };
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(path, 4096, "%s/%s%s", folder, name, endings[i]);
        if (access(path, F_OK) == 0)
            return true;
    }
    lf_error_set(err, LF_ENOTFOUND, "%s: has no file %s or %s.gz", folder, name, name);
    return false;
}

// gzread takes and counts int.
static bool read_bytes(gzFile in, idx *file, void *bytes, size_t size, lf_error *err)
{
    for (size_t done = 0; done < size;) {
        size_t piece = size - done < (1u << 20) ? size - done : 1u << 20;
        int got = gzread(in, (char *)bytes + done, (unsigned)piece);
        int code = Z_OK;
        const char *reason = gzerror(in, &code);
        if (got < 0 || (code != Z_OK && code != Z_BUF_ERROR)) {
            lf_error_set(err, LF_EFORMAT, "%s: cannot read: %s", file->path,
                         code == Z_ERRNO ? strerror(errno) : reason);
            return false;
        }
        if (got == 0) {
            lf_error_set(err, LF_EFORMAT, "%s: is cut short: it ends after %llu of %llu bytes", file->path,
                         (unsigned long long)file->read, (unsigned long long)file->size);
            return false;
        }
        done += (size_t)got;
        file->read += (uint64_t)got;
    }
    return true;
}

static uint32_t big_endian(const uint8_t bytes[4])
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

// Reads a file of `rank` dimensions of bytes.
static bool idx_read(idx *file, const char *folder, const char *name, uint32_t rank, lf_error *err)
{
    if (!find_file(folder, name, file->path, err))
        return false;
    gzFile in = gzopen(file->path, "rb");
    if (!in) {
        lf_error_set(err, LF_EIO, "%s: cannot open: %s", file->path, strerror(errno));
        return false;
    }
    bool good = false;
    uint8_t header[4 + 4 * 3];
    const size_t header_size = 4 + 4 * rank;
    const uint32_t magic = 0x0800u | rank; // 8: unsigned bytes
    uint64_t size = 1;
    file->size = header_size;
    if (!read_bytes(in, file, header, header_size, err))
        goto done;
    if (big_endian(header) != magic) {
        lf_error_set(err, LF_EFORMAT,
                     "%s: is not an IDX file of bytes in %u dimensions: it starts with 0x%08x, not 0x%08x", file->path,
                     (unsigned)rank, (unsigned)big_endian(header), (unsigned)magic);
        goto done;
    }
    for (uint32_t i = 0; i < rank; i++) {
        file->dims[i] = big_endian(header + 4 + 4 * i);
        size = size > SIZE_MAX / 2 / (file->dims[i] + 1ull) ? SIZE_MAX / 2 : size * file->dims[i];
    }
    if (size == 0) {
        lf_error_set(err, LF_EDATA, "%s: is empty: its header counts 0 values", file->path);
        goto done;
    }
    file->size = header_size + size;
    // Memory is taken as bytes arrive, for the header of a damaged file can claim any size.
    for (size_t have = 0, room = 1u << 20; have < size; have = room, room *= 2) {
        if (room > size)
            room = (size_t)size;
        uint8_t *grown = realloc(file->values, room);
        if (!grown) {
            lf_error_set(err, LF_ENOMEM, "%s: out of memory for %llu bytes", file->path, (unsigned long long)size);
            goto done;
        }
        file->values = grown;
        if (!read_bytes(in, file, file->values + have, room - have, err))
            goto done;
    }
    uint8_t more;
    if (gzread(in, &more, 1) != 0) {
        lf_error_set(err, LF_EFORMAT, "%s: goes on after the %llu values that its header counts", file->path,
                     (unsigned long long)size);
        goto done;
    }
    good = true;
done:
    gzclose(in);
    return good;
}

static bool part_write(hid_t file, const char *part, const idx *images, const idx *labels, lf_error *err)
{
    static const char *const names[] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" };
    const hsize_t shape[] = { images->dims[0], images->dims[1], images->dims[2] };
    const double scale = 1.0 / 255;
    hid_t group = lf_h5_group_make(file, part, err), x = -1, y = -1;
    // Contiguous: rows are read straight from the file.
    bool good = group >= 0 &&
                lf_h5_write_array(group, "x", H5T_STD_U8LE, H5T_NATIVE_UINT8, 3, shape, images->values, err) &&
                lf_h5_write_array(group, "y", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, shape, labels->values, err);
    if (good) {
        x = H5Dopen2(group, "x", H5P_DEFAULT);
        y = H5Dopen2(group, "y", H5P_DEFAULT);
        good = lf_h5_set_array(x, "scale", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, NULL, &scale, err) &&
               lf_h5_set_text(x, "long_name", "handwritten digits, 0 black to 1 white", err) &&
               lf_h5_set_text(y, "long_name", "the digit", err) && lf_h5_set_texts(y, "classes", 10, names, err);
    }
    H5Dclose(y);
    H5Dclose(x);
    H5Gclose(group);
    return good;
}

static bool labels_check(const idx *images, const idx *labels, lf_error *err)
{
    if (images->dims[0] != labels->dims[0]) {
        lf_error_set(err, LF_EFORMAT, "%s: has %lu labels, but %s has %lu images", labels->path,
                     (unsigned long)labels->dims[0], images->path, (unsigned long)images->dims[0]);
        return false;
    }
    for (uint32_t i = 0; i < labels->dims[0]; i++) {
        if (labels->values[i] > 9) {
            lf_error_set(err, LF_EDATA, "%s: label %u at row %lu is outside 0..9", labels->path, labels->values[i],
                         (unsigned long)i);
            return false;
        }
    }
    return true;
}

bool lf_import_mnist(const char *folder, const char *out, lf_error *err)
{
    static const struct {
        const char *part, *images, *labels;
    } parts[] = {
        { "train", "train-images-idx3-ubyte", "train-labels-idx1-ubyte" },
        { "test", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte" },
    };
    enum { PARTS = sizeof parts / sizeof *parts };
    idx *files = calloc(2 * PARTS, sizeof *files);
    if (!files) {
        lf_error_set(err, LF_ENOMEM, "%s: out of memory", folder);
        return false;
    }
    bool good = true;
    size_t bytes = 0;
    for (int i = 0; good && i < PARTS; i++) {
        idx *images = &files[2 * i], *labels = images + 1;
        good = idx_read(images, folder, parts[i].images, 3, err) && idx_read(labels, folder, parts[i].labels, 1, err) &&
               labels_check(images, labels, err);
        bytes += (size_t)images->dims[0] * images->dims[1] * images->dims[2];
    }
    void *image = NULL;
    size_t size = 0;
    if (good) {
        lf_h5_scope scope;
        lf_h5_enter(&scope);
        hid_t file = lf_h5_memory_create(bytes, err);
        good = file >= 0;
        for (int i = 0; good && i < PARTS; i++)
            good = part_write(file, parts[i].part, &files[2 * i], &files[2 * i + 1], err);
        if (good)
            image = lf_h5_memory_image(file, &size, err);
        else
            lf_error_prefix(err, "%s", out);
        H5Fclose(file);
        lf_h5_leave(&scope);
    }
    for (int i = 0; i < 2 * PARTS; i++)
        free(files[i].values);
    free(files);
    good = image && lf_file_replace(out, image, size, err);
    free(image);
    return good;
}
