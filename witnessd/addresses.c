#include "witnessd/addresses.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/address_claim.h"
#include "cluster/address_pool.h"
#include "cluster/roll.h"
#include "lib/clock.h"
#include "lib/hash.h"
#include "lib/ip.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/links.h"

enum {
	BLOCK_MS = 15000, /* a board that could not take an address is not asked again before */
	CONFLICT_EVENT_MS = 300000, /* an event of a conflict, again */
	ROLL_BATCH = 1000, /* entries of one frame */
	SERIAL_BITS = 24, /* of an order's number within its term */
	UNHELD_MS = 10000, /* before it is an alarm */
	/* Those of the model, and those that have left it and may still have something. */
	BOARDS_MAX = 2 * LIMIT_NODES,
	GONE_MS = 60000, /* a board that has left is remembered, after its lease: for its heirs */
};

static void ip_list_add_held(struct ip_list *l, const Tb__PeerAddressReport *report)
{
	struct ip ip;

	for (size_t i = 0; report != NULL && i < report->n_held; i++)
		if (ip_parse(report->held[i]->address, &ip) == 0)
			ip_list_add(l, &ip);
}

static void ip_list_add_order(struct ip_list *l, const Tb__PeerAddressOrder *order)
{
	struct ip ip;

	for (size_t i = 0; order != NULL && i < order->n_hold; i++)
		if (ip_parse(order->hold[i]->address, &ip) == 0)
			ip_list_add(l, &ip);
}

/* A session of this board at a service address. */
struct own_session {
	struct hash_node by_id;
	uint64_t id;
	struct roll_ends ends;
};

struct blocked {
	struct ip ip;
	uint64_t until_ms;
};

/* What the leader knows of a board. */
struct address_board {
	uint64_t node; /* 0: free */
	struct address_claim claim;
	uint64_t ordered_print; /* of the prefixes and interfaces of the newest order */
	Tb__PeerAddressReport *report; /* its newest, NULL none */
	struct blocked blocked[LIMIT_ADDRESSES];
};

/* What the leader remembers of an address of the pool, for people. */
struct address_story {
	struct ip ip;
	uint64_t holder; /* who had it last; 0: not known */
	uint64_t unheld_ms; /* since then nobody has it; 0: somebody does */
	uint64_t conflict_ms; /* the newest event of a conflict; 0 none */
	enum pool_why why; /* as planned last */
	uint64_t planned;
};

struct addresses {
	/* as any board */
	struct address_orders orders;
	Tb__PeerAddressReport *report; /* of the holder, its newest */
	struct hash sessions;
	struct roll roll; /* of all boards; of this one under its own id */
	Tb__PeerRoll *news; /* of this board, to go out; NULL none */
	/* as the leader */
	struct address_board boards[BOARDS_MAX];
	struct address_story stories[LIMIT_ADDRESSES];
	uint64_t serial;
	uint64_t changed_ms;
	uint64_t fingerprint; /* of what the calm depends on */
};

static uint64_t self_id(const struct core *c)
{
	return c->identity.node_id;
}

/* --- the holder ------------------------------------------------------------------------------- */

static void holder_give(struct core *c, const Tb__PeerAddressOrder *order)
{
	struct addresses *a = c->addresses;
	struct ip_list hold = {.count = 0};

	ip_list_add_order(&hold, order);
	address_orders_give(&a->orders, order->serial, &hold);
	c->listeners.address_hold(c->listeners.arg, a->orders.letter, order, c->lease.until_ms);
	core_admit_sites(c);
}

void addresses_order(struct core *c, const Tb__PeerAddressOrder *order)
{
	Tb__PeerAddressOrder nothing = TB__PEER_ADDRESS_ORDER__INIT;

	/* Sent while there was a lease; the leader hears that it came too late. */
	holder_give(c, clock_boottime_ms() < c->lease.until_ms ? order : &nothing);
}

void addresses_void(struct core *c)
{
	Tb__PeerAddressOrder nothing = TB__PEER_ADDRESS_ORDER__INIT;

	if (c->addresses->orders.serial != 0)
		holder_give(c, &nothing);
}

bool addresses_wanted(const struct core *c)
{
	return c->addresses->orders.hold.count > 0;
}

/* All that this board may have at this moment. The caller frees it. */
static Tb__PeerAddressReport *report_first(const struct core *c)
{
	const struct addresses *a = c->addresses;
	Tb__PeerAddressReport *report;
	struct ip_list all = a->orders.pending;

	if (a->report != NULL) {
		report = (Tb__PeerAddressReport *)message_copy(&a->report->base);
	} else {
		report = mem_alloc(sizeof(*report));
		tb__peer_address_report__init(report);
	}
	report->serial = 0;
	for (size_t i = 0; i < report->n_held; i++) {
		struct ip ip;

		if (ip_parse(report->held[i]->address, &ip) != 0)
			continue;
		for (unsigned k = 0; k < all.count; k++)
			if (ip_equal(&all.items[k], &ip))
				all.items[k] = all.items[--all.count];
	}
	report->held = mem_realloc(report->held,
				   (report->n_held + all.count + 1) * sizeof(report->held[0]));
	for (unsigned i = 0; i < all.count; i++) {
		Tb__AddressHeld *row = mem_alloc(sizeof(*row));
		char text[IP_TEXT];

		ip_format(&all.items[i], text);
		tb__address_held__init(row);
		row->address = mem_strdup(text);
		row->state = TB__ADDRESS_STATE__ADDRESS_STATE_TAKING;
		report->held[report->n_held++] = row;
	}
	return report;
}

