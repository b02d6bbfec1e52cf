#include "witnessd/agent_session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/candidate.h"
#include "cluster/check.h"
#include "lib/mem.h"
#include "lib/text.h"
#include "proto/agent.pb-c.h"
#include "proto/frame.h"

/* --- what comes out --- */

void agent_out_free(struct agent_out *out)
{
	door_events_free(&out->events);
	buf_free(&out->wire);
	*out = (struct agent_out){0};
}

void agent_out_reset(struct agent_out *out, uint32_t reports)
{
	Tb__DoorEvent *e = door_events_add(&out->events, AGENT_SESSION, TB__DOOR_EVENT__WHAT_RESET);

	e->reset = mem_alloc(sizeof(*e->reset));
	tb__door_reset__init(e->reset);
	e->reset->sessions = reports;
}

static Tb__RingId *ring_message(uint32_t node, uint64_t seq)
{
	Tb__RingId *m = mem_alloc(sizeof(*m));

	tb__ring_id__init(m);
	m->node = node;
	m->seq = seq;
	return m;
}

static uint32_t *ids_copy(const uint32_t *ids, size_t count)
{
	return count != 0 ? mem_dup(ids, count * sizeof(*ids)) : NULL;
}

static Tb__SiteNode *session_node(const struct agent_session *s, const struct agent_world *w)
{
	Tb__SiteNode *n = mem_alloc(sizeof(*n));

	tb__site_node__init(n);
	n->node_id = s->node;
	n->address = mem_strdup(s->address);
	if (s->local != NULL)
		n->local = mem_strdup(s->local);
	n->board = w->board;
	n->tls = true;
	n->certificate = true;
	n->algorithm = TB__ALGORITHM__ALGORITHM_LEASE;
	n->configured = ids_copy(s->nodes, s->node_count);
	n->n_configured = s->node_count;
	n->ring = ring_message(s->ring_node, s->ring_seq);
	n->vote = s->last_result;
	n->last_result = s->last_result;
	n->attached_ms = s->attached_ms;
	n->lease_ms = s->lease_ms;
	n->wanted = s->wanted;
	n->generation = s->generation;
	n->seen = ids_copy(s->seen, s->seen_count);
	n->n_seen = s->seen_count;
	n->held_epoch = s->held_epoch;
	n->instance = s->instance;
	n->attempt = s->attempt;
	n->name = mem_strdup(s->name);
	n->claim = s->claim;
	n->rtt_ms = s->rtt_ms;
	return n;
}

static void tell_open(const struct agent_session *s, const struct agent_world *w,
		      struct agent_out *out)
{
	Tb__DoorEvent *e = door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_OPEN);

	e->open = mem_alloc(sizeof(*e->open));
	tb__door_open__init(e->open);
	e->open->site = mem_strdup(s->site);
	e->open->node = session_node(s, w);
}

void agent_session_report(const struct agent_session *s, const struct agent_world *w,
			  struct agent_out *out)
{
	Tb__DoorReport *r;

	if (s->state == AGENT_ASKED)
		tell_open(s, w, out);
	if (s->state != AGENT_OPEN)
		return;
	r = mem_alloc(sizeof(*r));
	tb__door_report__init(r);
	r->site = mem_strdup(s->site);
	r->node = session_node(s, w);
	r->confirmed = s->confirmed;
	if (s->last_result != TB__VOTE__VOTE_NONE)
		r->vote_ring = ring_message(s->vote_ring_node, s->vote_ring_seq);
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_REPORT)->report = r;
}

static void send_frame(struct agent_out *out, Tb__BoardFrame__WhatCase what, void *message)
{
	Tb__BoardFrame frame = TB__BOARD_FRAME__INIT;

	frame.what_case = what;
	switch (what) {
	case TB__BOARD_FRAME__WHAT_WELCOME:
		frame.welcome = message;
		break;
	case TB__BOARD_FRAME__WHAT_REFUSED:
		frame.refused = message;
		break;
	case TB__BOARD_FRAME__WHAT_LEASE:
		frame.lease = message;
		break;
	case TB__BOARD_FRAME__WHAT_NOTED:
		frame.noted = message;
		break;
	default:
		frame.renewed = message;
		break;
	}
	frame_append(&out->wire, &frame.base);
}

