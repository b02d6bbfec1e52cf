/* agent_node.c: a node with witness-agent: the real claim (agent/claim.c) and the real duty
 * (agent/duty.c), and around them what agent/client.c and agent/keeper.c do: a connection, and
 * hooks. What acts by the lease is a service that lives on when the agent dies; it ends when a hook
 * has ended it, or with the machine. Where no hook can, something else does it when the lease is
 * over: more is not promised. The whole is late by up to REACTION_MS, as a loop is. */
#include "lib/mem.h"
#include "proto/agent.pb-c.h"
#include "proto/frame.h"
#include "tests/sim/world.h"

enum {
	GREET_MS = 1500, /* a board that does not answer */
	REACTION_MS = 100,
	FRAME_MOST = 4096,
	ROUND_MS = 1000, /* after all boards were tried */
};

static void agent_start(struct world *w, struct node *n, bool left);
static void agent_act(struct world *w, struct node *n, const struct claim_out *out);

static void due_add(uint64_t *ms, uint64_t due)
{
	if (due < *ms)
		*ms = due;
}

static void agent_sleep(struct world *w, struct node *n)
{
	uint64_t ms = UINT64_MAX;

	if (!n->alive)
		return;
	if (n->down_until_ms != 0)
		due_add(&ms, n->down_until_ms);
	else
		due_add(&ms, duty_due(&n->duty));
	if (n->down_until_ms == 0 && duty_speaks(&n->duty)) {
		due_add(&ms, claim_due(&n->claim));
		if (n->state == QDEVICE_IDLE)
			due_add(&ms, n->retry_ms);
		if (n->state == QDEVICE_ASKING)
			due_add(&ms, n->init_ms);
	}
	if (n->hook_end_ms != 0)
		due_add(&ms, n->hook_end_ms);
	if (n->service_end_ms != 0)
		due_add(&ms, n->service_end_ms);
	if (ms == UINT64_MAX)
		return;
	world_at(w, node_when_us(n, ms) + 500 + world_below(w, REACTION_MS * 1000),
		 (struct moment){.kind = MOMENT_NODE, .a = n->id, .number = ++n->wake});
}

/* --- frames --- */

static void send_frame(struct world *w, struct node *n, const Tb__AgentFrame *frame)
{
	struct parcel *p = parcel_new(TCP_BYTES);

	frame_append(&p->bytes, &frame->base);
	pipe_send(w, n->pipe, true, p);
}

/* The other nodes of its side, sorted. */
static size_t seen_fill(const struct world *w, const struct node *n, uint32_t *seen)
{
	size_t count = 0;

	for (unsigned i = 1; i <= w->nodes; i++)
		if (i != n->id && w->node[i].alive && w->group[i] == w->group[n->id])
			seen[count++] = i;
	return count;
}

static void claim_fill(const struct world *w, const struct node *n, Tb__AgentClaim *claim,
		       uint32_t *seen)
{
	claim->number = n->claim.number;
	claim->wanted = n->claim.wanted && n->claim.state != CLAIM_STOPPING;
	claim->epoch = n->claim.epoch;
	claim->generation = n->generation;
	claim->seen = seen;
	claim->n_seen = seen_fill(w, n, seen);
}

static void send_claim(struct world *w, struct node *n)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	Tb__AgentClaim claim = TB__AGENT_CLAIM__INIT;
	uint32_t seen[SIM_NODES];

	if (n->state != QDEVICE_UP)
		return;
	claim_fill(w, n, &claim, seen);
	frame.what_case = TB__AGENT_FRAME__WHAT_CLAIM;
	frame.claim = &claim;
	send_frame(w, n, &frame);
}

static void send_hello(struct world *w, struct node *n)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	Tb__AgentHello hello = TB__AGENT_HELLO__INIT;
	Tb__AgentClaim claim = TB__AGENT_CLAIM__INIT;
	uint32_t nodes[SIM_NODES];
	uint32_t seen[SIM_NODES];

	for (unsigned i = 0; i < w->nodes; i++)
		nodes[i] = i + 1;
	claim_fill(w, n, &claim, seen);
	hello.node = n->id;
	hello.lease_ms = w->lease_ms;
	hello.nodes = nodes;
	hello.n_nodes = w->nodes;
	hello.instance = n->instance;
	hello.attempt = ++n->attempt;
	hello.claim = &claim;
	frame.what_case = TB__AGENT_FRAME__WHAT_HELLO;
	frame.hello = &hello;
	send_frame(w, n, &frame);
}