static void report_up(struct core *c, Tb__PeerAddressReport *report)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;

	frame.what_case = TB__PEER_FRAME__WHAT_ADDRESS_REPORT;
	frame.address_report = report;
	peer_send(c->up, &frame);
}

/* What this board has taken just now. */
static void heir_tickle(struct core *c, const Tb__PeerAddressReport *before,
			const Tb__PeerAddressReport *report)
{
	struct addresses *a = c->addresses;

	for (size_t i = 0; i < report->n_held; i++) {
		const Tb__AddressHeld *row = report->held[i];
		struct roll_ends *ends;
		bool had = false;
		struct ip ip;
		size_t count;

		for (size_t k = 0; before != NULL && k < before->n_held; k++)
			had |= before->held[k]->state == TB__ADDRESS_STATE__ADDRESS_STATE_HELD &&
			       strcmp(before->held[k]->address, row->address) == 0;
		if (had || row->state != TB__ADDRESS_STATE__ADDRESS_STATE_HELD ||
		    a->roll.entries.count == 0 || ip_parse(row->address, &ip) != 0)
			continue;
		ends = mem_array(a->roll.entries.count, sizeof(*ends));
		count = roll_take(&a->roll, &ip, self_id(c), ends, a->roll.entries.count);
		if (count > 0)
			log_notice("address-heir",
				   "%zu sessions at %s were another board's: telling their clients",
				   count, row->address);
		if (count > 0)
			c->listeners.address_tickle(c->listeners.arg, ends, count);
		else
			free(ends);
	}
}

void addresses_report(struct core *c, uint64_t letter, Tb__PeerAddressReport *report)
{
	struct addresses *a = c->addresses;
	Tb__PeerAddressReport *before = a->report;

	a->report = report;
	address_orders_opened(&a->orders, letter, report->serial);
	heir_tickle(c, before, report);
	if (before != NULL)
		tb__peer_address_report__free_unpacked(before, NULL);
	if (c->fleet != NULL)
		addresses_reported(c, self_id(c), report);
	else if (c->up != NULL)
		report_up(c, report);
}

/* --- the roll --------------------------------------------------------------------------------- */

static void news_add(Tb__PeerRoll *news, bool gone, const struct roll_ends *ends)
{
	ProtobufCBinaryData **list = gone ? &news->gone : &news->added;
	size_t *count = gone ? &news->n_gone : &news->n_added;
	uint8_t bytes[ROLL_BYTES_MAX];
	size_t len = roll_pack(ends, bytes);

	if ((*count & (*count - 1)) == 0)
		*list = mem_realloc(*list, (*count == 0 ? 1 : *count * 2) * sizeof(**list));
	(*list)[(*count)++] = (ProtobufCBinaryData){.len = len, .data = mem_dup(bytes, len)};
}

static void rolls_send(struct core *c, const Tb__PeerRoll *roll, uint64_t except)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;

	frame.what_case = TB__PEER_FRAME__WHAT_ROLL;
	frame.roll = (Tb__PeerRoll *)(uintptr_t)roll;
	if (c->fleet == NULL) {
		if (c->up != NULL)
			peer_send(c->up, &frame);
		return;
	}
	for (unsigned i = 0; i < BOARDS_MAX; i++) {
		const struct address_board *b = &c->addresses->boards[i];
		struct peer *p = b->node != 0 && b->node != except && b->node != self_id(c)
					 ? peer_find(c, b->node)
					 : NULL;

		if (p != NULL)
			peer_send(p, &frame);
	}
}

static void news_flush(struct core *c)
{
	struct addresses *a = c->addresses;

	if (a->news == NULL)
		return;
	a->news->node_id = self_id(c);
	rolls_send(c, a->news, 0);
	tb__peer_roll__free_unpacked(a->news, NULL);
	a->news = NULL;
}

static void news_note(struct core *c, bool gone, const struct roll_ends *ends)
{
	struct addresses *a = c->addresses;

	/* Who reads it begins with those that are gone. */
	if (gone && a->news != NULL && a->news->n_added > 0)
		news_flush(c);
	if (a->news == NULL) {
		a->news = mem_alloc(sizeof(*a->news));
		tb__peer_roll__init(a->news);
	}
	news_add(a->news, gone, ends);
	if (a->news->n_added + a->news->n_gone >= ROLL_BATCH)
		news_flush(c);
}

struct whole {
	struct core *c;
	struct peer *to;
	Tb__PeerRoll *part;
};

static void whole_send(struct whole *w)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	uint64_t node = w->part->node_id;

	frame.what_case = TB__PEER_FRAME__WHAT_ROLL;
	frame.roll = w->part;
	peer_send(w->to, &frame);
	tb__peer_roll__free_unpacked(w->part, NULL);
	w->part = mem_alloc(sizeof(*w->part));
	tb__peer_roll__init(w->part);
	w->part->node_id = node;
}

static void whole_visit(void *arg, const struct roll_ends *ends)
{
	struct whole *w = arg;

	news_add(w->part, false, ends);
	if (w->part->n_added == ROLL_BATCH)
		whole_send(w);
}

