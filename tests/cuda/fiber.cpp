#include "fiber.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

// AddressSanitizer is told of every switch, and forgets what an abandoned fiber had on its stack.
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define BEFORE_SWITCH(keep, bottom, size) __sanitizer_start_switch_fiber(keep, bottom, size)
#define AFTER_SWITCH(kept, bottom, size)  __sanitizer_finish_switch_fiber(kept, bottom, size)
#define FORGET(bottom, size)              __asan_unpoison_memory_region(bottom, size)
enum { STACK_SIZE = 512 << 10 };
#else
#define BEFORE_SWITCH(keep, bottom, size) ((void)(keep), (void)(bottom), (void)(size))
#define AFTER_SWITCH(kept, bottom, size)  ((void)(kept), (void)(bottom), (void)(size))
#define FORGET(bottom, size)              ((void)(bottom), (void)(size))
enum { STACK_SIZE = 64 << 10 };
#endif

// What a switch keeps and loads. swapcontext would do it everywhere, at two system calls a switch.
#if defined(__x86_64__) && !defined(LF_FIBER_PORTABLE)
struct state {
    void *stack;
};
extern "C" void lf_fiber_switch(void **keep, void *load);
asm(".text\n"
    ".globl lf_fiber_switch\n"
    ".hidden lf_fiber_switch\n"
    ".type lf_fiber_switch, @function\n"
    "lf_fiber_switch:\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n"
    ".size lf_fiber_switch, .-lf_fiber_switch\n");

static void state_switch(state *keep, state *load)
{
    lf_fiber_switch(&keep->stack, load->stack);
}

static void state_init(state *s, char *stack, size_t size, void (*entry)(void))
{
    enum { SAVED = 6 };
    void **top = (void **)(stack + size) - 1; // where a return address would stand: at 8 modulo 16
    top[0] = NULL;
    top[-1] = (void *)entry;
    for (int i = 0; i < SAVED; i++)
        top[-2 - i] = NULL;
    s->stack = top - 1 - SAVED;
}
#else
struct state {
    ucontext_t context;
};

static void state_switch(state *keep, state *load)
{
    swapcontext(&keep->context, &load->context);
}

static void state_init(state *s, char *stack, size_t size, void (*entry)(void))
{
    getcontext(&s->context);
    s->context.uc_stack.ss_sp = stack;
    s->context.uc_stack.ss_size = size;
    s->context.uc_link = NULL;
    makecontext(&s->context, entry, 0);
}
#endif

struct fiber {
    state here;
    char *stack;
    void *fake; // AddressSanitizer's
    void (*run)(void);
};

// Who resumes: one at a time, under the driver's lock.
static struct {
    state here;
    fiber *resumed;
    void *fake;
    const void *bottom;
    size_t size;
} home;

static void enter(void)
{
    AFTER_SWITCH(NULL, &home.bottom, &home.size);
    home.resumed->run();
    abort();
}

fiber *fiber_create(void (*run)(void))
{
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    fiber *f = (fiber *)calloc(1, sizeof *f);
    void *memory =
        f ? mmap(NULL, guard + STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
          : MAP_FAILED;
    if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) {
        fprintf(stderr, "no memory for the stack of a fiber\n");
        abort();
    }
    f->stack = (char *)memory + guard;
    f->run = run;
    state_init(&f->here, f->stack, STACK_SIZE, enter);
    return f;
}

void fiber_destroy(fiber *f)
{
    size_t guard = (size_t)sysconf(_SC_PAGESIZE);
    FORGET(f->stack, STACK_SIZE);
    munmap(f->stack - guard, guard + STACK_SIZE);
    free(f);
}

void fiber_resume(fiber *f)
{
    home.resumed = f;
    BEFORE_SWITCH(&home.fake, f->stack, STACK_SIZE);
    state_switch(&home.here, &f->here);
    AFTER_SWITCH(home.fake, NULL, NULL);
}

void fiber_leave(fiber *f)
{
    BEFORE_SWITCH(&f->fake, home.bottom, home.size);
    state_switch(&f->here, &home.here);
    AFTER_SWITCH(f->fake, &home.bottom, &home.size);
}
