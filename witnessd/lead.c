/* lead.c: what a board does while it leads: it runs the arbiter (cluster/fleet.h), grants leases
 * (cluster/lease.h) and brings the raft membership in line with the boards of the model. Also
 * the lease of this board itself, whoever granted it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/clocks.h"
#include "cluster/drain.h"
#include "cluster/hold.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/addresses.h"
#include "witnessd/core_internal.h"
#include "witnessd/door_events.h"
#include "witnessd/query.h"

/* --- the model as the arbiter sees it --- */

static int lead_site(void *arg, const char *name, Tb__Site **ret_site, Tb__Grant **ret_grant)
{
	struct core *c = arg;
	int rv = store_site_find(c->store, name, ret_site);

	if (rv != 0)
		return -ENOENT;
	if (store_grant_get(c->store, (*ret_site)->id, ret_grant) != 0)
		*ret_grant = NULL;
	return 0;
}

static bool lead_auto_register(void *arg)
{
	struct core *c = arg;
	Tb__Cluster *cluster;
	bool on;

	if (store_cluster_get(c->store, &cluster) != 0)
		return false;
	on = cluster->auto_register;
	tb__cluster__free_unpacked(cluster, NULL);
	return on;
}

/* --- start and stop --- */

static void lead_members(struct core *c)
{
	struct engine_member members[LIMIT_NODES];
	uint64_t ids[LIMIT_NODES];
	bool voters[LIMIT_NODES];
	unsigned count = engine_members(c->engine, members, LIMIT_NODES);

	for (unsigned i = 0; i < count; i++) {
		ids[i] = members[i].id;
		voters[i] = members[i].role == ENGINE_VOTER;
	}
	lease_table_members(&c->leases, ids, voters, count, clock_boottime_ms());
}

/* After a restore votes and leases may be held that the model has never seen (see fleet_hold). It
 * is over when one leader has seen the whole time pass. */
static void lead_hold(struct core *c, uint64_t now)
{
	Tb__Cluster *cluster;

	if (store_cluster_get(c->store, &cluster) != 0)
		return;
	if (cluster->hold_ms != 0 && c->hold_until_ms == 0) {
		uint64_t from = now + LEASE_LENGTH_MS + LEASE_LENGTH_MS / 10;

		c->hold_until_ms = from + hold_leases_ms(cluster->hold_ms);
		fleet_hold(c->fleet, from + cluster->hold_ms, c->hold_until_ms);
	}
	tb__cluster__free_unpacked(cluster, NULL);
}

static void lead_settle(struct core *c)
{
	Tb__Command *command;

	if (c->hold_until_ms == 0 || clock_boottime_ms() < c->hold_until_ms)
		return;
	c->hold_until_ms = 0;
	command = proposal_command(mem_strdup("arbiter"));
	command->op_case = TB__COMMAND__OP_CLUSTER_SETTLE;
	command->cluster_settle = mem_alloc(sizeof(Tb__ClusterSettle));
	tb__cluster_settle__init(command->cluster_settle);
	proposal_one(c, command, NULL, NULL);
}

/* What the boards said to an earlier leadership of this one. */
static void lead_forget(struct core *c)
{
	for (unsigned i = 0; i < LIMIT_NODES; i++)
		if (c->boards[i].facts != NULL)
			tb__board_facts__free_unpacked(c->boards[i].facts, NULL);
	memset(c->boards, 0, sizeof(c->boards));
}

static void lead_clock_look(struct core *c);

void lead_start(struct core *c)
{
	struct fleet_model model = {c, lead_site, lead_auto_register};
	uint64_t now = clock_boottime_ms();

	c->fleet_term = engine_term(c->engine);
	lease_table_start(&c->leases, c->identity.node_id, c->fleet_term, now);
	lead_members(c);
	c->fleet = fleet_new(&model, c->fleet_term, LEASE_LENGTH_MS + LEASE_LENGTH_MS / 10, now);
	c->hold_until_ms = 0;
	lead_hold(c, now);
	lead_forget(c);
	lead_clock_look(c);
	log_notice("leading", "this board leads the cluster from term %llu",
		   (unsigned long long)c->fleet_term);
	core_host_forget(c, 0);
	core_host_fence(c, c->model_index);
	lead_vms_start(c);
	core_door_ask(c);
	core_host_ask(c);
	addresses_lead(c);
	peer_greet_waiting(c);
	lead_lease_changed(c);
	proposals_kick(c);
}

void lead_stop(struct core *c)
{
	c->barrier_sent = false;
	if (c->fleet == NULL)
		return;
	watch_stop(c);
	addresses_lead_end(c);
	log_notice("not-leading", "this board no longer leads");
	fleet_free(c->fleet);
	lead_forget(c);
	c->fleet = NULL;
	c->fleet_term = 0;
	lead_vms_stop(c);
	core_host_forget(c, 0);
	core_host_fence(c, UINT64_MAX);
	uv_timer_stop(&c->fleet_due);
	peer_close_all(c);
	/* Questions that our own raft was to answer will not be. */
	list_for_each (at, &c->queries) {
		struct query *q = list_entry(at, struct query, link);

		q->sent = q->held;
	}
}

