#include <stdlib.h>
#include <string.h>

#include "binding/binding.h"
#include "ranks/ranks.h"

typedef struct dataset_handle {
    lf_handle head;
    lf_dataset *data; // NULL: closed
} dataset_handle;

typedef struct part_handle { // its user value is the data set's handle
    lf_part_id id;
} part_handle;

static const char *const part_names[LF_PART_COUNT] = { "train", "valid", "test" };

static lf_dataset *check_dataset(lua_State *L, int index)
{
    dataset_handle *handle = luaL_checkudata(L, index, LF_DATASET_TYPE);
    if (!handle->data)
        luaL_error(L, "the data set is closed");
    return handle->data;
}

lf_handle *lf_part_handle(lua_State *L, int index)
{
    lua_getiuservalue(L, index, 1);
    dataset_handle *handle = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return &handle->head;
}

static lf_dataset *part_dataset(lua_State *L, int index)
{
    lua_getiuservalue(L, index, 1);
    lf_dataset *data = check_dataset(L, lua_gettop(L));
    lua_pop(L, 1);
    return data;
}

bool lf_field_part(lua_State *L, int index, const char *name, lf_dataset **data, lf_part_id *part)
{
    if (lua_getfield(L, index, name) == LUA_TNIL) {
        lua_pop(L, 1);
        return false;
    }
    part_handle *handle = luaL_testudata(L, -1, LF_PART_TYPE);
    if (!handle && luaL_testudata(L, -1, LF_DATASET_TYPE))
        luaL_error(L, "%s: expected a part of a data set, such as data.train, got the whole data set", name);
    if (!handle)
        luaL_error(L, "%s: expected a part of a data set, such as data.train, got %s", name, luaL_typename(L, -1));
    *data = part_dataset(L, lua_gettop(L));
    *part = handle->id;
    lua_pop(L, 1);
    return true;
}

static void read_split(lua_State *L, lf_dataset_spec *spec)
{
    if (lua_getfield(L, 1, "split") != LUA_TNIL) {
        int table = lua_gettop(L);
        if (!lua_istable(L, table))
            luaL_error(L, "split: expected a table of fractions, got %s", luaL_typename(L, table));
        for (int i = 0; i < LF_PART_COUNT; i++)
            spec->split[i] = lf_field_number(L, table, part_names[i], 0);
    }
    lua_pop(L, 1);
    spec->split_seed = (uint64_t)lf_field_integer(L, 1, "split_seed", 0, LUA_MININTEGER, LUA_MAXINTEGER);
}

static int dataset_new(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lf_dataset_spec spec = { .file = lf_field_string(L, 1, "file", NULL),
                             .x = lf_field_string(L, 1, "x", NULL),
                             .y = lf_field_string(L, 1, "y", NULL),
                             .w = lf_field_string(L, 1, "w", NULL),
                             .normalize = lf_field_string(L, 1, "normalize", NULL) };
    if (!spec.file)
        return luaL_error(L, "file: expected a path, got nothing");
    spec.later = lf_ranks_started(); // a training settles it, with the other processes
    read_split(L, &spec);
    dataset_handle *handle = lua_newuserdatauv(L, sizeof *handle, 1);
    *handle = (dataset_handle){ 0 };
    luaL_setmetatable(L, LF_DATASET_TYPE);
    lua_pushstring(L, spec.file);
    lua_setiuservalue(L, -2, 1);
    lf_error err;
    handle->data = lf_dataset_open(&spec, &err);
    return handle->data ? 1 : lf_raise(L, &err);
}

static int dataset_close(lua_State *L)
{
    dataset_handle *handle = luaL_checkudata(L, 1, LF_DATASET_TYPE);
    lf_check_unused(L, &handle->head, "data set");
    lf_dataset_close(handle->data);
    handle->data = NULL;
    return 0;
}

static int dataset_index(lua_State *L)
{
    const char *key = luaL_checkstring(L, 2);
    if (!strcmp(key, "close")) {
        lua_pushcfunction(L, dataset_close);
        return 1;
    }
    if (!strcmp(key, "file")) {
        lua_getiuservalue(L, 1, 1);
        return 1;
    }
    for (int i = 0; i < LF_PART_COUNT; i++)
        if (!strcmp(key, part_names[i])) {
            if (!lf_dataset_part(check_dataset(L, 1), (lf_part_id)i, NULL))
                return 0;
            part_handle *part = lua_newuserdatauv(L, sizeof *part, 1);
            part->id = (lf_part_id)i;
            luaL_setmetatable(L, LF_PART_TYPE);
            lua_pushvalue(L, 1);
            lua_setiuservalue(L, -2, 1);
            return 1;
        }
    return luaL_error(L, "a data set has no field \"%s\": it has train, valid, test and file", key);
}

static int dataset_tostring(lua_State *L)
{
    const dataset_handle *handle = luaL_checkudata(L, 1, LF_DATASET_TYPE);
    lua_getiuservalue(L, 1, 1);
    lua_pushfstring(L, "dataset %s%s", lua_tostring(L, -1), handle->data ? "" : " (closed)");
    return 1;
}

static double element(const void *x, lf_dtype type, size_t i)
{
    switch (type) {
    case LF_U8:
        return ((const uint8_t *)x)[i];
    case LF_I8:
        return ((const int8_t *)x)[i];
    case LF_U16:
        return ((const uint16_t *)x)[i];
    case LF_I16:
        return ((const int16_t *)x)[i];
    case LF_U32:
        return ((const uint32_t *)x)[i];
    case LF_I32:
        return ((const int32_t *)x)[i];
    case LF_F32:
        return (double)((const float *)x)[i];
    default:
        return 0;
    }
}

