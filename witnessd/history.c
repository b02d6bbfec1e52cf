/* history.c: a new history of a cluster: `cluster restore` (from a backup, on a new board) and
 * `cluster recover` (from what this board has, after the majority is lost for good).
 *
 * restore: the file checked -> keys and certificate for this board, by the CA of the backup -> log
 *          bootstrapped -> ClusterRestore entries committed, the last one makes the cluster ->
 *          identity.json written. A crash before the last step leaves a new board, as with init.
 * recover: the model, and behind it what the log has beyond it, written to a backup file -> the
 * engine closed, identity and log moved aside -> restore from that file. A crash in between leaves
 * a new board and the file to restore.
 *
 * The new history has another cluster id, another board id and higher epochs, and the boards' old
 * certificates are revoked in it: nothing of the old one can be mistaken for it. Votes of the old
 * one are waited for (Cluster.hold_ms). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster/backup.h"
#include "cluster/hold.h"
#include "cluster/snapshot.h"
#include "lib/clock.h"
#include "lib/hex.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "witnessd/admit.h"

enum {
	ROWS_BYTES = 256 << 10, /* of rows in one entry */
	LEADERLESS_MS = 10000, /* so long without a leader before a recovery */
};

struct restoration {
	struct core *core;
	struct control *control;
	struct buf model; /* a snapshot */
	struct snapshot_reader rest;
	Tb__ClusterRestore__Final *final; /* NULL once it is proposed */
	char *advice; /* for a failure */
	uint64_t old_node; /* recovery: what this board was in the old history; 0: a restore */
};

static void restoration_free(struct restoration *r)
{
	if (r->model.data != NULL)
		mem_wipe(r->model.data, r->model.cap);
	buf_free(&r->model);
	if (r->final != NULL)
		protobuf_c_message_free_unpacked(&r->final->base, NULL);
	free(r->advice);
	free(r);
}

/* Before anything was committed: the board is as new. */
static void restoration_refuse(struct restoration *r, int error, const char *message)
{
	struct core *c = r->core;
	char text[512];

	snprintf(text, sizeof(text), "%s%s", message, r->advice != NULL ? r->advice : "");
	c->restoration = NULL;
	identity_free(&c->identity);
	core_set_state(c, CORE_NEW, "%s", text);
	control_finish(r->control, error, text);
	restoration_free(r);
}

/* --- what the model says --- */

static int restoration_keys(struct restoration *r, Tb__ClusterRestore__Final *final,
			    const char **ret_message)
{
	struct identity *id = &r->core->identity;
	int64_t now = core_now_ms(r->core);
	struct pki_signed made = {0};
	uint8_t random[16];
	char *csr = NULL;
	int rv;

	*ret_message = "OpenSSL cannot make a key";
	rv = pki_key_new(&id->key);
	if (rv == 0)
		rv = pki_request_new(id->node_name, id->key, &csr);
	if (rv == 0)
		rv = admit_certificate(
			&(struct admit_signer){final->secrets->ca_cert, final->secrets->ca_key,
					       admit_life_ms(final->cluster)},
			csr, id->node_id, id->node_name, now, &made, ret_message);
	free(csr);
	if (rv != 0)
		return rv;
	rng_fill(random, sizeof(random));
	hex_encode(random, sizeof(random), id->cluster_id);
	id->cert = mem_strdup(made.pem);
	id->ca_cert = mem_strdup(final->secrets->ca_cert);
	final->cluster->level = LEVEL_HERE;
	free(final->cluster->id);
	final->cluster->id = mem_strdup(id->cluster_id);
	final->node = mem_alloc(sizeof(*final->node));
	admit_node_row(final->node, id, TB__NODE_ROLE__NODE_ROLE_VOTER, now);
	final->certificate = mem_alloc(sizeof(*final->certificate));
	admit_certificate_row(final->certificate, &made, id->ca_cert, id->node_name,
			      "cluster restore", now);
	pki_signed_free(&made);
	return 0;
}

