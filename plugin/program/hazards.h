// Called by compile, once a program's operations are complete.
#ifndef LF_PROGRAM_HAZARDS_H
#define LF_PROGRAM_HAZARDS_H

#include "program/program.h"

void lf_hazards_mark(lf_program *program);

#endif
