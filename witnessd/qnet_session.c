#include "witnessd/qnet_session.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/limits.h"
#include "cluster/arbiter.h"
#include "lib/mem.h"

_Static_assert((int)QNET_NODES_MAX <= (int)LIMIT_SITE_NODES,
	       "a list that the codec takes is one of a site");
_Static_assert((int)QNET_SITE_NAME_MAX <= (int)LIMIT_NAME,
	       "a name that is not cut can be a site's");

/* --- states --- */

static const struct {
	const char *name;
	unsigned next; /* bit per enum qnet_state; CLOSED is always allowed */
} states[QNET_STATES] = {
	[QNET_NEW] = {"new", 1u << QNET_GREETED},
	[QNET_GREETED] = {"greeted", 1u << QNET_GREETED | 1u << QNET_SECURING | 1u << QNET_ASKED |
					     1u << QNET_REFUSED},
	[QNET_SECURING] = {"securing", 1u << QNET_SECURED},
	[QNET_SECURED] = {"secured", 1u << QNET_ASKED | 1u << QNET_REFUSED},
	[QNET_ASKED] = {"asked", 1u << QNET_OPEN | 1u << QNET_REFUSED},
	[QNET_OPEN] = {"open", 0},
	[QNET_REFUSED] = {"refused", 0},
	[QNET_CLOSED] = {"closed", 0},
};

const char *qnet_state_name(enum qnet_state state)
{
	assert(state < QNET_STATES);
	return states[state].name;
}

static void move(struct qnet_session *s, enum qnet_state next)
{
	assert(next == QNET_CLOSED || (states[s->state].next >> next & 1) != 0);
	s->state = next;
}

void qnet_session_init(struct qnet_session *s, uint64_t id, const char *address, uint64_t now_ms)
{
	*s = (struct qnet_session){.id = id,
				   .state = QNET_NEW,
				   .address = mem_strdup(address),
				   .deadline_ms = now_ms + QNET_HELLO_DEADLINE_MS,
				   .heard_ms = now_ms,
				   .confirmed = true};
}

void qnet_session_free(struct qnet_session *s)
{
	free(s->site);
	free(s->address);
	free(s->local);
	free(s->serial);
	free(s->configured.ids);
	free(s->members.ids);
	buf_free(&s->partial);
	*s = (struct qnet_session){.state = QNET_CLOSED};
}

/* --- what comes out: events --- */

void qnet_out_free(struct qnet_out *out)
{
	door_events_free(&out->events);
	buf_free(&out->wire);
	*out = (struct qnet_out){0};
}

static Tb__RingId *ring_new(const struct qnet_ring *ring)
{
	Tb__RingId *new = mem_alloc(sizeof(*new));

	tb__ring_id__init(new);
	new->node = ring->node;
	new->seq = ring->seq;
	return new;
}

static uint32_t *ids_copy(const struct qnet_ids *from, size_t *ret_count)
{
	*ret_count = from->count;
	return from->count != 0 ? mem_dup(from->ids, from->count * sizeof(*from->ids)) : NULL;
}

static Tb__Algorithm algorithm_of(uint8_t wire)
{
	switch ((enum qnet_algorithm)wire) {
	case QNET_ALGORITHM_FFSPLIT:
		return TB__ALGORITHM__ALGORITHM_FFSPLIT;
	case QNET_ALGORITHM_2NODELMS:
		return TB__ALGORITHM__ALGORITHM_2NODELMS;
	case QNET_ALGORITHM_LMS:
		return TB__ALGORITHM__ALGORITHM_LMS;
	case QNET_ALGORITHM_TEST:
		break;
	}
	assert(!"INIT lets no other algorithm pass");
	return TB__ALGORITHM__ALGORITHM_ANY;
}