static void send_number(struct world *w, struct node *n, Tb__AgentFrame__WhatCase what,
			uint64_t number)
{
	Tb__AgentFrame frame = TB__AGENT_FRAME__INIT;
	Tb__AgentRenew renew = TB__AGENT_RENEW__INIT;
	Tb__AgentConfirm confirm = TB__AGENT_CONFIRM__INIT;

	renew.number = number;
	confirm.ticket = number;
	frame.what_case = what;
	if (what == TB__AGENT_FRAME__WHAT_RENEW)
		frame.renew = &renew;
	else
		frame.confirm = &confirm;
	send_frame(w, n, &frame);
}

/* --- the connection --- */

static void agent_lose(struct world *w, struct node *n, const char *why)
{
	world_note(w, "node %u: disconnected: %s", n->id, why);
	if (n->pipe != 0)
		pipe_close(w, n->pipe, true, true);
	n->pipe = 0;
	n->state = QDEVICE_IDLE;
	buf_clear(&n->in);
	claim_disconnected(&n->claim);
	n->retry_ms = clock_of_node(w, n) + world_below(w, w->reconnect_ms / 4) + 1;
}

static void agent_connect(struct world *w, struct node *n)
{
	unsigned at = (n->first_board + n->next_board++) % w->boards + 1;
	struct board *b = &w->board[at];

	if (n->next_board >= w->boards)
		n->next_board = 0;
	if (w->node_cut[n->id][at] || !b->alive || b->frozen_until_us > w->now_us) {
		n->retry_ms = clock_of_node(w, n) + GREET_MS;
		return;
	}
	if (!board_accepts(w, b)) {
		n->retry_ms = clock_of_node(w, n) + (n->next_board == 0 ? ROUND_MS : 5);
		return;
	}
	n->pipe = pipe_open(w, true, n->id, at, 0);
	n->state = QDEVICE_ASKING;
	n->init_ms = clock_of_node(w, n) + GREET_MS;
	send_hello(w, n);
}

/* --- what acts by the lease --- */

static void service_begin(struct world *w, struct node *n)
{
	n->acts = true;
	n->acts_epoch = n->claim.epoch;
	n->service_end_ms = 0;
	world_note(w, "node %u: acts by epoch %llu", n->id, (unsigned long long)n->acts_epoch);
	check_lease_given(w, n);
	check_lease(w);
}

static void service_end(struct world *w, struct node *n, const char *why)
{
	if (n->acts)
		world_note(w, "node %u: has stopped: %s", n->id, why);
	n->acts = false;
	n->service_end_ms = 0;
}

/* Well within its time, with an error, or never: then it is killed. */
static void hook_start(struct world *w, struct node *n, const struct duty_out *out)
{
	static const char *const names[] = {"", "on-gain", "on-loss", "on-loss-failed"};
	uint64_t chance = world_below(w, 4);

	world_note(w, "node %u: %s begins", n->id, names[out->run]);
	n->hook_end_ms = 0;
	n->hook_good = chance < 2;
	if (chance < 3)
		n->hook_end_ms = clock_of_node(w, n) + world_below(w, out->run_ms + 1);
	/* Even this one cannot be started. */
	if (chance == 2 && world_chance(w, 20))
		n->hook_end_ms = clock_of_node(w, n);
}

static void duty_obey(struct world *w, struct node *n, const struct duty_out *out)
{
	struct claim_out claim = {0};

	if (out->kill) {
		/* Some are gone at once, others hang in the kernel. */
		n->hook_good = false;
		n->hook_end_ms = world_chance(w, 50) ? clock_of_node(w, n) : 0;
	}
	if (out->abandon)
		n->hook_end_ms = 0;
	if (out->run != DUTY_NONE)
		hook_start(w, n, out);
	if (out->stopped) {
		claim_stopped(&n->claim, clock_of_node(w, n), &claim);
		agent_act(w, n, &claim);
	}
	claim = (struct claim_out){0};
	claim_want(&n->claim, duty_wants(&n->duty), clock_of_node(w, n), &claim);
	agent_act(w, n, &claim);
}

static void duty_look(struct world *w, struct node *n)
{
	uint64_t now = clock_of_node(w, n);
	struct duty_out out = {0};

	if (n->hook_end_ms != 0 && now >= n->hook_end_ms) {
		n->hook_end_ms = 0;
		if (n->hook_good)
			service_end(w, n, "a hook");
		duty_hook_ended(&n->duty, n->hook_good, now, &out);
		duty_obey(w, n, &out);
		out = (struct duty_out){0};
	}
	duty_tick(&n->duty, now, &out);
	duty_obey(w, n, &out);
}

