#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding/binding.h"
#include "train/checkpoint.h"

typedef struct model_handle {
    lf_handle head;
    lf_model *model; // NULL: closed
} model_handle;

lf_model *lf_check_model(lua_State *L, int index)
{
    model_handle *handle = luaL_checkudata(L, index, LF_MODEL_TYPE);
    if (!handle->model)
        luaL_error(L, "the model is closed");
    return handle->model;
}

lf_model *lf_field_model(lua_State *L, int index)
{
    lua_getfield(L, index, "model");
    model_handle *handle = luaL_testudata(L, -1, LF_MODEL_TYPE);
    if (!handle)
        luaL_error(L, "model: expected a model, got %s", luaL_typename(L, -1));
    lf_model *model = lf_check_model(L, lua_gettop(L));
    lua_pop(L, 1);
    return model;
}

static model_handle *push_handle(lua_State *L)
{
    model_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    *handle = (model_handle){ 0 };
    luaL_setmetatable(L, LF_MODEL_TYPE);
    return handle;
}

// The layer table on top of the stack.
static lf_layer read_layer(lua_State *L, lua_Integer number)
{
    int table = lua_gettop(L);
    if (!lua_istable(L, table))
        luaL_error(L, "layer %I: expected a layer, got %s", (LUAI_UACINT)number, luaL_typename(L, table));
    const char *kind = lf_field_string(L, table, "kind", ""), *name = lf_field_string(L, table, "name", "");
    const char *init = lf_field_string(L, table, "init", lf_init_name(LF_INIT_UNIFORM));
    lf_layer layer = { .kind = LF_LAYER_LINEAR };
    if (strlen(name) >= sizeof layer.name)
        luaL_error(L, "layer %I: the name \"%s\" is too long; at most %d characters", (LUAI_UACINT)number, name,
                   LF_LAYER_NAME_MAX);
    strcpy(layer.name, name);
    if (!lf_init_find(init, &layer.init))
        luaL_error(L, "layer %I: unknown init \"%s\"", (LUAI_UACINT)number, init);
    layer.inputs = (uint32_t)lf_field_integer(L, table, "inputs", 0, 0, INT32_MAX);
    layer.outputs = (uint32_t)lf_field_integer(L, table, "outputs", layer.inputs, 0, INT32_MAX);
    layer.span = (uint32_t)lf_field_integer(L, table, "span", 0, 0, INT32_MAX);
    layer.init_scale = (float)lf_field_number(L, table, "init_scale", 0);
    layer.rate = (float)lf_field_number(L, table, "rate", 0);
    layer.eps = (float)lf_field_number(L, table, "eps", 0);
    layer.momentum = (float)lf_field_number(L, table, "momentum", 0);
    static const lf_layer_kind kinds[] = { LF_LAYER_LINEAR, LF_LAYER_DROPOUT, LF_LAYER_BATCH_NORM, LF_LAYER_LAYER_NORM,
                                           LF_LAYER_RESIDUAL };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        layer.kind = kinds[i];
        if (!strcmp(kind, lf_layer_kind_name(&layer)))
            return layer;
    }
    layer.kind = LF_LAYER_ACTIVATION;
    layer.inputs = layer.outputs = 0;
    if (!lf_activation_find(kind, &layer.activation))
        luaL_error(L, "layer %I: unknown kind \"%s\"", (LUAI_UACINT)number, kind);
    double alpha = (double)lf_activation_default_alpha(layer.activation);
    layer.alpha = (float)lf_field_number(L, table, "alpha", alpha);
    return layer;
}

// Pushes a model of the array of layer tables at `index`.
static model_handle *push_model(lua_State *L, int index)
{
    luaL_checktype(L, index, LUA_TTABLE);
    lua_Integer count = luaL_len(L, index);
    lf_layer *layers = lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *layers, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_geti(L, index, i);
        layers[i - 1] = read_layer(L, i);
        lua_pop(L, 1);
    }
    model_handle *handle = push_handle(L);
    lf_error err;
    handle->model = lf_model_create(layers, (size_t)count, &err);
    if (!handle->model)
        lf_raise(L, &err);
    lua_remove(L, -2);
    return handle;
}

static int model_new(lua_State *L)
{
    push_model(L, 1);
    return 1;
}

typedef struct file_handle {
    lf_model_file *file;
} file_handle;

static int file_close(lua_State *L)
{
    file_handle *handle = lua_touserdata(L, 1);
    lf_model_file_destroy(handle->file);
    handle->file = NULL;
    return 0;
}

