#include "cluster/drain.h"

#include <stddef.h>

static bool drain_leads_on(const struct drain_board *boards, unsigned count, uint64_t self)
{
	for (unsigned i = 0; i < count; i++)
		if (boards[i].node == self)
			return !boards[i].drained;
	/* Not a board of the model any more: the membership sees to it. */
	return true;
}

uint64_t drain_heir(const struct drain_board *boards, unsigned count, uint64_t self)
{
	const struct drain_board *heir = NULL;

	if (drain_leads_on(boards, count, self))
		return 0;
	for (unsigned i = 0; i < count; i++) {
		const struct drain_board *b = &boards[i];

		if (b->node == self || !b->voter || !b->reachable || b->drained)
			continue;
		if (heir == NULL || b->applied > heir->applied)
			heir = b;
	}
	return heir != NULL ? heir->node : 0;
}