/* The last entry, and this board's identity in the new history. */
static int restoration_final(struct restoration *r, struct store *old, const char *source,
			     const char **ret_message)
{
	Tb__ClusterRestore__Final *final = mem_alloc(sizeof(*final));
	uint64_t last_node = 0;
	int rv;

	tb__cluster_restore__final__init(final);
	r->final = final;
	final->source = mem_strdup(source);
	final->old_node = r->old_node;
	*ret_message = "the backup holds no whole cluster";
	rv = store_cluster_get(old, &final->cluster);
	if (rv == 0)
		rv = store_secrets_get(old, &final->secrets);
	if (rv == 0)
		rv = store_counter_get(old, "node", &last_node);
	if (rv == 0)
		rv = hold_votes_ms(old, &final->hold_ms);
	r->core->identity.node_id = last_node + 1;
	return rv == 0 ? restoration_keys(r, final, ret_message) : rv;
}

/* --- into the new log --- */

static void restoration_next(struct restoration *r);

static void restoration_done(struct restoration *r)
{
	struct core *c = r->core;
	const char *message = NULL;
	int rv = identity_save(c->data_dir, &c->identity, &message);

	c->restoration = NULL;
	if (rv == 0) {
		log_notice("cluster-restored", "a new history begins as cluster %s",
			   c->identity.cluster_id);
		c->model_dirty = true;
		c->nodes_dirty = true;
		c->listeners.identity_changed(c->listeners.arg);
	} else {
		core_set_state(c, CORE_FAILED, "%s; restart witnessd and try again", message);
	}
	control_finish(r->control, rv, message);
	restoration_free(r);
}

static void restoration_committed(void *arg, int error, Tb__CommandResult *const *results,
				  size_t count)
{
	struct restoration *r = arg;
	char text[512];

	(void)count;
	if (error == 0 && results[0]->refusal != 0)
		error = -EINVAL;
	if (error == 0 && r->final == NULL) {
		restoration_done(r);
		return;
	}
	if (error == 0) {
		restoration_next(r);
		return;
	}
	/* The daemon holds a log that no identity belongs to: only a restart is clean. */
	snprintf(text, sizeof(text), "the restore failed: %s; restart witnessd and try again%s",
		 error == -EINVAL ? results[0]->message : strerror(-error),
		 r->advice != NULL ? r->advice : "");
	core_set_state(r->core, CORE_FAILED, "%s", text);
	r->core->restoration = NULL;
	control_finish(r->control, error, text);
	restoration_free(r);
}

static bool row_is_restored(unsigned row)
{
	return row == TB__SNAPSHOT__RECORD__ROW_TOKEN || row == TB__SNAPSHOT__RECORD__ROW_SITE ||
	       row == TB__SNAPSHOT__RECORD__ROW_GRANT ||
	       row == TB__SNAPSHOT__RECORD__ROW_CERTIFICATE ||
	       row == TB__SNAPSHOT__RECORD__ROW_EVENT || row == TB__SNAPSHOT__RECORD__ROW_COUNTER ||
	       row == TB__SNAPSHOT__RECORD__ROW_IMAGE || row == TB__SNAPSHOT__RECORD__ROW_VM;
}

static void rows_add(Tb__ClusterRestore *op, const struct snapshot_record *record)
{
	Tb__ClusterRestore__Row *row = mem_alloc(sizeof(*row));

	tb__cluster_restore__row__init(row);
	row->row = record->row;
	row->body.len = record->len;
	row->body.data = mem_dup(record->body, record->len);
	if ((op->n_rows & (op->n_rows - 1)) == 0)
		op->rows = mem_realloc(op->rows,
				       (op->n_rows == 0 ? 1 : op->n_rows * 2) * sizeof(*op->rows));
	op->rows[op->n_rows++] = row;
}

/* As many rows as go into an entry, or the end. */
static void restoration_next(struct restoration *r)
{
	Tb__ClusterRestore *op = mem_alloc(sizeof(*op));
	Tb__Command *command = proposal_command(mem_strdup("cluster restore"));
	struct snapshot_record record;
	size_t bytes = 0;

	tb__cluster_restore__init(op);
	while (bytes < ROWS_BYTES && snapshot_next(&r->rest, &record) > 0) {
		if (!row_is_restored(record.row))
			continue;
		rows_add(op, &record);
		bytes += record.len;
	}
	if (op->n_rows == 0) {
		op->final = r->final;
		r->final = NULL;
	}
	command->op_case = TB__COMMAND__OP_CLUSTER_RESTORE;
	command->cluster_restore = op;
	proposal_one(r->core, command, restoration_committed, r);
}

