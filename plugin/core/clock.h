// Everyone may call.
#ifndef LF_CORE_CLOCK_H
#define LF_CORE_CLOCK_H

// Seconds of a clock that only goes forward, from some moment of this process's machine.
double lf_clock(void);

#endif
