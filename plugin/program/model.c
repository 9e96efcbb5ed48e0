#include "program/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "core/random.h"

const char *lf_layer_kind_name(const lf_layer *layer)
{
    switch (layer->kind) {
    case LF_LAYER_LINEAR:
        return "linear";
    case LF_LAYER_DROPOUT:
        return "dropout";
    case LF_LAYER_BATCH_NORM:
        return "batch_norm";
    case LF_LAYER_LAYER_NORM:
        return "layer_norm";
    case LF_LAYER_RESIDUAL:
        return "residual";
    case LF_LAYER_HINT:
        return "hint";
    default:
        return lf_activation_name(layer->activation);
    }
}

// linear_1, relu_1, linear_2: the kind and its ordinal.
static void name_layer(lf_layer *layers, size_t index)
{
    unsigned ordinal = 1;
    for (size_t i = 0; i < index; i++)
        ordinal += !strcmp(lf_layer_kind_name(&layers[i]), lf_layer_kind_name(&layers[index]));
    snprintf(layers[index].name, LF_NAME_MAX, "%s_%u", lf_layer_kind_name(&layers[index]), ordinal);
}

static bool check_name(const lf_model *model, size_t index, lf_error *err)
{
    const lf_layer *layer = &model->layers[index];
    for (size_t j = 0; j < index; j++)
        if (!strcmp(model->layers[j].name, layer->name)) {
            lf_error_set(err, LF_EARG, "layers %zu and %zu have the same name, %s", j + 1, index + 1, layer->name);
            return false;
        }
    if (strlen(layer->name) > LF_LAYER_NAME_MAX) {
        lf_error_set(err, LF_EARG, "layer %zu: the name \"%s\" is %zu characters long; at most %d fit", index + 1,
                     layer->name, strlen(layer->name), LF_LAYER_NAME_MAX);
        return false;
    }
    static const char *const taken[] = { ".", "..", "definition" };
    bool usable = !strpbrk(layer->name, "/@");
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        usable = usable && strcmp(layer->name, taken[i]) != 0;
    if (!usable) {
        lf_error_set(err, LF_EARG, "layer %zu: the name \"%s\" cannot be a name in a file", index + 1, layer->name);
        return false;
    }
    return true;
}

static bool has_own_width(const lf_layer *layer)
{
    return layer->kind == LF_LAYER_LINEAR || layer->kind == LF_LAYER_BATCH_NORM || layer->kind == LF_LAYER_LAYER_NORM;
}

static bool check_options(const lf_layer *layer, size_t index, size_t count, lf_error *err)
{
    if (layer->kind == LF_LAYER_DROPOUT && !(layer->rate >= 0 && layer->rate < 1))
        lf_error_set(err, LF_EARG, "layer %zu (%s): the rate must be at least 0 and below 1, not %g", index + 1,
                     layer->name, (double)layer->rate);
    else if (layer->kind == LF_LAYER_RESIDUAL && (!layer->span || layer->span >= count - index))
        lf_error_set(err, LF_EARG, "layer %zu (%s): needs at least one layer inside", index + 1, layer->name);
    else if (layer->init == LF_INIT_NORMAL && !(layer->init_scale >= 0))
        lf_error_set(err, LF_EARG, "layer %zu (%s): init_scale must be 0 or more, not %g", index + 1, layer->name,
                     (double)layer->init_scale);
    else if (has_own_width(layer) && (!layer->inputs || !layer->outputs))
        lf_error_set(err, LF_EARG, "layer %zu (%s): needs at least 1 input and 1 output, not %u and %u", index + 1,
                     layer->name, layer->inputs, layer->outputs);
    else
        return true;
    return false;
}

// Widths of layers first … end - 1, given `width` in front of them (0: not known yet, as in front of the first layer
// that has one of its own); afterwards, behind them. `giver` is the layer that gave it.
static bool find_widths(lf_model *model, size_t first, size_t end, uint32_t *width, size_t *giver, lf_error *err)
{
    for (size_t i = first; i < end; i++) {
        lf_layer *layer = &model->layers[i];
        if (!layer->name[0])
            name_layer(model->layers, i);
        if (layer->kind == LF_LAYER_BATCH_NORM && layer->momentum == 0)
            layer->momentum = .1f;
        if (layer->eps == 0)
            layer->eps = 1e-5f;
        if (!check_name(model, i, err) || !check_options(layer, i, end, err))
            return false;
        if (has_own_width(layer)) {
            if (*width && layer->inputs != *width) {
                lf_error_set(err, LF_EARG, "layer %zu (%s): expects %u inputs, but layer %zu (%s) gives %u", i + 1,
                             layer->name, layer->inputs, *giver + 1, model->layers[*giver].name, *width);
                return false;
            }
            if (!model->inputs)
                model->inputs = layer->inputs;
            *width = layer->outputs;
            *giver = i;
            continue;
        }
        layer->inputs = *width;
        if (layer->kind == LF_LAYER_RESIDUAL) {
            if (!find_widths(model, i + 1, i + 1 + layer->span, width, giver, err))
                return false;
            i += layer->span;
        }
        layer->outputs = *width;
    }
    return true;
}

