/* api_tokens.c: bearer tokens and API client certificates: what lets people and programs in. */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/hex.h"
#include "lib/mem.h"
#include "lib/rng.h"
#include "witnessd/api_call.h"
#include "witnessd/core.h"
#include "witnessd/pki.h"
#include "witnessd/token.h"

enum { PAGE_DEFAULT = 100 };
static const uint64_t day_ms = 24ULL * 3600 * 1000;

static uint64_t page_limit(const struct api_call *call)
{
	const struct api_value *limit = api_param(call, "limit");

	return limit->set ? limit->number : PAGE_DEFAULT;
}

/* --- list of tokens --- */

struct token_list {
	struct api_list out;
	char *after; /* id of the last one of the page before; NULL once it was passed */
	char last[TOKEN_ID_HEX + 1];
	uint64_t limit;
	bool more;
};

static int token_visit(void *arg, const Tb__Token *row)
{
	struct token_list *l = arg;
	Tb__Token shown = *row;

	if (l->after != NULL) {
		if (strcmp(l->after, row->id) == 0) {
			free(l->after);
			l->after = NULL;
		}
		return 0;
	}
	l->more = l->out.count == l->limit;
	if (l->more)
		return 1;
	shown.secret_sha256 = (ProtobufCBinaryData){0};
	api_list_item(&l->out, &shown.base);
	snprintf(l->last, sizeof(l->last), "%s", row->id);
	return 0;
}

void api_tokens_list(struct api_call *call)
{
	struct token_list l = {.limit = page_limit(call)};
	char *page;

	if (api_page_of_call(call, "tokens", &l.after) != 0)
		return;
	api_list_begin(&l.out);
	if (store_tokens(api_store(call->api), token_visit, &l) != 0) {
		buf_free(&l.out.text);
		free(l.after);
		api_store_failed(call);
		return;
	}
	page = l.more ? api_page_for_call(call, "tokens", l.last) : NULL;
	api_list_answer(&l.out, call, page, 0);
	free(page);
	free(l.after);
}

/* --- a new token --- */

struct new_token {
	char id[TOKEN_ID_HEX + 1];
	uint8_t secret[TOKEN_SECRET];
};

static void new_token_free(void *state)
{
	mem_wipe(state, sizeof(struct new_token));
	free(state);
}

/* The one made by an earlier request with the same key has another secret, which is gone. */
static bool token_is_ours(const Tb__Token *token, const struct new_token *made)
{
	uint8_t sha256[32];

	token_secret_sha256(made->secret, sha256);
	return token->secret_sha256.len == sizeof(sha256) &&
	       CRYPTO_memcmp(token->secret_sha256.data, sha256, sizeof(sha256)) == 0;
}

static void token_show(struct api_call *call, Tb__Token *token, const struct new_token *made)
{
	Tb__TokenCreated created = TB__TOKEN_CREATED__INIT;
	char text[TOKEN_TEXT + 1];
	Tb__Cluster *cluster;

	if (store_cluster_get(api_store(call->api), &cluster) != 0) {
		api_store_failed(call);
		return;
	}
	token_format(made->id, made->secret, cluster->ca_sha256, text);
	tb__cluster__free_unpacked(cluster, NULL);
	created.token = token;
	created.secret = text;
	api_answer_message(call, &created.base);
	mem_wipe(text, sizeof(text));
}

static void token_added(struct api_call *call, const Tb__CommandResult *result)
{
	const struct new_token *made = call->state;
	Tb__Token *token;

	(void)result;
	if (store_token_get(api_store(call->api), made->id, &token) != 0) {
		api_problem(call, 409, "take a new Idempotency-Key",
			    "an earlier request with this Idempotency-Key made the token; its "
			    "secret was shown then, and is kept nowhere");
		return;
	}
	if (token_is_ours(token, made)) {
		ProtobufCBinaryData hidden = token->secret_sha256;

		token->secret_sha256 = (ProtobufCBinaryData){0};
		token_show(call, token, made);
		token->secret_sha256 = hidden;
	} else {
		api_problem(call, 409, NULL, "another token has this id; send the request again");
	}
	tb__token__free_unpacked(token, NULL);
}

