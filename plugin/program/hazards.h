// Called by compile, once a program's operations are complete: which of them are run together, and where barriers are.
#ifndef LF_PROGRAM_HAZARDS_H
#define LF_PROGRAM_HAZARDS_H

#include "program/program.h"

// A segment ends with its phase, and before an operation with `cut`, where devices exchange. Exchanges name operations
// until here, and their segments from here on.
void lf_segments_number(lf_program *program);
void lf_hazards_mark(lf_program *program);

#endif
