#include <stdio.h>
#include <stdlib.h>
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

// core.journal(path, uuid, elapsed)
static int run_journal(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *uuid = luaL_checkstring(L, 2);
    double elapsed = luaL_checknumber(L, 3);
    run_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    *handle = (run_handle){ 0 };
    luaL_setmetatable(L, LF_RUN_TYPE);
    lf_error err;
    handle->run = lf_run_journal(path, uuid, elapsed, &err);
    return handle->run ? 1 : lf_raise(L, &err);
}

static int run_uuid(lua_State *L)
{
    lua_pushstring(L, lf_run_uuid(lf_check_run(L, 1)));
    return 1;
}

static int run_sync(lua_State *L)
{
    lf_error err;
    return lf_run_sync(lf_check_run(L, 1), &err) ? 0 : lf_raise(L, &err);
}

static int run_note(lua_State *L)
{
    lf_error err;
    return lf_run_note(lf_check_run(L, 1), luaL_checkstring(L, 2), &err) ? 0 : lf_raise(L, &err);
}

// run:rewind(step, name, at): a name that is nil means the digests.
static int run_rewind(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *step = luaL_checkstring(L, 2), *name = luaL_optstring(L, 3, NULL);
    lf_error err;
    return lf_run_rewind(run, step, name, luaL_checkinteger(L, 4), &err) ? 0 : lf_raise(L, &err);
}

