/* bucket.h: a token bucket: how much of something may be done now, so that over time it is not more
 * than a rate. Pure: the caller tells the time. */
#pragma once
#include <stdint.h>

struct bucket {
	uint64_t per_second; /* tokens that come in */
	uint64_t depth; /* most that are kept */
	uint64_t level; /* what is there at `at_ms` */
	uint64_t at_ms;
};

/* A full one. */
struct bucket bucket_make(uint64_t per_second, uint64_t depth, uint64_t now_ms);
/* Tokens there now. Time that went back counts as none. */
uint64_t bucket_level(struct bucket *b, uint64_t now_ms);
/* Takes `tokens`, at most as many as there are. */
void bucket_spend(struct bucket *b, uint64_t tokens);
/* Milliseconds until `tokens` (at most the depth) are there: 0 if they are. */
uint64_t bucket_wait_ms(const struct bucket *b, uint64_t tokens);
