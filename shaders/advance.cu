// advance: counter += step   the first word of the schedule, operand 0. One thread.
#include "common.cuh"

LF_KERNEL(advance, 1)
{
    lf_operand<lf_schedule_header>(call, 0)->counter += call.step;
}
