#include "kernels.h"

#include <stddef.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

extern const AttentionKernel attention_plain;
extern const MatmulKernel matmul_plain;
extern LogSumExp logsumexp_plain;

#if defined(__x86_64__)
extern const AttentionKernel attention_avx2, attention_avx512;
extern const MatmulKernel matmul_avx2, matmul_avxvnni, matmul_avx512, matmul_amx;
extern LogSumExp logsumexp_avx2, logsumexp_avx512;

typedef struct {
    int avx2, avxvnni, avx512, amx;
} Features;

/* Tiles need the permission of Linux, which holds for the whole process. */
static int may_use_tiles(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
#else
    return 0;
#endif
}

/* Vector registers count only where the operating system saves them (XCR0). */
static Features features(void) {
    unsigned a, b, c, d, saved, high;
    Features found = {0};
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_FMA)) return found;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (saved & 0x06) != 0x06) return found;
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    const unsigned avx512vnni = 1u << 11, avxvnni = 1u << 4;
    found.avx2 = (b & bit_AVX2) != 0;
    found.avx512 = found.avx2 && (saved & 0xe6) == 0xe6 && (b & avx512) == avx512 &&
                   (c & avx512vnni);
    const unsigned amx_tile = 1u << 24, amx_int8 = 1u << 25;
    found.amx = found.avx512 && (d & amx_tile) && (d & amx_int8) && may_use_tiles();
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) found.avxvnni = found.avx2 && (a & avxvnni);
    return found;
}

static int available(Kernels *to) {
    const Features has = features();
    int count = 0;
    if (has.amx) to[count++] = (Kernels){"amx", &attention_avx512, &matmul_amx, logsumexp_avx512};
    if (has.avx512)
        to[count++] = (Kernels){"avx512", &attention_avx512, &matmul_avx512, logsumexp_avx512};
    if (has.avxvnni)
        to[count++] = (Kernels){"avxvnni", &attention_avx2, &matmul_avxvnni, logsumexp_avx2};
    if (has.avx2) to[count++] = (Kernels){"avx2", &attention_avx2, &matmul_avx2, logsumexp_avx2};
    to[count++] = (Kernels){"plain", &attention_plain, &matmul_plain, logsumexp_plain};
    return count;
}

#elif defined(__aarch64__)
extern const MatmulKernel matmul_dotprod;

static int has_dot_product(void) {
#if defined(__linux__)
    const unsigned long asimddp = 1ul << 20;
    return (getauxval(AT_HWCAP) & asimddp) != 0;
#elif defined(__APPLE__)
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, NULL, 0) && value;
#else
    return 0;
#endif
}

/* The plain attention is NEON's: every processor of this kind has it. */
static int available(Kernels *to) {
    int count = 0;
    if (has_dot_product())
        to[count++] = (Kernels){"dotprod", &attention_plain, &matmul_dotprod, logsumexp_plain};
    to[count++] = (Kernels){"plain", &attention_plain, &matmul_plain, logsumexp_plain};
    return count;
}

#else
static int available(Kernels *to) {
    to[0] = (Kernels){"plain", &attention_plain, &matmul_plain, logsumexp_plain};
    return 1;
}
#endif

enum { MOST_KERNELS = 8 };
static Kernels kernels[MOST_KERNELS];
static int count, chosen;

/* Runs when the library is loaded, before any thread can ask. */
__attribute__((constructor)) static void find_kernels(void) { count = available(kernels); }

const Kernels *chosen_kernels(void) { return kernels + chosen; }

const char *kernels_name(int index) {
    return index >= 0 && index < count ? kernels[index].name : NULL;
}

int choose_kernels(const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(kernels[i].name, name)) {
            chosen = i;
            return 0;
        }
    return -1;
}
