/* kernels.c - which tables this CPU can run.
 *
 * A ladder: each rung needs everything below it, so the CPU's level is one number and the tables it can run are a
 * prefix of the list.  The instruction sets are asked of the compiler's own support library, which looks at CPUID once
 * at program start and also asks the operating system whether it saves the wide registers.
 */
#include "core/panels.h"

#include <string.h>

#if defined(__x86_64__)
static int level(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return 1;
    return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
}
#else
static int level(void)
{
    return 0;
}
#endif

const lp_kernels *const *lp_kernels_all(int *n)
{
    static const lp_kernels *const tables[] = {
        &lp_table_c,
#if defined(__x86_64__)
        &lp_table_avx2,
        &lp_table_avx512,
        &lp_table_avx512bf16,
#endif
    };
    *n = level() + 1;
    return tables;
}

const lp_kernels *lp_kernels_c(void)
{
    return &lp_table_c;
}

const lp_kernels *lp_kernels_best(void)
{
    int n;
    const lp_kernels *const *tables = lp_kernels_all(&n);
    return tables[n - 1];
}

const lp_kernels *lp_kernels_named(const char *name)
{
    int n;
    const lp_kernels *const *tables = lp_kernels_all(&n);
    for (int i = 0; i < n; i++)
        if (strcmp(tables[i]->name, name) == 0) return tables[i];
    return NULL;
}
