/* agent_board.c: a board's door for agents: what witnessd/agent_door.c does around agent_session,
 * as far as it matters: the lease is looked at before anything is taken or sent. */
#include <stdlib.h>

#include "lib/mem.h"
#include "tests/sim/world.h"

static struct agent_world world_now(const struct world *w, const struct board *b)
{
	return (struct agent_world){.board = b->id,
				    .board_name = "board",
				    .now_ms = clock_of_board(w, b),
				    .real_ms = (int64_t)clock_of_board(w, b)};
}

static struct agent_conn *conn_of_pipe(struct board *b, unsigned pipe)
{
	struct agent_conn *c = b->agents;

	while (c != NULL && c->pipe != pipe)
		c = c->next;
	return c;
}

static struct agent_conn *conn_of_session(struct board *b, uint64_t id)
{
	struct agent_conn *c = b->agents;

	while (c != NULL && c->session.id != id)
		c = c->next;
	return c;
}

/* Hands the events over, which may change the list of connections. */
static void out_emit(struct world *w, struct board *b, struct agent_out *out)
{
	size_t count;
	Tb__DoorEvent **events = door_events_take(&out->events, &count);

	for (size_t i = 0; i < count; i++)
		board_emit(w, b, events[i]);
	free(events);
	buf_free(&out->wire);
}

/* Out of the list and freed; what is left to tell is in `out`. */
static void conn_end(struct world *w, struct board *b, struct agent_conn *c,
		     Tb__DoorClosed__Reason reason, struct agent_out *out)
{
	struct agent_conn **at = &b->agents;

	agent_session_close(&c->session, reason, clock_of_board(w, b), out);
	world_note(w, "board %u: session of node %u ends (%u)", b->id, c->session.node, reason);
	pipe_close(w, c->pipe, false, true);
	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	agent_session_free(&c->session);
	free(c);
}

static void conn_apply(struct world *w, struct board *b, struct agent_conn *c,
		       enum agent_verdict verdict, struct agent_out *out)
{
	if (verdict != AGENT_ABORT && out->wire.len > 0) {
		struct parcel *p = parcel_new(TCP_BYTES);

		buf_append(&p->bytes, out->wire.data, out->wire.len);
		pipe_send(w, c->pipe, false, p);
	}
	if (verdict != AGENT_GO_ON)
		conn_end(w, b, c, TB__DOOR_CLOSED__REASON__BY_DOOR, out);
	out_emit(w, b, out);
}

void agents_parcel(struct world *w, struct board *b, unsigned pipe, struct parcel *p)
{
	struct agent_conn *c = conn_of_pipe(b, pipe);
	struct agent_world now = world_now(w, b);
	struct agent_out out = {0};

	if (c == NULL && p->kind == TCP_BYTES) {
		c = mem_zalloc(sizeof(*c));
		c->pipe = pipe;
		agent_session_init(&c->session, ++b->next_session, "a", w->pipes[pipe].near, "", "",
				   now.now_ms);
		c->next = b->agents;
		b->agents = c;
	}
	if (c == NULL)
		return;
	if (p->kind == TCP_END) {
		conn_end(w, b, c, TB__DOOR_CLOSED__REASON__BY_CLIENT, &out);
		out_emit(w, b, &out);
		return;
	}
	conn_apply(w, b, c,
		   agent_session_receive(&c->session, &now, p->bytes.data, p->bytes.len, &out),
		   &out);
}

void agents_order(struct world *w, struct board *b, const Tb__DoorOrder *o)
{
	struct agent_world now = world_now(w, b);
	struct agent_out out = {0};
	struct agent_conn *c;

	if (!board_may_act(w, b))
		return;
	c = conn_of_session(b, o->session);
	if (c != NULL)
		conn_apply(w, b, c, agent_session_order(&c->session, &now, o, &out), &out);
}

void agents_report(struct world *w, struct board *b)
{
	struct agent_world now = world_now(w, b);
	struct agent_out out = {0};

	agent_out_reset(&out, 0);
	for (const struct agent_conn *c = b->agents; c != NULL; c = c->next)
		agent_session_report(&c->session, &now, &out);
	out_emit(w, b, &out);
}

void agents_end(struct world *w, struct board *b)
{
	while (b->agents != NULL) {
		struct agent_out out = {0};

		conn_end(w, b, b->agents, TB__DOOR_CLOSED__REASON__BY_DOOR, &out);
		out_emit(w, b, &out);
	}
}

void agents_silence(struct world *w, struct board *b)
{
	struct agent_conn *c = b->agents;

	while (c != NULL) {
		struct agent_out out = {0};

		if (clock_of_board(w, b) < c->session.deadline_ms) {
			c = c->next;
			continue;
		}
		conn_end(w, b, c,
			 c->session.state == AGENT_OPEN ? TB__DOOR_CLOSED__REASON__SILENT
							: TB__DOOR_CLOSED__REASON__BY_DOOR,
			 &out);
		out_emit(w, b, &out);
		/* What was decided upon it may have changed the list. */
		c = b->agents;
	}
}

uint64_t agents_due_ms(const struct board *b)
{
	uint64_t due = UINT64_MAX;

	for (const struct agent_conn *c = b->agents; c != NULL; c = c->next)
		if (c->session.deadline_ms < due)
			due = c->session.deadline_ms;
	return due;
}

void agents_free(struct board *b)
{
	while (b->agents != NULL) {
		struct agent_conn *c = b->agents;

		b->agents = c->next;
		agent_session_free(&c->session);
		free(c);
	}
}
