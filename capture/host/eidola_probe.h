/* Probe records: what a fused kernel notes of itself, one 32-byte little-endian record at a time.
 *
 * The layout is the same on the host and, later, on a GPU; capture/records.py holds it for Python, and a
 * test compares the two. A workgroup has one preallocated buffer and one writer, so that recording needs no
 * atomics. A full buffer keeps its first records and counts the rest. The workgroup is implied by the buffer.
 *
 *   kind         name    peer    flag    value       extra
 *   PHASE_BEGIN  phase   -       -       epoch       thread CPU ns (on a GPU: its cycle counter)
 *   PHASE_END    phase   -       -       epoch       the same
 *   DATA_WRITE   region  peer    -       bytes       offset in the region, bytes
 *   FLAG_WRITE   -       peer    flag    value set   -
 *   WAIT_BEGIN   -       -       flag    expected    -
 *   WAIT_END     -       -       flag    expected    polls, the successful one included
 *
 * time_ns: of a data write, when its last store was issued; of a flag write, before its store; of a wait's
 * begin, before the first poll; of its end, after the poll that saw the value.
 */
#ifndef EIDOLA_PROBE_H
#define EIDOLA_PROBE_H

#include <stdint.h>

enum {
    EIDOLA_PHASE_BEGIN = 1,
    EIDOLA_PHASE_END = 2,
    EIDOLA_DATA_WRITE = 3,
    EIDOLA_FLAG_WRITE = 4,
    EIDOLA_WAIT_BEGIN = 5,
    EIDOLA_WAIT_END = 6
};

#define EIDOLA_NO_PEER 0xFFFFu
#define EIDOLA_NO_FLAG 0xFFFFFFFFu

typedef struct {
    uint64_t time_ns;
    uint8_t kind;
    uint8_t name;
    uint16_t peer;
    uint32_t flag;
    uint64_t value;
    uint64_t extra;
} eidola_record;

_Static_assert(sizeof(eidola_record) == 32, "a probe record is 32 bytes");

typedef struct {
    eidola_record *records;
    uint64_t capacity;
    uint64_t emitted; /* kept or not: what lies beyond capacity was lost */
} eidola_probe;

static inline void eidola_note(eidola_probe *probe, uint64_t time_ns, uint8_t kind, uint8_t name, uint16_t peer,
                               uint32_t flag, uint64_t value, uint64_t extra)
{
    uint64_t index = probe->emitted++;
    if (index < probe->capacity)
        probe->records[index] = (eidola_record){time_ns, kind, name, peer, flag, value, extra};
}

#endif
