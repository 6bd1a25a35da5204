/* Probes: what a kernel notes of itself while it runs. One header for CUDA, HIP and, in C11 or C++, the CPU.
 *
 * A workgroup (a thread block) has one preallocated buffer and one writer, its first thread, so that recording
 * needs no atomics; every thread may call, the others do nothing. A record is 32 little-endian bytes:
 *
 *   kind         name    peer    flag    value          extra
 *   PHASE_BEGIN  phase   -       -       as given       -
 *   PHASE_END    phase   -       -       as given       -
 *   DATA_WRITE   region  peer    -       bytes          offset in the region, bytes
 *   FLAG_WRITE   -       peer    flag    value set      -
 *   WAIT_BEGIN   -       -       flag    expected       -
 *   WAIT_END     -       -       flag    expected       polls, the successful one included
 *   ANCHOR       -       -       -       real time      compute unit that the workgroup runs on
 *
 * `time` is cheap to read: a GPU's cycle counter, CLOCK_MONOTONIC nanoseconds on a CPU. Of a data write it is
 * when its last store was issued, of a flag write just before its store, of a wait's begin before the first
 * poll, of its end after the poll that saw the value.
 *
 * Anchors tie cycles to the GPU's real time, once at a workgroup's start and once at its end: nanoseconds
 * (%globaltimer) on NVIDIA; on AMD ticks of s_memrealtime, whose rate the host reads from the device
 * (hipDeviceAttributeWallClockRate) and hands on with the records. A CPU needs none.
 *
 * A full buffer keeps its first records and counts the rest; the last place is kept for the last anchor. The
 * workgroup is implied by the buffer. `#define EIDOLA_PROBES_OFF` before the include takes all probes out.
 *
 * Instructions: %clock64, %globaltimer and %smid of the PTX ISA (special registers); s_memtime and
 * s_memrealtime of AMD's CDNA instruction sets, through clang's __builtin_amdgcn_*; HW_ID's and XCC_ID's fields as in
 * ROCm's amd_device_functions.h. AMD parts without s_memtime (gfx11 and later) do not compile.
 */
#ifndef EIDOLA_PROBE_H
#define EIDOLA_PROBE_H

typedef unsigned long long eidola_u64;

enum {
    EIDOLA_PHASE_BEGIN = 1,
    EIDOLA_PHASE_END = 2,
    EIDOLA_DATA_WRITE = 3,
    EIDOLA_FLAG_WRITE = 4,
    EIDOLA_WAIT_BEGIN = 5,
    EIDOLA_WAIT_END = 6,
    EIDOLA_ANCHOR = 7
};

#define EIDOLA_NO_PEER 0xFFFFu
#define EIDOLA_NO_FLAG 0xFFFFFFFFu

typedef struct {
    eidola_u64 time;
    unsigned char kind;
    unsigned char name;
    unsigned short peer;
    unsigned int flag;
    eidola_u64 value;
    eidola_u64 extra;
} eidola_record;

/* What a workgroup made and kept, beside its buffer; zero before the first launch. */
typedef struct {
    eidola_u64 emitted; /* kept or not */
    eidola_u64 kept;
} eidola_count;

typedef struct {
    eidola_record *records;
    eidola_count *count;
    eidola_u64 capacity;
    eidola_u64 emitted, kept;
    int writes; /* this thread is the workgroup's writer */
    int opened; /* the first anchor was kept, so that the last one has its place */
} eidola_probe;

#if defined(__CUDACC__) && !defined(__HIP__)
#define EIDOLA_CUDA 1
#endif
#if EIDOLA_CUDA || defined(__HIP__)
#define EIDOLA_GPU 1
#define EIDOLA_FN static __device__ __forceinline__
#define EIDOLA_FIRST_THREAD (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0)
#else
#define EIDOLA_GPU 0
#define EIDOLA_FN static inline
#define EIDOLA_FIRST_THREAD 1
#include <time.h>
#ifndef CLOCK_MONOTONIC
#error "eidola_probe.h needs POSIX clocks on a CPU: compile with -std=gnu11, or -D_GNU_SOURCE"
#endif
#endif

#if EIDOLA_CUDA
EIDOLA_FN eidola_u64 eidola_time(void)
{
    eidola_u64 cycles;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles)::"memory");
    return cycles;
}
EIDOLA_FN eidola_u64 eidola_real_time(void)
{
    eidola_u64 ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
    return ns;
}
EIDOLA_FN unsigned int eidola_unit(void)
{
    unsigned int multiprocessor;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(multiprocessor));
    return multiprocessor;
}
#elif EIDOLA_GPU
EIDOLA_FN eidola_u64 eidola_time(void) { return __builtin_amdgcn_s_memtime(); }
EIDOLA_FN eidola_u64 eidola_real_time(void) { return __builtin_amdgcn_s_memrealtime(); }
/* CU, SH and SE from register 4, HW_ID: bits 8 to 14 (15 with eight SEs); the chiplet from register 20, XCC_ID.
   The immediate of s_getreg is register | first bit << 6 | (bits - 1) << 11. */