// part:read(first, count) → rows of scaled numbers, and their targets. Rows count from 0.
static int part_read(lua_State *L)
{
    part_handle *handle = luaL_checkudata(L, 1, LF_PART_TYPE);
    lua_Integer first = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
    lf_dataset *data = part_dataset(L, 1);
    lf_error err;
    const lf_part *part = lf_dataset_part(data, handle->id, &err);
    if (!part || !lf_dataset_settle(data, NULL, &err))
        return lf_raise(L, &err);
    if (first < 0 || count < 0 || (uint64_t)first > part->rows || (uint64_t)count > part->rows - (uint64_t)first)
        return luaL_error(L, "rows %I and %I more are outside %s, which has %I", (LUAI_UACINT)first, (LUAI_UACINT)count,
                          part->x_path, (LUAI_UACINT)part->rows);
    bool targets = part->target != LF_TARGET_NONE, classes = part->target == LF_TARGET_CLASSES;
    size_t outputs = part->outputs;
    void *x = lua_newuserdatauv(L, (size_t)count * part->features * lf_dtype_size(part->stored) + 1, 0);
    void *y = lua_newuserdatauv(L, (size_t)count * outputs * 4 + 1, 0);
    if (!lf_dataset_read_span(data, handle->id, (uint64_t)first, (size_t)count,
                              &(lf_rows_out){ x, targets ? y : NULL, NULL }, &err))
        return lf_raise(L, &err);
    lua_createtable(L, (int)count, 0);
    lua_createtable(L, (int)count, 0);
    for (lua_Integer i = 0; i < count; i++) {
        lua_createtable(L, (int)part->features, 0);
        for (uint32_t j = 0; j < part->features; j++) {
            double value = element(x, part->stored, (size_t)i * part->features + j);
            lua_pushnumber(L, value * (double)part->scale[j] + (double)part->offset[j]);
            lua_rawseti(L, -2, (lua_Integer)j + 1);
        }
        lua_rawseti(L, -3, i + 1);
        if (classes) {
            lua_pushinteger(L, ((const uint32_t *)y)[i]);
        } else {
            lua_createtable(L, (int)outputs, 0);
            for (size_t j = 0; targets && j < outputs; j++) {
                lua_pushnumber(L, (double)((const float *)y)[(size_t)i * outputs + j]);
                lua_rawseti(L, -2, (lua_Integer)j + 1);
            }
        }
        lua_rawseti(L, -2, i + 1);
    }
    return 2;
}

static int part_index(lua_State *L)
{
    part_handle *handle = luaL_checkudata(L, 1, LF_PART_TYPE);
    const char *key = luaL_checkstring(L, 2);
    static const char *const targets[] = { "none", "classes", "values" };
    if (!strcmp(key, "read")) {
        lua_pushcfunction(L, part_read);
        return 1;
    }
    lf_error err;
    lf_dataset *data = part_dataset(L, 1);
    const lf_part *part = lf_dataset_part(data, handle->id, &err);
    if (!part || (!strcmp(key, "classes") && !lf_dataset_settle(data, NULL, &err)))
        return lf_raise(L, &err);
    if (!strcmp(key, "name"))
        lua_pushstring(L, part->name);
    else if (!strcmp(key, "rows"))
        lua_pushinteger(L, (lua_Integer)part->rows);
    else if (!strcmp(key, "features"))
        lua_pushinteger(L, part->features);
    else if (!strcmp(key, "stored"))
        lua_pushstring(L, lf_dtype_name(part->stored));
    else if (!strcmp(key, "target"))
        lua_pushstring(L, targets[part->target]);
    else if (!strcmp(key, "outputs"))
        lua_pushinteger(L, part->outputs);
    else if (!strcmp(key, "classes"))
        lua_pushinteger(L, part->classes);
    else if (!strcmp(key, "path"))
        lua_pushstring(L, part->x_path);
    else if (!strcmp(key, "w_path"))
        lua_pushstring(L, part->w_path);
    else if (!strcmp(key, "weighted"))
        lua_pushboolean(L, part->w_path != NULL);
    else if (!strcmp(key, "y_path"))
        lua_pushstring(L, part->y_path);
    else
        return luaL_error(L, "a part has no field \"%s\"", key);
    return 1;
}

static int part_tostring(lua_State *L)
{
    part_handle *handle = luaL_checkudata(L, 1, LF_PART_TYPE);
    lf_error err;
    const lf_part *part = lf_dataset_part(part_dataset(L, 1), handle->id, &err);
    if (!part)
        return lf_raise(L, &err);
    lua_pushfstring(L, "%s: %I rows of %I features (%s)", part->x_path, (LUAI_UACINT)part->rows,
                    (LUAI_UACINT)part->features, lf_dtype_name(part->stored));
    return 1;
}

static int part_release(lua_State *L)
{
    (void)L; // the data set is kept by the part's user value
    return 0;
}

void lf_open_dataset(lua_State *L)
{
    static const luaL_Reg dataset_meta[] = { { "__index", dataset_index },
                                             { "__tostring", dataset_tostring },
                                             { NULL, NULL } };
    static const luaL_Reg part_meta[] = { { "__index", part_index }, { "__tostring", part_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "dataset", dataset_new }, { NULL, NULL } };
    lf_new_type(L, LF_DATASET_TYPE, NULL, dataset_meta, dataset_close);
    lf_new_type(L, LF_PART_TYPE, NULL, part_meta, part_release);
    luaL_setfuncs(L, functions, 0);
}
