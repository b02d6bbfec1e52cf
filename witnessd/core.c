/* core.c: the core thread: its loop, start and stop, the log's callbacks and the model. */
#include "witnessd/core.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/addresses.h"
#include "witnessd/core_internal.h"

uint64_t core_next_id(struct core *c)
{
	return ++c->next_id;
}

int64_t core_now_ms(const struct core *c)
{
	return c->fleet != NULL ? lead_now_ms(c)
				: core_clock_from(c->clock_offset_ms, c->newest_ms);
}

void core_clock_learn(struct core *c, int64_t now_ms)
{
	c->clock_offset_ms = now_ms - (int64_t)clock_boottime_ms();
	atomic_store(&c->view.clock_offset_ms, core_now_ms(c) - (int64_t)clock_boottime_ms());
}

bool core_clock_known(const struct core *c)
{
	return c->clock_offset_ms != 0;
}

static int core_newest_visit(void *arg, const Tb__Event *event)
{
	struct core *c = arg;

	if (event->time_ms > c->newest_ms) {
		c->newest_ms = event->time_ms;
		c->newest_seen_ms = clock_boottime_ms();
	}
	return 1;
}

void core_set_state(struct core *c, enum core_state state, const char *detail, ...)
{
	va_list args;

	/* FAILED never ends, and its reason is not to be hidden by what follows from it. */
	if (state != CORE_FAILED && atomic_load(&c->view.state) == CORE_FAILED)
		return;
	pthread_mutex_lock(&c->detail_lock);
	va_start(args, detail);
	vsnprintf(c->detail, sizeof(c->detail), detail, args);
	va_end(args);
	pthread_mutex_unlock(&c->detail_lock);
	/* JOINING ends with the first lease, NO_QUORUM too. */
	atomic_store(&c->view.state, (int)state);
}

const struct core_view *core_view(const struct core *c)
{
	return &c->view;
}

const char *core_model_path(const struct core *c)
{
	int state = atomic_load(&c->view.state);

	return state == CORE_NEW || state == CORE_STARTING ? "" : c->model_path;
}

Tb__LocalStatus *core_local_status(struct core *c)
{
	static const char *const words[] = {"new",     "starting",  "joining",
					    "serving", "no-quorum", "failed"};
	Tb__LocalStatus *status = mem_alloc(sizeof(*status));

	tb__local_status__init(status);
	status->state = mem_strdup(words[atomic_load(&c->view.state)]);
	status->version = mem_strdup(TIEBREAK_VERSION);
	status->lease = clock_boottime_ms() < atomic_load(&c->view.lease_until_ms);
	status->node_id = atomic_load(&c->view.node_id);
	pthread_mutex_lock(&c->detail_lock);
	status->detail = mem_strdup(c->detail);
	status->node_name = mem_strdup(c->shown_name[0] != '\0' ? c->shown_name : c->default_name);
	status->cluster_id = mem_strdup(c->shown_cluster);
	pthread_mutex_unlock(&c->detail_lock);
	return status;
}

unsigned core_level(struct core *c)
{
	Tb__Cluster *cluster;
	unsigned level;

	if (c->store == NULL || store_cluster_get(c->store, &cluster) != 0)
		return LEVEL_HERE;
	level = cluster->level != 0 ? cluster->level : LEVEL_FIRST;
	tb__cluster__free_unpacked(cluster, NULL);
	return level;
}

/* --- links made by the front --- */

uint64_t core_dial(struct core *c, uint64_t node, const char *address, const char *alpn,
		   struct engine_dial *raft)
{
	struct dial *d = mem_zalloc(sizeof(*d));

	d->id = core_next_id(c);
	d->raft = raft;
	list_append(&c->dials, &d->link);
	c->listeners.link_dial(c->listeners.arg, d->id, address, alpn, node);
	return d->id;
}

static void core_dialed(struct core *c, uint64_t id, int fd)
{
	list_for_each_safe (at, &c->dials) {
		struct dial *d = list_entry(at, struct dial, link);

		if (d->id != id)
			continue;
		list_remove(&d->link);
		if (d->admission != NULL)
			admit_reached(d->admission, fd);
		else if (d->raft != NULL)
			engine_dialed(d->raft, fd);
		else if (c->engine != NULL && !c->stopping && !c->retiring)
			peer_dialed(c, fd);
		else if (fd >= 0)
			close(fd);
		free(d);
		return;
	}
	if (fd >= 0)
		close(fd);
}

