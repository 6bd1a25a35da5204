/* A ring file of 64-byte records that many threads write without locks and that outlives a killed process.
 *
 * Layout (little-endian): a header of 4096 bytes, 256 communicators of 128 bytes, then `capacity` records, a
 * power of two. Record i of the run lies in slot i % capacity and is whole once its `commit` holds i + 1. The
 * newest records win; every index below `next` whose record is not there was lost, and the reader counts them.
 * eidola.convert.nccl_ring reads it.
 */
#ifndef EIDOLA_NCCL_RING_H
#define EIDOLA_NCCL_RING_H

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define FORMAT 1
#define NAMES 64          /* name 0 stands for none */
#define NAME_BYTES 28
#define COMMUNICATORS 256
#define NO_COMMUNICATOR 0xffff
#define WRITING UINT64_MAX

enum action { START = 1, STOP = 2, CHANGE = 3 };

/* What `a`, `b` and `peer` hold, by event:
 *   Coll, CeColl      sequence number, count, root      P2p           -, count, peer
 *   CollApi, P2pApi   stream, count, root               ProxyOp       process << 32 | steps, chunk bytes, peer
 *   ProxyStep         step, -, -                        KernelCh      -, GPU timer, -
 *   NetPlugin         id, -, -                          GroupApi      depth, -, -
 *   KernelLaunch      stream, -, -                      CeSync        -, -, ranks
 *   CeBatch           operations, bytes, -              CHANGE        steps or appended, bytes or GPU timer, -
 */
struct record {
    _Atomic uint64_t commit;
    uint64_t time_ns;      /* CLOCK_MONOTONIC */
    uint64_t event;        /* the handle: index + 1 of the event's START */
    uint64_t parent;       /* the parent's handle; 0: none */
    uint8_t action, type;  /* type: number of the event's bit; 255 where the handle says it */
    uint16_t communicator;
    uint8_t operation, datatype, algorithm, protocol; /* names */
    uint64_t a, b;
    int32_t peer;
    uint8_t channels, warps; /* channels: their number (Coll, P2p), else the channel */
    uint8_t flags;           /* bit 0: a send (ProxyOp), graph-captured (API), see NCCL's bool (copy engines) */
    uint8_t state;           /* CHANGE: the new state */
};
_Static_assert(sizeof(struct record) == 64, "a record is a cache line");

struct communicator {
    _Atomic uint64_t identity; /* NCCL's hash of the communicator; 0: not said yet */
    uint64_t opened_ns, closed_ns; /* CLOCK_MONOTONIC; closed 0: still open */
    uint64_t opened_unix_ns, closed_unix_ns;
    _Atomic int32_t rank;          /* -1: not said */
    int32_t ranks, nodes;          /* -1: not said */
    _Atomic uint32_t named;        /* 0 no name, 1 being written, 2 whole */
    char name[72];
};
_Static_assert(sizeof(struct communicator) == 128, "a communicator is two cache lines");

struct name { _Atomic uint32_t state; char text[NAME_BYTES]; }; /* state as `named` */

struct header {
    char magic[8];
    uint32_t format, record_bytes;
    uint64_t capacity;
    uint32_t process;
    int32_t rank, world, restart; /* RANK, WORLD_SIZE, TORCHELASTIC_RESTART_COUNT; -1: not set */
    _Atomic int32_t interface;    /* profiler version that NCCL took; 0: none yet */
    int32_t mask;                 /* events asked for */
    _Atomic uint32_t communicators;
    _Atomic uint32_t names_lost;
    uint32_t timer_khz;           /* rate of the GPU timer; 0: it counts nanoseconds (NVIDIA) */
    char pad[128 - 60];
    _Atomic uint64_t next;        /* alone in its cache line: every record adds to it */
    char pad2[192 - 136];
    char library[128];            /* path of the NCCL or RCCL that called, or of what contains it */
    char pad3[2048 - 320];
    struct name names[NAMES];
};
_Static_assert(sizeof(struct header) == 4096, "the header is a page");

struct ring {
    struct header *header;
    struct communicator *communicators;
    struct record *records;
    uint64_t capacity;
};