static enum agent_verdict refuse(struct agent_out *out, const char *why)
{
	Tb__BoardRefused refused = TB__BOARD_REFUSED__INIT;

	refused.why = (char *)why;
	send_frame(out, TB__BOARD_FRAME__WHAT_REFUSED, &refused);
	out->why = why;
	return AGENT_CLOSE;
}

/* --- life --- */

int agent_uri_parse(const char *uri, char **ret_site, uint32_t *ret_node)
{
	static const char head[] = "tiebreak:agent/";
	const char *site = uri + sizeof(head) - 1;
	const char *slash = strrchr(uri, '/');
	struct apply_problem problem;
	uint64_t node;
	char *name;

	if (strncmp(uri, head, sizeof(head) - 1) != 0 || slash < site ||
	    text_to_u64(slash + 1, 1, UINT32_MAX, &node) != 0)
		return -EINVAL;
	name = mem_strndup(site, (size_t)(slash - site));
	if (name_check(name, "site", &problem) != 0) {
		free(name);
		return -EINVAL;
	}
	*ret_site = name;
	*ret_node = (uint32_t)node;
	return 0;
}

void agent_session_init(struct agent_session *s, uint64_t id, const char *site, uint32_t node,
			const char *serial, const char *address, uint64_t now_ms)
{
	*s = (struct agent_session){.id = id | AGENT_SESSION,
				    .site = mem_strdup(site),
				    .node = node,
				    .serial = mem_strdup(serial),
				    .address = mem_strdup(address),
				    .name = mem_strdup(""),
				    .deadline_ms = now_ms + AGENT_OPEN_MS,
				    .heard_ms = now_ms,
				    .paced_ms = now_ms,
				    .confirmed = true};
}

void agent_session_free(struct agent_session *s)
{
	buf_free(&s->partial);
	free(s->site);
	free(s->serial);
	free(s->address);
	free(s->local);
	free(s->name);
}

void agent_session_close(struct agent_session *s, Tb__DoorClosed__Reason reason, uint64_t now_ms,
			 struct agent_out *out)
{
	uint64_t age = now_ms - s->heard_ms;
	Tb__DoorEvent *e;

	if (s->state == AGENT_ASKED || s->state == AGENT_OPEN) {
		e = door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_CLOSED);
		e->closed = mem_alloc(sizeof(*e->closed));
		tb__door_closed__init(e->closed);
		e->closed->reason = reason;
		e->closed->heard_age_ms = age < UINT32_MAX ? (uint32_t)age : UINT32_MAX;
	}
	s->state = AGENT_CLOSED;
}

/* --- frames of the agent --- */

static bool ids_take(const uint32_t *ids, size_t count, uint32_t *to, size_t *to_count)
{
	if (count > LIMIT_SITE_NODES)
		return false;
	if (count > 0)
		memcpy(to, ids, count * sizeof(*ids));
	*to_count = count;
	return true;
}

/* A new claim is one that the arbiter has not numbered yet. */
static bool claim_take(struct agent_session *s, const Tb__AgentClaim *claim)
{
	if (claim->number < s->claim ||
	    !ids_take(claim->seen, claim->n_seen, s->seen, &s->seen_count))
		return false;
	if (claim->number != s->claim || claim->wanted != s->wanted)
		s->ring_seq = 0;
	s->claim = claim->number;
	s->wanted = claim->wanted;
	s->held_epoch = claim->epoch;
	s->generation = claim->generation;
	return true;
}

static enum agent_verdict take_hello(struct agent_session *s, const struct agent_world *w,
				     const Tb__AgentHello *hello, struct agent_out *out)
{
	struct apply_problem problem;

	if (hello->node != s->node)
		return refuse(out, "the agent's node id is not the one of its certificate; enrol "
				   "this node with its own id");
	if (hello->claim == NULL || hello->instance == 0 ||
	    text_check(hello->name, LIMIT_NAME, "name", &problem) != 0 ||
	    !ids_take(hello->nodes, hello->n_nodes, s->nodes, &s->node_count) ||
	    !claim_take(s, hello->claim))
		return refuse(out, "the hello is not complete or too long");
	if (hello->lease_ms < LEASE_MIN_MS || hello->lease_ms > LEASE_MAX_MS)
		return refuse(out, "the length of the lease must be 3 s to 120 s");
	free(s->name);
	s->name = mem_strdup(hello->name);
	s->lease_ms = hello->lease_ms;
	s->instance = hello->instance;
	s->attempt = hello->attempt;
	s->attached_ms = w->real_ms;
	s->state = AGENT_ASKED;
	tell_open(s, w, out);
	return AGENT_GO_ON;
}

