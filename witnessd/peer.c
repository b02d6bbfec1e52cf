/* peer.c: the control links between boards (proto/peer.proto). A follower dials its leader, one
 * link at a time; the leader accepts. The bytes are plain here: the front does the TLS and has
 * checked the other board's certificate (core.h, link_dial and core_link_accepted).
 *
 *   follower                         leader
 *   dial --------------------------> accepted
 *   hello(node, term) -------------> not leading in that term: close (the follower tries again)
 *        <-------------------------- hello(term)
 *   link is "up": door reports, renewals, proposals
 *
 * Both speak at least once in a tick, so that a link that is silent for a whole lease is dead, even
 * if nobody has closed it (a cut cable): it is closed, and the leader forgets the board's sessions.
 *
 * A follower obeys orders only on the link to the leader of the newest term it knows. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/frame.h"
#include "witnessd/addresses.h"
#include "witnessd/core_internal.h"
#include "witnessd/query.h"

enum {
	PEER_QUEUE_MAX = 64 << 20,
	PEER_EVENTS_MAX = 1000, /* in one frame: at most some 2 kB each */
};

struct peer {
	struct list link; /* in core.peers */
	struct core *core;
	uv_pipe_t pipe;
	uint64_t node;
	uint64_t term; /* of the leadership that the link serves; 0: not greeted yet */
	unsigned level; /* as its hello says; 0: not yet */
	bool outgoing;
	bool greeted; /* its hello was good, but this board was not ready to lead */
	bool closing;
	bool echoed; /* the leader's clock was sent back once without waiting for the tick */
	uint64_t heard_ms; /* boot clock; the last bytes from the other board */
	struct buf in;
};

struct peer_write {
	uv_write_t write;
	struct buf bytes;
};

uint64_t peer_node(const struct peer *p)
{
	return p->node;
}

static void peer_closed(uv_handle_t *handle)
{
	struct peer *p = handle->data;

	buf_free(&p->in);
	free(p);
}

static void peer_close(struct peer *p)
{
	struct core *c = p->core;

	if (p->closing)
		return;
	p->closing = true;
	list_remove(&p->link);
	proposals_forget_peer(c, p);
	if (c->up == p) {
		c->up = NULL;
		core_host_fence(c, UINT64_MAX);
		proposals_link_lost(c);
	}
	if (!p->outgoing && p->term != 0 && p->term == c->fleet_term)
		core_host_forget(c, p->node);
	if (!p->outgoing && c->fleet != NULL && p->term == c->fleet_term)
		fleet_door_lost(c->fleet, p->node, lease_table_end(&c->leases, p->node),
				clock_boottime_ms());
	uv_close((uv_handle_t *)&p->pipe, peer_closed);
}

static void peer_wrote(uv_write_t *write, int status)
{
	struct peer_write *w = write->data;
	struct peer *p = write->handle->data;

	buf_free(&w->bytes);
	free(w);
	if (status < 0)
		peer_close(p);
}

void peer_send(struct peer *p, const Tb__PeerFrame *frame)
{
	struct peer_write *w;
	uv_buf_t bytes;

	if (p->closing)
		return;
	/* A board that reads nothing any more must not fill this one's memory. */
	if (uv_stream_get_write_queue_size((uv_stream_t *)&p->pipe) > PEER_QUEUE_MAX) {
		log_warning("peer-slow", "board %llu takes no more data; closing its link",
			    (unsigned long long)p->node);
		peer_close(p);
		return;
	}
	w = mem_zalloc(sizeof(*w));
	frame_append(&w->bytes, &frame->base);
	w->write.data = w;
	bytes = uv_buf_init((char *)w->bytes.data, (unsigned)w->bytes.len);
	if (uv_write(&w->write, (uv_stream_t *)&p->pipe, &bytes, 1, peer_wrote) != 0) {
		buf_free(&w->bytes);
		free(w);
		peer_close(p);
	}
}

