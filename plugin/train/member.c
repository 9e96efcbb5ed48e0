#include "train/member.h"

#include <string.h>

#include "abi.h"
#include "core/clock.h"

// The last segment that runs without an exchange, from `segment` on.
static uint32_t run_end(const lf_program *program, uint32_t segment)
{
    uint32_t end = program->ops[program->op_count - 1].segment;
    for (size_t i = 0; i < program->exchange_count; i++) {
        const lf_exchange *e = &program->exchanges[i];
        if (e->after >= segment && e->after < end)
            end = e->after;
        if (e->before > segment && e->before - 1 < end)
            end = e->before - 1;
    }
    return end;
}

// Its rows of the step's metrics, which must be safe before the step can no longer be done again.
static bool read_metrics(lf_member *m, uint64_t step)
{
    const lf_program *program = m->replica->program;
    size_t size = (size_t)program->params.batch * LF_METRIC_COUNT, rows = (size_t)program->shard_rows * LF_METRIC_COUNT;
    uint64_t row = m->job->row + (step - m->job->base);
    if (!lf_replica_read(m->replica, LF_REGION_METRICS, row * size * sizeof(float), m->metrics, size * sizeof(float),
                         &m->replica->error))
        return false;
    for (uint32_t i = 0; i < m->held_count; i++)
        memcpy(m->job->metrics + (step - m->job->base) * size + m->held[i] * rows, m->metrics + m->held[i] * rows,
               rows * sizeof(float));
    return true;
}

static uint64_t training_step(const lf_member *m, uint64_t step)
{
    return m->job->step + (step - m->job->base) + 1;
}

static bool fails(lf_member *m, uint64_t step, uint32_t sum)
{
    return lf_fault_is_due(m->faults, m->replica->device, training_step(m, step), sum, &m->replica->error);
}

static lf_member_outcome give_parts(lf_member *m, size_t index, uint64_t step)
{
    lf_exchanger *x = m->exchanger;
    const lf_program *program = m->replica->program;
    const lf_exchange *e = &program->exchanges[index];
    if (index + 1 == program->exchange_count && !read_metrics(m, step))
        return LF_MEMBER_FAILED;
    for (size_t i = 0; i < e->part_count; i++) {
        const lf_tensor *tensor = &program->tensors[e->parts[i].tensor];
        bool stopped;
        float *values = lf_exchanger_part(x, index, e->parts[i].first, step, &stopped);
        if (stopped)
            return LF_MEMBER_STOPPED;
        if (!values) // the total is there from before a device was lost
            return LF_MEMBER_DONE;
        if (!lf_exchanger_is_linked(x, index) && !lf_replica_read(m->replica, tensor->region, tensor->offset, values,
                                                                  lf_tensor_bytes(tensor), &m->replica->error))
            return LF_MEMBER_FAILED;
    }
    lf_exchanger_give(x, index, m->number);
    return fails(m, step, (uint32_t)index + 1) ? LF_MEMBER_FAILED : LF_MEMBER_DONE;
}

static lf_member_outcome take_total(lf_member *m, size_t index, uint64_t step)
{
    const lf_program *program = m->replica->program;
    const lf_tensor *tensor = &program->tensors[program->exchanges[index].total];
    const float *total = lf_exchanger_total(m->exchanger, index, step);
    if (!total)
        return LF_MEMBER_STOPPED;
    bool ok = lf_exchanger_is_linked(m->exchanger, index) ||
              lf_replica_write(m->replica, tensor->region, tensor->offset, total, lf_tensor_bytes(tensor),
                               &m->replica->error);
    if (!ok)
        return LF_MEMBER_FAILED;
    lf_exchanger_take(m->exchanger, index);
    return LF_MEMBER_DONE;
}

static lf_member_outcome compute(lf_member *m, uint32_t first, uint32_t last)
{
    double start = lf_clock();
    lf_device *device = m->replica->device;
    bool ok = lf_device_exec_run(device, m->replica->exec, first, last, 1, &m->replica->error) &&
              lf_device_wait(device, &m->replica->error);
    double took = lf_clock() - start;
    m->busy += took;
    uint32_t update = 0, end;
    lf_program_segments(m->replica->program, LF_PHASE_REDUCE, LF_PHASE_UPDATE, &update, &end);
    if (m->done > m->measured_from && last < update)
        m->measured += took;
    return ok ? LF_MEMBER_DONE : LF_MEMBER_FAILED;
}

lf_member_outcome lf_member_step(lf_member *m, uint64_t step)
{
    const lf_program *program = m->replica->program;
    uint32_t last = program->ops[program->op_count - 1].segment;
    if (fails(m, step, 0))
        return LF_MEMBER_FAILED;
    for (uint32_t segment = 0, end; segment <= last; segment = end + 1) {
        for (size_t i = 0; i < program->exchange_count; i++)
            if (program->exchanges[i].before == segment) {
                lf_member_outcome taken = take_total(m, i, step);
                if (taken != LF_MEMBER_DONE)
                    return taken;
            }
        end = run_end(program, segment);
        if (compute(m, segment, end) != LF_MEMBER_DONE)
            return LF_MEMBER_FAILED;
        for (size_t i = 0; i < program->exchange_count; i++)
            if (program->exchanges[i].after == end) {
                lf_member_outcome given = give_parts(m, i, step);
                if (given != LF_MEMBER_DONE)
                    return given;
            }
    }
    return program->exchange_count || read_metrics(m, step) ? LF_MEMBER_DONE : LF_MEMBER_FAILED;
}