static int token_check(struct api_call *call, const Tb__TokenRequest *request)
{
	struct apply_problem problem;
	Tb__Site *site;

	if (request->name[0] != '\0' && name_check(request->name, "name", &problem) != 0) {
		api_problem_field(call, 422, problem.field, problem.message);
		return -EINVAL;
	}
	if (request->role == TB__ROLE__ROLE_NONE) {
		api_problem_field(call, 422, "role",
				  "is needed: viewer, operator, admin, node, site or agent");
		return -EINVAL;
	}
	if ((request->role == TB__ROLE__ROLE_SITE || request->role == TB__ROLE__ROLE_AGENT) !=
	    (request->site[0] != '\0')) {
		api_problem_field(call, 422, "site",
				  "belongs to the roles site and agent, and to no other");
		return -EINVAL;
	}
	if (request->tenant[0] != '\0' && request->role != TB__ROLE__ROLE_VIEWER &&
	    request->role != TB__ROLE__ROLE_OPERATOR) {
		api_problem_field(call, 422, "tenant", "belongs to the roles viewer and operator");
		return -EINVAL;
	}
	if (request->ttl_ms > 100ULL * 365 * day_ms) {
		api_problem_field(call, 422, "ttlMs", "is at most 100 years; 0 means for ever");
		return -EINVAL;
	}
	if (request->site[0] == '\0')
		return 0;
	if (store_site_find(api_store(call->api), request->site, &site) != 0) {
		api_problem_field(call, 422, "site", "there is no such site");
		return -EINVAL;
	}
	tb__site__free_unpacked(site, NULL);
	return 0;
}

static Tb__Token *token_new(const struct api_call *call, const Tb__TokenRequest *request,
			    const struct new_token *made)
{
	Tb__Token *token = mem_alloc(sizeof(*token));

	tb__token__init(token);
	token->id = mem_strdup(made->id);
	token->name = mem_strdup(request->name);
	token->role = request->role;
	token->secret_sha256.len = 32;
	token->secret_sha256.data = mem_alloc(32);
	token_secret_sha256(made->secret, token->secret_sha256.data);
	token->created_ms = api_now_ms(call->api);
	token->expires_ms = request->ttl_ms != 0 ? token->created_ms + (int64_t)request->ttl_ms : 0;
	token->max_uses = request->max_uses;
	token->site = mem_strdup(request->site);
	token->tenant = mem_strdup(request->tenant);
	token->created_by = mem_strdup(call->who.actor);
	return token;
}

/* `replaces`: the board whose place it gives, 0: none. */
static void token_propose(struct api_call *call, const Tb__TokenRequest *request, uint64_t replaces)
{
	struct new_token *made;
	Tb__Command *command;
	uint8_t id[TOKEN_ID_HEX / 2];

	made = mem_zalloc(sizeof(*made));
	rng_fill(id, sizeof(id));
	hex_encode(id, sizeof(id), made->id);
	rng_fill(made->secret, sizeof(made->secret));
	call->state = made;
	call->state_free = new_token_free;
	command = api_command(call, 0);
	command->op_case = TB__COMMAND__OP_TOKEN_ADD;
	command->token_add = mem_alloc(sizeof(*command->token_add));
	tb__token_add__init(command->token_add);
	command->token_add->token = token_new(call, request, made);
	command->token_add->token->replaces = replaces;
	api_propose(call, command, token_added);
}

void api_token_create(struct api_call *call)
{
	const Tb__TokenRequest *request = (const Tb__TokenRequest *)call->request;

	if (token_check(call, request) == 0)
		token_propose(call, request, 0);
}

/* --- the place of a dead board --- */

enum { REPLACE_TTL_MS = 3600000 };

static void replace_allowed(struct api_call *call, int error, const Tb__PeerAnswer *answer)
{
	const Tb__NodeReplaceRequest *wanted = (const Tb__NodeReplaceRequest *)call->request;
	Tb__TokenRequest request = TB__TOKEN_REQUEST__INIT;
	Tb__Node *node;

	if (error != 0) {
		api_problem_error(call, error, answer != NULL ? answer->message : NULL);
		return;
	}
	if (api_node_find(call, call->arg, &node) != 0)
		return;
	request.role = TB__ROLE__ROLE_NODE;
	request.ttl_ms = wanted->ttl_ms != 0 ? wanted->ttl_ms : REPLACE_TTL_MS;
	request.max_uses = 1;
	if (token_check(call, &request) == 0)
		token_propose(call, &request, node->id);
	tb__node__free_unpacked(node, NULL);
}

