/* host.c: the host's thread: letters, its reading of the model, the decider's actions, links, and
 * the way down. */
#include "witnessd/host.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "proto/json.h"
#include "witnessd/core.h"
#include "witnessd/front.h"
#include "witnessd/host_internal.h"
#include "witnessd/metrics.h"

enum { ENTRANTS_MAX = 32, STOP_STEP_MS = 100 };

/* --- work on other threads --- */

static void work_run(uv_work_t *request)
{
	struct host_job *job = request->data;

	job->work(job);
}

static void work_done(uv_work_t *request, int status)
{
	struct host_job *job = request->data;

	(void)status;
	job->host->workers--;
	job->done(job);
}

void host_work(struct host *h, struct host_job *job)
{
	job->host = h;
	job->request.data = job;
	h->workers++;
	if (uv_queue_work(&h->loop, &job->request, work_run, work_done) != 0)
		abort(); /* only for a request without a function */
}

/* --- the report --- */

static void counters_set(struct host *h, Tb__VmReport *const *rows, size_t count)
{
	uint64_t vms[TB__VM_CONDITION__VM_CONDITION_ENDED + 1] = {0};

	for (size_t i = 0; i < count; i++)
		if ((unsigned)rows[i]->condition <= TB__VM_CONDITION__VM_CONDITION_ENDED)
			vms[rows[i]->condition]++;
	for (size_t i = 0; i <= TB__VM_CONDITION__VM_CONDITION_ENDED; i++)
		atomic_store(&h->counters.vms[i], vms[i]);
}

/* What it waits for is more than the decider knows, and newer than its last failure. */
static void waits_add(struct host *h, Tb__VmReport *row)
{
	const char *waits = host_vm_waits(h, row->vm);

	if (waits == NULL || row->condition != TB__VM_CONDITION__VM_CONDITION_PREPARING)
		return;
	if (row->problem[0] != '\0')
		free(row->problem);
	row->problem = mem_strdup(waits);
	row->waits = true;
}

void host_say(struct host *h)
{
	Tb__HostReport *report;

	if (h->hosting == NULL || h->stopping)
		return;
	report = mem_alloc(sizeof(*report));
	tb__host_report__init(report);
	report->n_vms = hosting_report(h->hosting, &report->vms, clock_boottime_ms());
	for (size_t i = 0; i < report->n_vms; i++)
		waits_add(h, report->vms[i]);
	counters_set(h, report->vms, report->n_vms);
	report->n_images = image_keeper_report(h->keeper, &report->images);
	core_host_report(h->core, report);
}

/* --- the decider --- */

static const Tb__Vm *row_find(const struct host *h, uint64_t vm)
{
	for (size_t i = 0; i < h->row_count; i++)
		if (h->rows[i]->id == vm)
			return h->rows[i];
	return NULL;
}

static void on_due(uv_timer_t *timer)
{
	host_step(timer->data);
}

static void due_set(struct host *h, uint64_t due_ms)
{
	uint64_t now = clock_boottime_ms();

	if (due_ms == UINT64_MAX)
		uv_timer_stop(&h->due);
	else
		uv_timer_start(&h->due, on_due, due_ms > now ? due_ms - now : 1, 0);
}

void host_step(struct host *h)
{
	struct hosting_action action;
	uint64_t due_ms;

	if (h->hosting == NULL || h->stopping)
		return;
	if (h->stepping) {
		h->again = true;
		return;
	}
	h->stepping = true;
	do {
		h->again = false;
		due_ms = hosting_tick(h->hosting, clock_boottime_ms());
		while (hosting_next(h->hosting, &action))
			host_vm_do(h, &action, row_find(h, action.vm));
	} while (h->again);
	h->stepping = false;
	due_set(h, due_ms);
	if (hosting_changed(h->hosting))
		host_say(h);
}

static void lease_tell(struct host *h)
{
	uint64_t now = clock_boottime_ms();

	if (h->stopping)
		host_vms_renew(h, h->lease_until_ms);
	if (h->hosting == NULL || h->stopping)
		return;
	/* The fence first: a lease of a new link is good for nothing before its fence is known. */
	hosting_fence(h->hosting, h->fence, now);
	hosting_lease(h->hosting, h->lease_until_ms, now);
	host_step(h);
}

/* --- the model --- */

