/* A fused kernel's one launch on a GPU: a block a workgroup.
 *
 * On the backend `gpu` a launch is one rank; on `virtual` all ranks are ranges of blocks of one launch. Every
 * block must be resident, since they wait for each other; the host sees to that.
 */

enum { POLLS_A_LOOK = 64 }; /* polls between two looks at the clock and at whether the run is over */

/* Poll one flag, by one thread. 0: its deadline passed, or another wait's. */
EIDOLA_FN int fused_poll(fused_group *group, int exchange, eidola_i64 source)
{
    const fused_base *base = &group->job->base;
    eidola_i64 flag = fused_flag(base, exchange, source, group->number);
    eidola_i64 over = fused_flag(base, FUSED_EXCHANGES, 0, 0);
    const eidola_u64 *word = fused_flag_at(base, group->rank, flag);
    eidola_u64 deadline = eidola_real_time() + base->deadline, polls = 1;
    eidola_wait_begin(&group->probe, (unsigned int)flag, group->epoch);
    for (; fused_observe(word) < group->epoch; polls++) {
        if (polls % POLLS_A_LOOK)
            continue;
        if (fused_observe(fused_flag_at(base, group->rank, over)))
            return 0;
        if (eidola_real_time() > deadline) {
            fused_give_up(group, base, flag, over);
            return 0;
        }
    }
    eidola_wait_end(&group->probe, (unsigned int)flag, group->epoch, polls);
    return 1;
}

/* Wait for all peers, nearest first (it writes here first). The same answer in all threads. */
EIDOLA_FN int fused_wait(fused_group *group, int exchange, int *going)
{
    const fused_base *base = &group->job->base;
    int seen;
    eidola_phase_begin(&group->probe, fused_wait_phase(exchange), group->epoch);
    if (EIDOLA_FIRST_THREAD) {
        *going = 1;
        for (eidola_i64 hop = 1; *going && hop < base->ranks; hop++)
            *going = fused_poll(group, exchange, fused_source(base, group->rank, hop));
    }
    fused_sync();
    seen = *going;
    fused_sync();
    fused_fence();
    if (seen)
        eidola_phase_end(&group->probe, fused_wait_phase(exchange), group->epoch);
    return seen;
}

extern "C" __global__ void eidola_fused(const fused_job *job, eidola_i64 first_rank, eidola_u64 epoch)
{
    __shared__ int going;
    const fused_base *base = &job->base;
    fused_group group;
    group.job = job;
    group.rank = first_rank + blockIdx.x / base->workgroups;
    group.number = blockIdx.x % base->workgroups;
    group.epoch = epoch;
    group.probe = eidola_begin(base->records[group.rank] + group.number * base->capacity,
                               base->counts[group.rank] + group.number, base->capacity);
    for (int exchange = 0; exchange < FUSED_EXCHANGES; exchange++) {
        fused_work(&group, exchange);
        if (!fused_wait(&group, exchange, &going))
            break;
    }
    eidola_end(&group.probe);
}

/* Words of the line after the last flag, beside the one that ends the run. */
enum { PING = 1, PONG = 2, PONG_TIME = 3 };

EIDOLA_FN int fused_reached(const eidola_u64 *word, eidola_u64 value, eidola_u64 deadline)
{
    while (fused_observe(word) < value)
        if (eidola_real_time() > deadline)
            return 0;
    return 1;
}

/* One thread on rank 0 and one on rank `peer` tell each other the time, `rounds` times, numbered from `first`.
 * `samples` (rounds, 3), rank 0's: sent, the peer's time, received. A round that passes the deadline stays 0. */
extern "C" __global__ void eidola_ping_pong(const fused_job *job, eidola_i64 rank, eidola_i64 peer, eidola_u64 first,
                                            eidola_i64 rounds, eidola_u64 *samples)
{
    const fused_base *base = &job->base;
    eidola_i64 line = fused_flag(base, FUSED_EXCHANGES, 0, 0);
    eidola_u64 *here = fused_flag_at(base, rank, line), *leader = fused_flag_at(base, 0, line);
    for (eidola_u64 round = first; round < first + rounds; round++) {
        eidola_u64 sent = eidola_real_time(), deadline = sent + base->deadline;
        if (rank == 0) {
            fused_publish(fused_flag_at(base, peer, line) + PING, round);
            if (!fused_reached(here + PONG, round, deadline))
                return;
            eidola_u64 received = eidola_real_time(), *sample = samples + (round - first) * 3;
            sample[0] = sent, sample[1] = fused_observe(here + PONG_TIME), sample[2] = received;
        } else {
            if (!fused_reached(here + PING, round, deadline))
                return;
            fused_publish(leader + PONG_TIME, eidola_real_time());
            fused_publish(leader + PONG, round);
        }
    }
}