/* All that is known of a board's sessions, to one board. */
static void roll_tell(struct core *c, uint64_t node, struct peer *to)
{
	struct whole w = {.c = c, .to = to, .part = mem_alloc(sizeof(Tb__PeerRoll))};

	tb__peer_roll__init(w.part);
	w.part->node_id = node;
	w.part->whole = true;
	roll_each(&c->addresses->roll, node, whole_visit, &w);
	whole_send(&w);
	tb__peer_roll__free_unpacked(w.part, NULL);
}

void addresses_rolled(struct core *c, uint64_t node, const Tb__PeerRoll *roll)
{
	struct addresses *a = c->addresses;
	struct roll_ends ends;

	/* A follower speaks for itself; of itself nobody else tells a board. */
	if (c->fleet != NULL ? roll->node_id != node : roll->node_id == self_id(c))
		return;
	if (roll->whole)
		roll_forget(&a->roll, roll->node_id);
	for (size_t i = 0; i < roll->n_gone; i++)
		if (roll_unpack(roll->gone[i].data, roll->gone[i].len, &ends) == 0)
			roll_remove(&a->roll, roll->node_id, &ends);
	for (size_t i = 0; i < roll->n_added; i++)
		if (roll_unpack(roll->added[i].data, roll->added[i].len, &ends) == 0)
			roll_add(&a->roll, roll->node_id, &ends);
	if (c->fleet != NULL)
		rolls_send(c, roll, node);
}

static int session_match(const struct hash_node *at, const void *key)
{
	return list_entry(at, struct own_session, by_id)->id == *(const uint64_t *)key;
}

static void session_end(struct core *c, struct own_session *s)
{
	struct addresses *a = c->addresses;

	roll_remove(&a->roll, self_id(c), &s->ends);
	news_note(c, true, &s->ends);
	hash_remove(&a->sessions, &s->by_id);
	free(s);
}

static void session_begin(struct core *c, uint64_t id, const Tb__SiteNode *node)
{
	struct addresses *a = c->addresses;
	struct own_session *s;
	struct roll_ends ends;
	struct hash_node *at = hash_find(&a->sessions, hash_u64(id), session_match, &id);

	if (at != NULL || node == NULL || a->sessions.count >= ROLL_MAX ||
	    ip_of_text(node->local, &ends.local, &ends.local_port) != 0 ||
	    ip_of_text(node->address, &ends.remote, &ends.remote_port) != 0 ||
	    ends.local.len != ends.remote.len || !ip_list_has(&a->orders.pending, &ends.local))
		return;
	s = mem_zalloc(sizeof(*s));
	s->id = id;
	s->ends = ends;
	hash_insert(&a->sessions, &s->by_id, hash_u64(id));
	roll_add(&a->roll, self_id(c), &ends);
	news_note(c, false, &ends);
}

void addresses_event(struct core *c, const Tb__DoorEvent *event)
{
	struct addresses *a = c->addresses;
	struct hash_node *at;

	switch (event->what_case) {
	case TB__DOOR_EVENT__WHAT_OPEN:
		session_begin(c, event->session, event->open->node);
		break;
	case TB__DOOR_EVENT__WHAT_REPORT:
		session_begin(c, event->session, event->report->node);
		break;
	case TB__DOOR_EVENT__WHAT_CLOSED:
		at = hash_find(&a->sessions, hash_u64(event->session), session_match,
			       &event->session);
		if (at != NULL)
			session_end(c, list_entry(at, struct own_session, by_id));
		break;
	default:
		break;
	}
}

void addresses_flush(struct core *c)
{
	news_flush(c);
}

/* --- a follower ------------------------------------------------------------------------------- */

void addresses_link_up(struct core *c)
{
	Tb__PeerAddressReport *report = report_first(c);

	report_up(c, report);
	tb__peer_address_report__free_unpacked(report, NULL);
	news_flush(c);
	roll_tell(c, self_id(c), c->up);
}

/* --- the leader: what it knows ---------------------------------------------------------------- */

static struct address_board *board_at(struct core *c, uint64_t node)
{
	struct address_board *boards = c->addresses->boards;
	struct address_board *spare = NULL;

	for (unsigned i = 0; i < BOARDS_MAX; i++) {
		if (boards[i].node == node)
			return &boards[i];
		if (boards[i].node == 0)
			spare = &boards[i];
	}
	if (spare != NULL)
		spare->node = node;
	return spare;
}

static void board_clear(struct address_board *b)
{
	if (b->report != NULL)
		tb__peer_address_report__free_unpacked(b->report, NULL);
	*b = (struct address_board){0};
}

static void board_block(struct address_board *b, const struct ip *ip, uint64_t now)
{
	struct blocked *oldest = &b->blocked[0];

	for (unsigned i = 0; i < LIMIT_ADDRESSES; i++) {
		if (b->blocked[i].until_ms < oldest->until_ms)
			oldest = &b->blocked[i];
		if (ip_equal(&b->blocked[i].ip, ip)) {
			oldest = &b->blocked[i];
			break;
		}
	}
	*oldest = (struct blocked){*ip, now + BLOCK_MS};
}