/* Votes, heuristics, tie-breakers and list kinds have the wire's numbers in the schema too. */
static Tb__SiteNode *site_node_new(const struct qnet_session *s, const struct qnet_world *w)
{
	Tb__SiteNode *node = mem_alloc(sizeof(*node));

	tb__site_node__init(node);
	node->node_id = s->node_id;
	node->address = mem_strdup(s->address);
	if (s->local != NULL)
		node->local = mem_strdup(s->local);
	node->board = w->board;
	node->tls = s->tls;
	node->certificate = s->serial != NULL;
	node->heartbeat_ms = s->heartbeat_ms;
	node->rtt_ms = s->rtt_ms;
	node->algorithm = algorithm_of(s->algorithm);
	node->tie_breaker = (Tb__TieBreaker)s->tie_breaker;
	node->tie_breaker_node = s->tie_breaker_node;
	node->keep_active_partition = s->keep_active;
	node->config_version = s->config_version;
	node->config_version_set = s->config_version_set;
	node->configured = ids_copy(&s->configured, &node->n_configured);
	node->ring = ring_new(&s->ring);
	node->members = ids_copy(&s->members, &node->n_members);
	node->heuristics = (Tb__Heuristics)s->heuristics;
	node->membership_heuristics = (Tb__Heuristics)s->membership_heuristics;
	node->regular_heuristics = (Tb__Heuristics)s->regular_heuristics;
	node->vote = (Tb__Vote)s->vote;
	node->last_result = (Tb__Vote)s->last_result;
	node->attached_ms = s->attached_ms;
	return node;
}

static void tell_open(const struct qnet_session *s, const struct qnet_world *w,
		      struct qnet_out *out)
{
	Tb__DoorOpen *open = mem_alloc(sizeof(*open));

	tb__door_open__init(open);
	open->seq = s->init_seq;
	open->site = mem_strdup(s->site);
	open->node = site_node_new(s, w);
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_OPEN)->open = open;
}

static void tell_report(const struct qnet_session *s, const struct qnet_world *w,
			struct qnet_out *out)
{
	Tb__DoorReport *report = mem_alloc(sizeof(*report));

	tb__door_report__init(report);
	report->site = mem_strdup(s->site);
	report->node = site_node_new(s, w);
	report->has_config = s->has_config;
	report->has_membership = s->has_membership;
	report->has_quorum = s->has_quorum;
	report->quorate = s->quorate;
	report->confirmed = s->confirmed;
	report->vote_ring = ring_new(&s->vote_ring);
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_REPORT)->report = report;
}

static void tell_list(const struct qnet_session *s, const struct qnet_message *m,
		      struct qnet_out *out)
{
	Tb__DoorList *list = mem_alloc(sizeof(*list));

	tb__door_list__init(list);
	list->seq = m->seq;
	list->kind = (Tb__DoorList__Kind)m->list;
	list->n_nodes = m->node_count;
	if (m->node_count != 0)
		list->nodes = mem_array(m->node_count, sizeof(*list->nodes));
	for (unsigned i = 0; i < m->node_count; i++)
		list->nodes[i] = m->nodes[i].id;
	list->config_version_set = (m->has & QNET_HAS(QNET_OPT_CONFIG_VERSION)) != 0;
	list->config_version = m->config_version;
	if (m->list == QNET_LIST_MEMBERSHIP)
		list->ring = ring_new(&m->ring);
	list->heuristics = (Tb__Heuristics)m->heuristics;
	list->quorate = m->quorate;
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_LIST)->list = list;
}

static void tell_option(const struct qnet_session *s, struct qnet_out *out)
{
	Tb__DoorOption *option = mem_alloc(sizeof(*option));

	tb__door_option__init(option);
	option->keep_active_partition = s->keep_active;
	option->heartbeat_ms = s->heartbeat_ms;
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_OPTION)->option = option;
}

void qnet_session_report(const struct qnet_session *s, const struct qnet_world *w,
			 struct qnet_out *out)
{
	if (s->state == QNET_OPEN)
		tell_report(s, w, out);
	else if (s->state == QNET_ASKED)
		tell_open(s, w, out);
}

void qnet_out_reset(struct qnet_out *out, uint32_t reports)
{
	Tb__DoorReset *reset = mem_alloc(sizeof(*reset));

	tb__door_reset__init(reset);
	reset->sessions = reports;
	door_events_add(&out->events, 0, TB__DOOR_EVENT__WHAT_RESET)->reset = reset;
}

