/* admit.c: how a board gets into a cluster: `cluster init` (a new cluster of one), `cluster join`
 * (this board asks), and admission (another board asks us). DESIGN section 7.
 *
 * init:  keys and CA made -> log bootstrapped -> ClusterInit committed -> identity.json written.
 *        A crash before the last step leaves a new board; the leftovers are removed by the next
 * try. join:  key made -> JoinRequest over TLS pinned to the token's CA -> identity.json written ->
 * log started empty; the leader adds this board and makes it a voter. admit: NodeAdd committed
 * (uses the token) -> certificate signed and recorded -> JoinReply. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/hex.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "witnessd/admit.h"
#include "witnessd/core_internal.h"
#include "witnessd/pki.h"
#include "witnessd/token.h"

struct init {
	struct control *control;
	Tb__Command **commands;
	bool proposed;
};

struct join {
	struct control *control;
	uint64_t dial_id;
	uint64_t deadline_ms;
	char *key;
	struct identity identity;
	bool admitted;
};

static void control_free(struct control *k)
{
	tb__cluster_recovery__free_unpacked(k->recovery, NULL);
	free(k);
}

static void control_answer_open(struct letter *letter)
{
	struct control *k = list_entry(letter, struct control, letter);

	if (k->recovered != NULL)
		k->recovered(k->arg, k->error, k->message, k->recovery);
	else
		k->done(k->arg, k->error, k->message);
	control_free(k);
}

void control_finish(struct control *k, int error, const char *message)
{
	k->error = error;
	snprintf(k->message, sizeof(k->message), "%s", message != NULL ? message : "");
	k->letter.open = control_answer_open;
	if (k->init != NULL)
		tb__cluster_init_request__free_unpacked(k->init, NULL);
	if (k->join != NULL)
		tb__cluster_join_request__free_unpacked(k->join, NULL);
	k->init = NULL;
	k->join = NULL;
	buf_free(&k->backup);
	tb__cluster_recover_request__free_unpacked(k->recover, NULL);
	k->recover = NULL;
	if (mailbox_answer(k->home, &k->letter) != 0)
		control_free(k);
}

static const char *text_or(const char *text, const char *otherwise)
{
	return text[0] != '\0' ? text : otherwise;
}

int admit_clock_check(char *message, size_t room)
{
	char now[32];

	if (core_clock_plausible())
		return 0;
	clock_format_utc(clock_realtime_ms(), now);
	snprintf(message, room,
		 "this board's clock says %s, which cannot be; set it (timedatectl set-time, or "
		 "start "
		 "a time service) and try again",
		 now);
	return -EINVAL;
}

int admit_names(struct core *c, struct identity *id, const char *name, const char *address,
		const char *qnet_address, char *message, size_t room)
{
	struct apply_problem problem;

	name = text_or(name, c->default_name);
	address = text_or(address, c->default_address);
	qnet_address = text_or(qnet_address, c->default_qnet_address);
	if (name_check(name, "nodeName", &problem) != 0) {
		snprintf(message, room, "%s: %s", problem.field, problem.message);
		return -EINVAL;
	}
	if (strlen(address) >= sizeof(id->address) || strlen(qnet_address) >= sizeof(id->address) ||
	    strchr(address, ':') == NULL || strchr(qnet_address, ':') == NULL) {
		snprintf(message, room, "an address is written HOST:PORT, in at most %zu bytes",
			 sizeof(id->address) - 1);
		return -EINVAL;
	}
	snprintf(id->node_name, sizeof(id->node_name), "%s", name);
	snprintf(id->address, sizeof(id->address), "%s", address);
	snprintf(id->qnet_address, sizeof(id->qnet_address), "%s", qnet_address);
	return 0;
}

static int64_t days_ms(unsigned days)
{
	return (int64_t)days * 86400000;
}

/* --- certificates --- */

int64_t admit_life_ms(const Tb__Cluster *cluster)
{
	return (int64_t)(cluster != NULL && cluster->certificate_life_ms != 0
				 ? cluster->certificate_life_ms
				 : LIMIT_CERTIFICATE_LIFE_MS);
}

