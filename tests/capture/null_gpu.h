/* A GPU made of threads: what the GPU path of our sources needs, put before them by null_cupy.py.
 *
 * Every thread of every block is a thread of this process, so that ThreadSanitizer sees each access to "device
 * memory" and whether the protocol orders it, and AddressSanitizer each access beyond an array's end. It gives no more
 * order than a GPU: a shuffle moves values and orders no memory, atomicCAS is relaxed, a fence alone orders nothing. A
 * device's real time counts ns in steps of 32, device d being d ms ahead; a block's cycle counter begins elsewhere.
 */
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline

#ifdef NULL_RELAXED /* to see that a protocol without order is found out */
#define NULL_RELEASE __ATOMIC_RELAXED
#define NULL_ACQUIRE __ATOMIC_RELAXED
#else
#define NULL_RELEASE __ATOMIC_RELEASE
#define NULL_ACQUIRE __ATOMIC_ACQUIRE
#endif

typedef unsigned long long null_word;

struct null_index { unsigned int x, y, z; };
struct null_warp {
    std::atomic<unsigned int> arrived, round;
    std::atomic<float> lanes[NULL_WARP];
};
struct null_block {
    pthread_barrier_t barrier;
    std::vector<null_warp> warps;
    unsigned int index, threads;
    int device;
    alignas(16) char shared[256];
};

static thread_local null_block *null_here;
static thread_local null_index threadIdx;
#define blockIdx (null_index{null_here->index, 0, 0})
#define blockDim (null_index{null_here->threads, 1, 1})

/* `__shared__ T name;` is made `T &name = null_shared(T, n);`, n being its number in the source. */
#define null_shared(T, n) (*(T *)(null_here->shared + (n) * 16))

static inline void __syncthreads() { pthread_barrier_wait(&null_here->barrier); }

/* All lanes meet; relaxed, so that meeting orders nothing. */
static void null_meet(null_warp &warp, unsigned int lanes)
{
    unsigned int round = warp.round.load(std::memory_order_relaxed);
    if (warp.arrived.fetch_add(1, std::memory_order_relaxed) + 1 == lanes) {
        warp.arrived.store(0, std::memory_order_relaxed);
        warp.round.store(round + 1, std::memory_order_relaxed);
    }
    while (warp.round.load(std::memory_order_relaxed) == round)
        sched_yield();
}

static inline float __shfl_down(float value, unsigned int step)
{
    unsigned int lane = threadIdx.x % NULL_WARP, lanes = NULL_WARP;
    null_warp &warp = null_here->warps[threadIdx.x / NULL_WARP];
    warp.lanes[lane].store(value, std::memory_order_relaxed);
    null_meet(warp, lanes);
    float other = lane + step < lanes ? warp.lanes[lane + step].load(std::memory_order_relaxed) : value;
    null_meet(warp, lanes);
    return other;
}

static inline float __shfl_down_sync(unsigned int lanes, float value, unsigned int step)
{
    if (lanes != 0xFFFFFFFFu)
        std::abort();
    return __shfl_down(value, step);
}

static inline void __threadfence_system() {}

static inline null_word atomicCAS(null_word *word, null_word expected, null_word value)
{
    __atomic_compare_exchange_n(word, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

static inline null_word null_ns()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static inline null_word null_cycles() { return 2 * null_ns() + null_here->index * 1000000000ull; }
static inline null_word null_real_time()
{
    sched_yield(); /* who waits looks at the clock now and then: let another run */
    return null_ns() / 32 * 32 + null_here->device * 1000000ull;
}

#define __builtin_amdgcn_s_memtime null_cycles
#define __builtin_amdgcn_s_memrealtime null_real_time
#define __builtin_amdgcn_s_getreg(which) (null_here->index)

/* The PTX that our headers use; null_cupy.py puts these in its place. */
static inline void ptx_clock64(null_word &out) { out = null_cycles(); }
static inline void ptx_globaltimer(null_word &out) { out = null_real_time(); }
static inline void ptx_smid(unsigned int &out) { out = null_here->index; }
static inline void ptx_store_release(null_word *word, null_word value) { __atomic_store_n(word, value, NULL_RELEASE); }
static inline void ptx_load_acquire(null_word &out, const null_word *word)
{
    sched_yield();
    out = __atomic_load_n(word, NULL_ACQUIRE);
}
static inline void ptx_store_two(void *at, size_t offset, null_word first, null_word second)
{
    null_word *words = (null_word *)((char *)at + offset);
    if ((size_t)words % 16) {
        std::fprintf(stderr, "null GPU: st.v2.u64 to %p, which is not 16-byte aligned\n", (void *)words);
        std::abort();
    }
    words[0] = first, words[1] = second;
}

typedef void null_kernel(null_word, null_word, null_word, null_word, null_word, null_word);
struct null_launch;
struct null_thread {
    null_launch *launch;
    null_block *block;
    unsigned int index;
    pthread_t handle;
};
struct null_launch {
    null_kernel *kernel;
    null_word arguments[6];
    std::vector<null_block> blocks;
    std::vector<null_thread> threads;
};

static void *null_run(void *given)
{
    const null_thread *thread = (const null_thread *)given;
    const null_word *a = thread->launch->arguments;
    null_here = thread->block;
    threadIdx.x = thread->index;
    thread->launch->kernel(a[0], a[1], a[2], a[3], a[4], a[5]);
    return nullptr;
}

/* Launch, without waiting; null_finish waits. */
extern "C" null_launch *null_begin(null_kernel *kernel, int device, int blocks, int threads, const null_word *arguments)
{
    null_launch *launch = new null_launch{kernel, {}, std::vector<null_block>(blocks), {}};
    std::memcpy(launch->arguments, arguments, sizeof launch->arguments);
    launch->threads.reserve(blocks * threads);
    for (int b = 0; b < blocks; b++) {
        null_block &block = launch->blocks[b];
        pthread_barrier_init(&block.barrier, nullptr, threads);
        block.warps = std::vector<null_warp>((threads + NULL_WARP - 1) / NULL_WARP);
        block.index = b, block.threads = threads, block.device = device;
        std::memset(block.shared, 0xA5, sizeof block.shared); /* a GPU does not clear it either */
        for (int t = 0; t < threads; t++)
            launch->threads.push_back({launch, &block, (unsigned int)t, {}});
    }
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    for (null_thread &thread : launch->threads)
        if (pthread_create(&thread.handle, &small, null_run, &thread)) {
            std::perror("null GPU: pthread_create");
            std::abort();
        }
    return launch;
}

extern "C" void null_finish(null_launch *launch)
{
    for (null_thread &thread : launch->threads)
        pthread_join(thread.handle, nullptr);
    delete launch;
}

/* HIP's functions that hip.py calls itself. */
extern "C" int hipExtMallocWithFlags(void **out, size_t size, unsigned int flags)
{
    *out = flags == 1 ? std::malloc(size) : nullptr;
    return *out ? 0 : 1;
}
extern "C" int hipFree(void *memory) { return std::free(memory), 0; }
extern "C" int hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t)
{
    *blocks = NULL_BLOCKS_EACH;
    return function && threads ? 0 : 1;
}
