// What the files that make up a data set share. Only io/ includes this.
#ifndef LF_IO_DATASET_PARTS_H
#define LF_IO_DATASET_PARTS_H

#include "core/random.h"
#include "io/dataset.h"
#include "io/source.h"

typedef enum lf_normalize { LF_NORMALIZE_NONE, LF_NORMALIZE_STANDARD, LF_NORMALIZE_MINMAX } lf_normalize;

struct lf_dataset {
    char *file;
    hid_t h5;
    lf_part parts[LF_PART_COUNT];
    lf_source x[LF_PART_COUNT], y[LF_PART_COUNT], w[LF_PART_COUNT]; // by lf_dataset_sources(); `set` < 0: there is none
    float *scale[LF_PART_COUNT], *offset[LF_PART_COUNT];
    lf_target_kind kinds[LF_PART_COUNT]; // of y, by source
    uint64_t names;                      // of classes, @classes; 0: there are none
    lf_normalize normalize;
    bool settled; // the parts have their `classes`, and scale and offset are those of `normalize`

    // Parts cut out of one pair of objects: row i of a part is the object's row order(first + i).
    bool split;
    uint64_t split_seed;
    uint64_t first[LF_PART_COUNT];
    lf_permutation order;
};

// The index of a part's sources: all parts of a split share the first.
static inline int lf_dataset_sources(const lf_dataset *data, lf_part_id id)
{
    return data->split ? 0 : (int)id;
}

// A part's row as the row of its objects.
static inline uint64_t lf_dataset_object_row(const lf_dataset *data, lf_part_id id, uint64_t row)
{
    return data->split ? lf_permutation_at(&data->order, data->first[id] + row) : row;
}

// Fills scale and offset of every part from the attributes of x. Inside lf_h5_enter.
bool lf_dataset_attributes(lf_dataset *data, lf_error *err);
// Combines `normalize` over the training part with them. `with`: as for lf_dataset_settle. Takes the lock itself.
bool lf_dataset_normalize(lf_dataset *data, const lf_sharing *with, lf_error *err);

bool lf_sharing_agree(const lf_sharing *with, bool ok, lf_error *err); // which one process does with itself

// Delivered rows as f32 hold no NaN and no infinity; other types cannot. `rows`: their rows in the object.
bool lf_dataset_check_finite(const lf_source *source, const void *values, const uint64_t *rows, size_t count,
                             lf_error *err);

#endif