bool core_leading(const struct core *c)
{
	return c->fleet != NULL;
}

/* --- boards --- */

/* NULL: it has not said anything yet. */
static struct board_soft *lead_board_of(const struct core *c, uint64_t node)
{
	for (unsigned i = 0; i < LIMIT_NODES; i++)
		if (c->boards[i].node == node)
			return (struct board_soft *)&c->boards[i];
	return NULL;
}

/* Makes room for it, too; NULL: there is none. */
static struct board_soft *lead_board(struct core *c, uint64_t node)
{
	struct board_soft *board = lead_board_of(c, node);

	if (board == NULL) {
		board = lead_board_of(c, 0);
		if (board != NULL)
			board->node = node;
	}
	return board;
}

static const struct lease_member *lead_lease_of(const struct core *c, uint64_t node)
{
	for (unsigned i = 0; i < LIMIT_NODES; i++)
		if (c->leases.members[i].node == node)
			return &c->leases.members[i];
	return NULL;
}

/* --- the time of the cluster --- */

static void lead_clocks(const struct core *c, struct clocks *ret)
{
	uint64_t boot = clock_boottime_ms();

	*ret = (struct clocks){.newest_ms = c->newest_ms,
			       .reckoned_ms = c->newest_ms + (int64_t)(boot - c->newest_seen_ms),
			       .own_ms = core_clock_plausible() ? clock_realtime_ms() : 0};
	if (c->clock_offset_ms != 0 && (int64_t)boot + c->clock_offset_ms > ret->reckoned_ms)
		ret->reckoned_ms = (int64_t)boot + c->clock_offset_ms;
	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		const struct lease_member *m = &c->leases.members[i];
		int64_t heard = ret->own_ms;

		if (m->node == 0 || !m->voter)
			continue;
		if (m->node != c->identity.node_id) {
			const struct board_soft *soft = lead_board_of(c, m->node);
			bool reached = soft != NULL && lead_reaches(c, m->node, boot);

			/* One of a release that does not say is not asked. */
			if (reached && soft->clock_offset_ms == 0)
				continue;
			heard = reached ? (int64_t)boot + soft->clock_offset_ms : 0;
		}
		ret->voters++;
		if (core_clock_can_be(heard))
			ret->heard_ms[ret->count++] = heard;
	}
}

int64_t lead_now_ms(const struct core *c)
{
	struct clocks clocks;

	lead_clocks(c, &clocks);
	return clocks_now_ms(&clocks);
}

/* Boards whose clocks cannot be, and those of an older release, are waited for no longer than a
 * lease: then what has passed since the last known time has to do. */
static void lead_clock_look(struct core *c)
{
	bool known = core_clock_known(c);
	struct clocks clocks;
	int64_t majority;

	lead_clocks(c, &clocks);
	majority = clocks_majority_ms(&clocks);
	if (!known && majority == 0 && clock_boottime_ms() < c->leases.elected_ms + LEASE_LENGTH_MS)
		return;
	core_clock_learn(c, majority > clocks.reckoned_ms ? majority : clocks.reckoned_ms);
	if (!known)
		proposals_kick(c);
}

/* --- leases --- */

void lead_renewed(struct core *c, uint64_t node, const Tb__LeaseRenew *renew)
{
	struct board_soft *board = lead_board(c, node);

	if (board != NULL) {
		board->applied_index = renew->applied_index;
		lag_note(&board->lag, renew->applied_index, engine_applied(c->engine),
			 clock_boottime_ms());
		board->sessions = renew->sessions;
		board->certified_index = renew->certified_index;
		/* 0: a release that does not say. */
		board->clock_offset_ms =
			renew->real_ms != 0 ? renew->real_ms - (int64_t)clock_boottime_ms() : 0;
		board->rtt_ms = renew->rtt_ms;
		board->disk_ms = renew->disk_ms;
		board->wear_percent = renew->wear_percent;
		if (board->host_stands != (renew->host == TB__HOST_LIFE__HOST_LIFE_STANDS))
			lead_vms_changed(c);
		board->host_stands = renew->host == TB__HOST_LIFE__HOST_LIFE_STANDS;
		/* Only when they have changed. */
		if (renew->board != NULL) {
			if (board->facts != NULL)
				tb__board_facts__free_unpacked(board->facts, NULL);
			board->facts = (Tb__BoardFacts *)message_copy(&renew->board->base);
		}
	}
	if (!core_clock_known(c))
		lead_clock_look(c);
	lead_lease_changed(c);
}

bool lead_host_stands(const struct core *c, uint64_t node)
{
	const struct board_soft *board = lead_board_of(c, node);

	return node == c->identity.node_id ? c->host_stands : board != NULL && board->host_stands;
}

