/* proposal.c: writes and questions on their way to the leader and back.
 *
 * A proposal carries command ids, so it can be sent again after a lost link or leadership
 * without happening twice: the model answers a known id with the first result.
 *
 *   WAITING --leader reachable--> SENT --result--> COMMITTED --own model has it--> done
 *      ^------ link or leadership lost ----+
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "proto/json.h"
#include "witnessd/core_internal.h"
#include "witnessd/query.h"

enum { COMMAND_ID = 16 };

enum proposal_state { PROPOSAL_WAITING, PROPOSAL_SENT, PROPOSAL_COMMITTED };

struct proposal {
	struct list link;
	struct core *core;
	enum proposal_state state;
	bool ever_sent;
	bool in_log; /* the own log has it and will answer: neither freed nor sent meanwhile */
	bool once; /* not tried again */
	uint64_t id;
	uint64_t deadline_ms;
	Tb__Command **commands;
	size_t count;
	/* who asked: a door by letter, this thread, or another board */
	struct mailbox *home;
	core_proposed done;
	void *arg;
	struct peer *remote;
	uint64_t remote_id;
	/* the answer */
	Tb__CommandResult **results;
	uint64_t index;
};

struct proposal_letter {
	struct letter letter;
	struct core *core;
	struct mailbox *home;
	Tb__Command **commands;
	size_t count;
	core_proposed done;
	void *arg;
	int error;
	Tb__CommandResult **results;
};

static void commands_free(Tb__Command **commands, size_t count)
{
	for (size_t i = 0; i < count; i++)
		tb__command__free_unpacked(commands[i], NULL);
	free(commands);
}

static void results_free(Tb__CommandResult **results, size_t count)
{
	for (size_t i = 0; results != NULL && i < count; i++)
		tb__command_result__free_unpacked(results[i], NULL);
	free(results);
}

static Tb__CommandResult **results_copy(Tb__CommandResult *const *results, size_t count)
{
	Tb__CommandResult **copy = mem_array(count, sizeof(*copy));

	for (size_t i = 0; i < count; i++)
		copy[i] = (Tb__CommandResult *)message_copy(&results[i]->base);
	return copy;
}

static void proposal_answer_open(struct letter *letter)
{
	struct proposal_letter *l = list_entry(letter, struct proposal_letter, letter);

	l->done(l->arg, l->error, l->results, l->error == 0 ? l->count : 0);
	results_free(l->results, l->count);
	free(l);
}

static void proposal_post(struct mailbox *home, core_proposed done, void *arg, int error,
			  Tb__CommandResult **results, size_t count)
{
	struct proposal_letter *l = mem_zalloc(sizeof(*l));

	l->letter.open = proposal_answer_open;
	l->done = done;
	l->arg = arg;
	l->error = error;
	l->results = results;
	l->count = count;
	if (mailbox_answer(home, &l->letter) != 0) {
		/* The asker's loop has closed; nobody waits. */
		results_free(results, count);
		free(l);
	}
}

static void proposal_finish(struct proposal *p, int error)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	Tb__PeerResult result = TB__PEER_RESULT__INIT;
	size_t count = error == 0 ? p->count : 0;

	list_remove(&p->link);
	if (p->remote != NULL) {
		result.id = p->remote_id;
		result.error = error;
		result.n_results = count;
		result.results = p->results;
		frame.what_case = TB__PEER_FRAME__WHAT_RESULT;
		frame.result = &result;
		peer_send(p->remote, &frame);
	} else if (p->home != NULL) {
		proposal_post(p->home, p->done, p->arg, error, p->results, p->count);
		p->results = NULL;
	} else if (p->done != NULL) {
		p->done(p->arg, error, p->results, count);
	}
	results_free(p->results, p->count);
	commands_free(p->commands, p->count);
	free(p);
}