static void agent_gained(struct world *w, struct node *n)
{
	struct duty_out out = {0};

	service_begin(w, n);
	duty_gained(&n->duty, clock_of_node(w, n), &out);
	duty_obey(w, n, &out);
}

static void agent_lost(struct world *w, struct node *n)
{
	uint64_t now = clock_of_node(w, n);
	struct duty_out out = {0};

	n->service_end_ms = n->claim.until_ms;
	duty_lost(&n->duty, n->claim.until_ms > now ? n->claim.until_ms - now : 0, now, &out);
	duty_obey(w, n, &out);
}

/* Nothing that is sent from here on arrives; what comes is late, but not so late that the
 * connection is given up for it; then all is cut. */
static void last_renewal(struct world *w, struct node *n)
{
	uint64_t late = world_below(w, (uint64_t)w->lease_ms * 1000 / CLAIM_SILENT_PARTS);

	n->last_renewal = false;
	w->pipes[n->pipe].way[0].last_due_us = w->end_us;
	w->pipes[n->pipe].way[1].last_due_us = w->now_us + late;
	world_at(w, w->now_us + late + 10000,
		 (struct moment){.kind = MOMENT_PATHS, .a = n->id, .b = true});
}

static void agent_act(struct world *w, struct node *n, const struct claim_out *out)
{
	if (out->confirm != 0 && n->state == QDEVICE_UP)
		send_number(w, n, TB__AGENT_FRAME__WHAT_CONFIRM, out->confirm);
	if (out->claim)
		send_claim(w, n);
	if (out->renew != 0 && n->state == QDEVICE_UP) {
		send_number(w, n, TB__AGENT_FRAME__WHAT_RENEW, out->renew);
		if (n->last_renewal && n->acts)
			last_renewal(w, n);
	}
	if (out->dead)
		agent_lose(w, n, "it does not answer");
	if (out->gained)
		agent_gained(w, n);
	if (out->lost)
		agent_lost(w, n);
}

/* --- frames of the board --- */

static void agent_frame(struct world *w, struct node *n, const Tb__BoardFrame *frame)
{
	uint64_t now = clock_of_node(w, n);
	struct claim_out out = {0};

	switch (frame->what_case) {
	case TB__BOARD_FRAME__WHAT_WELCOME:
		n->state = QDEVICE_UP;
		send_claim(w, n);
		claim_connected(&n->claim, now, &out);
		break;
	case TB__BOARD_FRAME__WHAT_REFUSED:
		agent_lose(w, n, frame->refused->why);
		break;
	case TB__BOARD_FRAME__WHAT_LEASE:
		world_note(w, "node %u: lease %s, epoch %llu: %s", n->id,
			   frame->lease->yours ? "given" : "refused",
			   (unsigned long long)frame->lease->epoch, frame->lease->why);
		claim_lease(&n->claim, frame->lease->ticket, frame->lease->yours,
			    frame->lease->epoch, frame->lease->claim, now, &out);
		break;
	case TB__BOARD_FRAME__WHAT_RENEWED:
		claim_renewed(&n->claim, frame->renewed->number, now, &out);
		break;
	default:
		break;
	}
	agent_act(w, n, &out);
}

static void agent_bytes(struct world *w, struct node *n, const struct parcel *p)
{
	const uint8_t *payload;
	size_t payload_len;
	size_t frame_len;
	ProtobufCMessage *frame;

	buf_append(&n->in, p->bytes.data, p->bytes.len);
	while (n->state != QDEVICE_IDLE && frame_next(n->in.data, n->in.len, FRAME_MOST, &payload,
						      &payload_len, &frame_len) == 1) {
		if (frame_unpack(&tb__board_frame__descriptor, payload, payload_len,
				 FRAME_MEMORY(payload_len), &frame) != 0) {
			world_problem(w, "node %u gets what is no frame", n->id);
			return;
		}
		buf_consume(&n->in, frame_len);
		agent_frame(w, n, (const Tb__BoardFrame *)frame);
		protobuf_c_message_free_unpacked(frame, NULL);
	}
}

void agent_parcel(struct world *w, struct node *n, struct parcel *p)
{
	if (p->kind == TCP_BYTES)
		agent_bytes(w, n, p);
	else if (p->kind == TCP_END && n->state != QDEVICE_IDLE)
		agent_lose(w, n, "closed by the board");
	agent_sleep(w, n);
}