static void peer_hello(struct peer *p, uint64_t term)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	Tb__PeerHello hello = TB__PEER_HELLO__INIT;

	hello.node_id = p->core->identity.node_id;
	hello.version = (char *)TIEBREAK_VERSION;
	hello.term = term;
	hello.level = LEVEL_HERE;
	hello.cluster_id = p->core->identity.cluster_id;
	frame.what_case = TB__PEER_FRAME__WHAT_HELLO;
	frame.hello = &hello;
	peer_send(p, &frame);
}

struct peer *peer_find(struct core *c, uint64_t node)
{
	list_for_each (at, &c->peers) {
		struct peer *p = list_entry(at, struct peer, link);

		if (!p->outgoing && p->node == node && p->term != 0 && p->term == c->fleet_term)
			return p;
	}
	return NULL;
}

unsigned peer_level(struct core *c, uint64_t node)
{
	struct peer *p = peer_find(c, node);

	return p != NULL ? p->level : 0;
}

/* --- what a leader hears --- */

static void peer_greet(struct peer *p);

static void peer_greeted_by_follower(struct peer *p, const Tb__PeerHello *hello)
{
	struct core *c = p->core;

	if (hello->node_id != p->node || strcmp(hello->cluster_id, c->identity.cluster_id) != 0) {
		log_warning("peer-refused",
			    "board %llu presents itself as board %llu of cluster %s",
			    (unsigned long long)p->node, (unsigned long long)hello->node_id,
			    hello->cluster_id);
		peer_close(p);
		return;
	}
	p->level = hello->level != 0 ? hello->level : LEVEL_FIRST;
	if (p->level < core_level(c)) {
		log_warning("peer-refused",
			    "board %llu runs a release that is too old for this cluster (%s, level "
			    "%u of %u): upgrade it",
			    (unsigned long long)p->node, hello->version, p->level, core_level(c));
		peer_close(p);
		return;
	}
	if (!core_leading(c)) {
		/* Elected, but the barrier is not applied yet: the greeting follows then. Otherwise
		 * the follower tries again when it knows better. */
		if (engine_state(c->engine) == ENGINE_LEADER)
			p->greeted = true;
		else
			peer_close(p);
		return;
	}
	peer_greet(p);
}

/* The link serves this leadership from here on. */
static void peer_greet(struct peer *p)
{
	struct core *c = p->core;

	/* A second link of the same board replaces the first, which it no longer uses. */
	list_for_each_safe (at, &c->peers) {
		struct peer *old = list_entry(at, struct peer, link);

		if (old != p && !old->outgoing && old->node == p->node)
			peer_close(old);
	}
	p->term = c->fleet_term;
	peer_hello(p, c->fleet_term);
	lead_vms_changed(c);
	addresses_greeted(c, p->node);
}

/* The newest link whose greeting is owed, NULL none. */
static struct peer *peer_waiting(struct core *c)
{
	struct peer *newest = NULL;

	list_for_each (at, &c->peers) {
		struct peer *p = list_entry(at, struct peer, link);

		if (p->greeted && p->term == 0)
			newest = p;
	}
	return newest;
}

void peer_greet_waiting(struct core *c)
{
	struct peer *p;

	/* Looked for anew each time: a greeting closes the older links of that board. */
	while ((p = peer_waiting(c)) != NULL)
		peer_greet(p);
}

static void peer_renewal(struct peer *p, const Tb__LeaseRenew *renew)
{
	struct core *c = p->core;
	uint64_t now = clock_boottime_ms();
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	Tb__LeaseGrant grant = TB__LEASE_GRANT__INIT;

	grant.term = c->fleet_term;
	grant.sent_ms = renew->sent_ms;
	grant.leader_ms = now;
	grant.length_ms = (uint32_t)lease_table_renew(&c->leases, p->node, renew->term,
						      renew->leader_ms, now);
	grant.without_vms =
		renew->host == TB__HOST_LIFE__HOST_LIFE_STANDS || lead_vms_withholds(c, p->node);
	/* A release that does not know of a lease without VMs gets none. */
	if (lead_vms_board_gone(c, p->node) ||
	    (grant.without_vms && renew->host == TB__HOST_LIFE__HOST_LIFE_UNKNOWN))
		grant.length_ms = 0;
	if (grant.length_ms != 0 && !grant.without_vms)
		lease_table_renew_vms(&c->leases, p->node);
	grant.applied_index = c->model_index;
	lead_renewed(c, p->node, renew);
	grant.real_ms = core_clock_known(c) ? core_now_ms(c) : 0;
	frame.what_case = TB__PEER_FRAME__WHAT_LEASE_GRANT;
	frame.lease_grant = &grant;
	peer_send(p, &frame);
}

