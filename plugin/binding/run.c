#include <string.h>

#include "binding/binding.h"

typedef struct run_handle {
    lf_handle head;
    lf_run *run; // NULL: closed
} run_handle;

lf_run *lf_check_run(lua_State *L, int index)
{
    run_handle *handle = luaL_checkudata(L, index, LF_RUN_TYPE);
    if (!handle->run)
        luaL_error(L, "the run is closed");
    return handle->run;
}

static int run_new(lua_State *L)
{
    run_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    *handle = (run_handle){ 0 };
    luaL_setmetatable(L, LF_RUN_TYPE);
    lf_error err;
    handle->run = lf_run_create(&err);
    return handle->run ? 1 : lf_raise(L, &err);
}

static int run_close(lua_State *L)
{
    run_handle *handle = luaL_checkudata(L, 1, LF_RUN_TYPE);
    lf_check_unused(L, &handle->head, "run");
    lf_run_destroy(handle->run);
    handle->run = NULL;
    return 0;
}

// run:set(path, value): by the value's type.
static int run_set(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *path = luaL_checkstring(L, 2);
    lf_error err;
    bool ok;
    if (lua_isinteger(L, 3))
        ok = lf_run_set_i64(run, path, lua_tointeger(L, 3), &err);
    else if (lua_type(L, 3) == LUA_TNUMBER)
        ok = lf_run_set_f64(run, path, lua_tonumber(L, 3), &err);
    else if (lua_isboolean(L, 3))
        ok = lf_run_set_i64(run, path, lua_toboolean(L, 3), &err);
    else
        ok = lf_run_set_text(run, path, luaL_checkstring(L, 3), &err);
    return ok ? 0 : lf_raise(L, &err);
}

// run:set_array(path, shape, values, "f64" or "i64"): values are flat, row-major.
static int run_set_array(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *path = luaL_checkstring(L, 2), *type = luaL_checkstring(L, 5);
    luaL_checktype(L, 3, LUA_TTABLE);
    luaL_checktype(L, 4, LUA_TTABLE);
    enum { RANK_MAX = 4 };
    uint64_t shape[RANK_MAX];
    lua_Integer rank = luaL_len(L, 3), count = luaL_len(L, 4), all = 1;
    luaL_argcheck(L, rank >= 1 && rank <= RANK_MAX, 3, "expected 1 to 4 lengths");
    for (lua_Integer i = 0; i < rank; i++) {
        lua_geti(L, 3, i + 1);
        shape[i] = (uint64_t)luaL_checkinteger(L, -1);
        all *= (lua_Integer)shape[i];
        lua_pop(L, 1);
    }
    luaL_argcheck(L, all == count, 4, "expected as many values as the shape has places");
    bool whole = !strcmp(type, "i64");
    int64_t *integers = lua_newuserdatauv(L, (size_t)count * sizeof *integers + 1, 0);
    double *numbers = lua_newuserdatauv(L, (size_t)count * sizeof *numbers + 1, 0);
    for (lua_Integer i = 0; i < count; i++) {
        lua_geti(L, 4, i + 1);
        if (whole)
            integers[i] = luaL_checkinteger(L, -1);
        else
            numbers[i] = luaL_checknumber(L, -1);
        lua_pop(L, 1);
    }
    lf_error err;
    bool ok = whole ? lf_run_set_i64s(run, path, (size_t)rank, shape, integers, &err)
                    : lf_run_set_f64s(run, path, (size_t)rank, shape, numbers, &err);
    return ok ? 0 : lf_raise(L, &err);
}

static int run_group(lua_State *L)
{
    lf_error err;
    return lf_run_set_group(lf_check_run(L, 1), luaL_checkstring(L, 2), luaL_checkstring(L, 3), &err)
               ? 0
               : lf_raise(L, &err);
}

static int run_log(lua_State *L)
{
    lf_error err;
    return lf_run_log(lf_check_run(L, 1), luaL_checkstring(L, 2), luaL_checkstring(L, 3), &err) ? 0 : lf_raise(L, &err);
}

// run:model(step, name, path): the content of a model file.
static int run_model(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *step = luaL_checkstring(L, 2), *name = luaL_checkstring(L, 3), *path = luaL_checkstring(L, 4);
    lf_error err;
    lf_model_file *file = lf_model_file_read(path, &err);
    if (!file)
        return lf_raise(L, &err);
    bool ok = lf_run_model(run, step, name, file, &err);
    lf_model_file_destroy(file);
    return ok ? 0 : lf_raise(L, &err);
}

// run:series(step, name, steps, times, values)
static int run_series(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *step = luaL_checkstring(L, 2), *name = luaL_checkstring(L, 3);
    for (int i = 4; i <= 6; i++)
        luaL_checktype(L, i, LUA_TTABLE);
    size_t count = (size_t)luaL_len(L, 6);
    int64_t *steps = lua_newuserdatauv(L, count * sizeof *steps + 1, 0);
    double *times = lua_newuserdatauv(L, count * sizeof *times + 1, 0);
    double *values = lua_newuserdatauv(L, count * sizeof *values + 1, 0);
    for (size_t i = 0; i < count; i++) {
        lua_geti(L, 4, (lua_Integer)i + 1);
        lua_geti(L, 5, (lua_Integer)i + 1);
        lua_geti(L, 6, (lua_Integer)i + 1);
        steps[i] = luaL_checkinteger(L, -3);
        times[i] = luaL_checknumber(L, -2);
        values[i] = luaL_checknumber(L, -1);
        lua_pop(L, 3);
    }
    lf_error err;
    return lf_run_series(run, step, name, count, steps, times, values, &err) ? 0 : lf_raise(L, &err);
}

static int run_digest(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *step = luaL_checkstring(L, 2);
    lua_Integer at = luaL_checkinteger(L, 3);
    size_t size;
    const char *hex = luaL_checklstring(L, 4, &size);
    char digest[65];
    luaL_argcheck(L, size == 64, 4, "expected 64 hexadecimal digits");
    memcpy(digest, hex, sizeof digest);
    lf_error err;
    return lf_run_digest(run, step, at, digest, &err) ? 0 : lf_raise(L, &err);
}

static int run_time(lua_State *L)
{
    lua_pushnumber(L, lf_run_time(lf_check_run(L, 1)));
    return 1;
}

static int run_save(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *path = luaL_checkstring(L, 2), *status = luaL_checkstring(L, 3);
    int exit_code = (int)luaL_checkinteger(L, 4);
    lf_error err;
    return lf_run_save(run, path, status, exit_code, &err) ? 0 : lf_raise(L, &err);
}

static int run_tostring(lua_State *L)
{
    const run_handle *handle = luaL_checkudata(L, 1, LF_RUN_TYPE);
    lua_pushstring(L, handle->run ? "run" : "run (closed)");
    return 1;
}

void lf_open_run(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "set", run_set },     { "group", run_group },   { "log", run_log },
        { "model", run_model }, { "series", run_series }, { "digest", run_digest },
        { "time", run_time },   { "save", run_save },     { "set_array", run_set_array },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__tostring", run_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "run", run_new }, { NULL, NULL } };
    lf_new_type(L, LF_RUN_TYPE, methods, meta, run_close);
    luaL_setfuncs(L, functions, 0);
}
