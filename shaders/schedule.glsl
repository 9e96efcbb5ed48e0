// The schedule's row of this step. Define LF_SCHEDULE_SLOT, the operand's position, before the include; the push
// constants hold `step`, the number of the step within the submission.
LF_READ_WORDS(LF_SCHEDULE_SLOT, schedule)

// Row of the stretch that this step stands at.
uint lf_schedule_position(uint step)
{
    return LF_LOAD4(schedule, 0).x + step;
}

// How many rows of a shard are the batch's, where `start` is the batch's row that is its first.
uint lf_valid_rows(lf_schedule_row now, uint start)
{
    return now.rows - min(start, now.rows);
}

// Seed of the training: its low word, then the high one.
uvec2 lf_schedule_seed()
{
    return LF_LOAD4(schedule, 0).yz;
}

lf_schedule_row lf_schedule_at(uint position)
{
    uint at = (LF_SCHEDULE_HEADER_WORDS + position * LF_SCHEDULE_ROW_WORDS) / 4;
    uvec4 a = LF_LOAD4(schedule, at), b = LF_LOAD4(schedule, at + 1), c = LF_LOAD4(schedule, at + 2);
    return lf_schedule_row(a.x, a.y, uintBitsToFloat(a.z), uintBitsToFloat(a.w), uintBitsToFloat(b.x),
                           uintBitsToFloat(b.y), uintBitsToFloat(b.z), b.w, c.x, c.y, uint[2](c.z, c.w));
}