void agent_tick(struct world *w, struct node *n)
{
	uint64_t now = clock_of_node(w, n);
	struct claim_out out = {0};

	if (!n->alive)
		return;
	if (n->service_end_ms != 0 && now >= n->service_end_ms)
		service_end(w, n, "the lease is over");
	if (n->down_until_ms != 0 && now >= n->down_until_ms)
		agent_start(w, n, n->acts);
	if (n->down_until_ms == 0)
		duty_look(w, n);
	if (n->down_until_ms != 0 || !duty_speaks(&n->duty)) {
		agent_sleep(w, n);
		return;
	}
	claim_tick(&n->claim, now, &out);
	agent_act(w, n, &out);
	if (n->state == QDEVICE_IDLE && now >= n->retry_ms)
		agent_connect(w, n);
	else if (n->state == QDEVICE_ASKING && now >= n->init_ms)
		agent_lose(w, n, "no welcome");
	agent_sleep(w, n);
}

void agent_break(struct world *w, struct node *n)
{
	if (n->alive && n->state != QDEVICE_IDLE)
		agent_lose(w, n, "reset");
	agent_sleep(w, n);
}

static void agent_want(struct world *w, struct node *n, bool wanted)
{
	struct duty_out out = {0};

	n->wish = wanted;
	if (n->down_until_ms != 0)
		return;
	duty_wish(&n->duty, wanted);
	duty_obey(w, n, &out);
}

void agent_whim(struct world *w, struct node *n)
{
	if (!n->alive)
		return;
	if (world_chance(w, 50)) {
		n->generation = world_below(w, 4);
		send_claim(w, n);
	} else {
		agent_want(w, n, !n->wish);
	}
	agent_sleep(w, n);
}

void agent_heal(struct world *w, struct node *n)
{
	n->generation = 4;
	n->last_renewal = false;
	agent_want(w, n, true);
	send_claim(w, n);
	agent_sleep(w, n);
}

/* A process begins; `left`: the status file of the one before says that it had the lease. */
static void agent_start(struct world *w, struct node *n, bool left)
{
	uint64_t now = clock_of_node(w, n);
	struct duty_terms terms = {
		.lease_ms = w->lease_ms, .stop_ms = w->stop_ms, .left = left, .wish = n->wish};
	struct duty_out out = {0};

	terms.has[DUTY_LOSS] = !world_chance(w, 10);
	terms.has[DUTY_LOSS_FAILED] = terms.has[DUTY_LOSS] && world_chance(w, 50);
	n->down_until_ms = 0;
	n->state = QDEVICE_IDLE;
	n->next_board = 0;
	n->first_board = (unsigned)world_below(w, w->boards);
	n->retry_ms = now + world_below(w, 500);
	n->instance = prng_u64(&w->random) | 1;
	n->attempt = 0;
	claim_init(&n->claim, w->lease_ms, w->stop_ms, now);
	duty_begin(&n->duty, &terms, now, &out);
	duty_obey(w, n, &out);
}

void agent_boot(struct world *w, struct node *n)
{
	n->alive = true;
	n->wish = !world_chance(w, 10);
	agent_start(w, n, false);
	agent_sleep(w, n);
}

static void agent_stop(struct world *w, struct node *n, bool told)
{
	if (n->pipe != 0)
		pipe_close(w, n->pipe, true, told);
	n->pipe = 0;
	n->hook_end_ms = 0;
	n->wake++;
	buf_clear(&n->in);
}

/* The whole machine: what acted by the lease is gone with it. */
void agent_crash(struct world *w, struct node *n, bool resets)
{
	if (!n->alive)
		return;
	agent_stop(w, n, resets);
	service_end(w, n, "the machine is off");
	n->down_until_ms = 0;
	n->alive = false;
}

void agent_die(struct world *w, struct node *n)
{
	uint64_t now = clock_of_node(w, n);

	if (!n->alive || n->down_until_ms != 0)
		return;
	world_note(w, "node %u: its agent dies", n->id);
	agent_stop(w, n, true);
	n->state = QDEVICE_IDLE;
	/* Of one that was started again before its on-loss had ended it is known already. */
	if (n->acts && n->service_end_ms == 0)
		n->service_end_ms = n->claim.until_ms;
	n->down_until_ms = now + 1 + world_below(w, world_chance(w, 70) ? 300 : w->lease_ms);
	agent_sleep(w, n);
}
