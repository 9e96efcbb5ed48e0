#include <stdlib.h>
#include <string.h>

#include "binding/binding.h"
#include "core/hash.h"
#include "core/log.h"
#include "io/import.h"
#include "train/bandwidth.h"

static int sha256(lua_State *L)
{
    size_t size;
    const char *text = luaL_checklstring(L, 1, &size);
    lf_error err;
    char hex[65];
    lf_hash *hash = lf_hash_create(&err);
    if (!hash)
        return lf_raise(L, &err);
    lf_hash_update(hash, text, size);
    lf_hash_finish(hash, hex);
    lf_hash_destroy(hash);
    lua_pushstring(L, hex);
    return 1;
}

static int devices(lua_State *L)
{
    enum { CAPACITY = 64 };
    lf_device_info *infos = lua_newuserdatauv(L, CAPACITY * sizeof *infos, 0);
    memset(infos, 0, CAPACITY * sizeof *infos);
    size_t count = lf_device_list(infos, CAPACITY);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lf_push_device_info(L, &infos[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

// core.find_device(spec) → its row of core.devices(); raises when there is none.
static int find_device(lua_State *L)
{
    lf_device_info info;
    lf_error err;
    if (!lf_device_find(luaL_checkstring(L, 1), &info, &err))
        return lf_raise(L, &err);
    lf_push_device_info(L, &info);
    return 1;
}

// core.find_link(backend) → { library, file, missing } of what links its devices; nil: nothing is meant to.
static int find_link(lua_State *L)
{
    lf_link_info info;
    if (!lf_link_find(luaL_checkstring(L, 1), &info))
        return 0;
    lua_createtable(L, 0, 3);
    lf_set_string(L, "library", info.library);
    lf_set_string(L, "file", info.file);
    lf_set_string(L, "missing", info.missing);
    return 1;
}

// core.find_devices(specs) → the rows of those that a training on this list uses; raises when one is not there.
static int find_devices(lua_State *L)
{
    enum { CAPACITY = 64 };
    size_t count;
    lua_settop(L, 1);
    const char **specs = lf_push_texts(L, 1, "devices", &count);
    lf_device_info *infos = lua_newuserdatauv(L, CAPACITY * sizeof *infos, 0);
    lf_error err;
    size_t found = lf_device_find_list(specs, count, infos, CAPACITY, &err);
    if (!found)
        return lf_raise(L, &err);
    lua_createtable(L, (int)found, 0);
    for (size_t i = 0; i < found; i++) {
        lf_push_device_info(L, &infos[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

// core.bandwidth(specs, sizes) → array of { read, sum, write, linked }, seconds for each size; see bandwidth.h.
static int bandwidth(lua_State *L)
{
    enum { SIZES = 16 };
    size_t count, sizes[SIZES];
    lf_bandwidth seconds[SIZES];
    lf_error err;
    lua_settop(L, 2);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t size_count = (size_t)luaL_len(L, 2);
    luaL_argcheck(L, size_count <= SIZES, 2, "expected at most 16 sizes");
    const char **specs = lf_push_texts(L, 1, "devices", &count);
    for (size_t i = 0; i < size_count; i++) {
        lua_geti(L, 2, (lua_Integer)i + 1);
        lua_Integer size = luaL_checkinteger(L, -1);
        if (size < 4 || size % 4)
            return luaL_error(L, "a size of %I bytes: expected a multiple of 4 above 0", size);
        sizes[i] = (size_t)size;
        lua_pop(L, 1);
    }
    if (!lf_bandwidth_measure(specs, count, sizes, size_count, seconds, &err))
        return lf_raise(L, &err);
    lua_createtable(L, (int)size_count, 0);
    for (size_t i = 0; i < size_count; i++) {
        lua_createtable(L, 0, 4);
        lf_set_number(L, "read", seconds[i].read);
        lf_set_number(L, "sum", seconds[i].sum);
        lf_set_number(L, "write", seconds[i].write);
        if (seconds[i].linked > 0)
            lf_set_number(L, "linked", seconds[i].linked);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

static int import_mnist(lua_State *L)
{
    const char *folder = luaL_checkstring(L, 1), *out = luaL_checkstring(L, 2);
    lf_error err;
    return lf_import_mnist(folder, out, &err) ? 0 : lf_raise(L, &err);
}

// Where messages go. They may come from other threads, where Lua cannot run: they are kept until core.log_lines asks
// for them.
typedef struct log_line {
    struct log_line *next;
    lf_log_level level;
    char text[];
} log_line;
static log_line *log_first, **log_last = &log_first;

static void keep_line(void *user, lf_log_level level, const char *text)
{
    (void)user; // lf_log holds a lock during the call
    size_t size = strlen(text) + 1;
    log_line *line = malloc(sizeof *line + size);
    if (!line)
        return;
    line->next = NULL;
    line->level = level;
    memcpy(line->text, text, size);
    *log_last = line;
    log_last = &line->next;
}

// core.log_lines() → array of { level, text } since the last call.
static int log_lines(lua_State *L)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };
    lf_log_to(NULL, NULL);
    lua_newtable(L);
    for (lua_Integer i = 1; log_first; i++) {
        log_line *line = log_first;
        lua_createtable(L, 0, 2);
        lf_set_string(L, "level", names[line->level]);
        lf_set_string(L, "text", line->text);
        lua_rawseti(L, -2, i);
        log_first = line->next;
        free(line);
    }
    log_last = &log_first;
    lf_log_to(keep_line, NULL);
    return 1;
}

// At the state's end.
static int forget(lua_State *L)
{
    (void)L;
    lf_signals_forget();
    lf_log_to(NULL, NULL);
    while (log_first) {
        log_line *line = log_first;
        log_first = line->next;
        free(line);
    }
    log_last = &log_first;
    return 0;
}

// Lua finds this name.
__attribute__((visibility("default"))) int luaopen_lavaflow_core(lua_State *L);

int luaopen_lavaflow_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "sha256", sha256 },       { "devices", devices },         { "import_mnist", import_mnist },
        { "log_lines", log_lines }, { "find_device", find_device }, { "find_devices", find_devices },
        { "find_link", find_link }, { "bandwidth", bandwidth },     { NULL, NULL },
    };
    luaL_newlib(L, functions);
    lf_set_string(L, "version", LF_VERSION);
    lf_open_model(L);
    lf_open_dataset(L);
    lf_open_train(L);
    lf_open_evaluate(L);
    lf_open_predict(L);
    lf_open_signals(L);
    lf_open_run(L);
    lf_open_h5(L);
    lf_open_lock(L);
    lf_open_ranks(L);

    lf_log_to(keep_line, NULL);
    lua_newuserdatauv(L, 0, 0); // its collection, at the state's end, leaves no sink and no signal handler behind
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, forget);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    lua_setfield(L, LUA_REGISTRYINDEX, "lavaflow.end");
    return 1;
}