static enum agent_verdict take_claim(struct agent_session *s, const Tb__AgentClaim *claim,
				     struct agent_out *out)
{
	Tb__DoorClaim *c;

	if (!claim_take(s, claim))
		return refuse(out, "the claim is older than the one before, or too long");
	c = mem_alloc(sizeof(*c));
	tb__door_claim__init(c);
	c->number = s->claim;
	c->wanted = s->wanted;
	c->held_epoch = s->held_epoch;
	c->generation = s->generation;
	c->seen = ids_copy(s->seen, s->seen_count);
	c->n_seen = s->seen_count;
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_CLAIM)->claim = c;
	return AGENT_GO_ON;
}

static void take_renew(struct agent_session *s, const struct agent_world *w,
		       const Tb__AgentRenew *renew, struct agent_out *out)
{
	Tb__BoardRenewed renewed = TB__BOARD_RENEWED__INIT;

	renewed.number = renew->number;
	send_frame(out, TB__BOARD_FRAME__WHAT_RENEWED, &renewed);
	out->renewals++;
	s->heard_ms = w->now_ms;
	s->deadline_ms = w->now_ms + candidate_own_timeout_ms(s->lease_ms);
}

static void take_confirm(struct agent_session *s, const Tb__AgentConfirm *confirm,
			 struct agent_out *out)
{
	Tb__DoorEvent *e;

	if (s->confirmed || confirm->ticket != s->ticket)
		return;
	s->confirmed = true;
	if (s->last_result == TB__VOTE__VOTE_NACK)
		s->held_epoch = 0;
	e = door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_VOTE_REPLY);
	e->vote_reply = mem_alloc(sizeof(*e->vote_reply));
	tb__door_vote_reply__init(e->vote_reply);
	e->vote_reply->ticket = s->ticket;
}

static enum agent_verdict take_frame(struct agent_session *s, const struct agent_world *w,
				     const Tb__AgentFrame *frame, struct agent_out *out)
{
	s->paced_ms = (s->paced_ms > w->now_ms ? s->paced_ms : w->now_ms) + AGENT_FRAME_COST_MS;
	if (s->paced_ms > w->now_ms + AGENT_CREDIT_MS)
		return refuse(out, "it sends more than any agent needs to");
	if (frame->what_case == TB__AGENT_FRAME__WHAT_HELLO && s->state == AGENT_NEW)
		return take_hello(s, w, frame->hello, out);
	if (s->state != AGENT_OPEN)
		return refuse(out, "a frame came before its time");
	switch (frame->what_case) {
	case TB__AGENT_FRAME__WHAT_CLAIM:
		return take_claim(s, frame->claim, out);
	case TB__AGENT_FRAME__WHAT_RENEW:
		take_renew(s, w, frame->renew, out);
		return AGENT_GO_ON;
	case TB__AGENT_FRAME__WHAT_CONFIRM:
		take_confirm(s, frame->confirm, out);
		return AGENT_GO_ON;
	default:
		/* Of a later release: it knows from our silence that we do not know it. */
		return AGENT_GO_ON;
	}
}

