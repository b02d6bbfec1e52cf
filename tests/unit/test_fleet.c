/* The leader's soft state, by transcripts in data/fleet/: a line of input (an event at a door, a
 * commit, time), then the orders and commands that it causes, each behind "> ". To see or renew
 * what is expected: FLEET_REWRITE=1 test_fleet, then look at the difference.
 *
 *   site alg=lms tie=3 kap=off handover=fast tls=required hb=1000-8000   the model has it now
 *   delete / auto           the model loses it / unknown sites are created
 *   new                     another leader is elected
 *   at MS                   time goes on
 *   hold MS MS              no vote before, no lease before
 *   D lost MS / D reset     the link to door D is lost, its lease ends at MS / it is back
 *   D.S open node=1 hb=8000 alg=ffsplit tie=lowest ring=1.5 kap=on tls=on cert=on
 *   D.S report node=1 ring=1.8 config=1,2 members=1,2 result=ack@1.8 vote=.. confirmed
 *   D.S config 1 2 / reconfig 1 2 / member 1.8 1 2 pass / quorum / heur fail / ask
 *   D.S option kap=off hb=2000 / closed client|silent|door AGE / reply [TICKETS BACK]
 *   D drain [now] MAX       the board is drained, MAX sessions at a time
 *   commit / fail           the oldest command under way
 *   foreign EPOCH RING NODES [lease]   a grant of an earlier leader is applied
 *   D.S rtt MS              the door has measured a round trip near the heartbeat
 *   watch                   what the alarms are made of
 *   status                  what a person is told
 * Agents: site lease=preferred node=2 (any, generation, manual);
 *   D.S agent node=1 [report] claim=5 want=1 gen=3 seen=2 all=1,2 held=EPOCH inst=7 try=2
 * lease=4000 [ring=1.3 result=ack@1.3 confirmed]    an open, or with "report" a report D.S claim N
 * want=1 gen=3 seen=2 held=EPOCH D reset agents
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/arbiter.h"
#include "cluster/fleet.h"
#include "lib/buf.h"
#include "lib/mem.h"
#include "lib/rng.h"

/* The top bit of a session of an agent. */
#define AGENT (UINT64_C(1) << 63)

enum { MAX_SESSIONS = 256, MAX_WORDS = 24, LEASE = 3300 };

struct stage {
	struct fleet *fleet;
	uint64_t term;
	uint64_t now;
	Tb__Site *site; /* NULL: the model has none */
	uint64_t site_ids;
	Tb__Grant *grant;
	bool auto_register;
	struct {
		uint64_t door;
		uint64_t id;
		uint64_t ticket;
	} tickets[MAX_SESSIONS]; /* newest of each session */
	unsigned ticket_count;
	Tb__Command *commands[8]; /* under way */
	unsigned command_count;
	struct buf out;
};

static const char *const algorithms[] = {"any", "ffsplit", "lms", "2nodelms", NULL};
static const char *const lease_policies[] = {"any", "preferred", "generation", "manual", NULL};
static const char *const tie_breakers[] = {"any", "lowest", "highest", NULL};
static const char *const switches[] = {"any", "on", "off", NULL};
static const char *const votes[] = {"none", "ack", "nack", "later", "wait", "nochange", NULL};
static const char *const heuristics[] = {"undefined", "pass", "fail", NULL};
static const char *const kinds[] = {"config", "reconfig", "member", "quorum", NULL};
static const char *const reasons[] = {"client", "silent", "door", NULL};
static const char *const states[] = {"unknown",	 "offline", "whole",
				     "degraded", "split",   "undecided"};

/* The place of a word in a list, -1: not there. */
static int word_place(const char *const *list, const char *word)
{
	for (int i = 0; list[i] != NULL; i++) {
		if (strcmp(list[i], word) == 0)
			return i;
	}
	return -1;
}

static unsigned word_must(const char *const *list, const char *word)
{
	int place = word_place(list, word);

	if (place < 0)
		fail_msg("word '%s' not understood", word);
	return (unsigned)place;
}

/* The value of key=value among the words, NULL: not there. */
static const char *option(char **words, const char *key)
{
	size_t len = strlen(key);

	for (; *words != NULL; words++) {
		if (strncmp(*words, key, len) == 0 && (*words)[len] == '=')
			return *words + len + 1;
	}
	return NULL;
}

static void ring_parse(const char *text, Tb__RingId *ring)
{
	unsigned node = 0;
	unsigned long long seq = 0;

	assert_int_equal(sscanf(text, "%u.%llu", &node, &seq), 2);
	ring->node = node;
	ring->seq = seq;
}

static size_t ids_parse(const char *text, uint32_t *ids)
{
	char copy[512];
	size_t count = 0;
	char *save = NULL;

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *at = strtok_r(copy, ",", &save); at != NULL; at = strtok_r(NULL, ",", &save))
		ids[count++] = (uint32_t)strtoul(at, NULL, 10);
	return count;
}

/* --- the model --- */

static int model_site(void *arg, const char *name, Tb__Site **ret_site, Tb__Grant **ret_grant)
{
	struct stage *st = arg;
	uint8_t packed[4096];
	size_t size;

	if (st->site == NULL || strcmp(st->site->name, name) != 0)
		return -2;
	size = tb__site__pack(st->site, packed);
	*ret_site = tb__site__unpack(NULL, size, packed);
	*ret_grant = NULL;
	if (st->grant != NULL) {
		size = tb__grant__pack(st->grant, packed);
		*ret_grant = tb__grant__unpack(NULL, size, packed);
	}
	return 0;
}

static bool model_auto(void *arg)
{
	return ((struct stage *)arg)->auto_register;
}