void qnet_session_close(struct qnet_session *s, Tb__DoorClosed__Reason reason, uint64_t now_ms,
			struct qnet_out *out)
{
	if (s->state == QNET_OPEN || s->state == QNET_ASKED) {
		Tb__DoorClosed *closed = mem_alloc(sizeof(*closed));
		uint64_t age = now_ms - s->heard_ms;

		tb__door_closed__init(closed);
		closed->reason = reason;
		closed->heard_age_ms = age < UINT32_MAX ? (uint32_t)age : UINT32_MAX;
		door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_CLOSED)->closed = closed;
	}
	move(s, QNET_CLOSED);
}

/* --- what comes out: messages --- */

static void reply(struct qnet_out *out, const struct qnet_message *m)
{
	qnet_encode(m, &out->wire);
	out->replies++;
}

static void reply_error(struct qnet_out *out, const struct qnet_message *request,
			enum qnet_error error)
{
	reply(out, &(struct qnet_message){
			   .type = QNET_SERVER_ERROR,
			   .has = QNET_HAS(QNET_OPT_REPLY_ERROR_CODE) |
				  (request != NULL ? request->has & QNET_HAS(QNET_OPT_SEQ) : 0),
			   .seq = request != NULL ? request->seq : 0,
			   .error = (uint16_t)error});
}

static void reply_init(struct qnet_out *out, uint32_t seq, uint32_t error)
{
	reply(out, &(struct qnet_message){
			   .type = QNET_INIT_REPLY,
			   .has = QNET_HAS(QNET_OPT_REPLY_ERROR_CODE) |
				  QNET_HAS(QNET_OPT_SUPPORTED_MESSAGES) |
				  QNET_HAS(QNET_OPT_SUPPORTED_OPTIONS) | QNET_HAS(QNET_OPT_SEQ) |
				  QNET_HAS(QNET_OPT_MAXIMUM_REQUEST_SIZE) |
				  QNET_HAS(QNET_OPT_MAXIMUM_REPLY_SIZE) |
				  QNET_HAS(QNET_OPT_SUPPORTED_ALGORITHMS),
			   .seq = seq,
			   .error = (uint16_t)error,
			   .supported_messages = QNET_ALL_MESSAGES,
			   .supported_options = QNET_ALL_OPTIONS,
			   .maximum_request_size = QNET_MESSAGE_MAX,
			   .maximum_reply_size = QNET_MESSAGE_MAX,
			   /* `test` is announced as corosync-qnetd does, and refused by INIT. */
			   .supported_algorithms =
				   1u << QNET_ALGORITHM_TEST | 1u << QNET_ALGORITHM_FFSPLIT |
				   1u << QNET_ALGORITHM_2NODELMS | 1u << QNET_ALGORITHM_LMS});
}

static enum qnet_verdict end(struct qnet_out *out, enum qnet_verdict verdict, const char *why)
{
	out->why = why;
	return verdict;
}

/* --- silence --- */

/* How long the client may be silent until it has given us up itself (DESIGN S1 (c)). */
static uint64_t patience_ms(const struct qnet_session *s)
{
	return arbiter_own_timeout_ms(s->heartbeat_ms, s->policy.fast
							       ? TB__HANDOVER__HANDOVER_FAST
							       : TB__HANDOVER__HANDOVER_SAFE);
}

static void heard(struct qnet_session *s, uint64_t now_ms)
{
	s->heard_ms = now_ms;
	s->deadline_ms = now_ms + patience_ms(s);
}

enum qnet_verdict qnet_session_overdue(struct qnet_session *s, struct qnet_out *out)
{
	if (s->state == QNET_OPEN)
		return end(out, QNET_ABORT, "silent for longer than its own timeout");
	return end(out, QNET_CLOSE, "no INIT in time");
}

/* --- the handshake --- */

static char *site_name(const uint8_t *name, size_t len)
{
	size_t kept = len < QNET_SITE_NAME_MAX ? len : QNET_SITE_NAME_MAX;
	char *text = mem_alloc(kept + 2);

	for (size_t i = 0; i < kept; i++)
		text[i] = isalnum(name[i]) || (i != 0 && strchr("._-", name[i]) != NULL &&
					       name[i] != '\0')
				  ? (char)name[i]
				  : '?';
	if (kept < len || len == 0)
		text[kept++] = '?';
	text[kept] = '\0';
	return text;
}

