#include "program/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "core/random.h"

static const char *layer_kind_name(const lf_layer *layer)
{
    return layer->kind == LF_LAYER_LINEAR ? "linear" : lf_activation_name(layer->activation);
}

// linear_1, relu_1, linear_2: the kind and its ordinal.
static void name_layer(lf_layer *layers, size_t index)
{
    unsigned ordinal = 1;
    for (size_t i = 0; i < index; i++)
        ordinal += !strcmp(layer_kind_name(&layers[i]), layer_kind_name(&layers[index]));
    snprintf(layers[index].name, LF_NAME_MAX, "%s_%u", layer_kind_name(&layers[index]), ordinal);
}

static bool check_layers(lf_model *model, lf_error *err)
{
    uint32_t width = 0;
    size_t giver = 0;
    for (size_t i = 0; i < model->layer_count; i++) {
        lf_layer *layer = &model->layers[i];
        if (!layer->name[0])
            name_layer(model->layers, i);
        for (size_t j = 0; j < i; j++)
            if (!strcmp(model->layers[j].name, layer->name)) {
                lf_error_set(err, LF_EARG, "layers %zu and %zu have the same name, %s", j + 1, i + 1, layer->name);
                return false;
            }
        if (strlen(layer->name) > LF_LAYER_NAME_MAX) {
            lf_error_set(err, LF_EARG, "layer %zu: the name \"%s\" is %zu characters long; at most %d fit", i + 1,
                         layer->name, strlen(layer->name), LF_LAYER_NAME_MAX);
            return false;
        }
        if (strchr(layer->name, '/') || strchr(layer->name, '@') || !strcmp(layer->name, "definition") || !strcmp(layer->name, ".") || !strcmp(layer->name, "..")) {
            lf_error_set(err, LF_EARG, "layer %zu: the name \"%s\" cannot be a name in a file", i + 1, layer->name);
            return false;
        }
        if (layer->kind == LF_LAYER_ACTIVATION) {
            layer->inputs = layer->outputs = width;
            continue;
        }
        if (!layer->inputs || !layer->outputs) {
            lf_error_set(err, LF_EARG, "layer %zu (%s): needs at least 1 input and 1 output, not %u and %u", i + 1,
                         layer->name, layer->inputs, layer->outputs);
            return false;
        }
        if (width && layer->inputs != width) {
            lf_error_set(err, LF_EARG, "layer %zu (%s): expects %u inputs, but layer %zu (%s) gives %u", i + 1,
                         layer->name, layer->inputs, giver + 1, model->layers[giver].name, width);
            return false;
        }
        width = layer->outputs;
        giver = i;
        model->tensor_count += 2;
    }
    if (!model->tensor_count) {
        lf_error_set(err, LF_EARG, "a model needs at least one linear layer");
        return false;
    }
    model->outputs = width;
    for (size_t i = model->layer_count; i-- > 0;) // activations in front of the first linear layer
        if (model->layers[i].kind == LF_LAYER_LINEAR)
            model->inputs = model->layers[i].inputs;
    for (size_t i = 0; i < model->layer_count && model->layers[i].kind == LF_LAYER_ACTIVATION; i++)
        model->layers[i].inputs = model->layers[i].outputs = model->inputs;
    return true;
}

