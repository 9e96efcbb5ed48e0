// That every function of the plugin's table is here, as the table has it: what is missing does not link, and what
// differs does not compile.
#include <type_traits>

#include "cuda/driver.h"

#define IS_AS_TOLD(field, symbol, arguments)                                                                           \
    static_assert(std::is_same<decltype(&symbol), CUresult(CUDAAPI *) arguments>::value, #symbol " differs");
CU_DRIVER_FUNCTIONS(IS_AS_TOLD)

#define ADDRESS(field, symbol, arguments) (void *)&symbol,
extern "C" __attribute__((visibility("hidden"))) void *const host_functions[] = { CU_DRIVER_FUNCTIONS(ADDRESS) };
