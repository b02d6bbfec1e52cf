/* node.c: a node of the site: corosync as far as its rings go, and corosync-qdevice as its
 * protocol describes it: what it sends when, and what makes it give up. */
#include "lib/mem.h"
#include "tests/sim/world.h"

enum {
	CONNECT_MS = 3000, /* a board that does not answer */
	INIT_MS = 8000,
	REACTION_MS = 100, /* an event loop that is late */
};

static void node_sleep(struct world *w, struct node *n)
{
	uint64_t ms = UINT64_MAX;

	if (!n->alive)
		return;
	if (n->state == QDEVICE_IDLE)
		ms = n->retry_ms;
	if (n->state == QDEVICE_ASKING)
		ms = n->init_ms;
	if (n->state == QDEVICE_UP) {
		ms = n->echo_ms;
		if (n->list_ms != 0 && n->list_ms < ms)
			ms = n->list_ms;
	}
	if (ms == UINT64_MAX)
		return;
	world_at(w, node_when_us(n, ms) + 500,
		 (struct moment){.kind = MOMENT_NODE, .a = n->id, .number = ++n->wake});
}

/* ffsplit, and the others as far as the witness goes: no connection, no vote. */
static void node_lose(struct world *w, struct node *n, const char *why)
{
	world_note(w, "node %u: disconnected: %s", n->id, why);
	if (n->pipe != 0)
		pipe_close(w, n->pipe, true, true);
	n->pipe = 0;
	n->holds = false;
	n->state = QDEVICE_IDLE;
	n->next_board = 0;
	n->first_board = (unsigned)world_below(w, w->boards);
	n->retry_ms = clock_of_node(w, n) + world_below(w, w->reconnect_ms);
}

static void node_connect(struct world *w, struct node *n)
{
	unsigned at = (n->first_board + n->next_board++) % w->boards + 1;
	struct board *b = &w->board[at];
	struct parcel *p;

	if (n->next_board >= w->boards)
		n->next_board = 0;
	if (w->node_cut[n->id][at] || !b->alive || b->frozen_until_us > w->now_us) {
		n->retry_ms = clock_of_node(w, n) + CONNECT_MS;
		return;
	}
	if (!board_accepts(w, b)) {
		n->retry_ms = clock_of_node(w, n) + (n->next_board == 0 ? 1000 : 5);
		return;
	}
	n->pipe = pipe_open(w, true, n->id, at, 0);
	n->state = QDEVICE_ASKING;
	n->init_ms = clock_of_node(w, n) + INIT_MS;
	n->sent_ring = n->ring;
	p = parcel_new(TCP_INIT);
	p->ring = n->ring;
	pipe_send(w, n->pipe, true, p);
}

static void node_send_list(struct world *w, struct node *n, unsigned kind)
{
	struct parcel *p = parcel_new(TCP_LIST);

	p->list_kind = kind;
	p->nodes =
		kind == TB__DOOR_LIST__KIND__MEMBERSHIP ? n->members : ((1u << w->nodes) - 1) << 1;
	p->ring = n->ring;
	p->heuristics = n->heuristics;
	if (kind == TB__DOOR_LIST__KIND__MEMBERSHIP)
		n->sent_ring = n->ring;
	pipe_send(w, n->pipe, true, p);
}

static void node_lists_due(struct world *w, struct node *n)
{
	n->list_ms = 0;
	if (n->first_lists)
		node_send_list(w, n, TB__DOOR_LIST__KIND__INITIAL_CONFIG);
	n->first_lists = false;
	node_send_list(w, n, TB__DOOR_LIST__KIND__MEMBERSHIP);
	node_send_list(w, n, TB__DOOR_LIST__KIND__QUORUM);
}

/* Lists go out once the heuristics have run: at once if there are none. */
static void node_lists_soon(struct world *w, struct node *n)
{
	n->list_ms = clock_of_node(w, n);
	if (w->with_heuristics)
		n->list_ms += world_below(w, 3000);
	if (n->list_ms == 0 || !w->with_heuristics)
		node_lists_due(w, n);
}

static void node_echo_due(struct world *w, struct node *n)
{
	struct parcel *p;

	if (n->echo_answered != n->echo_sent) {
		node_lose(w, n, "no echo in time");
		return;
	}
	p = parcel_new(TCP_ECHO);
	p->number = ++n->echo_sent;
	pipe_send(w, n->pipe, true, p);
	n->echo_ms += w->heartbeat_ms;
}

void node_tick(struct world *w, struct node *n)
{
	uint64_t now = clock_of_node(w, n);

	if (!n->alive)
		return;
	if (n->state == QDEVICE_IDLE && now >= n->retry_ms)
		node_connect(w, n);
	else if (n->state == QDEVICE_ASKING && now >= n->init_ms)
		node_lose(w, n, "no answer to INIT");
	if (n->state == QDEVICE_UP && n->list_ms != 0 && now >= n->list_ms)
		node_lists_due(w, n);
	if (n->state == QDEVICE_UP && now >= n->echo_ms + world_below(w, REACTION_MS))
		node_echo_due(w, n);
	node_sleep(w, n);
}

