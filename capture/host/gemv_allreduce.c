/* Fused GEMV + AllReduce, two-phase direct, on CPU threads: a thread a rank, its workgroups state machines.
 *
 * Rank r holds columns [r K / N, (r + 1) K / N) of the matrix and computes the partial product of all M rows.
 * Slice j (M / N rows) belongs to rank j. Every workgroup loops over its tiles of every slice, remote slices
 * first: it stores them straight into the owner's `partials`, then raises one flag at the owner. The owner's
 * workgroup of the same number waits for one flag a peer, reduces its tiles over all N partials, stores the
 * sums into every peer's `results`, raises one flag a peer, and waits for the peers' results.
 *
 * Flags: data are plain stores, published by a release store of the epoch, seen through acquire loads. Epochs
 * only grow, so that no flag is ever reset. An epoch's buffers are free again when the next one needs them:
 * a workgroup leaves an epoch only after every peer's workgroup of its number has reduced (and so read) it.
 */
#include "eidola_probe.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REMOTE_TILES, LOCAL_TILES, WAIT_PARTIALS, REDUCE, WAIT_RESULTS, DONE }; /* phases, in order */
enum { PARTIALS, RESULTS };                                                   /* regions */

typedef struct {
    _Alignas(64) _Atomic uint64_t value; /* a cache line a flag */
} flag_line;

typedef struct {
    uint64_t start_ns, end_ns, cpu_ns;
    uint64_t idle_rounds, idle_ns; /* rounds in which every workgroup waited, sched_yield included */
} rank_report;

typedef struct {
    _Atomic uint64_t aborted;
    uint64_t rank, workgroup, flag, expected, seen;
} failure_report;

/* Mirrored by _Job in gemv_allreduce.py. Shapes in C order. */
typedef struct {
    int64_t ranks, workgroups, iterations, tile_rows, rows, columns, record_capacity;
    int64_t deadline_ns;
    int64_t mute_rank;       /* this rank never raises a flag (fault injection); -1: none */
    const float *matrix;     /* rows, columns */
    const float *vectors;    /* iterations, columns */
    float *partials;         /* ranks, ranks (source), rows / ranks */
    float *results;          /* ranks, rows */
    float *outputs;          /* ranks, iterations, rows: copies of results */
    eidola_record *records;  /* ranks, workgroups, record_capacity */
    uint64_t *emitted;       /* ranks, workgroups */
    rank_report *reports;    /* ranks */
    failure_report *failure;
    flag_line *flags;        /* ranks, 2 (region), ranks (source), workgroups; ours, not the caller's */
} gemv_job;

typedef struct {
    eidola_probe probe;
    int64_t number;
    int phase;
    int64_t hop;   /* how far away the peer is that it waits for now: 1 .. ranks - 1 */
    uint64_t polls, wait_start_ns;
} workgroup;

typedef struct {
    gemv_job *job;
    _Atomic int64_t *arrived; /* start barrier */
    int64_t rank;
    int64_t epoch;
    workgroup *workgroups;
} rank_state;

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t slice_rows(const gemv_job *job) { return job->rows / job->ranks; }

static int64_t flag_index(const gemv_job *job, int region, int64_t source, int64_t number)
{
    return (region * job->ranks + source) * job->workgroups + number;
}

static _Atomic uint64_t *flag_at(gemv_job *job, int64_t rank, int64_t flag)
{
    return &job->flags[rank * 2 * job->ranks * job->workgroups + flag].value;
}

static void note_phase(rank_state *rank, workgroup *group, int kind, int phase)
{
    uint64_t cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    eidola_note(&group->probe, now_ns(), kind, phase, EIDOLA_NO_PEER, EIDOLA_NO_FLAG, rank->epoch, cpu_ns);
}

static void note_data(workgroup *group, int region, int64_t peer, int64_t first, int64_t count)
{
    eidola_note(&group->probe, now_ns(), EIDOLA_DATA_WRITE, region, peer, EIDOLA_NO_FLAG, count * sizeof(float),
                first * sizeof(float));
}

