// core.train, core.explain, core.interrupted.
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "binding/binding.h"
#include "train/train.h"

// Set by the handler while a training runs, and read by the training between submissions.
static volatile sig_atomic_t stop_signal;
static const char *last_signal; // of the last interrupted training
static bool last_checkpointed;

static void on_signal(int number)
{
    stop_signal = number;
}

static const int stop_signals[] = { SIGINT, SIGTERM };
enum { STOP_SIGNALS = sizeof stop_signals / sizeof *stop_signals };

// Handlers stand only while C trains; afterwards those of the host are back.
static void catch_signals(struct sigaction saved[STOP_SIGNALS])
{
    struct sigaction action = { .sa_handler = on_signal };
    sigemptyset(&action.sa_mask);
    stop_signal = 0;
    for (int i = 0; i < STOP_SIGNALS; i++)
        sigaction(stop_signals[i], &action, &saved[i]);
}

static void release_signals(const struct sigaction saved[STOP_SIGNALS])
{
    for (int i = 0; i < STOP_SIGNALS; i++)
        sigaction(stop_signals[i], &saved[i], NULL);
}

enum { TEACHER_MAX = 16 };

enum { STEP_LOSS, LOSS, ACCURACY, VAL_LOSS, VAL_ACCURACY, LR, SERIES_COUNT };
static const char *const series_names[SERIES_COUNT] = { "step_loss", "loss",         "accuracy",
                                                        "val_loss",  "val_accuracy", "lr" };

// What the events need. Lua values stand at fixed places of the stack: the options at 1, the history at 2, and room for
// the events above. Events run Lua in protected calls, since a jump over lf_train would leak all it holds.
typedef struct call {
    lua_State *L;
    lf_run *run; // NULL: none
    const char *name;
    bool failed; // an event raised; its message is on top of the stack
    const lf_model *teachers[TEACHER_MAX];
    lf_train_params params;
} call;
enum { OPTIONS = 1, HISTORY = 2 };

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