void api_node_replace(struct api_call *call)
{
	Tb__PeerReplace replace = TB__PEER_REPLACE__INIT;
	Tb__PeerQuery query = TB__PEER_QUERY__INIT;
	Tb__Node *node;

	if (api_node_find(call, call->arg, &node) != 0)
		return;
	replace.node_id = node->id;
	tb__node__free_unpacked(node, NULL);
	query.what_case = TB__PEER_QUERY__WHAT_REPLACE;
	query.replace = &replace;
	api_query(call, &query, replace_allowed);
}

static void done_empty(struct api_call *call, const Tb__CommandResult *result)
{
	Tb__Empty empty = TB__EMPTY__INIT;

	(void)result;
	api_answer_message(call, &empty.base);
}

void api_token_revoke(struct api_call *call)
{
	Tb__Command *command = api_command(call, 0);

	command->op_case = TB__COMMAND__OP_TOKEN_REVOKE;
	command->token_revoke = mem_alloc(sizeof(*command->token_revoke));
	tb__token_revoke__init(command->token_revoke);
	command->token_revoke->id = mem_strdup(call->arg);
	api_propose(call, command, done_empty);
}

/* --- certificates --- */

struct certificate_list {
	struct api_list out;
	char *last;
};

static int certificate_visit(void *arg, const Tb__Certificate *row)
{
	struct certificate_list *l = arg;

	api_list_item(&l->out, &row->base);
	free(l->last);
	l->last = mem_strdup(row->serial);
	return 0;
}

void api_certificates_list(struct api_call *call)
{
	struct certificate_list l = {0};
	uint32_t limit = (uint32_t)page_limit(call);
	char *page = NULL;
	char *after;
	int rv;

	if (api_page_of_call(call, "certificates", &after) != 0)
		return;
	api_list_begin(&l.out);
	rv = store_certificates(api_store(call->api), after, limit, certificate_visit, &l);
	free(after);
	if (rv != 0) {
		buf_free(&l.out.text);
		api_store_failed(call);
	} else {
		if (l.out.count == limit)
			page = api_page_for_call(call, "certificates", l.last);
		api_list_answer(&l.out, call, page, 0);
	}
	free(page);
	free(l.last);
}

struct new_certificate {
	struct pki_signed cert;
	char *ca_cert;
};

static void new_certificate_free(void *state)
{
	struct new_certificate *made = state;

	pki_signed_free(&made->cert);
	free(made->ca_cert);
	free(made);
}

static void certificate_added(struct api_call *call, const Tb__CommandResult *result)
{
	Tb__CertificateCreated created = TB__CERTIFICATE_CREATED__INIT;
	const struct new_certificate *made = call->state;
	Tb__Certificate *row;

	(void)result;
	if (store_certificate_get(api_store(call->api), made->cert.serial, &row) != 0) {
		api_problem(call, 409, "take a new Idempotency-Key",
			    "an earlier request with this Idempotency-Key made the certificate; it "
			    "was given out then");
		return;
	}
	created.certificate = row;
	created.pem = made->cert.pem;
	created.ca_certificate = made->ca_cert;
	api_answer_message(call, &created.base);
	tb__certificate__free_unpacked(row, NULL);
}

enum { CLIENT_DAYS_MAX = 825 };

static int certificate_check(struct api_call *call, const Tb__CertificateRequest *request)
{
	struct apply_problem problem;

	if (name_check(request->name, "name", &problem) != 0)
		api_problem_field(call, 422, problem.field, problem.message);
	else if (request->role < TB__ROLE__ROLE_VIEWER || request->role > TB__ROLE__ROLE_ADMIN)
		api_problem_field(call, 422, "role", "must be viewer, operator or admin");
	else if (request->ttl_ms > CLIENT_DAYS_MAX * day_ms)
		api_problem_field(call, 422, "ttlMs", "is at most 825 days");
	else if (request->csr[0] == '\0')
		api_problem_field(call, 422, "csr",
				  "is needed: a PKCS#10 request (PEM); the key stays with you");
	else
		return 0;
	return -EINVAL;
}

/* `life_ms` 0: as the cluster says. */
static int certificate_sign(struct api_call *call, const Tb__CertificateRequest *request,
			    struct new_certificate *made)
{
	struct pki_sign how = {.request = request->csr,
			       .request_len = strlen(request->csr),
			       .common_name = request->name,
			       .use = PKI_CLIENT,
			       .now_ms = api_now_ms(call->api)};
	uint64_t life_ms = request->ttl_ms;
	const char *message = "";
	char word[64];
	char uri[96];
	Tb__Cluster *cluster;
	Tb__Secrets *secrets;
	int rv;

