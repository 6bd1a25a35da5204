/* What the fused kernels share: who a workgroup is, its flags at its peers, and how it raises and sees them.
 *
 * A kernel is one source for CUDA, HIP and C11: a number of exchanges, each some work (its tiles are stored
 * straight into the peers' memory, then one flag a peer and workgroup is raised) and a wait for the flags that
 * the peers' workgroups of the same number raise here. A kernel's file defines `struct fused_job` (fused_base
 * first), FUSED_EXCHANGES, fused_wait_phase and fused_work, and includes fused_run.h last.
 *
 * Flags: data are plain stores, published by a release store of the epoch at system scope, and seen through
 * acquire loads. Epochs count the launches from 1, so that no flag is ever reset. `results` has two halves,
 * used in turns: when a rank begins epoch e + 2, every peer has ended epoch e and copied its result out.
 */
#ifndef EIDOLA_FUSED_H
#define EIDOLA_FUSED_H

#include "eidola_probe.h"

typedef long long eidola_i64;

enum { FAILED, FAILED_TIME, FAILED_WORKGROUP, FAILED_FLAG, FAILED_EXPECTED, FAILED_SEEN }; /* words of a failure */
enum { FLAG_WORDS = 8 }; /* a flag has 64 bytes to itself */

/* Made by job.py, every field 8 bytes. A table has one pointer a rank; shapes are in C order. */
typedef struct {
    eidola_i64 ranks, workgroups, iterations, capacity;
    eidola_i64 deadline;              /* of a wait, in ticks of eidola_real_time */
    eidola_i64 mute_rank;             /* this rank never raises a flag (fault injection); -1: none */
    eidola_i64 result_words;          /* floats of one half of results */
    eidola_u64 *const *flags;         /* exchanges, ranks (source), workgroups; and one more: the run is over */
    eidola_u64 *const *failures;      /* the first wait of the rank that passed its deadline */
    eidola_record *const *records;    /* workgroups, capacity */
    eidola_count *const *counts;      /* workgroups */
    float *const *results;            /* 2, result_words */
    float *const *outputs;            /* iterations, result_words; on a CPU only, else the host copies */
    struct fused_report *reports;     /* ranks; on a CPU only */
} fused_base;

typedef struct fused_job fused_job;

typedef struct {
    const fused_job *job;
    eidola_i64 rank, number;
    eidola_u64 epoch;
    eidola_probe probe;
} fused_group;

#if EIDOLA_CUDA
#define FUSED_WARP 32
#elif EIDOLA_GPU
#define FUSED_WARP 64
#else
#define FUSED_WARP 1
#endif

#if EIDOLA_GPU
#define FUSED_THREAD ((eidola_i64)threadIdx.x)
#define FUSED_THREADS ((eidola_i64)blockDim.x)
EIDOLA_FN void fused_sync(void) { __syncthreads(); }
#else
#define FUSED_THREAD ((eidola_i64)0)
#define FUSED_THREADS ((eidola_i64)1)
EIDOLA_FN void fused_sync(void) {}
#endif
#define FUSED_LANE (FUSED_THREAD % FUSED_WARP)
#define FUSED_ROW (FUSED_THREAD / FUSED_WARP) /* the warp's number, for work that a warp does together */
#define FUSED_ROWS (FUSED_THREADS / FUSED_WARP)

/* Sum over a warp, in its lane 0. */
EIDOLA_FN float fused_sum(float value)
{
#if EIDOLA_CUDA
    for (int step = FUSED_WARP / 2; step; step /= 2)
        value += __shfl_down_sync(0xFFFFFFFFu, value, step);
#elif EIDOLA_GPU
    for (int step = FUSED_WARP / 2; step; step /= 2)
        value += __shfl_down(value, step);
#endif
    return value;
}

