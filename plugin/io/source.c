#include "io/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SCRATCH_BYTES = 64 << 20, DEFAULT_CACHE_BYTES = 1 << 20, CACHE_SLOTS = 10007 };

static hid_t native_type(lf_dtype type)
{
    switch (type) {
    case LF_U8:
        return H5T_NATIVE_UINT8;
    case LF_I8:
        return H5T_NATIVE_INT8;
    case LF_U16:
        return H5T_NATIVE_UINT16;
    case LF_I16:
        return H5T_NATIVE_INT16;
    case LF_U32:
        return H5T_NATIVE_UINT32;
    case LF_I32:
        return H5T_NATIVE_INT32;
    default:
        return H5T_NATIVE_FLOAT;
    }
}

// The delivered type of a stored one. Enumerations are their integers: h5py stores booleans so.
static bool type_check(lf_source *source, hid_t type, lf_error *err)
{
    size_t size = H5Tget_size(type);
    H5T_class_t class = H5Tget_class(type);
    hid_t base = class == H5T_ENUM ? H5Tget_super(type) : -1;
    bool is_signed = H5Tget_sign(base >= 0 ? base : type) == H5T_SGN_2;
    H5Tclose(base);
    source->floats = class == H5T_FLOAT;
    if (class != H5T_INTEGER && class != H5T_ENUM && class != H5T_FLOAT) {
        lf_error_set(err, LF_EFORMAT, "%s: holds values of type %s; expects integers or floats", source->where,
                     lf_h5_type_name(type));
        return false;
    }
    if (source->floats || size > 4)
        source->stored = LF_F32;
    else if (size == 1)
        source->stored = is_signed ? LF_I8 : LF_U8;
    else if (size == 2)
        source->stored = is_signed ? LF_I16 : LF_U16;
    else
        source->stored = is_signed ? LF_I32 : LF_U32;
    return true;
}

static bool shape_check(lf_source *source, lf_error *err)
{
    hid_t space = H5Dget_space(source->set);
    int rank = space >= 0 && H5Sget_simple_extent_type(space) == H5S_SIMPLE
                   ? H5Sget_simple_extent_dims(space, source->dims, NULL)
                   : 0;
    H5Sclose(space);
    if (rank < 1) {
        lf_error_set(err, LF_EFORMAT, "%s: is a single value; expects (rows) or (rows, columns…)", source->where);
        return false;
    }
    source->rank = rank;
    source->rows = source->dims[0];
    uint64_t columns = 1;
    for (int i = 1; i < rank; i++) {
        if (source->dims[i] != 0 && columns > UINT32_MAX / source->dims[i]) {
            lf_error_set(err, LF_EUNSUPPORTED, "%s: a row has more than %lu values", source->where,
                         (unsigned long)UINT32_MAX);
            return false;
        }
        columns *= source->dims[i];
    }
    if (source->rows == 0 || columns == 0) {
        lf_error_set(err, LF_EDATA, "%s: is empty: %llu rows of %llu values", source->where,
                     (unsigned long long)source->rows, (unsigned long long)columns);
        return false;
    }
    source->columns = (uint32_t)columns;
    return true;
}

// How blocks of a chunked data set are cut, from the chunk's shape.
static void plan_blocks(lf_source *source, const hsize_t *chunk)
{
    uint64_t rest = 1, chunk_size = 1, room = SCRATCH_BYTES / lf_dtype_size(source->stored); // all in elements
    for (int i = 0; i < source->rank; i++)
        chunk_size = chunk_size > UINT64_MAX / chunk[i] ? UINT64_MAX : chunk_size * chunk[i];
    for (int i = 2; i < source->rank; i++)
        rest *= source->dims[i]; // one index of dimension 1
    if (room < chunk_size)
        room = chunk_size;
    hsize_t width = source->rank > 1 ? source->dims[1] : 1;
    source->block_rows = chunk[0] < source->rows ? chunk[0] : source->rows;
    source->strip = width;
    if (source->rank > 1 && source->block_rows > room / source->columns) {
        hsize_t fits = room / rest / source->block_rows / chunk[1] * chunk[1];
        source->strip = fits > chunk[1] ? fits : chunk[1];
        if (source->strip > width)
            source->strip = width;
    }
    // A strip of many small chunks can still be too large; then a chunk is inflated more than once.
    while (source->block_rows > 1 && source->block_rows > room / rest / source->strip)
        source->block_rows = (source->block_rows + 1) / 2;
}

