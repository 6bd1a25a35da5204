/* A profiler plugin for NCCL (2.23 and newer) and RCCL: what they call becomes records of a ring file.
 *
 * NCCL loads it by NCCL_PROFILER_PLUGIN and takes the newest ncclProfiler_vN that both know. It never locks,
 * allocates or prints after the first communicator, except one line on stderr where it turns itself off.
 * A handle is a number, never a pointer: stopEvent, which for a collective means enqueued, may come from any
 * thread, after finalize, or never.
 *
 *   EIDOLA_NCCL_FOLDER   where the file goes; without it the plugin is off
 *   EIDOLA_NCCL_RECORDS  records kept, a power of two (default 262144: 16 MiB)
 *   EIDOLA_NCCL_EVENTS   mask of events; default: Coll, P2p, ProxyOp, ProxyStep, KernelCh, copy engines
 */
#include <dlfcn.h>
#include <pthread.h>

#include "descriptors.h"
#include "ring.h"

#define BIT(event) (1 << EVENT_##event)
#define CE_EVENTS (BIT(CeColl) | BIT(CeSync) | BIT(CeBatch))
#define DEFAULT_EVENTS (BIT(Coll) | BIT(P2p) | BIT(ProxyOp) | BIT(ProxyStep) | BIT(KernelCh) | CE_EVENTS)
#define TYPE_OF_EVENT 255 /* a STOP or CHANGE: the reader takes the type from the START */

#define HIP_WALL_CLOCK_RATE 10017 /* hipDeviceAttributeWallClockRate, kHz (hip_runtime_api.h, ROCm 5.3 to 7.1) */

static struct ring ring;
static atomic_bool on;
static pthread_once_t opened = PTHREAD_ONCE_INIT;
static _Atomic(const void *) caller; /* an address inside the library that calls */

static void off_in_child(void) { atomic_store(&on, false); }

/* Note who calls, and the rate of its GPU timer: RCCL's counts ticks of s_memrealtime, NCCL's nanoseconds. HIP is
 * asked as the caller itself would find it. */
static void describe_caller(struct header *header) {
    Dl_info info;
    if (!dladdr(caller, &info) || !info.dli_fname) return;
    strncpy(header->library, info.dli_fname, sizeof header->library - 1);
    void *library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) return;
    int device = 0, khz = 0;
    int (*which)(int *) = (int (*)(int *))dlsym(library, "hipGetDevice");
    int (*attribute)(int *, int, int) = (int (*)(int *, int, int))dlsym(library, "hipDeviceGetAttribute");
    if (which && attribute && !which(&device) && !attribute(&khz, HIP_WALL_CLOCK_RATE, device) && khz > 0)
        header->timer_khz = (uint32_t)khz;
    dlclose(library);
}

static void open_ring(void) {
    const char *folder = getenv("EIDOLA_NCCL_FOLDER");
    const char *records = getenv("EIDOLA_NCCL_RECORDS"), *events = getenv("EIDOLA_NCCL_EVENTS");
    const uint64_t capacity = records && *records ? strtoull(records, NULL, 0) : 1u << 18;
    const int32_t mask = events && *events ? (int32_t)strtol(events, NULL, 0) : DEFAULT_EVENTS;
    if (!folder || !*folder) return;
    int error = capacity && !(capacity & (capacity - 1)) ? ring_open(&ring, folder, capacity, mask) : EINVAL;
    if (error) {
        fprintf(stderr, "eidola: no NCCL records: %s for %llu records in EIDOLA_NCCL_FOLDER=%s; the job goes on\n",
                strerror(error), (unsigned long long)capacity, folder);
        return;
    }
    describe_caller(ring.header);
    pthread_atfork(NULL, NULL, off_in_child); /* a forked child shares the file and must not write */
    atomic_store(&on, true);
}

/* What a version knows; a bit that it does not know is not asked for. */
static const int known[] = {0, 0x3f, 0x3f, 0xff, 0xff, 0xfff, 0x7fff};

static void name_communicator(struct communicator *communicator, const char *name) {
    uint32_t none = 0;
    if (!name || !*name
        || !atomic_compare_exchange_strong_explicit(&communicator->named, &none, 1, memory_order_acquire,
                                                    memory_order_relaxed))
        return;
    strncpy(communicator->name, name, sizeof communicator->name - 1);
    atomic_store_explicit(&communicator->named, 2, memory_order_release);
}