// run:get_series(step, name) → training steps and values, or nothing.
static int run_get_series(lua_State *L)
{
    const lf_run *run = lf_check_run(L, 1);
    const int64_t *steps;
    const double *values;
    size_t count = lf_run_series_get(run, luaL_checkstring(L, 2), luaL_checkstring(L, 3), &steps, &values);
    if (!count)
        return 0;
    lua_createtable(L, (int)count, 0);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushinteger(L, steps[i]);
        lua_rawseti(L, -3, (lua_Integer)i + 1);
        lua_pushnumber(L, values[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 2;
}

// What a replay told, as a list: it must not run Lua.
typedef struct told_line {
    struct told_line *next;
    char *level, *text;
    double time;
} told_line;

typedef struct told_list {
    told_line *first, **end;
    bool failed;
} told_list;

static void keep_told(void *user, const lf_run_told *told)
{
    told_list *list = user;
    told_line *line = calloc(1, sizeof *line);
    if (line) {
        *line = (told_line){ .level = told->level ? strdup(told->level) : NULL,
                             .text = strdup(told->text),
                             .time = told->time };
        *list->end = line;
        list->end = &line->next;
    }
    list->failed |= !line || !line->text || (told->level && !line->level);
}

static int push_told(lua_State *L)
{
    const told_list *list = lua_touserdata(L, 1);
    lua_newtable(L);
    for (const told_line *line = list->first; line; line = line->next) {
        lua_createtable(L, 0, 3);
        lf_set_string(L, "level", line->level ? line->level : "");
        lf_set_string(L, "text", line->text);
        lf_set_number(L, "time", line->time);
        lua_rawseti(L, -2, luaL_len(L, -2) + 1);
    }
    return 1;
}

// run:replay(path, offset, shift, step) → the next offset, what was told ({ level, text, time }, a note without level),
// and the last time in the journal, shifted, or `shift` where it has none.
static int run_replay(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *path = luaL_checkstring(L, 2), *step = luaL_checkstring(L, 5);
    uint64_t offset = (uint64_t)luaL_checkinteger(L, 3);
    double shift = luaL_checknumber(L, 4), last = shift;
    told_list list = { .end = &list.first };
    lf_error err;
    bool ok = lf_run_replay(run, path, &offset, shift, step, keep_told, &list, &last, &err);
    lua_pushinteger(L, (lua_Integer)offset);
    lua_pushcfunction(L, push_told);
    lua_pushlightuserdata(L, &list);
    bool pushed = lua_pcall(L, 1, 1, 0) == LUA_OK;
    for (told_line *line = list.first, *next; line; line = next) {
        next = line->next;
        free(line->level);
        free(line->text);
        free(line);
    }
    if (!ok)
        return lf_raise(L, &err);
    if (!pushed)
        return lua_error(L);
    if (list.failed)
        return luaL_error(L, "%s: out of memory", path);
    lua_pushnumber(L, last);
    return 3;
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

// run:log(level, text, step): without a step it is the run's own.
static int run_log(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *level = luaL_checkstring(L, 2), *text = luaL_checkstring(L, 3), *step = luaL_optstring(L, 4, "");
    lf_error err;
    return lf_run_log(run, step, level, text, &err) ? 0 : lf_raise(L, &err);
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

// run:live(path, attributes): a table of texts for /entry.
static int run_live(lua_State *L)
{
    lf_run *run = lf_check_run(L, 1);
    const char *path = luaL_checkstring(L, 2);
    enum { PAIRS = 16 };
    const char *attributes[2 * PAIRS + 1] = { NULL };
    size_t count = 0;
    lua_settop(L, 3);
    if (!lua_isnil(L, 3)) {
        luaL_checktype(L, 3, LUA_TTABLE);
        for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
            luaL_argcheck(L, count < 2 * PAIRS, 3, "expected at most 16 attributes");
            luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING, 3,
                          "expected texts by name");
            attributes[count++] = lua_tostring(L, -2); // both are kept by the table
            attributes[count++] = lua_tostring(L, -1);
        }
    }
    lf_error err;
    return lf_run_live(run, path, attributes, &err) ? 0 : lf_raise(L, &err);
}

static int run_live_close(lua_State *L)
{
    lf_run_live_close(lf_check_run(L, 1));
    return 0;
}

// Names that a check tells, as a list: it must not run Lua.
typedef struct names {
    char names[64][256];
    size_t count;
} names;

static void keep_name(void *user, const char *name)
{
    names *list = user;
    if (list->count < sizeof list->names / sizeof *list->names)
        snprintf(list->names[list->count++], sizeof *list->names, "%s", name);
}

// core.run_check(path) → the members of /entry whose content is not what its digest says.
static int run_check(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    names *list = lua_newuserdatauv(L, sizeof *list, 0);
    list->count = 0;
    lf_error err;
    if (!lf_run_check(path, keep_name, list, &err))
        return lf_raise(L, &err);
    lua_createtable(L, (int)list->count, 0);
    for (size_t i = 0; i < list->count; i++) {
        lua_pushstring(L, list->names[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

// core.run_recover(live, path, status, exit_code)
static int run_recover(lua_State *L)
{
    const char *live = luaL_checkstring(L, 1), *path = luaL_checkstring(L, 2), *status = luaL_checkstring(L, 3);
    int exit_code = (int)luaL_checkinteger(L, 4);
    lf_error err;
    return lf_run_recover(live, path, status, exit_code, &err) ? 0 : lf_raise(L, &err);
}

// core.run_extract(path, group, out)
static int run_extract(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *group = luaL_checkstring(L, 2), *out = luaL_checkstring(L, 3);
    lf_error err;
    return lf_run_extract(path, group, out, &err) ? 0 : lf_raise(L, &err);
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
        { "set", run_set },
        { "group", run_group },
        { "log", run_log },
        { "model", run_model },
        { "series", run_series },
        { "digest", run_digest },
        { "time", run_time },
        { "save", run_save },
        { "set_array", run_set_array },
        { "uuid", run_uuid },
        { "sync", run_sync },
        { "note", run_note },
        { "rewind", run_rewind },
        { "replay", run_replay },
        { "get_series", run_get_series },
        { "live", run_live },
        { "live_close", run_live_close },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = { { "__tostring", run_tostring }, { NULL, NULL } };
    static const luaL_Reg functions[] = { { "run", run_new },
                                          { "journal", run_journal },
                                          { "run_check", run_check },
                                          { "run_recover", run_recover },
                                          { "run_extract", run_extract },
                                          { NULL, NULL } };
    lf_new_type(L, LF_RUN_TYPE, methods, meta, run_close);
    luaL_setfuncs(L, functions, 0);
}