enum agent_verdict agent_session_receive(struct agent_session *s, const struct agent_world *w,
					 const uint8_t *data, size_t len, struct agent_out *out)
{
	enum agent_verdict verdict = AGENT_GO_ON;
	size_t used = 0;

	if (s->state == AGENT_CLOSED || len == 0)
		return AGENT_GO_ON;
	buf_append(&s->partial, data, len);
	while (verdict == AGENT_GO_ON) {
		ProtobufCMessage *frame;
		const uint8_t *payload;
		size_t payload_len, frame_len;
		int rv = frame_next(s->partial.data + used, s->partial.len - used, AGENT_FRAME_MAX,
				    &payload, &payload_len, &frame_len);

		if (rv == 0)
			break;
		if (rv > 0)
			rv = frame_unpack(&tb__agent_frame__descriptor, payload, payload_len,
					  FRAME_MEMORY(payload_len), &frame);
		if (rv < 0) {
			out->why = "what it sends is no frame of an agent";
			verdict = AGENT_ABORT;
			break;
		}
		verdict = take_frame(s, w, (const Tb__AgentFrame *)frame, out);
		protobuf_c_message_free_unpacked(frame, NULL);
		used += frame_len;
	}
	buf_consume(&s->partial, used);
	if (s->partial.len == 0)
		buf_free(&s->partial);
	return verdict;
}

/* --- orders of the arbiter --- */

static enum agent_verdict order_init_reply(struct agent_session *s, const struct agent_world *w,
					   const Tb__DoorInitReply *reply, struct agent_out *out)
{
	static _Thread_local char why[256];
	Tb__BoardWelcome welcome = TB__BOARD_WELCOME__INIT;
	size_t len = strlen(reply->why);

	if (s->state != AGENT_ASKED)
		return AGENT_GO_ON;
	if (reply->error != 0) {
		/* The arbiter has forgotten it already. */
		s->state = AGENT_CLOSED;
		len = len < sizeof(why) ? len : sizeof(why) - 1;
		memcpy(why, reply->why, len);
		why[len] = '\0';
		return refuse(out, why);
	}
	s->state = AGENT_OPEN;
	s->heard_ms = w->now_ms;
	s->deadline_ms = w->now_ms + candidate_own_timeout_ms(s->lease_ms);
	welcome.board = (char *)w->board_name;
	send_frame(out, TB__BOARD_FRAME__WHAT_WELCOME, &welcome);
	return AGENT_GO_ON;
}

static void order_vote(struct agent_session *s, const Tb__DoorVote *vote, struct agent_out *out)
{
	Tb__BoardLease lease = TB__BOARD_LEASE__INIT;

	if (s->state != AGENT_OPEN || vote->ring == NULL)
		return;
	lease.ticket = vote->ticket;
	lease.yours = vote->vote == TB__VOTE__VOTE_ACK;
	lease.epoch = vote->epoch;
	lease.claim = vote->claim;
	lease.why = vote->why;
	lease.generation = vote->generation;
	s->ticket = vote->ticket;
	s->confirmed = false;
	s->last_result = (uint8_t)vote->vote;
	s->vote_ring_node = vote->ring->node;
	s->vote_ring_seq = vote->ring->seq;
	if (vote->claim == s->claim) {
		s->ring_node = vote->ring->node;
		s->ring_seq = vote->ring->seq;
	}
	send_frame(out, TB__BOARD_FRAME__WHAT_LEASE, &lease);
}

static void order_noted(struct agent_session *s, const Tb__DoorNoted *order, struct agent_out *out)
{
	Tb__BoardNoted noted = TB__BOARD_NOTED__INIT;

	if (s->state != AGENT_OPEN)
		return;
	noted.generation = order->generation;
	send_frame(out, TB__BOARD_FRAME__WHAT_NOTED, &noted);
}

enum agent_verdict agent_session_order(struct agent_session *s, const struct agent_world *w,
				       const Tb__DoorOrder *order, struct agent_out *out)
{
	switch (order->what_case) {
	case TB__DOOR_ORDER__WHAT_INIT_REPLY:
		return order_init_reply(s, w, order->init_reply, out);
	case TB__DOOR_ORDER__WHAT_VOTE:
		order_vote(s, order->vote, out);
		return AGENT_GO_ON;
	case TB__DOOR_ORDER__WHAT_NOTED:
		order_noted(s, order->noted, out);
		return AGENT_GO_ON;
	case TB__DOOR_ORDER__WHAT_CLOSE:
		/* By reset: nothing that is still queued may reach it. */
		out->why = "the leader has closed it";
		return AGENT_ABORT;
	default:
		return AGENT_GO_ON;
	}
}
