// Hides AVX-512, AMX and AVX's int8 products from the libraries of a process; see without_avx512.py, which compiles and preloads it.
//
// Libraries ask the processor itself what it can do, by CPUID, and some cannot be told to use less. Linux lets a thread have its
// CPUID instructions refused with SIGSEGV (arch_prctl(2), ARCH_SET_CPUID). The handler here executes them in the thread's place
// and clears the bits of what is hidden. New threads and forked children inherit the refusal; a program that is executed loads
// this again. The dynamic loader and the C library have asked before: they copy and compare memory as ever.
//
// The bits are those of CPUID's leaf 7 in "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2A.

#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(number) (UINT32_C(1) << (number))

static const uint8_t kCpuid[] = {0x0f, 0xa2};
static const uint32_t kFeatures = 7;

// Subleaf 0: AVX-512's F, DQ, IFMA, PF, ER, CD, BW and VL; VBMI, VBMI2, VNNI, BITALG and VPOPCNTDQ; 4VNNIW, 4FMAPS, VP2INTERSECT,
// AMX-BF16, AVX512-FP16, AMX-TILE and AMX-INT8.
static const uint32_t kEbx0 = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const uint32_t kEcx0 = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const uint32_t kEdx0 = BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);
// Subleaf 1: AVX-VNNI, AVX512-BF16, AMX-FP16 and AVX-IFMA; AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16 and AVX10.
static const uint32_t kEax1 = BIT(4) | BIT(5) | BIT(21) | BIT(23);
static const uint32_t kEdx1 = BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19);

static long allow_cpuid(int allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void on_fault(int signal_number, siginfo_t *info, void *context) {
    greg_t *const registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    // A fault in reading the instruction's address is a fault of the thread's own: it comes back as this handler is left.
    if (info->si_code != SI_KERNEL || memcmp((const void *)registers[REG_RIP], kCpuid, sizeof kCpuid) != 0) {
        signal(signal_number, SIG_DFL);
        return;
    }
    const uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
    uint32_t eax, ebx, ecx, edx;
    allow_cpuid(1);
    __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
    allow_cpuid(0);
    if (leaf == kFeatures && subleaf == 0) {
        ebx &= ~kEbx0;
        ecx &= ~kEcx0;
        edx &= ~kEdx0;
    } else if (leaf == kFeatures && subleaf == 1) {
        eax &= ~kEax1;
        edx &= ~kEdx1;
    }
    registers[REG_RAX] = eax;
    registers[REG_RBX] = ebx;
    registers[REG_RCX] = ecx;
    registers[REG_RDX] = edx;
    registers[REG_RIP] += sizeof kCpuid;
}

__attribute__((constructor)) static void hide(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    if (sigaction(SIGSEGV, &action, NULL) != 0 || allow_cpuid(0) != 0) {
        // To go on would be to measure something else than what was asked for.
        fputs("this processor or its hypervisor cannot hide instructions (no \"cpuid_fault\" in /proc/cpuinfo)\n", stderr);
        _exit(EXIT_FAILURE);
    }
}
