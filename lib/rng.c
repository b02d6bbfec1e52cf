#include "lib/rng.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void rng_fill(void *data, size_t len)
{
	uint8_t *at = data;

	while (len > 0) {
		ssize_t got = getrandom(at, len, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			abort();
		at += got;
		len -= (size_t)got;
	}
}

uint64_t rng_u64(void)
{
	uint64_t value;

	rng_fill(&value, sizeof(value));
	return value;
}

uint64_t prng_u64(struct prng *p)
{
	uint64_t z = (p->state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

uint64_t prng_below(struct prng *p, uint64_t bound)
{
	uint64_t limit;
	uint64_t value;

	assert(bound > 0);
	/* Values above the last whole multiple would favour small results. */
	limit = UINT64_MAX - UINT64_MAX % bound;
	do
		value = prng_u64(p);
	while (value >= limit);
	return value % bound;
}

int prng_chance(struct prng *p, unsigned percent)
{
	return prng_below(p, 100) < percent;
}