/* r->model is whole and c->identity has the names; nothing else of this board is in a cluster. */
static void restoration_begin(struct restoration *r, struct store *old, const char *source)
{
	struct core *c = r->core;
	const char *message = NULL;
	int rv = restoration_final(r, old, source, &message);

	c->restoration = r;
	if (rv == 0)
		rv = snapshot_open(r->model.data, r->model.len, &r->rest, &message);
	if (rv == 0) {
		core_wipe_raft(c);
		rv = identity_log_mark(c->raft_dir, &c->identity, &message);
	}
	if (rv == 0)
		rv = core_serve(c, true, &message);
	if (rv == 0)
		restoration_next(r);
	else
		restoration_refuse(r, rv, message);
}

/* --- restore --- */

/* The model of a backup in a store of its own. */
static int model_load(const uint8_t *model, size_t len, struct store **ret,
		      const char **ret_message)
{
	int rv = store_open(":memory:", ret);

	*ret_message = "there is no memory for the model";
	if (rv != 0)
		return rv;
	rv = store_restore(*ret, model, len);
	if (rv == 0)
		return 0;
	store_close(*ret);
	*ret = NULL;
	*ret_message = "the backup is damaged, or of a later release";
	return rv;
}

static int restore_check(struct core *c, struct control *k, char text[512])
{
	if (c->stopping) {
		snprintf(text, 512, "the daemon is stopping");
		return -ESHUTDOWN;
	}
	if (c->identity.node_id != 0 || c->join != NULL || c->init != NULL ||
	    c->restoration != NULL) {
		snprintf(text, 512,
			 "this board is already in a cluster; a backup is restored on a new board, "
			 "or after witnessd was stopped and its data directory removed");
		return -EEXIST;
	}
	if (admit_clock_check(text, 512) != 0)
		return -EINVAL;
	return admit_names(c, &c->identity, k->init->node_name, k->init->address,
			   k->init->qnet_address, text, 512);
}

static void restore_from(struct control *k, const Tb__BackupHead *head, const uint8_t *model,
			 size_t len)
{
	struct core *c = k->core;
	struct restoration *r;
	const char *message = NULL;
	char source[160];
	char taken[32];
	struct store *old;

	if (model_load(model, len, &old, &message) != 0) {
		identity_free(&c->identity);
		control_finish(k, -EBADMSG, message);
		return;
	}
	r = mem_zalloc(sizeof(*r));
	r->core = c;
	r->control = k;
	buf_append(&r->model, model, len);
	clock_format_utc(head->taken_ms, taken);
	snprintf(source, sizeof(source), "the backup that %.64s took at %s", head->board, taken);
	restoration_begin(r, old, source);
	store_close(old);
}

static void restore_open(struct letter *letter)
{
	struct control *k = list_entry(letter, struct control, letter);
	struct core *c = k->core;
	Tb__BackupHead *head = NULL;
	const char *message = NULL;
	const uint8_t *model;
	char text[512];
	size_t len;
	int rv = restore_check(c, k, text);

	if (rv != 0) {
		control_finish(k, rv, text);
		return;
	}
	rv = backup_open(k->backup.data, k->backup.len, &head, &model, &len, &message);
	if (rv == 0 && k->init->name[0] != '\0' && strcmp(k->init->name, head->cluster_name) != 0) {
		snprintf(text, sizeof(text), "the backup is of cluster \"%s\", not of \"%s\"",
			 head->cluster_name, k->init->name);
		message = text;
		rv = -EINVAL;
	}
	if (rv == 0) {
		restore_from(k, head, model, len);
	} else {
		identity_free(&c->identity);
		control_finish(k, rv, message);
	}
	tb__backup_head__free_unpacked(head, NULL);
}

void core_restore_cluster(struct core *c, struct mailbox *home,
			  const Tb__ClusterInitRequest *request, const uint8_t *backup, size_t len,
			  core_controlled done, void *arg)
{
	struct control *k = mem_zalloc(sizeof(*k));
	int rv;

	k->letter.open = restore_open;
	k->core = c;
	k->home = home;
	k->done = done;
	k->arg = arg;
	k->init = (Tb__ClusterInitRequest *)message_copy(&request->base);
	buf_append(&k->backup, backup, len);
	rv = mailbox_post(&c->mailbox, &k->letter);
	if (rv != 0)
		control_finish(k, rv, "the daemon is stopping");
}

/* --- recover --- */

static int tail_visit(void *arg, uint64_t index, const uint8_t *data, size_t len)
{
	struct apply_result result = {0};
	int rv = apply_entry(arg, index, data, len, &result);

	if (rv == 0)
		apply_result_free(&result);
	return rv;
}

