// A student that looks at a teacher's hidden layers while it learns: FitNets (Romero et al. 2015).
#include <stdlib.h>
#include <string.h>

#include "program/model.h"

static const lf_layer *find_layer(const lf_model *model, const char *name)
{
    for (size_t i = 0; i < model->layer_count; i++)
        if (!strcmp(model->layers[i].name, name))
            return &model->layers[i];
    return NULL;
}

// Inserts `hint` behind layer `index`, inside the residuals that the layer stands in.
static void insert(lf_layer *layers, size_t *count, size_t index, const lf_layer *hint)
{
    size_t at = index + 1 + (layers[index].kind == LF_LAYER_RESIDUAL ? layers[index].span : 0);
    for (size_t i = 0; i < index; i++)
        if (layers[i].kind == LF_LAYER_RESIDUAL && i + layers[i].span >= index)
            layers[i].span++;
    memmove(&layers[at + 1], &layers[at], (*count - at) * sizeof *layers);
    layers[at] = *hint;
    ++*count;
}

static bool make_hint(const lf_model *teacher, const lf_hint *hint, size_t number, lf_layer *layer, lf_error *err)
{
    const lf_layer *target = find_layer(teacher, hint->teacher);
    if (!target) {
        lf_error_set(err, LF_EARG, "hint %zu: the teacher has no layer %s", number, hint->teacher);
        return false;
    }
    if (!(hint->weight > 0)) {
        lf_error_set(err, LF_EARG, "hint %zu: weight must be above 0, not %g", number, (double)hint->weight);
        return false;
    }
    *layer = (lf_layer){ .kind = LF_LAYER_HINT, .projected = target->outputs, .weight = hint->weight };
    memcpy(layer->target, target->name, sizeof layer->target);
    return true;
}

void lf_model_copy_shared(lf_model *to, const lf_model *from)
{
    for (size_t i = 0; i < to->tensor_count; i++)
        for (size_t j = 0; j < from->tensor_count; j++)
            if (!strcmp(to->tensors[i].name, from->tensors[j].name))
                memcpy(lf_param_values(to, &to->tensors[i]), lf_param_values(from, &from->tensors[j]),
                       lf_param_size(&to->tensors[i]) * sizeof(float));
    to->initialised = true;
}

lf_model *lf_model_with_hints(const lf_model *student, const lf_model *teacher, const lf_hint *hints, size_t count,
                              uint64_t seed, lf_error *err)
{
    lf_model *model = NULL;
    size_t layer_count = student->layer_count;
    lf_layer *layers = calloc(layer_count + count, sizeof *layers);
    if (!layers) {
        lf_error_set(err, LF_ENOMEM, "hints: out of memory");
        return NULL;
    }
    memcpy(layers, student->layers, layer_count * sizeof *layers);
    for (size_t i = 0; i < count; i++) {
        lf_layer hint;
        size_t at = 0;
        while (at < layer_count && strcmp(layers[at].name, hints[i].student) != 0)
            at++;
        if (at == layer_count) {
            lf_error_set(err, LF_EARG, "hint %zu: the student has no layer %s", i + 1, hints[i].student);
            goto done;
        }
        if (!make_hint(teacher, &hints[i], i + 1, &hint, err))
            goto done;
        insert(layers, &layer_count, at, &hint);
    }
    model = lf_model_create(layers, layer_count, err);
    if (model) {
        lf_model_init(model, seed);
        lf_model_copy_shared(model, student);
    }
done:
    free(layers);
    return model;
}