void admit_certificate_row(Tb__Certificate *row, const struct pki_signed *made, const char *ca_cert,
			   const char *subject, const char *by, int64_t now_ms)
{
	char sha256[65] = "";

	pki_sha256(ca_cert, sha256);
	tb__certificate__init(row);
	row->ca_sha256 = mem_strdup(sha256);
	row->serial = mem_strdup(made->serial);
	row->subject = mem_strdup(subject);
	row->kind = mem_strdup("node");
	row->role = TB__ROLE__ROLE_NODE;
	row->not_after_ms = made->not_after_ms;
	row->issued_ms = now_ms;
	row->issued_by = mem_strdup(by);
}

int admit_certificate(const struct admit_signer *signer, const char *csr, uint64_t node,
		      const char *name, int64_t now_ms, struct pki_signed *ret,
		      const char **ret_message)
{
	char uri[64];
	struct pki_sign how = {
		.ca_cert = signer->ca_cert,
		.ca_key = signer->ca_key,
		.request = csr,
		.request_len = strlen(csr),
		.common_name = name,
		.uri = uri,
		.use = PKI_NODE,
		.now_ms = core_valid_from_ms(now_ms),
		.not_after_ms = now_ms + signer->life_ms,
	};

	snprintf(uri, sizeof(uri), "tiebreak:node/%llu", (unsigned long long)node);
	return pki_sign(&how, ret, ret_message);
}

/* --- init --- */

static int init_secrets(Tb__Secrets *s, int64_t now_ms, const char *name, const char **ret_message)
{
	struct pki_signed made = {0};
	char *ca_name = mem_printf("Tiebreak CA %s", name);
	int rv;

	tb__secrets__init(s);
	*ret_message = "OpenSSL cannot make a key";
	rv = pki_key_new(&s->ca_key);
	if (rv == 0)
		rv = pki_ca_new(ca_name, s->ca_key, now_ms, CORE_CA_DAYS, &made);
	if (rv == 0) {
		s->ca_cert = mem_strdup(made.pem);
		pki_signed_free(&made);
		rv = pki_key_new(&s->qnet_ca_key);
	}
	if (rv == 0)
		rv = pki_ca_new("QNet CA", s->qnet_ca_key, now_ms, CORE_CA_DAYS, &made);
	if (rv == 0) {
		s->qnet_ca_cert = mem_strdup(made.pem);
		pki_signed_free(&made);
		rv = pki_qnet_server_new(s->qnet_ca_cert, s->qnet_ca_key, now_ms,
					 now_ms + days_ms(CORE_CA_DAYS), &s->qnet_cert,
					 &s->qnet_key);
	}
	free(ca_name);
	return rv;
}

static void cluster_row(Tb__Cluster *cluster, const char *id, const char *name, const char *ca_cert,
			int64_t now_ms)
{
	char sha256[65];

	tb__cluster__init(cluster);
	pki_sha256(ca_cert, sha256);
	cluster->id = mem_strdup(id);
	cluster->name = mem_strdup(name);
	cluster->ca_sha256 = mem_strdup(sha256);
	cluster->created_ms = now_ms;
	cluster->level = LEVEL_HERE;
}

void admit_node_row(Tb__Node *node, const struct identity *id, enum _Tb__NodeRole role,
		    int64_t now_ms)
{
	tb__node__init(node);
	node->id = id->node_id;
	node->name = mem_strdup(id->node_name);
	node->address = mem_strdup(id->address);
	node->qnet_address = mem_strdup(id->qnet_address);
	node->role = role;
	node->joined_ms = now_ms;
	node->version = mem_strdup(TIEBREAK_VERSION);
}