static void node_vote(struct world *w, struct node *n, const struct parcel *p)
{
	bool valid = p->ring.node == n->sent_ring.node && p->ring.seq == n->sent_ring.seq;
	struct parcel *reply;

	if (n->first_lists)
		world_problem(w, "node %u gets a vote before it has sent its lists, and ends",
			      n->id);
	if (p->code == TB__VOTE__VOTE_ACK)
		check_ack(w, n->id, p->ring);
	/* While the heuristics run for a new ring no vote is cast, and afterwards it starts anew.
	 */
	if (valid && p->code == TB__VOTE__VOTE_ACK && n->list_ms != 0 && !n->first_lists)
		valid = false;
	if (valid) {
		n->holds = p->code == TB__VOTE__VOTE_ACK;
		n->held_ring = p->ring;
		world_note(w, "node %u: %s for ring %u.%llu", n->id, n->holds ? "ACK" : "NACK",
			   p->ring.node, (unsigned long long)p->ring.seq);
	}
	reply = parcel_new(TCP_VOTE_REPLY);
	reply->number = p->number;
	pipe_send(w, n->pipe, true, reply);
	check_s1(w);
}

void node_parcel(struct world *w, struct node *n, struct parcel *p)
{
	uint64_t now = clock_of_node(w, n);

	switch (p->kind) {
	case TCP_INIT_REPLY:
		if (n->state != QDEVICE_ASKING)
			break;
		if (p->code != 0) {
			world_note(w, "node %u: INIT refused with %u", n->id, p->code);
			node_lose(w, n, "refused");
			break;
		}
		n->state = QDEVICE_UP;
		n->echo_sent = 0;
		n->echo_answered = 0;
		n->echo_ms = now + w->heartbeat_ms;
		n->first_lists = true;
		node_lists_soon(w, n);
		break;
	case TCP_ECHO_REPLY:
		n->echo_answered = p->number;
		break;
	case TCP_VOTE:
		if (n->state == QDEVICE_UP)
			node_vote(w, n, p);
		break;
	case TCP_END:
		node_lose(w, n, "closed by the board");
		break;
	default:
		break;
	}
	node_sleep(w, n);
}

void node_ring(struct world *w, struct node *n, struct ring ring, unsigned members)
{
	if (!n->alive)
		return;
	/* A ring is installed by nobody before all its members have left their old ones (totem's
	 * commit token goes round twice). Whether all get as far as installing it is another
	 * matter. */
	for (unsigned i = 1; i <= w->nodes; i++) {
		struct node *other = &w->node[i];

		if ((members >> i & 1) && other->ring.seq != ring.seq)
			other->gathering = true;
	}
	n->gathering = false;
	n->ring = ring;
	n->members = members;
	world_note(w, "node %u: ring %u.%llu of %x", n->id, ring.node, (unsigned long long)ring.seq,
		   members);
	if (n->state == QDEVICE_UP)
		node_lists_soon(w, n);
	node_sleep(w, n);
	check_s1(w);
}

void node_heuristics(struct world *w, struct node *n)
{
	struct parcel *p;

	n->heuristics = (unsigned)world_below(w, 3);
	if (!n->alive || n->state != QDEVICE_UP || n->list_ms != 0)
		return;
	p = parcel_new(TCP_HEURISTICS);
	p->heuristics = n->heuristics;
	pipe_send(w, n->pipe, true, p);
}

/* Something on the way resets the connection, for both ends. */
void node_break(struct world *w, struct node *n)
{
	if (n->alive && n->state != QDEVICE_IDLE)
		node_lose(w, n, "reset");
	node_sleep(w, n);
}

void node_boot(struct world *w, struct node *n)
{
	n->alive = true;
	n->state = QDEVICE_IDLE;
	n->next_board = 0;
	n->first_board = (unsigned)world_below(w, w->boards);
	n->retry_ms = clock_of_node(w, n) + world_below(w, 500);
	n->gathering = false;
	n->ring = (struct ring){n->id, w->ring_seq += 4};
	n->members = 1u << n->id;
	n->list_ms = 0;
	node_sleep(w, n);
	world_partition(w);
}

void node_crash(struct world *w, struct node *n, bool resets)
{
	if (!n->alive)
		return;
	if (n->pipe != 0)
		pipe_close(w, n->pipe, true, resets);
	n->pipe = 0;
	n->holds = false;
	n->alive = false;
	n->wake++;
	n->ring_generation++;
	world_partition(w);
}