/* All that this board has, agreed upon or not: whoever was told of a write wants to find it. */
static int recover_model(struct core *c, struct store **ret, struct buf *model,
			 const char **ret_message)
{
	struct buf agreed = {0};
	int rv = store_snapshot(c->store, &agreed);

	*ret_message = "the model of this board cannot be read";
	if (rv == 0)
		rv = model_load(agreed.data, agreed.len, ret, ret_message);
	if (agreed.data != NULL)
		mem_wipe(agreed.data, agreed.cap);
	buf_free(&agreed);
	if (rv != 0)
		return rv;
	rv = engine_tail(c->engine, tail_visit, *ret);
	if (rv == 0)
		rv = store_snapshot(*ret, model);
	if (rv != 0)
		*ret_message = "the end of this board's log cannot be applied";
	return rv;
}

static int lost_visit(void *arg, const Tb__Node *node)
{
	struct restoration *r = arg;
	Tb__ClusterRecovery *plan = r->control->recovery;

	if (node->id == r->core->identity.node_id)
		return 0;
	plan->lost = mem_realloc(plan->lost, (plan->n_lost + 1) * sizeof(*plan->lost));
	plan->lost[plan->n_lost++] = mem_strdup(node->name);
	return 0;
}

static int newest_visit(void *arg, const Tb__Event *event)
{
	*(int64_t *)arg = event->time_ms;
	return 1;
}

static void recover_plan(struct restoration *r, struct store *all)
{
	Tb__ClusterRecovery *plan = mem_alloc(sizeof(*plan));
	uint64_t sites = 0;

	tb__cluster_recovery__init(plan);
	r->control->recovery = plan;
	plan->applied_index = engine_applied(r->core->engine);
	store_applied(all, &plan->last_index);
	store_count(all, "site", &sites);
	plan->sites = (uint32_t)sites;
	store_events_newest(all, 1, newest_visit, &plan->newest_ms);
	store_nodes(all, lost_visit, r);
}

static int recover_check(struct core *c, char text[512])
{
	if (c->stopping || c->retiring || c->restoration != NULL || c->init != NULL) {
		snprintf(text, 512, "this board is busy with its own beginning or end");
		return -EBUSY;
	}
	if (c->engine == NULL || c->store == NULL) {
		snprintf(text, 512, "this board is in no cluster");
		return -ENOTCONN;
	}
	if (engine_leader(c->engine) != 0 || c->serving ||
	    clock_boottime_ms() < c->led_ms + LEADERLESS_MS) {
		snprintf(text, 512,
			 "the cluster has a leader, or had one within the last %d s; a recovery is "
			 "for a majority that is lost for good (see \"witnessctl status\")",
			 LEADERLESS_MS / 1000);
		return -EPERM;
	}
	return admit_clock_check(text, 512);
}

/* The state of before: on disk, whatever goes wrong from here on. */
static int recover_save(struct restoration *r, const char **ret_message)
{
	struct core *c = r->core;
	Tb__BackupHead head = TB__BACKUP_HEAD__INIT;
	struct buf file = {0};
	char *name = mem_printf("before-recovery-%lld.backup", (long long)core_now_ms(c));
	int rv;

	head.taken_ms = core_now_ms(c);
	head.board = c->identity.node_name;
	head.version = (char *)TIEBREAK_VERSION;
	rv = backup_seal(&head, r->model.data, r->model.len, &file);
	if (rv == 0)
		rv = identity_file_write(c->data_dir, name, 0600, file.data, file.len);
	*ret_message = "the state of this board cannot be written to its data directory";
	if (rv == 0) {
		r->control->recovery->backup = mem_printf("%s/%s", c->data_dir, name);
		r->advice = mem_printf("; the state of before is in %s (\"witnessctl cluster "
				       "restore\" takes it)",
				       r->control->recovery->backup);
	}
	if (file.data != NULL)
		mem_wipe(file.data, file.cap);
	buf_free(&file);
	free(name);
	return rv;
}

