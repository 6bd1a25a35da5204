/* Fused GEMV + AllReduce, two-phase direct.
 *
 * Rank r holds columns [r K / N, (r + 1) K / N) of the matrix and computes the partial product of all M rows.
 * Slice j (M / N rows) belongs to rank j. Every workgroup loops over its tiles of every slice, remote slices
 * first: it stores them straight into the owner's `partials` and raises one flag at the owner. The owner's
 * workgroup of the same number waits for one flag a peer, reduces its tiles over all N partials, stores the
 * sums into every peer's `results`, raises one flag a peer, and waits for the peers' results.
 */
#include "fused.h"

enum { REMOTE_TILES, LOCAL_TILES, WAIT_PARTIALS, REDUCE, WAIT_RESULTS }; /* phases, in order */
enum { PARTIALS, RESULTS };                                             /* regions and exchanges */
enum { FUSED_EXCHANGES = 2 };

struct fused_job {
    fused_base base;
    eidola_i64 rows, columns, tile_rows;
    const float *const *matrix;  /* rows, the rank's columns */
    const float *const *vectors; /* iterations, the rank's columns */
    float *const *partials;      /* ranks (source), rows / ranks */
};

EIDOLA_FN int fused_wait_phase(int exchange) { return exchange == PARTIALS ? WAIT_PARTIALS : WAIT_RESULTS; }

/* A row's product, by a warp. */
EIDOLA_FN float dot(const float *a, const float *b, eidola_i64 count)
{
    float sum = 0;
    for (eidola_i64 i = FUSED_LANE; i < count; i += FUSED_WARP)
        sum += a[i] * b[i];
    return fused_sum(sum);
}

/* One workgroup's tiles of slice `owner`, straight into the owner's buffer. */
EIDOLA_FN void multiply_slice(fused_group *group, eidola_i64 owner)
{
    const fused_job *job = group->job;
    eidola_i64 rank = group->rank, ranks = job->base.ranks, rows = job->rows / ranks;
    eidola_i64 columns = (rank + 1) * job->columns / ranks - rank * job->columns / ranks;
    const float *matrix = job->matrix[rank] + owner * rows * columns;
    const float *vector = job->vectors[rank] + (group->epoch - 1) * columns;
    float *partials = job->partials[owner] + rank * rows;
    for (eidola_i64 row = group->number * job->tile_rows; row < rows; row += job->base.workgroups * job->tile_rows) {
        eidola_i64 end = fused_smaller(row + job->tile_rows, rows);
        for (eidola_i64 i = row + FUSED_ROW; i < end; i += FUSED_ROWS) {
            float sum = dot(matrix + i * columns, vector, columns);
            if (FUSED_LANE == 0)
                partials[i] = sum;
        }
        if (owner != rank)
            fused_wrote(group, PARTIALS, owner, end - row, rank * rows + row);
    }
}

EIDOLA_FN void multiply(fused_group *group)
{
    const fused_base *base = &group->job->base;
    eidola_phase_begin(&group->probe, REMOTE_TILES, group->epoch);
    for (eidola_i64 hop = 1; hop < base->ranks; hop++) {
        eidola_i64 peer = fused_peer(base, group->rank, hop);
        multiply_slice(group, peer);
        fused_raise(group, base, PARTIALS, peer);
    }
    eidola_phase_end(&group->probe, REMOTE_TILES, group->epoch);
    eidola_phase_begin(&group->probe, LOCAL_TILES, group->epoch);
    multiply_slice(group, group->rank);
    fused_sync();
    eidola_phase_end(&group->probe, LOCAL_TILES, group->epoch);
}

/* Sum one tile over all sources into the rank's own results, then store it into every peer's. */
EIDOLA_FN void reduce_tile(fused_group *group, eidola_i64 row, eidola_i64 end)
{
    const fused_job *job = group->job;
    const fused_base *base = &job->base;
    eidola_i64 rows = job->rows / base->ranks, first = group->rank * rows;
    const float *partials = job->partials[group->rank];
    float *own = fused_result(base, group->rank, group->epoch) + first;
    for (eidola_i64 i = row + FUSED_THREAD; i < end; i += FUSED_THREADS) {
        float sum = partials[i];
        for (eidola_i64 source = 1; source < base->ranks; source++)
            sum += partials[source * rows + i];
        own[i] = sum;
    }
    for (eidola_i64 hop = 1; hop < base->ranks; hop++) {
        eidola_i64 peer = fused_peer(base, group->rank, hop);
        float *there = fused_result(base, peer, group->epoch) + first;
        for (eidola_i64 i = row + FUSED_THREAD; i < end; i += FUSED_THREADS)
            there[i] = own[i];
        fused_wrote(group, RESULTS, peer, end - row, first + row);
    }
}

EIDOLA_FN void reduce(fused_group *group)
{
    const fused_job *job = group->job;
    eidola_i64 rows = job->rows / job->base.ranks;
    eidola_phase_begin(&group->probe, REDUCE, group->epoch);
    for (eidola_i64 row = group->number * job->tile_rows; row < rows; row += job->base.workgroups * job->tile_rows)
        reduce_tile(group, row, fused_smaller(row + job->tile_rows, rows));
    for (eidola_i64 hop = 1; hop < job->base.ranks; hop++)
        fused_raise(group, &job->base, RESULTS, fused_peer(&job->base, group->rank, hop));
    eidola_phase_end(&group->probe, REDUCE, group->epoch);
}

EIDOLA_FN void fused_work(fused_group *group, int exchange)
{
    if (exchange == PARTIALS)
        multiply(group);
    else
        reduce(group);
}

#include "fused_run.h"