static bool check_layers(lf_model *model, lf_error *err)
{
    uint32_t width = 0;
    size_t giver = 0;
    bool linear = false;
    if (!find_widths(model, 0, model->layer_count, &width, &giver, err))
        return false;
    for (size_t i = 0; i < model->layer_count; i++) {
        lf_layer *layer = &model->layers[i];
        linear |= layer->kind == LF_LAYER_LINEAR;
        layer->inputs = layer->inputs ? layer->inputs : model->inputs; // in front of the first width
        layer->outputs = layer->outputs ? layer->outputs : model->inputs;
    }
    model->outputs = width;
    if (!linear)
        lf_error_set(err, LF_EARG, "a model needs at least one linear layer");
    return linear;
}

// Counts a tensor, or adds it when there is room for the list.
static void add_tensor(lf_model *model, size_t layer, const char *part, uint32_t rows, uint32_t cols, bool state,
                       float start)
{
    lf_param *tensor = model->tensors ? &model->tensors[model->tensor_count] : NULL;
    model->tensor_count++;
    if (!tensor)
        return;
    *tensor = (lf_param){ .layer = (uint32_t)layer, .rows = rows, .cols = cols, .state = state, .start = start };
    snprintf(tensor->name, LF_NAME_MAX, "%.*s/%s", LF_LAYER_NAME_MAX, model->layers[layer].name, part);
}

static void add_tensors(lf_model *model)
{
    model->tensor_count = 0;
    for (size_t i = 0; i < model->layer_count; i++) {
        const lf_layer *layer = &model->layers[i];
        bool batch_norm = layer->kind == LF_LAYER_BATCH_NORM, projects = layer->inputs != layer->outputs;
        if (layer->kind == LF_LAYER_LINEAR || (layer->kind == LF_LAYER_RESIDUAL && projects)) {
            add_tensor(model, i, "kernel", layer->inputs, layer->outputs, false, 0);
            add_tensor(model, i, "bias", 0, layer->outputs, false, 0);
        } else if (layer->kind == LF_LAYER_HINT) {
            add_tensor(model, i, "kernel", layer->inputs, layer->projected, false, 0);
            add_tensor(model, i, "bias", 0, layer->projected, false, 0);
        } else if (batch_norm || layer->kind == LF_LAYER_LAYER_NORM) {
            add_tensor(model, i, "gamma", 0, layer->outputs, false, 1);
            add_tensor(model, i, "beta", 0, layer->outputs, false, 0);
        }
        if (batch_norm) {
            add_tensor(model, i, "mean", 0, layer->outputs, true, 0);
            add_tensor(model, i, "variance", 0, layer->outputs, true, 1);
        }
    }
}

// Kernels first, then the other parameters, so that what decays is one range; running statistics in a block of their
// own.
static void place_tensors(lf_model *model)
{
    for (int kernels = 1; kernels >= 0; kernels--) {
        for (size_t i = 0; i < model->tensor_count; i++) {
            lf_param *tensor = &model->tensors[i];
            size_t *end = tensor->state ? &model->state_count : &model->block_count, size = lf_param_size(tensor);
            if ((tensor->rows != 0) != kernels)
                continue;
            tensor->offset = *end;
            *end += (size + LF_PARAM_ALIGN - 1) / LF_PARAM_ALIGN * LF_PARAM_ALIGN;
            model->param_count += tensor->state ? 0 : size;
        }
        if (kernels)
            model->decay_count = model->block_count;
    }
}

lf_model *lf_model_create(const lf_layer *layers, size_t count, lf_error *err)
{
    lf_model *model = calloc(1, sizeof *model);
    if (!model)
        goto no_memory;
    model->layers = calloc(count ? count : 1, sizeof *model->layers);
    if (!model->layers)
        goto no_memory;
    if (count)
        memcpy(model->layers, layers, count * sizeof *layers);
    model->layer_count = count;
    if (!check_layers(model, err))
        goto error;

    add_tensors(model);
    model->tensors = calloc(model->tensor_count, sizeof *model->tensors);
    if (!model->tensors)
        goto no_memory;
    add_tensors(model);
    place_tensors(model);
    if (model->block_count > UINT32_MAX / 2) { // element indices are 32 bits wide on devices
        lf_error_set(err, LF_EUNSUPPORTED, "the model has %zu parameters; at most %u are supported", model->param_count,
                     UINT32_MAX / 2);
        goto error;
    }
    model->params = calloc(model->block_count, sizeof *model->params);
    model->state = calloc(model->state_count + 1, sizeof *model->state);
    if (!model->params || !model->state)
        goto no_memory;
    return model;
no_memory:
    lf_error_set(err, LF_ENOMEM, "model of %zu layers and %zu parameters: out of memory", count,
                 model ? model->param_count : 0);
error:
    lf_model_destroy(model);
    return NULL;
}

void lf_model_destroy(lf_model *model)
{
    if (!model)
        return;
    free(model->params);
    free(model->state);
    free(model->tensors);
    free(model->layers);
    free(model);
}