/* Every version's init; -1 and 0 for what it does not say. Never fails: without a file no event is asked for. */
static int open_communicator(int version, const void *from, void **context, int *mask, uint64_t identity,
                             const char *name, int nodes, int ranks, int rank) {
    caller = from;
    pthread_once(&opened, open_ring);
    *context = NULL;
    *mask = 0;
    if (!atomic_load(&on)) return 0;
    *mask = ring.header->mask & known[version];
    atomic_store_explicit(&ring.header->interface, version, memory_order_relaxed);
    const uint32_t at = atomic_fetch_add(&ring.header->communicators, 1);
    if (at >= COMMUNICATORS) return 0;
    struct communicator *communicator = &ring.communicators[at];
    communicator->rank = rank;
    communicator->ranks = ranks;
    communicator->nodes = nodes;
    communicator->opened_ns = now_ns(CLOCK_MONOTONIC);
    communicator->opened_unix_ns = now_ns(CLOCK_REALTIME);
    name_communicator(communicator, name);
    atomic_store_explicit(&communicator->identity, identity, memory_order_release);
    *context = (void *)(uintptr_t)(at + 1);
    return 0;
}

static uint16_t number_of(const void *context) {
    const uintptr_t number = (uintptr_t)context;
    return number && number <= COMMUNICATORS ? (uint16_t)(number - 1) : NO_COMMUNICATOR;
}

static int finalize(void *context) {
    const uint16_t at = number_of(context);
    if (atomic_load(&on) && at != NO_COMMUNICATOR) {
        ring.communicators[at].closed_unix_ns = now_ns(CLOCK_REALTIME);
        ring.communicators[at].closed_ns = now_ns(CLOCK_MONOTONIC);
    }
    return 0;
}

static int stop(void *handle) {
    if (!atomic_load_explicit(&on, memory_order_relaxed) || !handle) return 0;
    struct record record = {.time_ns = now_ns(CLOCK_MONOTONIC), .event = (uintptr_t)handle, .action = STOP,
                            .type = TYPE_OF_EVENT, .communicator = NO_COMMUNICATOR, .peer = -1};
    ring_write(&ring, &record);
    return 0;
}

static void change(void *handle, int state, uint64_t a, uint64_t b) {
    struct record record = {.time_ns = now_ns(CLOCK_MONOTONIC), .event = (uintptr_t)handle, .action = CHANGE,
                            .type = TYPE_OF_EVENT, .communicator = NO_COMMUNICATOR, .a = a, .b = b, .peer = -1,
                            .state = (uint8_t)state};
    ring_write(&ring, &record);
}

static int change_v1(void *handle, int state, const union state_v1 *s) {
    if (!atomic_load_explicit(&on, memory_order_relaxed) || !handle) return 0;
    if (s && state <= STATE_ProxyOpRecvDone) change(handle, state, (uint64_t)s->proxyOp.steps, s->proxyOp.transSize);
    else if (s && state >= STATE_ProxyCtrlIdle && state <= STATE_ProxyCtrlAppendEnd)
        change(handle, state, (uint64_t)s->proxyCtrl.appendedProxyOps, 0);
    else change(handle, state, 0, 0);
    return 0;
}

static int change_v4(void *handle, int state, const union state_v4 *s) {
    if (!atomic_load_explicit(&on, memory_order_relaxed) || !handle) return 0;
    const bool step = (state >= STATE_ProxyStepSendGPUWait && state <= STATE_ProxyStepRecvGPUWait)
                      || state == STATE_ProxyStepSendPeerWait;
    if (s && step) change(handle, state, 0, s->proxyStep.transSize);
    else if (s && state == STATE_KernelChStop) change(handle, state, 0, s->kernelCh.pTimer);
    else if (s && state >= STATE_ProxyCtrlIdle && state <= STATE_ProxyCtrlAppendEnd)
        change(handle, state, (uint64_t)s->proxyCtrl.appendedProxyOps, 0);
    else change(handle, state, 0, 0);
    return 0;
}

static uint8_t bit_number(uint64_t type) { return type ? (uint8_t)__builtin_ctzll(type) : TYPE_OF_EVENT; }

static uint8_t named(const char *text) { return ring_name(&ring, text); }

/* Version 1's numbers (layout.h names the source); the datatype's from nccl.h, ncclDataType_t. */
static const char *const FUNCTIONS[] = {"Broadcast", "Reduce", "AllGather", "ReduceScatter",
                                        "AllReduce", "SendRecv", "Send", "Recv"};
static const char *const ALGORITHMS[] = {"TREE", "RING", "COLLNET_DIRECT", "COLLNET_CHAIN", "NVLS", "NVLS_TREE", "PAT"};
static const char *const PROTOCOLS[] = {"LL", "LL128", "SIMPLE"};
static const char *const DATATYPES[] = {"ncclInt8", "ncclUint8", "ncclInt32", "ncclUint32", "ncclInt64",
                                        "ncclUint64", "ncclFloat16", "ncclFloat32", "ncclFloat64", "ncclBfloat16"};