/* The old identity first: without it the board is new, and the log beside it nobody's. */
static int recover_move(struct core *c, const char **ret_message)
{
	long long stamp = (long long)core_now_ms(c);
	char *identity = mem_printf("%s/identity.json", c->data_dir);
	char *old_identity = mem_printf("%s/identity.json.%lld", c->data_dir, stamp);
	char *old_log = mem_printf("%s/raft.%lld", c->data_dir, stamp);
	int fd = open(c->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rv = 0;

	if (fd < 0 || rename(identity, old_identity) != 0 || fsync(fd) != 0 ||
	    rename(c->raft_dir, old_log) != 0 || fsync(fd) != 0)
		rv = -errno;
	if (fd >= 0)
		close(fd);
	*ret_message = "the old log cannot be moved aside";
	free(identity);
	free(old_identity);
	free(old_log);
	return rv;
}

static void recover_forget(struct core *c)
{
	struct identity names = {0};

	memcpy(names.node_name, c->identity.node_name, sizeof(names.node_name));
	memcpy(names.address, c->identity.address, sizeof(names.address));
	memcpy(names.qnet_address, c->identity.qnet_address, sizeof(names.qnet_address));
	identity_free(&c->identity);
	c->identity = names;
	c->lease = (struct lease){0};
	c->secrets_seen = false;
	c->self_seen = false;
	c->membership_busy = false;
}

static void recover_closed(void *arg)
{
	struct restoration *r = arg;
	struct core *c = r->core;
	const char *message = NULL;
	struct store *old = NULL;
	int rv;

	c->retiring = false;
	if (c->stopping) {
		c->restoration = NULL;
		control_finish(r->control, -ECANCELED, "the daemon is stopping");
		restoration_free(r);
		core_engine_closed(c);
		return;
	}
	proposals_cancel(c);
	c->engine = NULL;
	rv = recover_move(c, &message);
	if (rv == 0)
		rv = model_load(r->model.data, r->model.len, &old, &message);
	if (rv == 0)
		rv = store_clear(c->store);
	if (rv != 0) {
		char text[512];

		snprintf(text, sizeof(text), "%s%s", message, r->advice);
		core_set_state(c, CORE_FAILED, "%s; restart witnessd", text);
		c->restoration = NULL;
		control_finish(r->control, rv, text);
		restoration_free(r);
	} else {
		r->old_node = c->identity.node_id;
		recover_forget(c);
		restoration_begin(r, old, "what this board had when the majority was lost");
	}
	store_close(old);
}

static void recover_go(struct restoration *r)
{
	struct core *c = r->core;
	const char *message = NULL;
	int rv = recover_save(r, &message);

	if (rv != 0) {
		control_finish(r->control, rv, message);
		restoration_free(r);
		return;
	}
	log_warning("recovery", "the lost majority is given up: a new history begins here");
	c->restoration = r;
	c->retiring = true;
	core_let_go(c);
	engine_close(c->engine, recover_closed, r);
}

static void recover_open(struct letter *letter)
{
	struct control *k = list_entry(letter, struct control, letter);
	struct core *c = k->core;
	struct restoration *r;
	Tb__Cluster *cluster = NULL;
	struct store *all = NULL;
	const char *message = NULL;
	char text[512];
	int rv = recover_check(c, text);

	if (rv != 0) {
		control_finish(k, rv, text);
		return;
	}
	r = mem_zalloc(sizeof(*r));
	r->core = c;
	r->control = k;
	rv = recover_model(c, &all, &r->model, &message);
	if (rv == 0) {
		rv = store_cluster_get(all, &cluster);
		message =
			"this board had not caught up with the cluster when it was lost: there is "
			"nothing to recover here";
	}
	if (rv == 0)
		recover_plan(r, all);
	if (rv == 0 && !k->recover->dry_run && strcmp(k->recover->name, cluster->name) != 0) {
		message = "that is not the name of this cluster";
		rv = -EPERM;
	}
	if (rv == 0 && !k->recover->dry_run)
		k->recovery->name = mem_strdup(cluster->name);
	tb__cluster__free_unpacked(cluster, NULL);
	store_close(all);
	if (rv == 0 && !k->recover->dry_run) {
		recover_go(r);
		return;
	}
	control_finish(k, rv, message);
	restoration_free(r);
}

void core_recover_cluster(struct core *c, struct mailbox *home,
			  const Tb__ClusterRecoverRequest *request, core_recovered done, void *arg)
{
	struct control *k = mem_zalloc(sizeof(*k));
	int rv;

	k->letter.open = recover_open;
	k->core = c;
	k->home = home;
	k->recovered = done;
	k->arg = arg;
	k->recover = (Tb__ClusterRecoverRequest *)message_copy(&request->base);
	rv = mailbox_post(&c->mailbox, &k->letter);
	if (rv != 0)
		control_finish(k, rv, "the daemon is stopping");
}