	if (store_cluster_get(api_store(call->api), &cluster) != 0) {
		api_store_failed(call);
		return -EIO;
	}
	if (life_ms == 0)
		life_ms = cluster->certificate_life_ms;
	if (life_ms == 0)
		life_ms = LIMIT_CERTIFICATE_LIFE_MS;
	tb__cluster__free_unpacked(cluster, NULL);
	if (store_secrets_get(api_store(call->api), &secrets) != 0) {
		api_store_failed(call);
		return -EIO;
	}
	how.not_after_ms = how.now_ms + (int64_t)life_ms;
	how.now_ms = core_valid_from_ms(how.now_ms);
	snprintf(uri, sizeof(uri), "tiebreak:client/%s",
		 json_enum_word(&tb__role__descriptor, (int)request->role, word));
	how.uri = uri;
	how.ca_cert = secrets->ca_cert;
	how.ca_key = secrets->ca_key;
	rv = pki_sign(&how, &made->cert, &message);
	/* All that are believed: a client goes on through a rotation. */
	made->ca_cert =
		mem_printf("%s%s%s", secrets->ca_cert, secrets->next_ca_cert, secrets->old_ca_cert);
	store_secrets_free(secrets);
	if (rv != 0)
		api_problem_field(call, 422, "csr", message);
	return rv;
}

/* Signs, records, answers. */
static void certificate_make(struct api_call *call, const Tb__CertificateRequest *request)
{
	struct new_certificate *made = mem_zalloc(sizeof(*made));
	Tb__Certificate *row;

	call->state = made;
	call->state_free = new_certificate_free;
	if (certificate_sign(call, request, made) != 0)
		return;
	row = api_certificate_row(call, &made->cert, request->name, "client");
	row->role = request->role;
	api_certificate_signed_by(row, made->ca_cert);
	api_certificate_propose(call, row, certificate_added);
}

void api_certificate_create(struct api_call *call)
{
	const Tb__CertificateRequest *request = (const Tb__CertificateRequest *)call->request;

	if (certificate_check(call, request) == 0)
		certificate_make(call, request);
}

/* Of the one who asks, for as long as its certificate was made for. */
void api_certificate_renew(struct api_call *call)
{
	const Tb__CertificateRenewRequest *wanted =
		(const Tb__CertificateRenewRequest *)call->request;
	Tb__CertificateRequest request = TB__CERTIFICATE_REQUEST__INIT;
	Tb__Certificate *own;

	if (call->who.serial[0] == '\0' ||
	    store_certificate_get(api_store(call->api), call->who.serial, &own) != 0) {
		api_problem(call, 409, "ask with the certificate that is to be renewed",
			    "a client certificate renews itself only");
		return;
	}
	request.name = own->subject;
	request.role = own->role;
	request.csr = wanted->csr;
	request.ttl_ms = (uint64_t)(own->not_after_ms - own->issued_ms);
	if (certificate_check(call, &request) == 0)
		certificate_make(call, &request);
	tb__certificate__free_unpacked(own, NULL);
}

/* --- a new CA --- */

static void ca_applied(struct api_call *call, const Tb__CommandResult *result)
{
	(void)result;
	api_cluster_get(call);
}

/* A CA of the same name (pki_bridge says why) with a new key, and what leads from the old one to
 * it.
 */
static int ca_successor(const char *cert, const char *key, int64_t now_ms, struct pki_signed *ret,
			char **ret_key, char **ret_bridge)
{
	char *name;
	int rv = pki_common_name(cert, &name);

	if (rv != 0)
		return rv;
	rv = pki_key_new(ret_key);
	if (rv == 0)
		rv = pki_ca_new(name, *ret_key, now_ms, CORE_CA_DAYS, ret);
	if (rv == 0)
		rv = pki_bridge(cert, key, ret->pem, now_ms, ret_bridge);
	free(name);
	return rv;
}

static int ca_make(const Tb__Secrets *secrets, int64_t now_ms, Tb__CaRotate *op)
{
	struct pki_signed made = {0};
	int rv = ca_successor(secrets->ca_cert, secrets->ca_key, now_ms, &made, &op->next_ca_key,
			      &op->bridge_cert);

	if (rv == 0)
		op->next_ca_cert = mem_strdup(made.pem);
	pki_signed_free(&made);
	return rv;
}