static void raise_flag(rank_state *rank, workgroup *group, int region, int64_t peer)
{
    gemv_job *job = rank->job;
    int64_t flag = flag_index(job, region, rank->rank, group->number);
    if (rank->rank == job->mute_rank)
        return;
    eidola_note(&group->probe, now_ns(), EIDOLA_FLAG_WRITE, 0, peer, flag, rank->epoch, 0);
    atomic_store_explicit(flag_at(job, peer, flag), (uint64_t)rank->epoch, memory_order_release);
}

static float dot(const float *a, const float *b, int64_t count)
{
    float sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* One workgroup's tiles of slice `owner`, straight into the owner's buffer. */
static void multiply_slice(rank_state *rank, workgroup *group, int64_t owner)
{
    gemv_job *job = rank->job;
    int64_t rows = slice_rows(job), first_column = rank->rank * job->columns / job->ranks;
    int64_t columns = (rank->rank + 1) * job->columns / job->ranks - first_column;
    const float *vector = job->vectors + (rank->epoch - 1) * job->columns + first_column;
    float *partials = job->partials + (owner * job->ranks + rank->rank) * rows;
    for (int64_t row = group->number * job->tile_rows; row < rows; row += job->workgroups * job->tile_rows) {
        int64_t end = smaller(row + job->tile_rows, rows);
        for (int64_t i = row; i < end; i++)
            partials[i] = dot(job->matrix + (owner * rows + i) * job->columns + first_column, vector, columns);
        if (owner != rank->rank)
            note_data(group, PARTIALS, owner, rank->rank * rows + row, end - row);
    }
}

static void multiply(rank_state *rank, workgroup *group)
{
    int64_t ranks = rank->job->ranks;
    note_phase(rank, group, EIDOLA_PHASE_BEGIN, REMOTE_TILES);
    for (int64_t hop = 1; hop < ranks; hop++) {
        int64_t peer = (rank->rank + hop) % ranks;
        multiply_slice(rank, group, peer);
        raise_flag(rank, group, PARTIALS, peer);
    }
    note_phase(rank, group, EIDOLA_PHASE_END, REMOTE_TILES);
    note_phase(rank, group, EIDOLA_PHASE_BEGIN, LOCAL_TILES);
    multiply_slice(rank, group, rank->rank);
    note_phase(rank, group, EIDOLA_PHASE_END, LOCAL_TILES);
}

/* Sum one tile over all sources into the rank's own results, then store it into every peer's. */
static void reduce_tile(rank_state *rank, workgroup *group, int64_t row, int64_t end)
{
    gemv_job *job = rank->job;
    int64_t rows = slice_rows(job), first = rank->rank * rows + row, count = end - row;
    const float *partials = job->partials + rank->rank * job->ranks * rows;
    float *own = job->results + rank->rank * job->rows + first;
    memcpy(own, partials + row, count * sizeof(float));
    for (int64_t source = 1; source < job->ranks; source++)
        for (int64_t i = 0; i < count; i++)
            own[i] += partials[source * rows + row + i];
    for (int64_t hop = 1; hop < job->ranks; hop++) {
        int64_t peer = (rank->rank + hop) % job->ranks;
        memcpy(job->results + peer * job->rows + first, own, count * sizeof(float));
        note_data(group, RESULTS, peer, first, count);
    }
}

static void reduce(rank_state *rank, workgroup *group)
{
    gemv_job *job = rank->job;
    int64_t rows = slice_rows(job);
    note_phase(rank, group, EIDOLA_PHASE_BEGIN, REDUCE);
    for (int64_t row = group->number * job->tile_rows; row < rows; row += job->workgroups * job->tile_rows)
        reduce_tile(rank, group, row, smaller(row + job->tile_rows, rows));
    for (int64_t hop = 1; hop < job->ranks; hop++)
        raise_flag(rank, group, RESULTS, (rank->rank + hop) % job->ranks);
    note_phase(rank, group, EIDOLA_PHASE_END, REDUCE);
}

static int region_waited_for(const workgroup *group) { return group->phase == WAIT_PARTIALS ? PARTIALS : RESULTS; }

static int64_t flag_waited_for(rank_state *rank, workgroup *group)
{
    int64_t ranks = rank->job->ranks;
    int64_t source = (rank->rank + ranks - group->hop) % ranks;
    return flag_index(rank->job, region_waited_for(group), source, group->number);
}

/* Poll the peers' flags, nearest first (it writes here first), until one poll fails. True: all were seen. */
static int poll_peers(rank_state *rank, workgroup *group)
{
    for (; group->hop < rank->job->ranks; group->hop++, group->polls = 0) {
        int64_t flag = flag_waited_for(rank, group);
        if (!group->polls++) {
            group->wait_start_ns = now_ns();
            eidola_note(&group->probe, group->wait_start_ns, EIDOLA_WAIT_BEGIN, 0, EIDOLA_NO_PEER, flag,
                        rank->epoch, 0);
        }
        uint64_t seen = atomic_load_explicit(flag_at(rank->job, rank->rank, flag), memory_order_acquire);
        if (seen < (uint64_t)rank->epoch)
            return 0;
        eidola_note(&group->probe, now_ns(), EIDOLA_WAIT_END, 0, EIDOLA_NO_PEER, flag, rank->epoch, group->polls);
    }
    return 1;
}

static void begin_wait(rank_state *rank, workgroup *group, int phase)
{
    note_phase(rank, group, EIDOLA_PHASE_BEGIN, phase);
    group->phase = phase;
    group->hop = 1;
    group->polls = 0;
}

/* Run one workgroup until a poll fails or its epoch is done. True: it got anywhere. */
static int advance(rank_state *rank, workgroup *group)
{
    int phase = group->phase;
    int64_t hop = group->hop;
    if (group->phase == REMOTE_TILES) {
        multiply(rank, group);
        begin_wait(rank, group, WAIT_PARTIALS);
    }
    if (group->phase == WAIT_PARTIALS && poll_peers(rank, group)) {
        note_phase(rank, group, EIDOLA_PHASE_END, WAIT_PARTIALS);
        reduce(rank, group);
        begin_wait(rank, group, WAIT_RESULTS);
    }
    if (group->phase == WAIT_RESULTS && poll_peers(rank, group)) {
        note_phase(rank, group, EIDOLA_PHASE_END, WAIT_RESULTS);
        group->phase = DONE;
    }
    return group->phase != phase || group->hop != hop;
}

/* The first to fail tells why; everybody else only sees that the run is over. */
static void give_up(rank_state *rank, workgroup *group)
{
    failure_report *failure = rank->job->failure;
    uint64_t nobody = 0;
    int64_t flag = flag_waited_for(rank, group);
    if (!atomic_compare_exchange_strong(&failure->aborted, &nobody, 1))
        return;
    failure->rank = rank->rank;
    failure->workgroup = group->number;
    failure->flag = flag;
    failure->expected = rank->epoch;
    failure->seen = atomic_load(flag_at(rank->job, rank->rank, flag));
}

static int still_running(rank_state *rank, uint64_t now)
{
    gemv_job *job = rank->job;
    for (int64_t i = 0; i < job->workgroups; i++) {
        workgroup *group = &rank->workgroups[i];
        if (group->phase != DONE && now > group->wait_start_ns + (uint64_t)job->deadline_ns)
            give_up(rank, group);
    }
    return !atomic_load(&job->failure->aborted);
}

/* One epoch of one rank: its workgroups in turn, until all are done. False: the run was aborted. */
static int run_epoch(rank_state *rank)
{
    gemv_job *job = rank->job;
    rank_report *report = &job->reports[rank->rank];
    uint64_t idle_since_ns = 0;
    for (int64_t running = job->workgroups; running;) {
        int moved = 0;
        running = 0;
        for (int64_t i = 0; i < job->workgroups; i++) {
            moved |= rank->workgroups[i].phase != DONE && advance(rank, &rank->workgroups[i]);
            running += rank->workgroups[i].phase != DONE;
        }
        if (moved) {
            idle_since_ns = 0;
            continue;
        }
        uint64_t now = now_ns();
        if (idle_since_ns) {
            report->idle_rounds++;
            report->idle_ns += now - idle_since_ns;
        }
        idle_since_ns = now;
        if (!still_running(rank, now))
            return 0;
        sched_yield();
    }
    return 1;
}

static void *run_rank(void *argument)
{
    rank_state *rank = argument;
    gemv_job *job = rank->job;
    rank_report *report = &job->reports[rank->rank];
    atomic_fetch_add(rank->arrived, 1);
    while (atomic_load(rank->arrived) < job->ranks && !atomic_load(&job->failure->aborted))
        sched_yield();
    uint64_t cpu_start_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    report->start_ns = now_ns();
    for (rank->epoch = 1; rank->epoch <= job->iterations; rank->epoch++) {
        for (int64_t i = 0; i < job->workgroups; i++)
            rank->workgroups[i].phase = REMOTE_TILES;
        if (!run_epoch(rank))
            break;
        memcpy(job->outputs + (rank->rank * job->iterations + rank->epoch - 1) * job->rows,
               job->results + rank->rank * job->rows, job->rows * sizeof(float));
    }
    report->end_ns = now_ns();
    report->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_start_ns;
    for (int64_t i = 0; i < job->workgroups; i++)
        job->emitted[rank->rank * job->workgroups + i] = rank->workgroups[i].probe.emitted;
    return NULL;
}

static void prepare(gemv_job *job, rank_state *rank, int64_t number, workgroup *groups, _Atomic int64_t *arrived)
{
    *rank = (rank_state){.job = job, .arrived = arrived, .rank = number, .workgroups = groups};
    for (int64_t i = 0; i < job->workgroups; i++) {
        eidola_record *records = job->records + (number * job->workgroups + i) * job->record_capacity;
        groups[i] = (workgroup){.probe = {records, (uint64_t)job->record_capacity, 0}, .number = i};
    }
}

/* Run the job. 0: done, or `failure` tells what was waited for; otherwise the errno of a refusal. */
int eidola_gemv_allreduce(gemv_job *job)
{
    _Atomic int64_t arrived = 0;
    pthread_t *threads = calloc(job->ranks, sizeof *threads);
    rank_state *ranks = calloc(job->ranks, sizeof *ranks);
    workgroup *groups = calloc(job->ranks * job->workgroups, sizeof *groups);
    int64_t started = 0;
    size_t flag_bytes = 2 * job->ranks * job->ranks * job->workgroups * sizeof *job->flags;
    job->flags = aligned_alloc(sizeof *job->flags, flag_bytes);
    int refused = threads && ranks && groups && job->flags ? 0 : ENOMEM;
    if (job->flags)
        memset(job->flags, 0, flag_bytes);
    for (; !refused && started < job->ranks; started++) {
        prepare(job, &ranks[started], started, groups + started * job->workgroups, &arrived);
        refused = pthread_create(&threads[started], NULL, run_rank, &ranks[started]);
        if (refused) {
            atomic_store(&job->failure->aborted, 1);
            break;
        }
    }
    for (int64_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(job->flags);
    free(groups);
    free(ranks);
    free(threads);
    return refused;
}

/* Mean cost of one record, clock read included, over `count` records into a buffer of `capacity`. */
double eidola_record_cost_ns(eidola_record *records, uint64_t capacity, uint64_t count)
{
    uint64_t start = now_ns();
    for (uint64_t done = 0; done < count;) {
        eidola_probe probe = {records, capacity, 0};
        for (uint64_t i = 0; i < capacity && done < count; i++, done++)
            eidola_note(&probe, now_ns(), EIDOLA_DATA_WRITE, 0, 0, 0, i, 0);
    }
    return (double)(now_ns() - start) / (double)count;
}
