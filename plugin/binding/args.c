#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "binding/binding.h"

int lf_raise(lua_State *L, const lf_error *err)
{
    lua_pushstring(L, err->text);
    return lua_error(L);
}

void lf_check_unused(lua_State *L, const lf_handle *handle, const char *what)
{
    if (handle->uses)
        luaL_error(L, "the %s is in use by a training: wait for its end", what);
}

// The value on top of the stack, if it is a handle.
static void use_handle(lua_State *L, int count)
{
    lf_handle *handle = NULL;
    if (luaL_testudata(L, -1, LF_PART_TYPE))
        handle = lf_part_handle(L, lua_gettop(L));
    else if (luaL_testudata(L, -1, LF_MODEL_TYPE) || luaL_testudata(L, -1, LF_RUN_TYPE))
        handle = lua_touserdata(L, -1);
    if (handle)
        handle->uses += (unsigned)count;
}

void lf_use_options(lua_State *L, int index, int count)
{
    static const char *const names[] = { "model", "data", "validation", "run" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        lua_getfield(L, index, names[i]);
        use_handle(L, count);
        lua_pop(L, 1);
    }
    if (lua_getfield(L, index, "teachers") == LUA_TTABLE)
        for (lua_Integer i = (lua_Integer)lua_rawlen(L, -1); i > 0; i--) {
            lua_rawgeti(L, -1, i);
            use_handle(L, count);
            lua_pop(L, 1);
        }
    lua_pop(L, 1);
}

static int wrong_type(lua_State *L, const char *name, const char *expected)
{
    return luaL_error(L, "%s: expected %s, got %s", name, expected, luaL_typename(L, -1));
}

bool lf_has_field(lua_State *L, int index, const char *name)
{
    bool has = lua_getfield(L, index, name) != LUA_TNIL;
    lua_pop(L, 1);
    return has;
}

lua_Integer lf_field_integer(lua_State *L, int index, const char *name, lua_Integer otherwise, lua_Integer least,
                             lua_Integer most)
{
    int is_integer = 1;
    lua_Integer value = otherwise;
    if (lua_getfield(L, index, name) != LUA_TNIL)
        value = lua_type(L, -1) == LUA_TNUMBER ? lua_tointegerx(L, -1, &is_integer) : (is_integer = 0);
    if (!is_integer || value < least || value > most) {
        if (lua_type(L, -1) != LUA_TNUMBER)
            wrong_type(L, name, "a whole number");
        luaL_error(L, "%s: expected a whole number in %I..%I, got %s", name, (LUAI_UACINT)least, (LUAI_UACINT)most,
                   lua_tostring(L, -1));
    }
    lua_pop(L, 1);
    return value;
}

double lf_field_number(lua_State *L, int index, const char *name, double otherwise)
{
    double value = otherwise;
    if (lua_getfield(L, index, name) != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TNUMBER)
            wrong_type(L, name, "a number");
        value = lua_tonumber(L, -1);
        if (!isfinite(value))
            luaL_error(L, "%s: expected a finite number, got %s", name, lua_tostring(L, -1));
    }
    lua_pop(L, 1);
    return value;
}

bool lf_field_boolean(lua_State *L, int index, const char *name, bool otherwise)
{
    bool value = otherwise;
    if (lua_getfield(L, index, name) != LUA_TNIL) {
        if (!lua_isboolean(L, -1))
            wrong_type(L, name, "true or false");
        value = lua_toboolean(L, -1);
    }
    lua_pop(L, 1);
    return value;
}

const char *lf_field_string(lua_State *L, int index, const char *name, const char *otherwise)
{
    const char *value = otherwise;
    if (lua_getfield(L, index, name) != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TSTRING)
            wrong_type(L, name, "a string");
        value = lua_tostring(L, -1);
    }
    lua_pop(L, 1);
    return value;
}

static void need(lua_State *L, int index, const char *name, const char *expected)
{
    if (lua_getfield(L, index, name) == LUA_TNIL)
        luaL_error(L, "%s: expected %s, got nothing", name, expected);
    lua_pop(L, 1);
}

lua_Integer lf_need_integer(lua_State *L, int index, const char *name, lua_Integer least, lua_Integer most)
{
    need(L, index, name, "a whole number");
    return lf_field_integer(L, index, name, least, least, most);
}

double lf_need_number(lua_State *L, int index, const char *name)
{
    need(L, index, name, "a number");
    return lf_field_number(L, index, name, 0);
}

bool lf_need_boolean(lua_State *L, int index, const char *name)
{
    need(L, index, name, "true or false");
    return lf_field_boolean(L, index, name, false);
}

const char *lf_need_string(lua_State *L, int index, const char *name)
{
    need(L, index, name, "a string");
    return lf_field_string(L, index, name, NULL);
}

void lf_set_number(lua_State *L, const char *name, double value)
{
    if (isnan(value))
        return;
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

void lf_set_integer(lua_State *L, const char *name, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, name);
}

void lf_set_string(lua_State *L, const char *name, const char *value)
{
    if (!value || !value[0])
        return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

void lf_push_device_info(lua_State *L, const lf_device_info *info)
{
    lua_createtable(L, 0, 13);
    lf_set_string(L, "id", info->id);
    lf_set_string(L, "backend", info->backend);
    lf_set_string(L, "name", info->name);
    lf_set_string(L, "uuid", info->uuid);
    lf_set_string(L, "driver_name", info->driver_name);
    lf_set_string(L, "driver_version", info->driver_version);
    lf_set_string(L, "api_version", info->api_version);
    lf_set_string(L, "kernels", info->kernels);
    lf_set_string(L, "unavailable", info->unavailable);
    lf_set_integer(L, "units", info->units);
    lf_set_integer(L, "memory", info->memory);
    lf_set_integer(L, "max_tensor", info->max_tensor);
    lua_pushboolean(L, info->hardware_gpu);
    lua_setfield(L, -2, "hardware_gpu");
}

const char **lf_push_texts(lua_State *L, int index, const char *name, size_t *count)
{
    if (!lua_istable(L, index))
        luaL_error(L, "%s: expected an array of texts, got %s", name, luaL_typename(L, index));
    *count = (size_t)luaL_len(L, index);
    const char **texts = lua_newuserdatauv(L, *count * sizeof *texts + 1, 0);
    for (size_t i = 0; i < *count; i++) {
        if (lua_geti(L, index, (lua_Integer)i + 1) != LUA_TSTRING)
            luaL_error(L, "%s[%d]: expected a text, got %s", name, (int)i + 1, luaL_typename(L, -1));
        texts[i] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    return texts;
}

void lf_new_type(lua_State *L, const char *type, const luaL_Reg *methods, const luaL_Reg *meta, lua_CFunction close)
{
    luaL_newmetatable(L, type); // sets __name
    luaL_setfuncs(L, meta, 0);
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__close");
    if (methods) {
        lua_newtable(L);
        luaL_setfuncs(L, methods, 0);
        lua_pushcfunction(L, close);
        lua_setfield(L, -2, "close");
        lua_setfield(L, -2, "__index");
    }
    lua_pop(L, 1);
}