static void peer_events(struct peer *p, const Tb__PeerEvents *events)
{
	for (size_t i = 0; i < events->n_events; i++)
		fleet_door_event(p->core->fleet, p->node, events->events[i], clock_boottime_ms());
}

static void peer_leader_frame(struct peer *p, const Tb__PeerFrame *frame)
{
	struct core *c = p->core;

	if (frame->what_case == TB__PEER_FRAME__WHAT_HELLO) {
		peer_greeted_by_follower(p, frame->hello);
		return;
	}
	if (p->greeted && p->term == 0)
		return; /* early: it will be said again after the greeting */
	if (p->term == 0 || p->term != c->fleet_term || c->fleet == NULL) {
		peer_close(p); /* the leadership that it was greeted in is over */
		return;
	}
	switch (frame->what_case) {
	case TB__PEER_FRAME__WHAT_LEASE_RENEW:
		peer_renewal(p, frame->lease_renew);
		break;
	case TB__PEER_FRAME__WHAT_EVENTS:
		peer_events(p, frame->events);
		break;
	case TB__PEER_FRAME__WHAT_PROPOSE:
		proposal_remote(c, p, frame->propose);
		break;
	case TB__PEER_FRAME__WHAT_QUERY:
		query_remote(c, p, frame->query);
		break;
	case TB__PEER_FRAME__WHAT_HOST_REPORT:
		core_host_reported(c, p->node,
				   (Tb__HostReport *)message_copy(&frame->host_report->base));
		break;
	case TB__PEER_FRAME__WHAT_ADDRESS_REPORT:
		addresses_reported(c, p->node, frame->address_report);
		break;
	case TB__PEER_FRAME__WHAT_ROLL:
		addresses_rolled(c, p->node, frame->roll);
		break;
	default:
		break; /* a later release may say more */
	}
}

/* --- what a follower hears --- */

static void peer_greeted_by_leader(struct peer *p, const Tb__PeerHello *hello)
{
	struct core *c = p->core;

	if (hello->term < engine_term(c->engine)) {
		peer_close(p);
		return;
	}
	p->term = hello->term;
	c->up = p;
	guard_link_changed(c);
	core_door_ask(c);
	core_host_ask(c);
	addresses_link_up(c);
	peer_renew(c);
	proposals_kick(c);
}

static void peer_orders(struct peer *p, const Tb__PeerOrders *orders)
{
	struct core *c = p->core;
	Tb__DoorOrder **copies;

	if (orders->term != p->term || p->term < engine_term(c->engine))
		return;
	copies = mem_array(orders->n_orders, sizeof(Tb__DoorOrder *));
	for (size_t i = 0; i < orders->n_orders; i++)
		copies[i] = (Tb__DoorOrder *)message_copy(&orders->orders[i]->base);
	core_door_orders(c, copies, orders->n_orders);
}

/* While the door owes its report the leader's clock is noted, to be echoed, but the lease is not
 * longer for it. */
static void peer_lease(struct peer *p, const Tb__LeaseGrant *grant)
{
	struct core *c = p->core;
	uint64_t now = clock_boottime_ms();
	uint32_t length_ms = !core_reports_due(c) ? grant->length_ms : 0;

	if (grant->sent_ms <= now)
		watch_renewed(c, now - grant->sent_ms, now);
	if (grant->real_ms != 0)
		core_clock_learn(c, grant->real_ms);
	lease_granted(&c->lease, engine_term(c->engine), grant->term, grant->sent_ms,
		      grant->leader_ms, length_ms);
	if (length_ms != 0 && !grant->without_vms)
		core_host_granted(c, grant->sent_ms + length_ms, grant->applied_index, now);
	/* A leader without a lease of its own yet needs our echo of its clock first. */
	if (grant->length_ms == 0 && !p->echoed) {
		p->echoed = true;
		peer_renew(c);
	}
	lead_lease_changed(c);
}