/* The command that makes the cluster, and this board's identity in it. */
static int init_command(struct core *c, const char *name, Tb__ClusterInit *op,
			const char **ret_message)
{
	struct identity *id = &c->identity;
	int64_t now = core_now_ms(c);
	struct pki_signed made = {0};
	uint8_t random[16];
	char *csr = NULL;
	int rv;

	tb__cluster_init__init(op);
	op->secrets = mem_alloc(sizeof(*op->secrets));
	rv = init_secrets(op->secrets, now, name, ret_message);
	if (rv == 0)
		rv = pki_key_new(&id->key);
	if (rv == 0)
		rv = pki_request_new(id->node_name, id->key, &csr);
	if (rv == 0)
		rv = admit_certificate(
			&(struct admit_signer){op->secrets->ca_cert, op->secrets->ca_key,
					       admit_life_ms(NULL)},
			csr, 1, id->node_name, now, &made, ret_message);
	free(csr);
	if (rv != 0)
		return rv;
	rng_fill(random, sizeof(random));
	hex_encode(random, sizeof(random), id->cluster_id);
	id->node_id = 1;
	id->cert = mem_strdup(made.pem);
	id->ca_cert = mem_strdup(op->secrets->ca_cert);
	op->cluster = mem_alloc(sizeof(*op->cluster));
	cluster_row(op->cluster, id->cluster_id, name, id->ca_cert, now);
	op->node = mem_alloc(sizeof(*op->node));
	admit_node_row(op->node, id, TB__NODE_ROLE__NODE_ROLE_VOTER, now);
	op->certificate = mem_alloc(sizeof(*op->certificate));
	admit_certificate_row(op->certificate, &made, id->ca_cert, id->node_name, "cluster init",
			      now);
	pki_signed_free(&made);
	return 0;
}

static void init_committed(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct core *c = arg;
	struct init *init = c->init;
	const char *message = NULL;

	(void)count;
	c->init = NULL;
	if (error == 0 && results[0]->refusal != 0) {
		error = -EINVAL;
		message = results[0]->message;
	}
	if (error == 0)
		error = identity_save(c->data_dir, &c->identity, &message);
	if (error == 0) {
		log_notice("cluster-made", "cluster %s made; this board is %s",
			   c->identity.cluster_id, c->identity.node_name);
		c->model_dirty = true;
		c->listeners.identity_changed(c->listeners.arg);
	} else {
		/* The daemon holds a log that no identity belongs to: only a restart is clean. */
		core_set_state(c, CORE_FAILED, "cluster init failed: %s; restart witnessd",
			       message != NULL ? message : strerror(-error));
		atomic_store(&c->view.state, CORE_FAILED);
	}
	control_finish(init->control, error,
		       message != NULL ? message : "the log was not committed");
	free(init);
}

static void init_open(struct letter *letter)
{
	struct control *k = list_entry(letter, struct control, letter);
	struct core *c = k->core;
	struct identity id = {0};
	struct apply_problem problem;
	Tb__Command **commands;
	const char *message = NULL;
	char text[512];
	const char *name = text_or(k->init->name, "tiebreak");
	int rv;

	if (c->stopping) {
		control_finish(k, -ESHUTDOWN, "the daemon is stopping");
		return;
	}
	if (c->identity.node_id != 0 || c->join != NULL || c->init != NULL ||
	    c->restoration != NULL) {
		control_finish(
			k, -EEXIST,
			"this board is already in a cluster; to start over, stop witnessd and "
			"remove its data directory");
		return;
	}
	if (name_check(name, "name", &problem) != 0) {
		control_finish(k, -EINVAL, problem.message);
		return;
	}
	if (admit_clock_check(text, sizeof(text)) != 0) {
		control_finish(k, -EINVAL, text);
		return;
	}
	if (admit_names(c, &id, k->init->node_name, k->init->address, k->init->qnet_address, text,
			sizeof(text)) != 0) {
		control_finish(k, -EINVAL, text);
		return;
	}
	c->identity = id;
	c->init = mem_zalloc(sizeof(*c->init));
	c->init->control = k;
	commands = mem_array(1, sizeof(*commands));
	commands[0] = mem_alloc(sizeof(**commands));
	tb__command__init(commands[0]);
	commands[0]->actor = mem_strdup("cluster init");
	commands[0]->op_case = TB__COMMAND__OP_CLUSTER_INIT;
	commands[0]->cluster_init = mem_alloc(sizeof(Tb__ClusterInit));
	rv = init_command(c, name, commands[0]->cluster_init, &message);
	if (rv == 0) {
		core_wipe_raft(c);
		rv = identity_log_mark(c->raft_dir, &c->identity, &message);
	}
	if (rv == 0)
		rv = core_serve(c, true, &message);
	if (rv != 0) {
		tb__command__free_unpacked(commands[0], NULL);
		free(commands);
		identity_free(&c->identity);
		free(c->init);
		c->init = NULL;
		control_finish(k, rv, message);
		return;
	}
	/* Waits in the queue until the log of one has elected itself. */
	proposal_add(c, NULL, commands, 1, init_committed, c);
}

