// core.evaluate.
#include <math.h>

#include "binding/train_options.h"

void lf_read_evaluate_params(lua_State *L, int options, lf_evaluate_params *p)
{
    luaL_checktype(L, options, LUA_TTABLE);
    *p = (lf_evaluate_params){ .model = lf_field_model(L, options) };
    if (!p->model->initialised)
        luaL_error(L, "model: it has no weights yet: train it, load it or call model:init(seed)");
    p->batch = (uint32_t)lf_need_integer(L, options, "batch", 1, 1 << 24);
    p->device = lf_need_string(L, options, "device");
    p->window = (uint64_t)(lf_field_number(L, options, "window", 0) * 0x1p20);
}

static void set_array(lua_State *L, const char *name, const double *values, uint32_t count)
{
    lua_createtable(L, (int)count, 0);
    for (uint32_t i = 0; i < count; i++) {
        lua_pushnumber(L, values[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, name);
}

static void set_confusion(lua_State *L, const lf_evaluation *result)
{
    uint32_t n = result->classes;
    lua_createtable(L, (int)n, 0);
    for (uint32_t i = 0; i < n; i++) {
        lua_createtable(L, (int)n, 0);
        for (uint32_t j = 0; j < n; j++) {
            lua_pushinteger(L, (lua_Integer)result->confusion[(size_t)i * n + j]);
            lua_rawseti(L, -2, (lua_Integer)j + 1);
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "confusion");
}

// Protected, since running out of memory here must not lose the result: pushes the table of scores.
static int push_scores(lua_State *L)
{
    const lf_evaluation *result = lua_touserdata(L, 1);
    lua_createtable(L, 0, 16);
    lf_set_number(L, "loss", result->loss);
    lf_set_number(L, "accuracy", result->accuracy);
    lf_set_integer(L, "rows", result->rows);
    lf_set_number(L, "seconds", result->seconds);
    lf_set_string(L, "device", result->device.id);
    if (result->confusion) {
        lf_set_integer(L, "top_k", result->top_k);
        lf_set_number(L, "top_k_accuracy", result->top_k_accuracy);
        lf_set_number(L, "macro_f1", result->macro_f1);
        set_confusion(L, result);
        set_array(L, "precision", result->precision, result->classes);
        set_array(L, "recall", result->recall, result->classes);
        set_array(L, "f1", result->f1, result->classes);
    } else if (isnan(result->accuracy)) {
        lf_set_number(L, "mse", result->mse);
        lf_set_number(L, "rmse", sqrt(result->mse));
        lf_set_number(L, "mae", result->mae);
        lf_set_number(L, "r2", result->r2);
    }
    return 1;
}

static int evaluate(lua_State *L)
{
    lf_evaluate_params params;
    lua_settop(L, 1);
    lf_read_evaluate_params(L, 1, &params);
    if (!lf_field_part(L, 1, "data", &params.data, &params.part))
        return luaL_error(L, "data: expected a part of a data set, got nothing");
    params.top_k = (uint32_t)lf_field_integer(L, 1, "top_k", 1, 1, INT32_MAX);
    lf_loss_fields loss = lf_read_loss(L, 1);
    params.loss = loss.loss;
    params.loss_options = loss.options;
    params.class_weights = loss.class_weights;
    params.class_weight_count = loss.class_weight_count;
    luaL_checkstack(L, 8, "evaluate");
    lf_evaluation result;
    lf_error err;
    params.stop = lf_signals_catch();
    bool ok = lf_evaluate(&params, &result, &err);
    lf_signals_release();
    if (!ok && err.code == LF_EINTERRUPTED)
        lf_signals_interrupted();
    if (!ok) {
        lf_evaluation_finish(&result);
        return lf_raise(L, &err);
    }
    lua_pushcfunction(L, push_scores);
    lua_pushlightuserdata(L, &result);
    int status = lua_pcall(L, 1, 1, 0);
    lf_evaluation_finish(&result);
    lf_signals_deliver();
    return status == LUA_OK ? 1 : lua_error(L);
}

void lf_open_evaluate(lua_State *L)
{
    static const luaL_Reg functions[] = { { "evaluate", evaluate }, { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
