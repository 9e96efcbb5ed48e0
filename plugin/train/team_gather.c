#include "train/team.h"

#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "ranks/ranks.h"

bool lf_team_gather(const lf_team *team, float *metrics, uint32_t steps, uint32_t rows, lf_error *err)
{
    uint32_t rank, rank_count, shards, first, count, own_first, own_count;
    lf_team_place(team, &rank, &rank_count, &shards);
    if (rank_count <= 1)
        return true;
    size_t step = (size_t)rows * LF_METRIC_COUNT, shard = step / shards, most = 0;
    for (uint32_t r = 0; r < rank_count; r++) {
        lf_team_rank_shards(team, r, &first, &count);
        most = count > most ? count : most;
    }
    lf_team_rank_shards(team, rank, &own_first, &own_count);
    size_t piece = steps * most * shard; // of a process: its shards, step after step
    float *own = calloc((rank_count + 1) * piece, sizeof *own), *gathered = own ? own + piece : NULL;
    if (!own) {
        lf_error_set(err, LF_ENOMEM, "metrics of %u processes: out of memory", rank_count);
        return false;
    }
    for (uint32_t i = 0; i < steps; i++)
        memcpy(own + i * most * shard, metrics + i * step + own_first * shard, own_count * shard * sizeof *own);
    bool ok = lf_ranks_gather(own, piece * sizeof *own, gathered, err);
    for (uint32_t r = 0; ok && r < rank_count; r++) {
        lf_team_rank_shards(team, r, &first, &count);
        for (uint32_t i = 0; i < steps; i++)
            memcpy(metrics + i * step + first * shard, gathered + r * piece + i * most * shard,
                   count * shard * sizeof *own);
    }
    free(own);
    return ok;
}
