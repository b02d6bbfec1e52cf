/* facts.h: what a board says of itself to the leader and to the API (proto/model.proto,
 * BoardFacts), made of what board/board.h reads. Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "board/board.h"
#include "proto/model.pb-c.h"

enum { FACTS_LATELY_MS = 120000 };

/* What has been seen lately: trouble that lasts a second is to be seen by who looks now and then.
 * Zero-initialised: nothing yet. */
struct facts_lately {
	bool under_voltage, throttled; /* seen ever */
	uint64_t under_voltage_ms, throttled_ms; /* when last */
	int32_t hottest[2]; /* degrees, in this window of time and in the one before */
	unsigned hottest_count; /* windows that have something */
	uint64_t window_ms; /* when this one began */
};
void facts_lately_note(struct facts_lately *lately, const struct board_condition *now,
		       uint64_t now_ms);

/* A new message, owned by the caller (free_unpacked with NULL), without the watchdog's state. */
Tb__BoardFacts *facts_message(const struct board_facts *facts, const struct facts_lately *lately,
			      uint64_t now_ms);
/* Nothing in them differs. */
bool facts_same(const Tb__BoardFacts *one, const Tb__BoardFacts *two);
