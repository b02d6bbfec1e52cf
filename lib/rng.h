/* rng.h: the only file that asks for random numbers.
 *
 * `rng_fill` is the kernel's, for secrets and ids. `struct prng` is a small seeded
 * generator (SplitMix64, Steele et al., OOPSLA 2014) for jitter, simulators and
 * tests: the same seed gives the same numbers everywhere. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Fills with cryptographic random bytes; ends the process if the kernel has none. */
void rng_fill(void *data, size_t len);
uint64_t rng_u64(void);

struct prng {
	uint64_t state; /* any value is a valid seed */
};

uint64_t prng_u64(struct prng *p);
/* Evenly in 0 .. bound-1; bound > 0. */
uint64_t prng_below(struct prng *p, uint64_t bound);
/* True `percent` times of 100. */
int prng_chance(struct prng *p, unsigned percent);