static void proposal_committed(void *arg, int status, uint64_t index, void *result)
{
	struct proposal *p = arg;
	struct apply_result *applied = result;

	(void)index;
	p->in_log = false;
	if (status == 0) {
		assert(applied->count == p->count);
		p->results = applied->results;
		applied->results = NULL;
		applied->count = 0;
		apply_result_free(applied);
		free(applied);
		proposal_finish(p, 0);
	} else if (!p->once && !p->core->stopping && (status == -EAGAIN || status == -ECANCELED)) {
		p->state = PROPOSAL_WAITING; /* the ids make a second try safe */
	} else {
		proposal_finish(p, status);
	}
}

static void proposal_propose(struct proposal *p)
{
	struct core *c = p->core;
	Tb__Entry entry = TB__ENTRY__INIT;
	uint8_t *data;
	size_t len;

	/* One clock for the log: the leader's, never going back. */
	for (size_t i = 0; i < p->count; i++)
		p->commands[i]->time_ms = core_now_ms(c);
	entry.n_commands = p->count;
	entry.commands = p->commands;
	len = tb__entry__get_packed_size(&entry);
	if (len > LIMIT_ENTRY) {
		proposal_finish(p, -E2BIG);
		return;
	}
	data = mem_alloc(len);
	tb__entry__pack(&entry, data);
	p->state = PROPOSAL_SENT;
	p->ever_sent = true;
	p->in_log = true;
	engine_propose(c->engine, data, len, proposal_committed, p);
	free(data);
}

static void proposal_forward(struct proposal *p)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	Tb__PeerPropose propose = TB__PEER_PROPOSE__INIT;

	propose.id = p->id;
	propose.n_commands = p->count;
	propose.commands = p->commands;
	frame.what_case = TB__PEER_FRAME__WHAT_PROPOSE;
	frame.propose = &propose;
	p->state = PROPOSAL_SENT;
	p->ever_sent = true;
	peer_send(p->core->up, &frame);
}

/* A board that does not understand an entry stops, so nothing is proposed that one might not. */
static bool proposal_refuse(struct proposal *p)
{
	unsigned level = core_level(p->core);
	unsigned needed = LEVEL_FIRST;

	for (size_t i = 0; i < p->count; i++)
		if (command_level(p->commands[i]) > needed)
			needed = command_level(p->commands[i]);
	/* What raises the level was checked by whoever proposes it. */
	if (needed <= level ||
	    (p->count == 1 && p->commands[0]->op_case == TB__COMMAND__OP_CLUSTER_LEVEL))
		return false;
	p->results = mem_array(p->count, sizeof(*p->results));
	for (size_t i = 0; i < p->count; i++) {
		p->results[i] = mem_alloc(sizeof(*p->results[i]));
		tb__command_result__init(p->results[i]);
		p->results[i]->refusal = TB__REFUSAL__REFUSAL_LEVEL;
		p->results[i]->message = mem_printf("a board of the cluster runs an older release "
						    "that does not know this (level %u "
						    "is needed, every board understands %u); "
						    "upgrade them all first: witnessctl "
						    "node list",
						    needed, level);
	}
	return true;
}

static void proposal_push(struct proposal *p)
{
	struct core *c = p->core;

	if (c->engine == NULL)
		return;
	if (proposal_refuse(p)) {
		proposal_finish(p, 0);
		return;
	}
	/* What is stamped before the clocks of a majority are heard may be of long ago. A log that
	 * makes no cluster yet has nobody to hear. */
	if (engine_state(c->engine) == ENGINE_LEADER) {
		if (core_clock_known(c) || !c->secrets_seen)
			proposal_propose(p);
	} else if (p->remote != NULL) {
		proposal_finish(p, -EAGAIN); /* its board finds the new leader itself */
	} else if (c->up != NULL) {
		proposal_forward(p);
	}
}

static struct proposal *proposal_new(struct core *c, Tb__Command **commands, size_t count)
{
	struct proposal *p = mem_zalloc(sizeof(*p));

	p->core = c;
	p->id = core_next_id(c);
	p->deadline_ms = clock_boottime_ms() + CORE_PROPOSE_DEADLINE_MS;
	p->commands = commands;
	p->count = count;
	for (size_t i = 0; i < count; i++) {
		if (commands[i]->id.len != 0)
			continue;
		commands[i]->id.data = mem_alloc(COMMAND_ID);
		commands[i]->id.len = COMMAND_ID;
		rng_fill(commands[i]->id.data, COMMAND_ID);
	}
	list_append(&c->proposals, &p->link);
	return p;
}

