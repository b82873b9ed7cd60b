// Hides AVX-512, AMX and AVX's int8 products from the libraries of a process; see without_avx512.py, which compiles and preloads it.
//
// Libraries ask the processor itself what it can do, by CPUID, and some cannot be told to use less. Linux lets a thread have its
// CPUID instructions refused with SIGSEGV (arch_prctl(2), ARCH_SET_CPUID). The handler here executes them in the thread's place
// and clears the bits of what is hidden. New threads and forked children inherit the refusal; a program that is executed loads
// this again, if its environment is kept and it is linked dynamically.
//
// This has to be the first library whose constructors run (-z initfirst): others ask in theirs. The dynamic loader and the C
// library, and resolvers of indirect functions, have asked before: memory is copied and compared as ever. A thread that blocks
// SIGSEGV is killed at its first CPUID.
//
// The bits are those of CPUID's leaf 7 in "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2A.

#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
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

typedef int Sigaction(int, const struct sigaction *, struct sigaction *);

static bool hiding;
static struct sigaction theirs; // what the program asked for on SIGSEGV: it gets the faults that are its own
static pid_t process;           // whose memory this is: a child of vfork, which has it on loan, resets signals for itself alone

static int real_sigaction(int number, const struct sigaction *action, struct sigaction *before) {
    return ((Sigaction *)dlsym(RTLD_NEXT, "sigaction"))(number, action, before);
}

int sigaction(int number, const struct sigaction *action, struct sigaction *before) {
    if (number != SIGSEGV || !hiding)
        return real_sigaction(number, action, before);
    const struct sigaction old = theirs;
    if (action && getpid() == process)
        theirs = *action;
    if (before)
        *before = old;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, before;
    return sigaction(number, &action, &before) == 0 ? before.sa_handler : SIG_ERR;
}

static long allow_cpuid(int allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void forward(int number, siginfo_t *info, void *context) {
    if (theirs.sa_flags & SA_SIGINFO)
        theirs.sa_sigaction(number, info, context);
    else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN)
        theirs.sa_handler(number);
    else {
        const struct sigaction deadly = {.sa_handler = SIG_DFL};
        real_sigaction(number, &deadly, NULL);
        if (info->si_code <= 0) // sent by a process: no instruction will fault again
            raise(number);
    }
}

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *const registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (info->si_code != SI_KERNEL || memcmp((const void *)registers[REG_RIP], kCpuid, sizeof kCpuid) != 0) {
        forward(number, info, context);
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

static void own(void) { process = getpid(); }

__attribute__((constructor)) static void hide(void) {
    const struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    if (real_sigaction(SIGSEGV, &action, NULL) != 0 || allow_cpuid(0) != 0) {
        // To go on would be to measure something else than what was asked for.
        fputs("this processor or its hypervisor cannot hide instructions (no \"cpuid_fault\" in /proc/cpuinfo)\n", stderr);
        _exit(EXIT_FAILURE);
    }
    own();
    pthread_atfork(NULL, NULL, own);
    hiding = true;
}