/* Where a board is: as the log says, or before the log has reached this board, as the join said. */
static const char *core_board_address(const struct core *c, const struct engine_member *members,
				      unsigned count, uint64_t node)
{
	for (unsigned i = 0; i < count; i++)
		if (members[i].id == node)
			return members[i].address;
	for (unsigned i = 0; i < c->identity.seed_count; i++)
		if (c->identity.seeds[i].node_id == node)
			return c->identity.seeds[i].address;
	return NULL;
}

static void core_accepted(struct core *c, const char *alpn, uint64_t node, int fd)
{
	struct engine_member members[LIMIT_NODES];
	const char *address;
	unsigned count;

	if (c->engine == NULL || c->stopping || c->retiring) {
		close(fd);
		return;
	}
	if (strcmp(alpn, "tiebreak-peer/1") == 0) {
		peer_accepted(c, node, fd);
		return;
	}
	count = engine_members(c->engine, members, LIMIT_NODES);
	address = core_board_address(c, members, count, node);
	if (address != NULL) {
		engine_accept(c->engine, node, address, fd);
	} else {
		log_warning("link-refused", "board %llu is not known here",
			    (unsigned long long)node);
		close(fd);
	}
}

/* --- the log's callbacks --- */

static void core_identity_check(struct core *c)
{
	Tb__Secrets *secrets;

	if (c->secrets_seen || store_secrets_get(c->store, &secrets) != 0)
		return;
	tb__secrets__free_unpacked(secrets, NULL);
	c->secrets_seen = true;
	lead_lease_changed(c);
	c->listeners.identity_changed(c->listeners.arg);
}

static void core_version_told(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct core *c = arg;

	(void)results;
	(void)count;
	if (error == 0 || c->stopping)
		return;
	/* Looked at again in the next turn; a proposal waits for a leader by itself. */
	c->version_told = false;
	c->model_dirty = true;
	c->nodes_dirty = true;
}

/* After an upgrade: what runs here is for people to see. */
static void core_version_check(struct core *c, const Tb__Node *self)
{
	Tb__Command *command;

	if (c->version_told || strcmp(self->version, TIEBREAK_VERSION) == 0)
		return;
	c->version_told = true;
	command = proposal_command(mem_printf("node:%s", self->name));
	command->op_case = TB__COMMAND__OP_NODE_SET;
	command->node_set = mem_alloc(sizeof(Tb__NodeSet));
	tb__node_set__init(command->node_set);
	command->node_set->id = self->id;
	command->node_set->version = mem_strdup(TIEBREAK_VERSION);
	proposal_one(c, command, core_version_told, c);
}

static void core_drained_check(struct core *c, const Tb__Node *self)
{
	bool drained = self->drain != TB__DRAIN__DRAIN_OFF;

	if (drained == atomic_load(&c->view.drained))
		return;
	atomic_store(&c->view.drained, drained);
	log_notice(drained ? "drained" : "undrained", "this board takes %s site nodes",
		   drained ? "no more" : "new");
	core_admit_sites(c);
}

/* While a drained board still has a service address, its clients have no other to go to. */
void core_admit_sites(struct core *c)
{
	bool admitting = !atomic_load(&c->view.drained) || addresses_wanted(c);

	if (admitting == c->admitting)
		return;
	c->admitting = admitting;
	c->listeners.door_admit(c->listeners.arg, admitting);
}

/* A board that was removed must stop, not linger as a voter in its own eyes. */
static void core_removed_check(struct core *c)
{
	Tb__Node *self;
	int rv;

	if (!c->secrets_seen || c->init != NULL || c->restoration != NULL)
		return;
	rv = store_node_get(c->store, c->identity.node_id, &self);
	if (rv == 0) {
		c->self_seen = true;
		core_drained_check(c, self);
		core_version_check(c, self);
		tb__node__free_unpacked(self, NULL);
	} else if (rv == -ENOENT && c->self_seen) {
		log_error("removed",
			  "this board was removed from the cluster; to use it again, stop "
			  "witnessd, remove %s and join anew",
			  c->data_dir);
		core_set_state(
			c, CORE_FAILED,
			"this board was removed from the cluster; stop witnessd, remove %s and "
			"join anew",
			c->data_dir);
		atomic_store(&c->view.state, CORE_FAILED);
	}
}

