#include "hv/cache.h"

#include <stdint.h>

void cache_clean(const void *at, size_t len)
{
#ifdef __aarch64__
	uintptr_t end = (uintptr_t)at + len, line, step;
	uint64_t ctr;

	__asm__("mrs %0, ctr_el0" : "=r"(ctr));
	step = (uintptr_t)4 << (ctr >> 16 & 15);
	for (line = (uintptr_t)at & ~(step - 1); line < end; line += step) {
		__asm__ volatile("dc cvac, %0" : : "r"(line) : "memory");
	}
	__asm__ volatile("dsb sy" : : : "memory");
#else
	(void)at;
	(void)len;
#endif
}
