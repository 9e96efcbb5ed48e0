// SIGINT, SIGTERM and SIGUSR1. While C works, they ask it to stop between submissions. A process that works for another
// one catches them for good: while Lua runs, they raise an error there.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "binding/binding.h"

static const struct {
    int number;
    const char *name;
} signals[] = { { SIGINT, "SIGINT" }, { SIGTERM, "SIGTERM" }, { SIGUSR1, "SIGUSR1" } };
enum { SIGNALS = sizeof signals / sizeof *signals };
enum { AT_ONCE = 1, AGAIN = 100000 }; // instructions of Lua until the hook

static volatile sig_atomic_t stop_signal;
static volatile sig_atomic_t depth; // of calls that catch: an event of a training may evaluate
static struct sigaction saved[SIGNALS];
static const char *last_signal; // that stopped the last work
static bool checkpointed;       // by the last work; in a worker by any

static lua_State *worker; // its main thread; NULL: this process is none
static pthread_t worker_thread;
static volatile sig_atomic_t settled; // the signal was asked for: the script has ended

static const char *name_of(int number)
{
    for (int i = 0; i < SIGNALS; i++)
        if (signals[i].number == number)
            return signals[i].name;
    return "a signal";
}

static void install(void (*handler)(int), struct sigaction *before)
{
    struct sigaction action = { .sa_handler = handler };
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < SIGNALS; i++)
        sigaction(signals[i].number, &action, before ? &before[i] : NULL);
}

static void on_signal(int number)
{
    stop_signal = number;
}

static void interrupt(lua_State *L, lua_Debug *event);

// lua_sethook may be called in a signal's handler.
static void hook(lua_State *L, int instructions)
{
    lua_sethook(L, interrupt, instructions == AT_ONCE ? LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT : LUA_MASKCOUNT,
                instructions);
}

// A script that catches the error gets it again.
static void interrupt(lua_State *L, lua_Debug *event)
{
    (void)event;
    if (settled)
        lua_sethook(L, NULL, 0, 0);
    if (settled || depth) // events of a training: it will stop by itself
        return;
    hook(L, AGAIN);
    luaL_error(L, "interrupted by %s", name_of(stop_signal));
}

static void on_worker_signal(int number)
{
    if (!pthread_equal(pthread_self(), worker_thread)) {
        pthread_kill(worker_thread, number); // only there it is known that Lua is not changing its own state
        return;
    }
    stop_signal = number;
    if (!depth && !settled)
        hook(worker, AT_ONCE);
}

volatile sig_atomic_t *lf_signals_catch(void)
{
    if (depth)
        return depth++, NULL;
    if (!worker) {
        stop_signal = 0;
        last_signal = NULL;
        checkpointed = false;
        install(on_signal, saved);
    }
    depth = 1;
    return &stop_signal;
}

void lf_signals_release(void)
{
    depth--;
    if (depth)
        return;
    if (stop_signal < 0) // no signal's number
        stop_signal = 0;
    for (int i = 0; i < SIGNALS && !worker; i++)
        sigaction(signals[i].number, &saved[i], NULL);
}

void lf_signals_checkpointed(void)
{
    checkpointed = true;
}

void lf_signals_interrupted(void)
{
    last_signal = name_of(stop_signal);
    if (worker && !depth && !settled)
        hook(worker, AGAIN); // an error follows anyway
}

void lf_signals_deliver(void)
{
    if (depth || stop_signal <= 0)
        return;
    if (!worker)
        raise(stop_signal);
    else if (!settled)
        hook(worker, AT_ONCE);
}

// core.ignore_broken_pipes(): a write to a process that is gone fails, and does not end this one.
static int ignore_broken_pipes(lua_State *L)
{
    (void)L;
    signal(SIGPIPE, SIG_IGN);
    return 0;
}

// core.catch_signals(parent) makes this process a worker of the process `parent`, whose end is a SIGTERM; 0 or none: of
// no particular one. From then on a signal raises "interrupted by …" wherever Lua is, again and again, until
// core.interrupted() has told of it. While C works, or Lua for an event of it, the work stops instead; a signal that
// came before it counts.
static int catch_signals(lua_State *L)
{
    lua_Integer parent = luaL_optinteger(L, 1, 0);
    if (!worker) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
        worker = lua_tothread(L, -1);
        worker_thread = pthread_self();
        stop_signal = 0;
        install(on_worker_signal, NULL);
    }
#ifdef __linux__
    if (parent)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    if (parent && getppid() != parent) // it ended before
        raise(SIGTERM);
    return 0;
}

// core.hold_signals(held): while they are held, a signal raises nothing in Lua, which hears of it once they are no
// more.
static int hold_signals(lua_State *L)
{
    static bool held;
    bool hold = lua_toboolean(L, 1);
    if (hold == held)
        return 0;
    held = hold;
    if (hold) {
        lf_signals_catch();
    } else {
        lf_signals_release();
        lf_signals_deliver();
    }
    return 0;
}

void lf_signals_forget(void)
{
    if (worker) // the process leaves
        install(SIG_IGN, NULL);
    worker = NULL;
}

// core.interrupted() → nil, or the signal that stopped the last work and whether a checkpoint was written. In a worker:
// the signal that came, and whether one was written by any work.
static int interrupted(lua_State *L)
{
    if (worker)
        last_signal = stop_signal > 0 ? name_of(stop_signal) : NULL;
    if (!last_signal)
        return 0;
    if (worker) {
        settled = true;
        lua_sethook(worker, NULL, 0, 0);
    }
    lua_pushstring(L, last_signal);
    lua_pushboolean(L, checkpointed);
    return 2;
}

void lf_open_signals(lua_State *L)
{
    static const luaL_Reg functions[] = { { "interrupted", interrupted },
                                          { "catch_signals", catch_signals },
                                          { "hold_signals", hold_signals },
                                          { "ignore_broken_pipes", ignore_broken_pipes },
                                          { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
}