/* What corosync-qdevice imports and sees. */
static int site_ca_make(const Tb__Secrets *secrets, int64_t now_ms, Tb__SiteCaRotate *op)
{
	struct pki_signed made = {0};
	int rv = ca_successor(secrets->qnet_ca_cert, secrets->qnet_ca_key, now_ms, &made,
			      &op->ca_key, &op->bridge_cert);

	if (rv == 0) {
		op->ca_cert = mem_strdup(made.pem);
		rv = pki_qnet_server_new(made.pem, op->ca_key, now_ms, made.not_after_ms,
					 &op->server_cert, &op->server_key);
	}
	pki_signed_free(&made);
	return rv;
}

static int rotation_begin(struct api_call *call, bool sites, Tb__Command *command)
{
	int64_t now_ms = core_valid_from_ms(api_now_ms(call->api));
	Tb__Secrets *secrets;
	int rv = store_secrets_get(api_store(call->api), &secrets);

	if (rv != 0)
		return rv;
	if (sites) {
		command->op_case = TB__COMMAND__OP_SITE_CA_ROTATE;
		command->site_ca_rotate = mem_alloc(sizeof(*command->site_ca_rotate));
		tb__site_ca_rotate__init(command->site_ca_rotate);
		rv = site_ca_make(secrets, now_ms, command->site_ca_rotate);
	} else {
		command->op_case = TB__COMMAND__OP_CA_ROTATE;
		command->ca_rotate = mem_alloc(sizeof(*command->ca_rotate));
		tb__ca_rotate__init(command->ca_rotate);
		rv = ca_make(secrets, now_ms, command->ca_rotate);
	}
	store_secrets_free(secrets);
	return rv;
}

static void rotation_finish(const Tb__ClusterRotateCaRequest *request, Tb__Command *command)
{
	if (request->sites) {
		command->op_case = TB__COMMAND__OP_SITE_CA_FINISH;
		command->site_ca_finish = mem_alloc(sizeof(*command->site_ca_finish));
		tb__site_ca_finish__init(command->site_ca_finish);
		command->site_ca_finish->force = request->force;
	} else {
		command->op_case = TB__COMMAND__OP_CA_FINISH;
		command->ca_finish = mem_alloc(sizeof(*command->ca_finish));
		tb__ca_finish__init(command->ca_finish);
		command->ca_finish->force = request->force;
	}
}

void api_cluster_rotate_ca(struct api_call *call)
{
	const Tb__ClusterRotateCaRequest *request =
		(const Tb__ClusterRotateCaRequest *)call->request;
	Tb__Command *command;
	int rv = 0;

	if (request->force && !request->finish) {
		api_problem_field(call, 422, "force", "goes with finish only");
		return;
	}
	command = api_command(call, 0);
	if (request->finish)
		rotation_finish(request, command);
	else
		rv = rotation_begin(call, request->sites, command);
	if (rv != 0) {
		tb__command__free_unpacked(command, NULL);
		api_problem(call, 500, NULL, "the new CA could not be made");
		return;
	}
	api_propose(call, command, ca_applied);
}

Tb__Certificate *api_certificate_row(const struct api_call *call, const struct pki_signed *cert,
				     const char *subject, const char *kind)
{
	Tb__Certificate *row = mem_alloc(sizeof(*row));

	tb__certificate__init(row);
	row->serial = mem_strdup(cert->serial);
	row->subject = mem_strdup(subject);
	row->kind = mem_strdup(kind);
	row->not_after_ms = cert->not_after_ms;
	row->issued_ms = api_now_ms(call->api);
	row->issued_by = mem_strdup(call->who.actor);
	return row;
}

void api_certificate_signed_by(Tb__Certificate *row, const char *ca_cert)
{
	char sha256[65];

	if (pki_sha256(ca_cert, sha256) == 0)
		row->ca_sha256 = mem_strdup(sha256);
}

void api_certificate_propose(struct api_call *call, Tb__Certificate *row, api_applied done)
{
	Tb__Command *command = api_command(call, 0);

	command->op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	command->certificate_add = mem_alloc(sizeof(*command->certificate_add));
	tb__certificate_add__init(command->certificate_add);
	command->certificate_add->certificate = row;
	api_propose(call, command, done);
}

void api_certificate_revoke(struct api_call *call)
{
	Tb__Command *command = api_command(call, 0);

	command->op_case = TB__COMMAND__OP_CERTIFICATE_REVOKE;
	command->certificate_revoke = mem_alloc(sizeof(*command->certificate_revoke));
	tb__certificate_revoke__init(command->certificate_revoke);
	command->certificate_revoke->serial = mem_strdup(call->arg);
	api_propose(call, command, done_empty);
}