static void stage_lead(struct stage *st)
{
	struct fleet_model model = {st, model_site, model_auto};

	fleet_free(st->fleet);
	for (unsigned i = 0; i < st->command_count; i++)
		tb__command__free_unpacked(st->commands[i], NULL);
	st->command_count = 0;
	st->fleet = fleet_new(&model, ++st->term, LEASE, st->now);
}

static void stage_delete_site(struct stage *st)
{
	tb__site__free_unpacked(st->site, NULL);
	tb__grant__free_unpacked(st->grant, NULL);
	st->site = NULL;
	st->grant = NULL;
}

static void stage_make_site(struct stage *st, char **words)
{
	const char *text;

	if (st->site == NULL) {
		st->site = mem_alloc(sizeof(*st->site));
		tb__site__init(st->site);
		st->site->name = mem_strdup("a");
		st->site->id = ++st->site_ids;
		st->site->policy = mem_alloc(sizeof(*st->site->policy));
	}
	tb__site_policy__init(st->site->policy);
	if ((text = option(words, "alg")) != NULL)
		st->site->policy->algorithm = word_must(algorithms, text);
	if ((text = option(words, "tie")) != NULL) {
		int place = word_place(tie_breakers, text);

		st->site->policy->tie_breaker =
			place < 0 ? TB__TIE_BREAKER__TIE_BREAKER_NODE : (unsigned)place;
		if (place < 0)
			st->site->policy->tie_breaker_node = (uint32_t)strtoul(text, NULL, 10);
	}
	if ((text = option(words, "lease")) != NULL)
		st->site->policy->lease = word_must(lease_policies, text);
	if ((text = option(words, "node")) != NULL)
		st->site->policy->lease_node = (uint32_t)strtoul(text, NULL, 10);
	if ((text = option(words, "kap")) != NULL)
		st->site->policy->keep_active_partition = word_must(switches, text);
	if ((text = option(words, "handover")) != NULL)
		st->site->policy->handover = TB__HANDOVER__HANDOVER_FAST;
	if ((text = option(words, "tls")) != NULL)
		st->site->policy->tls = TB__TLS__TLS_REQUIRED;
	if ((text = option(words, "hb")) != NULL)
		sscanf(text, "%u-%u", &st->site->policy->heartbeat_min_ms,
		       &st->site->policy->heartbeat_max_ms);
	if (st->fleet != NULL)
		fleet_site_changed(st->fleet, "a", st->now);
}

/* --- what comes out --- */

static void show_ids(struct buf *out, const uint32_t *ids, size_t count)
{
	for (size_t i = 0; i < count; i++)
		buf_printf(out, "%s%u", i ? "," : "", ids[i]);
}

static void stage_ticket(struct stage *st, uint64_t door, uint64_t id, uint64_t ticket)
{
	unsigned i = 0;

	while (i < st->ticket_count && (st->tickets[i].door != door || st->tickets[i].id != id))
		i++;
	assert_true(i < MAX_SESSIONS);
	if (i == st->ticket_count)
		st->ticket_count++;
	st->tickets[i].door = door;
	st->tickets[i].id = id;
	st->tickets[i].ticket = ticket;
}

static void show_order(struct stage *st, uint64_t door, const Tb__DoorOrder *o)
{
	struct buf *out = &st->out;

	buf_printf(out, "> %llu.%llu ", (unsigned long long)door,
		   (unsigned long long)(o->session & ~AGENT));
	switch (o->what_case) {
	case TB__DOOR_ORDER__WHAT_INIT_REPLY:
		buf_printf(out, "init %u %s", o->init_reply->error, o->init_reply->why);
		break;
	case TB__DOOR_ORDER__WHAT_LIST_REPLY:
		buf_printf(out, "%s %s %u.%llu", kinds[o->list_reply->kind],
			   votes[o->list_reply->vote], o->list_reply->ring->node,
			   (unsigned long long)o->list_reply->ring->seq);
		break;
	case TB__DOOR_ORDER__WHAT_ASK_REPLY:
		buf_printf(out, "ask %s", votes[o->ask_reply->vote]);
		break;
	case TB__DOOR_ORDER__WHAT_HEURISTICS_REPLY:
		buf_printf(out, "heur %s %s", votes[o->heuristics_reply->vote],
			   heuristics[o->heuristics_reply->heuristics]);
		break;
	case TB__DOOR_ORDER__WHAT_VOTE:
		buf_printf(out, "vote %s %u.%llu", votes[o->vote->vote], o->vote->ring->node,
			   (unsigned long long)o->vote->ring->seq);
		if (o->session >> 63 != 0)
			buf_printf(out, " claim %llu epoch %llu: %s",
				   (unsigned long long)o->vote->claim,
				   (unsigned long long)o->vote->epoch, o->vote->why);
		stage_ticket(st, door, o->session, o->vote->ticket);
		break;
	case TB__DOOR_ORDER__WHAT_NOTED:
		buf_printf(out, "noted %llu", (unsigned long long)o->noted->generation);
		break;
	case TB__DOOR_ORDER__WHAT_REFUSE:
		buf_printf(out, "refuse %u", o->refuse->error);
		break;
	case TB__DOOR_ORDER__WHAT_CLOSE:
		buf_printf(out, "close %s", o->close->why);
		break;
	default:
		fail_msg("an order without content");
	}
	while (out->len > 0 && out->data[out->len - 1] == ' ')
		out->len--;
	buf_putc(out, '\n');
}

