// core.h5_read, core.h5_digest: any HDF5 file, for `show` and its like.
#include <string.h>

#include "binding/binding.h"

typedef struct reading {
    lua_State *L; // the table for `root` is on top of its stack
    const char *root;
    const lf_h5_node *node;
} reading;

static void push_scalar(lua_State *L, const lf_h5_node *node, size_t i)
{
    if (node->kind == LF_H5_TEXT)
        lua_pushstring(L, node->texts[i]);
    else if (node->kind == LF_H5_INTEGER)
        lua_pushinteger(L, node->integers[i]);
    else
        lua_pushnumber(L, node->floats[i]);
}

static bool has_values(const lf_h5_node *node)
{
    return (node->kind == LF_H5_TEXT && node->texts) || (node->kind == LF_H5_INTEGER && node->integers) ||
           (node->kind == LF_H5_FLOAT && node->floats);
}

static void push_value(lua_State *L, const lf_h5_node *node)
{
    bool values = has_values(node);
    if (node->rank == 0 && values) {
        push_scalar(L, node, 0);
        return;
    }
    lua_newtable(L);
    if (node->kind == LF_H5_GROUP)
        return;
    lua_createtable(L, (int)node->rank, 0);
    for (size_t i = 0; i < node->rank; i++) {
        lua_pushinteger(L, (lua_Integer)node->shape[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "shape");
    for (size_t i = 0; values && i < node->count; i++) {
        push_scalar(L, node, i);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    if (!values) {
        lua_pushboolean(L, true);
        lua_setfield(L, -2, "omitted");
    }
}

// Pushes the table of the object's group and returns the last component of its path: "a/b/c" gives a.b's table and "c".
static const char *push_parent(lua_State *L, const char *path, const char *end)
{
    lua_pushvalue(L, 1);
    for (const char *slash; (slash = memchr(path, '/', (size_t)(end - path))) != NULL; path = slash + 1) {
        lua_pushlstring(L, path, (size_t)(slash - path));
        lua_gettable(L, -2);
        lua_remove(L, -2);
    }
    return path;
}

static bool is_group(lua_State *L) // the value on top
{
    if (!lua_istable(L, -1))
        return false;
    bool group = lua_getfield(L, -1, "shape") == LUA_TNIL;
    lua_pop(L, 1);
    return group;
}

// Protected: puts the node into the tables below the one at 1. A group's attributes stand in its table as "@name", a
// data set's beside it as "data set@name".
static int set_node(lua_State *L)
{
    const reading *r = lua_touserdata(L, 2);
    const char *path = r->node->path, *at = strrchr(path, '@');
    size_t root = strlen(r->root);
    if (!strncmp(path, r->root, root))
        path += root;
    path += strspn(path, "/");
    const char *end = at ? at : path + strlen(path), *last = push_parent(L, path, end);
    if (last < end) {
        lua_pushlstring(L, last, (size_t)(end - last));
        if (at) {
            lua_gettable(L, -2);
            if (is_group(L))
                last = at;
            else
                lua_pop(L, 1);
        } else {
            lua_pop(L, 1);
        }
    }
    if (*last) {
        lua_pushstring(L, last);
        push_value(L, r->node);
        lua_settable(L, -3);
    }
    return 0;
}

static bool on_node(void *user, const lf_h5_node *node)
{
    reading *r = user;
    r->node = node;
    lua_pushcfunction(r->L, set_node);
    lua_pushvalue(r->L, -2);
    lua_pushlightuserdata(r->L, r);
    if (lua_pcall(r->L, 2, 0, 0) == LUA_OK)
        return true;
    lua_pop(r->L, 1);
    return false;
}

static int h5_read(lua_State *L)
{
    const char *file = luaL_checkstring(L, 1), *root = luaL_optstring(L, 2, "/");
    lua_Integer limit = luaL_optinteger(L, 3, 10000);
    luaL_checkstack(L, 32, "h5_read");
    lua_newtable(L);
    reading r = { .L = L, .root = root };
    lf_error err;
    return lf_h5_walk(file, root, (size_t)limit, on_node, &r, &err) ? 1 : lf_raise(L, &err);
}

static int h5_digest(lua_State *L)
{
    const char *file = luaL_checkstring(L, 1), *path = luaL_checkstring(L, 2);
    char hex[65];
    lf_error err;
    if (!lf_h5_digest(file, path, hex, &err))
        return lf_raise(L, &err);
    lua_pushstring(L, hex);
    return 1;
}

void lf_open_h5(lua_State *L)
{
    static const luaL_Reg functions[] = { { "h5_read", h5_read }, { "h5_digest", h5_digest }, { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
