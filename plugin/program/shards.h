// Called by compile: the options of shards, and the rewrite of a program for those that a device holds.
#ifndef LF_PROGRAM_SHARDS_H
#define LF_PROGRAM_SHARDS_H

#include "program/builder.h"

bool lf_shards_check(const lf_compile_params *params, lf_error *err);

// The operations so far, all up to the gradients of one shard, become those of all that the program holds;
// program->grads is then the total's, once the exchanges are done. Exchanges name operations until lf_segments_number.
void lf_builder_spread(lf_builder *b);

#endif
