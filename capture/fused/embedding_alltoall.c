/* Fused embedding + All-to-All, as recommendation models with sharded tables do it.
 *
 * Every rank holds `tables` tables and pools (sums) `pooling` of their rows for every sample of the whole batch;
 * slice j of the samples belongs to rank j. Workgroups store tiles of samples straight into the owner's
 * `results` (source rank, sample of the slice, table, element), remote slices first, and raise one flag a peer.
 */
#include "fused.h"
#include "scatter.h"

struct fused_job {
    fused_base base;
    eidola_i64 batch, tables, entries, dimension, pooling, tile_samples;
    const float *const *weights; /* tables, entries, dimension */
    const int *const *indices;   /* iterations, batch, tables, pooling */
};

EIDOLA_FN void scatter_slice(fused_group *group, eidola_i64 owner)
{
    const fused_job *job = group->job;
    const fused_base *base = &job->base;
    eidola_i64 length = job->batch / base->ranks, dimension = job->dimension, words = job->tables * dimension;
    const int *indices = job->indices[group->rank];
    eidola_i64 first_sample = (eidola_i64)(group->epoch - 1) * job->batch + owner * length;
    float *there = fused_result(base, owner, group->epoch) + group->rank * length * words;
    for (eidola_i64 tile = group->number * job->tile_samples; tile < length; tile += base->workgroups * job->tile_samples) {
        eidola_i64 end = fused_smaller(tile + job->tile_samples, length);
        for (eidola_i64 bag = tile * job->tables + FUSED_ROW; bag < end * job->tables; bag += FUSED_ROWS) {
            const int *picked = indices + (first_sample * job->tables + bag) * job->pooling;
            const float *table = job->weights[group->rank] + bag % job->tables * job->entries * dimension;
            for (eidola_i64 d = FUSED_LANE; d < dimension; d += FUSED_WARP) {
                float sum = 0;
                for (eidola_i64 p = 0; p < job->pooling; p++)
                    sum += table[picked[p] * dimension + d];
                there[bag * dimension + d] = sum;
            }
        }
        if (owner != group->rank)
            fused_wrote(group, RESULTS, owner, (end - tile) * words, (group->rank * length + tile) * words);
    }
}

#include "fused_run.h"
