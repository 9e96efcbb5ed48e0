// Stacks of their own between which one thread of the host switches: a fiber runs until it leaves, and goes on where it
// left when it is resumed.
#ifndef LF_CUDA_FIBER_H
#define LF_CUDA_FIBER_H

struct fiber;

// `run` must not return: it leaves for good. Never NULL; without memory for a stack the process ends.
fiber *fiber_create(void (*run)(void));
void fiber_destroy(fiber *f); // wherever it stands
void fiber_resume(fiber *f);  // returns when it leaves
void fiber_leave(fiber *f);   // called on it

#endif