void proposal_add(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
		  core_proposed done, void *arg)
{
	struct proposal *p = proposal_new(c, commands, count);

	p->home = home;
	p->done = done;
	p->arg = arg;
	if (c->identity.node_id == 0 && c->init == NULL)
		proposal_finish(p, -ENOTCONN);
	else if (c->stopping)
		proposal_finish(p, -EAGAIN);
	else
		proposal_push(p);
}

Tb__Command *proposal_command(char *actor)
{
	Tb__Command *command = mem_alloc(sizeof(*command));

	tb__command__init(command);
	command->actor = actor;
	return command;
}

void proposal_one(struct core *c, Tb__Command *command, core_proposed done, void *arg)
{
	Tb__Command **commands = mem_array(1, sizeof(*commands));

	commands[0] = command;
	proposal_add(c, NULL, commands, 1, done, arg);
}

void proposal_add_once(struct core *c, Tb__Command **commands, size_t count, core_proposed done,
		       void *arg)
{
	struct proposal *p = proposal_new(c, commands, count);

	p->once = true;
	p->done = done;
	p->arg = arg;
	proposal_propose(p);
}

void proposal_remote(struct core *c, struct peer *from, const Tb__PeerPropose *request)
{
	Tb__Command **commands = mem_array(request->n_commands, sizeof(*commands));
	struct proposal *p;

	for (size_t i = 0; i < request->n_commands; i++)
		commands[i] = (Tb__Command *)message_copy(&request->commands[i]->base);
	p = proposal_new(c, commands, request->n_commands);
	p->remote = from;
	p->remote_id = request->id;
	for (size_t i = 0; i < p->count; i++) {
		if (!command_known(p->commands[i])) {
			proposal_finish(p, -EOPNOTSUPP);
			return;
		}
	}
	proposal_push(p);
}

static struct proposal *proposal_by_id(struct core *c, uint64_t id)
{
	list_for_each (at, &c->proposals) {
		struct proposal *p = list_entry(at, struct proposal, link);

		if (p->id == id)
			return p;
	}
	return NULL;
}

void proposal_result(struct core *c, const Tb__PeerResult *result)
{
	struct proposal *p = proposal_by_id(c, result->id);

	if (p == NULL || p->state != PROPOSAL_SENT || p->in_log || p->remote != NULL)
		return;
	if (result->error == -EAGAIN || result->error == -ECANCELED) {
		p->state = PROPOSAL_WAITING;
		return;
	}
	if (result->error != 0 || result->n_results != p->count) {
		proposal_finish(p, result->error != 0 ? result->error : -EPROTO);
		return;
	}
	p->results = results_copy(result->results, result->n_results);
	for (size_t i = 0; i < p->count; i++)
		if (p->results[i]->index > p->index)
			p->index = p->results[i]->index;
	p->state = PROPOSAL_COMMITTED;
	proposals_applied(c);
}

void proposals_kick(struct core *c)
{
	list_for_each_safe (at, &c->proposals) {
		struct proposal *p = list_entry(at, struct proposal, link);

		if (p->state == PROPOSAL_WAITING)
			proposal_push(p);
	}
	list_for_each_safe (at, &c->queries)
		query_push(list_entry(at, struct query, link));
}

void proposals_link_lost(struct core *c)
{
	list_for_each (at, &c->proposals) {
		struct proposal *p = list_entry(at, struct proposal, link);

		if (p->state == PROPOSAL_SENT && p->remote == NULL && !p->in_log)
			p->state = PROPOSAL_WAITING;
	}
	list_for_each (at, &c->queries) {
		struct query *q = list_entry(at, struct query, link);

		q->asked_before |= q->sent;
		q->sent = q->held;
	}
}