void core_init_cluster(struct core *c, struct mailbox *home, const Tb__ClusterInitRequest *request,
		       core_controlled done, void *arg)
{
	struct control *k = mem_zalloc(sizeof(*k));
	int rv;

	k->letter.open = init_open;
	k->core = c;
	k->home = home;
	k->done = done;
	k->arg = arg;
	k->init = (Tb__ClusterInitRequest *)message_copy(&request->base);
	rv = mailbox_post(&c->mailbox, &k->letter);
	if (rv != 0)
		control_finish(k, rv, "the daemon is stopping");
}

/* --- join --- */

static void join_finish(struct core *c, int error, const char *message)
{
	struct join *j = c->join;

	c->join = NULL;
	if (error != 0 && !j->admitted)
		core_set_state(c, CORE_NEW, "joining failed: %s", message);
	if (j->control != NULL)
		control_finish(j->control, error, message);
	identity_free(&j->identity);
	if (j->key != NULL)
		mem_wipe(j->key, strlen(j->key));
	free(j->key);
	free(j);
}

static void join_open(struct letter *letter)
{
	struct control *k = list_entry(letter, struct control, letter);
	struct core *c = k->core;
	struct token_parts token;
	struct identity names = {0};
	Tb__JoinRequest *request;
	char text[512];
	char *csr = NULL;
	struct join *j;

	if (c->stopping) {
		control_finish(k, -ESHUTDOWN, "the daemon is stopping");
		return;
	}
	if (c->identity.node_id != 0 || c->join != NULL || c->init != NULL ||
	    c->restoration != NULL) {
		control_finish(
			k, -EEXIST,
			"this board is already in a cluster; to start over, stop witnessd and "
			"remove its data directory");
		return;
	}
	if (token_parse(k->join->token, &token) != 0) {
		control_finish(
			k, -EINVAL,
			"that is not a token; copy the whole text that \"witnessctl token create "
			"--role node\" printed (it begins with tb1.)");
		return;
	}
	if (admit_clock_check(text, sizeof(text)) != 0) {
		control_finish(k, -EINVAL, text);
		return;
	}
	if (admit_names(c, &names, k->join->node_name, k->join->advertise, k->join->qnet_address,
			text, sizeof(text)) != 0) {
		control_finish(k, -EINVAL, text);
		return;
	}
	j = mem_zalloc(sizeof(*j));
	j->control = k;
	j->identity = names;
	j->deadline_ms = clock_boottime_ms() + CORE_JOIN_DEADLINE_MS;
	c->join = j;
	if (pki_key_new(&j->key) != 0 || pki_request_new(names.node_name, j->key, &csr) != 0) {
		join_finish(c, -EINVAL, "OpenSSL cannot make a key");
		return;
	}
	core_set_state(c, CORE_NEW, "asking %s for admission", k->join->address);
	request = mem_alloc(sizeof(*request));
	tb__join_request__init(request);
	request->token = mem_strdup(k->join->token);
	request->csr = csr;
	request->name = mem_strdup(names.node_name);
	request->address = mem_strdup(names.address);
	request->qnet_address = mem_strdup(names.qnet_address);
	request->version = mem_strdup(TIEBREAK_VERSION);
	request->level = LEVEL_HERE;
	j->dial_id = core_next_id(c);
	c->listeners.join_dial(c->listeners.arg, j->dial_id, k->join->address, token.ca_sha256,
			       request);
}

void core_join_cluster(struct core *c, struct mailbox *home, const Tb__ClusterJoinRequest *request,
		       core_controlled done, void *arg)
{
	struct control *k = mem_zalloc(sizeof(*k));
	int rv;

	k->letter.open = join_open;
	k->core = c;
	k->home = home;
	k->done = done;
	k->arg = arg;
	k->join = (Tb__ClusterJoinRequest *)message_copy(&request->base);
	rv = mailbox_post(&c->mailbox, &k->letter);
	if (rv != 0)
		control_finish(k, rv, "the daemon is stopping");
}