static enum qnet_verdict on_preinit(struct qnet_session *s, const struct qnet_world *w,
				    const struct qnet_message *m, struct qnet_out *out)
{
	if (s->state != QNET_NEW && s->state != QNET_GREETED)
		return end(out, QNET_CLOSE, "a second PREINIT");
	if (!qnet_complete(m)) {
		reply_error(out, m, QNET_ERROR_OPTION_MISSING);
		return QNET_GO_ON;
	}
	free(s->site);
	s->site = site_name(m->name, m->name_len);
	if (w->site(w->arg, s->site, &s->policy) != 0)
		return end(out, QNET_CLOSE, "the model cannot be read");
	if (s->state == QNET_NEW)
		s->deadline_ms += QNET_INIT_DEADLINE_MS - QNET_HELLO_DEADLINE_MS;
	move(s, QNET_GREETED);
	reply(out, &(struct qnet_message){.type = QNET_PREINIT_REPLY,
					  .has = (m->has & QNET_HAS(QNET_OPT_SEQ)) |
						 QNET_HAS(QNET_OPT_TLS_SUPPORTED) |
						 QNET_HAS(QNET_OPT_TLS_CLIENT_CERT_REQUIRED),
					  .seq = m->seq,
					  .tls_supported = (uint8_t)s->policy.tls,
					  .tls_client_cert_required = s->policy.certificate});
	return QNET_GO_ON;
}

static enum qnet_verdict on_starttls(struct qnet_session *s, const struct qnet_message *m,
				     struct qnet_out *out)
{
	if (s->state == QNET_NEW) {
		reply_error(out, m, QNET_ERROR_PREINIT_REQUIRED);
		return QNET_GO_ON;
	}
	if (s->state != QNET_GREETED)
		return end(out, QNET_CLOSE, "a second STARTTLS, or one after INIT");
	if (s->policy.tls == QNET_TLS_UNSUPPORTED)
		return end(out, QNET_CLOSE, "STARTTLS, though TLS was not offered");
	move(s, QNET_SECURING);
	return QNET_START_TLS;
}

enum qnet_verdict qnet_session_secured(struct qnet_session *s, const char *serial, bool named,
				       struct qnet_out *out)
{
	s->tls = true;
	if (s->policy.certificate && serial == NULL)
		return end(out, QNET_CLOSE, "no client certificate that our CA has signed");
	if (s->policy.certificate && !named)
		return end(out, QNET_CLOSE, "the client certificate is of another site");
	if (serial != NULL && named)
		s->serial = mem_strdup(serial);
	move(s, QNET_SECURED);
	return QNET_GO_ON;
}

static bool heartbeat_good(const struct qnet_session *s, uint32_t ms)
{
	return ms >= s->policy.heartbeat_min_ms && ms <= s->policy.heartbeat_max_ms;
}

/* The order of these checks is corosync-qnetd's, so that a client hears of the same thing first. */
static enum qnet_error init_error(const struct qnet_session *s, const struct qnet_message *m)
{
	if (s->state == QNET_NEW)
		return QNET_ERROR_PREINIT_REQUIRED;
	if (!qnet_complete(m))
		return QNET_ERROR_OPTION_MISSING;
	if (!heartbeat_good(s, m->heartbeat_ms))
		return QNET_ERROR_HEARTBEAT;
	/* `test` gives every partition the vote: never. */
	if (m->algorithm == QNET_ALGORITHM_TEST || m->algorithm > QNET_ALGORITHM_LMS)
		return QNET_ERROR_ALGORITHM;
	return QNET_OK;
}

