// core.predict: a model's outputs, as a table or as a file.
#include <math.h>
#include <string.h>

#include "binding/train_options.h"
#include "io/rows_file.h"
#include "train/checkpoint.h"

typedef enum form { LOGITS, VALUES, PROBABILITIES, SIGMOID, CLASSES } form;
static const char *const form_names[] = { "logits", "values", "probabilities", "sigmoid", "classes" };
static const char *const file_object = "prediction";

typedef struct prediction {
    lua_State *L; // without a file, the table of rows is on top of its stack
    lf_rows_file *file;
    form form;
    uint32_t outputs;
    uint64_t rows;
    float *values; // [batch * outputs]: as they are given
} prediction;

typedef struct piece {
    const prediction *p;
    uint64_t first;
    uint32_t count;
} piece;

// Protected: adds rows to the table at 1.
static int append_rows(lua_State *L)
{
    const piece *given = lua_touserdata(L, 2);
    const prediction *p = given->p;
    for (uint32_t i = 0; i < given->count; i++) {
        if (p->form == CLASSES) {
            lua_pushinteger(L, ((const uint32_t *)p->values)[i]);
        } else {
            lua_createtable(L, (int)p->outputs, 0);
            for (uint32_t j = 0; j < p->outputs; j++) {
                lua_pushnumber(L, (lua_Number)p->values[(size_t)i * p->outputs + j]);
                lua_rawseti(L, -2, (lua_Integer)j + 1);
            }
        }
        lua_rawseti(L, 1, (lua_Integer)(given->first + i) + 1);
    }
    return 0;
}

static uint32_t find_largest(const float *z, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t j = 1; j < count; j++)
        best = z[j] > z[best] ? j : best;
    return best;
}

static void soften(const float *z, uint32_t count, float *p)
{
    double most, sum = lf_softmax_sum(z, count, 1, &most);
    for (uint32_t j = 0; j < count; j++)
        p[j] = (float)(exp((double)z[j] - most) / sum);
}

static void convert(prediction *p, uint32_t count, const float *z)
{
    size_t all = (size_t)count * p->outputs;
    switch (p->form) {
    case LOGITS:
    case VALUES:
        memcpy(p->values, z, all * sizeof *z);
        break;
    case PROBABILITIES:
        for (uint32_t i = 0; i < count; i++)
            soften(z + (size_t)i * p->outputs, p->outputs, p->values + (size_t)i * p->outputs);
        break;
    case SIGMOID:
        for (size_t i = 0; i < all; i++)
            p->values[i] = (float)(1 / (1 + exp(-(double)z[i])));
        break;
    case CLASSES:
        for (uint32_t i = 0; i < count; i++)
            ((uint32_t *)p->values)[i] = find_largest(z + (size_t)i * p->outputs, p->outputs);
        break;
    }
}

static bool on_rows(void *user, uint64_t first, uint32_t count, const float *outputs, lf_error *err)
{
    prediction *p = user;
    convert(p, count, outputs);
    p->rows = first + count;
    if (p->file)
        return lf_rows_put(p->file, file_object, first, count, p->values, err);
    piece given = { p, first, count };
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

// The rows to predict: a part, or x, which becomes a data set of its own. Pushes what that needs.
static bool open_rows(lua_State *L, lf_evaluate_params *params, lf_error *err)
{
    if (lf_field_part(L, 1, "data", &params->data, &params->part))
        return false;
    size_t rows;
    const float *x = read_rows(L, params->model->inputs, &rows);
    params->part = LF_PART_TEST;
    params->data = lf_dataset_from_rows("x", x, rows, params->model->inputs, err);
    if (!params->data)
        lf_raise(L, err);
    return true;
}

static form read_form(lua_State *L)
{
    const char *as = lf_need_string(L, 1, "as");
    for (unsigned i = 0; i < sizeof form_names / sizeof *form_names; i++)
        if (!strcmp(as, form_names[i]))
            return (form)i;
    luaL_error(L, "as: unknown \"%s\"", as);
    return LOGITS;
}

// The file for so many rows, with where they come from.
static lf_rows_file *begin_file(const lf_evaluate_params *params, const prediction *p, const char *path,
                                const char *digest, lf_error *err)
{
    const lf_part *part = lf_dataset_part(params->data, params->part, err);
    lf_rows_file *file = part ? lf_rows_create(path, "lavaflow-prediction", err) : NULL;
    bool classes = p->form == CLASSES;
    if (file && lf_rows_add(file, file_object, classes ? LF_U32 : LF_F32, part->rows, classes ? 0 : p->outputs, err) &&
        lf_rows_text(file, "prediction@as", form_names[p->form], err) &&
        lf_rows_text(file, "prediction@model", digest, err) && lf_rows_text(file, "@data", part->x_path, err))
        return file;
    lf_rows_abandon(file);
    return NULL;
}

static bool run(const lf_evaluate_params *params, prediction *p, const char *path, const char *digest, lf_error *err)
{
    if (path) {
        p->file = begin_file(params, p, path, digest, err);
        if (!p->file)
            return false;
    }
    if (lf_predict(params, on_rows, p, err))
        return !path || lf_rows_finish(p->file, err);
    lf_rows_abandon(p->file);
    return false;
}

static int predict(lua_State *L)
{
    lf_evaluate_params params;
    lf_error err;
    lua_settop(L, 1);
    lf_read_evaluate_params(L, 1, &params);
    prediction p = { .L = L, .form = read_form(L), .outputs = params.model->outputs };
    const char *path = lf_field_string(L, 1, "output", NULL);
    char digest[65];
    if (!lf_model_digest(params.model, digest, &err))
        return lf_raise(L, &err);
    p.values = lua_newuserdatauv(L, (size_t)params.batch * p.outputs * sizeof *p.values, 0);
    luaL_checkstack(L, 16, "predict");
    bool own = open_rows(L, &params, &err);
    lua_createtable(L, 0, 3);
    params.stop = lf_signals_catch();
    bool ok = run(&params, &p, path, digest, &err);
    lf_signals_release();
    if (own)
        lf_dataset_close(params.data);
    if (!ok && err.code == LF_EINTERRUPTED)
        lf_signals_interrupted();
    if (!ok)
        return lf_raise(L, &err);
    lf_signals_deliver();
    if (path) {
        lf_set_integer(L, "rows", p.rows);
        lf_set_integer(L, "outputs", p.outputs);
        lf_set_string(L, "path", path);
    }
    return 1;
}

void lf_open_predict(lua_State *L)
{
    static const luaL_Reg functions[] = { { "predict", predict }, { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
