/* Stands in for libnvidia-ml.so.1: it answers pynvml's calls from the file that FAKE_NVML names.
 *
 * A line is a key, a space and a value: `driver 550.54.15`, `0.used 4325376`. What the file lacks is not supported.
 * `init 9` makes that call end with error 9, `hang 1` never end, and `1.error 15` makes GPU 1 give no handle. Compiled with OLD it lacks what
 * drivers before 510 lack.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

typedef unsigned int uint;
typedef unsigned long long ulong64;
typedef struct { char legacy[16]; uint domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;
typedef struct { ulong64 total, free, used; } memory_v1;
typedef struct { uint version; ulong64 total, reserved, free, used; } memory_v2;
typedef struct { uint pid; ulong64 used; uint gpu_instance, compute_instance; } process_info;

static int answer(const char *key, char *value, size_t size)
{
    char line[256];
    size_t length = strlen(key);
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (!strncmp(line, key, length) && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static int text_of(long gpu, const char *name, char *value, size_t size)
{
    char key[64];
    snprintf(key, sizeof key, "%ld.%s", gpu - 1, name); /* a handle is the index and one, for it may not be null */
    return answer(key, value, size) ? SUCCESS : NOT_SUPPORTED;
}

static int number(long gpu, const char *name, ulong64 *value)
{
    char text[64];
    int code = text_of(gpu, name, text, sizeof text);
    if (!code) *value = strtoull(text, 0, 0);
    return code;
}

static int small(long gpu, const char *name, uint *value)
{
    ulong64 wide;
    int code = number(gpu, name, &wide);
    if (!code) *value = (uint)wide;
    return code;
}

int nvmlInitWithFlags(uint flags)
{
    char code[16];
    if (answer("hang", code, sizeof code)) sleep(600);
    return answer("init", code, sizeof code) ? atoi(code) : SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : code == 15 ? "GPU is lost" : "error"; }

int nvmlSystemGetDriverVersion(char *version, uint size)
{
    return answer("driver", version, size) ? SUCCESS : NOT_SUPPORTED;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    char text[16];
    if (!answer("cuda", text, sizeof text)) return NOT_SUPPORTED;
    *version = atoi(text);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(uint *count)
{
    char text[64];
    for (*count = 0; !text_of(*count + 1, "uuid", text, sizeof text); ++*count)
        ;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(uint index, long *gpu)
{
    uint code = SUCCESS;
    *gpu = index + 1;
    small(*gpu, "error", &code);
    return (int)code;
}

int nvmlDeviceGetUUID(long gpu, char *uuid, uint size) { return text_of(gpu, "uuid", uuid, size); }
int nvmlDeviceGetName(long gpu, char *name, uint size) { return text_of(gpu, "name", name, size); }
int nvmlDeviceGetMinorNumber(long gpu, uint *minor) { return small(gpu, "minor", minor); }

int nvmlDeviceGetPciInfo_v3(long gpu, pci_info *pci)
{
    char text[64];
    memset(pci, 0, sizeof *pci);
    if (text_of(gpu, "pci", text, sizeof text)) return NOT_SUPPORTED;
    sscanf(text, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(long gpu, memory_v1 *memory)
{
    ulong64 reserved = 0;
    number(gpu, "reserved", &reserved);
    if (number(gpu, "total", &memory->total) || number(gpu, "used", &memory->used)) return NOT_SUPPORTED;
    memory->used += reserved;
    return SUCCESS;
}

#ifndef OLD
int nvmlDeviceGetMemoryInfo_v2(long gpu, memory_v2 *memory)
{
    if (number(gpu, "total", &memory->total)) return NOT_SUPPORTED;
    number(gpu, "reserved", &memory->reserved);
    return number(gpu, "used", &memory->used);
}
#endif

int nvmlDeviceGetMigMode(long gpu, uint *current, uint *pending)
{
    int code = small(gpu, "mig", current);
    *pending = *current;
    return code;
}

int nvmlDeviceGetTotalEccErrors(long gpu, int type, int counter, ulong64 *count)
{
    if (counter != 0) return NOT_SUPPORTED; /* volatile */
    return number(gpu, type ? "uncorrected" : "corrected", count);
}

int nvmlDeviceGetRetiredPages(long gpu, int cause, uint *count, ulong64 *pages)
{
    uint there;
    int code = small(gpu, cause ? "retired_double" : "retired_single", &there);
    uint room = pages ? *count : 0;
    if (code) return code;
    *count = there;
    if (there > room) return INSUFFICIENT_SIZE;
    for (uint at = 0; at < there; ++at) pages[at] = at;
    return SUCCESS;
}

int nvmlDeviceGetRetiredPagesPendingStatus(long gpu, uint *pending) { return small(gpu, "retirement_pending", pending); }

int nvmlDeviceGetRemappedRows(long gpu, uint *corrected, uint *uncorrected, uint *pending, uint *failed)
{
    *corrected = *uncorrected = 0;
    if (small(gpu, "remap_pending", pending)) return NOT_SUPPORTED;
    return small(gpu, "remap_failed", failed);
}

static int processes(long gpu, const char *name, uint *count, process_info *infos)
{
    char text[64], *next = text;
    uint there = 0, room = infos ? *count : 0;
    if (text_of(gpu, name, text, sizeof text)) return NOT_SUPPORTED;
    for (char *pid = strtok_r(text, ",", &next); pid; pid = strtok_r(0, ",", &next), ++there)
        if (there < room) infos[there] = (process_info){.pid = (uint)atoi(pid), .used = 1 << 20};
    *count = there;
    return there > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#ifdef OLD
int nvmlDeviceGetComputeRunningProcesses_v2(long gpu, uint *count, process_info *infos)
#else
int nvmlDeviceGetComputeRunningProcesses_v3(long gpu, uint *count, process_info *infos)
#endif
{
    return processes(gpu, "compute", count, infos);
}

#ifdef OLD
int nvmlDeviceGetGraphicsRunningProcesses_v2(long gpu, uint *count, process_info *infos)
#else
int nvmlDeviceGetGraphicsRunningProcesses_v3(long gpu, uint *count, process_info *infos)
#endif
{
    return processes(gpu, "graphics", count, infos);
}