static enum qnet_verdict on_init(struct qnet_session *s, const struct qnet_world *w,
				 const struct qnet_message *m, struct qnet_out *out)
{
	enum qnet_error error;

	if (s->state != QNET_NEW && s->state != QNET_GREETED && s->state != QNET_SECURED)
		return end(out, QNET_CLOSE, "a second INIT");
	error = init_error(s, m);
	if (error != QNET_OK) {
		out->why = "INIT was refused";
		reply_init(out, m->seq, error);
		if (s->state != QNET_NEW)
			move(s, QNET_REFUSED);
		return QNET_GO_ON;
	}
	s->init_seq = m->seq;
	s->node_id = m->node_id;
	s->algorithm = (uint8_t)m->algorithm;
	s->tie_breaker = m->tie_breaker;
	s->tie_breaker_node = m->tie_breaker_node;
	s->heartbeat_ms = m->heartbeat_ms;
	s->ring = m->ring;
	s->attached_ms = w->real_ms;
	s->heard_ms = w->now_ms;
	move(s, QNET_ASKED);
	tell_open(s, w, out);
	return QNET_GO_ON;
}

/* --- an open session --- */

static void on_set_option(struct qnet_session *s, const struct qnet_world *w,
			  const struct qnet_message *m, struct qnet_out *out)
{
	struct qnet_message r = {
		.type = QNET_SET_OPTION_REPLY,
		.has = m->has & (QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL) |
				 QNET_HAS(QNET_OPT_KEEP_ACTIVE_PARTITION)),
		.seq = m->seq,
		.heartbeat_ms = m->heartbeat_ms};

	if ((m->has & QNET_HAS(QNET_OPT_HEARTBEAT_INTERVAL)) != 0) {
		if (!heartbeat_good(s, m->heartbeat_ms)) {
			reply_error(out, m, QNET_ERROR_HEARTBEAT);
			return;
		}
		s->heartbeat_next_ms = 0;
		if (m->heartbeat_ms < s->heartbeat_ms) {
			s->heartbeat_next_ms = m->heartbeat_ms;
		} else {
			s->heartbeat_ms = m->heartbeat_ms;
			/* The client begins to count anew with our answer. */
			s->echoed = false;
			heard(s, w->now_ms);
		}
	}
	if ((m->has & QNET_HAS(QNET_OPT_KEEP_ACTIVE_PARTITION)) != 0)
		s->keep_active = m->keep_active_partition;
	r.keep_active_partition = s->keep_active;
	reply(out, &r);
	tell_option(s, out);
}

static void on_echo(struct qnet_session *s, const struct qnet_world *w, const uint8_t *bytes,
		    size_t len, struct qnet_out *out)
{
	qnet_encode_echo_reply(bytes, len, &out->wire);
	out->replies++;
	out->echoes++;
	if (s->heartbeat_next_ms != 0) {
		s->heartbeat_ms = s->heartbeat_next_ms;
		s->heartbeat_next_ms = 0;
		tell_option(s, out);
	}
	s->echoed = true;
	heard(s, w->now_ms);
}

static void ids_set(struct qnet_ids *ids, const struct qnet_message *m)
{
	free(ids->ids);
	ids->count = m->node_count;
	ids->ids = m->node_count != 0 ? mem_array(m->node_count, sizeof(*ids->ids)) : NULL;
	for (unsigned i = 0; i < m->node_count; i++)
		ids->ids[i] = m->nodes[i].id;
}

static void on_node_list(struct qnet_session *s, const struct qnet_message *m, struct qnet_out *out)
{
	switch ((enum qnet_list)m->list) {
	case QNET_LIST_INITIAL:
	case QNET_LIST_CHANGED:
		s->has_config = true;
		ids_set(&s->configured, m);
		s->config_version_set = (m->has & QNET_HAS(QNET_OPT_CONFIG_VERSION)) != 0;
		s->config_version = m->config_version;
		break;
	case QNET_LIST_MEMBERSHIP:
		s->has_membership = true;
		ids_set(&s->members, m);
		s->ring = m->ring;
		s->membership_heuristics = m->heuristics;
		s->heuristics = m->heuristics;
		break;
	case QNET_LIST_QUORUM:
		s->has_quorum = true;
		s->quorate = m->quorate;
		break;
	}
	tell_list(s, m, out);
}

static void on_ask(const struct qnet_session *s, const struct qnet_message *m, struct qnet_out *out)
{
	Tb__DoorAsk *ask = mem_alloc(sizeof(*ask));

	tb__door_ask__init(ask);
	ask->seq = m->seq;
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_ASK)->ask = ask;
}

