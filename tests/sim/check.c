/* check.c: what must hold, seen from outside. */
#include "tests/sim/world.h"

static bool rings_equal(struct ring a, struct ring b)
{
	return a.node == b.node && a.seq == b.seq;
}

/* S1, one side: a node with an ACK for the ring that it works in is quorate by it. At the same
 * instant no node outside of its membership still holds an ACK for another ring, be it that its
 * corosync has moved on since: it would not know that it lost the vote. */
void check_s1(struct world *w)
{
	for (unsigned i = 1; i <= w->nodes; i++) {
		const struct node *a = &w->node[i];

		if (!a->holds || a->gathering || !rings_equal(a->held_ring, a->ring))
			continue;
		for (unsigned j = 1; j <= w->nodes; j++) {
			const struct node *b = &w->node[j];

			if (!b->holds || rings_equal(a->held_ring, b->held_ring) ||
			    (a->members & b->members) != 0)
				continue;
			world_problem(w,
				      "S1: node %u is quorate on ring %u.%llu while node %u holds "
				      "the vote of ring %u.%llu",
				      i, a->ring.node, (unsigned long long)a->ring.seq, j,
				      b->held_ring.node, (unsigned long long)b->held_ring.seq);
			return;
		}
	}
}

/* S1, committed first: a node is told ACK only for a grant that the log has, and that names it. */
void check_ack(struct world *w, unsigned node, struct ring ring)
{
	for (uint64_t i = 0; i < w->committed_count; i++) {
		const struct log_entry *e = &w->committed[i];

		if (e->proposal != 0 && rings_equal(e->ring, ring) && (e->nodes >> node & 1))
			return;
	}
	world_problem(w,
		      "S1: node %u has an ACK for ring %u.%llu, which no committed grant gives it",
		      node, ring.node, (unsigned long long)ring.seq);
}

/* Long after all has healed the site is whole: one ring, and each node has its vote. */
void check_alive(struct world *w)
{
	for (unsigned i = 1; i <= w->nodes; i++) {
		const struct node *n = &w->node[i];

		if (n->holds && rings_equal(n->held_ring, n->ring))
			continue;
		world_problem(w,
			      "alive: node %u on ring %u.%llu has no vote for it long after all "
			      "has healed",
			      i, n->ring.node, (unsigned long long)n->ring.seq);
		return;
	}
}

/* S1 for leases, one holder: at no instant two nodes act by the lease. */
void check_lease(struct world *w)
{
	for (unsigned i = 1; i <= w->nodes; i++) {
		for (unsigned j = i + 1; w->node[i].acts && j <= w->nodes; j++) {
			if (w->node[j].acts)
				world_problem(w,
					      "S1: nodes %u (epoch %llu) and %u (epoch %llu) act "
					      "by the lease at once",
					      i, (unsigned long long)w->node[i].acts_epoch, j,
					      (unsigned long long)w->node[j].acts_epoch);
		}
	}
}

/* S1 for leases, committed first, and the fencing token: what a node begins to act by is in the
 * log, for this node alone, and greater than all that anybody acted by before. */
void check_lease_given(struct world *w, const struct node *n)
{
	bool committed = false;

	for (uint64_t i = 0; i < w->committed_count; i++) {
		const struct log_entry *e = &w->committed[i];

		committed |= e->proposal != 0 && e->lease && e->epoch == n->acts_epoch &&
			     e->nodes == 1u << n->id;
	}
	if (!committed)
		world_problem(w,
			      "S1: node %u acts by epoch %llu, which no committed grant gives it",
			      n->id, (unsigned long long)n->acts_epoch);
	if (n->acts_epoch <= w->greatest_epoch)
		world_problem(w, "S1: node %u acts by epoch %llu after epoch %llu", n->id,
			      (unsigned long long)n->acts_epoch,
			      (unsigned long long)w->greatest_epoch);
	w->greatest_epoch = n->acts_epoch;
}

/* Long after all has healed one of the nodes, which all want the lease, has it. */
void check_lease_alive(struct world *w)
{
	unsigned count = 0;

	for (unsigned i = 1; i <= w->nodes; i++)
		count += w->node[i].acts;
	if (count != 1)
		world_problem(w, "alive: %u nodes act by the lease long after all has healed",
			      count);
}