static void add_tensor(lf_model *model, size_t layer, const char *part, uint32_t rows, uint32_t cols)
{
    lf_param *tensor = &model->tensors[model->tensor_count++];
    *tensor = (lf_param){ .layer = (uint32_t)layer, .rows = rows, .cols = cols, .offset = model->block_count };
    snprintf(tensor->name, LF_NAME_MAX, "%.*s/%s", LF_LAYER_NAME_MAX, model->layers[layer].name, part);
    size_t size = lf_param_size(tensor);
    model->param_count += size;
    model->block_count += (size + LF_PARAM_ALIGN - 1) / LF_PARAM_ALIGN * LF_PARAM_ALIGN;
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

    model->tensors = calloc(model->tensor_count, sizeof *model->tensors);
    if (!model->tensors)
        goto no_memory;
    model->tensor_count = 0;
    for (size_t i = 0; i < count; i++)
        if (model->layers[i].kind == LF_LAYER_LINEAR) {
            add_tensor(model, i, "kernel", model->layers[i].inputs, model->layers[i].outputs);
            add_tensor(model, i, "bias", 0, model->layers[i].outputs);
        }
    if (model->block_count > UINT32_MAX / 2) { // element indices are 32 bits wide on devices
        lf_error_set(err, LF_EUNSUPPORTED, "the model has %zu parameters; at most %u are supported", model->param_count,
                     UINT32_MAX / 2);
        goto error;
    }
    model->params = calloc(model->block_count, sizeof *model->params);
    if (!model->params)
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
    free(model->tensors);
    free(model->layers);
    free(model);
}

size_t lf_param_size(const lf_param *tensor)
{
    return (size_t)(tensor->rows ? tensor->rows : 1) * tensor->cols;
}

// Variance of a kernel's elements. He, Zhang, Ren, Sun 2015; Glorot, Bengio 2010; LeCun, Bottou, Orr, Müller 1998.
static double init_variance(lf_init init, double inputs, double outputs)
{
    switch (init) {
    case LF_INIT_HE_NORMAL:
    case LF_INIT_HE_UNIFORM: return 2 / inputs;
    case LF_INIT_GLOROT_NORMAL:
    case LF_INIT_GLOROT_UNIFORM: return 2 / (inputs + outputs);
    case LF_INIT_LECUN_NORMAL:
    case LF_INIT_LECUN_UNIFORM: return 1 / inputs;
    default: return 0;
    }
}

static bool init_is_normal(lf_init init)
{
    return init == LF_INIT_HE_NORMAL || init == LF_INIT_GLOROT_NORMAL || init == LF_INIT_LECUN_NORMAL;
}

void lf_model_init(lf_model *model, uint64_t seed)
{
    for (uint32_t t = 0; t < model->tensor_count; t++) {
        const lf_param *tensor = &model->tensors[t];
        const lf_layer *layer = &model->layers[tensor->layer];
        float *values = model->params + tensor->offset;
        size_t size = lf_param_size(tensor);
        bool is_bias = !tensor->rows, plain = layer->init == LF_INIT_UNIFORM;
        double variance = init_variance(layer->init, layer->inputs, layer->outputs);
        float bound = (float)(plain ? 1 / sqrt(layer->inputs) : sqrt(3 * variance)), deviation = (float)sqrt(variance);
        for (size_t i = 0; i < size; i++)
            if (is_bias && !plain)
                values[i] = 0;
            else if (init_is_normal(layer->init))
                values[i] = deviation * lf_normal(seed, LF_STREAM_INIT, t, i);
            else
                values[i] = bound * (2 * lf_uniform(seed, LF_STREAM_INIT, t, i) - 1);
    }
    model->initialised = true;
}

// A JSON string; names are checked by nobody else.
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

char *lf_model_definition(const lf_model *model)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    fputs("{\"layers\":[", out);
    for (size_t i = 0; i < model->layer_count; i++) {
        const lf_layer *layer = &model->layers[i];
        fprintf(out, "%s{\"kind\":\"%s\",\"name\":", i ? "," : "", layer_kind_name(layer));
        write_json_text(out, layer->name);
        if (layer->kind == LF_LAYER_LINEAR)
            fprintf(out, ",\"inputs\":%u,\"outputs\":%u,\"init\":\"%s\"", layer->inputs, layer->outputs,
                    lf_init_name(layer->init));
        else if (layer->activation == LF_ACT_LEAKY_RELU || layer->activation == LF_ACT_ELU)
            fprintf(out, ",\"alpha\":%.9g", (double)layer->alpha);
        fputc('}', out);
    }
    fputs("]}", out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