#define NUMBERED(names, number) ((number) < sizeof names / sizeof *names ? named(names[number]) : 0)

/* Up to version 3 a communicator is known by its first operation. */
static void identify(const void *context, uint64_t identity, const char *name, int rank) {
    const uint16_t at = number_of(context);
    if (at == NO_COMMUNICATOR) return;
    struct communicator *communicator = &ring.communicators[at];
    if (atomic_load_explicit(&communicator->identity, memory_order_relaxed)) return;
    atomic_store_explicit(&communicator->rank, rank, memory_order_relaxed); /* racing threads write the same */
    name_communicator(communicator, name);
    atomic_store_explicit(&communicator->identity, identity, memory_order_release);
}

/* Each version's startEvent: the cases that it has, from pieces that versions share. `d` is its descriptor, `r`
 * the record. */
#define COLL_NUMBERS(c, channels_of)                                                                \
    r.a = (c).seqNumber; r.b = (c).count; r.peer = (c).root; r.channels = (c).channels_of; r.warps = (c).nWarps
#define COLL_NAMES(c)                                                                               \
    r.operation = named((c).func); r.datatype = named((c).datatype);                                \
    r.algorithm = named((c).algo); r.protocol = named((c).proto)
#define NAMED_P2P(p) r.operation = named((p).func); r.datatype = named((p).datatype); r.b = (p).count; r.peer = (p).peer
#define IDENTIFY(x) identify(context, (x).commHash, (x).name, d->rank)
#define PROXY_CASES                                                                                 \
    case BIT(ProxyOp):                                                                              \
        r.a = (uint64_t)(uint32_t)d->proxyOp.pid << 32 | (uint32_t)d->proxyOp.nSteps;               \
        r.b = (uint64_t)d->proxyOp.chunkSize; r.peer = d->proxyOp.peer;                             \
        r.channels = d->proxyOp.channelId; r.flags = d->proxyOp.isSend != 0;                        \
        break;                                                                                      \
    case BIT(ProxyStep): r.a = (uint64_t)d->proxyStep.step; break;
#define NET_CASE case BIT(NetPlugin): r.a = (uint64_t)d->netPlugin.id; break;
#define TIMED_CHANNEL_CASE                                                                          \
    case BIT(KernelCh): r.channels = d->kernelCh.channelId; r.b = d->kernelCh.pTimer; break;
#define V4_OPERATION_CASES                                                                          \
    case BIT(Coll): COLL_NUMBERS(d->coll, nChannels); COLL_NAMES(d->coll); break;                   \
    case BIT(P2p): NAMED_P2P(d->p2p); r.channels = d->p2p.nChannels; break;
#define API_CASES                                                                                   \
    case BIT(GroupApi): r.a = (uint64_t)d->groupApi.groupDepth; r.flags = d->groupApi.graphCaptured; break; \
    case BIT(CollApi):                                                                              \
        r.operation = named(d->collApi.func); r.datatype = named(d->collApi.datatype);              \
        r.a = (uintptr_t)d->collApi.stream; r.b = d->collApi.count; r.peer = d->collApi.root;       \
        r.flags = d->collApi.graphCaptured;                                                         \
        break;                                                                                      \
    case BIT(P2pApi):                                                                               \
        r.operation = named(d->p2pApi.func); r.datatype = named(d->p2pApi.datatype);                \
        r.a = (uintptr_t)d->p2pApi.stream; r.b = d->p2pApi.count; r.flags = d->p2pApi.graphCaptured; \
        break;                                                                                      \
    case BIT(KernelLaunch): r.a = (uintptr_t)d->kernelLaunch.stream; break;
#define CE_CASES                                                                                    \
    case BIT(CeColl):                                                                               \
        r.operation = named(d->ceColl.func); r.datatype = named(d->ceColl.datatype);                \
        r.algorithm = named(d->ceColl.syncStrategy); r.a = d->ceColl.seqNumber; r.b = d->ceColl.count; \
        r.peer = d->ceColl.root; r.flags = d->ceColl.intraBatchSync;                                \
        break;                                                                                      \
    case BIT(CeSync): r.peer = d->ceCollSync.nRanks; r.flags = d->ceCollSync.isComplete; break;     \
    case BIT(CeBatch):                                                                              \
        r.a = (uint64_t)d->ceCollBatch.numOps; r.b = d->ceCollBatch.totalBytes;                     \
        r.flags = d->ceCollBatch.useIntraSync;                                                      \
        break;