/* Read your writes: a forwarded change is done when this board's own model has it. */
void proposals_applied(struct core *c)
{
	uint64_t applied = c->engine != NULL ? engine_applied(c->engine) : 0;

	list_for_each_safe (at, &c->proposals) {
		struct proposal *p = list_entry(at, struct proposal, link);

		if (p->state == PROPOSAL_COMMITTED && p->index <= applied)
			proposal_finish(p, 0);
	}
}

void proposals_tick(struct core *c, uint64_t now_ms)
{
	list_for_each_safe (at, &c->proposals) {
		struct proposal *p = list_entry(at, struct proposal, link);

		/* What is in our own log's hands is answered by it, also after the leadership or
		 * while the log is closing. */
		if (now_ms >= p->deadline_ms && !p->in_log)
			proposal_finish(p, p->ever_sent ? -ETIMEDOUT : -EAGAIN);
	}
	list_for_each_safe (at, &c->queries) {
		struct query *q = list_entry(at, struct query, link);

		if (now_ms >= q->deadline_ms && !q->held)
			query_finish(q, -EAGAIN, NULL);
	}
}

void proposals_forget_peer(struct core *c, const struct peer *peer)
{
	list_for_each (at, &c->proposals) {
		struct proposal *p = list_entry(at, struct proposal, link);

		if (p->remote == peer) {
			p->remote = NULL; /* goes on, but nobody hears of it */
			p->home = NULL;
			p->done = NULL;
		}
	}
	list_for_each (at, &c->queries) {
		struct query *q = list_entry(at, struct query, link);

		if (q->remote == peer) {
			q->remote = NULL;
			q->home = NULL;
			q->done = NULL;
		}
	}
}

void proposals_cancel(struct core *c)
{
	list_for_each_safe (at, &c->proposals)
		proposal_finish(list_entry(at, struct proposal, link), -ECANCELED);
	list_for_each_safe (at, &c->queries)
		query_finish(list_entry(at, struct query, link), -ECANCELED, NULL);
}

/* --- from other threads --- */

static void proposal_open(struct letter *letter)
{
	struct proposal_letter *l = list_entry(letter, struct proposal_letter, letter);

	proposal_add(l->core, l->home, l->commands, l->count, l->done, l->arg);
	free(l);
}

void core_propose(struct core *c, struct mailbox *home, Tb__Command **commands, size_t count,
		  core_proposed done, void *arg)
{
	struct proposal_letter *l = mem_zalloc(sizeof(*l));
	int rv;

	l->letter.open = proposal_open;
	l->core = c;
	l->home = home;
	l->commands = commands;
	l->count = count;
	l->done = done;
	l->arg = arg;
	rv = mailbox_post(&c->mailbox, &l->letter);
	if (rv != 0) {
		free(l);
		commands_free(commands, count);
		proposal_post(home, done, arg, rv, NULL, 0);
	}
}

/* --- questions about soft state --- */

static void query_answer_open(struct letter *letter)
{
	struct query_letter *l = list_entry(letter, struct query_letter, letter);

	l->done(l->arg, l->error, l->answer);
	if (l->answer != NULL)
		tb__peer_answer__free_unpacked(l->answer, NULL);
	free(l);
}

static void query_post(struct mailbox *home, core_answered done, void *arg, int error,
		       const Tb__PeerAnswer *answer)
{
	struct query_letter *l = mem_zalloc(sizeof(*l));

	l->letter.open = query_answer_open;
	l->done = done;
	l->arg = arg;
	l->error = error;
	if (answer != NULL)
		l->answer = (Tb__PeerAnswer *)message_copy(&answer->base);
	if (mailbox_answer(home, &l->letter) != 0) {
		if (l->answer != NULL)
			tb__peer_answer__free_unpacked(l->answer, NULL);
		free(l);
	}
}