uint64_t lead_lag_ms(const struct core *c, uint64_t node)
{
	const struct board_soft *board = lead_board_of(c, node);

	return node != c->identity.node_id && board != NULL ? lag_ms(&board->lag) : 0;
}

static void lead_lease_over(uv_timer_t *timer)
{
	lead_lease_changed(timer->data);
}

/* Serves sites exactly while the lease is valid (DESIGN S2). */
void lead_lease_changed(struct core *c)
{
	uint64_t now = clock_boottime_ms();
	uint64_t own = c->fleet != NULL ? lease_table_self_until(&c->leases, now) : 0;
	bool valid;

	/* What a majority has promised stays promised: it outlives the leadership (every new leader
	 * waits for it) and a board that joins and has made no contact yet. */
	if (own > c->lease.until_ms && !core_reports_due(c))
		c->lease = (struct lease){.term = c->fleet_term, .until_ms = own};
	if (own > now && !core_reports_due(c) && !c->host_stands &&
	    !lead_vms_withholds(c, c->identity.node_id))
		core_host_granted(c, own, c->model_index, now);
	/* A log that makes no cluster yet (it is being founded or restored) serves nobody. */
	valid = lease_valid(&c->lease, now) && c->secrets_seen;
	atomic_store(&c->view.lease_until_ms, valid ? c->lease.until_ms : 0);
	core_host_tell(c);
	if (valid)
		uv_timer_start(&c->lease_end, lead_lease_over, c->lease.until_ms - now, 0);
	if (valid == c->serving)
		return;
	c->serving = valid;
	if (!valid)
		addresses_void(c);
	if (valid) {
		log_notice("lease-gained", "this board may serve sites");
		core_set_state(c, CORE_SERVING, "%s", "");
	} else {
		log_warning("lease-lost", "no contact with a leader for a whole lease: "
					  "closing all site sessions");
		core_set_state(c, CORE_NO_QUORUM,
			       "this board has no contact with a majority of the boards");
	}
	c->listeners.door_serve(c->listeners.arg, valid);
}

/* --- membership: raft follows the model --- */

/* Another change of the members, or of who leads, was first: it is tried again. */
static bool lead_gave_way(int status)
{
	return status == -EAGAIN || status == -ECANCELED || status == -EBUSY;
}

static void lead_member_done(void *arg, int status)
{
	struct core *c = arg;

	c->membership_busy = false;
	if (status != 0 && !lead_gave_way(status))
		log_warning("membership",
			    "a change of the raft membership failed: %s; trying again",
			    strerror(-status));
	if (c->fleet != NULL)
		lead_members(c);
}

static void lead_voter_named(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct core *c = arg;

	(void)error;
	(void)results;
	(void)count;
	c->membership_busy = false;
}

/* The model is told that a board votes, if need be by the next leader. */
static void lead_name_voter(struct core *c, uint64_t node)
{
	Tb__Command *command = proposal_command(mem_strdup("membership"));

	command->op_case = TB__COMMAND__OP_NODE_SET;
	command->node_set = mem_alloc(sizeof(Tb__NodeSet));
	tb__node_set__init(command->node_set);
	command->node_set->id = node;
	command->node_set->role = TB__NODE_ROLE__NODE_ROLE_VOTER;
	c->membership_busy = true;
	proposal_one(c, command, lead_voter_named, c);
}

static void lead_membership(struct core *c);

static void lead_promoted(void *arg, int status)
{
	struct core *c = arg;
	uint64_t node = c->promoting;
	Tb__Node *row;

	c->promoting = 0;
	c->membership_busy = false;
	if (c->fleet != NULL)
		lead_members(c);
	if (status == 0 && c->fleet != NULL && !c->stopping)
		lead_membership(c); /* the model is told */
	if (status == 0 || lead_gave_way(status) || store_node_get(c->store, node, &row) != 0)
		return;
	c->promote_again_ms = clock_boottime_ms() + CORE_PROMOTE_AGAIN_MS;
	log_warning(
		"membership",
		"board %s cannot vote yet, it is not reached at %s or does not catch up; trying "
		"again (is that its address? If it will not come, witnessctl cluster remove %s)",
		row->name, row->address, row->name);
	tb__node__free_unpacked(row, NULL);
}

/* What is to be done, 0: nothing. */
struct membership {
	struct core *c;
	struct engine_member members[LIMIT_NODES];
	unsigned count;
	bool known[LIMIT_NODES]; /* the member is a board of the model */
	uint64_t leaves;
	uint64_t add;
	char address[sizeof(((struct engine_member *)0)->address)]; /* of `add` */
	uint64_t voter; /* the model does not say so yet */
	uint64_t spare; /* to be promoted: the first one .. */
	uint64_t next; /* .. and the first after the one that was tried last */
};

static void membership_spare(struct membership *m, const Tb__Node *node)
{
	if (m->spare == 0)
		m->spare = node->id;
	if (m->next == 0 && node->id > m->c->promoted)
		m->next = node->id;
}

