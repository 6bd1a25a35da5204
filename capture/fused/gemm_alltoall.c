/* Fused GEMM + All-to-All, as a mixture of experts combines: each rank's rows go back to where they came from.
 *
 * Every rank multiplies its own `rows` x `inner` by `inner` x `columns`; slice j of its rows belongs to rank j.
 * Workgroups compute tiles of the remote slices first, each straight into its owner's `results` (source rank,
 * then the slice tile by tile, in rows of tiles; a tile's elements lie together), and raise one flag a peer.
 */
#include "fused.h"
#include "scatter.h"

struct fused_job {
    fused_base base;
    eidola_i64 rows, columns, inner, tile_rows, tile_columns;
    const float *const *left;  /* rows, inner */
    const float *const *right; /* iterations, inner, columns */
};

/* `height` x `width` elements of the product of `left` (its first row) and `right` (its first column). */
EIDOLA_FN void multiply_tile(const fused_job *job, const float *left, const float *right, eidola_i64 height,
                             eidola_i64 width, float *there)
{
    for (eidola_i64 e = FUSED_THREAD; e < height * width; e += FUSED_THREADS) {
        const float *row = left + e / width * job->inner, *column = right + e % width;
        float sum = 0;
        for (eidola_i64 k = 0; k < job->inner; k++)
            sum += row[k] * column[k * job->columns];
        there[e] = sum;
    }
}

EIDOLA_FN void scatter_slice(fused_group *group, eidola_i64 owner)
{
    const fused_job *job = group->job;
    const fused_base *base = &job->base;
    eidola_i64 rows = job->rows / base->ranks, columns = job->columns;
    eidola_i64 across = (columns + job->tile_columns - 1) / job->tile_columns;
    eidola_i64 tiles = (rows + job->tile_rows - 1) / job->tile_rows * across;
    const float *left = job->left[group->rank] + owner * rows * job->inner;
    const float *right = job->right[group->rank] + (group->epoch - 1) * job->inner * columns;
    float *there = fused_result(base, owner, group->epoch) + group->rank * rows * columns;
    for (eidola_i64 tile = group->number; tile < tiles; tile += base->workgroups) {
        eidola_i64 row = tile / across * job->tile_rows, column = tile % across * job->tile_columns;
        eidola_i64 height = fused_smaller(job->tile_rows, rows - row);
        eidola_i64 width = fused_smaller(job->tile_columns, columns - column);
        eidola_i64 first = row * columns + height * column;
        multiply_tile(job, left + row * job->inner, right + column, height, width, there + first);
        if (owner != group->rank)
            fused_wrote(group, RESULTS, owner, height * width, group->rank * rows * columns + first);
    }
}

#include "fused_run.h"