void query_finish(struct query *q, int error, const Tb__PeerAnswer *answer)
{
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;
	Tb__PeerAnswer reply = TB__PEER_ANSWER__INIT;

	list_remove(&q->link);
	if (q->remote != NULL) {
		if (answer != NULL)
			reply = *answer;
		reply.id = q->remote_id;
		reply.error = error;
		frame.what_case = TB__PEER_FRAME__WHAT_ANSWER;
		frame.answer = &reply;
		peer_send(q->remote, &frame);
	} else if (q->home != NULL) {
		query_post(q->home, q->done, q->arg, error, answer);
	}
	tb__peer_query__free_unpacked(q->query, NULL);
	free(q);
}

/* The leader was to hand over to anybody, went away before it could answer, and there is another.
 * Asked again, that one would hand over too, and so would the next. */
static bool query_handed_over(const struct query *q)
{
	return q->asked_before && q->query->what_case == TB__PEER_QUERY__WHAT_TRANSFER &&
	       q->query->transfer->node_id == 0;
}

void query_push(struct query *q)
{
	struct core *c = q->core;
	Tb__PeerAnswer answer = TB__PEER_ANSWER__INIT;
	Tb__PeerFrame frame = TB__PEER_FRAME__INIT;

	if (q->sent)
		return;
	if (query_handed_over(q) && (core_leading(c) || c->up != NULL)) {
		query_finish(q, 0, &answer);
	} else if (core_leading(c)) {
		q->sent = true;
		lead_answer(c, q);
	} else if (q->remote != NULL) {
		query_finish(q, -EAGAIN, &answer);
	} else if (c->up != NULL) {
		q->sent = true;
		frame.what_case = TB__PEER_FRAME__WHAT_QUERY;
		frame.query = q->query;
		peer_send(c->up, &frame);
	}
}

/* A board that is gone after its removal was asked for, and the answer lost, was removed. */
bool query_was_done(const struct query *q, int error)
{
	return error == -ENOENT && q->asked_before &&
	       q->query->what_case == TB__PEER_QUERY__WHAT_REMOVE;
}

static struct query *query_new(struct core *c, const Tb__PeerQuery *query)
{
	struct query *q = mem_zalloc(sizeof(*q));

	q->core = c;
	q->query = (Tb__PeerQuery *)message_copy(&query->base);
	q->query->id = core_next_id(c);
	q->deadline_ms = clock_boottime_ms() + CORE_QUERY_DEADLINE_MS;
	list_append(&c->queries, &q->link);
	return q;
}

void query_remote(struct core *c, struct peer *from, const Tb__PeerQuery *request)
{
	struct query *q = query_new(c, request);

	q->remote = from;
	q->remote_id = request->id;
	query_push(q);
}

void query_result(struct core *c, const Tb__PeerAnswer *answer)
{
	list_for_each_safe (at, &c->queries) {
		struct query *q = list_entry(at, struct query, link);

		if (q->query->id != answer->id || q->remote != NULL)
			continue;
		if (answer->error == -EAGAIN)
			q->sent = false; /* asked again until the deadline */
		else
			query_finish(q, query_was_done(q, answer->error) ? 0 : answer->error,
				     answer);
		return;
	}
}

static void query_open(struct letter *letter)
{
	struct query_letter *l = list_entry(letter, struct query_letter, letter);
	struct query *q = query_new(l->core, l->query);

	q->home = l->home;
	q->done = l->done;
	q->arg = l->arg;
	if (l->core->identity.node_id == 0)
		query_finish(q, -ENOTCONN, NULL);
	else if (l->core->stopping)
		query_finish(q, -EAGAIN, NULL);
	else
		query_push(q);
	tb__peer_query__free_unpacked(l->query, NULL);
	free(l);
}

void core_query(struct core *c, struct mailbox *home, const Tb__PeerQuery *query,
		core_answered done, void *arg)
{
	struct query_letter *l = mem_zalloc(sizeof(*l));
	int rv;

	l->letter.open = query_open;
	l->core = c;
	l->home = home;
	l->query = (Tb__PeerQuery *)message_copy(&query->base);
	l->done = done;
	l->arg = arg;
	rv = mailbox_post(&c->mailbox, &l->letter);
	if (rv != 0) {
		tb__peer_query__free_unpacked(l->query, NULL);
		free(l);
		query_post(home, done, arg, rv, NULL);
	}
}
