// core.lock: a lock between processes as a handle.
#include <stdio.h>

#include "binding/binding.h"
#include "io/file_lock.h"

typedef struct lock_handle {
    int fd; // -1: released
} lock_handle;

static int lock_close(lua_State *L)
{
    lock_handle *handle = luaL_checkudata(L, 1, LF_LOCK_TYPE);
    lf_file_unlock(handle->fd);
    handle->fd = -1;
    return 0;
}

// The descriptor, for a process that is to hold the lock too.
static int lock_fd(lua_State *L)
{
    const lock_handle *handle = luaL_checkudata(L, 1, LF_LOCK_TYPE);
    lua_pushinteger(L, handle->fd);
    return 1;
}

// core.lock(path) → the lock; or nil and what its holder wrote, where another process has it.
static int lock_new(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lock_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
    handle->fd = -1;
    luaL_setmetatable(L, LF_LOCK_TYPE);
    lf_error err;
    bool busy;
    handle->fd = lf_file_lock(path, &busy, &err);
    if (handle->fd >= 0)
        return 1;
    if (!busy)
        return lf_raise(L, &err);
    char holder[256] = "";
    FILE *file = fopen(path, "r");
    if (file) {
        size_t size = fread(holder, 1, sizeof holder - 1, file);
        holder[size] = 0;
        fclose(file);
    }
    lua_pushnil(L);
    lua_pushstring(L, holder);
    return 2;
}

void lf_open_lock(lua_State *L)
{
    static const luaL_Reg methods[] = { { "fd", lock_fd }, { NULL, NULL } };
    static const luaL_Reg meta[] = { { NULL, NULL } };
    static const luaL_Reg functions[] = { { "lock", lock_new }, { NULL, NULL } };
    lf_new_type(L, LF_LOCK_TYPE, methods, meta, lock_close);
    luaL_setfuncs(L, functions, 0);
}
