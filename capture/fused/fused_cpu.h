/* A fused kernel on CPU threads: a thread a rank, its workgroups state machines that yield at a failed poll. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fused_report {
    eidola_u64 start_ns, end_ns, cpu_ns;
    eidola_u64 idle_rounds, idle_ns; /* rounds in which every workgroup waited, sched_yield included */
} fused_report;

typedef struct {
    fused_group group;
    int exchange;
    int waits;        /* its work of the exchange is done */
    eidola_i64 hop;   /* how far away the peer is that it waits for now: 1 .. ranks - 1 */
    eidola_u64 polls, wait_start_ns;
} fused_machine;

typedef struct {
    const fused_job *job;
    eidola_i64 *arrived; /* start barrier */
    eidola_i64 rank;
    fused_machine *machines;
} fused_thread;

static eidola_i64 fused_over(const fused_base *base) { return fused_flag(base, FUSED_EXCHANGES, 0, 0); }

/* Poll the peers' flags, nearest first (it writes here first), until one poll fails. True: all were seen. */
static int fused_poll(fused_machine *machine)
{
    fused_group *group = &machine->group;
    const fused_base *base = &group->job->base;
    for (; machine->hop < base->ranks; machine->hop++, machine->polls = 0) {
        eidola_i64 source = fused_source(base, group->rank, machine->hop);
        eidola_i64 flag = fused_flag(base, machine->exchange, source, group->number);
        if (!machine->polls++) {
            machine->wait_start_ns = eidola_time();
            eidola_wait_begin(&group->probe, flag, group->epoch);
        }
        if (fused_observe(fused_flag_at(base, group->rank, flag)) < group->epoch)
            return 0;
        eidola_wait_end(&group->probe, flag, group->epoch, machine->polls);
    }
    return 1;
}

/* Run one workgroup until a poll fails or its epoch is done. True: it got anywhere. */
static int fused_advance(fused_machine *machine)
{
    fused_group *group = &machine->group;
    int moved = 0;
    for (; machine->exchange < FUSED_EXCHANGES; machine->exchange++, machine->waits = 0, moved = 1) {
        int phase = fused_wait_phase(machine->exchange);
        if (!machine->waits) {
            fused_work(group, machine->exchange);
            eidola_phase_begin(&group->probe, phase, group->epoch);
            machine->waits = moved = 1;
            machine->hop = 1;
            machine->polls = 0;
        }
        eidola_i64 hop = machine->hop;
        if (!fused_poll(machine))
            return moved || machine->hop != hop;
        eidola_phase_end(&group->probe, phase, group->epoch);
    }
    return moved;
}

/* False: a wait passed its deadline, here or elsewhere. */
static int fused_going(fused_thread *thread, eidola_u64 now)
{
    const fused_base *base = &thread->job->base;
    for (eidola_i64 i = 0; i < base->workgroups; i++) {
        fused_machine *machine = &thread->machines[i];
        if (machine->exchange == FUSED_EXCHANGES || now <= machine->wait_start_ns + (eidola_u64)base->deadline)
            continue;
        eidola_i64 source = fused_source(base, thread->rank, machine->hop);
        fused_give_up(&machine->group, base, fused_flag(base, machine->exchange, source, i), fused_over(base));
    }
    return !fused_observe(fused_flag_at(base, thread->rank, fused_over(base)));
}

#ifdef FUSED_DELAYS
/* For studies: a core a rank, and ranks from 1 on begin late; -DFUSED_DELAYS=0,5000 gives the ns, an epoch each. */
static void fused_delay(eidola_i64 rank, eidola_u64 epoch)
{
    static const eidola_u64 delays[] = {FUSED_DELAYS};
    eidola_u64 begin = eidola_time() + (rank ? delays[epoch % (sizeof delays / sizeof *delays)] : 0);
#ifdef __linux__
    if (epoch == 1) {
        cpu_set_t core;
        CPU_ZERO(&core);
        CPU_SET(rank % sysconf(_SC_NPROCESSORS_ONLN), &core);
        sched_setaffinity(0, sizeof core, &core); /* where it is refused, the scheduler chooses */
    }
#endif
    while (eidola_time() < begin)
        ;
}
#else
static void fused_delay(eidola_i64 rank, eidola_u64 epoch) { (void)rank, (void)epoch; }
#endif