static void join_admitted(struct core *c, const Tb__JoinReply *reply)
{
	struct join *j = c->join;
	const char *message = NULL;
	int rv;

	if (reply->refusal != TB__REFUSAL__REFUSAL_NONE) {
		join_finish(c, -EPERM, reply->message);
		return;
	}
	if (strlen(reply->cluster_id) != sizeof(j->identity.cluster_id) - 1 ||
	    reply->node_id == 0) {
		join_finish(c, -EPROTO,
			    "the other board's answer makes no sense; is it of this release?");
		return;
	}
	c->identity = j->identity;
	j->identity = (struct identity){0};
	strcpy(c->identity.cluster_id, reply->cluster_id);
	if (reply->node_name[0] != '\0')
		snprintf(c->identity.node_name, sizeof(c->identity.node_name), "%s",
			 reply->node_name);
	c->identity.node_id = reply->node_id;
	c->identity.key = j->key;
	j->key = NULL;
	c->identity.cert = mem_strdup(reply->certificate);
	c->identity.ca_cert = mem_strdup(reply->ca_certificate);
	for (size_t i = 0; i < reply->n_nodes; i++)
		if (reply->nodes[i]->id != reply->node_id)
			identity_seed_add(&c->identity, reply->nodes[i]->id,
					  reply->nodes[i]->address);
	core_wipe_raft(c);
	rv = identity_log_mark(c->raft_dir, &c->identity, &message);
	if (rv == 0)
		rv = identity_save(c->data_dir, &c->identity, &message);
	if (rv == 0) {
		j->admitted = true;
		c->listeners.identity_changed(c->listeners.arg);
		rv = core_serve(c, false, &message);
	}
	if (rv != 0) {
		char text[512];

		snprintf(text, sizeof(text), "%s", message);
		if (j->admitted)
			core_set_state(c, CORE_FAILED, "admitted, but cannot run: %s", text);
		else
			identity_free(&c->identity); /* not kept: it may be tried again */
		join_finish(c, rv, text);
		return;
	}
	log_notice("joined", "admitted to cluster %s as board %llu; catching up",
		   c->identity.cluster_id, (unsigned long long)c->identity.node_id);
}

struct join_letter {
	struct letter letter;
	struct core *core;
	uint64_t dial_id;
	int error;
	char *message;
	Tb__JoinReply *reply;
};

static void join_answer_open(struct letter *letter)
{
	struct join_letter *l = list_entry(letter, struct join_letter, letter);
	struct core *c = l->core;

	if (c->join != NULL && c->join->dial_id == l->dial_id && !c->join->admitted) {
		if (l->error != 0)
			join_finish(c, l->error, l->message);
		else
			join_admitted(c, l->reply);
	}
	if (l->reply != NULL)
		tb__join_reply__free_unpacked(l->reply, NULL);
	free(l->message);
	free(l);
}

void core_join_answered(struct core *c, uint64_t dial_id, int error, const char *message,
			const Tb__JoinReply *reply)
{
	struct join_letter *l = mem_zalloc(sizeof(*l));

	l->letter.open = join_answer_open;
	l->core = c;
	l->dial_id = dial_id;
	l->error = error;
	l->message = mem_strdup(message != NULL ? message : "");
	if (reply != NULL)
		l->reply = (Tb__JoinReply *)message_copy(&reply->base);
	if (mailbox_answer(&c->mailbox, &l->letter) != 0) {
		if (l->reply != NULL)
			tb__join_reply__free_unpacked(l->reply, NULL);
		free(l->message);
		free(l);
	}
}

/* The join is over when the model says that this board votes. */
void admit_applied(struct core *c)
{
	Tb__Node *self;

	if (c->join == NULL || !c->join->admitted ||
	    store_node_get(c->store, c->identity.node_id, &self) != 0)
		return;
	if (self->role == TB__NODE_ROLE__NODE_ROLE_VOTER)
		join_finish(c, 0, "");
	tb__node__free_unpacked(self, NULL);
}

void admit_tick(struct core *c, uint64_t now_ms)
{
	if (c->join == NULL || now_ms < c->join->deadline_ms)
		return;
	join_finish(
		c, -ETIMEDOUT,
		c->join->admitted
			? "admitted, but the cluster has not made this board a voter yet; it goes "
			  "on trying: see \"witnessctl cluster status\". Every board must reach "
			  "this one at its address (witnessctl node list)"
			: "no answer from that address");
}