struct model_read {
	uint64_t node;
	Tb__Vm **vms; /* on this board */
	uint64_t *all; /* ids of every VM */
	Tb__Image **images;
	uint64_t boards[LIMIT_NODES];
	size_t vm_count, all_count, image_count, board_count;
	size_t hosting_boards; /* of boards: the first ones */
	Tb__NodeHost *facts;
};

static int vm_visit(void *arg, const Tb__Vm *row)
{
	struct model_read *m = arg;

	m->all = mem_realloc(m->all, (m->all_count + 1) * sizeof(m->all[0]));
	m->all[m->all_count++] = row->id;
	if (row->placement == NULL || row->placement->node != m->node || row->config == NULL)
		return 0;
	m->vms = mem_realloc(m->vms, (m->vm_count + 1) * sizeof(m->vms[0]));
	m->vms[m->vm_count++] = (Tb__Vm *)message_copy(&row->base);
	return 0;
}

static int image_visit(void *arg, const Tb__Image *row)
{
	struct model_read *m = arg;

	m->images = mem_realloc(m->images, (m->image_count + 1) * sizeof(m->images[0]));
	m->images[m->image_count++] = (Tb__Image *)message_copy(&row->base);
	return 0;
}

static int node_visit(void *arg, const Tb__Node *row)
{
	struct model_read *m = arg;

	if (row->id == m->node) {
		m->facts =
			row->host != NULL ? (Tb__NodeHost *)message_copy(&row->host->base) : NULL;
	} else if (m->board_count < LIMIT_NODES) {
		m->boards[m->board_count++] = row->id;
		if (row->host == NULL || !row->host->hosts)
			return 0;
		m->boards[m->board_count - 1] = m->boards[m->hosting_boards];
		m->boards[m->hosting_boards++] = row->id;
	}
	return 0;
}

static int model_collect(struct host *h, struct model_read *m, uint64_t *ret_applied)
{
	Tb__Cluster *cluster;
	int rv = store_begin(h->store);

	if (rv != 0)
		return rv;
	rv = store_applied(h->store, ret_applied);
	rv = rv != 0 ? rv : store_vms(h->store, vm_visit, m);
	rv = rv != 0 ? rv : store_images(h->store, image_visit, m);
	rv = rv != 0 ? rv : store_nodes(h->store, node_visit, m);
	if (rv == 0 && store_cluster_get(h->store, &cluster) == 0) {
		h->level = cluster->level;
		tb__cluster__free_unpacked(cluster, NULL);
	}
	store_rollback(h->store);
	return rv;
}

static bool vm_exists(void *arg, uint64_t vm)
{
	const struct model_read *m = arg;

	for (size_t i = 0; i < m->all_count; i++)
		if (m->all[i] == vm)
			return true;
	return false;
}

/* Only by a model that is as new as the leader's: an older one does not know newer VMs. */
static bool model_is_new(const struct host *h)
{
	return h->fence != UINT64_MAX && h->applied >= h->fence &&
	       clock_boottime_ms() < h->lease_until_ms;
}

static void rows_free(struct host *h)
{
	for (size_t i = 0; i < h->row_count; i++)
		tb__vm__free_unpacked(h->rows[i], NULL);
	free(h->rows);
	h->rows = NULL;
	h->row_count = 0;
}

static void images_tell(struct host *h, const struct model_read *m)
{
	const struct image_keeper_model model = {
		.images = (const Tb__Image *const *)m->images,
		.image_count = m->image_count,
		.boards = m->boards,
		.board_count = m->board_count,
		.hosts = h->facts_now != NULL && h->facts_now->hosts,
		.newest = model_is_new(h),
	};

	image_keeper_model(h->keeper, &model);
}

/* The images first: a VM is prepared only with an image that the keeper has heard of. */
static void model_take(struct host *h, struct model_read *m)
{
	rows_free(h);
	h->rows = m->vms;
	h->row_count = m->vm_count;
	if (h->facts_model != NULL)
		tb__node_host__free_unpacked(h->facts_model, NULL);
	h->facts_model = m->facts;
	images_tell(h, m);
	hosting_model(h->hosting, h->applied, (const Tb__Vm *const *)h->rows, h->row_count,
		      clock_boottime_ms());
	if (h->sweep && model_is_new(h)) {
		h->sweep = false;
		host_vms_sweep(h, vm_exists, m);
	}
	host_facts_compare(h);
	host_step(h);
}

