// SIGINT and SIGTERM while C works: they ask it to stop between submissions.
#include <signal.h>

#include "binding/binding.h"

static volatile sig_atomic_t stop_signal;
static unsigned depth; // of calls that catch: an event of a training may evaluate
static const char *last_signal;
static bool last_checkpointed;

static const int signals[] = { SIGINT, SIGTERM };
enum { SIGNALS = sizeof signals / sizeof *signals };
static struct sigaction saved[SIGNALS];

static void on_signal(int number)
{
    stop_signal = number;
}

volatile sig_atomic_t *lf_signals_catch(void)
{
    if (depth++)
        return NULL;
    struct sigaction action = { .sa_handler = on_signal };
    sigemptyset(&action.sa_mask);
    stop_signal = 0;
    last_signal = NULL;
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &action, &saved[i]);
    return &stop_signal;
}

void lf_signals_release(void)
{
    if (--depth)
        return;
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i], &saved[i], NULL);
}

void lf_signals_interrupted(bool checkpointed)
{
    last_signal = stop_signal == SIGTERM ? "SIGTERM" : "SIGINT";
    last_checkpointed = checkpointed;
}

void lf_signals_deliver(void)
{
    if (!depth && stop_signal > 0)
        raise(stop_signal);
}

// core.interrupted() → nil, or the signal that stopped the last work and whether a checkpoint was written.
static int interrupted(lua_State *L)
{
    if (!last_signal)
        return 0;
    lua_pushstring(L, last_signal);
    lua_pushboolean(L, last_checkpointed);
    return 2;
}

void lf_open_signals(lua_State *L)
{
    static const luaL_Reg functions[] = { { "interrupted", interrupted }, { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