static int core_apply(void *arg, uint64_t index, const uint8_t *data, size_t len, void **ret_result)
{
	struct core *c = arg;
	struct apply_result *result = mem_zalloc(sizeof(*result));
	int rv = apply_entry(c->store, index, data, len, result);

	if (rv != 0) {
		free(result);
		return rv;
	}
	c->model_index = index;
	c->model_dirty = true;
	c->nodes_dirty |= result->nodes_changed || result->cluster_changed;
	lead_applied(c, result);
	*ret_result = result;
	return 0;
}

static void core_drop(void *arg, void *result)
{
	(void)arg;
	apply_result_free(result);
	free(result);
}

static int core_snapshot(void *arg, struct buf *out)
{
	return store_snapshot(((struct core *)arg)->store, out);
}

static int core_restore(void *arg, const uint8_t *data, size_t len)
{
	struct core *c = arg;
	int rv = store_restore(c->store, data, len);

	if (rv == 0)
		rv = store_applied(c->store, &c->model_index);
	c->model_dirty = true;
	c->nodes_dirty = true;
	return rv;
}

struct barrier {
	struct core *c;
	uint64_t term;
};

/* The new leader's model is whole once an entry of its own term is applied (Raft, section 8). */
static void core_barrier_done(void *arg, int status, uint64_t index, void *result)
{
	struct barrier *b = arg;
	struct core *c = b->c;

	(void)index;
	if (result != NULL)
		core_drop(c, result);
	/* One of an earlier term, or the second of this one, says nothing. */
	if (!c->stopping && c->fleet == NULL && engine_state(c->engine) == ENGINE_LEADER &&
	    engine_term(c->engine) == b->term) {
		if (status == 0)
			lead_start(c);
		else
			c->barrier_sent = false; /* the tick tries again */
	}
	free(b);
}

static void core_barrier(struct core *c)
{
	Tb__Entry entry = TB__ENTRY__INIT;
	uint8_t packed[8];
	struct barrier *b;

	if (c->barrier_sent || c->fleet != NULL)
		return;
	entry.barrier = true;
	b = mem_zalloc(sizeof(*b));
	b->c = c;
	b->term = engine_term(c->engine);
	c->barrier_sent = true;
	engine_propose(c->engine, packed, tb__entry__pack(&entry, packed), core_barrier_done, b);
}

static void core_changed(void *arg, enum engine_state state, uint64_t term, uint64_t leader)
{
	struct core *c = arg;

	atomic_store(&c->view.term, term);
	atomic_store(&c->view.leader_id, leader);
	if (state != ENGINE_LEADER || (c->fleet != NULL && c->fleet_term != term))
		lead_stop(c);
	if (c->stopping || c->retiring)
		return;
	if (state == ENGINE_LEADER)
		core_barrier(c);
	peer_dial_leader(c);
}

static void core_engine_dial(void *arg, struct engine_dial *dial, uint64_t id, const char *address)
{
	core_dial(arg, id, address, "tiebreak-raft/1", dial);
}

static void core_engine_dial_cancel(void *arg, struct engine_dial *dial)
{
	struct core *c = arg;

	list_for_each_safe (at, &c->dials) {
		struct dial *d = list_entry(at, struct dial, link);

		if (d->raft != dial)
			continue;
		list_remove(&d->link);
		free(d);
		engine_dialed(dial, -ECANCELED);
		return;
	}
}

static void core_shut(struct core *c);

static void core_engine_failed(void *arg, int error, const char *message)
{
	struct core *c = arg;

	log_error("log-failed", "%s", message);
	(void)error;
	core_set_state(c, CORE_FAILED, "%s", message);
	atomic_store(&c->view.state, CORE_FAILED);
	lead_stop(c);
	c->lease.until_ms = 0;
	lead_lease_changed(c);
	if (c->failed != NULL)
		c->failed(c->failed_arg);
	/* A stop under way may wait for a handover that a dead log will never finish. */
	if (c->stopping)
		core_shut(c);
}