void admit_cancel(struct core *c)
{
	if (c->join != NULL)
		join_finish(c, -ECANCELED, "the daemon is stopping");
}

/* --- admission of another board --- */

struct admission {
	struct letter letter;
	struct core *core;
	struct mailbox *home;
	core_joined done;
	void *arg;
	uint64_t dead; /* the leader says that this board is away, and may be replaced; 0: none */
	Tb__JoinRequest *request;
	Tb__JoinReply *reply;
};

static void admission_answer_open(struct letter *letter)
{
	struct admission *a = list_entry(letter, struct admission, letter);

	a->done(a->arg, a->reply);
	tb__join_reply__free_unpacked(a->reply, NULL);
	free(a);
}

static void admission_finish(struct admission *a, enum _Tb__Refusal refusal, const char *message)
{
	a->reply->refusal = refusal;
	if (refusal != TB__REFUSAL__REFUSAL_NONE)
		log_warning("join-refused", "board %s at %s: %s", a->request->name,
			    a->request->address, message);
	if (message[0] != '\0')
		a->reply->message = mem_strdup(message);
	tb__join_request__free_unpacked(a->request, NULL);
	a->letter.open = admission_answer_open;
	if (mailbox_answer(a->home, &a->letter) != 0) {
		tb__join_reply__free_unpacked(a->reply, NULL);
		free(a);
	}
}

static int admission_visit(void *arg, const Tb__Node *node)
{
	Tb__JoinReply *reply = arg;

	reply->nodes = mem_realloc(reply->nodes, (reply->n_nodes + 1) * sizeof(*reply->nodes));
	reply->nodes[reply->n_nodes++] = (Tb__Node *)message_copy(&node->base);
	return 0;
}

static void admission_recorded(void *arg, int error, Tb__CommandResult *const *results,
			       size_t count)
{
	struct admission *a = arg;
	struct core *c = a->core;

	if (error != 0 || count != 1 || results[0]->refusal != 0) {
		admission_finish(
			a, TB__REFUSAL__REFUSAL_INVALID,
			"the cluster could not record the certificate; remove the board with "
			"\"witnessctl cluster remove\" and try again");
		return;
	}
	a->reply->cluster_id = mem_strdup(c->identity.cluster_id);
	a->reply->ca_certificate = mem_strdup(c->identity.ca_cert);
	store_nodes(c->store, admission_visit, a->reply);
	log_notice("join-admitted", "board %s at %s is admitted as board %llu", a->request->name,
		   a->request->address, (unsigned long long)a->reply->node_id);
	admission_finish(a, TB__REFUSAL__REFUSAL_NONE, "");
}

/* The name that the model gave it: of the board that it replaces, if it does. */
static char *admission_name(const struct admission *a)
{
	Tb__Node *node;
	char *name;

	if (store_node_get(a->core->store, a->reply->node_id, &node) != 0)
		return mem_strdup(a->request->name);
	name = mem_strdup(node->name);
	tb__node__free_unpacked(node, NULL);
	return name;
}

static void admission_added(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct admission *a = arg;
	struct core *c = a->core;
	struct pki_signed made = {0};
	Tb__Secrets *secrets = NULL;
	Tb__Cluster *cluster = NULL;
	Tb__Command **commands;
	const char *message = "the cluster's keys are not there";
	char *name;
	int rv;

	if (error != 0 || count != 1) {
		admission_finish(a, TB__REFUSAL__REFUSAL_CONFLICT,
				 "the cluster has no leader at the moment; try again");
		return;
	}
	if (results[0]->refusal != 0) {
		admission_finish(a, results[0]->refusal, results[0]->message);
		return;
	}
	a->reply->node_id = results[0]->node_id;
	name = admission_name(a);
	rv = store_secrets_get(c->store, &secrets);
	if (rv == 0)
		rv = store_cluster_get(c->store, &cluster);
	if (rv == 0)
		rv = admit_certificate(&(struct admit_signer){secrets->ca_cert, secrets->ca_key,
							      admit_life_ms(cluster)},
				       a->request->csr, a->reply->node_id, name, core_now_ms(c),
				       &made, &message);
	tb__cluster__free_unpacked(cluster, NULL);
	if (rv != 0) {
		if (secrets != NULL)
			tb__secrets__free_unpacked(secrets, NULL);
		free(name);
		admission_finish(a, TB__REFUSAL__REFUSAL_INVALID, message);
		return;
	}
	a->reply->certificate = mem_strdup(made.pem);
	commands = mem_array(1, sizeof(*commands));
	commands[0] = mem_alloc(sizeof(**commands));
	tb__command__init(commands[0]);
	commands[0]->actor = mem_printf("node:%s", name);
	commands[0]->op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	commands[0]->certificate_add = mem_alloc(sizeof(Tb__CertificateAdd));
	tb__certificate_add__init(commands[0]->certificate_add);
	commands[0]->certificate_add->certificate = mem_alloc(sizeof(Tb__Certificate));
	admit_certificate_row(commands[0]->certificate_add->certificate, &made, secrets->ca_cert,
			      name, "join", core_now_ms(c));
	tb__secrets__free_unpacked(secrets, NULL);
	pki_signed_free(&made);
	a->reply->node_name = name;
	proposal_add(c, NULL, commands, 1, admission_recorded, a);
}

