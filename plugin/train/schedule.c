#include "train/schedule.h"

#include <math.h>

double lf_schedule_lr(const lf_optimizer *optimizer, uint64_t step)
{
    (void)step; // constant so far
    return optimizer->lr;
}

void lf_schedule_rates(const lf_optimizer *optimizer, uint64_t step, struct lf_schedule_row *row)
{
    double lr = lf_schedule_lr(optimizer, step), update = (double)step + 1;
    row->step = (uint32_t)step;
    row->lr = (float)lr;
    row->step_size = (float)(lr / (1 - pow((double)optimizer->beta1, update)));
    row->inv_sqrt_correct2 = (float)(1 / sqrt(1 - pow((double)optimizer->beta2, update)));
}