static void show_command(struct stage *st, const Tb__Command *c)
{
	struct buf *out = &st->out;
	const Tb__Grant *g;

	if (c->op_case == TB__COMMAND__OP_SITE_PUT) {
		buf_printf(out, "> put %s\n", c->site_put->sites[0]->name);
		return;
	}
	if (c->op_case == TB__COMMAND__OP_LEASE_NOTE) {
		buf_printf(out, "> note epoch %llu generation %llu\n",
			   (unsigned long long)c->lease_note->epoch,
			   (unsigned long long)c->lease_note->generation);
		return;
	}
	if (c->op_case == TB__COMMAND__OP_EVENT_ADD) {
		buf_printf(out, "> event %s: %s\n", c->event_add->event->type,
			   c->event_add->event->message);
		return;
	}
	assert_int_equal(c->op_case, TB__COMMAND__OP_GRANT_SET);
	g = c->grant_set->grant;
	assert_int_equal(g->epoch, c->grant_set->after_epoch + 1);
	buf_printf(out, "> grant %llu ring %u.%llu nodes ", (unsigned long long)g->epoch,
		   g->ring->node, (unsigned long long)g->ring->seq);
	show_ids(out, g->nodes, g->n_nodes);
	if (g->lease)
		buf_printf(out, " generation %llu", (unsigned long long)g->generation);
	buf_printf(out, " handover %u: %s\n", g->handover_ms, g->reason);
}

static void stage_collect(struct stage *st)
{
	Tb__DoorOrder *order;
	Tb__Command *command;
	uint64_t door;

	while ((order = fleet_next_order(st->fleet, &door)) != NULL) {
		show_order(st, door, order);
		tb__door_order__free_unpacked(order, NULL);
	}
	while ((command = fleet_next_command(st->fleet)) != NULL) {
		show_command(st, command);
		if (command->op_case == TB__COMMAND__OP_EVENT_ADD) {
			tb__command__free_unpacked(command, NULL);
			continue;
		}
		assert_true(st->command_count < 8);
		st->commands[st->command_count++] = command;
	}
}

static void stage_status(struct stage *st)
{
	Tb__SiteStatus *status = fleet_site_status(st->fleet, "a", st->grant);

	buf_printf(&st->out, "> %s: %s\n", states[status->state], status->reason);
	if (status->lease != NULL)
		buf_printf(&st->out, "> lease: holder %u epoch %llu left %u\n",
			   status->lease->holder, (unsigned long long)status->lease->epoch,
			   status->lease->left_ms);
	tb__site_status__free_unpacked(status, NULL);
}

static void stage_watch(struct stage *st)
{
	struct fleet_watch w;

	if (!fleet_site_watch(st->fleet, "a", &w, st->now)) {
		buf_puts(&st->out, "> nobody\n");
		return;
	}
	buf_printf(&st->out, "> of %u%s, missing for %llu:", w.configured,
		   w.agents ? " agents" : "", (unsigned long long)w.missing_ms);
	for (unsigned i = 0; i < w.count; i++)
		buf_printf(&st->out, " %u at %llu rtt %u", w.nodes[i].node_id,
			   (unsigned long long)w.nodes[i].board, w.nodes[i].rtt_ms);
	buf_putc(&st->out, '\n');
}

/* The addresses of the pool by which a site is attached that needs the vote, "all" before a leader
 * knows. */
static void stage_busy(struct stage *st)
{
	uint64_t busy = fleet_address_busy(st->fleet, st->now);

	if (busy == UINT64_MAX)
		buf_puts(&st->out, "> busy all\n");
	else
		buf_printf(&st->out, "> busy %llx\n", (unsigned long long)busy);
}

static void stage_pool(struct stage *st, char **words)
{
	struct ip pool[8];
	unsigned count = 0;

	for (; words[count] != NULL && count < 8; count++)
		assert_int_equal(ip_parse(words[count], &pool[count]), 0);
	fleet_addresses(st->fleet, pool, count);
}

/* --- what goes in --- */

static void stage_commit(struct stage *st, bool good)
{
	Tb__Command *c;

	assert_true(st->command_count > 0);
	c = st->commands[0];
	memmove(st->commands, st->commands + 1, --st->command_count * sizeof(c));
	if (!good) {
		fleet_command_failed(st->fleet, c, st->now);
	} else if (c->op_case == TB__COMMAND__OP_SITE_PUT) {
		char *none[] = {NULL};

		stage_make_site(st, none);
	} else if (c->op_case == TB__COMMAND__OP_LEASE_NOTE) {
		st->grant->generation = c->lease_note->generation;
		fleet_grant_applied(st->fleet, st->grant, st->now);
	} else {
		tb__grant__free_unpacked(st->grant, NULL);
		st->grant = c->grant_set->grant;
		c->grant_set->grant = NULL;
		fleet_grant_applied(st->fleet, st->grant, st->now);
	}
	tb__command__free_unpacked(c, NULL);
}

static void stage_foreign(struct stage *st, char **words)
{
	Tb__Grant *g = mem_alloc(sizeof(*g));

	tb__grant__init(g);
	g->site_id = st->site->id;
	g->epoch = strtoul(words[1], NULL, 10);
	g->ring = mem_alloc(sizeof(*g->ring));
	tb__ring_id__init(g->ring);
	ring_parse(words[2], g->ring);
	g->nodes = mem_array(64, sizeof(*g->nodes));
	g->n_nodes = ids_parse(words[3], g->nodes);
	g->lease = words[4] != NULL;
	g->handover_ms = arbiter_own_timeout_ms(8000, TB__HANDOVER__HANDOVER_SAFE);
	tb__grant__free_unpacked(st->grant, NULL);
	st->grant = g;
	fleet_grant_applied(st->fleet, g, st->now);
}

struct event {
	Tb__DoorEvent event;
	Tb__DoorReset reset;
	Tb__DoorOpen open;
	Tb__DoorReport report;
	Tb__DoorClosed closed;
	Tb__DoorList list;
	Tb__DoorHeuristics heuristics;
	Tb__DoorOption option;
	Tb__DoorAsk ask;
	Tb__DoorVoteReply reply;
	Tb__DoorRtt rtt;
	Tb__DoorClaim claim;
	Tb__SiteNode node;
	char local[64];
	Tb__RingId ring;
	Tb__RingId vote_ring;
	uint32_t ids[64];
	uint32_t more_ids[64];
};