static void model_free(struct model_read *m)
{
	for (size_t i = 0; i < m->image_count; i++)
		tb__image__free_unpacked(m->images[i], NULL);
	free(m->images);
	free(m->all);
}

/* Another cluster than before, or the first one. What ran by the old model ends. */
static void home_take(struct host *h, uint64_t node)
{
	if (h->node == node)
		return;
	if (h->hosting != NULL) {
		log_warning("vms-ended",
			    "this board is board %" PRIu64 " now, its VMs of before end", node);
		host_vms_kill(h);
		hosting_free(h->hosting);
	}
	h->node = node;
	h->hosting = node != 0 ? hosting_new(node, clock_boottime_ms()) : NULL;
	lease_tell(h);
}

static void model_read(struct host *h)
{
	struct model_read m = {0};
	const char *path = core_model_path(h->core);
	int rv;

	home_take(h, atomic_load(&core_view(h->core)->node_id));
	if (h->hosting == NULL || *path == '\0' || h->stopping)
		return;
	if (h->store == NULL && store_open_reader(path, &h->store) != 0) {
		h->store = NULL;
		return;
	}
	m.node = h->node;
	rv = model_collect(h, &m, &h->applied);
	if (rv != 0) {
		log_error("model-read", "the host cannot read the model: %s",
			  store_error(h->store));
		for (size_t i = 0; i < m.vm_count; i++)
			tb__vm__free_unpacked(m.vms[i], NULL);
		free(m.vms);
		if (m.facts != NULL)
			tb__node_host__free_unpacked(m.facts, NULL);
	} else {
		model_take(h, &m);
	}
	model_free(&m);
}

static void on_reread(uv_timer_t *timer)
{
	model_read(timer->data);
}

static void on_facts(uv_timer_t *timer)
{
	struct host *h = timer->data;

	h->sweep = true;
	host_facts_tick(h);
	model_read(h);
}

/* --- links --- */

struct host_dial {
	struct list link;
	uint64_t id;
	host_dialed done;
	void *arg;
};

uint64_t host_dial(struct host *h, uint64_t node, host_dialed done, void *arg)
{
	struct host_dial *d = mem_zalloc(sizeof(*d));
	Tb__Node *row;

	d->id = ++h->next_dial;
	d->done = done;
	d->arg = arg;
	list_append(&h->dials, &d->link);
	if (h->store == NULL || store_node_get(h->store, node, &row) != 0) {
		host_link_dialed(h, d->id, -EHOSTUNREACH);
		return d->id;
	}
	front_host_dial(h->front, d->id, row->address, node);
	tb__node__free_unpacked(row, NULL);
	return d->id;
}

void host_undial(struct host *h, uint64_t dial_id)
{
	list_for_each_safe (at, &h->dials) {
		struct host_dial *d = list_entry(at, struct host_dial, link);

		if (d->id != dial_id)
			continue;
		list_remove(&d->link);
		free(d);
	}
}

static void dialed(struct host *h, uint64_t id, int fd)
{
	list_for_each_safe (at, &h->dials) {
		struct host_dial *d = list_entry(at, struct host_dial, link);

		if (d->id != id)
			continue;
		list_remove(&d->link);
		d->done(d->arg, fd);
		free(d);
		return;
	}
	if (fd >= 0)
		close(fd);
}

/* A link whose purpose is not known yet. */
struct entrant {
	struct list link;
	struct host *host;
	struct host_link *line;
	uint64_t deadline_ms; /* of uv_now */
};

static void entrant_free(struct entrant *e)
{
	list_remove(&e->link);
	e->host->entrant_count--;
	free(e);
}

static void entrant_frame(void *arg, struct host_link *l, const Tb__HostFrame *frame)
{
	struct entrant *e = arg;
	struct host *h = e->host;

	entrant_free(e);
	if (frame->what_case == TB__HOST_FRAME__WHAT_IMAGE_GET)
		image_keeper_serve(h->keeper, l, frame->image_get);
	else if (frame->what_case == TB__HOST_FRAME__WHAT_CONSOLE_OPEN)
		host_console_serve(h, l, frame->console_open);
	else
		host_link_close(l, "this board does not know what the link is for");
}

static void entrant_closed(void *arg, struct host_link *l, const char *why)
{
	(void)l;
	(void)why;
	entrant_free(arg);
}