#define START_EVENT(version, ...)                                                                   \
    static int start_v##version(void *context, void **handle, const struct descriptor_v##version *d) { \
        *handle = NULL;                                                                             \
        if (!atomic_load_explicit(&on, memory_order_relaxed)) return 0;                             \
        struct record r = {.time_ns = now_ns(CLOCK_MONOTONIC), .parent = (uintptr_t)d->parentObj,   \
                           .action = START, .type = bit_number(d->type),                            \
                           .communicator = number_of(context), .peer = -1};                         \
        switch (d->type) { __VA_ARGS__ default: break; }                                            \
        *handle = (void *)(uintptr_t)ring_write(&ring, &r);                                         \
        return 0;                                                                                   \
    }

START_EVENT(1, PROXY_CASES
    case BIT(Coll):
        IDENTIFY(d->coll);
        COLL_NUMBERS(d->coll, nMaxChannels);
        r.operation = NUMBERED(FUNCTIONS, d->coll.func);
        r.datatype = NUMBERED(DATATYPES, d->coll.datatype);
        r.algorithm = NUMBERED(ALGORITHMS, d->coll.algo);
        r.protocol = NUMBERED(PROTOCOLS, d->coll.proto);
        break;
    case BIT(P2p):
        IDENTIFY(d->p2p);
        r.operation = NUMBERED(FUNCTIONS, d->p2p.func);
        r.datatype = NUMBERED(DATATYPES, d->p2p.datatype);
        r.b = d->p2p.count; r.peer = d->p2p.peer;
        break;)
START_EVENT(2, PROXY_CASES
    case BIT(Coll): IDENTIFY(d->coll); COLL_NUMBERS(d->coll, nMaxChannels); COLL_NAMES(d->coll); break;
    case BIT(P2p): IDENTIFY(d->p2p); NAMED_P2P(d->p2p); break;)
START_EVENT(3, PROXY_CASES NET_CASE
    case BIT(Coll): IDENTIFY(d->coll); COLL_NUMBERS(d->coll, nMaxChannels); COLL_NAMES(d->coll); break;
    case BIT(P2p): IDENTIFY(d->p2p); NAMED_P2P(d->p2p); break;
    case BIT(KernelCh): r.channels = d->kernelCh.channelId; break;)
START_EVENT(4, PROXY_CASES NET_CASE TIMED_CHANNEL_CASE V4_OPERATION_CASES)
START_EVENT(5, PROXY_CASES NET_CASE TIMED_CHANNEL_CASE V4_OPERATION_CASES API_CASES)
START_EVENT(6, PROXY_CASES NET_CASE TIMED_CHANNEL_CASE V4_OPERATION_CASES API_CASES CE_CASES)

/* The loggers and states are ints and pointers to NCCL; its result 0 means success. */
#define INIT_SHORT(version)                                                                         \
    static int init_v##version(void **context, int *mask) {                                         \
        return open_communicator(version, __builtin_return_address(0), context, mask, 0, NULL, -1, -1, -1); \
    }
#define INIT_LONG(version)                                                                          \
    static int init_v##version(void **context, uint64_t identity, int *mask, const char *name, int nodes, int ranks, \
                               int rank, void *log) {                                               \
        (void)log;                                                                                  \
        return open_communicator(version, __builtin_return_address(0), context, mask, identity, name, nodes, ranks, \
                                 rank);                                                             \
    }
INIT_SHORT(1)
INIT_SHORT(2)
INIT_SHORT(3)
static int init_v4(void **context, int *mask, const char *name, uint64_t identity, int nodes, int ranks, int rank,
                   void *log) {
    (void)log;
    return open_communicator(4, __builtin_return_address(0), context, mask, identity, name, nodes, ranks, rank);
}
INIT_LONG(5)
INIT_LONG(6)

#define EXPORT(version, init_arguments, change_version)                                             \
    struct profiler_v##version {                                                                    \
        const char *name;                                                                           \
        int (*init) init_arguments;                                                                 \
        int (*startEvent)(void *, void **, const struct descriptor_v##version *);                   \
        int (*stopEvent)(void *);                                                                   \
        int (*recordEventState)(void *, int, const union state_v##change_version *);                \
        int (*finalize)(void *);                                                                    \
    };                                                                                              \
    __attribute__((visibility("default"))) const struct profiler_v##version ncclProfiler_v##version = { \
        "eidola", init_v##version, start_v##version, stop, change_v##change_version, finalize};
#define LONG (void **, uint64_t, int *, const char *, int, int, int, void *)
EXPORT(1, (void **, int *), 1)
EXPORT(2, (void **, int *), 1)
EXPORT(3, (void **, int *), 1)
EXPORT(4, (void **, int *, const char *, uint64_t, int, int, int, void *), 4)
EXPORT(5, LONG, 4)
EXPORT(6, LONG, 4)

#define TABLE(field, offset) _Static_assert(offsetof(struct profiler_v6, field) == offset, #field);
#include "layout.h"
