// What each step of a stretch is told: its rows, its rates, and what its gradient is divided by.
#include "abi.h"
#include "train/session_program.h"

// A stretch whose first step follows `step` steps of the training.
typedef struct plan {
    const lf_session_params *p;
    const lf_part *part;
    const lf_stretch *stretch;
    uint64_t step;
    double lr_scale;
} plan;

uint32_t lf_session_steps(const lf_session_params *p, uint32_t rows)
{
    return (rows + p->batch - 1) / p->batch;
}

// 1 / sum of the weights of the rows of the update that begins at position `first` of the stretch.
static float inv_weight(const plan *s, uint32_t first)
{
    uint32_t whole = lf_session_unit(s->p, s->part), left = s->stretch->rows - first,
             rows = left < whole ? left : whole;
    double sum = rows;
    if (s->stretch->weights) {
        sum = 0;
        for (uint32_t i = 0; i < rows; i++)
            sum += (double)s->stretch->weights[first + i];
    }
    return sum > 0 ? (float)(1 / sum) : 0;
}

// What is the same for all steps of one update: rates, and what the gradient is divided by, which is handed from row to
// row.
static void fill_row(const plan *s, uint32_t step, struct lf_schedule_row *row)
{
    const lf_session_params *p = s->p;
    uint32_t first = step * p->batch, left = s->stretch->rows - first, share = lf_session_together(p, s->part);
    uint64_t pass_steps = (s->part->rows + p->batch - 1) / p->batch, in_pass = s->stretch->position / p->batch + step;
    uint64_t update = s->stretch->pass * ((pass_steps + share - 1) / share) + in_pass / share;
    bool begins = in_pass % share == 0;
    *row = (struct lf_schedule_row){ .first = first, .rows = left < p->batch ? left : p->batch };
    row->inv_rows = 1 / (float)row->rows;
    row->inv_weight = begins ? inv_weight(s, first) : row[-1].inv_weight;
    row->begins = begins;
    row->updates = in_pass % share == share - 1 || in_pass == pass_steps - 1;
    row->step = (uint32_t)(s->step + step);
    double lr = p->optimizer.lr;
    if (p->schedule)
        lr = lf_schedule_lr(p->schedule, lr, &p->span, update);
    lf_schedule_rates(&p->optimizer, lr * s->lr_scale, update, row);
}

size_t lf_session_schedule(const lf_session_params *p, const lf_part *part, const lf_stretch *stretch, uint64_t step,
                           double lr_scale, uint32_t *schedule)
{
    const plan s = { p, part, stretch, step, lr_scale };
    struct lf_schedule_row *rows = (struct lf_schedule_row *)(schedule + LF_SCHEDULE_HEADER_WORDS);
    uint32_t steps = lf_session_steps(p, stretch->rows);
    for (uint32_t i = 0; i < steps; i++)
        fill_row(&s, i, &rows[i]);
    *(struct lf_schedule_header *)schedule =
        (struct lf_schedule_header){ .seed_low = (uint32_t)p->seed, .seed_high = (uint32_t)(p->seed >> 32) };
    return sizeof(struct lf_schedule_header) + steps * sizeof *rows;
}
