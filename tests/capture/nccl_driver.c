/* Drives the profiler plugin as NCCL would, by layout.h's offsets alone: no declaration of ours is shared.
 *
 *   driver PLUGIN story VERSION            one communicator, operations with every kind of child
 *   driver PLUGIN job VERSION RANK RANKS N AT  one rank of a job: N collectives that end on all ranks at once, from
 *                                          AT (CLOCK_MONOTONIC, ns) on, by a GPU whose timer is that clock and
 *                                          1,000 s; and one send
 *   driver PLUGIN threads VERSION N M      N threads start and stop M events each, stopping each other's
 *   driver PLUGIN laps VERSION N M         N threads start and at once stop M events each
 *   driver PLUGIN reload VERSION           the library is closed with its last communicator, and opened again
 *   driver PLUGIN fork VERSION             a forked child calls the plugin too
 *   driver PLUGIN time VERSION N           N events from one thread; nanoseconds of processor time a record on stderr
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct place { int version; const char *field; size_t offset; };
static const struct place descriptor[] = {
#define DESCRIPTOR(version, field, offset) {version, #field, offset},
#include "layout.h"
};
static const struct place state[] = {
#define STATE(version, field, offset) {version, #field, offset},
#include "layout.h"
};
static const size_t sizes[][2] = {
#define DESCRIPTOR_SIZE(version, bytes) {version, bytes},
#include "layout.h"
};
enum {
#define TABLE(field, offset) AT_##field = offset,
#include "layout.h"
#define EVENT(name, bit) BIT_##name = 1 << bit,
#include "layout.h"
#define EVENT_STATE(name, number) STATE_##name = number,
#include "layout.h"
};

static int version, own_rank = 3, all_ranks = 16;
static const char *operation = "AllReduce", *type_name = "ncclBfloat16";
static char *table; /* the plugin's ncclProfiler_vN */

static size_t at(const struct place *places, size_t count, const char *field) {
    for (size_t i = 0; i < count; i++)
        if (places[i].version == version && !strcmp(places[i].field, field)) return places[i].offset;
    fprintf(stderr, "version %d has no %s\n", version, field);
    exit(2);
}
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define PUT(type_, field, value)                                                                            \
    do {                                                                                                    \
        type_ put_ = (type_)(value);                                                                        \
        memcpy(bytes + at(descriptor, COUNT(descriptor), field), &put_, sizeof put_);                       \
    } while (0)

static void *function(size_t offset) {
    void *f;
    memcpy(&f, table + offset, sizeof f);
    return f;
}
static int stop(void *handle) { return ((int (*)(void *))function(AT_stopEvent))(handle); }
static int finalize(void *context) { return ((int (*)(void *))function(AT_finalize))(context); }

static void *init(uint64_t identity, int *mask) {
    void *context = (void *)1, *f = function(AT_init);
    int failed;
    if (version <= 3) failed = ((int (*)(void **, int *))f)(&context, mask);
    else if (version == 4)
        failed = ((int (*)(void **, int *, const char *, uint64_t, int, int, int, void *))f)(
            &context, mask, "data parallel", identity, 2, all_ranks, own_rank, NULL);
    else
        failed = ((int (*)(void **, uint64_t, int *, const char *, int, int, int, void *))f)(
            &context, identity, mask, "data parallel", 2, all_ranks, own_rank, NULL);
    if (failed) exit(3);
    return context;
}

static void fresh(unsigned char *bytes, uint64_t type, void *parent) {
    memset(bytes, 0x5a, 512); /* what nobody sets is garbage */
    if (version < 5) PUT(uint8_t, "type", type);
    else PUT(uint64_t, "type", type);
    PUT(void *, "parentObj", parent);
    PUT(int, "rank", own_rank);
}
static void *start(void *context, unsigned char *bytes) {
    void *handle = NULL;
    if (((int (*)(void *, void **, void *))function(AT_startEvent))(context, &handle, bytes)) exit(3);
    memset(bytes, 0xee, 512); /* the plugin must have copied what it wants */
    return handle;
}
static void change(void *handle, int number, const char *field, size_t value, int width) {
    unsigned char bytes[64];
    memset(bytes, 0, sizeof bytes);
    if (field) memcpy(bytes + at(state, COUNT(state), field), &value, (size_t)width);
    if (((int (*)(void *, int, void *))function(AT_recordEventState))(handle, number, field ? bytes : NULL)) exit(3);
}