static void event_node(struct event *e, char **words)
{
	const char *text;
	Tb__SiteNode *n = &e->node;

	tb__site_node__init(n);
	tb__ring_id__init(&e->ring);
	n->ring = &e->ring;
	n->address = (char *)"10.0.0.1:1";
	n->node_id = (uint32_t)strtoul(option(words, "node"), NULL, 10);
	text = option(words, "hb");
	n->heartbeat_ms = text ? (uint32_t)strtoul(text, NULL, 10) : 8000;
	text = option(words, "alg");
	n->algorithm = text ? word_must(algorithms, text) : TB__ALGORITHM__ALGORITHM_FFSPLIT;
	n->tie_breaker = TB__TIE_BREAKER__TIE_BREAKER_LOWEST;
	if ((text = option(words, "tie")) != NULL) {
		int place = word_place(tie_breakers, text);

		n->tie_breaker = place < 0 ? TB__TIE_BREAKER__TIE_BREAKER_NODE : (unsigned)place;
		if (place < 0)
			n->tie_breaker_node = (uint32_t)strtoul(text, NULL, 10);
	}
	if ((text = option(words, "ring")) != NULL)
		ring_parse(text, &e->ring);
	n->keep_active_partition = option(words, "kap") != NULL;
	n->tls = option(words, "tls") != NULL;
	n->certificate = option(words, "cert") != NULL;
	/* The service address that it came to. */
	if ((text = option(words, "to")) != NULL) {
		snprintf(e->local, sizeof(e->local), "%s:5403", text);
		n->local = e->local;
	}
	if ((text = option(words, "attached")) != NULL)
		n->attached_ms = (int64_t)strtoul(text, NULL, 10);
}

static void event_report(struct event *e, char **words)
{
	const char *text;

	event_node(e, words);
	tb__door_report__init(&e->report);
	e->report.site = (char *)"a";
	e->report.node = &e->node;
	e->event.what_case = TB__DOOR_EVENT__WHAT_REPORT;
	e->event.report = &e->report;
	if ((text = option(words, "config")) != NULL) {
		e->report.has_config = true;
		e->node.configured = e->ids;
		e->node.n_configured = ids_parse(text, e->ids);
	}
	if ((text = option(words, "members")) != NULL) {
		e->report.has_membership = true;
		e->node.members = e->more_ids;
		e->node.n_members = ids_parse(text, e->more_ids);
	}
	if ((text = option(words, "result")) != NULL) {
		char vote[16];

		assert_int_equal(sscanf(text, "%15[a-z]", vote), 1);
		e->node.last_result = word_must(votes, vote);
		e->node.vote = e->node.last_result;
		tb__ring_id__init(&e->vote_ring);
		ring_parse(strchr(text, '@') + 1, &e->vote_ring);
		e->report.vote_ring = &e->vote_ring;
	}
	if ((text = option(words, "vote")) != NULL)
		e->node.vote = word_must(votes, text);
	for (; *words != NULL; words++)
		e->report.confirmed |= strcmp(*words, "confirmed") == 0;
}

