/* NCCL's profiler interface, versions 1 to 6, declared in this project's words; layout.h's facts are asserted below.
 *
 * Members keep NCCL's names, so that a reader finds them in its documentation.
 */
#ifndef EIDOLA_NCCL_DESCRIPTORS_H
#define EIDOLA_NCCL_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef const char *text;

/* Events that never changed, or only once. */
struct proxy_op { pid_t pid; uint8_t channelId; int peer, nSteps, chunkSize, isSend; };
struct proxy_step { int step; };
struct net_plugin { int64_t id; void *data; };
struct channel_v3 { uint8_t channelId; };
struct channel_v4 { uint8_t channelId; uint64_t pTimer; };
struct group_api { bool graphCaptured; int groupDepth; };
struct coll_api { text func; size_t count; text datatype; int root; void *stream; bool graphCaptured; };
struct p2p_api { text func; size_t count; text datatype; void *stream; bool graphCaptured; };
struct kernel_launch { void *stream; };

/* Version 1 gives numbers where later ones give names; up to 3 every operation carries its communicator. */
#define COMMUNICATOR text name; uint64_t commHash
#define BUFFERS const void *sendBuff; void *recvBuff; size_t count; int root

struct coll_v1 {
    COMMUNICATOR; uint64_t seqNumber; uint8_t func; BUFFERS; uint8_t datatype; uint32_t op; size_t trafficBytes;
    uint8_t nMaxChannels, nWarps, algo, proto; int isCollnet, isNvls;
};
struct coll_v2 {
    COMMUNICATOR; uint64_t seqNumber; text func; BUFFERS; text datatype; size_t trafficBytes;
    uint8_t nMaxChannels, nWarps; text algo, proto;
};
struct coll_v3 {
    COMMUNICATOR; uint64_t seqNumber; text func; BUFFERS; text datatype; uint8_t nMaxChannels, nWarps; text algo, proto;
};
struct coll_v4 {
    uint64_t seqNumber; text func; BUFFERS; text datatype; uint8_t nChannels, nWarps; text algo, proto;
};
struct coll_v5 {
    uint64_t seqNumber; text func; BUFFERS; text datatype; uint8_t nChannels, nWarps; text algo, proto;
    void *parentGroup;
};
struct p2p_v1 { COMMUNICATOR; uint8_t func; void *buff; uint8_t datatype; size_t count; int peer; };
struct p2p_v2 { COMMUNICATOR; text func; void *buff; text datatype; size_t count; int peer; };
struct p2p_v4 { text func; void *buff; text datatype; size_t count; int peer; uint8_t nChannels; };
struct p2p_v5 { text func; void *buff; text datatype; size_t count; int peer; uint8_t nChannels; void *parentGroup; };

/* Collectives by copy engines, version 6. */
struct ce_coll {
    uint64_t seqNumber; text func; BUFFERS; text datatype, syncStrategy; bool intraBatchSync;
    uint32_t batchSize, numBatches, ceSeqNum; void *stream;
};
struct ce_sync { bool isComplete; int nRanks; };
struct ce_batch { int numOps; size_t totalBytes; bool useIntraSync; };

#define HEAD(kind) kind type; void *parentObj; int rank
#define PROXY struct proxy_op proxyOp; struct proxy_step proxyStep
#define API                                                                                                     \
    struct group_api groupApi; struct coll_api collApi; struct p2p_api p2pApi; struct kernel_launch kernelLaunch; \
    struct channel_v4 kernelCh; struct net_plugin netPlugin

struct descriptor_v1 { HEAD(uint8_t); union { struct coll_v1 coll; struct p2p_v1 p2p; PROXY; }; };
struct descriptor_v2 { HEAD(uint8_t); union { struct coll_v2 coll; struct p2p_v2 p2p; PROXY; }; };
struct descriptor_v3 {
    HEAD(uint8_t);
    union { struct coll_v3 coll; struct p2p_v2 p2p; PROXY; struct channel_v3 kernelCh; struct net_plugin netPlugin; };
};
struct descriptor_v4 {
    HEAD(uint8_t);
    union { struct coll_v4 coll; struct p2p_v4 p2p; PROXY; struct channel_v4 kernelCh; struct net_plugin netPlugin; };
};
struct descriptor_v5 { HEAD(uint64_t); union { struct coll_v5 coll; struct p2p_v5 p2p; PROXY; API; }; };
struct descriptor_v6 {
    HEAD(uint64_t);
    union {
        struct coll_v5 coll; struct p2p_v5 p2p; PROXY; API;
        struct ce_coll ceColl; struct ce_sync ceCollSync; struct ce_batch ceCollBatch;
    };
};

/* What recordEventState carries. */
struct appended { int appendedProxyOps; };
union state_v1 { struct { size_t transSize; int steps; } proxyOp; struct appended proxyCtrl; };
union state_v4 {
    struct { size_t transSize; } proxyStep;
    struct appended proxyCtrl;
    struct { void *data; } netPlugin;
    struct { uint64_t pTimer; } kernelCh;
};
typedef union state_v1 state_v2, state_v3;
typedef union state_v4 state_v5, state_v6;
typedef union state_v1 state_v1;
typedef union state_v4 state_v4;

#define EVENT(name, bit) EVENT_##name = bit,
enum event {
#include "layout.h"
};
#define EVENT_STATE(name, number) STATE_##name = number,
enum event_state {
#include "layout.h"
};

#define DESCRIPTOR_SIZE(v, bytes) _Static_assert(sizeof(struct descriptor_v##v) == bytes, "descriptor size");
#define DESCRIPTOR(v, field, offset) _Static_assert(offsetof(struct descriptor_v##v, field) == offset, #field);
#define STATE_SIZE(v, bytes) _Static_assert(sizeof(state_v##v) == bytes, "state size");
#define STATE(v, field, offset) _Static_assert(offsetof(state_v##v, field) == offset, #field);
#include "layout.h"

#endif