/* --- opening --- */

static void core_identity_show(struct core *c)
{
	pthread_mutex_lock(&c->detail_lock);
	memcpy(c->shown_name, c->identity.node_name, sizeof(c->shown_name));
	memcpy(c->shown_cluster, c->identity.cluster_id, sizeof(c->shown_cluster));
	pthread_mutex_unlock(&c->detail_lock);
}

int core_serve(struct core *c, bool bootstrap, const char **ret_message)
{
	const struct engine_events events = {
		.arg = c,
		.apply = core_apply,
		.drop = core_drop,
		.snapshot = core_snapshot,
		.restore = core_restore,
		.changed = core_changed,
		.dial = core_engine_dial,
		.dial_cancel = core_engine_dial_cancel,
		.failed = core_engine_failed,
	};
	int rv;

	rv = identity_log_check(c->raft_dir, &c->identity, ret_message);
	if (rv != 0)
		return rv;
	if (c->store == NULL) {
		rv = store_open(c->model_path, &c->store);
		if (rv != 0) {
			snprintf(c->start_message, sizeof(c->start_message),
				 "cannot make the model database %s: is %s writable and on a disk "
				 "with "
				 "room?",
				 c->model_path, c->run_dir);
			*ret_message = c->start_message;
			return rv;
		}
	}
	if (bootstrap) {
		rv = engine_bootstrap(c->raft_dir, c->identity.node_id, c->identity.address);
		if (rv != 0) {
			snprintf(c->start_message, sizeof(c->start_message),
				 "cannot make the log in %s: %s", c->raft_dir, strerror(-rv));
			*ret_message = c->start_message;
			return rv;
		}
	}
	rv = engine_start(&c->loop, c->raft_dir, c->identity.node_id, c->identity.address, &events,
			  &c->engine, ret_message);
	if (rv != 0) {
		c->engine = NULL;
		return rv;
	}
	c->led_ms = clock_boottime_ms();
	core_identity_show(c);
	atomic_store(&c->view.node_id, c->identity.node_id);
	core_set_state(c, c->join != NULL ? CORE_JOINING : CORE_NO_QUORUM,
		       "waiting for contact with a majority of the boards");
	return 0;
}

void core_wipe_raft(struct core *c)
{
	DIR *dir = opendir(c->raft_dir);
	struct dirent *entry;

	if (dir == NULL)
		return;
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' || strlen(entry->d_name) > 2)
			unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
}

/* --- the loop --- */

static void core_flush(uv_prepare_t *handle)
{
	struct core *c = handle->data;

	if (c->engine == NULL || c->retiring)
		return;
	if (c->model_dirty) {
		c->model_dirty = false;
		atomic_store(&c->view.applied_index, engine_applied(c->engine));
		store_events_newest(c->store, 1, core_newest_visit, c);
		atomic_store(&c->view.clock_floor_ms, c->newest_ms);
		core_identity_check(c);
		if (c->nodes_dirty) {
			c->nodes_dirty = false;
			core_removed_check(c);
		}
		proposals_applied(c);
		admit_applied(c);
		c->listeners.model_changed(c->listeners.arg, engine_applied(c->engine));
	}
	lead_flush(c);
	addresses_flush(c);
}

static void core_tick(uv_timer_t *timer)
{
	struct core *c = timer->data;
	uint64_t now = clock_boottime_ms();

	guard_tick(c, now);
	admit_tick(c, now);
	proposals_tick(c, now);
	if (c->engine == NULL || c->stopping || c->retiring)
		return;
	if (engine_leader(c->engine) != 0)
		c->led_ms = now;
	if (engine_state(c->engine) == ENGINE_LEADER)
		core_barrier(c);
	peer_drop_silent(c);
	certify_tick(c, now);
	core_host_tick(c, now);
	lead_tick(c);
	peer_dial_leader(c);
	peer_renew(c);
	proposals_kick(c);
	lead_lease_changed(c);
}

/* --- letters from the doors --- */

struct door_letter {
	struct letter letter;
	struct core *core;
	Tb__DoorEvent **events;
	size_t count;
};

void core_door_ask(struct core *c)
{
	c->reports_due[0]++;
	c->reports_due[1]++;
	c->listeners.door_report(c->listeners.arg);
}