static int membership_visit(void *arg, const Tb__Node *node)
{
	struct membership *m = arg;
	bool taken = false;

	for (unsigned i = 0; i < m->count; i++) {
		taken |= strcmp(m->members[i].address, node->address) == 0;
		if (m->members[i].id != node->id)
			continue;
		m->known[i] = true;
		if (m->members[i].role == ENGINE_SPARE)
			membership_spare(m, node);
		else if (node->role == TB__NODE_ROLE__NODE_ROLE_JOINING)
			m->voter = node->id;
		return 0;
	}
	/* A taken address will be free when its board has left, or never is: raft has one of each.
	 */
	if (m->add != 0 || m->count == LIMIT_NODES || taken)
		return 0;
	m->add = node->id;
	snprintf(m->address, sizeof(m->address), "%s", node->address);
	return 0;
}

static int membership_look(struct core *c, struct membership *m)
{
	int rv;

	m->c = c;
	m->count = engine_members(c->engine, m->members, LIMIT_NODES);
	rv = store_nodes(c->store, membership_visit, m);
	for (unsigned i = 0; i < m->count && m->leaves == 0; i++)
		if (!m->known[i])
			m->leaves = m->members[i].id;
	return rv;
}

static void membership_promote(struct core *c, uint64_t node)
{
	/* The only one has just failed. */
	if (node == 0 || (node == c->promoted && clock_boottime_ms() < c->promote_again_ms))
		return;
	c->membership_busy = true;
	c->promoting = c->promoted = node;
	engine_promote(c->engine, node, lead_promoted, c);
}

/* Who has left goes first: a board that takes another's place may have its address, too. A
 * promotion comes last and gives way, for raft finds out only by trying whether the board is there.
 */
static void lead_membership(struct core *c)
{
	struct membership m = {0};

	if ((c->membership_busy && c->promoting == 0) || membership_look(c, &m) != 0)
		return;
	if (c->membership_busy) {
		if (m.leaves != 0 || m.add != 0)
			engine_promote_end(c->engine);
	} else if (m.leaves != 0) {
		c->membership_busy = true;
		if (m.leaves == c->identity.node_id)
			engine_transfer(c->engine, 0, lead_member_done, c);
		else
			engine_remove(c->engine, m.leaves, lead_member_done, c);
	} else if (m.add != 0) {
		c->membership_busy = true;
		engine_add(c->engine, m.add, m.address, lead_member_done, c);
	} else if (m.voter != 0) {
		lead_name_voter(c, m.voter);
	} else {
		membership_promote(c, m.next != 0 ? m.next : m.spare);
	}
}

/* --- the level --- */

struct levels {
	struct core *c;
	unsigned least;
};

static int levels_visit(void *arg, const Tb__Node *node)
{
	struct levels *l = arg;
	unsigned level =
		node->id == l->c->identity.node_id ? LEVEL_HERE : peer_level(l->c, node->id);

	if (level < l->least)
		l->least = level;
	return 0;
}

/* Raised once every board of the model is here and says that it understands more. */
static void lead_level(struct core *c)
{
	struct levels l = {.c = c, .least = LEVEL_HERE};
	uint64_t now = clock_boottime_ms();
	Tb__Command *command;

	if (now < c->level_ms || !c->secrets_seen)
		return;
	c->level_ms = now + CORE_LEVEL_MS;
	if (core_level(c) >= LEVEL_HERE || store_nodes(c->store, levels_visit, &l) != 0 ||
	    l.least <= core_level(c))
		return;
	command = proposal_command(mem_strdup("upgrade"));
	command->op_case = TB__COMMAND__OP_CLUSTER_LEVEL;
	command->cluster_level = mem_alloc(sizeof(Tb__ClusterLevel));
	tb__cluster_level__init(command->cluster_level);
	command->cluster_level->level = l.least;
	proposal_one(c, command, NULL, NULL);
}

/* --- drained boards --- */

struct drain_view {
	struct core *c;
	struct drain_board boards[LIMIT_NODES];
	Tb__Drain drains[LIMIT_NODES];
	unsigned count;
};

bool lead_reaches(const struct core *c, uint64_t node, uint64_t now)
{
	const struct lease_member *member = lead_lease_of(c, node);

	return node == c->identity.node_id || (member != NULL && member->renewed_ms != 0 &&
					       now - member->renewed_ms < LEASE_LENGTH_MS);
}

bool lead_health(struct core *c, uint64_t node, struct board_health *ret)
{
	const struct board_soft *board = lead_board(c, node);
	int64_t now = core_now_ms(c);

	if (node == c->identity.node_id) {
		watch_self(c, ret);
		ret->skew_ms = ret->real_ms - now;
		ret->rtt_ms = 0; /* of a time when it followed */
		return true;
	}
	*ret = (struct board_health){0};
	if (board != NULL) {
		if (board->clock_offset_ms != 0)
			ret->skew_ms = (int64_t)clock_boottime_ms() + board->clock_offset_ms - now;
		ret->rtt_ms = board->rtt_ms;
		ret->disk_ms = board->disk_ms;
		ret->wear_percent = board->wear_percent;
		ret->host_stands = board->host_stands;
		ret->facts = board->facts;
	}
	return lead_reaches(c, node, clock_boottime_ms());
}