static const struct host_link_events entrant_events = {
	.frame = entrant_frame,
	.closed = entrant_closed,
};

static struct entrant *entrant_oldest(const struct host *h)
{
	return list_empty(&h->entrants) ? NULL : list_entry(h->entrants.next, struct entrant, link);
}

static void on_entrants_due(uv_timer_t *timer);

static void entrants_due_set(struct host *h)
{
	const struct entrant *e = entrant_oldest(h);
	uint64_t now = uv_now(&h->loop);

	if (e == NULL)
		uv_timer_stop(&h->entrants_due);
	else
		uv_timer_start(&h->entrants_due, on_entrants_due,
			       e->deadline_ms > now ? e->deadline_ms - now : 0, 0);
}

/* There are only so many places: who says nothing is not to keep the others out. */
static void on_entrants_due(uv_timer_t *timer)
{
	struct host *h = timer->data;
	struct entrant *e;

	while ((e = entrant_oldest(h)) != NULL && e->deadline_ms <= uv_now(&h->loop)) {
		log_notice("host-link-silent",
			   "a link from board %" PRIu64 " is closed: it has not said in %" PRIu64
			   " s what it is for",
			   host_link_node(e->line), h->entrant_ms / 1000);
		host_link_close(e->line, "this board was not told in time what the link is for");
		entrant_free(e);
	}
	entrants_due_set(h);
}

static void accepted(struct host *h, uint64_t node, int fd)
{
	struct entrant *e;

	if (h->stopping || h->entrant_count == ENTRANTS_MAX) {
		close(fd);
		return;
	}
	e = mem_zalloc(sizeof(*e));
	e->host = h;
	list_append(&h->entrants, &e->link);
	h->entrant_count++;
	e->deadline_ms = uv_now(&h->loop) + h->entrant_ms;
	e->line = host_link_new(&h->loop, node, fd, &entrant_events, e);
	if (e->line == NULL)
		entrant_free(e);
	entrants_due_set(h);
}

static void entrants_drop(struct host *h)
{
	list_for_each_safe (at, &h->entrants) {
		struct entrant *e = list_entry(at, struct entrant, link);

		host_link_abort(e->line);
		entrant_free(e);
	}
}

struct link_letter {
	struct letter letter;
	struct host *host;
	uint64_t dial_id; /* 0: accepted */
	uint64_t node;
	int fd;
};

static void link_open(struct letter *letter)
{
	struct link_letter *l = list_entry(letter, struct link_letter, letter);

	if (l->dial_id != 0)
		dialed(l->host, l->dial_id, l->fd);
	else
		accepted(l->host, l->node, l->fd);
	free(l);
}

static void link_post(struct host *h, uint64_t dial_id, uint64_t node, int fd)
{
	struct link_letter *l = mem_zalloc(sizeof(*l));

	*l = (struct link_letter){
		.letter.open = link_open, .host = h, .dial_id = dial_id, .node = node, .fd = fd};
	if (mailbox_answer(&h->mailbox, &l->letter) == 0)
		return;
	if (fd >= 0)
		close(fd);
	free(l);
}

void host_link_accepted(struct host *h, uint64_t node, int fd)
{
	link_post(h, 0, node, fd);
}

void host_link_dialed(struct host *h, uint64_t dial_id, int fd_or_error)
{
	link_post(h, dial_id, 0, fd_or_error);
}

/* --- the image keeper's wishes --- */

struct keeper_dial {
	struct host *host;
	uint64_t id;
};

static void keeper_dialed(void *arg, int fd_or_error)
{
	struct keeper_dial *d = arg;

	image_keeper_dialed(d->host->keeper, d->id, fd_or_error);
	free(d);
}

static void keeper_dial(void *arg, uint64_t dial_id, uint64_t node)
{
	struct keeper_dial *d = mem_zalloc(sizeof(*d));

	*d = (struct keeper_dial){.host = arg, .id = dial_id};
	host_dial(arg, node, keeper_dialed, d);
}

static void keeper_changed(void *arg)
{
	host_vms_retry(arg);
	host_say(arg);
}

/* --- uploads --- */

struct upload {
	struct letter letter;
	struct host *host;
	struct mailbox *home;
	char sha256[72];
	uint64_t size, offset;
	void *bytes;
	size_t len;
	host_uploaded done;
	void *arg;
	/* the answer */
	int error;
	char message[LIMIT_MESSAGE + 1];
	uint64_t have;
	bool whole;
};