/* Only the answer to the newest VOTE_INFO says what the client believes now. */
static void on_vote_reply(struct qnet_session *s, const struct qnet_message *m,
			  struct qnet_out *out)
{
	Tb__DoorVoteReply *answer;

	if (s->confirmed || m->seq != s->vote_number)
		return;
	s->confirmed = true;
	answer = mem_alloc(sizeof(*answer));
	tb__door_vote_reply__init(answer);
	answer->ticket = s->ticket;
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_VOTE_REPLY)->vote_reply = answer;
}

static void on_heuristics(struct qnet_session *s, const struct qnet_message *m,
			  struct qnet_out *out)
{
	Tb__DoorHeuristics *heuristics = mem_alloc(sizeof(*heuristics));

	s->regular_heuristics = m->heuristics;
	s->heuristics = m->heuristics;
	tb__door_heuristics__init(heuristics);
	heuristics->seq = m->seq;
	heuristics->heuristics = (Tb__Heuristics)m->heuristics;
	door_events_add(&out->events, s->id, TB__DOOR_EVENT__WHAT_HEURISTICS)->heuristics =
		heuristics;
}

static void on_open_message(struct qnet_session *s, const struct qnet_world *w,
			    const struct qnet_message *m, const uint8_t *bytes, size_t len,
			    struct qnet_out *out)
{
	if (s->state != QNET_OPEN) {
		reply_error(out, m, QNET_ERROR_INIT_REQUIRED);
		return;
	}
	/* The client counts from the moment that it had our INIT_REPLY, which may have been long on
	 * its way: until its first echo, each message shows that it can only have begun later. */
	if (!s->echoed)
		heard(s, w->now_ms);
	if (!qnet_complete(m)) {
		reply_error(out, m, QNET_ERROR_OPTION_MISSING);
		return;
	}
	switch ((enum qnet_type)m->type) {
	case QNET_SET_OPTION:
		on_set_option(s, w, m, out);
		break;
	case QNET_ECHO_REQUEST:
		on_echo(s, w, bytes, len, out);
		break;
	case QNET_NODE_LIST:
		on_node_list(s, m, out);
		break;
	case QNET_ASK_FOR_VOTE:
		on_ask(s, m, out);
		break;
	case QNET_VOTE_INFO_REPLY:
		on_vote_reply(s, m, out);
		break;
	case QNET_HEURISTICS_CHANGE:
		on_heuristics(s, m, out);
		break;
	default:
		assert(!"only these are sent in an open session");
	}
}

static bool tls_missing(const struct qnet_session *s)
{
	return s->state == QNET_GREETED && s->policy.tls == QNET_TLS_REQUIRED;
}

/* One whole message of a known type. */
static enum qnet_verdict on_message(struct qnet_session *s, const struct qnet_world *w,
				    const uint8_t *bytes, size_t len, struct qnet_out *out)
{
	struct qnet_message m;

	if (qnet_decode(bytes, len, &m) != 0) {
		reply_error(out, NULL, QNET_ERROR_DECODING);
		return QNET_GO_ON;
	}
	if (qnet_from_server(m.type)) {
		reply_error(out, &m, QNET_ERROR_UNEXPECTED_MESSAGE);
		return QNET_GO_ON;
	}
	if (m.type == QNET_PREINIT)
		return on_preinit(s, w, &m, out);
	if (m.type == QNET_STARTTLS)
		return on_starttls(s, &m, out);
	if (tls_missing(s)) {
		reply_error(out, &m, QNET_ERROR_TLS_REQUIRED);
		return QNET_GO_ON;
	}
	if (m.type == QNET_INIT)
		return on_init(s, w, &m, out);
	on_open_message(s, w, &m, bytes, len, out);
	return QNET_GO_ON;
}

/* --- bytes to messages --- */

/* Is the body to be read? Otherwise it is answered here and skipped. */
static bool head_good(struct qnet_session *s, const uint8_t *bytes, struct qnet_out *out)
{
	struct qnet_head head = qnet_head_read(bytes);
	enum qnet_error error = QNET_OK;

	if (head.body > QNET_MESSAGE_MAX - QNET_HEAD)
		error = QNET_ERROR_MESSAGE_TOO_LONG;
	else if (head.type >= QNET_TYPES)
		error = QNET_ERROR_UNSUPPORTED_MESSAGE;
	else
		return true;
	reply_error(out, NULL, error);
	s->skip = head.body;
	return false;
}