static void describe(unsigned char *bytes, const char *algorithm, uint64_t sequence, size_t count) {
    fresh(bytes, BIT_Coll, NULL);
    if (version <= 3) {
        PUT(const char *, "coll.name", "data parallel");
        PUT(uint64_t, "coll.commHash", 0xfedcba9876543210u);
    }
    PUT(uint64_t, "coll.seqNumber", sequence);
    PUT(size_t, "coll.count", count);
    PUT(int, "coll.root", 0);
    PUT(uint8_t, version <= 3 ? "coll.nMaxChannels" : "coll.nChannels", 8);
    PUT(uint8_t, "coll.nWarps", 16);
    if (version == 1) {
        PUT(uint8_t, "coll.func", 4);     /* AllReduce */
        PUT(uint8_t, "coll.datatype", 9); /* bfloat16 */
        PUT(uint8_t, "coll.algo", 1);
        PUT(uint8_t, "coll.proto", 2);
    } else {
        PUT(const char *, "coll.func", operation);
        PUT(const char *, "coll.datatype", type_name);
        PUT(const char *, "coll.algo", algorithm);
        PUT(const char *, "coll.proto", "SIMPLE");
    }
}
static void *collective(void *context, uint64_t sequence, size_t count) {
    unsigned char bytes[512];
    char algorithm[16] = "RING"; /* on the stack, as a caller may */
    describe(bytes, algorithm, sequence, count);
    return start(context, bytes);
}

static void send_to(void *context, int peer, size_t count) {
    unsigned char bytes[512];
    fresh(bytes, BIT_P2p, NULL);
    if (version <= 3) {
        PUT(const char *, "p2p.name", "data parallel");
        PUT(uint64_t, "p2p.commHash", 0xfedcba9876543210u);
    } else PUT(uint8_t, "p2p.nChannels", 2);
    if (version == 1) {
        PUT(uint8_t, "p2p.func", 6);
        PUT(uint8_t, "p2p.datatype", 7);
    } else {
        PUT(const char *, "p2p.func", "Send");
        PUT(const char *, "p2p.datatype", "ncclFloat32");
    }
    PUT(size_t, "p2p.count", count);
    PUT(int, "p2p.peer", peer);
    stop(start(context, bytes));
}

static void *proxy(void *context, void *parent, int process, int peer, int is_send) {
    unsigned char bytes[512];
    fresh(bytes, BIT_ProxyOp, parent);
    PUT(int, "proxyOp.pid", process);
    PUT(uint8_t, "proxyOp.channelId", 1);
    PUT(int, "proxyOp.peer", peer);
    PUT(int, "proxyOp.nSteps", 3);
    PUT(int, "proxyOp.chunkSize", 1 << 19);
    PUT(int, "proxyOp.isSend", is_send);
    return start(context, bytes);
}

static void steps(void *context, void *operation, int is_send) {
    unsigned char bytes[512];
    size_t moved = 0;
    for (int i = 0; i < 3; i++) {
        fresh(bytes, BIT_ProxyStep, operation);
        PUT(int, "proxyStep.step", i);
        void *handle = start(context, bytes);
        const int waits = is_send ? STATE_ProxyStepSendWait : STATE_ProxyStepRecvWait;
        const size_t size = (size_t)(i + 1) << 18;
        moved += size;
        if (version <= 3) {
            change(handle, waits, NULL, 0, 0);
            change(operation, is_send ? STATE_ProxyOpSendTransmitted : STATE_ProxyOpRecvReceived,
                   "proxyOp.transSize", moved, 8);
        } else change(handle, waits, "proxyStep.transSize", size, 8);
        stop(handle);
    }
}

static void channel(void *context, void *parent, int number, uint64_t from, uint64_t to) {
    unsigned char bytes[512];
    fresh(bytes, BIT_KernelCh, parent);
    PUT(uint8_t, "kernelCh.channelId", number);
    if (version >= 4) PUT(uint64_t, "kernelCh.pTimer", from);
    void *handle = start(context, bytes);
    if (version >= 4) change(handle, STATE_KernelChStop, "kernelCh.pTimer", to, 8);
    stop(handle);
}