static uint64_t option_number(char **words, const char *key, uint64_t otherwise)
{
	const char *text = option(words, key);

	return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void event_agent(struct event *e, char **words)
{
	Tb__SiteNode *n = &e->node;
	const char *text;
	bool report = false;

	for (char **word = words; *word != NULL; word++)
		report |= strcmp(*word, "report") == 0;
	event_report(e, words);
	n->algorithm = TB__ALGORITHM__ALGORITHM_LEASE;
	n->tie_breaker = TB__TIE_BREAKER__TIE_BREAKER_ANY;
	n->name = (char *)"host";
	n->lease_ms = (uint32_t)option_number(words, "lease", 4000);
	n->wanted = option_number(words, "want", 1) != 0;
	n->generation = option_number(words, "gen", 0);
	n->held_epoch = option_number(words, "held", 0);
	n->instance = option_number(words, "inst", n->node_id);
	n->attempt = option_number(words, "try", 1);
	n->claim = option_number(words, "claim", 1);
	text = option(words, "all");
	n->configured = e->ids;
	n->n_configured = ids_parse(text != NULL ? text : "1,2", e->ids);
	if ((text = option(words, "seen")) != NULL) {
		n->seen = e->more_ids;
		n->n_seen = ids_parse(text, e->more_ids);
	}
	if (report)
		return;
	tb__door_open__init(&e->open);
	e->open.site = (char *)"a";
	e->open.node = n;
	e->event.what_case = TB__DOOR_EVENT__WHAT_OPEN;
	e->event.open = &e->open;
}

static void event_claim(struct event *e, char **words)
{
	const char *text = option(words, "seen");

	tb__door_claim__init(&e->claim);
	e->event.what_case = TB__DOOR_EVENT__WHAT_CLAIM;
	e->event.claim = &e->claim;
	e->claim.number = strtoull(words[1], NULL, 10);
	e->claim.wanted = option_number(words, "want", 1) != 0;
	e->claim.generation = option_number(words, "gen", 0);
	e->claim.held_epoch = option_number(words, "held", 0);
	if (text != NULL) {
		e->claim.seen = e->ids;
		e->claim.n_seen = ids_parse(text, e->ids);
	}
}

/* member 1.8 1 2 pass */
static void event_list(struct event *e, unsigned kind, char **words)
{
	tb__door_list__init(&e->list);
	e->event.what_case = TB__DOOR_EVENT__WHAT_LIST;
	e->event.list = &e->list;
	e->list.kind = kind;
	e->list.nodes = e->ids;
	words++;
	if (kind == TB__DOOR_LIST__KIND__MEMBERSHIP) {
		tb__ring_id__init(&e->ring);
		e->list.ring = &e->ring;
		ring_parse(*words++, &e->ring);
	}
	for (; *words != NULL; words++) {
		int result = word_place(heuristics, *words);

		if (result >= 0)
			e->list.heuristics = (unsigned)result;
		else
			e->ids[e->list.n_nodes++] = (uint32_t)strtoul(*words, NULL, 10);
	}
}

static void event_reply(struct stage *st, struct event *e, uint64_t door, char **words)
{
	tb__door_vote_reply__init(&e->reply);
	e->event.what_case = TB__DOOR_EVENT__WHAT_VOTE_REPLY;
	e->event.vote_reply = &e->reply;
	for (unsigned i = 0; i < st->ticket_count; i++) {
		if (st->tickets[i].door == door && st->tickets[i].id == e->event.session)
			e->reply.ticket = st->tickets[i].ticket;
	}
	if (words[1] != NULL)
		e->reply.ticket -= strtoul(words[1], NULL, 10);
}

static void stage_session(struct stage *st, uint64_t door, uint64_t session, char **words)
{
	struct event e = {0};
	int kind = word_place(kinds, words[0]);
	const char *text;

	tb__door_event__init(&e.event);
	/* Sessions from 101 on are of agents. */
	e.event.session = session > 100 ? session | AGENT : session;
	if (kind >= 0) {
		event_list(&e, (unsigned)kind, words);
	} else if (strcmp(words[0], "agent") == 0) {
		event_agent(&e, words);
	} else if (strcmp(words[0], "claim") == 0) {
		event_claim(&e, words);
	} else if (strcmp(words[0], "open") == 0) {
		event_node(&e, words);
		tb__door_open__init(&e.open);
		e.open.site = (char *)"a";
		e.open.node = &e.node;
		e.event.what_case = TB__DOOR_EVENT__WHAT_OPEN;
		e.event.open = &e.open;
	} else if (strcmp(words[0], "report") == 0) {
		event_report(&e, words);
	} else if (strcmp(words[0], "heur") == 0) {
		tb__door_heuristics__init(&e.heuristics);
		e.heuristics.heuristics = word_must(heuristics, words[1]);
		e.event.what_case = TB__DOOR_EVENT__WHAT_HEURISTICS;
		e.event.heuristics = &e.heuristics;
	} else if (strcmp(words[0], "option") == 0) {
		tb__door_option__init(&e.option);
		text = option(words, "kap");
		e.option.keep_active_partition = text != NULL && strcmp(text, "on") == 0;
		text = option(words, "hb");
		e.option.heartbeat_ms = text ? (uint32_t)strtoul(text, NULL, 10) : 8000;
		e.event.what_case = TB__DOOR_EVENT__WHAT_OPTION;
		e.event.option = &e.option;
	} else if (strcmp(words[0], "rtt") == 0) {
		tb__door_rtt__init(&e.rtt);
		e.rtt.rtt_ms = (uint32_t)strtoul(words[1], NULL, 10);
		e.event.what_case = TB__DOOR_EVENT__WHAT_RTT;
		e.event.rtt = &e.rtt;
	} else if (strcmp(words[0], "ask") == 0) {
		tb__door_ask__init(&e.ask);
		e.event.what_case = TB__DOOR_EVENT__WHAT_ASK;
		e.event.ask = &e.ask;
	} else if (strcmp(words[0], "reply") == 0) {
		event_reply(st, &e, door, words);
	} else if (strcmp(words[0], "closed") == 0) {
		tb__door_closed__init(&e.closed);
		e.closed.reason = word_must(reasons, words[1]);
		if (words[2] != NULL)
			e.closed.heard_age_ms = (uint32_t)strtoul(words[2], NULL, 10);
		e.event.what_case = TB__DOOR_EVENT__WHAT_CLOSED;
		e.event.closed = &e.closed;
	} else {
		fail_msg("'%s' not understood", words[0]);
	}
	fleet_door_event(st->fleet, door, &e.event, st->now);
}

static void stage_door(struct stage *st, uint64_t door, char **words)
{
	struct event e = {0};

	if (strcmp(words[0], "lost") == 0) {
		fleet_door_lost(st->fleet, door, strtoul(words[1], NULL, 10), st->now);
		return;
	}
	if (strcmp(words[0], "drain") == 0) {
		bool now = strcmp(words[1], "now") == 0;

		fleet_drain(st->fleet, door, now, (unsigned)strtoul(words[now ? 2 : 1], NULL, 10),
			    st->now);
		return;
	}
	assert_string_equal(words[0], "reset");
	tb__door_event__init(&e.event);
	tb__door_reset__init(&e.reset);
	e.event.what_case = TB__DOOR_EVENT__WHAT_RESET;
	e.event.session = words[1] != NULL ? AGENT : 0;
	e.event.reset = &e.reset;
	fleet_door_event(st->fleet, door, &e.event, st->now);
}

static void stage_line(struct stage *st, char **words)
{
	unsigned long long door;
	unsigned long long session;

	if (strcmp(words[0], "site") == 0) {
		stage_make_site(st, words);
	} else if (strcmp(words[0], "delete") == 0) {
		stage_delete_site(st);
		fleet_site_changed(st->fleet, "a", st->now);
	} else if (strcmp(words[0], "auto") == 0) {
		st->auto_register = true;
	} else if (strcmp(words[0], "new") == 0) {
		stage_lead(st);
	} else if (strcmp(words[0], "hold") == 0) {
		fleet_hold(st->fleet, strtoul(words[1], NULL, 10), strtoul(words[2], NULL, 10));
	} else if (strcmp(words[0], "at") == 0) {
		uint64_t until = strtoul(words[1], NULL, 10);
		uint64_t due;

		/* As the daemon: at each time that was asked for. */
		while ((due = fleet_tick(st->fleet, st->now)) <= until) {
			assert_true(due > st->now);
			st->now = due;
		}
		st->now = until;
	} else if (strcmp(words[0], "commit") == 0 || strcmp(words[0], "fail") == 0) {
		stage_commit(st, words[0][0] == 'c');
	} else if (strcmp(words[0], "foreign") == 0) {
		stage_foreign(st, words);
	} else if (strcmp(words[0], "watch") == 0) {
		stage_watch(st);
	} else if (strcmp(words[0], "status") == 0) {
		stage_status(st);
	} else if (strcmp(words[0], "busy") == 0) {
		stage_busy(st);
	} else if (strcmp(words[0], "pool") == 0) {
		stage_pool(st, words + 1);
	} else if (sscanf(words[0], "%llu.%llu", &door, &session) == 2) {
		stage_session(st, door, session, words + 1);
	} else {
		stage_door(st, strtoul(words[0], NULL, 10), words + 1);
	}
	stage_collect(st);
}

static void stage_play(struct stage *st, const char *line)
{
	char copy[512];
	char *words[MAX_WORDS + 1] = {NULL};
	unsigned count = 0;
	char *save = NULL;

	snprintf(copy, sizeof(copy), "%s", line);
	for (char *at = strtok_r(copy, " ", &save); at != NULL && count < MAX_WORDS;
	     at = strtok_r(NULL, " ", &save))
		words[count++] = at;
	if (count > 0 && words[0][0] != '#')
		stage_line(st, words);
}

static void stage_open(struct stage *st)
{
	*st = (struct stage){.now = 100000};
	stage_lead(st);
	/* Long elected, unless a transcript says "new". */
	st->now += 100000;
	fleet_tick(st->fleet, st->now);
}

static void stage_close(struct stage *st)
{
	Tb__ClusterStatus counts = TB__CLUSTER_STATUS__INIT;

	fleet_counts(st->fleet, &counts);
	assert_true(counts.sites <= 1);
	for (unsigned i = 0; i < st->command_count; i++)
		tb__command__free_unpacked(st->commands[i], NULL);
	fleet_free(st->fleet);
	stage_delete_site(st);
	buf_free(&st->out);
}

static void transcript_run(const char *path)
{
	struct stage st;
	struct buf want = {0};
	char line[512];
	FILE *file = fopen(path, "r");

	assert_non_null(file);
	stage_open(&st);
	while (fgets(line, sizeof(line), file) != NULL) {
		buf_puts(&want, line);
		if (line[0] == '>')
			continue;
		buf_puts(&st.out, line);
		line[strcspn(line, "\n")] = '\0';
		stage_play(&st, line);
	}
	fclose(file);
	if (getenv("FLEET_REWRITE") != NULL) {
		file = fopen(path, "w");
		assert_non_null(file);
		fputs(buf_string(&st.out), file);
		fclose(file);
	} else if (strcmp(buf_string(&want), buf_string(&st.out)) != 0) {
		fail_msg("%s: what happened:\n%s", path, buf_string(&st.out));
	}
	buf_free(&want);
	stage_close(&st);
}

/* --- every order of every message --- */

enum { CHAOS_NODES = 3, CHAOS_DOORS = 2, CHAOS_RINGS = 64, CHAOS_STEPS = 80, CHAOS_RUNS = 4000 };

/* What a client would hold, kept from what is said to it and by it. */
struct holder {
	unsigned node;
	unsigned door;
	unsigned session; /* 0: the connection is gone */
	bool open;
	bool spoke; /* sent a list on this connection */
	unsigned heartbeat;
	unsigned ring; /* place in rings; 0: none yet */
	bool has_config;
	unsigned result; /* 1 ACK, 2 NACK, last said */
	unsigned result_ring;
	bool confirmed;
	bool holds;
	unsigned held_ring;
	uint64_t until; /* connection gone: it may go on until then */
};

struct chaos {
	struct stage st;
	struct prng random;
	unsigned sessions;
	struct holder holders[256];
	unsigned holder_count;
	unsigned rings[CHAOS_RINGS]; /* sets of members */
	unsigned ring_count;
	size_t seen; /* of st.out */
};

static void ids_text(unsigned set, char separator, char *text)
{
	*text = '\0';
	for (unsigned i = 1; i <= CHAOS_NODES; i++) {
		if (set >> i & 1)
			sprintf(text + strlen(text), "%s%u", *text ? (char[]){separator, '\0'} : "",
				i);
	}
}

static unsigned lowest(unsigned set)
{
	unsigned i = 0;

	while ((set >> i & 1) == 0)
		i++;
	return i;
}

static void chaos_fail(struct chaos *c, const char *what)
{
	fprintf(stderr, "%s\n", buf_string(&c->st.out));
	fail_msg("%s", what);
}

/* An ACK went out: nobody outside the ring may still hold one for another. */
static void chaos_check(struct chaos *c, const struct holder *h)
{
	unsigned members = c->rings[h->held_ring];

	if (c->st.grant == NULL || c->st.grant->ring->seq != h->held_ring ||
	    c->st.grant->ring->node != lowest(members))
		chaos_fail(c, "an ACK for a ring that is not the committed one");
	for (unsigned i = 0; i < c->holder_count; i++) {
		const struct holder *o = &c->holders[i];

		if (!o->holds || o->held_ring == h->held_ring || (members >> o->node & 1) ||
		    (o->session == 0 && o->until <= c->st.now))
			continue;
		chaos_fail(c, "an ACK while a node outside of the ring holds one for another");
	}
}

static struct holder *chaos_session(struct chaos *c, unsigned door, unsigned session)
{
	for (unsigned i = 0; i < c->holder_count; i++) {
		if (c->holders[i].session == session && c->holders[i].door == door)
			return &c->holders[i];
	}
	return NULL;
}

static void chaos_gone(struct chaos *c, struct holder *h, uint64_t until)
{
	(void)c;
	h->session = 0;
	h->until = until;
	h->holds = h->holds && until > c->st.now;
}

static void chaos_order(struct chaos *c, const char *line)
{
	unsigned door;
	unsigned session;
	unsigned code;
	unsigned node;
	unsigned long long ring;
	char vote[8];
	struct holder *h;

	if (sscanf(line, "> %u.%u", &door, &session) != 2)
		return;
	h = chaos_session(c, door, session);
	if (h == NULL)
		return;
	if (sscanf(line, "> %*u.%*u init %u", &code) == 1) {
		h->open = code == 0;
		if (code != 0)
			chaos_gone(c, h, 0);
	} else if (sscanf(line, "> %*u.%*u vote %7s %u.%llu", vote, &node, &ring) == 3) {
		h->result = vote[0] == 'a' ? 1 : 2;
		h->result_ring = (unsigned)ring;
		h->confirmed = false;
		assert_true(h->open && h->ring == h->result_ring);
		if (h->result != 1)
			return;
		h->holds = true;
		h->held_ring = h->ring;
		chaos_check(c, h);
	} else if (sscanf(line, "> %*u.%*u %5s", vote) == 1 && strcmp(vote, "close") == 0) {
		chaos_gone(c, h, c->st.now + 2 * h->heartbeat);
	}
}

static void chaos_play(struct chaos *c, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void chaos_play(struct chaos *c, const char *format, ...)
{
	char line[256];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	buf_printf(&c->st.out, "%s\n", line);
	c->seen = c->st.out.len;
	stage_play(&c->st, line);
	for (const char *at = buf_string(&c->st.out) + c->seen; *at != '\0';) {
		const char *end = strchr(at, '\n');

		chaos_order(c, at);
		at = end + 1;
	}
}

static unsigned chaos_below(struct chaos *c, unsigned bound)
{
	return (unsigned)prng_below(&c->random, bound);
}

/* A live session, or one of any kind that never was. */
static struct holder *chaos_any(struct chaos *c)
{
	struct holder *live[256];
	unsigned count = 0;

	for (unsigned i = 0; i < c->holder_count; i++) {
		if (c->holders[i].session != 0)
			live[count++] = &c->holders[i];
	}
	return count ? live[chaos_below(c, count)] : NULL;
}

static void chaos_open(struct chaos *c)
{
	static const unsigned heartbeats[] = {1000, 2000, 4000};
	struct holder *h;

	if (c->holder_count == 256)
		return;
	h = &c->holders[c->holder_count++];
	*h = (struct holder){.node = 1 + chaos_below(c, CHAOS_NODES),
			     .door = 1 + chaos_below(c, CHAOS_DOORS),
			     .session = ++c->sessions,
			     .heartbeat = heartbeats[chaos_below(c, 3)],
			     .confirmed = true};
	/* The client has one connection: an older one that is still here is as good as cut. */
	for (unsigned i = 0; i + 1 < c->holder_count; i++) {
		if (c->holders[i].node == h->node && c->holders[i].session != 0) {
			c->holder_count--;
			return;
		}
	}
	chaos_play(c, "%u.%u open node=%u hb=%u kap=on", h->door, h->session, h->node,
		   h->heartbeat);
}

/* It uses this connection, so what it held by another is over. */
static void chaos_spoke(struct chaos *c, struct holder *h)
{
	h->spoke = true;
	for (unsigned i = 0; i < c->holder_count; i++) {
		if (c->holders[i].node == h->node && &c->holders[i] != h)
			c->holders[i].holds = false;
	}
}

static void chaos_member(struct chaos *c, struct holder *h)
{
	unsigned at = h->ring;
	char text[32];

	if (chaos_below(c, 2) && c->ring_count + 1 < CHAOS_RINGS) {
		at = ++c->ring_count;
		c->rings[at] = (chaos_below(c, 8) << 1) | 1u << h->node;
	} else {
		/* One of the newest that it is a member of. */
		for (unsigned i = h->ring + 1; i <= c->ring_count; i++) {
			if (c->rings[i] >> h->node & 1)
				at = i;
		}
	}
	if (at == 0)
		return;
	h->ring = at;
	ids_text(c->rings[at], ' ', text);
	chaos_play(c, "%u.%u member %u.%u %s %s", h->door, h->session, lowest(c->rings[at]), at,
		   text,
		   chaos_below(c, 4)   ? ""
		   : chaos_below(c, 2) ? "pass"
				       : "fail");
}

static void chaos_end(struct chaos *c, struct holder *h)
{
	unsigned age = chaos_below(c, 1000);
	unsigned door = h->door;
	unsigned session = h->session;

	switch (chaos_below(c, 3)) {
	case 0:
		chaos_gone(c, h, 0);
		chaos_play(c, "%u.%u closed client", door, session);
		break;
	case 1:
		chaos_gone(c, h, 0);
		chaos_play(c, "%u.%u closed silent", door, session);
		break;
	case 2:
		chaos_gone(c, h, c->st.now - age + 2 * h->heartbeat);
		chaos_play(c, "%u.%u closed door %u", door, session, age);
		break;
	}
}

static void chaos_report(struct chaos *c, struct holder *h)
{
	char members[32] = "";
	char result[48] = "";

	if (!h->open) {
		chaos_gone(c, h, 0);
		return;
	}
	if (h->ring != 0 && h->spoke)
		ids_text(c->rings[h->ring], ',', members);
	if (h->result != 0)
		snprintf(result, sizeof(result), "result=%s@%u.%u", h->result == 1 ? "ack" : "nack",
			 lowest(c->rings[h->result_ring]), h->result_ring);
	chaos_play(c, "%u.%u report node=%u hb=%u kap=on ring=%u.%u %s %s%s %s %s %s", h->door,
		   h->session, h->node, h->heartbeat, h->ring ? lowest(c->rings[h->ring]) : 0,
		   h->ring, h->has_config ? "config=1,2,3" : "", *members ? "members=" : "",
		   members, result, h->ring != h->result_ring ? "vote=wait" : "",
		   h->confirmed ? "confirmed" : "");
}

/* The sessions of a door, some of which ended unnoticed. */
static void chaos_reset(struct chaos *c, unsigned door, uint64_t served_until)
{
	chaos_play(c, "%u reset", door);
	for (unsigned i = 0; i < c->holder_count; i++) {
		struct holder *h = &c->holders[i];

		if (h->session == 0 || h->door != door)
			continue;
		if (chaos_below(c, 3))
			chaos_report(c, h);
		else
			chaos_gone(c, h, served_until + 2 * h->heartbeat);
	}
}

static void chaos_lost(struct chaos *c)
{
	unsigned door = 1 + chaos_below(c, CHAOS_DOORS);
	uint64_t end = c->st.now + chaos_below(c, 3000);

	if (chaos_below(c, 2)) {
		chaos_reset(c, door, c->st.now);
		return;
	}
	for (unsigned i = 0; i < c->holder_count; i++) {
		if (c->holders[i].session != 0 && c->holders[i].door == door)
			chaos_gone(c, &c->holders[i], end + 2 * c->holders[i].heartbeat);
	}
	chaos_play(c, "%u lost %llu", door, (unsigned long long)end);
}

static void chaos_leader(struct chaos *c)
{
	chaos_play(c, "new");
	/* Boards that do not report close their sessions when their lease is over. */
	for (unsigned door = 1; door <= CHAOS_DOORS; door++)
		chaos_reset(c, door, c->st.now + 3000);
}

static void chaos_reply(struct chaos *c, struct holder *h)
{
	if (h->result == 0 || h->confirmed)
		return;
	if (chaos_below(c, 8) == 0) {
		chaos_play(c, "%u.%u reply %u", h->door, h->session, 1 + chaos_below(c, 3));
		return;
	}
	h->confirmed = true;
	if (h->result == 2)
		h->holds = false;
	chaos_spoke(c, h);
	chaos_play(c, "%u.%u reply", h->door, h->session);
}

static void chaos_talk(struct chaos *c, struct holder *h)
{
	chaos_spoke(c, h);
	switch (chaos_below(c, 8)) {
	case 0:
		h->has_config = true;
		chaos_play(c, "%u.%u %s 1 2 3", h->door, h->session,
			   chaos_below(c, 2) ? "config" : "reconfig");
		break;
	case 1:
	case 2:
	case 3:
		chaos_member(c, h);
		break;
	case 4:
		chaos_play(c, "%u.%u heur %s", h->door, h->session,
			   chaos_below(c, 2) ? "pass" : "fail");
		break;
	case 5:
		chaos_play(c, "%u.%u %s", h->door, h->session,
			   chaos_below(c, 2) ? "quorum 1 2 3" : "ask");
		break;
	case 6:
		/* Lists that make no sense. */
		chaos_play(c, "%u.%u %s", h->door, h->session,
			   chaos_below(c, 2) ? "config 7 8" : "member 9.999 9");
		break;
	case 7:
		h->heartbeat = 1000 + 1000 * chaos_below(c, 4);
		chaos_play(c, "%u.%u option kap=on hb=%u", h->door, h->session, h->heartbeat);
		break;
	}
}

static void chaos_step(struct chaos *c)
{
	struct holder *h = chaos_any(c);
	unsigned what = chaos_below(c, 100);

	if (c->st.command_count > 0 && chaos_below(c, 2)) {
		chaos_play(c, "%s", chaos_below(c, 10) ? "commit" : "fail");
		return;
	}
	if (what < 15 || h == NULL) {
		chaos_open(c);
	} else if (what < 65) {
		if (h->open)
			chaos_talk(c, h);
		else
			chaos_play(c, "%u.%u ask", h->door, h->session);
	} else if (what < 83) {
		chaos_reply(c, h);
	} else if (what < 88) {
		chaos_end(c, h);
	} else if (what < 96) {
		chaos_play(c, "at %llu", (unsigned long long)c->st.now + chaos_below(c, 4000));
	} else if (what < 98) {
		chaos_lost(c);
	} else if (what < 99) {
		chaos_leader(c);
	} else {
		/* One that never was. */
		chaos_play(c, "%u.%u closed client", 1 + chaos_below(c, 3),
			   1000 + chaos_below(c, 50));
	}
}

static void test_any_order(void **state)
{
	const char *seed = getenv("FLEET_SEED");
	uint64_t first = seed ? strtoull(seed, NULL, 10) : 1;

	(void)state;
	print_message("seeds %llu to %llu\n", (unsigned long long)first,
		      (unsigned long long)first + CHAOS_RUNS - 1);
	for (uint64_t run = first; run < first + CHAOS_RUNS; run++) {
		static struct chaos c;

		memset(&c, 0, sizeof(c));
		c.random.state = run;
		stage_open(&c.st);
		buf_printf(&c.st.out, "(seed %llu)\n", (unsigned long long)run);
		chaos_play(&c, "site");
		for (unsigned i = 0; i < CHAOS_STEPS; i++)
			chaos_step(&c);
		stage_close(&c.st);
	}
}

static int is_transcript(const struct dirent *entry)
{
	return strstr(entry->d_name, ".txt") != NULL;
}

static void test_transcripts(void **state)
{
	struct dirent **entries;
	int count = scandir(TEST_DATA "/fleet", &entries, is_transcript, alphasort);

	(void)state;
	assert_true(count > 0);
	for (int i = 0; i < count; i++) {
		char path[1024];

		snprintf(path, sizeof(path), "%s/fleet/%s", TEST_DATA, entries[i]->d_name);
		transcript_run(path);
		free(entries[i]);
	}
	free(entries);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transcripts),
		cmocka_unit_test(test_any_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