// core.load(path, decode): decode turns the definition's text into layer tables.
static int model_load(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    file_handle *file = lua_newuserdatauv(L, sizeof *file, 0); // decode may raise: the file is freed by its collection
    file->file = NULL;
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, file_close);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);

    lf_error err;
    file->file = lf_model_file_read(path, &err);
    if (!file->file)
        return lf_raise(L, &err);
    lua_pushvalue(L, 2);
    lua_pushstring(L, file->file->definition);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
        return luaL_error(L, "%s: its model definition cannot be read: %s", path, luaL_tolstring(L, -1, NULL));
    model_handle *handle = push_model(L, lua_gettop(L));
    bool ok = lf_model_take_weights(handle->model, file->file, path, &err);
    lf_model_file_destroy(file->file);
    file->file = NULL;
    return ok ? 1 : lf_raise(L, &err);
}

static int model_close(lua_State *L)
{
    model_handle *handle = luaL_checkudata(L, 1, LF_MODEL_TYPE);
    lf_check_unused(L, &handle->head, "model");
    lf_model_destroy(handle->model);
    handle->model = NULL;
    return 0;
}

static int model_definition(lua_State *L)
{
    char *text = lf_model_definition(lf_check_model(L, 1));
    if (!text)
        return luaL_error(L, "model: out of memory");
    lua_pushstring(L, text);
    free(text);
    return 1;
}

// By kind: an alpha of zero is one too.
static bool has_alpha(const lf_layer *layer)
{
    return layer->kind == LF_LAYER_ACTIVATION && lf_activation_default_alpha(layer->activation) != 0;
}

static int model_layers(lua_State *L)
{
    const lf_model *model = lf_check_model(L, 1);
    lua_createtable(L, (int)model->layer_count, 0);
    for (size_t i = 0; i < model->layer_count; i++) {
        const lf_layer *layer = &model->layers[i];
        lua_createtable(L, 0, 5);
        lf_set_string(L, "kind", lf_layer_kind_name(layer));
        lf_set_string(L, "name", layer->name);
        lf_set_integer(L, "inputs", layer->inputs);
        lf_set_integer(L, "outputs", layer->outputs);
        if (layer->kind == LF_LAYER_LINEAR)
            lf_set_string(L, "init", lf_init_name(layer->init));
        if (has_alpha(layer))
            lf_set_number(L, "alpha", (double)layer->alpha);
        if (layer->kind == LF_LAYER_DROPOUT)
            lf_set_number(L, "rate", (double)layer->rate);
        if (layer->kind == LF_LAYER_RESIDUAL)
            lf_set_integer(L, "span", layer->span);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int model_init(lua_State *L)
{
    lf_model *model = lf_check_model(L, 1);
    lf_check_unused(L, lua_touserdata(L, 1), "model");
    lf_model_init(model, (uint64_t)luaL_checkinteger(L, 2));
    return 0;
}

static int model_initialised(lua_State *L)
{
    lua_pushboolean(L, lf_check_model(L, 1)->initialised);
    return 1;
}

static int model_digest(lua_State *L)
{
    lf_error err;
    char hex[65];
    if (!lf_model_digest(lf_check_model(L, 1), hex, &err))
        return lf_raise(L, &err);
    lua_pushstring(L, hex);
    return 1;
}

// model:run() → UUID of the run that trained it, or nil.
static int model_run(lua_State *L)
{
    const lf_model *model = lf_check_model(L, 1);
    lua_pushstring(L, model->run[0] ? model->run : NULL);
    return 1;
}

static int model_save(lua_State *L)
{
    const lf_model *model = lf_check_model(L, 1);
    const char *path = luaL_checkstring(L, 2);
    lf_error err;
    return lf_model_save(model, path, &err) ? 0 : lf_raise(L, &err);
}

static int model_param_count(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)lf_check_model(L, 1)->param_count);
    return 1;
}