static void peer_follower_frame(struct peer *p, const Tb__PeerFrame *frame)
{
	struct core *c = p->core;

	if (frame->what_case == TB__PEER_FRAME__WHAT_HELLO) {
		peer_greeted_by_leader(p, frame->hello);
		return;
	}
	if (c->up != p)
		return;
	switch (frame->what_case) {
	case TB__PEER_FRAME__WHAT_LEASE_GRANT:
		peer_lease(p, frame->lease_grant);
		break;
	case TB__PEER_FRAME__WHAT_ORDERS:
		peer_orders(p, frame->orders);
		break;
	case TB__PEER_FRAME__WHAT_ADDRESS_ORDER:
		if (frame->address_order->term == p->term && p->term >= engine_term(c->engine))
			addresses_order(c, frame->address_order);
		break;
	case TB__PEER_FRAME__WHAT_ROLL:
		addresses_rolled(c, p->node, frame->roll);
		break;
	case TB__PEER_FRAME__WHAT_RESULT:
		proposal_result(c, frame->result);
		break;
	case TB__PEER_FRAME__WHAT_ANSWER:
		query_result(c, frame->answer);
		break;
	default:
		break;
	}
}

/* --- bytes --- */

static void peer_frames(struct peer *p)
{
	size_t used = 0;

	while (!p->closing) {
		const uint8_t *payload;
		size_t payload_len;
		size_t frame_len;
		ProtobufCMessage *message = NULL;
		int rv = frame_next(p->in.data + used, p->in.len - used, FRAME_MAX, &payload,
				    &payload_len, &frame_len);

		if (rv == 0)
			break;
		if (rv > 0)
			rv = frame_unpack(&tb__peer_frame__descriptor, payload, payload_len,
					  FRAME_MEMORY(payload_len), &message);
		if (rv < 0) {
			log_warning("peer-nonsense", "board %llu sent what is no frame; closing",
				    (unsigned long long)p->node);
			peer_close(p);
			break;
		}
		if (p->outgoing)
			peer_follower_frame(p, (const Tb__PeerFrame *)message);
		else
			peer_leader_frame(p, (const Tb__PeerFrame *)message);
		protobuf_c_message_free_unpacked(message, NULL);
		used += frame_len;
	}
	buf_consume(&p->in, used);
}

static void peer_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *bytes)
{
	struct peer *p = handle->data;

	(void)suggested;
	*bytes = uv_buf_init((char *)buf_reserve(&p->in, 65536), 65536);
}

static void peer_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *bytes)
{
	struct peer *p = stream->data;

	(void)bytes;
	if (got < 0) {
		peer_close(p);
		return;
	}
	p->in.len += (size_t)got;
	p->heard_ms = clock_boottime_ms();
	peer_frames(p);
}

static struct peer *peer_new(struct core *c, uint64_t node, int fd, bool outgoing)
{
	struct peer *p = mem_zalloc(sizeof(*p));

	p->core = c;
	p->node = node;
	p->outgoing = outgoing;
	p->heard_ms = clock_boottime_ms();
	list_init(&p->link);
	if (uv_pipe_init(&c->loop, &p->pipe, 0) != 0)
		abort();
	p->pipe.data = p;
	if (uv_pipe_open(&p->pipe, fd) != 0) {
		close(fd);
		uv_close((uv_handle_t *)&p->pipe, peer_closed);
		return NULL;
	}
	uv_read_start((uv_stream_t *)&p->pipe, peer_alloc, peer_read);
	return p;
}

void peer_accepted(struct core *c, uint64_t node, int fd)
{
	struct peer *p = peer_new(c, node, fd, false);

	if (p != NULL)
		list_append(&c->peers, &p->link);
}