EIDOLA_FN unsigned int eidola_unit(void)
{
#if defined(__gfx942__) || defined(__gfx950__)
    return __builtin_amdgcn_s_getreg(4 | 8 << 6 | 6 << 11) | __builtin_amdgcn_s_getreg(20 | 3 << 11) << 8;
#else
    return __builtin_amdgcn_s_getreg(4 | 8 << 6 | 7 << 11);
#endif
}
#else
static inline eidola_u64 eidola_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (eidola_u64)now.tv_sec * 1000000000u + (eidola_u64)now.tv_nsec;
}
EIDOLA_FN eidola_u64 eidola_time(void) { return eidola_clock(CLOCK_MONOTONIC); }
EIDOLA_FN eidola_u64 eidola_real_time(void) { return eidola_time(); }
EIDOLA_FN unsigned int eidola_unit(void) { return 0; }
#endif

EIDOLA_FN void eidola_store(eidola_record *slot, eidola_u64 time, unsigned int kind, unsigned int name,
                            unsigned int peer, unsigned int flag, eidola_u64 value, eidola_u64 extra)
{
    eidola_u64 what = (eidola_u64)(kind | name << 8 | peer << 16) | (eidola_u64)flag << 32;
#if EIDOLA_CUDA
    asm volatile("st.v2.u64 [%0], {%1, %2};" ::"l"(slot), "l"(time), "l"(what) : "memory");
    asm volatile("st.v2.u64 [%0+16], {%1, %2};" ::"l"(slot), "l"(value), "l"(extra) : "memory");
#else
    eidola_u64 *words = (eidola_u64 *)(void *)slot;
    words[0] = time;
    words[1] = what;
    words[2] = value;
    words[3] = extra;
#endif
}

/* Record one event, now. A GPU's last place is kept for the last anchor. */
EIDOLA_FN void eidola_note(eidola_probe *probe, unsigned int kind, unsigned int name, unsigned int peer,
                           unsigned int flag, eidola_u64 value, eidola_u64 extra)
{
#ifndef EIDOLA_PROBES_OFF
    if (!probe->writes)
        return;
    if (probe->emitted + EIDOLA_GPU < probe->capacity)
        eidola_store(probe->records + probe->kept++, eidola_time(), kind, name, peer, flag, value, extra);
    probe->emitted++;
#endif
}

/* Begin, at a launch's start: `records` (16-byte aligned) and `count` are this workgroup's, `capacity` in records. */
EIDOLA_FN eidola_probe eidola_begin(eidola_record *records, eidola_count *count, eidola_u64 capacity)
{
    eidola_probe probe;
    probe.records = records;
    probe.count = count;
    probe.capacity = capacity;
    probe.emitted = probe.kept = 0;
    probe.writes = EIDOLA_FIRST_THREAD;
    probe.opened = 0;
#ifndef EIDOLA_PROBES_OFF
    if (probe.writes) {
        probe.emitted = count->emitted;
        probe.kept = count->kept;
        if (EIDOLA_GPU) {
            eidola_note(&probe, EIDOLA_ANCHOR, 0, EIDOLA_NO_PEER, EIDOLA_NO_FLAG, eidola_real_time(), eidola_unit());
            probe.opened = probe.kept > count->kept;
        }
    }
#endif
    return probe;
}

/* End, before the workgroup returns: the last anchor, and the counts. */
EIDOLA_FN void eidola_end(eidola_probe *probe)
{
#ifndef EIDOLA_PROBES_OFF
    if (!probe->writes)
        return;
    if (EIDOLA_GPU) {
        eidola_u64 real_time = eidola_real_time();
        if (probe->opened)
            eidola_store(probe->records + probe->kept++, eidola_time(), EIDOLA_ANCHOR, 0, EIDOLA_NO_PEER,
                         EIDOLA_NO_FLAG, real_time, eidola_unit());
        probe->emitted++;
    }
    probe->count->emitted = probe->emitted;
    probe->count->kept = probe->kept;
#endif
}

EIDOLA_FN void eidola_phase_begin(eidola_probe *probe, unsigned int phase, eidola_u64 value)
{
    eidola_note(probe, EIDOLA_PHASE_BEGIN, phase, EIDOLA_NO_PEER, EIDOLA_NO_FLAG, value, 0);
}

EIDOLA_FN void eidola_phase_end(eidola_probe *probe, unsigned int phase, eidola_u64 value)
{
    eidola_note(probe, EIDOLA_PHASE_END, phase, EIDOLA_NO_PEER, EIDOLA_NO_FLAG, value, 0);
}

/* After the last store: `bytes` were written to `peer`, at `offset` (bytes) of `region`. */
EIDOLA_FN void eidola_data_write(eidola_probe *probe, unsigned int region, unsigned int peer, eidola_u64 bytes,
                                 eidola_u64 offset)
{
    eidola_note(probe, EIDOLA_DATA_WRITE, region, peer, EIDOLA_NO_FLAG, bytes, offset);
}

/* Before the store of `value` to `peer`'s `flag`. */
EIDOLA_FN void eidola_flag_write(eidola_probe *probe, unsigned int peer, unsigned int flag, eidola_u64 value)
{
    eidola_note(probe, EIDOLA_FLAG_WRITE, 0, peer, flag, value, 0);
}

EIDOLA_FN void eidola_wait_begin(eidola_probe *probe, unsigned int flag, eidola_u64 expected)
{
    eidola_note(probe, EIDOLA_WAIT_BEGIN, 0, EIDOLA_NO_PEER, flag, expected, 0);
}

/* After the poll, number `polls`, that saw `expected` or more in `flag`. */
EIDOLA_FN void eidola_wait_end(eidola_probe *probe, unsigned int flag, eidola_u64 expected, eidola_u64 polls)
{
    eidola_note(probe, EIDOLA_WAIT_END, 0, EIDOLA_NO_PEER, flag, expected, polls);
}

#endif