static int drain_visit(void *arg, const Tb__Node *node)
{
	struct drain_view *v = arg;
	const struct board_soft *soft;

	if (v->count == LIMIT_NODES)
		return 1;
	soft = lead_board(v->c, node->id);
	v->drains[v->count] = node->drain;
	v->boards[v->count++] = (struct drain_board){
		.node = node->id,
		.voter = node->role == TB__NODE_ROLE__NODE_ROLE_VOTER,
		.reachable = lead_reaches(v->c, node->id, clock_boottime_ms()),
		.drained = node->drain != TB__DRAIN__DRAIN_OFF,
		.applied = soft != NULL ? soft->applied_index : 0,
	};
	return 0;
}

static void lead_handed_over(void *arg, int status)
{
	(void)arg;
	if (status != 0 && !lead_gave_way(status))
		log_warning("hand-over", "the leadership was not taken over: %s; trying again",
			    strerror(-status));
}

/* Sends the site nodes of drained boards away, and the leadership with them. */
static void lead_drain(struct core *c)
{
	struct drain_view v = {.c = c};
	uint64_t now = clock_boottime_ms();
	uint64_t heir;

	if (store_nodes(c->store, drain_visit, &v) != 0)
		return;
	for (unsigned i = 0; i < v.count; i++)
		if (v.boards[i].drained)
			fleet_drain(c->fleet, v.boards[i].node, v.drains[i] == TB__DRAIN__DRAIN_NOW,
				    CORE_DRAIN_BATCH, now);
	heir = drain_heir(v.boards, v.count, c->identity.node_id);
	if (heir == 0 || now < c->hand_over_ms)
		return;
	c->hand_over_ms = now + CORE_HAND_OVER_MS;
	log_notice("hand-over", "this board is drained: board %llu is to lead",
		   (unsigned long long)heir);
	engine_transfer(c->engine, heir, lead_handed_over, c);
}

/* --- the arbiter's output --- */

struct grant_batch {
	struct core *c;
	uint64_t term;
	Tb__Command **commands;
	size_t count;
};

static void lead_batch_done(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct grant_batch *b = arg;
	struct core *c = b->c;

	c->grants_on_way -= b->count;
	/* Results of an earlier leadership concern nobody any more. */
	for (size_t i = 0; i < b->count; i++) {
		bool failed = error != 0 || i >= count || results[i]->refusal != 0;

		if (failed && c->fleet != NULL && c->fleet_term == b->term)
			fleet_command_failed(c->fleet, b->commands[i], clock_boottime_ms());
		if (failed && error == 0 && i < count)
			log_warning("grant-refused", "%s", results[i]->message);
		tb__command__free_unpacked(b->commands[i], NULL);
	}
	free(b->commands);
	free(b);
}

static void lead_flush_commands(struct core *c)
{
	while (c->grants_on_way < CORE_GRANTS_MAX) {
		Tb__Command *command = fleet_next_command(c->fleet);
		Tb__Command **copies;
		struct grant_batch *b;

		if (command == NULL)
			return;
		b = mem_zalloc(sizeof(*b));
		b->c = c;
		b->term = c->fleet_term;
		b->commands = mem_array(CORE_BATCH, sizeof(*b->commands));
		while (command != NULL) {
			b->commands[b->count++] = command;
			if (b->count == CORE_BATCH)
				break;
			command = fleet_next_command(c->fleet);
		}
		copies = mem_array(b->count, sizeof(*copies));
		for (size_t i = 0; i < b->count; i++)
			copies[i] = (Tb__Command *)message_copy(&b->commands[i]->base);
		c->grants_on_way += b->count;
		proposal_add_once(c, copies, b->count, lead_batch_done, b);
	}
}

struct order_batch {
	uint64_t door;
	Tb__DoorOrder **orders;
	size_t count;
	size_t room;
};

static void lead_send_orders(struct core *c, struct order_batch *b)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	Tb__PeerOrders orders = TB__PEER_ORDERS__INIT;
	struct peer *p;

	if (b->count == 0)
		return;
	if (b->door == c->identity.node_id) {
		core_door_orders(c, b->orders, b->count);
		*b = (struct order_batch){0};
		return;
	}
	p = peer_find(c, b->door);
	if (p != NULL) {
		orders.term = c->fleet_term;
		orders.n_orders = b->count;
		orders.orders = b->orders;
		frame.what_case = TB__PEER_FRAME__WHAT_ORDERS;
		frame.orders = &orders;
		peer_send(p, &frame);
	}
	/* An order that cannot be sent is made again when the door reports. */
	door_orders_free(b->orders, b->count);
	*b = (struct order_batch){0};
}