void peer_drop_silent(struct core *c)
{
	uint64_t now = clock_boottime_ms();

	list_for_each_safe (at, &c->peers) {
		struct peer *p = list_entry(at, struct peer, link);

		if (now - p->heard_ms <= LEASE_LENGTH_MS)
			continue;
		log_warning("link-silent",
			    "nothing heard from board %llu for a whole lease: "
			    "closing the link",
			    (unsigned long long)p->node);
		peer_close(p);
	}
}

/* --- the follower's link --- */

static struct peer *peer_outgoing(struct core *c)
{
	list_for_each (at, &c->peers) {
		struct peer *p = list_entry(at, struct peer, link);

		if (p->outgoing)
			return p;
	}
	return NULL;
}

void peer_dial_leader(struct core *c)
{
	struct engine_member members[LIMIT_NODES];
	uint64_t leader = engine_leader(c->engine);
	struct peer *p = peer_outgoing(c);
	unsigned count;

	if (p != NULL && (p->node != leader || leader == c->identity.node_id ||
			  (p->term != 0 && p->term < engine_term(c->engine)))) {
		peer_close(p);
		p = NULL;
	}
	if (leader == 0 || leader == c->identity.node_id || p != NULL || c->up_dial != 0)
		return;
	count = engine_members(c->engine, members, LIMIT_NODES);
	for (unsigned i = 0; i < count; i++) {
		if (members[i].id != leader)
			continue;
		c->up_node = leader;
		c->up_dial = core_dial(c, leader, members[i].address, "tiebreak-peer/1", NULL);
	}
}

void peer_dialed(struct core *c, int fd)
{
	struct peer *p;

	c->up_dial = 0;
	if (fd < 0)
		return; /* the tick dials again */
	p = peer_new(c, c->up_node, fd, true);
	if (p == NULL)
		return;
	list_append(&c->peers, &p->link);
	peer_hello(p, engine_term(c->engine));
	peer_dial_leader(c); /* closes it again if the leader changed meanwhile */
}

void peer_renew(struct core *c)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	Tb__LeaseRenew renew = TB__LEASE_RENEW__INIT;
	struct board_health health;

	if (c->up == NULL)
		return;
	renew.term = engine_term(c->engine);
	renew.sent_ms = clock_boottime_ms();
	renew.leader_ms = c->lease.term == renew.term ? c->lease.leader_ms : 0;
	renew.applied_index = engine_applied(c->engine);
	renew.certified_index = c->certified_index;
	renew.host =
		c->host_stands ? TB__HOST_LIFE__HOST_LIFE_STANDS : TB__HOST_LIFE__HOST_LIFE_TURNS;
	watch_self(c, &health);
	renew.real_ms = health.real_ms;
	renew.rtt_ms = health.rtt_ms;
	renew.disk_ms = health.disk_ms;
	renew.wear_percent = health.wear_percent;
	renew.board = guard_news(c, renew.sent_ms);
	renew.sessions = c->listeners.door_sessions(c->listeners.arg);
	frame.what_case = TB__PEER_FRAME__WHAT_LEASE_RENEW;
	frame.lease_renew = &renew;
	peer_send(c->up, &frame);
}

void peer_send_events(struct core *c, Tb__DoorEvent **events, size_t count)
{
	/* A door reports all its sessions at once; a frame has a limit. */
	for (size_t from = 0; from < count && c->up != NULL; from += PEER_EVENTS_MAX) {
		Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
		Tb__PeerEvents batch = TB__PEER_EVENTS__INIT;

		batch.n_events = count - from < PEER_EVENTS_MAX ? count - from : PEER_EVENTS_MAX;
		batch.events = events + from;
		frame.what_case = TB__PEER_FRAME__WHAT_EVENTS;
		frame.events = &batch;
		peer_send(c->up, &frame);
	}
}

void peer_send_report(struct core *c, Tb__HostReport *report)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;

	frame.what_case = TB__PEER_FRAME__WHAT_HOST_REPORT;
	frame.host_report = report;
	peer_send(c->up, &frame);
}

void peer_close_all(struct core *c)
{
	list_for_each_safe (at, &c->peers)
		peer_close(list_entry(at, struct peer, link));
}