/* System scope: clang's __atomic builtins have it on AMD, PTX names it. */
#if EIDOLA_CUDA
EIDOLA_FN void fused_publish(eidola_u64 *word, eidola_u64 value)
{
    asm volatile("st.release.sys.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
EIDOLA_FN eidola_u64 fused_observe(const eidola_u64 *word)
{
    eidola_u64 value;
    asm volatile("ld.acquire.sys.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
    return value;
}
EIDOLA_FN void fused_fence(void) { __threadfence_system(); }
EIDOLA_FN int fused_first(eidola_u64 *word) { return atomicCAS(word, 0ull, 1ull) == 0; }
#else
EIDOLA_FN void fused_publish(eidola_u64 *word, eidola_u64 value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
EIDOLA_FN eidola_u64 fused_observe(const eidola_u64 *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
EIDOLA_FN void fused_fence(void)
{
#if EIDOLA_GPU
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
EIDOLA_FN int fused_first(eidola_u64 *word) { return !__atomic_exchange_n(word, 1, __ATOMIC_ACQ_REL); }
#endif

EIDOLA_FN eidola_i64 fused_smaller(eidola_i64 a, eidola_i64 b) { return a < b ? a : b; }

/* The peer that the workgroup writes to at `hop` (1 .. ranks - 1), and the one that it waits for. */
EIDOLA_FN eidola_i64 fused_peer(const fused_base *base, eidola_i64 rank, eidola_i64 hop)
{
    return (rank + hop) % base->ranks;
}
EIDOLA_FN eidola_i64 fused_source(const fused_base *base, eidola_i64 rank, eidola_i64 hop)
{
    return (rank + base->ranks - hop) % base->ranks;
}

EIDOLA_FN eidola_i64 fused_flag(const fused_base *base, int exchange, eidola_i64 source, eidola_i64 number)
{
    return (exchange * base->ranks + source) * base->workgroups + number;
}

EIDOLA_FN eidola_u64 *fused_flag_at(const fused_base *base, eidola_i64 rank, eidola_i64 flag)
{
    return base->flags[rank] + flag * FLAG_WORDS;
}

EIDOLA_FN float *fused_result(const fused_base *base, eidola_i64 rank, eidola_u64 epoch)
{
    return base->results[rank] + (epoch & 1) * base->result_words;
}

/* After the stores of a tile of `words` floats at float `first` of `region`, by all threads. The barrier is there for
 * the record's sake, and counts as its cost: without probes a flag's own barrier is enough. */
EIDOLA_FN void fused_wrote(fused_group *group, int region, eidola_i64 peer, eidola_i64 words, eidola_i64 first)
{
#ifndef EIDOLA_PROBES_OFF
    fused_sync();
#endif
    eidola_data_write(&group->probe, region, (unsigned int)peer, words * sizeof(float), first * sizeof(float));
}

/* Tell `peer` that all of this workgroup's data of `exchange` are there. */
EIDOLA_FN void fused_raise(fused_group *group, const fused_base *base, int exchange, eidola_i64 peer)
{
    eidola_i64 flag = fused_flag(base, exchange, group->rank, group->number);
    fused_fence();
    fused_sync();
    if (!EIDOLA_FIRST_THREAD || group->rank == base->mute_rank)
        return;
    eidola_flag_write(&group->probe, (unsigned int)peer, (unsigned int)flag, group->epoch);
    fused_publish(fused_flag_at(base, peer, flag), group->epoch);
}

/* A wait passed its deadline: say what it waited for, the first of this rank only, and end the run everywhere. */
EIDOLA_FN void fused_give_up(const fused_group *group, const fused_base *base, eidola_i64 flag, eidola_i64 over)
{
    eidola_u64 *failure = base->failures[group->rank];
    if (!fused_first(&failure[FAILED]))
        return;
    failure[FAILED_TIME] = eidola_real_time();
    failure[FAILED_WORKGROUP] = group->number;
    failure[FAILED_FLAG] = flag;
    failure[FAILED_EXPECTED] = group->epoch;
    failure[FAILED_SEEN] = fused_observe(fused_flag_at(base, group->rank, flag));
    for (eidola_i64 rank = 0; rank < base->ranks; rank++)
        fused_publish(fused_flag_at(base, rank, over), 1);
}

#endif