/* Takes what the message under way still lacks; true if it is whole now. */
static bool partial_fill(struct qnet_session *s, const uint8_t *data, size_t len, size_t *used,
			 struct qnet_out *out)
{
	size_t need = QNET_HEAD;
	size_t take;

	if (s->partial.len >= QNET_HEAD)
		need += qnet_head_read(s->partial.data).body;
	take = need - s->partial.len;
	if (take > len - *used)
		take = len - *used;
	buf_append(&s->partial, data + *used, take);
	*used += take;
	if (s->partial.len < need)
		return false;
	if (need > QNET_HEAD)
		return true;
	if (!head_good(s, s->partial.data, out)) {
		buf_free(&s->partial);
		return false;
	}
	return qnet_head_read(s->partial.data).body == 0;
}

/* A whole message at `data` needs no copy: the usual case. */
static bool direct(const struct qnet_session *s, const uint8_t *data, size_t len)
{
	return s->partial.len == 0 && len >= QNET_HEAD &&
	       len - QNET_HEAD >= qnet_head_read(data).body;
}

enum qnet_verdict qnet_session_receive(struct qnet_session *s, const struct qnet_world *w,
				       const uint8_t *data, size_t len, size_t *ret_used,
				       struct qnet_out *out)
{
	enum qnet_verdict verdict = QNET_GO_ON;
	size_t used = 0;

	assert(s->state != QNET_CLOSED && s->state != QNET_SECURING);
	while (verdict == QNET_GO_ON && used < len) {
		if (s->skip != 0) {
			size_t drop = s->skip < len - used ? s->skip : len - used;

			s->skip -= (uint32_t)drop;
			used += drop;
		} else if (direct(s, data + used, len - used)) {
			const uint8_t *message = data + used;
			size_t size = QNET_HEAD + (size_t)qnet_head_read(message).body;

			used += size;
			if (head_good(s, message, out))
				verdict = on_message(s, w, message, size, out);
			else
				s->skip = 0; /* it was all here */
		} else if (partial_fill(s, data, len, &used, out)) {
			verdict = on_message(s, w, s->partial.data, s->partial.len, out);
			buf_free(&s->partial);
		}
	}
	*ret_used = used;
	return verdict;
}

/* --- orders --- */

static void note_vote(struct qnet_session *s, uint8_t vote, const struct qnet_ring *ring)
{
	s->vote = vote;
	if (vote == QNET_VOTE_ACK || vote == QNET_VOTE_NACK) {
		s->last_result = vote;
		s->vote_ring = *ring;
	}
}

static struct qnet_ring ring_of(const Tb__RingId *ring)
{
	return ring != NULL ? (struct qnet_ring){ring->node, ring->seq} : (struct qnet_ring){0};
}

static bool vote_good(Tb__Vote vote)
{
	return vote >= TB__VOTE__VOTE_ACK && vote <= TB__VOTE__VOTE_NO_CHANGE;
}

static void do_init_reply(struct qnet_session *s, const struct qnet_world *w,
			  const Tb__DoorInitReply *order, struct qnet_out *out)
{
	if (s->state != QNET_ASKED || order->seq != s->init_seq)
		return;
	reply_init(out, order->seq, order->error);
	move(s, order->error == 0 ? QNET_OPEN : QNET_REFUSED);
	if (order->error == 0)
		heard(s, w->now_ms);
}

static void do_list_reply(struct qnet_session *s, const Tb__DoorListReply *order,
			  struct qnet_out *out)
{
	struct qnet_message m = {.type = QNET_NODE_LIST_REPLY,
				 .has = QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_NODE_LIST_TYPE) |
					QNET_HAS(QNET_OPT_RING_ID) | QNET_HAS(QNET_OPT_VOTE),
				 .seq = order->seq,
				 .list = (uint8_t)order->kind,
				 .ring = ring_of(order->ring),
				 .vote = (uint8_t)order->vote};

	if (s->state != QNET_OPEN || !vote_good(order->vote) || order->kind < 0 ||
	    order->kind > TB__DOOR_LIST__KIND__QUORUM)
		return;
	note_vote(s, m.vote, &m.ring);
	reply(out, &m);
}

