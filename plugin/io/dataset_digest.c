#include <string.h>

#include "core/hash.h"
#include "io/dataset_parts.h"

static void hash_floats(lf_hash *hash, const float *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        lf_hash_u64(hash, bits);
    }
}

bool lf_dataset_digest(lf_dataset *data, lf_part_id id, char hex[65], lf_error *err)
{
    const lf_part *part = lf_dataset_part(data, id, err);
    lf_hash *hash = part ? lf_hash_create(err) : NULL;
    if (!hash)
        return false;
    const lf_source *x = &data->x[lf_dataset_sources(data, id)];
    const char *path = x->where + strlen(data->file) + 1; // "file:path"
    lf_h5_scope scope;
    lf_h5_enter(&scope);
    // The file that was opened, even if another stands under its name by now.
    bool good = lf_h5_hash(hash, data->h5, data->file, path, err);
    lf_h5_leave(&scope);
    // Seed, first and count say what fractions, seed and part amount to.
    lf_hash_text(hash, data->split ? "split" : "all");
    if (data->split) {
        lf_hash_u64(hash, data->split_seed);
        lf_hash_u64(hash, data->first[id]);
        lf_hash_u64(hash, part->rows);
    }
    hash_floats(hash, part->scale, part->features);
    hash_floats(hash, part->offset, part->features);
    if (good)
        lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    return good;
}