static bool board_is_blocked(const struct address_board *b, const struct ip *ip, uint64_t now)
{
	for (unsigned i = 0; i < LIMIT_ADDRESSES; i++)
		if (now < b->blocked[i].until_ms && ip_equal(&b->blocked[i].ip, ip))
			return true;
	return false;
}

static struct address_story *story_of(struct core *c, const struct ip *ip)
{
	struct address_story *stories = c->addresses->stories;

	for (unsigned i = 0; i < LIMIT_ADDRESSES; i++)
		if (ip_equal(&stories[i].ip, ip))
			return &stories[i];
	return NULL;
}

static char *board_name(struct core *c, uint64_t node)
{
	Tb__Node *row;
	char *name;

	if (node == 0 || store_node_get(c->store, node, &row) != 0)
		return mem_strdup("");
	name = mem_strdup(row->name);
	tb__node__free_unpacked(row, NULL);
	return name;
}

__attribute__((format(printf, 5, 6))) static void event_propose(struct core *c, const char *type,
								Tb__Severity severity,
								const char *node,
								const char *format, ...)
{
	Tb__Command *command = proposal_command(mem_strdup("addresses"));
	Tb__Event *event = mem_alloc(sizeof(*event));
	char message[LIMIT_MESSAGE + 1];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	tb__event__init(event);
	event->type = mem_strdup(type);
	event->severity = severity;
	event->node = mem_strdup(node);
	event->message = mem_strdup(message);
	command->op_case = TB__COMMAND__OP_EVENT_ADD;
	command->event_add = mem_alloc(sizeof(*command->event_add));
	tb__event_add__init(command->event_add);
	command->event_add->event = event;
	proposal_one(c, command, NULL, NULL);
}

static const char *why_words(enum pool_why why)
{
	switch (why) {
	case POOL_DRAINED:
		return "its board was drained";
	case POOL_UNABLE:
		return "its board can have it no longer";
	case POOL_BALANCE:
		return "to spread the addresses evenly";
	default:
		return "its board was lost";
	}
}

/* `first`: what it had before this leadership or this link is no news. */
static void story_held(struct core *c, uint64_t node, const Tb__AddressHeld *row, bool first)
{
	struct address_story *story;
	char *name, *before;
	struct ip ip;

	if (ip_parse(row->address, &ip) != 0)
		return;
	story = story_of(c, &ip);
	if (story == NULL || story->holder == node)
		return;
	name = board_name(c, node);
	before = board_name(c, story->holder);
	if (!first && before[0] != '\0')
		event_propose(c, "address.moved", TB__SEVERITY__SEVERITY_INFO, name,
			      "service address %s moved from board %s to board %s: %s",
			      row->address, before, name, why_words(story->why));
	else if (!first)
		event_propose(c, "address.moved", TB__SEVERITY__SEVERITY_INFO, name,
			      "service address %s is at board %s now", row->address, name);
	story->holder = node;
	story->why = POOL_STAYS;
	free(name);
	free(before);
}

static void story_refused(struct core *c, struct address_board *b, const Tb__AddressHeld *row,
			  uint64_t now)
{
	bool taken = row->state == TB__ADDRESS_STATE__ADDRESS_STATE_TAKEN;
	struct address_story *story;
	char *name;
	struct ip ip;

	if (ip_parse(row->address, &ip) != 0)
		return;
	board_block(b, &ip, now);
	story = story_of(c, &ip);
	if (!taken || story == NULL ||
	    (story->conflict_ms != 0 && now < story->conflict_ms + CONFLICT_EVENT_MS))
		return;
	story->conflict_ms = now;
	name = board_name(c, b->node);
	event_propose(c, "address.conflict", TB__SEVERITY__SEVERITY_WARNING, name,
		      "board %s cannot take service address %s: %s", name, row->address,
		      row->detail);
	free(name);
}

/* --- the leader: what it decides -------------------------------------------------------------- */

struct pool {
	struct core *c;
	Tb__Cluster *cluster;
	struct ip ips[LIMIT_ADDRESSES];
	struct pool_board boards[BOARDS_MAX];
	struct pool_view view;
	address_set now_drained; /* their board is drained at once */
};

static bool row_names(const Tb__ServiceAddress *row, const char *board)
{
	for (size_t i = 0; i < row->n_boards; i++)
		if (strcmp(row->boards[i], board) == 0)
			return true;
	return row->n_boards == 0;
}

static bool report_has_interface(const Tb__PeerAddressReport *report, const char *interface)
{
	for (size_t i = 0; report != NULL && i < report->n_interfaces; i++)
		if (strcmp(report->interfaces[i], interface) == 0)
			return true;
	return false;
}

static bool board_is_able(const struct address_board *b, const Tb__Node *node,
			  const Tb__ServiceAddress *row, const struct ip *ip, uint64_t now)
{
	return b->report != NULL && b->report->problem[0] == '\0' && row_names(row, node->name) &&
	       report_has_interface(b->report, row->interface) && !board_is_blocked(b, ip, now);
}