// The option `teachers`, an array of models, and with it temperature and alpha.
static void read_teachers(call *c)
{
    lua_State *L = c->L;
    lf_train_params *p = &c->params;
    p->teachers = c->teachers;
    if (lua_getfield(L, OPTIONS, "teachers") == LUA_TTABLE) {
        lua_Integer given = luaL_len(L, -1);
        if (given > TEACHER_MAX)
            luaL_error(L, "teachers: %d of them; at most %d fit", (int)given, TEACHER_MAX);
        for (lua_Integer i = 1; i <= given; i++) {
            lua_geti(L, -1, i);
            const lf_model *teacher = lf_check_model(L, lua_gettop(L));
            if (!teacher->initialised)
                luaL_error(L, "teacher %d has no weights yet: train it or load it", (int)i);
            c->teachers[p->teacher_count++] = teacher;
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    if (!p->teacher_count)
        return;
    p->temperature = (float)lf_need_number(L, OPTIONS, "temperature");
    p->alpha = (float)lf_need_number(L, OPTIONS, "alpha");
}

static void read_optimizer(lua_State *L, lf_optimizer *optimizer, lf_schedule *schedule)
{
    if (lua_getfield(L, OPTIONS, "optimizer") != LUA_TTABLE)
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
    read_schedule(L, schedule);
    lua_pop(L, 1);
}

// What training and its explanation share.
static void read_params(call *c)
{
    lua_State *L = c->L;
    lf_train_params *p = &c->params;
    luaL_checktype(L, OPTIONS, LUA_TTABLE);
    *p = (lf_train_params){ .model = lf_field_model(L, OPTIONS) };
    if (!lf_field_part(L, OPTIONS, "data", &p->data, &p->part))
        luaL_error(L, "data: expected a part of a data set, got nothing");
    if (!lf_field_part(L, OPTIONS, "validation", &p->validation, &p->validation_part))
        p->validation = NULL;
    const char *loss = lf_need_string(L, OPTIONS, "loss");
    if (!lf_loss_find(loss, &p->loss))
        luaL_error(L, "loss: unknown \"%s\"", loss);
    read_optimizer(L, &p->optimizer, &p->schedule);
    p->batch = (uint32_t)lf_need_integer(L, OPTIONS, "batch", 1, 1 << 24);
    p->epochs = (uint64_t)lf_need_integer(L, OPTIONS, "epochs", 1, INT32_MAX);
    p->seed = (uint64_t)lf_need_integer(L, OPTIONS, "seed", LUA_MININTEGER, LUA_MAXINTEGER);
    p->max_steps = (uint64_t)lf_field_integer(L, OPTIONS, "max_steps", 0, 0, LUA_MAXINTEGER);
    p->shuffle = lf_need_boolean(L, OPTIONS, "shuffle");
    p->device = lf_need_string(L, OPTIONS, "device");
    p->window = (uint64_t)(lf_field_number(L, OPTIONS, "window", 0) * 0x1p20);
    p->checkpoint = lf_field_string(L, OPTIONS, "checkpoint", NULL);
    p->resume = lf_field_string(L, OPTIONS, "resume", NULL);
    p->digest_every = (uint64_t)lf_field_integer(L, OPTIONS, "digest_every", 0, 0, LUA_MAXINTEGER);
    read_teachers(c);
}

// A failure of the run file stops the training at its next submission.
static void keep_failure(call *c, const lf_error *err)
{
    lua_pushstring(c->L, err->text);
    c->failed = true;
    stop_signal = -1;
}

static void record(call *c, int series, size_t count, const int64_t *steps, const double *times, const double *values)
{
    lf_error err;
    if (c->run && !c->failed &&
        !lf_run_series(c->run, c->name, series_names[series], count, steps, times, values, &err))
        keep_failure(c, &err);
}

static void record_digest(call *c, uint64_t step, const char hex[65])
{
    lf_error err;
    if (c->run && !c->failed && !lf_run_digest(c->run, c->name, (int64_t)step, hex, &err))
        keep_failure(c, &err);
}

static void on_digest(void *user, uint64_t step, const char hex[65])
{
    record_digest(user, step, hex);
}

static void on_steps(void *user, uint64_t first, uint32_t count, const double *losses)
{
    call *c = user;
    if (!c->run)
        return;
    double time = lf_run_time(c->run);
    enum { CHUNK = 256 };
    int64_t steps[CHUNK];
    double times[CHUNK];
    for (uint32_t done = 0; done < count; done += CHUNK) {
        uint32_t n = count - done < CHUNK ? count - done : CHUNK;
        for (uint32_t i = 0; i < n; i++) {
            steps[i] = (int64_t)(first + done + i);
            times[i] = time;
        }
        record(c, STEP_LOSS, n, steps, times, losses + done);
    }
}

static void push_epoch(lua_State *L, const lf_epoch *epoch)
{
    lua_createtable(L, 0, 6);
    lf_set_number(L, "loss", epoch->loss);
    lf_set_number(L, "accuracy", epoch->accuracy);
    lf_set_number(L, "val_loss", epoch->val_loss);
    lf_set_number(L, "val_accuracy", epoch->val_accuracy);
    lf_set_number(L, "lr", epoch->lr);
    lf_set_integer(L, "step", epoch->step);
}

// Protected: pushes the event's arguments and calls it.
static int call_epoch(lua_State *L)
{
    const lf_epoch *epoch = lua_touserdata(L, 2);
    lua_getfield(L, OPTIONS, "on_epoch");
    lua_pushinteger(L, (lua_Integer)epoch->epoch);
    push_epoch(L, epoch);
    lua_call(L, 2, 1);
    return 1;
}

static int call_progress(lua_State *L)
{
    const lf_progress *progress = lua_touserdata(L, 2);
    lua_getfield(L, OPTIONS, "on_progress");
    lua_createtable(L, 0, 8);
    lf_set_integer(L, "epoch", progress->epoch);
    lf_set_integer(L, "epochs", progress->epochs);
    lf_set_integer(L, "step", progress->step);
    lf_set_integer(L, "steps", progress->steps);
    lf_set_number(L, "loss", progress->loss);
    lf_set_number(L, "accuracy", progress->accuracy);
    lf_set_number(L, "rows_per_second", progress->rows_per_second);
    lf_set_number(L, "seconds_left", progress->seconds_left);
    lua_call(L, 1, 0);
    return 0;
}

static int call_started(lua_State *L)
{
    lua_getfield(L, OPTIONS, "on_start");
    lf_push_device_info(L, lua_touserdata(L, 2));
    lua_call(L, 1, 0);
    return 0;
}

// Calls the option `field`, if it is there, through `caller`. Leaves `results` values, or a message and c->failed.
static bool protect(call *c, const char *field, lua_CFunction caller, const void *argument, int results)
{
    lua_State *L = c->L;
    if (c->failed)
        return false;
    bool present = lua_getfield(L, OPTIONS, field) != LUA_TNIL;
    lua_pop(L, 1);
    if (!present)
        return false;
    lua_pushcfunction(L, caller);
    lua_pushvalue(L, OPTIONS);
    lua_pushlightuserdata(L, (void *)argument);
    c->failed = lua_pcall(L, 2, results, 0) != LUA_OK;
    if (c->failed)
        stop_signal = -1;
    return !c->failed;
}

static void on_started(void *user, const lf_device_info *device)
{
    protect(user, "on_start", call_started, device, 0);
}

static void on_progress(void *user, const lf_progress *progress)
{
    protect(user, "on_progress", call_progress, progress, 0);
}

// By series; NaN: no value.
static void epoch_values(const lf_epoch *epoch, double values[SERIES_COUNT])
{
    values[STEP_LOSS] = (double)NAN;
    values[LOSS] = epoch->loss;
    values[ACCURACY] = epoch->accuracy;
    values[VAL_LOSS] = epoch->val_loss;
    values[VAL_ACCURACY] = epoch->val_accuracy;
    values[LR] = epoch->lr;
}

static int append_epoch(lua_State *L)
{
    const lf_epoch *epoch = lua_touserdata(L, 2);
    double values[SERIES_COUNT];
    epoch_values(epoch, values);
    for (int i = LOSS; i < SERIES_COUNT; i++) {
        if (isnan(values[i]))
            continue;
        if (lua_getfield(L, 1, series_names[i]) == LUA_TNIL) {
            lua_pop(L, 1);
            lua_newtable(L);
            lua_pushvalue(L, -1);
            lua_setfield(L, 1, series_names[i]);
        }
        lua_pushnumber(L, values[i]);
        lua_rawseti(L, -2, luaL_len(L, -2) + 1);
        lua_pop(L, 1);
    }
    push_epoch(L, epoch);
    lua_setfield(L, 1, "final");
    return 0;
}

static bool on_epoch(void *user, const lf_epoch *epoch, lf_error *err)
{
    call *c = user;
    lua_State *L = c->L;
    double values[SERIES_COUNT];
    epoch_values(epoch, values);
    int64_t step = (int64_t)epoch->step;
    double time = c->run ? lf_run_time(c->run) : 0;
    for (int i = LOSS; i < SERIES_COUNT; i++)
        if (!isnan(values[i]))
            record(c, i, 1, &step, &time, &values[i]);
    record_digest(c, epoch->step, epoch->digest);

    if (!c->failed) {
        lua_pushcfunction(L, append_epoch);
        lua_pushvalue(L, HISTORY);
        lua_pushlightuserdata(L, (void *)epoch);
        c->failed = lua_pcall(L, 2, 0, 0) != LUA_OK;
    }
    bool go_on = true;
    if (protect(c, "on_epoch", call_epoch, epoch, 1)) {
        go_on = lua_isnil(L, -1) || lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
    if (c->failed)
        lf_error_set(err, LF_EARG, "a function given to the training failed");
    return go_on && !c->failed;
}

static void push_result(lua_State *L, const lf_train_result *result)
{
    static const char *const reasons[] = {
        [LF_TRAIN_DONE] = "", [LF_TRAIN_MAX_STEPS] = "max_steps", [LF_TRAIN_EPOCH_EVENT] = "on_epoch"
    };
    lua_pushvalue(L, HISTORY);
    lf_set_integer(L, "epochs", result->epochs);
    lf_set_integer(L, "steps", result->steps);
    lf_set_integer(L, "submissions", result->submissions);
    lf_set_integer(L, "dispatches", result->dispatches);
    lf_set_number(L, "seconds", result->seconds);
    lf_set_string(L, "digest", result->digest);
    lf_set_string(L, "device", result->device.id);
    lf_set_string(L, "stopped", reasons[result->stopped]);
    lf_push_device_info(L, &result->device);
    lua_setfield(L, -2, "device_info");
}

static int train(lua_State *L)
{
    call c = { .L = L };
    lua_settop(L, 1);
    read_params(&c);
    c.name = lf_need_string(L, OPTIONS, "name");
    if (lua_getfield(L, OPTIONS, "run") != LUA_TNIL)
        c.run = lf_check_run(L, lua_gettop(L));
    lua_settop(L, 1);
    lua_createtable(L, 0, 16);
    luaL_checkstack(L, 16, "train");

    c.params.stop = &stop_signal;
    c.params.events = (lf_train_events){ .user = &c,
                                         .started = on_started,
                                         .progress = on_progress,
                                         .steps = on_steps,
                                         .digest = on_digest,
                                         .epoch = on_epoch };
    struct sigaction saved[STOP_SIGNALS];
    lf_train_result result;
    lf_error err;
    lf_use_options(L, OPTIONS, 1);
    catch_signals(saved);
    bool ok = lf_train(&c.params, &result, &err);
    release_signals(saved);
    lf_use_options(L, OPTIONS, -1);
    last_signal = NULL;
    if (c.failed)
        return lua_error(L); // the event's message
    if (!ok && err.code == LF_EINTERRUPTED) {
        last_signal = stop_signal == SIGTERM ? "SIGTERM" : "SIGINT";
        last_checkpointed = result.checkpointed;
    }
    if (!ok)
        return lf_raise(L, &err);
    if (stop_signal > 0) // it came when nothing was left to interrupt: the host is to hear of it
        raise(stop_signal);
    push_result(L, &result);
    return 1;
}

static int explain(lua_State *L)
{
    call c = { .L = L };
    lf_error err;
    lua_settop(L, 1);
    read_params(&c);
    char *text = lf_train_explain(&c.params, &err);
    if (!text)
        return lf_raise(L, &err);
    lua_pushstring(L, text);
    free(text);
    return 1;
}

// core.interrupted() → nil, or the signal that stopped the last training and whether a checkpoint was written.
static int interrupted(lua_State *L)
{
    if (!last_signal)
        return 0;
    lua_pushstring(L, last_signal);
    lua_pushboolean(L, last_checkpointed);
    return 2;
}

void lf_open_train(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "train", train }, { "explain", explain }, { "interrupted", interrupted }, { NULL, NULL }
    };
    luaL_setfuncs(L, functions, 0);
}
