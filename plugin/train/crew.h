// A thread for each member of a team, on which it makes its steps. team.c calls this.
#ifndef LF_TRAIN_CREW_H
#define LF_TRAIN_CREW_H

#include "train/member.h"

typedef struct lf_crew lf_crew;

// `members` [count] and `exchanger` are borrowed. NULL on failure.
lf_crew *lf_crew_create(lf_member *members, unsigned count, lf_exchanger *exchanger, lf_error *err);
void lf_crew_destroy(lf_crew *crew);

// Those whose devices are not lost work until they have made `target` steps, or one fails, whose device is lost then.
// Nobody works when it returns.
void lf_crew_run(lf_crew *crew, uint64_t target);

#endif
