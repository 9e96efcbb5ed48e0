// Called by compile: the rewrite of a program for the shards that a device holds. lf_shards_check is here too.
#ifndef LF_PROGRAM_SHARDS_H
#define LF_PROGRAM_SHARDS_H

#include "program/builder.h"

// The operations so far, all up to the gradients of one shard, become those of all that the program holds;
// program->grads is then the total's, once the exchanges are done. Exchanges name operations until lf_segments_number.
void lf_builder_spread(lf_builder *b);

#endif