static void *stop_elsewhere(void *handle) {
    stop(handle);
    return NULL;
}

static void story(void) {
    int mask = -1;
    void *context = init(0xfedcba9876543210u, &mask);
    void *first = collective(context, 7, 1000), *late = collective(context, 8, 2000);
    pthread_t thread;
    if (pthread_create(&thread, NULL, stop_elsewhere, first)) exit(2);
    pthread_join(thread, NULL);
    send_to(context, 5, 300);
    void *sending = proxy(context, first, getpid(), 4, 1), *receiving = proxy(context, first, getpid(), 2, 0);
    void *foreign = proxy(context, (void *)0x7fffdeadbeef, getpid() + 1, 9, 1); /* another process's parent */
    steps(context, sending, 1);
    steps(context, receiving, 0);
    stop(sending);
    stop(receiving);
    stop(foreign);
    if (version >= 3)
        for (int i = 0; i < 2; i++) channel(context, first, i, 5000 + (uint64_t)i, 9000 + (uint64_t)i);
    if (version >= 6) {
        unsigned char bytes[512];
        fresh(bytes, BIT_CeColl, NULL);
        PUT(uint64_t, "ceColl.seqNumber", 9);
        PUT(const char *, "ceColl.func", "AllGather");
        PUT(size_t, "ceColl.count", 64);
        PUT(int, "ceColl.root", 0);
        PUT(const char *, "ceColl.datatype", "ncclInt8");
        PUT(const char *, "ceColl.syncStrategy", "MC");
        PUT(uint8_t, "ceColl.intraBatchSync", 1);
        stop(start(context, bytes));
    }
    if (version >= 5) {
        unsigned char bytes[512];
        fresh(bytes, BIT_GroupApi, NULL);
        PUT(uint8_t, "groupApi.graphCaptured", 0);
        PUT(int, "groupApi.groupDepth", 1);
        void *group = start(context, bytes);
        change(group, 23, NULL, 0, 0); /* NCCL passes no arguments here */
        stop(group);
    }
    finalize(context);
    stop(late);
    stop(NULL);
    fprintf(stderr, "mask %d\n", mask);
}

static uint64_t monotonic_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void until(uint64_t ns) {
    const struct timespec at = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)) {}
}

static void job(int collectives, uint64_t at_ns) {
    int mask;
    const uint64_t ahead = 1000000000000u;
    void *context = init(0xabcdef, &mask);
    for (int i = 0; i < collectives; i++) {
        const uint64_t end = at_ns + (uint64_t)(i * i + 1) * 40000000u; /* gaps of their own length, as a job's are */
        until(end - 35000000u);
        void *handle = collective(context, (uint64_t)i, 1000);
        stop(handle);
        const uint64_t now = monotonic_ns(), from = now < end ? now : end - 2; /* a busy machine may come late */
        until(end);
        for (int c = 0; c < 2; c++) channel(context, handle, c, ahead + from + (uint64_t)c, ahead + end - (uint64_t)c);
    }
    send_to(context, (own_rank + 1) % all_ranks, 10);
    finalize(context);
}

/* Built as a shared library it plays NCCL in the process of a job: one communicator, one operation at a time, whose
 * two channels run for a while by a GPU timer that is 1,000 s ahead, with a proxy that sends to the next rank. */
static void *context_of_job;

int driver_open(const char *path, int of, int rank, int ranks) {
    char symbol[32];
    int mask = 0;
    version = of;
    own_rank = rank;
    all_ranks = ranks;
    snprintf(symbol, sizeof symbol, "ncclProfiler_v%d", version);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library || !(table = dlsym(library, symbol))) return 0;
    context_of_job = init(0xabcdef, &mask);
    return mask;
}