static void do_ask_reply(struct qnet_session *s, const Tb__DoorAskReply *order,
			 struct qnet_out *out)
{
	struct qnet_message m = {.type = QNET_ASK_FOR_VOTE_REPLY,
				 .has = QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_RING_ID) |
					QNET_HAS(QNET_OPT_VOTE),
				 .seq = order->seq,
				 .ring = ring_of(order->ring),
				 .vote = (uint8_t)order->vote};

	if (s->state != QNET_OPEN || !vote_good(order->vote))
		return;
	note_vote(s, m.vote, &m.ring);
	reply(out, &m);
}

static void do_heuristics_reply(struct qnet_session *s, const Tb__DoorHeuristicsReply *order,
				struct qnet_out *out)
{
	struct qnet_message m = {.type = QNET_HEURISTICS_CHANGE_REPLY,
				 .has = QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_RING_ID) |
					QNET_HAS(QNET_OPT_VOTE) | QNET_HAS(QNET_OPT_HEURISTICS),
				 .seq = order->seq,
				 .ring = ring_of(order->ring),
				 .vote = (uint8_t)order->vote,
				 .heuristics = (uint8_t)order->heuristics};

	if (s->state != QNET_OPEN || !vote_good(order->vote) ||
	    (order->heuristics != TB__HEURISTICS__HEURISTICS_PASS &&
	     order->heuristics != TB__HEURISTICS__HEURISTICS_FAIL))
		return;
	note_vote(s, m.vote, &m.ring);
	reply(out, &m);
}

static void do_vote(struct qnet_session *s, const Tb__DoorVote *order, struct qnet_out *out)
{
	struct qnet_message m = {.type = QNET_VOTE_INFO,
				 .has = QNET_HAS(QNET_OPT_SEQ) | QNET_HAS(QNET_OPT_RING_ID) |
					QNET_HAS(QNET_OPT_VOTE),
				 .ring = ring_of(order->ring),
				 .vote = (uint8_t)order->vote};

	if (s->state != QNET_OPEN || !vote_good(order->vote))
		return;
	m.seq = ++s->vote_number;
	s->ticket = order->ticket;
	s->confirmed = false;
	note_vote(s, m.vote, &m.ring);
	reply(out, &m);
}

static void do_refuse(const struct qnet_session *s, const Tb__DoorRefuse *order,
		      struct qnet_out *out)
{
	struct qnet_message request = {.has = QNET_HAS(QNET_OPT_SEQ), .seq = order->seq};

	if (s->state == QNET_OPEN)
		reply_error(out, &request, (enum qnet_error)order->error);
}

enum qnet_verdict qnet_session_order(struct qnet_session *s, const struct qnet_world *w,
				     const Tb__DoorOrder *order, struct qnet_out *out)
{
	switch (order->what_case) {
	case TB__DOOR_ORDER__WHAT_INIT_REPLY:
		do_init_reply(s, w, order->init_reply, out);
		break;
	case TB__DOOR_ORDER__WHAT_LIST_REPLY:
		do_list_reply(s, order->list_reply, out);
		break;
	case TB__DOOR_ORDER__WHAT_ASK_REPLY:
		do_ask_reply(s, order->ask_reply, out);
		break;
	case TB__DOOR_ORDER__WHAT_HEURISTICS_REPLY:
		do_heuristics_reply(s, order->heuristics_reply, out);
		break;
	case TB__DOOR_ORDER__WHAT_VOTE:
		do_vote(s, order->vote, out);
		break;
	case TB__DOOR_ORDER__WHAT_REFUSE:
		do_refuse(s, order->refuse, out);
		break;
	case TB__DOOR_ORDER__WHAT_CLOSE:
		if (s->state == QNET_OPEN || s->state == QNET_ASKED)
			return end(out, QNET_ABORT, "the arbiter has ended the session");
		break;
	default:
		break; /* a later release's order: it knows that we are old */
	}
	return QNET_GO_ON;
}
