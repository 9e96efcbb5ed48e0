#include "launch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <memory>
#include <vector>

#include "fiber.h"
#include "host_cuda.h"

static const size_t WARP = 32;
enum { IDLE_ROUNDS = 10000, NAN_BYTE = 0xFF };

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace
{
enum thread_state { UNSTARTED, RUNS, READY, AT_BARRIER, MEETS, SLEEPS, DONE };

struct block_state;

struct thread_state_of {
    thread_state state;
    uint3 index;
    unsigned lane, warp;
    block_state *block;
    fiber *on;
    lf_host_place at; // where it waits
    // Of a meeting of its warp: what it brings, whose it wants, and what it gets.
    uint64_t brings, gets;
    lf_host_lane from;
    int argument, width;
};

// Lanes of one warp on the way to the same call.
struct meeting {
    unsigned mask, arrived;
};

struct warp_state {
    unsigned gone; // lanes that have returned or never were
    std::vector<meeting> meetings;
};

struct block_state {
    uint3 index;
    std::vector<thread_state_of> threads;
    std::vector<warp_state> warps;
    std::vector<thread_state_of *> ready, at_barrier, asleep;
    unsigned started, done;
    std::unique_ptr<unsigned char[]> shared;
};

// The one launch that runs.
struct running {
    const host_launch *launch;
    const lf_call *call;
    thread_state_of *thread;
    fiber *on;
    std::vector<unsigned> thread_order;
    uint64_t progress; // counts what brings the launch nearer to its end
    bool failed;
    char *why;
    size_t size;
} now;

// Fibers between two uses.
struct fiber_pool {
    std::vector<fiber *> idle;
    ~fiber_pool()
    {
        for (fiber *f : idle)
            fiber_destroy(f);
    }
} pool;

enum order_kind { FORWARD, REVERSE, SHUFFLED };
struct {
    order_kind kind;
    uint64_t random;
} order;

unsigned draw(unsigned below)
{
    order.random = order.random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((order.random >> 33) % below);
}

void read_order()
{
    const char *text = getenv("LAVAFLOW_STAND_IN_ORDER");
    static const char shuffle[] = "shuffle:";
    if (order.kind == SHUFFLED) // goes on drawing, so that no two launches are alike
        return;
    if (text && !strcmp(text, "reverse")) {
        order.kind = REVERSE;
    } else if (text && !strncmp(text, shuffle, sizeof shuffle - 1)) {
        order.kind = SHUFFLED;
        order.random = strtoull(text + sizeof shuffle - 1, NULL, 10);
    }
}

// Said once, by the first that fails.
void fail(const char *format, ...)
{
    if (now.failed)
        return;
    now.failed = true;
    int used = snprintf(now.why, now.size, "%s: ", now.launch->name);
    va_list args;
    va_start(args, format);
    if (used >= 0 && (size_t)used < now.size)
        vsnprintf(now.why + used, now.size - (size_t)used, format, args);
    va_end(args);
}

const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool is_same(const char *a, const char *b)
{
    return a == b || !strcmp(a, b); // mostly the same literal
}

bool is_same_call(const lf_host_place &a, const lf_host_place &b)
{
    return a.line == b.line && is_same(a.file, b.file) && is_same(a.what, b.what);
}

// The next one to run is at the back of `ready`.
void make_ready(thread_state_of *t)
{
    std::vector<thread_state_of *> &ready = t->block->ready;
    t->state = READY;
    ready.push_back(t);
    if (order.kind == SHUFFLED)
        std::swap(ready.back(), ready[draw((unsigned)ready.size())]);
}

void make_all_ready(std::vector<thread_state_of *> &waiting)
{
    for (size_t i = 0; i < waiting.size(); i++)
        make_ready(waiting[order.kind == REVERSE ? i : waiting.size() - 1 - i]);
    waiting.clear();
}

void set_position(const thread_state_of *t)
{
    now.thread = const_cast<thread_state_of *>(t);
    threadIdx = t->index;
    blockIdx = t->block->index;
}

// Leaves to the scheduler until somebody makes this thread ready. Never returns once the launch has failed.
void wait_in(thread_state state, lf_host_place at)
{
    thread_state_of *t = now.thread;
    t->state = state;
    t->at = at;
    fiber_leave(t->on);
}

void check_barrier(block_state *b)
{
    if (b->at_barrier.empty() || b->at_barrier.size() + b->done < b->threads.size())
        return;
    now.progress++;
    make_all_ready(b->at_barrier);
}

thread_state_of *lane_of(const thread_state_of *t, unsigned lane)
{
    return &t->block->threads[t->warp * WARP + lane];
}

// The lane whose value `t` gets.
unsigned source_lane(const thread_state_of *t)
{
    int lane = (int)t->lane, start = lane & ~(t->width - 1), end = start + t->width, source = lane;
    switch (t->from) {
    case LF_HOST_SAME:
        break;
    case LF_HOST_XOR:
        source = lane ^ t->argument;
        break;
    case LF_HOST_DOWN:
        source = lane + t->argument;
        break;
    case LF_HOST_UP:
        source = lane - t->argument < start ? lane : lane - t->argument;
        break;
    case LF_HOST_INDEX:
        source = start + (t->argument & (t->width - 1));
        break;
    }
    return (unsigned)(source >= 0 && source < end ? source : lane);
}

// Hands out the values when the last lane has come; all but the running thread become ready.
void check_meeting(thread_state_of *any, meeting *m)
{
    warp_state *warp = &any->block->warps[any->warp];
    if (!m->arrived || (m->mask & ~(m->arrived | warp->gone)))
        return;
    now.progress++;
    std::vector<thread_state_of *> waiting;
    for (unsigned lane = 0; lane < WARP; lane++) {
        if (!(m->arrived >> lane & 1))
            continue;
        thread_state_of *t = lane_of(any, lane);
        unsigned source = source_lane(t);
        if (!(m->arrived >> source & 1))
            return fail("%s (%s:%d): lane %u takes the value of lane %u, which is not there", t->at.what,
                        base_name(t->at.file), t->at.line, lane, source);
        t->gets = lane_of(any, source)->brings;
        if (t->state == MEETS)
            waiting.push_back(t);
    }
    m->arrived = 0;
    make_all_ready(waiting);
}

void start_thread(block_state *b)
{
    thread_state_of *t = &b->threads[now.thread_order[b->started++]];
    t->state = RUNS;
    t->on = now.on;
    set_position(t);
}

void finish_thread(thread_state_of *t)
{
    block_state *b = t->block;
    warp_state *warp = &b->warps[t->warp];
    t->state = DONE;
    t->on = NULL;
    b->done++;
    now.progress++;
    warp->gone |= 1u << t->lane;
    for (meeting &m : warp->meetings)
        check_meeting(t, &m);
    check_barrier(b);
}

// What a fiber does: threads of a block that nobody has started, one after the other.
void run_threads()
{
    for (;;) {
        fiber *self = now.on;
        block_state *b = now.thread->block;
        do {
            start_thread(b);
            thread_state_of *t = now.thread;
            now.launch->kernel(*now.call);
            finish_thread(t);
        } while (!now.failed && b->started < b->threads.size());
        pool.idle.push_back(self);
        fiber_leave(self);
    }
}

// False where the block has nothing to do but to wait.
bool run_one(block_state *b)
{
    if (!b->ready.empty()) {
        thread_state_of *t = b->ready.back();
        b->ready.pop_back();
        t->state = RUNS;
        now.on = t->on;
        set_position(t);
    } else if (b->started < b->threads.size()) {
        if (pool.idle.empty())
            pool.idle.push_back(fiber_create(run_threads));
        now.on = pool.idle.back();
        pool.idle.pop_back();
        now.thread = &b->threads[0];
    } else {
        return false;
    }
    fiber_resume(now.on);
    return true;
}

void describe(const block_state &b)
{
    char text[256] = "";
    size_t used = 0;
    for (const thread_state_of &t : b.threads) {
        if (t.state == DONE || used >= sizeof text)
            continue;
        int wrote = snprintf(text + used, sizeof text - used, "; thread (%u, %u, %u) waits in %s (%s:%d)", t.index.x,
                             t.index.y, t.index.z, t.at.what, base_name(t.at.file), t.at.line);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
    fail("block (%u, %u, %u): %u of %zu threads wait for what never comes%s", b.index.x, b.index.y, b.index.z,
         (unsigned)b.threads.size() - b.done, b.threads.size(), text);
}

bool is_done(const block_state &b)
{
    return b.done == b.threads.size();
}

// Those that sleep look again in the next round.
bool wake(std::vector<block_state *> &blocks)
{
    bool woken = false;
    for (block_state *b : blocks) {
        woken = woken || !b->asleep.empty();
        make_all_ready(b->asleep);
    }
    return woken;
}

// All of these live at once.
void run_blocks(std::vector<block_state *> &blocks)
{
    unsigned idle = 0;
    while (!now.failed) {
        uint64_t before = now.progress;
        const block_state *unfinished = NULL;
        for (block_state *b : blocks) {
            while (!now.failed && run_one(b))
                continue;
            unfinished = is_done(*b) ? unfinished : b;
        }
        if (!unfinished)
            return;
        idle = now.progress == before ? idle + 1 : 0;
        if (!now.failed && (!wake(blocks) || idle > IDLE_ROUNDS))
            describe(*unfinished);
    }
    // What the threads had on their stacks is gone with them.
    for (block_state *b : blocks)
        for (thread_state_of &t : b->threads)
            if (t.on)
                fiber_destroy(t.on);
}

uint3 position(unsigned linear, const unsigned size[3])
{
    return { linear % size[0], linear / size[0] % size[1], linear / size[0] / size[1] };
}

void start_block(block_state *b, unsigned number)
{
    const host_launch *launch = now.launch;
    size_t size = (size_t)launch->block[0] * launch->block[1] * launch->block[2];
    b->index = position(number, launch->grid);
    b->started = b->done = 0;
    b->threads.assign(size, {});
    b->warps.resize((size + WARP - 1) / WARP);
    for (size_t w = 0; w < b->warps.size(); w++) {
        size_t lanes = size - w * WARP < WARP ? size - w * WARP : WARP;
        b->warps[w].gone = lanes == WARP ? 0 : ~0u << lanes;
        b->warps[w].meetings.clear();
    }
    for (size_t i = 0; i < size; i++) {
        thread_state_of *t = &b->threads[i];
        t->index = position((unsigned)i, launch->block);
        t->lane = (unsigned)(i % WARP);
        t->warp = (unsigned)(i / WARP);
        t->block = b;
    }
    if (!b->shared && launch->shared)
        b->shared.reset(new unsigned char[launch->shared]);
    if (launch->shared)
        memset(b->shared.get(), NAN_BYTE, launch->shared);
}

std::vector<unsigned> ordered(unsigned count)
{
    std::vector<unsigned> numbers(count);
    host_order(numbers.data(), count);
    return numbers;
}
} // namespace

extern "C" void host_order(unsigned *numbers, unsigned count)
{
    read_order();
    for (unsigned i = 0; i < count; i++)
        numbers[i] = order.kind == REVERSE ? count - 1 - i : i;
    for (unsigned i = count; order.kind == SHUFFLED && i > 1; i--)
        std::swap(numbers[i - 1], numbers[draw(i)]);
}

extern "C" bool host_launch_run(const host_launch *launch, const lf_call *call, char *why, size_t size)
{
    const unsigned *grid = launch->grid, *block = launch->block;
    unsigned count = grid[0] * grid[1] * grid[2];
    now.launch = launch;
    now.call = call;
    now.why = why;
    now.size = size;
    now.failed = false;
    now.thread_order = ordered(block[0] * block[1] * block[2]);
    blockDim = { block[0], block[1], block[2] };
    gridDim = { grid[0], grid[1], grid[2] };
    std::vector<block_state> blocks(launch->cooperative ? count : 1);
    std::vector<block_state *> live;
    for (block_state &b : blocks)
        live.push_back(&b);
    std::vector<unsigned> numbers = ordered(count);
    for (unsigned i = 0; !now.failed && i < count; i += (unsigned)blocks.size()) {
        for (size_t b = 0; b < blocks.size(); b++)
            start_block(live[b], numbers[i + b]);
        run_blocks(live);
    }
    return !now.failed;
}

void *lf_host_shared(void)
{
    return now.thread->block->shared.get();
}

void lf_host_barrier(lf_host_place place)
{
    block_state *b = now.thread->block;
    if (!b->at_barrier.empty()) {
        const lf_host_place &other = b->at_barrier[0]->at;
        if (!is_same_call(other, place))
            fail("threads of a block meet in different barriers: __syncthreads at %s:%d and at %s:%d",
                 base_name(other.file), other.line, base_name(place.file), place.line);
    }
    b->at_barrier.push_back(now.thread);
    now.thread->state = AT_BARRIER;
    now.thread->at = place;
    check_barrier(b);
    fiber_leave(now.thread->on);
}

void lf_host_sleep(lf_host_place place)
{
    now.thread->block->asleep.push_back(now.thread);
    wait_in(SLEEPS, place);
}

uint64_t lf_host_meet(lf_host_place place, unsigned mask, uint64_t value, lf_host_lane from, int argument, int width)
{
    thread_state_of *t = now.thread;
    std::vector<meeting> &meetings = t->block->warps[t->warp].meetings;
    meeting *m = NULL;
    t->at = place;
    t->brings = value;
    t->from = from;
    t->argument = argument;
    t->width = width;
    if (!(mask >> t->lane & 1))
        fail("%s (%s:%d): lane %u is not in its own mask %#x", place.what, base_name(place.file), place.line, t->lane,
             mask);
    for (meeting &other : meetings)
        m = other.mask == mask ? &other : m;
    if (!m) {
        meetings.push_back({ mask, 0 });
        m = &meetings.back();
    }
    if (m->arrived) {
        const thread_state_of *first = lane_of(t, (unsigned)__builtin_ctz(m->arrived));
        if (!is_same_call(first->at, place))
            fail("lanes %u and %u of a warp meet in different calls: %s (%s:%d) and %s (%s:%d)", first->lane, t->lane,
                 first->at.what, base_name(first->at.file), first->at.line, place.what, base_name(place.file),
                 place.line);
    }
    m->arrived |= 1u << t->lane;
    check_meeting(t, m);
    if (now.failed || m->arrived)
        wait_in(MEETS, place);
    return t->gets;
}