static int pool_visit(void *arg, const Tb__Node *node)
{
	struct pool *p = arg;
	struct core *c = p->c;
	struct pool_board *board = &p->boards[p->view.board_count];
	struct address_board *b;

	b = board_at(c, node->id);
	if (b == NULL || p->view.board_count == LIMIT_NODES) {
		/* Nothing can be told of it, and so of no address. */
		p->view.gone_end_ms = UINT64_MAX;
		return 1;
	}
	*board = (struct pool_board){
		.node = node->id,
		.known = b->claim.known,
		.live = b->claim.known && lead_reaches(c, node->id, p->view.now_ms) &&
			(node->id == self_id(c) || peer_find(c, node->id) != NULL),
		.drained = node->drain != TB__DRAIN__DRAIN_OFF,
		.end_ms = lease_table_end(&c->leases, node->id) + ADDRESS_MARGIN_MS,
	};
	for (unsigned i = 0; i < p->view.address_count; i++) {
		address_set one = (address_set)1 << i;

		if (board_is_able(b, node, p->cluster->addresses[i], &p->ips[i], p->view.now_ms))
			board->able |= one;
		if (ip_list_has(&b->claim.has, &p->ips[i]))
			board->has |= one;
		if (ip_list_has(&b->claim.ordered, &p->ips[i]))
			board->told |= one;
		if (node->drain == TB__DRAIN__DRAIN_NOW && (board->has & one) != 0)
			p->now_drained |= one;
	}
	p->view.board_count++;
	return 0;
}

/* Boards that are none of the model any more may have what they had until their lease is over: raft
 * follows the model, and the leases follow raft. */
static void pool_add_gone(struct core *c, struct pool *p)
{
	unsigned members = p->view.board_count;

	for (unsigned i = 0; i < BOARDS_MAX; i++) {
		struct address_board *b = &c->addresses->boards[i];
		struct pool_board *board = &p->boards[p->view.board_count];
		bool there = b->node == 0;

		for (unsigned k = 0; k < members; k++)
			there |= p->boards[k].node == b->node;
		if (there || p->view.board_count == BOARDS_MAX)
			continue;
		*board = (struct pool_board){
			.node = b->node,
			.known = b->claim.known,
			.end_ms = lease_table_end(&c->leases, b->node) + ADDRESS_MARGIN_MS,
		};
		for (unsigned k = 0; k < p->view.address_count; k++)
			if (ip_list_has(&b->claim.has, &p->ips[k]))
				board->has |= (address_set)1 << k;
		p->view.board_count++;
		if (p->view.now_ms > board->end_ms + GONE_MS) {
			p->view.board_count--;
			roll_forget(&c->addresses->roll, b->node);
			board_clear(b);
		}
	}
}

static void stories_follow(struct core *c, const struct pool *p)
{
	struct address_story *stories = c->addresses->stories;
	struct address_story next[LIMIT_ADDRESSES] = {0};

	for (unsigned i = 0; i < p->view.address_count; i++) {
		const struct address_story *old = story_of(c, &p->ips[i]);

		next[i] = old != NULL ? *old : (struct address_story){.ip = p->ips[i]};
	}
	memcpy(stories, next, sizeof(next));
}

/* What has to stay as it is for the calm. */
static uint64_t pool_fingerprint(const struct pool *p)
{
	uint64_t print = p->view.address_count;

	for (unsigned i = 0; i < p->view.board_count; i++) {
		const struct pool_board *b = &p->boards[i];

		print = hash_u64(print ^ b->node);
		print = hash_u64(print ^ (b->live + 2u * b->drained));
		print = hash_u64(print ^ b->able);
		print = hash_u64(print ^ b->has);
	}
	return print;
}

static bool pool_begin(struct core *c, struct pool *p)
{
	uint64_t now = clock_boottime_ms();

	*p = (struct pool){.c = c};
	p->view.now_ms = now;
	p->view.boards = p->boards;
	if (store_cluster_get(c->store, &p->cluster) != 0)
		return false;
	for (size_t i = 0; i < p->cluster->n_addresses && i < LIMIT_ADDRESSES; i++)
		if (ip_parse(p->cluster->addresses[i]->address, &p->ips[i]) == 0)
			p->view.address_count++;
	stories_follow(c, p);
	if (store_nodes(c->store, pool_visit, p) != 0) {
		tb__cluster__free_unpacked(p->cluster, NULL);
		return false;
	}
	pool_add_gone(c, p);
	if (p->view.gone_end_ms == 0)
		p->view.gone_end_ms = lease_table_end(&c->leases, 0) + ADDRESS_MARGIN_MS;
	return true;
}

/* Would something move without need? */
static bool plan_is_gentle(const struct pool *p, const struct pool_plan *plan)
{
	for (unsigned i = 0; i < p->view.address_count; i++)
		if (plan->why[i] == POOL_DRAINED || plan->why[i] == POOL_BALANCE)
			return true;
	return false;
}

/* The sessions are looked at only when it matters: there may be many. */
static void pool_plan(struct core *c, struct pool *p, struct pool_plan *ret, uint64_t now)
{
	fleet_addresses(c->fleet, p->ips, p->view.address_count);
	address_pool_plan(&p->view, ret);
	if (!plan_is_gentle(p, ret))
		return;
	p->view.busy = fleet_address_busy(c->fleet, now) & ~p->now_drained;
	address_pool_plan(&p->view, ret);
}

/* Of what is said of the addresses beside their numbers. */
static uint64_t share_print(const struct pool *p, address_set share)
{
	uint64_t print = 0;

	for (unsigned i = 0; i < p->view.address_count; i++) {
		const Tb__ServiceAddress *row = p->cluster->addresses[i];

		if ((share >> i & 1) != 0)
			print = hash_u64(print ^ row->prefix ^ hash_string(row->interface));
	}
	return print;
}