static void admission_propose(struct admission *a)
{
	struct core *c = a->core;
	struct token_parts token;
	struct identity names = {0};
	char text[512];
	Tb__Command **commands;
	Tb__NodeAdd *add;

	if (token_parse(a->request->token, &token) != 0 ||
	    admit_names(c, &names, a->request->name, a->request->address, a->request->qnet_address,
			text, sizeof(text)) != 0)
		abort(); /* admission_open has checked both */
	commands = mem_array(1, sizeof(*commands));
	commands[0] = mem_alloc(sizeof(**commands));
	tb__command__init(commands[0]);
	commands[0]->actor = mem_printf("token:%s", token.id);
	commands[0]->op_case = TB__COMMAND__OP_NODE_ADD;
	add = mem_alloc(sizeof(*add));
	tb__node_add__init(add);
	commands[0]->node_add = add;
	add->node = mem_alloc(sizeof(*add->node));
	admit_node_row(add->node, &names, TB__NODE_ROLE__NODE_ROLE_JOINING, core_now_ms(c));
	add->dead = a->dead;
	add->token_id = mem_strdup(token.id);
	add->token_secret_sha256.len = sizeof(token.secret_sha256);
	add->token_secret_sha256.data = mem_dup(token.secret_sha256, sizeof(token.secret_sha256));
	proposal_add(c, NULL, commands, 1, admission_added, a);
}

static void admission_may_replace(void *arg, int error, const Tb__PeerAnswer *answer)
{
	struct admission *a = arg;

	if (error == 0)
		admission_propose(a);
	else
		admission_finish(a, TB__REFUSAL__REFUSAL_CONFLICT,
				 answer != NULL && answer->message[0] != '\0'
					 ? answer->message
					 : "the cluster has no leader at the moment; try again");
}

/* The token as this board's model has it. NULL: it is not known here, not yet, or that is not its
 * secret; apply refuses it. */
static Tb__Token *admission_token(struct core *c, const struct token_parts *parts)
{
	Tb__Token *token;

	if (store_token_get(c->store, parts->id, &token) != 0)
		return NULL;
	if (token->secret_sha256.len == sizeof(parts->secret_sha256) &&
	    CRYPTO_memcmp(token->secret_sha256.data, parts->secret_sha256,
			  sizeof(parts->secret_sha256)) == 0)
		return token;
	tb__token__free_unpacked(token, NULL);
	return NULL;
}

struct address_search {
	const char *address;
	uint64_t leaves; /* a board that makes room */
	char *name; /* of the board that has it */
};

static int address_visit(void *arg, const Tb__Node *node)
{
	struct address_search *search = arg;

	if (node->id == search->leaves || strcmp(node->address, search->address) != 0)
		return 0;
	search->name = mem_strdup(node->name);
	return 1;
}

/* Two boards at one address cannot both be members of the log. */
static bool admission_address_taken(struct admission *a)
{
	struct address_search search = {.address = a->request->address, .leaves = a->dead};
	char *text;

	store_nodes(a->core->store, address_visit, &search);
	if (search.name == NULL)
		return false;
	text = mem_printf("board %s has the address %s; give the new board its own with "
			  "--advertise, or remove the old one with witnessctl cluster remove %s",
			  search.name, search.address, search.name);
	admission_finish(a, TB__REFUSAL__REFUSAL_EXISTS, text);
	free(text);
	free(search.name);
	return true;
}