void driver_collective(const char *function_name, const char *type, uint64_t sequence, size_t count) {
    const uint64_t ahead = 1000000000000u;
    operation = function_name;
    type_name = type;
    void *handle = collective(context_of_job, sequence, count);
    stop(handle);
    const uint64_t from = monotonic_ns(), end = from + 2000000u;
    void *sending = proxy(context_of_job, handle, getpid(), (own_rank + 1) % all_ranks, 1);
    steps(context_of_job, sending, 1);
    stop(sending);
    until(end);
    for (int c = 0; c < 2; c++)
        channel(context_of_job, handle, c, ahead + from + (uint64_t)c, ahead + end - (uint64_t)c);
}

void driver_close(void) { finalize(context_of_job); }

static int threads, each, at_once;
static void **handles;
static void *context_of_all;
static pthread_barrier_t barrier;

static void *work(void *number) {
    const int me = (int)(intptr_t)number;
    for (int i = 0; i < each; i++) {
        handles[me * each + i] = collective(context_of_all, (uint64_t)(me * each + i), (size_t)me);
        if (at_once) stop(handles[me * each + i]);
        if (i % 64 == 63) sched_yield();
    }
    if (at_once) return NULL;
    pthread_barrier_wait(&barrier);
    const int other = (me + 1) % threads; /* every event is stopped by another thread */
    for (int i = 0; i < each; i++) stop(handles[other * each + i]);
    return NULL;
}

static void many(void) {
    int mask;
    pthread_t all[64];
    context_of_all = init(1, &mask);
    handles = calloc((size_t)threads * (size_t)each, sizeof *handles);
    if (!handles || threads > 64) exit(2);
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) pthread_create(&all[i], NULL, work, (void *)(intptr_t)i);
    for (int i = 0; i < threads; i++) pthread_join(all[i], NULL);
    finalize(context_of_all);
    free(handles);
}

static void forked(void) {
    int mask, status;
    void *context = init(1, &mask);
    stop(collective(context, 1, 1));
    const pid_t child = fork();
    if (child == 0) {
        stop(collective(context, 2, 2));
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status) exit(4);
    stop(collective(context, 3, 3));
}

static void reloaded(const char *path, const char *symbol, void **library) {
    int mask;
    for (uint64_t i = 1; i <= 2; i++) {
        void *context = init(i, &mask);
        stop(collective(context, i, 1));
        finalize(context);
        dlclose(*library);
        *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!*library || !(table = dlsym(*library, symbol))) exit(4);
    }
}

static void timed(int events) {
    int mask;
    struct timespec from, to;
    unsigned char bytes[512];
    void *context = init(1, &mask), *handle;
    int (*begin)(void *, void **, void *) = (int (*)(void *, void **, void *))function(AT_startEvent);
    describe(bytes, "RING", 1, 1);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (int i = 0; i < events; i++) {
        begin(context, &handle, bytes);
        stop(handle);
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    const double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
    fprintf(stderr, "%.0f ns a record\n", ns / (2.0 * events));
}

#ifdef HIP_KHZ /* play RCCL's part: a library that knows HIP */
int hipGetDevice(int *device) { return *device = 5, 0; }
int hipDeviceGetAttribute(int *value, int attribute, int device) {
    return attribute == 10017 && device == 5 ? (*value = HIP_KHZ, 0) : 1;
}
#endif

int main(int count, char **arguments) {
    if (count < 4 || COUNT(sizes) != 6) return 2;
    char symbol[32];
    version = atoi(arguments[3]);
    snprintf(symbol, sizeof symbol, "ncclProfiler_v%d", version);
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (!library || !(table = dlsym(library, symbol))) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    if (!strcmp(arguments[2], "story")) story();
    else if (!strcmp(arguments[2], "fork")) forked();
    else if (!strcmp(arguments[2], "job")) {
        own_rank = atoi(arguments[4]);
        all_ranks = atoi(arguments[5]);
        job(atoi(arguments[6]), strtoull(arguments[7], NULL, 10));
    }
    else if (!strcmp(arguments[2], "reload")) reloaded(arguments[1], symbol, &library);
    else if (!strcmp(arguments[2], "time")) timed(atoi(arguments[4]));
    else {
        threads = atoi(arguments[4]);
        each = atoi(arguments[5]);
        at_once = !strcmp(arguments[2], "laps");
        many();
    }
    dlclose(library);
    return 0;
}