static int model_tensors(lua_State *L)
{
    const lf_model *model = lf_check_model(L, 1);
    lua_createtable(L, (int)model->tensor_count, 0);
    for (size_t i = 0; i < model->tensor_count; i++) {
        lua_createtable(L, 0, 3);
        lf_set_string(L, "name", model->tensors[i].name);
        lf_set_integer(L, "rows", model->tensors[i].rows);
        lf_set_integer(L, "cols", model->tensors[i].cols);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static const lf_param *check_tensor(lua_State *L, const lf_model *model)
{
    const char *name = luaL_checkstring(L, 2);
    for (size_t i = 0; i < model->tensor_count; i++)
        if (!strcmp(model->tensors[i].name, name))
            return &model->tensors[i];
    luaL_error(L, "the model has no tensor \"%s\"", name);
    return NULL;
}

static int model_weights(lua_State *L)
{
    const lf_model *model = lf_check_model(L, 1);
    const lf_param *tensor = check_tensor(L, model);
    size_t size = lf_param_size(tensor);
    lua_createtable(L, (int)size, 0);
    for (size_t i = 0; i < size; i++) {
        lua_pushnumber(L, (lua_Number)lf_param_values(model, tensor)[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int model_set_weights(lua_State *L)
{
    lf_model *model = lf_check_model(L, 1);
    lf_check_unused(L, lua_touserdata(L, 1), "model");
    const lf_param *tensor = check_tensor(L, model);
    luaL_checktype(L, 3, LUA_TTABLE);
    size_t size = lf_param_size(tensor), given = (size_t)lua_rawlen(L, 3);
    if (given != size)
        return luaL_error(L, "%s has %d numbers, but %d were given", tensor->name, (int)size, (int)given);
    for (size_t i = 0; i < size; i++) { // all of them, before the first is set
        if (lua_rawgeti(L, 3, (lua_Integer)i + 1) != LUA_TNUMBER)
            return luaL_error(L, "%s: number %d is a %s", tensor->name, (int)i + 1, luaL_typename(L, -1));
        lua_pop(L, 1);
    }
    for (size_t i = 0; i < size; i++) {
        lua_rawgeti(L, 3, (lua_Integer)i + 1);
        lf_param_values(model, tensor)[i] = (float)lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    model->run[0] = 0; // no longer what a run made of it
    model->initialised = true;
    return 0;
}

static void add_layers(lua_State *L, luaL_Buffer *buffer, const lf_model *model, size_t first, size_t end)
{
    for (size_t i = first; i < end; i++) {
        const lf_layer *layer = &model->layers[i];
        const char *kind = lf_layer_kind_name(layer);
        double option = (double)(layer->kind == LF_LAYER_DROPOUT ? layer->rate : layer->alpha);
        if (i > first)
            luaL_addstring(buffer, ", ");
        if (layer->kind == LF_LAYER_RESIDUAL) {
            luaL_addstring(buffer, "residual { ");
            add_layers(L, buffer, model, i + 1, i + 1 + layer->span);
            luaL_addstring(buffer, " }");
            i += layer->span;
            continue;
        }
        if (layer->kind == LF_LAYER_LINEAR)
            lua_pushfstring(L, "linear(%d -> %d)", (int)layer->inputs, (int)layer->outputs);
        else if (layer->kind == LF_LAYER_BATCH_NORM || layer->kind == LF_LAYER_LAYER_NORM)
            lua_pushfstring(L, "%s(%d)", kind, (int)layer->outputs);
        else if (layer->kind == LF_LAYER_DROPOUT || has_alpha(layer)) {
            char number[32]; // lua_pushfstring would show every digit of the float
            snprintf(number, sizeof number, "%.7g", option);
            lua_pushfstring(L, "%s(%s)", kind, number);
        } else
            lua_pushfstring(L, "%s()", kind);
        luaL_addvalue(buffer);
    }
}

// Reads like the definition: sequential { linear(784 -> 128), relu(), linear(128 -> 10) }
static int model_tostring(lua_State *L)
{
    const model_handle *handle = luaL_checkudata(L, 1, LF_MODEL_TYPE);
    if (!handle->model) {
        lua_pushliteral(L, "model (closed)");
        return 1;
    }
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    luaL_addstring(&buffer, "sequential { ");
    add_layers(L, &buffer, handle->model, 0, handle->model->layer_count);
    luaL_addstring(&buffer, " }");
    luaL_pushresult(&buffer);
    return 1;
}

void lf_open_model(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "definition", model_definition },
        { "layers", model_layers },
        { "init", model_init },
        { "initialised", model_initialised },
        { "digest", model_digest },
        { "run", model_run },
        { "save", model_save },
        { "param_count", model_param_count },
        { "tensors", model_tensors },
        { "weights", model_weights },
        { "set_weights", model_set_weights },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__tostring", model_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "model", model_new }, { "load", model_load }, { NULL, NULL } };
    lf_new_type(L, LF_MODEL_TYPE, methods, meta, model_close);
    luaL_setfuncs(L, functions, 0);
}