bool core_reports_due(const struct core *c)
{
	return c->reports_due[0] > 0 || c->reports_due[1] > 0;
}

void core_door_orders(struct core *c, Tb__DoorOrder **orders, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		if (c->reports_due[orders[i]->session >> 63] > 0)
			tb__door_order__free_unpacked(orders[i], NULL);
		else
			orders[kept++] = orders[i];
	}
	if (kept > 0)
		c->listeners.door_orders(c->listeners.arg, orders, kept);
	else
		free(orders);
}

/* Drops what a door said before the last reset that it was asked for. Not before the last: orders
 * that went to the door after an earlier one was asked for would be missing in that report, and
 * the arbiter would believe that they were never carried out. */
static size_t core_door_filter(struct core *c, Tb__DoorEvent **events, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++) {
		unsigned *due = &c->reports_due[events[i]->session >> 63];

		if (events[i]->what_case == TB__DOOR_EVENT__WHAT_RESET && *due > 0)
			--*due;
		if (*due > 0)
			tb__door_event__free_unpacked(events[i], NULL);
		else
			events[kept++] = events[i];
	}
	return kept;
}

static void core_door_open(struct letter *letter)
{
	struct door_letter *l = list_entry(letter, struct door_letter, letter);
	struct core *c = l->core;
	bool was_due = core_reports_due(c);

	for (size_t i = 0; i < l->count; i++)
		addresses_event(c, l->events[i]);
	l->count = core_door_filter(c, l->events, l->count);
	if (c->fleet != NULL) {
		for (size_t i = 0; i < l->count; i++)
			fleet_door_event(c->fleet, c->identity.node_id, l->events[i],
					 clock_boottime_ms());
	} else if (c->up != NULL && l->count > 0) {
		peer_send_events(c, l->events, l->count);
	}
	if (was_due && !core_reports_due(c) && c->engine != NULL) {
		peer_renew(c);
		lead_lease_changed(c);
	}
	for (size_t i = 0; i < l->count; i++)
		tb__door_event__free_unpacked(l->events[i], NULL);
	free(l->events);
	free(l);
}

void core_door_events(struct core *c, Tb__DoorEvent **events, size_t count)
{
	struct door_letter *l = mem_zalloc(sizeof(*l));

	l->letter.open = core_door_open;
	l->core = c;
	l->events = events;
	l->count = count;
	/* An event lost would leave the arbiter with a wrong picture, so no limit here: sessions
	 * are bounded, and a door stops reading from clients that the core does not keep up with.
	 */
	if (mailbox_answer(&c->mailbox, &l->letter) != 0) {
		for (size_t i = 0; i < count; i++)
			tb__door_event__free_unpacked(events[i], NULL);
		free(events);
		free(l);
	}
}

struct report_letter {
	struct letter letter;
	struct core *core;
	uint64_t number;
	Tb__PeerAddressReport *report;
};

static void core_report_open(struct letter *letter)
{
	struct report_letter *l = list_entry(letter, struct report_letter, letter);

	addresses_report(l->core, l->number, l->report);
	free(l);
}

void core_address_report(struct core *c, uint64_t letter, Tb__PeerAddressReport *report)
{
	struct report_letter *l = mem_zalloc(sizeof(*l));

	l->letter.open = core_report_open;
	l->core = c;
	l->number = letter;
	l->report = report;
	if (mailbox_answer(&c->mailbox, &l->letter) == 0)
		return;
	tb__peer_address_report__free_unpacked(report, NULL);
	free(l);
}

struct link_letter {
	struct letter letter;
	struct core *core;
	uint64_t dial_id; /* 0: accepted */
	uint64_t node;
	int fd;
	char alpn[32];
};

static void core_link_open(struct letter *letter)
{
	struct link_letter *l = list_entry(letter, struct link_letter, letter);

	if (l->dial_id != 0)
		core_dialed(l->core, l->dial_id, l->fd);
	else
		core_accepted(l->core, l->alpn, l->node, l->fd);
	free(l);
}

static void core_link_post(struct core *c, struct link_letter *l)
{
	l->letter.open = core_link_open;
	l->core = c;
	if (mailbox_answer(&c->mailbox, &l->letter) != 0) {
		if (l->fd >= 0)
			close(l->fd);
		free(l);
	}
}

