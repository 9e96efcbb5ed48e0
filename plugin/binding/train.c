// core.train, core.explain.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "binding/train_options.h"

enum { STEP_LOSS, LOSS, ACCURACY, VAL_LOSS, VAL_ACCURACY, LR, SERIES_COUNT };
static const char *const series_names[SERIES_COUNT] = { "step_loss", "loss",         "accuracy",
                                                        "val_loss",  "val_accuracy", "lr" };

// What the events need. Lua values stand at fixed places of the stack: the options at 1, the history at 2, what the
// parameters point to from 3 on, and room for the events above. Events run Lua in protected calls, since a jump over
// lf_train would leak all it holds.
typedef struct call {
    lua_State *L;
    lf_run *run; // NULL: none
    const char *name;
    bool failed;          // an event raised, or the run did not take a value; the message is on top of the stack
    bool lost;            // the latter: what was told is not all recorded
    uint64_t digest_step; // of the last digest that was recorded; 0: none
    volatile sig_atomic_t own_stop; // where no signal is caught; set when an event failed
    lf_train_params params;
} call;
enum { OPTIONS = 1, HISTORY = 2 };

// The training stops at its next submission; a signal that came stays what stopped it.
static void stop_soon(call *c)
{
    c->failed = true;
    if (!*c->params.stop)
        *c->params.stop = -1;
}

static void keep_failure(call *c, const lf_error *err)
{
    c->lost = true;
    if (c->failed)
        return;
    lua_pushstring(c->L, err->text);
    stop_soon(c);
}

// After an event that failed too: a checkpoint may follow.
static void record(call *c, int series, size_t count, const int64_t *steps, const double *times, const double *values)
{
    lf_error err;
    if (c->run && !c->lost && !lf_run_series(c->run, c->name, series_names[series], count, steps, times, values, &err))
        keep_failure(c, &err);
}

