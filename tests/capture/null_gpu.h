/* A GPU made of processes: what the fused kernels' GPU path needs, put before their source by null_cupy.py.
 *
 * A block is a process (so that a static is what __shared__ is), its threads are threads, device memory is
 * memory that the processes share. Real time counts ns, device d being d ms ahead; a cycle is half a ns.
 */
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline

enum { LANES = 2, MOST_THREADS = 64 }; /* of a warp; of a block */
typedef unsigned long long null_word;

struct null_index { unsigned int x, y, z; };
static thread_local null_index threadIdx;
static null_index blockIdx, blockDim;
static int null_device;
static pthread_barrier_t null_block, null_warps[MOST_THREADS / LANES];
static float null_lanes[MOST_THREADS];

static void __syncthreads() { pthread_barrier_wait(&null_block); }

static float __shfl_down(float value, int step)
{
    unsigned int thread = threadIdx.x;
    pthread_barrier_t *warp = &null_warps[thread / LANES];
    null_lanes[thread] = value;
    pthread_barrier_wait(warp);
    float other = thread % LANES + step < LANES ? null_lanes[thread + step] : value;
    pthread_barrier_wait(warp);
    return other;
}

static null_word null_ns()
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static null_word null_real_time()
{
    sched_yield(); /* a waiting block looks at the clock now and then: let another run */
    return null_ns() + null_device * 1000000ull;
}

#define __builtin_amdgcn_s_memtime() (2 * null_ns())
#define __builtin_amdgcn_s_memrealtime() null_real_time()
#define __builtin_amdgcn_s_getreg(which) (blockIdx.x)

typedef void null_kernel(null_word, null_word, null_word, null_word, null_word, null_word);
struct null_start { null_kernel *kernel; const null_word *arguments; unsigned int thread; };

static void *null_thread(void *given)
{
    const null_start *start = (const null_start *)given;
    const null_word *a = start->arguments;
    threadIdx.x = start->thread;
    start->kernel(a[0], a[1], a[2], a[3], a[4], a[5]);
    return nullptr;
}

/* Launch, without waiting: `processes` gets the id of each block's. */
extern "C" void null_launch(null_kernel *kernel, int device, int blocks, int threads, const null_word *arguments,
                            int *processes)
{
    for (int block = 0; block < blocks; block++) {
        if ((processes[block] = fork()))
            continue;
        pthread_t handles[MOST_THREADS];
        null_start starts[MOST_THREADS];
        blockIdx.x = block, blockDim.x = threads, null_device = device;
        pthread_barrier_init(&null_block, nullptr, threads);
        for (int warp = 0; warp < threads / LANES; warp++)
            pthread_barrier_init(&null_warps[warp], nullptr, LANES);
        for (int thread = 0; thread < threads; thread++) {
            starts[thread] = {kernel, arguments, (unsigned int)thread};
            pthread_create(&handles[thread], nullptr, null_thread, &starts[thread]);
        }
        for (int thread = 0; thread < threads; thread++)
            pthread_join(handles[thread], nullptr);
        _exit(0);
    }
}
