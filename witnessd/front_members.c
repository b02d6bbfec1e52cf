/* front_members.c: where the other boards are, so that their links find a place and a turn at the
 * API port whoever else crowds there.
 *
 * A board's address in the model may be a name, and it may come from another one. So the last
 * address counts, too, at which it proved who it is. */
#include <string.h>

#include "cluster/store.h"
#include "witnessd/api_call.h"
#include "witnessd/front_internal.h"

struct members {
	struct front *front;
	struct ip at[ADMISSION_MEMBERS_MAX];
	size_t count;
};

static void members_add(struct members *m, const struct ip *at)
{
	for (size_t i = 0; i < m->count; i++)
		if (ip_equal(&m->at[i], at))
			return;
	if (m->count < ADMISSION_MEMBERS_MAX)
		m->at[m->count++] = *at;
}

/* Of this board; 0: of all. */
static void members_add_seen(struct members *m, uint64_t node)
{
	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		const struct board_seen *seen = &m->front->seen[i];

		if (seen->node != 0 && (node == 0 || seen->node == node))
			members_add(m, &seen->at);
	}
}

static int members_visit(void *arg, const Tb__Node *row)
{
	struct members *m = arg;
	struct ip at;
	uint16_t port;

	if (row->id == m->front->identity.node_id)
		return 0;
	if (ip_of_text(row->address, &at, &port) == 0)
		members_add(m, &at);
	members_add_seen(m, row->id);
	return 0;
}

void front_members_look(struct front *f)
{
	struct members m = {.front = f};
	struct store *s = api_store(f->api);

	if (!f->members_stale)
		return;
	if (s == NULL)
		members_add_seen(&m, 0); /* it has just joined */
	else if (store_nodes(s, members_visit, &m) != 0)
		return;
	admission_members_set(f->places, m.at, m.count);
	f->members_stale = s == NULL;
}

void front_member_seen(struct front *f, uint64_t node, const char *address)
{
	struct board_seen now = {.node = node};
	unsigned i = 0;
	uint16_t port;

	if (ip_of_text(address, &now.at, &port) != 0)
		return;
	/* To the front; one that is in the cluster no more goes to the end, and out. */
	while (i < LIMIT_NODES - 1 && f->seen[i].node != node)
		i++;
	memmove(&f->seen[1], &f->seen[0], i * sizeof(now));
	f->seen[0] = now;
	f->members_stale = true;
	front_members_look(f);
}