size_t lf_param_size(const lf_param *tensor)
{
    return (size_t)(tensor->rows ? tensor->rows : 1) * tensor->cols;
}

float *lf_param_values(const lf_model *model, const lf_param *tensor)
{
    return (tensor->state ? model->state : model->params) + tensor->offset;
}

// Variance of a kernel's elements. He, Zhang, Ren, Sun 2015; Glorot, Bengio 2010; LeCun, Bottou, Orr, Müller 1998.
static double init_variance(lf_init init, double inputs, double outputs, float scale)
{
    switch (init) {
    case LF_INIT_HE_NORMAL:
    case LF_INIT_HE_UNIFORM:
        return 2 / inputs;
    case LF_INIT_GLOROT_NORMAL:
    case LF_INIT_GLOROT_UNIFORM:
        return 2 / (inputs + outputs);
    case LF_INIT_LECUN_NORMAL:
    case LF_INIT_LECUN_UNIFORM:
        return 1 / inputs;
    case LF_INIT_NORMAL:
        return (double)scale * (double)scale;
    default:
        return 0;
    }
}

static bool init_is_normal(lf_init init)
{
    return init == LF_INIT_NORMAL || init == LF_INIT_HE_NORMAL || init == LF_INIT_GLOROT_NORMAL ||
           init == LF_INIT_LECUN_NORMAL;
}

static void init_tensor(const lf_model *model, uint32_t index, uint64_t seed)
{
    const lf_param *tensor = &model->tensors[index];
    const lf_layer *layer = &model->layers[tensor->layer];
    float *values = lf_param_values(model, tensor);
    size_t size = lf_param_size(tensor);
    bool linear = layer->kind == LF_LAYER_LINEAR || layer->kind == LF_LAYER_RESIDUAL || layer->kind == LF_LAYER_HINT;
    bool plain = linear && layer->init == LF_INIT_UNIFORM;
    double variance = init_variance(layer->init, layer->inputs, layer->outputs, layer->init_scale);
    float bound = (float)(plain ? 1 / sqrt(layer->inputs) : sqrt(3 * variance)), deviation = (float)sqrt(variance);
    for (size_t i = 0; i < size; i++)
        if (!linear || (!tensor->rows && !plain))
            values[i] = tensor->start;
        else if (layer->init == LF_INIT_CONSTANT)
            values[i] = layer->init_scale;
        else if (init_is_normal(layer->init))
            values[i] = deviation * lf_normal(seed, LF_STREAM_INIT, index, i);
        else
            values[i] = bound * (2 * lf_uniform(seed, LF_STREAM_INIT, index, i) - 1);
}

void lf_model_init(lf_model *model, uint64_t seed)
{
    for (uint32_t i = 0; i < model->tensor_count; i++)
        init_tensor(model, i, seed);
    model->run[0] = 0;
    model->initialised = true;
}

// A JSON string. check_name lets quotes, backslashes and control characters through: they are names in a file.
static void write_json_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if (*c < 0x20)
            fprintf(out, "\\u%04x", *c);
        else
            fputc(*c, out);
    fputc('"', out);
}

static void write_number(FILE *out, const char *key, float value)
{
    fprintf(out, ",\"%s\":%.9g", key, (double)value);
}

static void write_layers(FILE *out, const lf_model *model, size_t first, size_t end)
{
    bool some = false;
    fputs("\"layers\":[", out);
    for (size_t i = first; i < end; i++) {
        const lf_layer *layer = &model->layers[i];
        if (layer->kind == LF_LAYER_HINT)
            continue;
        fprintf(out, "%s{\"kind\":\"%s\",\"name\":", some ? "," : "", lf_layer_kind_name(layer));
        some = true;
        write_json_text(out, layer->name);
        if (has_own_width(layer))
            fprintf(out, ",\"inputs\":%u,\"outputs\":%u", layer->inputs, layer->outputs);
        if (layer->kind == LF_LAYER_LINEAR || layer->kind == LF_LAYER_RESIDUAL)
            fprintf(out, ",\"init\":\"%s\"", lf_init_name(layer->init));
        if (layer->init == LF_INIT_NORMAL || layer->init == LF_INIT_CONSTANT)
            write_number(out, "init_scale", layer->init_scale);
        if (layer->activation == LF_ACT_LEAKY_RELU || layer->activation == LF_ACT_ELU)
            write_number(out, "alpha", layer->alpha);
        if (layer->kind == LF_LAYER_DROPOUT)
            write_number(out, "rate", layer->rate);
        if (layer->kind == LF_LAYER_BATCH_NORM || layer->kind == LF_LAYER_LAYER_NORM)
            write_number(out, "eps", layer->eps);
        if (layer->kind == LF_LAYER_BATCH_NORM)
            write_number(out, "momentum", layer->momentum);
        if (layer->kind == LF_LAYER_RESIDUAL) {
            fputc(',', out);
            write_layers(out, model, i + 1, i + 1 + layer->span);
            i += layer->span;
        }
        fputc('}', out);
    }
    fputc(']', out);
}

char *lf_model_definition(const lf_model *model)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    fputc('{', out);
    write_layers(out, model, 0, model->layer_count);
    fputc('}', out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