// Reopens a chunked data set with a cache that holds one row of chunks, so that reading it batch by batch does not
// inflate each chunk once a batch.
static bool open_chunked(lf_source *source, hid_t file, hid_t type, const hsize_t *chunk, const char *file_name,
                         const char *path, lf_error *err)
{
    uint64_t bytes = H5Tget_size(type); // of a row of chunks
    for (int i = 0; i < source->rank; i++) {
        uint64_t across = i == 0 ? 1 : (source->dims[i] - 1) / chunk[i] + 1;
        bytes = bytes > SCRATCH_BYTES / chunk[i] / across ? (uint64_t)SCRATCH_BYTES + 1 : bytes * chunk[i] * across;
    }
    plan_blocks(source, chunk);
    if (bytes <= DEFAULT_CACHE_BYTES || bytes > SCRATCH_BYTES)
        return true;
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    hid_t again = -1;
    if (access >= 0 && H5Pset_chunk_cache(access, CACHE_SLOTS, bytes, H5D_CHUNK_CACHE_W0_DEFAULT) >= 0) {
        H5Dclose(source->set);
        again = source->set = lf_h5_dataset_open(file, file_name, path, access, err);
    } else {
        lf_h5_error(err, LF_ENOMEM, "%s: cannot set up the chunk cache", source->where);
    }
    H5Pclose(access);
    return again >= 0;
}

static void open_raw(lf_source *source, hid_t file, hid_t type)
{
    haddr_t offset = H5Dget_offset(source->set);
    hid_t access = H5Fget_access_plist(file);
    void *handle = NULL;
    if (offset != HADDR_UNDEF && access >= 0 && H5Pget_driver(access) == H5FD_SEC2 &&
        H5Tequal(type, source->memory_type) > 0 && H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0 && handle) {
        source->fd = fcntl(*(int *)handle, F_DUPFD_CLOEXEC, 0);
        source->offset = (off_t)offset;
    }
    H5Pclose(access);
}

bool lf_source_open(lf_source *source, hid_t file, const char *file_name, const char *path, lf_error *err)
{
    *source = (lf_source){ .set = -1, .fd = -1 };
    hid_t type = -1, list = -1;
    size_t size = strlen(file_name) + strlen(path) + 2;
    source->where = malloc(size);
    if (!source->where) {
        lf_error_set(err, LF_ENOMEM, "%s:%s: out of memory", file_name, path);
        goto error;
    }
    snprintf(source->where, size, "%s:%s", file_name, path);
    source->set = lf_h5_dataset_open(file, file_name, path, H5P_DEFAULT, err);
    if (source->set < 0)
        goto error;
    type = H5Dget_type(source->set);
    list = H5Dget_create_plist(source->set);
    if (type < 0 || list < 0) {
        lf_h5_error(err, LF_EFORMAT, "%s: cannot read its type", source->where);
        goto error;
    }
    if (!type_check(source, type, err) || !shape_check(source, err) ||
        !lf_h5_storage_check(source->set, source->where, err) || !lf_h5_written_check(source->set, source->where, err))
        goto error;
    lf_source_deliver(source, source->stored);
    H5D_layout_t layout = H5Pget_layout(list);
    if (layout == H5D_CHUNKED) {
        hsize_t chunk[H5S_MAX_RANK] = { 0 };
        if (H5Pget_chunk(list, H5S_MAX_RANK, chunk) != source->rank) {
            lf_h5_error(err, LF_EFORMAT, "%s: cannot read the shape of its chunks", source->where);
            goto error;
        }
        if (!open_chunked(source, file, type, chunk, file_name, path, err))
            goto error;
        if (H5Tequal(type, source->memory_type) > 0)
            source->chunks = lf_chunks_open(source->set, source->where);
    } else if (layout == H5D_CONTIGUOUS) {
        open_raw(source, file, type);
    }
    H5Pclose(list);
    H5Tclose(type);
    return true;
error:
    H5Pclose(list);
    H5Tclose(type);
    lf_source_close(source);
    return false;
}

void lf_source_deliver(lf_source *source, lf_dtype type)
{
    if (type != source->stored) {
        if (source->fd >= 0)
            close(source->fd);
        source->fd = -1;
        lf_chunks_close(source->chunks);
        source->chunks = NULL;
    }
    source->stored = type;
    source->memory_type = native_type(type);
    source->row_size = source->columns * lf_dtype_size(type);
}

size_t lf_source_piece(const lf_source *source, size_t bytes)
{
    uint64_t rows = bytes / source->row_size + 1, block = source->block_rows;
    if (block)
        rows = (rows + block - 1) / block * block;
    return (size_t)(rows < source->rows ? rows : source->rows);
}

void lf_source_close(lf_source *source)
{
    if (source->set >= 0)
        H5Dclose(source->set);
    if (source->fd >= 0)
        close(source->fd);
    lf_chunks_close(source->chunks);
    free(source->where);
    *source = (lf_source){ .set = -1, .fd = -1 };
}