static void lead_flush_orders(struct core *c)
{
	struct order_batch batches[LIMIT_NODES + 1] = {0};
	Tb__DoorOrder *order;
	uint64_t door;

	while ((order = fleet_next_order(c->fleet, &door)) != NULL) {
		struct order_batch *b = NULL;

		for (unsigned i = 0; i <= LIMIT_NODES; i++) {
			if (batches[i].count != 0 && batches[i].door != door)
				continue;
			b = &batches[i];
			break;
		}
		if (b == NULL) {
			/* More doors than boards: a board left in this very turn. */
			tb__door_order__free_unpacked(order, NULL);
			continue;
		}
		b->door = door;
		if (b->count == b->room) {
			b->room = b->room ? b->room * 2 : 16;
			b->orders = mem_realloc(b->orders, b->room * sizeof(Tb__DoorOrder *));
		}
		b->orders[b->count++] = order;
		if (b->count == 4096)
			lead_send_orders(c, b);
	}
	for (unsigned i = 0; i <= LIMIT_NODES; i++)
		lead_send_orders(c, &batches[i]);
}

static void lead_due(uv_timer_t *timer)
{
	/* Waking up is enough: the flush of this turn asks the fleet. */
	(void)timer;
}

void lead_flush(struct core *c)
{
	uint64_t now = clock_boottime_ms();
	uint64_t vms_due;
	uint64_t due;

	if (c->fleet == NULL)
		return;
	vms_due = lead_vms_flush(c, now);
	due = fleet_tick(c->fleet, now);
	if (vms_due < due)
		due = vms_due;
	lead_flush_commands(c);
	lead_flush_orders(c);
	if (due == UINT64_MAX)
		uv_timer_stop(&c->fleet_due);
	else
		uv_timer_start(&c->fleet_due, lead_due, due > now ? due - now : 1, 0);
}

void lead_applied(struct core *c, const struct apply_result *result)
{
	uint64_t now = clock_boottime_ms();

	if (c->fleet == NULL)
		return;
	for (size_t i = 0; i < result->grant_count; i++)
		fleet_grant_applied(c->fleet, result->grants[i], now);
	for (size_t i = 0; i < result->site_count; i++)
		fleet_site_changed(c->fleet, result->sites[i], now);
	if (result->nodes_changed)
		lead_members(c);
	if (result->vms_changed || result->nodes_changed || result->cluster_changed)
		lead_vms_changed(c);
	/* A restore ends under the leader that began it. */
	if (result->cluster_changed)
		lead_hold(c, now);
}

bool lead_has_others(struct core *c)
{
	uint64_t now = clock_boottime_ms();

	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		const struct lease_member *m = &c->leases.members[i];

		if (m->node != 0 && m->node != c->identity.node_id && m->voter &&
		    m->renewed_ms != 0 && now - m->renewed_ms < LEASE_LENGTH_MS)
			return true;
	}
	return false;
}

void lead_tick(struct core *c)
{
	if (c->fleet == NULL)
		return;
	lead_members(c);
	lead_clock_look(c);
	lead_membership(c);
	lead_drain(c);
	lead_settle(c);
	lead_level(c);
	certify_lead(c, clock_boottime_ms());
	addresses_tick(c);
	watch_tick(c, clock_boottime_ms());
	lead_lease_changed(c);
}

/* --- answers --- */

static void answer_sites(struct core *c, struct query *q)
{
	const Tb__SiteStatusQuery *sites = q->query->sites;
	Tb__PeerAnswer answer = TB__PEER_ANSWER__INIT;
	Tb__SiteStatusRow **rows = mem_array(sites->n_names, sizeof(*rows));

	for (size_t i = 0; i < sites->n_names; i++) {
		rows[i] = mem_alloc(sizeof(*rows[i]));
		tb__site_status_row__init(rows[i]);
		rows[i]->name = sites->names[i];
		rows[i]->status = fleet_site_status(c->fleet, sites->names[i], NULL);
		if (rows[i]->status->lease != NULL && rows[i]->status->lease->holder != 0)
			rows[i]->status->lease->until_ms =
				core_now_ms(c) + rows[i]->status->lease->left_ms;
	}
	answer.n_rows = sites->n_names;
	answer.rows = rows;
	query_finish(q, 0, &answer);
	for (size_t i = 0; i < answer.n_rows; i++) {
		tb__site_status__free_unpacked(rows[i]->status, NULL);
		free(rows[i]);
	}
	free(rows);
}

struct node_rows {
	struct core *c;
	Tb__NodeStatusRow rows[LIMIT_NODES];
	Tb__NodeStatusRow *pointers[LIMIT_NODES];
	Tb__NodeStatus statuses[LIMIT_NODES];
	unsigned count;
	unsigned reachable;
	unsigned drained;
	char *leader_name;
};