static void order_send(struct core *c, struct address_board *b, const struct pool *p,
		       address_set share)
{
	Tb__PeerAddressOrder order = TB__PEER_ADDRESS_ORDER__INIT;
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	Tb__ServiceAddress *rows[LIMIT_ADDRESSES];
	struct ip_list hold = {.count = 0};
	struct peer *peer = peer_find(c, b->node);

	if (b->node != self_id(c) && peer == NULL)
		return;
	order.term = c->fleet_term;
	order.serial = c->fleet_term << SERIAL_BITS | ++c->addresses->serial;
	order.hold = rows;
	for (unsigned i = 0; i < p->view.address_count; i++) {
		if ((share >> i & 1) == 0)
			continue;
		rows[order.n_hold++] = p->cluster->addresses[i];
		ip_list_add(&hold, &p->ips[i]);
	}
	/* From here on it may have them, whatever becomes of the letter. */
	address_claim_order(&b->claim, order.serial, &hold);
	b->ordered_print = share_print(p, share);
	if (peer == NULL) {
		addresses_order(c, &order);
		return;
	}
	frame.what_case = TB__PEER_FRAME__WHAT_ADDRESS_ORDER;
	frame.address_order = &order;
	peer_send(peer, &frame);
}

static bool share_is(const struct address_board *b, const struct pool *p, address_set share)
{
	unsigned count = 0;

	for (unsigned i = 0; i < p->view.address_count; i++) {
		if ((share >> i & 1) == 0)
			continue;
		count++;
		if (!ip_list_has(&b->claim.ordered, &p->ips[i]))
			return false;
	}
	return count == b->claim.ordered.count && b->ordered_print == share_print(p, share);
}

static void stories_note(struct core *c, const struct pool *p, const struct pool_plan *plan)
{
	for (unsigned i = 0; i < p->view.address_count; i++) {
		struct address_story *story = &c->addresses->stories[i];

		if (plan->why[i] != POOL_STAYS && plan->why[i] != POOL_GIVEN)
			story->why = plan->why[i];
		story->planned = plan->holder[i];
		if (plan->holder[i] != 0)
			story->unheld_ms = 0;
		else if (story->unheld_ms == 0)
			story->unheld_ms = clock_boottime_ms();
	}
}

/* Up to when this board is known to have led: a majority was with it then. Another leader may have
 * been elected since, and keep an address where it is; but a board whose lease was over before that
 * moment has lost what it had, whoever leads now (docs/decisions/0012). */
static uint64_t led_until(const struct core *c, uint64_t now)
{
	uint64_t self = lease_table_self_until(&c->leases, now);

	return self > LEASE_LENGTH_MS && self - LEASE_LENGTH_MS < now ? self - LEASE_LENGTH_MS
								      : now;
}

/* What ended with its lease is not waited for, nor counted, any more. */
static void claims_end(struct core *c, const struct pool *p)
{
	for (unsigned i = 0; i < p->view.board_count; i++) {
		struct address_board *b = board_at(c, p->boards[i].node);

		if (b != NULL && address_pool_over(&p->view, &p->boards[i]))
			address_claim_over(&b->claim);
	}
}

static bool pool_is_calm(struct addresses *a, const struct pool *p, uint64_t now)
{
	uint64_t print = pool_fingerprint(p);

	if (print != a->fingerprint)
		a->changed_ms = now;
	a->fingerprint = print;
	return now - a->changed_ms >= ADDRESS_CALM_MS;
}

static void pool_decide(struct core *c)
{
	uint64_t now = clock_boottime_ms();
	struct pool_plan plan;
	struct pool pool;

	/* What this board says counts while it has the lease only. */
	if (lease_table_self_until(&c->leases, now) <= now || !pool_begin(c, &pool))
		return;
	pool.view.calm = pool_is_calm(c->addresses, &pool, now);
	pool.view.now_ms = led_until(c, now);
	claims_end(c, &pool);
	pool_plan(c, &pool, &plan, now);
	stories_note(c, &pool, &plan);
	for (unsigned i = 0; i < pool.view.board_count; i++) {
		const struct pool_board *board = &pool.boards[i];
		struct address_board *b = board_at(c, board->node);
		address_set share = address_pool_share(&pool.view, &plan, board->node);

		/* A board that has and gets nothing need not hear of it. */
		if (b == NULL || !board->live || address_pool_silent(&pool.view, &plan, board) ||
		    (share == 0 && b->claim.has.count == 0 && b->claim.ordered.count == 0))
			continue;
		if (b->claim.again || b->claim.serial == 0 || !share_is(b, &pool, share))
			order_send(c, b, &pool, share);
	}
	tb__cluster__free_unpacked(pool.cluster, NULL);
}

void addresses_tick(struct core *c)
{
	if (c->fleet != NULL && c->secrets_seen)
		pool_decide(c);
}