static void upload_free(struct upload *u)
{
	free(u->bytes);
	free(u);
}

static void upload_answer_open(struct letter *letter)
{
	struct upload *u = list_entry(letter, struct upload, letter);

	u->done(u->arg, u->error, u->message, u->have, u->whole);
	upload_free(u);
}

static void uploaded(void *arg, int error, const char *message, uint64_t have, bool done)
{
	struct upload *u = arg;

	u->error = error;
	snprintf(u->message, sizeof(u->message), "%s", message != NULL ? message : "");
	u->have = have;
	u->whole = done;
	u->letter.open = upload_answer_open;
	if (mailbox_answer(u->home, &u->letter) != 0)
		upload_free(u);
}

static void upload_open(struct letter *letter)
{
	struct upload *u = list_entry(letter, struct upload, letter);

	if (u->host->stopping) {
		uploaded(u, -ESHUTDOWN, "this board is stopping; try another one", 0, false);
		return;
	}
	image_keeper_upload(u->host->keeper, u->sha256, u->size, u->offset, u->bytes, u->len,
			    uploaded, u);
}

void host_upload(struct host *h, struct mailbox *home, const char *sha256, uint64_t size,
		 uint64_t offset, const void *bytes, size_t len, host_uploaded done, void *arg)
{
	struct upload *u = mem_zalloc(sizeof(*u));

	*u = (struct upload){.letter.open = upload_open,
			     .host = h,
			     .home = home,
			     .size = size,
			     .offset = offset,
			     .bytes = len > 0 ? mem_dup(bytes, len) : NULL,
			     .len = len,
			     .done = done,
			     .arg = arg};
	snprintf(u->sha256, sizeof(u->sha256), "%s", sha256);
	if (mailbox_answer(&h->mailbox, &u->letter) != 0)
		uploaded(u, -ESHUTDOWN, "this board is stopping; try another one", 0, false);
}

/* --- letters from the core --- */

static void model_open(struct letter *letter)
{
	struct host *h = list_entry(letter, struct host, model_letter);

	atomic_flag_clear(&h->model_posted);
	if (!h->stopping && !uv_is_active((uv_handle_t *)&h->reread))
		uv_timer_start(&h->reread, on_reread, HOST_MODEL_MS, 0);
}

void host_model_changed(struct host *h, uint64_t applied_index)
{
	(void)applied_index;
	if (!atomic_flag_test_and_set(&h->model_posted))
		mailbox_answer(&h->mailbox, &h->model_letter);
}

static void identity_open(struct letter *letter)
{
	struct host *h = list_entry(letter, struct host, identity_letter);

	atomic_flag_clear(&h->identity_posted);
	store_close(h->store);
	h->store = NULL;
	model_read(h);
}

void host_identity_changed(struct host *h)
{
	if (!atomic_flag_test_and_set(&h->identity_posted))
		mailbox_answer(&h->mailbox, &h->identity_letter);
}

static void lease_open(struct letter *letter)
{
	struct host *h = list_entry(letter, struct host, lease_letter);

	atomic_flag_clear(&h->lease_posted);
	pthread_mutex_lock(&h->lock);
	h->lease_until_ms = h->said_until_ms;
	h->fence = h->said_fence;
	h->said_ms = 0;
	pthread_mutex_unlock(&h->lock);
	lease_tell(h);
}

void host_lease(struct host *h, uint64_t until_ms, uint64_t fence)
{
	pthread_mutex_lock(&h->lock);
	h->said_until_ms = until_ms;
	h->said_fence = fence;
	if (h->said_ms == 0)
		h->said_ms = clock_boottime_ms();
	pthread_mutex_unlock(&h->lock);
	if (!atomic_flag_test_and_set(&h->lease_posted))
		mailbox_answer(&h->mailbox, &h->lease_letter);
}

uint64_t host_waits_ms(struct host *h)
{
	uint64_t since_ms;

	pthread_mutex_lock(&h->lock);
	since_ms = h->over ? 0 : h->said_ms;
	pthread_mutex_unlock(&h->lock);
	return since_ms;
}

static void report_open(struct letter *letter)
{
	struct host *h = list_entry(letter, struct host, report_letter);

	atomic_flag_clear(&h->report_posted);
	host_say(h);
}