static int node_rows_visit(void *arg, const Tb__Node *node)
{
	struct node_rows *r = arg;
	struct core *c = r->c;
	uint64_t now = clock_boottime_ms();
	const struct lease_member *member = lead_lease_of(c, node->id);
	struct board_soft *board = lead_board(c, node->id);
	struct board_health health;
	Tb__NodeStatus *status;

	if (r->count == LIMIT_NODES)
		return 1;
	status = &r->statuses[r->count];
	tb__node_status__init(status);
	lead_health(c, node->id, &health);
	status->skew_ms = (int32_t)(health.skew_ms > INT32_MAX	 ? INT32_MAX
				    : health.skew_ms < INT32_MIN ? INT32_MIN
								 : health.skew_ms);
	status->rtt_ms = health.rtt_ms;
	status->disk_ms = health.disk_ms;
	status->wear_percent = health.wear_percent;
	status->board = (Tb__BoardFacts *)health.facts;
	status->level = node->id == c->identity.node_id ? LEVEL_HERE : peer_level(c, node->id);
	addresses_node(c, node->id, status);
	if (node->id == c->identity.node_id) {
		status->leader = true;
		status->reachable = true;
		status->applied_index = engine_applied(c->engine);
		status->sessions = c->listeners.door_sessions(c->listeners.arg);
		r->leader_name = mem_strdup(node->name);
	} else if (member != NULL) {
		uint64_t age = member->renewed_ms != 0 ? now - member->renewed_ms : UINT32_MAX;

		status->reachable = age < LEASE_LENGTH_MS;
		status->lease_age_ms = age < UINT32_MAX ? (uint32_t)age : UINT32_MAX;
		if (board != NULL) {
			status->applied_index = board->applied_index;
			status->sessions = status->reachable ? board->sessions : 0;
		}
	}
	r->reachable += status->reachable;
	r->drained += node->drain != TB__DRAIN__DRAIN_OFF;
	tb__node_status_row__init(&r->rows[r->count]);
	r->rows[r->count].node_id = node->id;
	r->rows[r->count].status = status;
	r->pointers[r->count] = &r->rows[r->count];
	r->count++;
	return 0;
}

static void node_rows_vms(struct node_rows *r, Tb__ClusterStatus *status)
{
	struct vm_counts counts[LIMIT_NODES];
	uint64_t nodes[LIMIT_NODES];
	struct vm_counts all;

	for (unsigned i = 0; i < r->count; i++)
		nodes[i] = r->rows[i].node_id;
	lead_vms_count(r->c, nodes, r->count, &all, counts);
	status->vms = all.vms;
	status->vms_running = all.running;
	for (unsigned i = 0; i < r->count; i++) {
		r->statuses[i].vms = counts[i].vms;
		r->statuses[i].vms_running = counts[i].running;
	}
}

static void answer_cluster(struct core *c, struct query *q)
{
	Tb__PeerAnswer answer = TB__PEER_ANSWER__INIT;
	Tb__ClusterStatus status = TB__CLUSTER_STATUS__INIT;
	struct node_rows rows = {.c = c};
	uint64_t sites = 0;
	uint32_t here;

	store_nodes(c->store, node_rows_visit, &rows);
	node_rows_vms(&rows, &status);
	store_count(c->store, "site", &sites);
	fleet_counts(c->fleet, &status);
	status.leader = c->identity.node_id;
	if (rows.leader_name != NULL)
		status.leader_name = rows.leader_name;
	status.term = c->fleet_term;
	status.applied_index = engine_applied(c->engine);
	status.nodes = rows.count;
	status.nodes_reachable = rows.reachable;
	status.nodes_drained = rows.drained;
	status.level = core_level(c);
	status.sites = (uint32_t)sites;
	here = status.sites_whole + status.sites_degraded + status.sites_split +
	       status.sites_undecided;
	status.sites_offline = sites > here ? (uint32_t)sites - here : 0;
	status.state = rows.reachable == rows.count ? (char *)"ok" : (char *)"degraded";
	answer.cluster = &status;
	answer.n_nodes = rows.count;
	answer.nodes = rows.pointers;
	addresses_answer(c, &answer, &status);
	query_finish(q, 0, &answer);
	for (size_t i = 0; i < answer.n_addresses; i++)
		tb__service_address__free_unpacked(answer.addresses[i], NULL);
	free(answer.addresses);
	for (unsigned i = 0; i < rows.count; i++)
		free(rows.statuses[i].addresses);
	free(rows.leader_name);
}

void query_refuse(struct query *q, int error, const char *message)
{
	Tb__PeerAnswer answer = TB__PEER_ANSWER__INIT;

	answer.message = (char *)message;
	query_finish(q, error, &answer);
}

static void answer_transferred(void *arg, int status)
{
	struct query *q = arg;
	Tb__PeerAnswer answer = TB__PEER_ANSWER__INIT;

	if (status == 0)
		query_finish(q, 0, &answer);
	else if (status == -EBUSY)
		query_refuse(q, status, "the membership is changing; try again in a moment");
	else
		query_refuse(q, status,
			     "the leadership could not be handed over; is the other "
			     "board reachable and up to date?");
}