void core_link_dialed(struct core *c, uint64_t dial_id, int fd_or_error)
{
	struct link_letter *l = mem_zalloc(sizeof(*l));

	l->dial_id = dial_id;
	l->fd = fd_or_error;
	core_link_post(c, l);
}

void core_link_accepted(struct core *c, const char *alpn, uint64_t node, int fd)
{
	struct link_letter *l = mem_zalloc(sizeof(*l));

	l->node = node;
	l->fd = fd;
	snprintf(l->alpn, sizeof(l->alpn), "%s", alpn);
	core_link_post(c, l);
}

/* --- start and stop --- */

static void core_clock_warn(void)
{
	char now[32];

	if (core_clock_plausible())
		return;
	clock_format_utc(clock_realtime_ms(), now);
	log_warning(
		"clock",
		"this board's clock says %s, which cannot be: the newest time that the log knows "
		"is used; set it (timedatectl set-time, or start a time service)",
		now);
}

static int core_open(struct core *c)
{
	const char *message = NULL;
	int rv;

	core_clock_warn();
	/* A directory on tmpfs may outlive the daemon: what a model of before says, also of a
	 * cluster that this board has left, is nothing. */
	store_remove(c->model_path);
	rv = identity_load(c->data_dir, &c->identity, &message);
	if (rv == -ENOENT) {
		core_set_state(
			c, CORE_NEW,
			"this board is in no cluster yet: run \"witnessctl cluster init\" or "
			"\"witnessctl cluster join\"");
		return 0;
	}
	if (rv == 0) {
		core_set_state(c, CORE_STARTING, "reading the log");
		/* The others must reach this board before its model can know the site keys. */
		c->listeners.identity_changed(c->listeners.arg);
		rv = core_serve(c, false, &message);
	}
	if (rv != 0 && message != c->start_message)
		snprintf(c->start_message, sizeof(c->start_message), "%s", message);
	return rv;
}

static void core_handle_closed(uv_handle_t *handle)
{
	struct core *c = handle->data;

	c->open_handles--;
}

static void core_mailbox_closed(struct mailbox *m)
{
	struct core *c = list_entry(m, struct core, mailbox);

	c->open_handles--;
}

/* The last step: everything that used the loop is closed, uv_run returns. */
static void core_close_handles(struct core *c)
{
	uv_handle_t *handles[] = {
		(uv_handle_t *)&c->flush,
		(uv_handle_t *)&c->tick,
		(uv_handle_t *)&c->lease_end,
		(uv_handle_t *)&c->fleet_due,
	};

	for (size_t i = 0; i < sizeof(handles) / sizeof(handles[0]); i++)
		uv_close(handles[i], core_handle_closed);
	mailbox_close(&c->mailbox, core_mailbox_closed);
}

void core_engine_closed(void *arg)
{
	struct core *c = arg;

	proposals_cancel(c);
	c->engine = NULL;
	core_close_handles(c);
}

void core_let_go(struct core *c)
{
	lead_stop(c);
	c->lease.until_ms = 0;
	lead_lease_changed(c);
	peer_close_all(c);
	list_for_each_safe (at, &c->dials) {
		struct dial *d = list_entry(at, struct dial, link);

		list_remove(&d->link);
		if (d->admission != NULL)
			admit_reached(d->admission, -ECANCELED);
		if (d->raft != NULL)
			engine_dialed(d->raft, -ECANCELED);
		free(d);
	}
	c->up_dial = 0;
}

static void core_shut(struct core *c)
{
	if (c->shut)
		return;
	c->shut = true;
	core_let_go(c);
	admit_cancel(c);
	if (c->retiring)
		return; /* history.c goes on when the engine is closed */
	if (c->engine != NULL)
		engine_close(c->engine, core_engine_closed, c);
	else
		core_engine_closed(c);
}

static void core_transferred(void *arg, int status)
{
	(void)status;
	core_shut(arg);
}

struct stop_letter {
	struct letter letter;
	struct core *core;
};