static void board_reported(struct core *c, struct address_board *b,
			   const Tb__PeerAddressReport *report, bool first)
{
	uint64_t now = clock_boottime_ms();

	for (size_t i = 0; i < report->n_held; i++) {
		if (report->held[i]->state == TB__ADDRESS_STATE__ADDRESS_STATE_HELD)
			story_held(c, b->node, report->held[i], first);
		else if (report->held[i]->state == TB__ADDRESS_STATE__ADDRESS_STATE_TAKEN ||
			 report->held[i]->state == TB__ADDRESS_STATE__ADDRESS_STATE_NOBODY)
			story_refused(c, b, report->held[i], now);
	}
	if (b->report != NULL)
		tb__peer_address_report__free_unpacked(b->report, NULL);
	b->report = (Tb__PeerAddressReport *)message_copy(&report->base);
}

void addresses_reported(struct core *c, uint64_t node, const Tb__PeerAddressReport *report)
{
	struct address_board *b = board_at(c, node);
	struct ip_list held = {.count = 0};
	bool first;

	if (b == NULL || report->n_held > IP_LIST_MAX || report->n_interfaces > LINKS_MAX)
		return;
	first = !b->claim.known;
	ip_list_add_held(&held, report);
	if (!address_claim_report(&b->claim, report->serial, &held))
		return;
	board_reported(c, b, report, first);
	/* What became free is given on at once; what has no effect there waits for the tick. */
	if (!b->claim.again && c->secrets_seen)
		pool_decide(c);
}

void addresses_greeted(struct core *c, uint64_t node)
{
	struct address_board *b = board_at(c, node);
	struct peer *p = peer_find(c, node);

	if (b == NULL || p == NULL)
		return;
	address_claim_greet(&b->claim);
	for (unsigned i = 0; i < BOARDS_MAX; i++) {
		uint64_t other = c->addresses->boards[i].node;

		if (other != 0 && other != node)
			roll_tell(c, other, p);
	}
}

static int lead_visit(void *arg, const Tb__Node *node)
{
	board_at(arg, node->id);
	return 0;
}

void addresses_lead(struct core *c)
{
	struct addresses *a = c->addresses;
	Tb__PeerAddressReport *own = report_first(c);
	struct pool pool;

	addresses_lead_end(c);
	a->serial = 0;
	a->changed_ms = clock_boottime_ms();
	if (pool_begin(c, &pool))
		tb__cluster__free_unpacked(pool.cluster, NULL);
	/* The roll of a leader before this one is told to who comes. */
	store_nodes(c->store, lead_visit, c);
	addresses_reported(c, self_id(c), own);
	tb__peer_address_report__free_unpacked(own, NULL);
}

void addresses_lead_end(struct core *c)
{
	for (unsigned i = 0; i < BOARDS_MAX; i++)
		board_clear(&c->addresses->boards[i]);
	memset(c->addresses->stories, 0, sizeof(c->addresses->stories));
}

/* --- for people ------------------------------------------------------------------------------- */

/* "board1 has eth0, wlan0; board2 ..." of the boards that an address may be at. */
static void interfaces_tell(struct core *c, const struct pool *p, unsigned at, struct buf *out)
{
	const Tb__ServiceAddress *row = p->cluster->addresses[at];

	for (unsigned i = 0; i < p->view.board_count; i++) {
		const struct address_board *b = board_at(c, p->boards[i].node);
		char *name = board_name(c, p->boards[i].node);

		if (name[0] == '\0' || !row_names(row, name)) {
			free(name);
			continue;
		}
		buf_printf(out, "%s%s ", out->len > 0 ? "; " : "", name);
		if (!p->boards[i].live || b == NULL || b->report == NULL)
			buf_puts(out, "is away");
		else if (b->report->problem[0] != '\0')
			buf_printf(out, "cannot: %s", b->report->problem);
		else if (b->report->n_interfaces == 0)
			buf_puts(out, "has no interface that is up");
		else
			buf_puts(out, "has ");
		for (size_t k = 0; b != NULL && p->boards[i].live && b->report != NULL &&
				   b->report->problem[0] == '\0' && k < b->report->n_interfaces;
		     k++)
			buf_printf(out, "%s%s", k > 0 ? ", " : "", b->report->interfaces[k]);
		free(name);
	}
}

static const Tb__AddressHeld *held_find(const struct address_board *b, const char *address)
{
	for (size_t i = 0; b != NULL && b->report != NULL && i < b->report->n_held; i++)
		if (strcmp(b->report->held[i]->address, address) == 0)
			return b->report->held[i];
	return NULL;
}

/* Who says that it has found it with another machine; NULL nobody. */
static const char *taken_detail(struct core *c, const struct pool *p, unsigned at)
{
	const struct address_story *story = &c->addresses->stories[at];

	for (unsigned i = 0; i < p->view.board_count; i++) {
		const Tb__AddressHeld *held = held_find(board_at(c, p->boards[i].node),
							p->cluster->addresses[at]->address);

		if (held != NULL && held->state == TB__ADDRESS_STATE__ADDRESS_STATE_TAKEN)
			return held->detail;
	}
	return story->conflict_ms != 0 && p->view.now_ms < story->conflict_ms + CONFLICT_EVENT_MS &&
			       story->planned == 0
		       ? "another machine has it"
		       : NULL;
}

