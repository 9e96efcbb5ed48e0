// The Lua module `lavaflow.core`: thin functions that check, call and return. lua/lavaflow/*.lua is its only user; what
// scripts see is documented there.
//
// C frees everything it holds before Lua may raise, since lua_error jumps: functions read their arguments first, then
// call, then free, then raise.
#ifndef LF_BINDING_BINDING_H
#define LF_BINDING_BINDING_H

#include <lauxlib.h>
#include <lua.h>
#include <signal.h>
#include <stdbool.h>

#include "core/error.h"
#include "device/device.h"
#include "io/dataset.h"
#include "io/run_file.h"
#include "program/model.h"

#define LF_MODEL_TYPE   "lavaflow.model"
#define LF_DATASET_TYPE "lavaflow.dataset"
#define LF_PART_TYPE    "lavaflow.part"
#define LF_RUN_TYPE     "lavaflow.run"
#define LF_LOCK_TYPE    "lavaflow.lock"

// The head of every handle. While a training or its like runs, what it uses cannot be closed: its events run Lua.
typedef struct lf_handle {
    unsigned uses;
} lf_handle;
// Raises if the handle is in use.
void lf_check_unused(lua_State *L, const lf_handle *handle, const char *what);
// Adds `count`, 1 or -1, to the uses of the handles that the options at `index` hold: model, data, validation, run,
// teachers.
void lf_use_options(lua_State *L, int index, int count);

// Raises with the error's text.
int lf_raise(lua_State *L, const lf_error *err);

// Fields of the table at `index`. Absent ones give the default; wrong types or ranges raise, naming the field.
lua_Integer lf_field_integer(lua_State *L, int index, const char *name, lua_Integer otherwise, lua_Integer least,
                             lua_Integer most);
double lf_field_number(lua_State *L, int index, const char *name, double otherwise);
bool lf_field_boolean(lua_State *L, int index, const char *name, bool otherwise);
const char *lf_field_string(lua_State *L, int index, const char *name, const char *otherwise); // borrowed of the table

bool lf_has_field(lua_State *L, int index, const char *name);

// The same without a default: absent fields raise too. The defaults of what scripts give stand in Lua alone.
lua_Integer lf_need_integer(lua_State *L, int index, const char *name, lua_Integer least, lua_Integer most);
double lf_need_number(lua_State *L, int index, const char *name);
bool lf_need_boolean(lua_State *L, int index, const char *name);
const char *lf_need_string(lua_State *L, int index, const char *name);

// Set a field of the table on top of the stack. Absent values (NaN, empty text) set nothing.
void lf_set_number(lua_State *L, const char *name, double value);
void lf_set_integer(lua_State *L, const char *name, uint64_t value);
void lf_set_string(lua_State *L, const char *name, const char *value);

void lf_push_device_info(lua_State *L, const lf_device_info *info); // a table

// Pushes an array of pointers to the texts in the array at `index`, which keeps them; raises for anything else.
const char **lf_push_texts(lua_State *L, int index, const char *name, size_t *count);

// Handles. The check functions raise for another type or a closed handle.
lf_model *lf_check_model(lua_State *L, int index);
lf_run *lf_check_run(lua_State *L, int index);
lf_model *lf_field_model(lua_State *L, int index);  // field `model`
lf_handle *lf_part_handle(lua_State *L, int index); // of a part's data set
// Field `name` as a part of an open data set; false: absent.
bool lf_field_part(lua_State *L, int index, const char *name, lf_dataset **data, lf_part_id *part);

// Makes a metatable with methods as __index, and __gc, __close and close() that call `close`.
void lf_new_type(lua_State *L, const char *type, const luaL_Reg *methods, const luaL_Reg *meta, lua_CFunction close);

// signals.c: while C works, SIGINT, SIGTERM and SIGUSR1 set what lf_signals_catch points to, and the host's handlers
// are away. NULL inside of another call that catches, which then is the one to stop. Each is followed by a release.
volatile sig_atomic_t *lf_signals_catch(void);
void lf_signals_release(void);
// After the release: the work left a checkpoint; it was interrupted; or it was done all the same, and the host is to
// hear of the signal.
void lf_signals_checkpointed(void);
void lf_signals_interrupted(void);
void lf_signals_deliver(void);
void lf_signals_forget(void); // at the end of the Lua state

// Each file's functions, added to the module's table on top of the stack.
void lf_open_model(lua_State *L);
void lf_open_dataset(lua_State *L);
void lf_open_train(lua_State *L);
void lf_open_evaluate(lua_State *L);
void lf_open_predict(lua_State *L);
void lf_open_signals(lua_State *L);
void lf_open_run(lua_State *L);
void lf_open_h5(lua_State *L);
void lf_open_lock(lua_State *L);
void lf_open_ranks(lua_State *L);

#endif