void host_report(struct host *h)
{
	if (!atomic_flag_test_and_set(&h->report_posted))
		mailbox_answer(&h->mailbox, &h->report_letter);
}

/* --- numbers --- */

static void gauge_states(struct host *h, bool open, struct buf *out)
{
	static const char name[] = "tiebreak_vms";

	metrics_head(out, open, METRIC_GAUGE, name, "Virtual machines on this board, by state.");
	for (unsigned i = 0; i <= TB__VM_CONDITION__VM_CONDITION_ENDED; i++) {
		char word[64];
		char label[96];

		snprintf(label, sizeof(label), "state=\"%s\"",
			 json_enum_word(&tb__vm_condition__descriptor, (int)i, word));
		metrics_sample(out, open, METRIC_GAUGE, name, label,
			       (double)atomic_load(&h->counters.vms[i]));
	}
}

static void counter(struct buf *out, bool open, const char *name, const char *help, uint64_t value)
{
	metrics_head(out, open, METRIC_COUNTER, name, help);
	metrics_sample(out, open, METRIC_COUNTER, name, "", (double)value);
}

void host_metrics(void *host, bool open, struct buf *out)
{
	struct host *h = host;

	gauge_states(h, open, out);
	counter(out, open, "tiebreak_vm_starts", "Processes of virtual machines started.",
		atomic_load(&h->counters.starts));
	counter(out, open, "tiebreak_vm_failures",
		"Virtual machines that did not start, or ended otherwise than by powering off.",
		atomic_load(&h->counters.failures));
	counter(out, open, "tiebreak_vm_lapses",
		"Virtual machines that ended with their lease, or with that of their board.",
		atomic_load(&h->counters.lapses));
	counter(out, open, "tiebreak_vm_renewals_late",
		"Renewals of a lease that a virtual machine's process was slow to answer.",
		atomic_load(&h->counters.late));
}

/* --- life --- */

/* Down the list of what was opened, each step when the one before is over. */

static void handle_closed(uv_handle_t *handle)
{
	(void)handle;
}

static void mailbox_closed(struct mailbox *m)
{
	(void)m;
}

static void handles_close(struct host *h)
{
	uv_close((uv_handle_t *)&h->due, handle_closed);
	uv_close((uv_handle_t *)&h->reread, handle_closed);
	uv_close((uv_handle_t *)&h->facts, handle_closed);
	uv_close((uv_handle_t *)&h->probe, handle_closed);
	uv_close((uv_handle_t *)&h->entrants_due, handle_closed);
	mailbox_close(&h->mailbox, mailbox_closed);
}

static void keeper_closed(void *arg)
{
	struct host *h = arg;

	h->keeper = NULL;
	handles_close(h);
}

void host_maybe_stopped(struct host *h)
{
	if (!h->stopping || h->ended || !host_vms_gone(h) || h->workers > 0)
		return;
	h->ended = true;
	entrants_drop(h);
	host_consoles_close(h->consoles);
	host_vms_free(h);
	list_for_each_safe (at, &h->dials)
		dialed(h, list_entry(at, struct host_dial, link)->id, -ESHUTDOWN);
	image_keeper_close(h->keeper, keeper_closed, h);
}

static void on_stopping(uv_timer_t *timer)
{
	struct host *h = timer->data;

	if (h->force_ms != 0 && clock_boottime_ms() >= h->force_ms) {
		log_warning("vms-killed", "VMs that did not shut down in time are ended by force");
		h->force_ms = 0;
		host_vms_kill(h);
	}
	host_maybe_stopped(h);
}

static void stop_open(struct letter *letter)
{
	struct host *h = list_entry(letter, struct host, stop_letter);

	h->stopping = true;
	uv_timer_stop(&h->reread);
	uv_timer_stop(&h->facts);
	uv_timer_stop(&h->probe);
	if (!host_vms_gone(h))
		log_notice("vms-stopping", "the VMs of this board are asked to shut down");
	host_vms_cancel(h);
	host_vms_button(h);
	h->force_ms = clock_boottime_ms() + HOST_STOP_MS;
	uv_timer_start(&h->due, on_stopping, 0, STOP_STEP_MS);
}