static Tb__AddressStatus *status_new(struct core *c, const struct pool *p, unsigned at)
{
	const Tb__ServiceAddress *row = p->cluster->addresses[at];
	const struct address_story *story = &c->addresses->stories[at];
	Tb__AddressStatus *status = mem_alloc(sizeof(*status));
	struct buf reason = {0};
	const char *taken = taken_detail(c, p, at);

	tb__address_status__init(status);
	for (unsigned i = 0; i < p->view.board_count; i++) {
		const Tb__AddressHeld *held =
			held_find(board_at(c, p->boards[i].node), row->address);

		if (held == NULL || !p->boards[i].live)
			continue;
		status->state = held->state;
		status->board = board_name(c, p->boards[i].node);
		if (held->detail[0] != '\0')
			buf_puts(&reason, held->detail);
		break;
	}
	if (status->state == TB__ADDRESS_STATE__ADDRESS_STATE_UNKNOWN && story->planned != 0) {
		status->state = TB__ADDRESS_STATE__ADDRESS_STATE_TAKING;
		status->board = board_name(c, story->planned);
	} else if (taken != NULL && status->state != TB__ADDRESS_STATE__ADDRESS_STATE_HELD) {
		status->state = TB__ADDRESS_STATE__ADDRESS_STATE_TAKEN;
		if (reason.len == 0)
			buf_puts(&reason, taken);
	} else if (status->state == TB__ADDRESS_STATE__ADDRESS_STATE_UNKNOWN &&
		   story->why == POOL_NOBODY) {
		status->state = TB__ADDRESS_STATE__ADDRESS_STATE_NOBODY;
		buf_printf(&reason, "no board can have it at %s: ", row->interface);
		struct buf boards = {0};

		interfaces_tell(c, p, at, &boards);
		buf_puts(&reason, buf_string(&boards));
		buf_free(&boards);
	} else if (status->state == TB__ADDRESS_STATE__ADDRESS_STATE_UNKNOWN) {
		status->state = TB__ADDRESS_STATE__ADDRESS_STATE_WAITING;
		buf_puts(&reason,
			 "a board that is away may still have it, until its lease is over");
	}
	status->reason = mem_strdup(buf_string(&reason));
	buf_free(&reason);
	return status;
}

void addresses_answer(struct core *c, Tb__PeerAnswer *answer, Tb__ClusterStatus *status)
{
	struct pool p;

	if (!pool_begin(c, &p))
		return;
	answer->addresses = mem_array(LIMIT_ADDRESSES, sizeof(answer->addresses[0]));
	for (unsigned i = 0; i < p.view.address_count; i++) {
		Tb__ServiceAddress *row =
			(Tb__ServiceAddress *)message_copy(&p.cluster->addresses[i]->base);

		row->status = status_new(c, &p, i);
		status->addresses++;
		status->addresses_held +=
			row->status->state == TB__ADDRESS_STATE__ADDRESS_STATE_HELD;
		answer->addresses[answer->n_addresses++] = row;
	}
	tb__cluster__free_unpacked(p.cluster, NULL);
}

void addresses_node(struct core *c, uint64_t node, Tb__NodeStatus *status)
{
	const struct address_board *b = board_at(c, node);

	if (b == NULL || b->report == NULL || !b->claim.known)
		return;
	status->addresses = mem_array(b->report->n_held + 1, sizeof(char *));
	for (size_t i = 0; i < b->report->n_held; i++)
		if (b->report->held[i]->state == TB__ADDRESS_STATE__ADDRESS_STATE_HELD)
			status->addresses[status->n_addresses++] = b->report->held[i]->address;
	status->interfaces = b->report->interfaces;
	status->n_interfaces = b->report->n_interfaces;
	status->address_problem = b->report->problem;
}

void addresses_watch(struct core *c,
		     void (*each)(void *arg, const char *address, const char *problem), void *arg)
{
	struct pool p;

	if (!pool_begin(c, &p))
		return;
	for (unsigned i = 0; i < p.view.address_count; i++) {
		const struct address_story *story = &c->addresses->stories[i];
		Tb__AddressStatus *status = status_new(c, &p, i);

		if (status->state == TB__ADDRESS_STATE__ADDRESS_STATE_TAKEN ||
		    (status->state == TB__ADDRESS_STATE__ADDRESS_STATE_NOBODY &&
		     story->unheld_ms != 0 && p.view.now_ms >= story->unheld_ms + UNHELD_MS))
			each(arg, p.cluster->addresses[i]->address, status->reason);
		tb__address_status__free_unpacked(status, NULL);
	}
	tb__cluster__free_unpacked(p.cluster, NULL);
}

/* --- begin and end ---------------------------------------------------------------------------- */

struct addresses *addresses_new(void)
{
	return mem_zalloc(sizeof(struct addresses));
}

static void session_free(struct hash_node *at, void *arg)
{
	struct own_session *s = list_entry(at, struct own_session, by_id);

	hash_remove(arg, &s->by_id);
	free(s);
}

void addresses_free(struct addresses *a)
{
	if (a == NULL)
		return;
	for (unsigned i = 0; i < BOARDS_MAX; i++)
		board_clear(&a->boards[i]);
	if (a->report != NULL)
		tb__peer_address_report__free_unpacked(a->report, NULL);
	if (a->news != NULL)
		tb__peer_roll__free_unpacked(a->news, NULL);
	hash_each(&a->sessions, session_free, &a->sessions);
	hash_free(&a->sessions);
	roll_free(&a->roll);
	free(a);
}
