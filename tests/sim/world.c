/* world.c: time, chance, networks, and what goes wrong. */
#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

enum {
	FAULTS_US = 40000000,
	/* Long enough after the last fault for: a boot and an election, a lease, the longest own
	 * timeout of a client, a reconnect, and the grace for nodes without lists. */
	HEAL_US = 60000000,
	RETRY_US = 50000,
};

/* --- time and chance --- */

static bool moment_before(const struct moment *a, const struct moment *b)
{
	return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

void world_at(struct world *w, uint64_t at_us, struct moment m)
{
	size_t at = w->moment_count++;

	m.at_us = at_us < w->now_us ? w->now_us : at_us;
	m.order = ++w->moment_order;
	if (w->moment_count > w->moment_room) {
		w->moment_room = w->moment_room ? w->moment_room * 2 : 256;
		w->moments = mem_realloc(w->moments, w->moment_room * sizeof(*w->moments));
	}
	while (at > 0 && moment_before(&m, &w->moments[(at - 1) / 2])) {
		w->moments[at] = w->moments[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	w->moments[at] = m;
}

static struct moment world_next(struct world *w)
{
	struct moment first = w->moments[0];
	struct moment last = w->moments[--w->moment_count];
	size_t at = 0;

	for (;;) {
		size_t child = at * 2 + 1;

		if (child >= w->moment_count)
			break;
		if (child + 1 < w->moment_count &&
		    moment_before(&w->moments[child + 1], &w->moments[child]))
			child++;
		if (!moment_before(&w->moments[child], &last))
			break;
		w->moments[at] = w->moments[child];
		at = child;
	}
	if (w->moment_count > 0)
		w->moments[at] = last;
	return first;
}

bool world_chance(struct world *w, unsigned percent)
{
	return prng_chance(&w->random, percent);
}

uint64_t world_below(struct world *w, uint64_t bound)
{
	return prng_below(&w->random, bound);
}

uint64_t world_delay_us(struct world *w)
{
	uint64_t us = 200 + world_below(w, 5000);

	if (!w->calm && world_chance(w, 5))
		us += world_below(w, 300000);
	if (!w->calm && world_chance(w, 1))
		us += world_below(w, 2500000);
	return us;
}

uint64_t clock_of_board(const struct world *w, const struct board *b)
{
	return b->clock_offset_ms + w->now_us * b->clock_rate / 1000000;
}

uint64_t clock_of_node(const struct world *w, const struct node *n)
{
	return n->clock_offset_ms + w->now_us * n->clock_rate / 1000000;
}

static uint64_t when_us(uint64_t ms, uint64_t offset_ms, unsigned rate)
{
	return ms <= offset_ms ? 0 : ((ms - offset_ms) * 1000000 + rate - 1) / rate;
}

uint64_t board_when_us(const struct board *b, uint64_t ms)
{
	return when_us(ms, b->clock_offset_ms, b->clock_rate);
}

uint64_t node_when_us(const struct node *n, uint64_t ms)
{
	return when_us(ms, n->clock_offset_ms, n->clock_rate);
}

void world_note(struct world *w, const char *format, ...)
{
	va_list args;

	if (!w->trace)
		return;
	printf("[%7.3f] ", (double)w->now_us / 1e6);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void world_problem(struct world *w, const char *format, ...)
{
	va_list args;
	size_t used;

	if (w->problem[0] != '\0')
		return;
	snprintf(w->problem, sizeof(w->problem), "at %.3f s: ", (double)w->now_us / 1e6);
	used = strlen(w->problem);
	va_start(args, format);
	vsnprintf(w->problem + used, sizeof(w->problem) - used, format, args);
	va_end(args);
	world_note(w, "%s", w->problem);
}

/* --- pipes --- */

struct parcel *parcel_new(enum parcel_kind kind)
{
	struct parcel *p = mem_zalloc(sizeof(*p));

	p->kind = kind;
	return p;
}

static void parcel_free(struct parcel *p)
{
	if (p->event != NULL)
		tb__door_event__free_unpacked(p->event, NULL);
	if (p->order != NULL)
		tb__door_order__free_unpacked(p->order, NULL);
	if (p->report != NULL)
		tb__host_report__free_unpacked(p->report, NULL);
	buf_free(&p->bytes);
	free(p);
}

unsigned pipe_open(struct world *w, bool tcp, unsigned near, unsigned far, uint64_t term)
{
	struct pipe *p;

	if (w->pipe_count + 2 > w->pipe_room) {
		w->pipe_room = w->pipe_room ? w->pipe_room * 2 : 64;
		w->pipes = mem_realloc(w->pipes, w->pipe_room * sizeof(*w->pipes));
	}
	p = &w->pipes[++w->pipe_count];
	*p = (struct pipe){.tcp = tcp,
			   .near = near,
			   .far = far,
			   .term = term,
			   .near_open = true,
			   .far_open = true};
	if (!tcp)
		p->near_heard_ms = clock_of_board(w, &w->board[near]);
	p->far_heard_ms = clock_of_board(w, &w->board[far]);
	return w->pipe_count;
}

bool pipe_connected(const struct world *w, const struct pipe *p)
{
	if (p->tcp)
		return !w->node_cut[p->near][p->far];
	return !w->board_cut[p->near][p->far] && !w->board_cut[p->far][p->near];
}

static void pipe_move(struct world *w, unsigned pipe, unsigned way, uint64_t at_us)
{
	w->pipes[pipe].way[way].moving = true;
	world_at(w, at_us, (struct moment){.kind = MOMENT_PIPE, .a = pipe, .b = way});
}

static void pipe_put(struct world *w, unsigned pipe, unsigned way, struct parcel *parcel)
{
	struct pipe *p = &w->pipes[pipe];

	parcel->due_us = w->now_us + world_delay_us(w);
	if (parcel->due_us < p->way[way].last_due_us)
		parcel->due_us = p->way[way].last_due_us;
	p->way[way].last_due_us = parcel->due_us;
	if (p->way[way].tail != NULL)
		p->way[way].tail->next = parcel;
	else
		p->way[way].head = parcel;
	p->way[way].tail = parcel;
	if (!p->way[way].moving)
		pipe_move(w, pipe, way, parcel->due_us);
}

void pipe_send(struct world *w, unsigned pipe, bool from_near, struct parcel *parcel)
{
	struct pipe *p = &w->pipes[pipe];

	if (from_near ? p->near_open : p->far_open)
		pipe_put(w, pipe, from_near ? 0 : 1, parcel);
	else
		parcel_free(parcel);
}

static void pipe_drop(struct pipe *p, unsigned way)
{
	while (p->way[way].head != NULL) {
		struct parcel *next = p->way[way].head->next;

		parcel_free(p->way[way].head);
		p->way[way].head = next;
	}
	p->way[way].tail = NULL;
}

void pipe_close(struct world *w, unsigned pipe, bool near, bool told)
{
	struct pipe *p = &w->pipes[pipe];
	bool *own = near ? &p->near_open : &p->far_open;
	bool other = near ? p->far_open : p->near_open;
	unsigned way = near ? 0 : 1;

	if (!*own)
		return;
	*own = false;
	pipe_drop(p, 1 - way);
	/* A reset overtakes what was queued, and is not repeated. */
	pipe_drop(p, way);
	if (other && told && pipe_connected(w, p))
		pipe_put(w, pipe, way, parcel_new(p->tcp ? TCP_END : LINK_END));
}

static struct board *pipe_board(struct world *w, const struct pipe *p, unsigned way)
{
	if (way == 0)
		return &w->board[p->far];
	return p->tcp ? NULL : &w->board[p->near];
}

static void pipe_deliver(struct world *w, unsigned pipe, unsigned way, struct parcel *parcel)
{
	struct pipe *p = &w->pipes[pipe];
	struct board *b = pipe_board(w, p, way);
	bool open = way == 0 ? p->far_open : p->near_open;

	if (!open) {
		/* The other end learns that nobody is here: a reset. */
		if (parcel->kind != TCP_END && parcel->kind != LINK_END &&
		    (way == 0 ? p->near_open : p->far_open))
			pipe_put(w, pipe, 1 - way, parcel_new(p->tcp ? TCP_END : LINK_END));
		return;
	}
	if (b != NULL && way == 0)
		p->far_heard_ms = clock_of_board(w, b);
	else if (b != NULL)
		p->near_heard_ms = clock_of_board(w, b);
	if (b == NULL && w->leases)
		agent_parcel(w, &w->node[p->near], parcel);
	else if (b == NULL)
		node_parcel(w, &w->node[p->near], parcel);
	else
		board_parcel(w, b, pipe, parcel);
}

static void pipe_moment(struct world *w, unsigned pipe, unsigned way)
{
	struct pipe *p = &w->pipes[pipe];
	struct board *b = pipe_board(w, p, way);
	struct parcel *parcel = p->way[way].head;

	p->way[way].moving = false;
	if (parcel == NULL)
		return;
	if (parcel->due_us > w->now_us) {
		pipe_move(w, pipe, way, parcel->due_us);
		return;
	}
	if (b != NULL && b->frozen_until_us > w->now_us) {
		pipe_move(w, pipe, way, b->frozen_until_us);
		return;
	}
	/* A board without power answers nothing; a cut path is tried again. */
	if (!pipe_connected(w, p) || (b != NULL && !b->alive)) {
		pipe_move(w, pipe, way, w->now_us + RETRY_US);
		return;
	}
	p->way[way].head = parcel->next;
	if (parcel->next == NULL)
		p->way[way].tail = NULL;
	else
		pipe_move(w, pipe, way, parcel->next->due_us);
	pipe_deliver(w, pipe, way, parcel);
	parcel_free(parcel);
}

/* --- partitions of the site's nodes --- */

static unsigned world_group(const struct world *w, unsigned of)
{
	unsigned set = 0;

	for (unsigned i = 1; i <= w->nodes; i++) {
		if (w->node[i].alive && w->group[i] == w->group[of])
			set |= 1u << i;
	}
	return set;
}

/* Each group of nodes that see each other forms a ring, which its members learn of a little apart
 * from each other, seconds after what made it. */
void world_partition(struct world *w)
{
	unsigned done = 0;

	for (unsigned i = 1; i <= w->nodes; i++) {
		unsigned set;
		struct ring ring;
		uint64_t formed;

		if (!w->node[i].alive || (done >> i & 1))
			continue;
		set = world_group(w, i);
		done |= set;
		ring = (struct ring){i, w->ring_seq += 4};
		formed = w->now_us + 300000 + world_below(w, 2500000);
		for (unsigned k = 1; k <= w->nodes; k++) {
			if ((set >> k & 1) == 0)
				continue;
			w->node[k].ring_generation++;
			world_at(w, formed + world_below(w, 400000),
				 (struct moment){.kind = MOMENT_RING,
						 .a = k,
						 .b = set,
						 .number = w->node[k].ring_generation,
						 .ring = ring});
		}
	}
}

/* --- what goes wrong --- */

static unsigned any_board(struct world *w)
{
	return 1 + (unsigned)world_below(w, w->boards);
}

static unsigned any_node(struct world *w)
{
	return 1 + (unsigned)world_below(w, w->nodes);
}

static unsigned leading_board(struct world *w)
{
	for (unsigned i = 1; i <= w->boards; i++) {
		if (w->board[i].alive && w->board[i].fleet != NULL)
			return i;
	}
	return any_board(w);
}

static void fault_board_paths(struct world *w, unsigned board, bool cut)
{
	for (unsigned i = 1; i <= w->boards; i++) {
		w->board_cut[board][i] = cut && i != board;
		w->board_cut[i][board] = cut && i != board;
	}
}

static void fault_board_crash(struct world *w, unsigned board, bool resets)
{
	if (!w->board[board].alive)
		return;
	world_note(w, "board %u: crash", board);
	board_crash(w, &w->board[board], resets);
	world_at(w, w->now_us + 500000 + world_below(w, 15000000),
		 (struct moment){.kind = MOMENT_BOARD_BOOT, .a = board});
}

static void fault_board(struct world *w, unsigned board)
{
	struct board *b = &w->board[board];

	switch (world_below(w, 6)) {
	case 0:
	case 1:
		fault_board_crash(w, board, world_chance(w, 50));
		break;
	case 2:
		world_note(w, "board %u: frozen", board);
		b->frozen_until_us = w->now_us + 100000 + world_below(w, 8000000);
		break;
	case 3:
		world_note(w, "board %u: cut off from the others", board);
		fault_board_paths(w, board, true);
		break;
	case 4:
		if (b->alive && b->raft.role == RAFT_LEADER)
			raft_step_down(w, b);
		break;
	case 5:
		b->drained = !b->drained;
		b->drained_now = world_chance(w, 50);
		world_note(w, "board %u: %s", board, b->drained ? "drained" : "undrained");
		break;
	}
}

static void fault_paths(struct world *w)
{
	unsigned a = any_board(w);
	unsigned b = any_board(w);
	unsigned n = any_node(w);

	switch (world_below(w, 6)) {
	case 0:
		w->board_cut[a][b] = a != b;
		world_note(w, "path of boards %u > %u cut", a, b);
		break;
	case 1:
		for (unsigned i = 1; i <= w->boards; i++)
			fault_board_paths(w, i, false);
		world_note(w, "paths of boards healed");
		break;
	case 2:
		w->node_cut[n][a] = true;
		world_note(w, "node %u cut off from board %u", n, a);
		break;
	case 3:
		for (unsigned i = 1; i <= w->boards; i++)
			w->node_cut[n][i] = true;
		world_note(w, "node %u cut off from all boards", n);
		break;
	case 4:
		memset(w->node_cut, 0, sizeof(w->node_cut));
		world_note(w, "paths of nodes healed");
		break;
	case 5:
		if (w->leases)
			agent_break(w, &w->node[n]);
		else
			node_break(w, &w->node[n]);
		break;
	}
}

/* A pulled plug: alone, and without a witness. */
static void fault_plug(struct world *w, unsigned n)
{
	world_note(w, "node %u: plug pulled", n);
	for (unsigned i = 1; i <= w->nodes; i++)
		w->group[i] = i == n;
	for (unsigned i = 1; i <= w->boards; i++)
		w->node_cut[n][i] = true;
	world_partition(w);
}

static void fault_nodes(struct world *w)
{
	unsigned n = any_node(w);

	switch (world_below(w, 6)) {
	case 0:
	case 1:
	case 2:
		for (unsigned i = 1; i <= w->nodes; i++)
			w->group[i] = (unsigned)world_below(w, 2);
		world_note(w, "nodes are split");
		world_partition(w);
		break;
	case 3:
		memset(w->group, 0, sizeof(w->group));
		world_note(w, "nodes are whole");
		world_partition(w);
		break;
	case 4:
		if (!w->node[n].alive)
			break;
		if (w->leases && world_chance(w, 50)) {
			agent_die(w, &w->node[n]);
			break;
		}
		world_note(w, "node %u: crash", n);
		if (w->leases)
			agent_crash(w, &w->node[n], world_chance(w, 50));
		else
			node_crash(w, &w->node[n], world_chance(w, 50));
		world_at(w, w->now_us + 1000000 + world_below(w, 20000000),
			 (struct moment){.kind = MOMENT_NODE_BOOT, .a = n});
		break;
	case 5:
		fault_plug(w, n);
		break;
	}
}

static void fault_node_paths(struct world *w, unsigned n, bool cut)
{
	for (unsigned i = 1; i <= w->boards; i++)
		w->node_cut[n][i] = cut;
}

/* Whoever acts by the lease, or any. */
static unsigned acting_node(struct world *w)
{
	for (unsigned i = 1; i <= w->nodes; i++) {
		if (w->node[i].acts)
			return i;
	}
	return any_node(w);
}

/* Several things at once, each of which is likely to break what the others rely on. */
static void fault_combined(struct world *w)
{
	unsigned n = w->leases ? acting_node(w) : any_node(w);
	unsigned leader = leading_board(w);
	const struct node *node = &w->node[n];

	switch (world_below(w, w->leases ? 7 : 3)) {
	case 5:
		agent_die(w, &w->node[n]);
		break;
	case 6:
		/* The same, and the leader does not know any more what it had. */
		fault_board_crash(w, leader, false);
		agent_die(w, &w->node[n]);
		break;
	case 3:
	case 4:
		/* The last renewal that is heard, with an answer that is late. */
		world_note(w, "node %u: its next renewal will be its last", n);
		w->node[n].last_renewal = true;
		break;
	case 0:
		/* The plug is pulled and the node's board dies: nobody can say when it was heard.
		 */
		if (node->alive && node->pipe != 0)
			fault_board_crash(w, w->pipes[node->pipe].far, false);
		fault_plug(w, n);
		break;
	case 1:
		/* The same, and there is a new leader who never knew the node. */
		fault_board_crash(w, leader, false);
		fault_plug(w, n);
		break;
	case 2:
		/* The leader is cut off and does not know that it will be followed; nodes that lose
		 * their connections may attach to it. */
		world_note(w, "board %u: cut off from the others", leader);
		fault_board_paths(w, leader, true);
		for (unsigned i = 1; i <= w->nodes; i++) {
			if (world_chance(w, 50))
				world_at(w, w->now_us + 500000 + world_below(w, 4000000),
					 (struct moment){.kind = MOMENT_BREAK, .a = i});
		}
		if (world_chance(w, 50)) {
			for (unsigned i = 1; i <= w->nodes; i++)
				w->group[i] = (unsigned)world_below(w, 2);
			world_partition(w);
		}
		break;
	}
}

static void world_node_boot(struct world *w, unsigned n)
{
	if (w->leases)
		agent_boot(w, &w->node[n]);
	else
		node_boot(w, &w->node[n]);
}

/* From here on everything works. */
static void world_heal(struct world *w)
{
	world_note(w, "all heals");
	w->calm = true;
	w->loss = 0;
	memset(w->board_cut, 0, sizeof(w->board_cut));
	memset(w->node_cut, 0, sizeof(w->node_cut));
	memset(w->group, 0, sizeof(w->group));
	for (unsigned i = 1; i <= w->boards; i++) {
		w->board[i].drained = false;
		if (!w->board[i].alive)
			board_boot(w, &w->board[i]);
	}
	if (w->vms)
		vm_heal(w);
	for (unsigned i = 1; i <= w->nodes; i++) {
		if (!w->node[i].alive)
			world_node_boot(w, i);
		if (w->leases)
			agent_heal(w, &w->node[i]);
	}
	world_partition(w);
}

static void world_fault(struct world *w)
{
	if (w->now_us >= w->end_of_faults_us) {
		world_heal(w);
		return;
	}
	if (w->vms) {
		vm_fault(w);
		world_at(w,
			 w->now_us + 50000 + world_below(w, world_chance(w, 50) ? 600000 : 5000000),
			 (struct moment){.kind = MOMENT_FAULT});
		return;
	}
	switch (world_below(w, 8)) {
	case 0:
		fault_board(w, any_board(w));
		break;
	case 1:
		fault_board(w, leading_board(w));
		break;
	case 2:
	case 3:
		fault_paths(w);
		break;
	case 4:
		if (w->leases)
			agent_whim(w, &w->node[any_node(w)]);
		else if (w->with_heuristics)
			node_heuristics(w, &w->node[any_node(w)]);
		break;
	case 5:
		fault_combined(w);
		break;
	default:
		fault_nodes(w);
		break;
	}
	world_at(w, w->now_us + 50000 + world_below(w, world_chance(w, 50) ? 600000 : 5000000),
		 (struct moment){.kind = MOMENT_FAULT});
}

/* --- the run --- */

static void world_raft(struct world *w, const struct moment *m)
{
	struct board *b = &w->board[m->b];

	if (b->alive && b->frozen_until_us > w->now_us) {
		world_at(w, b->frozen_until_us, *m);
		return;
	}
	if (b->alive && !w->board_cut[m->a][m->b]) {
		raft_receive(w, b, m->a, m->data);
		board_tick(w, b);
	}
	raft_message_free(m->data);
}

static void world_board(struct world *w, const struct moment *m)
{
	struct board *b = &w->board[m->a];

	if (!b->alive || m->number != b->wake)
		return;
	if (b->frozen_until_us > w->now_us)
		world_at(w, b->frozen_until_us, *m);
	else
		board_tick(w, b);
}

static void world_moment(struct world *w, const struct moment *m)
{
	switch (m->kind) {
	case MOMENT_PIPE:
		pipe_moment(w, m->a, m->b);
		break;
	case MOMENT_RAFT:
		world_raft(w, m);
		break;
	case MOMENT_BOARD:
		world_board(w, m);
		break;
	case MOMENT_NODE:
		if (w->node[m->a].alive && w->node[m->a].wake == m->number) {
			if (w->leases)
				agent_tick(w, &w->node[m->a]);
			else
				node_tick(w, &w->node[m->a]);
		}
		break;
	case MOMENT_RING:
		if (!w->leases && w->node[m->a].ring_generation == m->number)
			node_ring(w, &w->node[m->a], m->ring, m->b);
		break;
	case MOMENT_BOARD_BOOT:
		if (!w->board[m->a].alive)
			board_boot(w, &w->board[m->a]);
		break;
	case MOMENT_NODE_BOOT:
		if (!w->node[m->a].alive)
			world_node_boot(w, m->a);
		break;
	case MOMENT_BREAK:
		if (!w->calm && w->leases)
			agent_break(w, &w->node[m->a]);
		else if (!w->calm)
			node_break(w, &w->node[m->a]);
		break;
	case MOMENT_PATHS:
		if (!w->calm)
			fault_node_paths(w, m->a, m->b);
		break;
	case MOMENT_FAULT:
		world_fault(w);
		break;
	default:
		vm_moment(w, m);
		break;
	}
}

static void world_init(struct world *w, const struct options *o)
{
	static const uint32_t heartbeats[] = {1000, 1000, 2000, 4000};

	memset(w, 0, sizeof(*w));
	w->random.state = o->seed;
	w->trace = o->trace;
	w->now_us = 1000000;
	w->end_of_faults_us = w->now_us + FAULTS_US;
	w->end_us = w->end_of_faults_us + HEAL_US;
	w->boards = world_chance(w, 20) ? 5 : world_chance(w, 10) ? 1 : 3;
	w->nodes = world_chance(w, 50) ? 2 : 3 + (unsigned)world_below(w, 3);
	w->heartbeat_ms = heartbeats[world_below(w, 4)];
	w->algorithm = TB__ALGORITHM__ALGORITHM_FFSPLIT;
	if (world_chance(w, 30))
		w->algorithm = w->nodes == 2 && world_chance(w, 50)
				       ? TB__ALGORITHM__ALGORITHM_2NODELMS
				       : TB__ALGORITHM__ALGORITHM_LMS;
	w->keep_active = world_chance(w, 50);
	w->with_heuristics = world_chance(w, 30);
	w->loss = (unsigned)world_below(w, 20);
	w->reconnect_ms = world_chance(w, 50) ? 4500 : 300;
	w->ring_seq = 100;
	/* Clocks differ by at most 1 % from each other. */
	for (unsigned i = 1; i <= w->boards; i++) {
		w->board[i].id = i;
		w->board[i].clock_offset_ms = 100000 + world_below(w, 100000);
		w->board[i].clock_rate = 995 + (unsigned)world_below(w, 11);
		w->board[i].raft.length = 0;
	}
	for (unsigned i = 1; i <= w->nodes; i++) {
		w->node[i].id = i;
		w->node[i].clock_offset_ms = 100000 + world_below(w, 100000);
		w->node[i].clock_rate = 995 + (unsigned)world_below(w, 11);
	}
}

/* The case of a site with agents. */
static void world_init_leases(struct world *w)
{
	static const uint32_t lengths[] = {3000, 4000, 6000, 10000};
	static const Tb__LeasePolicy policies[] = {TB__LEASE_POLICY__LEASE_POLICY_ANY,
						   TB__LEASE_POLICY__LEASE_POLICY_ANY,
						   TB__LEASE_POLICY__LEASE_POLICY_PREFERRED,
						   TB__LEASE_POLICY__LEASE_POLICY_GENERATION};

	w->leases = true;
	w->lease_ms = lengths[world_below(w, 4)];
	w->stop_ms = w->lease_ms / (3 + (uint32_t)world_below(w, 4));
	tb__site_policy__init(&w->policy);
	w->policy.lease = policies[world_below(w, 4)];
	if (w->policy.lease == TB__LEASE_POLICY__LEASE_POLICY_PREFERRED)
		w->policy.lease_node = 1 + (uint32_t)world_below(w, w->nodes);
	for (unsigned i = 1; i <= w->boards; i++)
		w->board[i].policy = &w->policy;
}

static void world_free(struct world *w)
{
	for (unsigned i = 1; i <= w->boards; i++) {
		board_crash(w, &w->board[i], false);
		free(w->board[i].raft.log);
	}
	while (w->moment_count > 0) {
		struct moment m = world_next(w);

		if (m.kind == MOMENT_RAFT)
			raft_message_free(m.data);
	}
	for (unsigned i = 1; i <= w->pipe_count; i++) {
		pipe_drop(&w->pipes[i], 0);
		pipe_drop(&w->pipes[i], 1);
	}
	for (unsigned i = 1; i <= w->nodes; i++)
		buf_free(&w->node[i].in);
	free(w->pipes);
	free(w->moments);
	free(w->committed);
}

int world_run(const struct options *options, char *problem, size_t size)
{
	static struct world w;

	world_init(&w, options);
	if (options->leases)
		world_init_leases(&w);
	if (options->vms)
		vm_world_init(&w);
	world_note(&w, "%u boards, %u nodes, algorithm %u, heartbeat %u ms", w.boards, w.nodes,
		   w.algorithm, w.heartbeat_ms);
	for (unsigned i = 1; i <= w.boards; i++)
		board_boot(&w, &w.board[i]);
	for (unsigned i = 1; i <= w.nodes; i++)
		world_node_boot(&w, i);
	world_at(&w, w.now_us + 12000000, (struct moment){.kind = MOMENT_FAULT});
	while (w.moment_count > 0 && w.problem[0] == '\0') {
		struct moment m = world_next(&w);

		if (m.at_us > w.end_us) {
			if (m.kind == MOMENT_RAFT)
				raft_message_free(m.data);
			if (w.vms)
				check_vm_alive(&w);
			else if (w.leases)
				check_lease_alive(&w);
			else
				check_alive(&w);
			break;
		}
		w.now_us = m.at_us;
		world_moment(&w, &m);
		if (w.vms)
			check_vm_moment(&w);
	}
	snprintf(problem, size, "%s", w.problem);
	world_free(&w);
	return problem[0] != '\0';
}