static void *host_run(void *arg)
{
	struct host *h = arg;
	struct problem problem;

	/* For a person who looks for the thread that hangs. */
	(void)prctl(PR_SET_NAME, "vm-host", 0, 0, 0);
	if (vm_cgroup_begin(h->cgroups, &problem) < 0) {
		h->cgroups[0] = '\0';
		log_info("vm-limits", "VMs have no limits of a cgroup: %s", problem.text);
	} else if (problem.text[0] != '\0') {
		log_warning("vm-limits", "the memory of VMs' processes is not limited: %s",
			    problem.text);
	}
	host_facts_begin(h);
	uv_timer_start(&h->facts, on_facts, 0, HOST_FACTS_MS);
	uv_run(&h->loop, UV_RUN_DEFAULT);
	store_close(h->store);
	h->store = NULL;
	return NULL;
}

static struct host *host_new(const struct config *config, struct core *core, struct front *front)
{
	struct host *h = mem_zalloc(sizeof(*h));
	int rv = uv_loop_init(&h->loop);

	assert(rv == 0);
	h->core = core;
	h->front = front;
	h->vms_dir = mem_printf("%s/vms", config->data_dir);
	h->program = mem_strdup(config->vm_program);
	h->kvm = "/dev/kvm";
	h->uid_base = (uint32_t)config->vm_uid_base;
	h->reserve_mib = config->vm_memory_reserve_mib;
	h->root = geteuid() == 0;
	h->fence = h->said_fence = UINT64_MAX;
	h->entrant_ms = HOST_ENTRANT_MS;
	h->probe_ms = HOST_PROBE_MS;
	h->model_letter.open = model_open;
	h->identity_letter.open = identity_open;
	h->lease_letter.open = lease_open;
	h->report_letter.open = report_open;
	h->stop_letter.open = stop_open;
	atomic_flag_clear(&h->model_posted);
	atomic_flag_clear(&h->identity_posted);
	atomic_flag_clear(&h->lease_posted);
	atomic_flag_clear(&h->report_posted);
	list_init(&h->vms);
	list_init(&h->dials);
	list_init(&h->entrants);
	pthread_mutex_init(&h->lock, NULL);
	mailbox_init(&h->mailbox, &h->loop, HOST_MAILBOX_LIMIT);
	uv_timer_init(&h->loop, &h->due);
	uv_timer_init(&h->loop, &h->reread);
	uv_timer_init(&h->loop, &h->facts);
	uv_timer_init(&h->loop, &h->probe);
	uv_timer_init(&h->loop, &h->entrants_due);
	h->due.data = h->reread.data = h->facts.data = h->probe.data = h->entrants_due.data = h;
	h->consoles = host_consoles_new(h);
	return h;
}

int host_start(const struct config *config, struct core *core, struct front *front,
	       struct host **ret, const char **ret_message)
{
	struct host *h = host_new(config, core, front);
	const struct image_keeper_config keeper = {
		.loop = &h->loop,
		.data_dir = config->data_dir,
		.run_dir = config->run_dir,
		.space = config->image_space_mib << 20,
		.arg = h,
		.dial = keeper_dial,
		.changed = keeper_changed,
	};
	int rv = image_keeper_new(&keeper, &h->keeper, ret_message);

	if (rv == 0) {
		rv = -pthread_create(&h->thread, NULL, host_run, h);
		*ret_message = "no thread could be made";
		h->threaded = rv == 0;
	}
	if (rv != 0) {
		h->stopping = true;
		if (h->keeper != NULL) {
			host_maybe_stopped(h);
		} else {
			host_consoles_close(h->consoles);
			handles_close(h);
		}
		uv_run(&h->loop, UV_RUN_DEFAULT);
		host_free(h);
		return rv;
	}
	*ret = h;
	return 0;
}

void host_stop(struct host *h)
{
	if (h == NULL || !h->threaded)
		return;
	mailbox_answer(&h->mailbox, &h->stop_letter);
	pthread_join(h->thread, NULL);
	h->threaded = false;
	pthread_mutex_lock(&h->lock);
	h->over = true;
	pthread_mutex_unlock(&h->lock);
}

void host_free(struct host *h)
{
	int rv;

	if (h == NULL)
		return;
	assert(!h->threaded);
	rv = uv_loop_close(&h->loop);
	assert(rv == 0);
	rows_free(h);
	hosting_free(h->hosting);
	host_facts_free(h);
	host_consoles_free(h->consoles);
	pthread_mutex_destroy(&h->lock);
	free(h->vms_dir);
	free(h->program);
	free(h);
}
