// core.evaluate, core.predict.
#include <stdlib.h>
#include <string.h>

#include "binding/binding.h"
#include "train/train.h"

static void read_params(lua_State *L, lf_evaluate_params *p)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    *p = (lf_evaluate_params){ .model = lf_field_model(L, 1) };
    if (!p->model->initialised)
        luaL_error(L, "model: it has no weights yet: train it, load it or call model:init(seed)");
    p->batch = (uint32_t)lf_need_integer(L, 1, "batch", 1, 1 << 24);
    p->device = lf_need_string(L, 1, "device");
    p->window = (uint64_t)(lf_field_number(L, 1, "window", 0) * 0x1p20);
}

static int evaluate(lua_State *L)
{
    lf_evaluate_params params;
    read_params(L, &params);
    if (!lf_field_part(L, 1, "data", &params.data, &params.part))
        return luaL_error(L, "data: expected a part of a data set, got nothing");
    const char *loss = lf_need_string(L, 1, "loss");
    if (!lf_loss_find(loss, &params.loss))
        return luaL_error(L, "loss: unknown \"%s\"", loss);
    lf_evaluation result;
    lf_error err;
    if (!lf_evaluate(&params, &result, &err))
        return lf_raise(L, &err);
    lua_createtable(L, 0, 5);
    lf_set_number(L, "loss", result.loss);
    lf_set_number(L, "accuracy", result.accuracy);
    lf_set_integer(L, "rows", result.rows);
    lf_set_number(L, "seconds", result.seconds);
    lf_set_string(L, "device", result.device.id);
    return 1;
}

typedef struct prediction {
    lua_State *L; // the table of rows is on top of its stack
    uint32_t outputs;
} prediction;

typedef struct piece {
    uint64_t first;
    uint32_t count, outputs;
    const float *values;
} piece;

// Protected: adds rows to the table at 1.
static int append_rows(lua_State *L)
{
    const piece *p = lua_touserdata(L, 2);
    for (uint32_t i = 0; i < p->count; i++) {
        lua_createtable(L, (int)p->outputs, 0);
        for (uint32_t j = 0; j < p->outputs; j++) {
            lua_pushnumber(L, (lua_Number)p->values[(size_t)i * p->outputs + j]);
            lua_rawseti(L, -2, (lua_Integer)j + 1);
        }
        lua_rawseti(L, 1, (lua_Integer)(p->first + i) + 1);
    }
    return 0;
}

static bool on_rows(void *user, uint64_t first, uint32_t count, const float *outputs, lf_error *err)
{
    prediction *p = user;
    piece given = { first, count, p->outputs, outputs };
    lua_pushcfunction(p->L, append_rows);
    lua_pushvalue(p->L, -2);
    lua_pushlightuserdata(p->L, &given);
    if (lua_pcall(p->L, 2, 0, 0) == LUA_OK)
        return true;
    lf_error_set(err, LF_ENOMEM, "predict: %s", lua_tostring(p->L, -1));
    lua_pop(p->L, 1);
    return false;
}

// The field x, an array of rows, as numbers in memory that Lua owns; pushes one value.
static float *read_rows(lua_State *L, uint32_t features, size_t *rows)
{
    if (lua_getfield(L, 1, "x") != LUA_TTABLE)
        luaL_error(L, "x: expected an array of rows, got %s", luaL_typename(L, -1));
    int table = lua_gettop(L);
    *rows = (size_t)lua_rawlen(L, table); // raw: no function of the script's may run while C holds the model
    float *x = lua_newuserdatauv(L, *rows * features * sizeof *x + 1, 0);
    for (size_t i = 0; i < *rows; i++) {
        if (lua_rawgeti(L, table, (lua_Integer)i + 1) != LUA_TTABLE)
            luaL_error(L, "x: row %d: expected an array of numbers, got %s", (int)i + 1, luaL_typename(L, -1));
        if (lua_rawlen(L, -1) != features)
            luaL_error(L, "x: row %d has %d numbers, but the model expects %d", (int)i + 1, (int)lua_rawlen(L, -1),
                       (int)features);
        for (uint32_t j = 0; j < features; j++) {
            if (lua_rawgeti(L, -1, (lua_Integer)j + 1) != LUA_TNUMBER)
                luaL_error(L, "x: row %d: number %d is a %s", (int)i + 1, (int)j + 1, luaL_typename(L, -1));
            x[i * features + j] = (float)lua_tonumber(L, -1);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    lua_remove(L, table);
    return x;
}

static int predict(lua_State *L)
{
    lf_evaluate_params params;
    lua_settop(L, 1);
    read_params(L, &params);
    bool from_file = lf_field_part(L, 1, "data", &params.data, &params.part);
    lf_error err;
    if (!from_file) {
        size_t rows;
        const float *x = read_rows(L, params.model->inputs, &rows);
        params.part = LF_PART_TEST;
        params.data = lf_dataset_from_rows("x", x, rows, params.model->inputs, &err);
        if (!params.data)
            return lf_raise(L, &err);
    }
    prediction p = { L, params.model->outputs };
    bool room = lua_checkstack(L, 8);
    lua_newtable(L);
    if (!room)
        lf_error_set(&err, LF_ENOMEM, "predict: the Lua stack is full");
    bool ok = room && lf_predict(&params, on_rows, &p, &err);
    if (!from_file)
        lf_dataset_close(params.data);
    return ok ? 1 : lf_raise(L, &err);
}

void lf_open_evaluate(lua_State *L)
{
    static const luaL_Reg functions[] = { { "evaluate", evaluate }, { "predict", predict }, { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