// Where a training ends inside an epoch, its last step's may be told twice.
static void record_digest(call *c, uint64_t step, const char hex[65])
{
    lf_error err;
    if (!c->run || c->lost || c->digest_step == step)
        return;
    c->digest_step = step;
    if (!lf_run_digest(c->run, c->name, (int64_t)step, hex, &err))
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

static int call_step(lua_State *L)
{
    const lf_step *step = lua_touserdata(L, 2);
    lua_getfield(L, OPTIONS, "on_step");
    lua_pushinteger(L, (lua_Integer)step->step);
    lua_createtable(L, 0, 3);
    lf_set_number(L, "loss", step->loss);
    lf_set_number(L, "lr", step->lr);
    lf_set_integer(L, "epoch", step->epoch);
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

static void push_device(lua_State *L, const lf_train_device *device)
{
    lf_push_device_info(L, &device->info);
    lf_set_integer(L, "opened", device->opened);
    lf_set_integer(L, "shards", device->shards);
    lf_set_number(L, "busy", device->busy);
    lua_pushboolean(L, device->lost);
    lua_setfield(L, -2, "lost");
}

static void push_devices(lua_State *L, const lf_train_device *devices, unsigned count)
{
    lua_createtable(L, (int)count, 0);
    for (unsigned i = 0; i < count; i++) {
        push_device(L, &devices[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

typedef struct start_event {
    const lf_train_device *devices;
    unsigned count;
    uint64_t step;
} start_event;

static int call_started(lua_State *L)
{
    const start_event *start = lua_touserdata(L, 2);
    lua_getfield(L, OPTIONS, "on_start");
    push_devices(L, start->devices, start->count);
    lua_pushinteger(L, (lua_Integer)start->step);
    lua_call(L, 2, 0);
    return 0;
}

typedef struct lost_event {
    const lf_train_device *device;
    uint64_t step;
    const char *why;
} lost_event;

static int call_lost(lua_State *L)
{
    const lost_event *lost = lua_touserdata(L, 2);
    lua_getfield(L, OPTIONS, "on_lost");
    push_device(L, lost->device);
    lua_pushinteger(L, (lua_Integer)lost->step);
    lua_pushstring(L, lost->why);
    lua_call(L, 3, 0);
    return 0;
}

// Calls the option `field`, if it is there, through `caller`. Leaves `results` values, or a message and c->failed.
static bool protect(call *c, const char *field, lua_CFunction caller, const void *argument, int results)
{
    lua_State *L = c->L;
    if (c->failed)
        return false;
    if (!lf_has_field(L, OPTIONS, field))
        return false;
    lua_pushcfunction(L, caller);
    lua_pushvalue(L, OPTIONS);
    lua_pushlightuserdata(L, (void *)argument);
    if (lua_pcall(L, 2, results, 0) != LUA_OK)
        stop_soon(c);
    return !c->failed;
}

// The same for a function that may say false, to stop.
static bool ask(call *c, const char *field, lua_CFunction caller, const void *argument, lf_error *err)
{
    bool go_on = true;
    if (protect(c, field, caller, argument, 1)) {
        go_on = lua_isnil(c->L, -1) || lua_toboolean(c->L, -1);
        lua_pop(c->L, 1);
    }
    if (c->failed)
        lf_error_set(err, LF_EARG, "a function given to the training failed");
    return go_on && !c->failed;
}

// A run that has values from beyond the checkpoint, of a process that was killed, gives them back.
static void on_started(void *user, const lf_train_device *devices, unsigned count, uint64_t step)
{
    call *c = user;
    lf_error err;
    bool ok = true;
    for (int i = 0; i < SERIES_COUNT && ok && c->run; i++)
        ok = lf_run_rewind(c->run, c->name, series_names[i], (int64_t)step, &err);
    if (c->run && !(ok && lf_run_rewind(c->run, c->name, NULL, (int64_t)step, &err)))
        keep_failure(c, &err);
    protect(c, "on_start", call_started, &(start_event){ devices, count, step }, 0);
}

static void on_lost(void *user, const lf_train_device *device, uint64_t step, const char *why)
{
    protect(user, "on_lost", call_lost, &(lost_event){ device, step, why }, 0);
}

static int call_saving(lua_State *L)
{
    lua_getfield(L, OPTIONS, "on_saving");
    lua_pushinteger(L, (lua_Integer) * (const uint64_t *)lua_touserdata(L, 2));
    lua_call(L, 1, 0);
    return 0;
}

static bool on_saving(void *user, uint64_t step, lf_error *err)
{
    call *c = user;
    protect(c, "on_saving", call_saving, &step, 0);
    if (c->lost || c->failed)
        lf_error_set(err, LF_EIO, "the run does not hold all of its values");
    return !c->failed && !c->lost && (!c->run || lf_run_sync(c->run, err));
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

static void on_ended(void *user, const lf_epoch *epoch)
{
    call *c = user;
    double values[SERIES_COUNT];
    epoch_values(epoch, values);
    int64_t step = (int64_t)epoch->step;
    double time = c->run ? lf_run_time(c->run) : 0;
    for (int i = LOSS; i < SERIES_COUNT; i++)
        if (!isnan(values[i]))
            record(c, i, 1, &step, &time, &values[i]);
    record_digest(c, epoch->step, epoch->digest);
}

static bool on_epoch(void *user, const lf_epoch *epoch, lf_error *err)
{
    call *c = user;
    lua_State *L = c->L;
    if (!c->failed) {
        lua_pushcfunction(L, append_epoch);
        lua_pushvalue(L, HISTORY);
        lua_pushlightuserdata(L, (void *)epoch);
        if (lua_pcall(L, 2, 0, 0) != LUA_OK)
            stop_soon(c);
    }
    return ask(c, "on_epoch", call_epoch, epoch, err);
}

static bool on_step(void *user, const lf_step *step, lf_error *err)
{
    return ask(user, "on_step", call_step, step, err);
}

// Protected, since running out of memory here must not lose the result: fills the history and pushes it.
static int push_result(lua_State *L)
{
    static const char *const reasons[] = {
        [LF_TRAIN_DONE] = "",
        [LF_TRAIN_MAX_STEPS] = "max_steps",
        [LF_TRAIN_EPOCH_EVENT] = "on_epoch",
        [LF_TRAIN_STEP_EVENT] = "on_step",
        [LF_TRAIN_PATIENCE] = "patience",
    };
    const lf_train_result *result = lua_touserdata(L, 2);
    lua_settop(L, 1);
    lf_set_integer(L, "epochs", result->epochs);
    lf_set_integer(L, "steps", result->steps);
    lf_set_integer(L, "submissions", result->submissions);
    lf_set_integer(L, "dispatches", result->dispatches);
    lf_set_number(L, "seconds", result->seconds);
    if (result->best_epoch) {
        lf_set_integer(L, "best_epoch", result->best_epoch);
        lf_set_number(L, "best_value", result->best_value);
    }
    lf_set_string(L, "digest", result->digest);
    lf_set_string(L, "stopped", reasons[result->stopped]);
    lf_set_string(L, "device", result->devices[0].info.id);
    lf_push_device_info(L, &result->devices[0].info);
    lua_setfield(L, -2, "device_info");
    push_devices(L, result->devices, result->device_count);
    lua_setfield(L, -2, "devices");
    lf_set_integer(L, "shards", result->shards);
    lf_set_integer(L, "ranks", result->ranks);
    lf_set_number(L, "exchange_seconds", result->exchange_seconds);
    return 1;
}

// Finishes the result, pushes what it says where the training succeeded, and gives lua_pcall's status.
static int take_result(lua_State *L, lf_train_result *result, bool ok)
{
    int status = LUA_OK;
    if (ok) {
        lua_pushcfunction(L, push_result);
        lua_pushvalue(L, HISTORY);
        lua_pushlightuserdata(L, result);
        status = lua_pcall(L, 2, 1, 0);
    }
    lf_train_result_finish(result);
    return status;
}

static int train(lua_State *L)
{
    call c = { .L = L };
    lua_settop(L, 1);
    lua_createtable(L, 0, 16);
    lf_read_train_params(L, OPTIONS, &c.params);
    c.name = lf_need_string(L, OPTIONS, "name");
    if (lua_getfield(L, OPTIONS, "run") != LUA_TNIL)
        c.run = lf_check_run(L, lua_gettop(L));
    lua_pop(L, 1);
    c.params.run = c.run ? lf_run_uuid(c.run) : NULL;
    luaL_checkstack(L, 16, "train");

    lua_getfield(L, OPTIONS, "model");
    lf_check_unused(L, lua_touserdata(L, -1), "model");
    lua_pop(L, 1);
    c.params.events = (lf_train_events){ .user = &c,
                                         .started = on_started,
                                         .lost = on_lost,
                                         .progress = on_progress,
                                         .steps = on_steps,
                                         .digest = on_digest,
                                         .ended = on_ended,
                                         .saving = on_saving,
                                         .step = lf_has_field(L, OPTIONS, "on_step") ? on_step : NULL,
                                         .epoch = on_epoch };
    lf_train_result result;
    lf_error err;
    lf_use_options(L, OPTIONS, 1);
    volatile sig_atomic_t *stop = lf_signals_catch();
    c.params.stop = stop ? stop : &c.own_stop;
    bool ok = lf_train(&c.params, &result, &err);
    lf_signals_release();
    lf_use_options(L, OPTIONS, -1);
    if (result.checkpointed)
        lf_signals_checkpointed();
    int pushed = take_result(L, &result, ok && !c.failed);
    if (c.failed)
        return lua_error(L); // the event's message
    if (!ok && err.code == LF_EINTERRUPTED)
        lf_signals_interrupted();
    if (!ok)
        return lf_raise(L, &err);
    lf_signals_deliver();
    return pushed == LUA_OK ? 1 : lua_error(L);
}

static int explain(lua_State *L)
{
    lf_train_params params;
    lf_error err;
    lua_settop(L, 1);
    lf_read_train_params(L, OPTIONS, &params);
    char *text = lf_train_explain(&params, &err);
    if (!text)
        return lf_raise(L, &err);
    lua_pushstring(L, text);
    free(text);
    return 1;
}

void lf_open_train(lua_State *L)
{
    static const luaL_Reg functions[] = { { "train", train }, { "explain", explain }, { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
