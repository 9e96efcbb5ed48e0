// The processes that were started together, for Lua: texts that they exchange.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "binding/binding.h"
#include "ranks/ranks.h"

static int push_place(lua_State *L, uint32_t rank, uint32_t count)
{
    lua_pushinteger(L, rank);
    lua_pushinteger(L, count);
    return 2;
}

// core.ranks_started() → number of this process and how many there are, as its launcher says; nil: it is alone. Opens
// nothing.
static int ranks_started(lua_State *L)
{
    uint32_t rank, count;
    return lf_ranks_place(&rank, &count) ? push_place(L, rank, count) : 0;
}

// core.ranks() → the same after joining the others; 0, 1: it is alone.
static int ranks(lua_State *L)
{
    uint32_t rank, count;
    lf_error err;
    return lf_ranks_open(&rank, &count, &err) ? push_place(L, rank, count) : lf_raise(L, &err);
}

// core.ranks_decide(yes) → what process 0 says. Those that wait for it are as in a training.
static int ranks_decide(lua_State *L)
{
    bool yes = lua_toboolean(L, 1);
    uint32_t rank, count;
    lf_error err;
    if (!lf_ranks_open(&rank, &count, &err) || !lf_ranks_broadcast(&yes, sizeof yes, &err))
        return lf_raise(L, &err);
    lua_pushboolean(L, yes);
    return 1;
}

// core.ranks_broadcast(text) → the text of process 0, on all. Those that wait for it sleep. As ranks_meet it is for
// between the steps: while one process is in one of these, others may work together all the same.
static int ranks_broadcast(lua_State *L)
{
    size_t own_size = 0;
    const char *own = luaL_optlstring(L, 1, "", &own_size);
    uint32_t rank, count;
    lf_error err;
    bool met;
    if (!lf_ranks_open(&rank, &count, &err))
        return lf_raise(L, &err);
    uint64_t *sizes = lua_newuserdatauv(L, count * sizeof *sizes, 0), size = own_size;
    if (!lf_ranks_meet(&size, sizeof size, sizes, HUGE_VAL, &met, &err))
        return lf_raise(L, &err);
    luaL_Buffer text;
    char *bytes = luaL_buffinitsize(L, &text, sizes[0]);
    if (!rank)
        memcpy(bytes, own, sizes[0]);
    if (!lf_ranks_broadcast(bytes, sizes[0], &err))
        return lf_raise(L, &err);
    luaL_pushresultsize(&text, sizes[0]);
    return 1;
}

// core.ranks_meet(text, seconds) → array of the texts of all processes, cut at 2047 bytes; nil where they did not come
// within so many seconds, without which it waits for ever.
static int ranks_meet(lua_State *L)
{
    enum { SIZE = 2048 };
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    double seconds = luaL_optnumber(L, 2, HUGE_VAL);
    uint32_t rank, count;
    lf_error err;
    bool met;
    if (!lf_ranks_open(&rank, &count, &err))
        return lf_raise(L, &err);
    char own[SIZE] = "", *all = lua_newuserdatauv(L, (size_t)count * SIZE, 0);
    memcpy(own, text, length < SIZE ? length : SIZE - 1);
    if (!lf_ranks_meet(own, SIZE, all, seconds, &met, &err))
        return lf_raise(L, &err);
    if (!met)
        return 0;
    lua_createtable(L, (int)count, 0);
    for (uint32_t i = 0; i < count; i++) {
        lua_pushstring(L, all + (size_t)i * SIZE);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

// core.ranks_close(): nothing may be exchanged after it.
static int ranks_close(lua_State *L)
{
    (void)L;
    lf_ranks_close();
    return 0;
}

// core.ranks_abort(status): ends all processes.
static int ranks_abort(lua_State *L)
{
    lf_ranks_abort((int)luaL_checkinteger(L, 1));
}

void lf_open_ranks(lua_State *L)
{
    static const luaL_Reg functions[] = { { "ranks_started", ranks_started },     { "ranks", ranks },
                                          { "ranks_broadcast", ranks_broadcast }, { "ranks_decide", ranks_decide },
                                          { "ranks_meet", ranks_meet },           { "ranks_close", ranks_close },
                                          { "ranks_abort", ranks_abort },         { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
