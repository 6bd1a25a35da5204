/* A machine of three GPUs as NVML tells it: 0 and 1 share four NVLinks, 0 has two to a switch, 2 has PCIe alone.
 *
 * Signatures and structures: nvml.h, as nvidia-ml-py 13.615 binds them. Counters grow with every call.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, INVALID = 2 };
typedef struct { int index; } *device;
static struct { int index; } devices[3] = {{0}, {1}, {2}};
static unsigned long long calls;

typedef struct {
    char busIdLegacy[16];
    unsigned domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} pci_info;
typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency;
    uint32_t type, result;
    union { double d; unsigned ui; unsigned long ul; unsigned long long ull; long long sll; } value;
} field_value;

static void pci(int index, pci_info *info) {
    memset(info, 0, sizeof *info);
    snprintf(info->busId, sizeof info->busId, "00000000:%02X:00.0", 0x1A + index);
}

const char *nvmlErrorString(int code) { return code == NOT_SUPPORTED ? "Not Supported" : "Error"; }
int nvmlInitWithFlags(unsigned flags) { return (void)flags, OK; }
int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { return snprintf(text, size, "580.1"), OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { return *count = 3, OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    return index < 3 ? (*handle = &devices[index], OK) : INVALID;
}
int nvmlDeviceGetPciInfo_v3(device d, pci_info *info) { return pci(d->index, info), OK; }
int nvmlDeviceGetName(device d, char *text, unsigned size) { return (void)d, snprintf(text, size, "Fake H1"), OK; }
int nvmlDeviceGetUUID(device d, char *text, unsigned size) { return snprintf(text, size, "GPU-%d", d->index), OK; }
int nvmlDeviceGetNvLinkState(device d, unsigned link, unsigned *active) {
    if (d->index == 2) return NOT_SUPPORTED;
    *active = link < (d->index == 0 ? 6 : 4);
    return OK;
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(device d, unsigned link, pci_info *info) {
    pci(link < 4 ? 1 - d->index : 100, info); /* links 4 and 5 end at a switch */
    return OK;
}
int nvmlDeviceGetFieldValues(device d, int count, field_value *values) {
    calls++;
    for (int i = 0; i < count; i++) {
        field_value *v = &values[i];
        v->type = 3;
        v->result = OK;
        if (v->field == 90 && d->index < 2) v->type = 1, v->value.ui = 26562;
        else if (v->field == 138) v->value.ull = 1000 * calls + v->scope;
        else if (v->field == 139) v->value.ull = 2000 * calls + v->scope;
        else if (v->field == 197) v->value.ull = 7;
        else v->result = NOT_SUPPORTED;
    }
    return OK;
}
int nvmlDeviceGetP2PStatus(device a, device b, int capability, unsigned *status) {
    const int linked = a->index < 2 && b->index < 2;
    *status = capability == 2 ? (linked ? 0 : 5) : a->index == 2 && b->index == 1 ? 1 : 0;
    return OK;
}
int nvmlDeviceGetClockInfo(device d, int kind, unsigned *mhz) { return (void)d, *mhz = kind == 1 ? 1980 : 2619, OK; }
int nvmlDeviceGetPowerUsage(device d, unsigned *mw) { return d->index == 2 ? NOT_SUPPORTED : (*mw = 71000, OK); }
int nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *mj) { return (void)d, *mj = 5, OK; }