static void answer_removed(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct query *q = arg;

	if (error == 0 && count == 1 && results[0]->refusal != 0)
		query_refuse(
			q, results[0]->refusal == TB__REFUSAL__REFUSAL_NOT_FOUND ? -ENOENT : -EPERM,
			results[0]->message);
	else
		query_refuse(q, error, "");
}

/* Removing a board must leave a majority of the rest reachable. */
static bool lead_removal_safe(struct core *c, uint64_t leaving, const char **ret_why)
{
	uint64_t now = clock_boottime_ms();
	unsigned rest = 0;
	unsigned here = 0;

	for (unsigned i = 0; i < LIMIT_NODES; i++) {
		const struct lease_member *m = &c->leases.members[i];

		if (m->node == 0 || m->node == leaving || !m->voter)
			continue;
		rest++;
		here += m->node == c->identity.node_id ||
			(m->renewed_ms != 0 && now - m->renewed_ms < LEASE_LENGTH_MS);
	}
	if (rest == 0) {
		*ret_why = "this is the last board; stop it and remove its data directory instead";
		return false;
	}
	if (here * 2 <= rest) {
		*ret_why =
			"without this board fewer than a majority of the rest is reachable; bring "
			"the others back first";
		return false;
	}
	return true;
}

static void answer_remove(struct core *c, struct query *q)
{
	const Tb__PeerRemove *remove = q->query->remove;
	Tb__Command *command;
	Tb__Node *node;
	const char *why;

	if (store_node_get(c->store, remove->node_id, &node) != 0) {
		query_refuse(q, query_was_done(q, -ENOENT) ? 0 : -ENOENT, "there is no such board");
		return;
	}
	tb__node__free_unpacked(node, NULL);
	if (!lead_removal_safe(c, remove->node_id, &why)) {
		query_refuse(q, -EPERM, why);
		return;
	}
	command = proposal_command(mem_strdup(remove->actor));
	command->op_case = TB__COMMAND__OP_NODE_REMOVE;
	command->node_remove = mem_alloc(sizeof(Tb__NodeRemove));
	tb__node_remove__init(command->node_remove);
	command->node_remove->id = remove->node_id;
	q->held = true;
	proposal_one(c, command, answer_removed, q);
}

/* Only a board that is gone can be replaced, and only while a majority of the rest is here. */
static void answer_replace(struct core *c, struct query *q)
{
	uint64_t id = q->query->replace->node_id;
	Tb__PeerAnswer done = TB__PEER_ANSWER__INIT;
	const char *why;
	Tb__Node *node;

	/* Removed meanwhile: its place is free. */
	if (store_node_get(c->store, id, &node) != 0) {
		query_finish(q, 0, &done);
		return;
	}
	tb__node__free_unpacked(node, NULL);
	if (lead_reaches(c, id, clock_boottime_ms()))
		query_refuse(q, -EPERM,
			     "that board is alive; only a dead one can be replaced (stop it for "
			     "good first, or join the new board and remove the old one with "
			     "\"witnessctl cluster remove\")");
	else if (!lead_removal_safe(c, id, &why))
		query_refuse(q, -EPERM, why);
	else
		query_finish(q, 0, &done);
}

static bool lead_drained(struct core *c, uint64_t id)
{
	Tb__Node *node;
	bool drained;

	if (store_node_get(c->store, id, &node) != 0)
		return false;
	drained = node->drain != TB__DRAIN__DRAIN_OFF;
	tb__node__free_unpacked(node, NULL);
	return drained;
}

void lead_answer(struct core *c, struct query *q)
{
	Tb__PeerAnswer done = TB__PEER_ANSWER__INIT;

	switch (q->query->what_case) {
	case TB__PEER_QUERY__WHAT_SITES:
		answer_sites(c, q);
		break;
	case TB__PEER_QUERY__WHAT_CLUSTER:
		answer_cluster(c, q);
		break;
	case TB__PEER_QUERY__WHAT_TRANSFER:
		if (q->query->transfer->node_id == c->identity.node_id) {
			query_finish(q, 0, &done);
			break;
		}
		if (lead_drained(c, q->query->transfer->node_id)) {
			query_refuse(q, -EPERM,
				     "that board is drained; undrain it first (witnessctl node "
				     "undrain)");
			break;
		}
		q->held = true;
		engine_transfer(c->engine, q->query->transfer->node_id, answer_transferred, q);
		break;
	case TB__PEER_QUERY__WHAT_REMOVE:
		answer_remove(c, q);
		break;
	case TB__PEER_QUERY__WHAT_REPLACE:
		answer_replace(c, q);
		break;
	case TB__PEER_QUERY__WHAT_VMS:
	case TB__PEER_QUERY__WHAT_IMAGES:
	case TB__PEER_QUERY__WHAT_MOVE:
		lead_vms_answer(c, q);
		break;
	default:
		query_refuse(q, -EOPNOTSUPP, "this release does not know that question");
		break;
	}
}