/* Token and addresses are good. */
static void admission_go_on(struct admission *a)
{
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;
	Tb__PeerReplace replace = TB__PEER_REPLACE__INIT;

	if (a->dead == 0) {
		admission_propose(a);
		return;
	}
	/* The token may be an hour old: is the board still dead, and are the others here? */
	replace.node_id = a->dead;
	query.what_case = TB__PEER_QUERY__WHAT_REPLACE;
	query.replace = &replace;
	core_query(a->core, &a->core->mailbox, &query, admission_may_replace, a);
}

void admit_reached(struct admission *a, int error)
{
	char *text;

	if (error == 0) {
		admission_go_on(a);
		return;
	}
	if (error == -ECANCELED) {
		admission_finish(a, TB__REFUSAL__REFUSAL_CONFLICT, "the board is stopping");
		return;
	}
	text = mem_printf(
		"board %s cannot connect to %s; give the new board with --advertise an "
		"address (HOST:PORT) at which the others reach it, and let them through its "
		"firewall",
		a->core->identity.node_name, a->request->address);
	admission_finish(a, TB__REFUSAL__REFUSAL_INVALID, text);
	free(text);
}

/* A member that nobody reaches could only be removed again. */
static void admission_reach(struct admission *a)
{
	struct core *c = a->core;
	struct dial *d = mem_zalloc(sizeof(*d));

	d->id = core_next_id(c);
	d->admission = a;
	list_append(&c->dials, &d->link);
	c->listeners.reach_dial(c->listeners.arg, d->id, a->request->address);
}

static void admission_open(struct letter *letter)
{
	struct admission *a = list_entry(letter, struct admission, letter);
	struct core *c = a->core;
	struct token_parts parts;
	Tb__Token *token;
	char text[512] = "";
	struct identity names = {0};

	if (c->identity.node_id == 0 || c->store == NULL) {
		admission_finish(a, TB__REFUSAL__REFUSAL_NOT_INITIALISED,
				 "the board at that address is in no cluster yet");
		return;
	}
	if ((a->request->level != 0 ? a->request->level : LEVEL_FIRST) < core_level(c)) {
		admission_finish(a, TB__REFUSAL__REFUSAL_LEVEL,
				 "the board runs a release of witnessd that is too old for this "
				 "cluster; upgrade it first");
		return;
	}
	if (token_parse(a->request->token, &parts) != 0) {
		admission_finish(a, TB__REFUSAL__REFUSAL_TOKEN_UNKNOWN, "that is not a token");
		return;
	}
	if (a->request->name[0] == '\0' || a->request->address[0] == '\0' ||
	    a->request->qnet_address[0] == '\0' ||
	    admit_names(c, &names, a->request->name, a->request->address, a->request->qnet_address,
			text, sizeof(text)) != 0) {
		admission_finish(
			a, TB__REFUSAL__REFUSAL_INVALID,
			text[0] != '\0' ? text : "name or address of the board is missing");
		return;
	}
	token = admission_token(c, &parts);
	if (token == NULL) {
		admission_propose(a);
		return;
	}
	a->dead = token->replaces;
	tb__token__free_unpacked(token, NULL);
	if (admission_address_taken(a))
		return;
	if (a->request->listening)
		admission_reach(a);
	else
		admission_go_on(a); /* an older release opens its port when it is admitted */
}

void core_admit(struct core *c, struct mailbox *home, const Tb__JoinRequest *request,
		core_joined done, void *arg)
{
	struct admission *a = mem_zalloc(sizeof(*a));

	a->letter.open = admission_open;
	a->core = c;
	a->home = home;
	a->done = done;
	a->arg = arg;
	a->request = (Tb__JoinRequest *)message_copy(&request->base);
	a->reply = mem_alloc(sizeof(*a->reply));
	tb__join_reply__init(a->reply);
	if (mailbox_post(&c->mailbox, &a->letter) != 0)
		admission_finish(a, TB__REFUSAL__REFUSAL_CONFLICT,
				 "the board is stopping or overloaded");
}
