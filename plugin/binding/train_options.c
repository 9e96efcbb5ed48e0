#include "binding/train_options.h"

#include <string.h>

// The optimizer's `schedule`, a table of lf_schedule's fields; the optimizer is on top of the stack.
static void read_schedule(lua_State *L, lf_schedule *s)
{
    if (lua_getfield(L, -1, "schedule") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    int table = lua_gettop(L);
    if (!lua_istable(L, table))
        luaL_error(L, "schedule: expected a table, got %s", luaL_typename(L, table));
    const char *kind = lf_field_string(L, table, "kind", "");
    if (!lf_schedule_find(kind, &s->kind))
        luaL_error(L, "schedule: unknown kind \"%s\"", kind);
    *s = lf_schedule_default(s->kind);
    s->per_epoch = lf_field_boolean(L, table, "per_epoch", false);
    s->warmup = lf_field_number(L, table, "warmup", s->warmup);
    s->final = lf_field_number(L, table, "final", s->final);
    s->gamma = lf_field_number(L, table, "gamma", s->gamma);
    s->every = (uint64_t)lf_field_integer(L, table, "every", (lua_Integer)s->every, 0, LUA_MAXINTEGER);
    s->rise = lf_field_number(L, table, "rise", s->rise);
    s->div = lf_field_number(L, table, "div", s->div);
    s->factor = lf_field_number(L, table, "factor", s->factor);
    s->patience = (unsigned)lf_field_integer(L, table, "patience", s->patience, 0, INT32_MAX);
    s->threshold = lf_field_number(L, table, "threshold", s->threshold);
    if (lua_getfield(L, table, "milestones") == LUA_TTABLE) {
        lua_Integer count = luaL_len(L, -1);
        if (count > LF_MILESTONE_MAX)
            luaL_error(L, "schedule: %d milestones; at most %d fit", (int)count, LF_MILESTONE_MAX);
        for (lua_Integer i = 1; i <= count; i++) {
            lua_geti(L, -1, i);
            s->milestones[s->milestone_count++] = (uint64_t)luaL_checkinteger(L, -1);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 2);
}

static void read_optimizer(lua_State *L, int options, lf_optimizer *optimizer, lf_schedule *schedule)
{
    if (lua_getfield(L, options, "optimizer") != LUA_TTABLE)
        luaL_error(L, "optimizer: expected an optimizer, such as lf.adam { lr = 1e-3 }, got %s", luaL_typename(L, -1));
    int table = lua_gettop(L);
    const char *kind = lf_field_string(L, table, "kind", "");
    for (unsigned i = LF_OPTIMIZER_NONE + 1; i < LF_OPTIMIZER_COUNT; i++)
        if (!strcmp(kind, lf_optimizer_name((lf_optimizer_kind)i)))
            *optimizer = lf_optimizer_default((lf_optimizer_kind)i);
    if (optimizer->kind == LF_OPTIMIZER_NONE)
        luaL_error(L, "optimizer: unknown kind \"%s\"", kind);
    optimizer->lr = lf_field_number(L, table, "lr", optimizer->lr);
    optimizer->momentum = (float)lf_field_number(L, table, "momentum", (double)optimizer->momentum);
    optimizer->nesterov = lf_field_boolean(L, table, "nesterov", optimizer->nesterov);
    optimizer->beta1 = (float)lf_field_number(L, table, "beta1", (double)optimizer->beta1);
    optimizer->beta2 = (float)lf_field_number(L, table, "beta2", (double)optimizer->beta2);
    optimizer->eps = (float)lf_field_number(L, table, "eps", (double)optimizer->eps);
    optimizer->weight_decay = (float)lf_field_number(L, table, "weight_decay", (double)optimizer->weight_decay);
    optimizer->decay_bias = lf_field_boolean(L, table, "decay_bias", optimizer->decay_bias);
    optimizer->clip_norm = (float)lf_field_number(L, table, "clip_norm", 0);
    optimizer->clip_value = (float)lf_field_number(L, table, "clip_value", 0);
    read_schedule(L, schedule);
    lua_pop(L, 1);
}

// Pushes an array of pointers to the models in the field `teachers`, or nil.
static void read_teachers(lua_State *L, int options, lf_train_params *p)
{
    if (lua_getfield(L, options, "teachers") != LUA_TTABLE)
        return;
    int table = lua_gettop(L);
    lua_Integer count = luaL_len(L, table);
    const lf_model **teachers = lua_newuserdatauv(L, (size_t)count * sizeof *teachers + 1, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_geti(L, table, i);
        teachers[i - 1] = lf_check_model(L, lua_gettop(L));
        if (!teachers[i - 1]->initialised)
            luaL_error(L, "teacher %I has no weights yet: train it or load it", (LUAI_UACINT)i);
        lua_pop(L, 1);
    }
    lua_remove(L, table);
    p->teachers = teachers;
    p->teacher_count = (unsigned)count;
    p->temperature = (float)lf_field_number(L, options, "temperature", 0);
    p->alpha = (float)lf_need_number(L, options, "alpha");
    p->live = lf_need_boolean(L, options, "live");
    p->teacher_cache = lf_field_string(L, options, "cache_file", NULL);
}

// Pushes the array of hints in the field `hints`, or nil.
static void read_hints(lua_State *L, int options, lf_train_params *p)
{
    if (lua_getfield(L, options, "hints") != LUA_TTABLE)
        return;
    int table = lua_gettop(L);
    lua_Integer count = luaL_len(L, table);
    lf_hint *hints = lua_newuserdatauv(L, (size_t)count * sizeof *hints + 1, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        if (lua_geti(L, table, i) != LUA_TTABLE)
            luaL_error(L, "hint %I: expected a table, got %s", (LUAI_UACINT)i, luaL_typename(L, -1));
        int hint = lua_gettop(L); // its texts are kept by the options' own table
        hints[i - 1] = (lf_hint){ .student = lf_need_string(L, hint, "student"),
                                  .teacher = lf_need_string(L, hint, "teacher"),
                                  .weight = (float)lf_need_number(L, hint, "weight") };
        lua_pop(L, 1);
    }
    lua_remove(L, table);
    p->hints = hints;
    p->hint_count = (size_t)count;
}

lf_loss_fields lf_read_loss(lua_State *L, int options)
{
    lf_loss_fields fields = { 0 };
    const char *loss = lf_need_string(L, options, "loss");
    if (!lf_loss_find(loss, &fields.loss))
        luaL_error(L, "loss: unknown \"%s\"", loss);
    fields.options.label_smoothing = (float)lf_field_number(L, options, "label_smoothing", 0);
    fields.options.delta = (float)lf_field_number(L, options, "delta", 0);
    if (lua_getfield(L, options, "class_weights") != LUA_TTABLE)
        return fields;
    int table = lua_gettop(L);
    fields.class_weight_count = (uint32_t)luaL_len(L, table);
    float *weights = lua_newuserdatauv(L, fields.class_weight_count * sizeof *weights + 1, 0);
    for (uint32_t i = 0; i < fields.class_weight_count; i++) {
        if (lua_geti(L, table, (lua_Integer)i + 1) != LUA_TNUMBER || !(lua_tonumber(L, -1) >= 0))
            luaL_error(L, "class_weights[%d]: expected a number of at least 0, got %s", (int)i + 1,
                       luaL_tolstring(L, -1, NULL));
        weights[i] = (float)lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    lua_remove(L, table);
    fields.class_weights = weights;
    return fields;
}

// Leaves the array of the field `devices` on the stack.
static void read_devices(lua_State *L, int options, lf_train_params *p)
{
    size_t count;
    lua_getfield(L, options, "devices");
    p->devices = lf_push_texts(L, lua_gettop(L), "devices", &count);
    p->device_count = (unsigned)count;
    lua_remove(L, -2);
    p->shards = (uint32_t)lf_field_integer(L, options, "shards", 0, 0, LF_SHARDS_MAX);
    p->even_shards = !strcmp(lf_need_string(L, options, "balance"), "even");
    p->fast = !strcmp(lf_field_string(L, options, "reduce", "exact"), "fast");
}

// What the training watches, and the files that it keeps.
static void read_control(lua_State *L, int options, lf_train_params *p)
{
    const char *monitor = lf_field_string(L, options, "monitor", NULL);
    if (monitor && !lf_monitor_find(monitor, &p->monitor))
        luaL_error(L, "monitor: unknown \"%s\"", monitor);
    p->min_delta = lf_field_number(L, options, "min_delta", 0);
    p->patience = (uint64_t)lf_field_integer(L, options, "patience", 0, 0, LUA_MAXINTEGER);
    p->restore_best = lf_field_boolean(L, options, "restore_best", false);
    p->best = lf_field_string(L, options, "best", NULL);
    p->checkpoint = lf_field_string(L, options, "checkpoint", NULL);
    p->checkpoint_rarely = lf_field_boolean(L, options, "checkpoint_rarely", false);
    p->checkpoint_every = (uint64_t)lf_field_integer(L, options, "checkpoint_every", 0, 0, LUA_MAXINTEGER);
    p->checkpoint_seconds = lf_field_number(L, options, "checkpoint_seconds", 0);
    p->keep = (unsigned)lf_field_integer(L, options, "keep", 0, 0, INT32_MAX);
    p->resume = lf_field_string(L, options, "resume", NULL);
    p->replay = lf_field_string(L, options, "replay", NULL);
    p->digest_every = (uint64_t)lf_field_integer(L, options, "digest_every", 0, 0, LUA_MAXINTEGER);
    p->step_every = (uint64_t)lf_field_integer(L, options, "on_step_every", 1, 1, LUA_MAXINTEGER);
}

void lf_read_train_params(lua_State *L, int options, lf_train_params *p)
{
    luaL_checktype(L, options, LUA_TTABLE);
    *p = (lf_train_params){ .model = lf_field_model(L, options) };
    if (!lf_field_part(L, options, "data", &p->data, &p->part))
        luaL_error(L, "data: expected a part of a data set, got nothing");
    if (!lf_field_part(L, options, "validation", &p->validation, &p->validation_part))
        p->validation = NULL;
    read_optimizer(L, options, &p->optimizer, &p->schedule);
    p->batch = (uint32_t)lf_need_integer(L, options, "batch", 1, 1 << 24);
    p->accumulate = (uint32_t)lf_need_integer(L, options, "accumulate", 1, 1 << 24);
    p->average = (float)lf_field_number(L, options, "ema", 0);
    p->tf32 = !strcmp(lf_field_string(L, options, "precision", "f32"), "tf32");
    p->epochs = (uint64_t)lf_need_integer(L, options, "epochs", 1, INT32_MAX);
    p->seed = (uint64_t)lf_need_integer(L, options, "seed", LUA_MININTEGER, LUA_MAXINTEGER);
    p->max_steps = (uint64_t)lf_field_integer(L, options, "max_steps", 0, 0, LUA_MAXINTEGER);
    p->shuffle = lf_need_boolean(L, options, "shuffle");
    p->window = (uint64_t)(lf_field_number(L, options, "window", 0) * 0x1p20);
    read_control(L, options, p);
    read_devices(L, options, p);
    read_teachers(L, options, p);
    read_hints(L, options, p);
    lf_loss_fields loss = lf_read_loss(L, options);
    p->loss = loss.loss;
    p->loss_options = loss.options;
    p->class_weights = loss.class_weights;
    p->class_weight_count = loss.class_weight_count;
}