/* One epoch of one rank: its workgroups in turn, until all are done. False: the run is over. */
static int fused_epoch(fused_thread *thread, eidola_u64 epoch)
{
    const fused_base *base = &thread->job->base;
    fused_report *report = &base->reports[thread->rank];
    eidola_u64 idle_since_ns = 0;
    fused_delay(thread->rank, epoch);
    for (eidola_i64 i = 0; i < base->workgroups; i++) {
        thread->machines[i].group.epoch = epoch;
        thread->machines[i].exchange = thread->machines[i].waits = 0;
    }
    for (eidola_i64 running = base->workgroups; running;) {
        int moved = 0;
        running = 0;
        for (eidola_i64 i = 0; i < base->workgroups; i++) {
            moved |= fused_advance(&thread->machines[i]);
            running += thread->machines[i].exchange < FUSED_EXCHANGES;
        }
        if (moved) {
            idle_since_ns = 0;
            continue;
        }
        eidola_u64 now = eidola_time();
        if (idle_since_ns) {
            report->idle_rounds++;
            report->idle_ns += now - idle_since_ns;
        }
        idle_since_ns = now;
        if (!fused_going(thread, now))
            return 0;
        sched_yield();
    }
    return 1;
}

static void *fused_rank(void *argument)
{
    fused_thread *thread = argument;
    const fused_base *base = &thread->job->base;
    fused_report *report = &base->reports[thread->rank];
    size_t bytes = base->result_words * sizeof(float);
    __atomic_add_fetch(thread->arrived, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(thread->arrived, __ATOMIC_ACQUIRE) < base->ranks)
        sched_yield();
    eidola_u64 cpu_start_ns = eidola_clock(CLOCK_THREAD_CPUTIME_ID);
    report->start_ns = eidola_time();
    for (eidola_i64 epoch = 1; epoch <= base->iterations && fused_epoch(thread, epoch); epoch++)
        memcpy(base->outputs[thread->rank] + (epoch - 1) * base->result_words,
               fused_result(base, thread->rank, epoch), bytes);
    report->end_ns = eidola_time();
    report->cpu_ns = eidola_clock(CLOCK_THREAD_CPUTIME_ID) - cpu_start_ns;
    for (eidola_i64 i = 0; i < base->workgroups; i++)
        eidola_end(&thread->machines[i].group.probe);
    return NULL;
}

static void fused_prepare(const fused_job *job, fused_thread *thread, eidola_i64 rank, fused_machine *machines,
                          eidola_i64 *arrived)
{
    const fused_base *base = &job->base;
    *thread = (fused_thread){job, arrived, rank, machines};
    for (eidola_i64 i = 0; i < base->workgroups; i++) {
        fused_group *group = &machines[i].group;
        group->job = job;
        group->rank = rank;
        group->number = i;
        group->probe = eidola_begin(base->records[rank] + i * base->capacity, base->counts[rank] + i, base->capacity);
    }
}

/* Run the job. 0: done, or `failures` tell what was waited for; otherwise the errno of a refusal. */
int eidola_fused(const fused_job *job)
{
    const fused_base *base = &job->base;
    eidola_i64 arrived = 0, started = 0;
    pthread_t *handles = calloc(base->ranks, sizeof *handles);
    fused_thread *threads = calloc(base->ranks, sizeof *threads);
    fused_machine *machines = calloc(base->ranks * base->workgroups, sizeof *machines);
    int refused = handles && threads && machines ? 0 : ENOMEM;
    for (; !refused && started < base->ranks; started++) {
        fused_prepare(job, &threads[started], started, machines + started * base->workgroups, &arrived);
        refused = pthread_create(&handles[started], NULL, fused_rank, &threads[started]);
        if (refused) { /* let those that started go: none is waited for */
            for (eidola_i64 rank = 0; rank < base->ranks; rank++)
                fused_publish(fused_flag_at(base, rank, fused_over(base)), 1);
            __atomic_store_n(&arrived, base->ranks, __ATOMIC_RELEASE);
            break;
        }
    }
    for (eidola_i64 i = 0; i < started; i++)
        pthread_join(handles[i], NULL);
    free(machines);
    free(threads);
    free(handles);
    return refused;
}

/* Mean cost of one record, clock read included, over `count` records into a buffer of `capacity`. */
double eidola_record_cost_ns(eidola_record *records, eidola_u64 capacity, eidola_u64 count)
{
    eidola_u64 start = eidola_time();
    for (eidola_u64 done = 0; done < count;) {
        eidola_count kept = {0, 0};
        eidola_probe probe = eidola_begin(records, &kept, capacity);
        for (eidola_u64 i = 0; i < capacity && done < count; i++, done++)
            eidola_data_write(&probe, 0, 0, i, 0);
    }
    return (double)(eidola_time() - start) / (double)count;
}
