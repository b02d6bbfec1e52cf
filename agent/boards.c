#include "agent/boards.h"

#include <assert.h>

enum { FIRST_MS = 200, HURRY_MS = 50 };

void boards_init(struct boards *b, unsigned count, uint64_t seed, uint64_t now_ms)
{
	assert(count >= 1 && count <= BOARDS_MAX);
	*b = (struct boards){.random = {seed}, .count = count, .due_ms = now_ms};
	for (unsigned i = 0; i < count; i++) {
		unsigned other = (unsigned)prng_below(&b->random, i + 1);

		b->order[i] = b->order[other];
		b->order[other] = i;
	}
}

unsigned boards_next(struct boards *b)
{
	unsigned board = b->order[b->next];

	b->next = (b->next + 1) % b->count;
	return board;
}

void boards_welcome(struct boards *b)
{
	b->failed = 0;
}

void boards_failed(struct boards *b, bool hurry, uint64_t now_ms)
{
	unsigned rounds = b->failed / b->count;
	uint64_t most = FIRST_MS;

	if (b->failed < UINT32_MAX)
		b->failed++;
	while (rounds-- > 0 && most < BOARDS_WAIT_MAX_MS)
		most *= 2;
	if (most > BOARDS_WAIT_MAX_MS)
		most = BOARDS_WAIT_MAX_MS;
	if (hurry && most == FIRST_MS)
		most = HURRY_MS;
	b->due_ms = now_ms + prng_below(&b->random, most) + 1;
}