static void core_stop_open(struct letter *letter)
{
	struct stop_letter *l = list_entry(letter, struct stop_letter, letter);
	struct core *c = l->core;

	free(l);
	if (c->stopping)
		return;
	c->stopping = true;
	/* Another board leads at once instead of after an election timeout. */
	if (c->fleet != NULL && lead_has_others(c))
		engine_transfer(c->engine, 0, core_transferred, c);
	else
		core_shut(c);
}

static void *core_run(void *arg)
{
	struct core *c = arg;

	uv_prepare_start(&c->flush, core_flush);
	uv_timer_start(&c->tick, core_tick, CORE_TICK_MS, CORE_TICK_MS);
	c->start_status = core_open(c);
	uv_sem_post(&c->started);
	if (c->start_status != 0) {
		c->stopping = true;
		core_shut(c);
	}
	uv_run(&c->loop, UV_RUN_DEFAULT);
	guard_end(c);
	store_close(c->store);
	c->store = NULL;
	return NULL;
}

static void core_init_handles(struct core *c)
{
	uv_loop_init(&c->loop);
	mailbox_init(&c->mailbox, &c->loop, CORE_MAILBOX_LIMIT);
	uv_prepare_init(&c->loop, &c->flush);
	uv_timer_init(&c->loop, &c->tick);
	uv_timer_init(&c->loop, &c->lease_end);
	uv_timer_init(&c->loop, &c->fleet_due);
	c->flush.data = c;
	c->tick.data = c;
	c->lease_end.data = c;
	c->fleet_due.data = c;
	c->open_handles = 5;
}

struct core *core_new(const struct core_config *config, const struct core_listeners *listeners)
{
	struct core *c = mem_zalloc(sizeof(*c));

	c->data_dir = mem_strdup(config->data_dir);
	c->run_dir = mem_strdup(config->run_dir);
	c->raft_dir = mem_printf("%s/raft", config->data_dir);
	c->model_path = mem_printf("%s/model.db", config->run_dir);
	c->default_name = mem_strdup(config->node_name);
	c->default_address = mem_strdup(config->address);
	c->default_qnet_address = mem_strdup(config->qnet_address);
	c->listeners = *listeners;
	c->host_fence = c->host_fence_told = UINT64_MAX;
	pthread_mutex_init(&c->detail_lock, NULL);
	list_init(&c->peers);
	list_init(&c->dials);
	list_init(&c->proposals);
	list_init(&c->queries);
	c->addresses = addresses_new();
	c->admitting = true;
	uv_sem_init(&c->started, 0);
	core_init_handles(c);
	guard_new(c, config);
	return c;
}

int core_start(struct core *c, const char **ret_message)
{
	int rv = pthread_create(&c->thread, NULL, core_run, c);

	assert(rv == 0);
	c->threaded = true;
	uv_sem_wait(&c->started);
	if (c->start_status != 0)
		*ret_message = c->start_message;
	return c->start_status;
}

void core_on_failure(struct core *c, void (*failed)(void *arg), void *arg)
{
	c->failed_arg = arg;
	c->failed = failed;
}

static void core_join_thread(struct core *c)
{
	if (c->threaded)
		pthread_join(c->thread, NULL);
	c->threaded = false;
}

void core_stop(struct core *c)
{
	struct stop_letter *l;

	if (!c->threaded)
		return; /* nobody would open the letter before core_free */
	l = mem_zalloc(sizeof(*l));
	l->letter.open = core_stop_open;
	l->core = c;
	if (mailbox_answer(&c->mailbox, &l->letter) != 0)
		free(l);
	core_join_thread(c);
}

void core_free(struct core *c)
{
	core_join_thread(c); /* of a start that failed */
	if (c->open_handles != 0) {
		/* Never started: nobody has run the loop. */
		core_close_handles(c);
		uv_run(&c->loop, UV_RUN_DEFAULT);
	}
	if (uv_loop_close(&c->loop) != 0)
		assert(!"a handle was left open");
	uv_sem_destroy(&c->started);
	pthread_mutex_destroy(&c->detail_lock);
	core_host_forget(c, 0);
	addresses_free(c->addresses);
	identity_free(&c->identity);
	guard_free(c);
	free(c->data_dir);
	free(c->run_dir);
	free(c->raft_dir);
	free(c->model_path);
	free(c->default_name);
	free(c->default_address);
	free(c->default_qnet_address);
	free(c);
}
