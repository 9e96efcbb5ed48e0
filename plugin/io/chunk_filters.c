#include "io/chunk_filters.h"

#include <stdlib.h>
#include <string.h>

#include <zlib.h>

bool lf_chunk_filters_find(hid_t list, lf_chunk_filters *filters)
{
    int count = H5Pget_nfilters(list);
    *filters = (lf_chunk_filters){ 0 };
    for (int i = 0; i < count; i++) {
        unsigned flags, config, values[8] = { 0 };
        size_t length = sizeof values / sizeof *values;
        H5Z_filter_t id = H5Pget_filter2(list, (unsigned)i, &flags, &length, values, 0, NULL, &config);
        if (id == H5Z_FILTER_SHUFFLE && !filters->shuffle && !filters->deflate && length == 1 && values[0] > 0) {
            filters->shuffle = values[0];
            filters->shuffle_mask = 1u << i;
        } else if (id == H5Z_FILTER_DEFLATE && !filters->deflate) {
            filters->deflate = true;
            filters->deflate_mask = 1u << i;
        } else {
            return false;
        }
    }
    return count > 0;
}

struct lf_unfilter {
    z_stream stream;
};

lf_unfilter *lf_unfilter_create(void)
{
    lf_unfilter *unfilter = calloc(1, sizeof *unfilter);
    if (unfilter && inflateInit(&unfilter->stream) != Z_OK) {
        free(unfilter);
        unfilter = NULL;
    }
    return unfilter;
}

void lf_unfilter_destroy(lf_unfilter *unfilter)
{
    if (!unfilter)
        return;
    inflateEnd(&unfilter->stream);
    free(unfilter);
}

bool lf_unfilter_inflate(lf_unfilter *unfilter, const void *from, size_t length, void *to, size_t size,
                         const char **why)
{
    z_stream *stream = &unfilter->stream;
    inflateReset(stream);
    stream->next_in = (z_const Bytef *)from;
    stream->avail_in = (uInt)length;
    stream->next_out = to;
    stream->avail_out = (uInt)size;
    int status = inflate(stream, Z_FINISH);
    *why = status == Z_STREAM_END ? "it inflates to less than a chunk"
           : status == Z_BUF_ERROR && size
               ? (stream->avail_out ? "it ends too early" : "it inflates to more than a chunk")
           : status == Z_MEM_ERROR ? "out of memory"
                                   : "inflate() failed";
    return status == Z_STREAM_END && stream->avail_out == 0;
}

// `element` is a constant where this is called, so that the inner loop is.
static inline void unshuffle(const unsigned char *from, size_t count, size_t element, unsigned char *to)
{
    for (size_t i = 0; i < count; i++)
        for (size_t byte = 0; byte < element; byte++)
            to[i * element + byte] = from[byte * count + i];
}

void lf_unshuffle(const void *from, size_t size, size_t element, void *to)
{
    size_t count = size / element, whole = count * element;
    switch (element) {
    case 1:
        memcpy(to, from, whole);
        break;
    case 2:
        unshuffle(from, count, 2, to);
        break;
    case 4:
        unshuffle(from, count, 4, to);
        break;
    default:
        unshuffle(from, count, element, to);
        break;
    }
    memcpy((char *)to + whole, (const char *)from + whole, size - whole);
}
