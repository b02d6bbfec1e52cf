#include "hv/virtio/bucket.h"

#include <assert.h>

struct bucket bucket_make(uint64_t per_second, uint64_t depth, uint64_t now_ms)
{
	assert(per_second > 0 && depth > 0);
	return (struct bucket){
		.per_second = per_second, .depth = depth, .level = depth, .at_ms = now_ms};
}

uint64_t bucket_level(struct bucket *b, uint64_t now_ms)
{
	uint64_t passed = now_ms > b->at_ms ? now_ms - b->at_ms : 0;
	uint64_t came;

	/* A pause long enough to overflow the product has filled it anyway. */
	if (__builtin_mul_overflow(passed, b->per_second, &came) ||
	    came / 1000 >= b->depth - b->level) {
		b->level = b->depth;
		b->at_ms = now_ms > b->at_ms ? now_ms : b->at_ms;
	} else if (came >= 1000) {
		b->level += came / 1000;
		/* The part of a token that is on its way keeps its time. */
		b->at_ms = now_ms - came % 1000 / b->per_second;
	}
	return b->level;
}

void bucket_spend(struct bucket *b, uint64_t tokens)
{
	assert(tokens <= b->level);
	b->level -= tokens;
}

uint64_t bucket_wait_ms(const struct bucket *b, uint64_t tokens)
{
	assert(tokens <= b->depth);
	return tokens <= b->level
		       ? 0
		       : ((tokens - b->level) * 1000 + b->per_second - 1) / b->per_second;
}