static inline uint64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline int32_t number_from(const char *variable) {
    const char *value = getenv(variable);
    return value && *value ? atoi(value) : -1;
}

/* Map a new file in `folder`; returns 0, or an errno. Nothing is left where it fails. */
static inline int ring_open(struct ring *ring, const char *folder, uint64_t capacity, int32_t mask) {
    const size_t size = sizeof(struct header) + COMMUNICATORS * sizeof(struct communicator)
                        + capacity * sizeof(struct record);
    const int32_t rank = number_from("RANK");
    char path[4096], who[32] = "";
    if (rank >= 0) snprintf(who, sizeof who, "rank%05d.", rank);
    int file = -1;
    for (int again = 0; file < 0 && again < 100; again++) { /* containers may repeat process numbers */
        char number[16] = "";
        if (again) snprintf(number, sizeof number, ".%d", again);
        int length = snprintf(path, sizeof path, "%s/nccl.%s%d%s.ring", folder, who, (int)getpid(), number);
        if (length < 0 || (size_t)length >= sizeof path) return ENAMETOOLONG;
        file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (file < 0 && errno != EEXIST) return errno;
    }
    if (file < 0) return EEXIST;
    int error = posix_fallocate(file, 0, (off_t)size);
    char *at = error ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) {
        error = error ? error : errno;
        close(file);
        unlink(path);
        return error;
    }
    close(file);
    ring->header = (struct header *)at;
    ring->communicators = (struct communicator *)(at + sizeof(struct header));
    ring->records = (struct record *)(at + sizeof(struct header) + COMMUNICATORS * sizeof(struct communicator));
    ring->capacity = capacity;
    struct header *header = ring->header;
    header->format = FORMAT;
    header->record_bytes = sizeof(struct record);
    header->capacity = capacity;
    header->process = (uint32_t)getpid();
    header->rank = rank;
    header->world = number_from("WORLD_SIZE");
    header->restart = number_from("TORCHELASTIC_RESTART_COUNT");
    header->mask = mask;
    atomic_thread_fence(memory_order_release);
    memcpy(header->magic, "EIDNCCL1", sizeof header->magic);
    return 0;
}

/* Write `record` with the next index and return index + 1. A slot that another thread is still writing, or
 * that a newer record took, is left to it: that record counts as lost. */
static inline uint64_t ring_write(struct ring *ring, struct record *record) {
    const uint64_t index = atomic_fetch_add_explicit(&ring->header->next, 1, memory_order_relaxed);
    struct record *slot = &ring->records[index & (ring->capacity - 1)];
    uint64_t there = atomic_load_explicit(&slot->commit, memory_order_relaxed);
    if (record->action == START) record->event = index + 1;
    if (there > index /* also WRITING */
        || !atomic_compare_exchange_strong_explicit(&slot->commit, &there, WRITING, memory_order_acquire,
                                                    memory_order_relaxed))
        return index + 1;
    const size_t skip = sizeof record->commit;
    memcpy((char *)slot + skip, (char *)record + skip, sizeof *record - skip);
    atomic_store_explicit(&slot->commit, index + 1, memory_order_release);
    return index + 1;
}

/* Return the number of `text` among the names, adding it where it is new; 0 for none and where all are taken.
 * Two threads that add one name at once may give it two numbers; both say the same. */
static inline uint8_t ring_name(struct ring *ring, const char *text) {
    if (!text || !*text) return 0;
    for (int i = 1; i < NAMES; i++) {
        struct name *name = &ring->header->names[i];
        uint32_t state = atomic_load_explicit(&name->state, memory_order_acquire);
        if (state == 2 && strncmp(name->text, text, NAME_BYTES - 1) == 0) return (uint8_t)i;
        if (state == 0
            && atomic_compare_exchange_strong_explicit(&name->state, &state, 1, memory_order_acquire,
                                                       memory_order_relaxed)) {
            strncpy(name->text, text, NAME_BYTES - 1);
            atomic_store_explicit(&name->state, 2, memory_order_release);
            return (uint8_t)i;
        }
    }
    atomic_fetch_add_explicit(&ring->header->names_lost, 1, memory_order_relaxed);
    return 0;
}

#endif
