/* api_enroll.c: what a site's nodes need to reach the witness: a certificate that corosync-qdevice
 * takes, and the piece of corosync.conf. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "witnessd/api_call.h"
#include "witnessd/pki.h"

/* corosync-qdevice cannot renew by itself, and a site whose certificate has run out loses its
 * witness: long-lived, recorded, revocable. */
enum { SITE_DAYS = 3650, CSR_MAX = 64 << 10 };
/* What corosync-qdevice-net-certutil looks for in the PKCS#12 that it imports. */
static const char nickname[] = "Cluster Cert";

/* --- the piece of corosync.conf --- */

static const char *algorithm_word(const Tb__SitePolicy *policy)
{
	switch (policy != NULL ? policy->algorithm : TB__ALGORITHM__ALGORITHM_ANY) {
	case TB__ALGORITHM__ALGORITHM_LMS:
		return "lms";
	case TB__ALGORITHM__ALGORITHM_2NODELMS:
		return "2nodelms";
	default:
		return "ffsplit";
	}
}

static const char *tls_word(const Tb__SitePolicy *policy)
{
	switch (policy != NULL ? policy->tls : TB__TLS__TLS_ANY) {
	case TB__TLS__TLS_OFF:
		return "off";
	case TB__TLS__TLS_REQUIRED:
		return "required";
	default:
		return "on";
	}
}

static void tie_breaker_write(const Tb__SitePolicy *policy, struct buf *out)
{
	if (policy == NULL)
		return;
	if (policy->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_LOWEST)
		buf_puts(out, "      tie_breaker: lowest\n");
	else if (policy->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_HIGHEST)
		buf_puts(out, "      tie_breaker: highest\n");
	else if (policy->tie_breaker == TB__TIE_BREAKER__TIE_BREAKER_NODE)
		buf_printf(out, "      tie_breaker: %u\n", policy->tie_breaker_node);
}

struct boards {
	struct buf hosts; /* "10.0.0.1, 10.0.0.2" */
	char first[272];
	char port[8];
	unsigned count;
};

static int board_visit(void *arg, const Tb__Node *row)
{
	struct boards *b = arg;
	const char *colon = strrchr(row->qnet_address, ':');
	const char *host = row->qnet_address;
	size_t len = colon != NULL ? (size_t)(colon - host) : strlen(host);

	if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	if (len == 0)
		return 0;
	if (b->hosts.len == 0) {
		snprintf(b->first, sizeof(b->first), "%.*s", (int)len, host);
		snprintf(b->port, sizeof(b->port), "%s", colon != NULL ? colon + 1 : "5403");
	}
	b->count++;
	buf_printf(&b->hosts, "%s%.*s", b->hosts.len > 0 ? ", " : "", (int)len, host);
	return 0;
}

static void corosync_conf(struct store *s, const Tb__Site *site, struct buf *out)
{
	struct boards boards = {.port = "5403", .first = "witness.example"};

	store_nodes(s, board_visit, &boards);
	buf_puts(out, "quorum {\n"
		      "  provider: corosync_votequorum\n"
		      "  device {\n"
		      "    model: qdevice\n"
		      "    votes: 1\n"
		      "    net {\n");
	if (boards.count > 1)
		buf_printf(out,
			   "      # Better: one DNS or /etc/hosts name for all of %s;\n"
			   "      # corosync-qdevice tries every address behind a name.\n",
			   buf_string(&boards.hosts));
	buf_printf(out, "      host: %s\n      port: %s\n      algorithm: %s\n      tls: %s\n",
		   boards.first, boards.port, algorithm_word(site->policy), tls_word(site->policy));
	tie_breaker_write(site->policy, out);
	buf_puts(out, "    }\n  }\n}\n");
	buf_free(&boards.hosts);
}

/* --- enrolment --- */

struct enrolment {
	Tb__Site *site;
	Tb__Cluster *cluster;
	Tb__Secrets *secrets;
	char *key; /* NULL: the node has made its own */
	struct buf request;
	struct pki_signed cert;
};

static void enrolment_free(void *state)
{
	struct enrolment *e = state;

	if (e->key != NULL)
		mem_wipe(e->key, strlen(e->key));
	free(e->key);
	buf_free(&e->request);
	pki_signed_free(&e->cert);
	tb__site__free_unpacked(e->site, NULL);
	tb__cluster__free_unpacked(e->cluster, NULL);
	store_secrets_free(e->secrets);
	free(e);
}

/* What the node sends is PEM text or base64 of DER. */
static int request_read(const char *csr, struct buf *out)
{
	size_t len = strlen(csr);
	EVP_ENCODE_CTX *context;
	int first = 0;
	int last = 0;
	int rv;

	if (len > CSR_MAX)
		return -EINVAL;
	if (strstr(csr, "-----BEGIN") != NULL) {
		buf_append(out, csr, len);
		return 0;
	}
	context = EVP_ENCODE_CTX_new();
	EVP_DecodeInit(context);
	buf_reserve(out, len + 64);
	rv = EVP_DecodeUpdate(context, out->data, &first, (const unsigned char *)csr, (int)len);
	if (rv >= 0)
		rv = EVP_DecodeFinal(context, out->data + first, &last);
	EVP_ENCODE_CTX_free(context);
	if (rv < 0 || first + last == 0)
		return -EINVAL;
	out->len = (size_t)(first + last);
	return 0;
}

static int request_make(struct enrolment *e)
{
	char *request;
	int rv = pki_key_new(&e->key);

	if (rv == 0)
		rv = pki_request_new(e->site->name, e->key, &request);
	if (rv != 0)
		return rv;
	buf_puts(&e->request, request);
	free(request);
	return 0;
}

static void enrolment_answer(struct api_call *call, struct enrolment *e)
{
	Tb__Enrollment enrollment = TB__ENROLLMENT__INIT;
	const char *message = "";
	struct buf conf = {0};
	struct buf der = {0};
	struct buf p12 = {0};
	int rv = pki_der(e->cert.pem, &der);

	if (rv == 0 && e->key != NULL)
		rv = pki_pkcs12(e->cert.pem, e->key, e->secrets->qnet_ca_cert, nickname, &p12,
				&message);
	corosync_conf(api_store(call->api), e->site, &conf);
	enrollment.site = e->site->name;
	enrollment.ca_certificate = e->secrets->qnet_ca_cert;
	enrollment.certificate = e->cert.pem;
	enrollment.certificate_der = (ProtobufCBinaryData){.data = der.data, .len = der.len};
	enrollment.pkcs12 = (ProtobufCBinaryData){.data = p12.data, .len = p12.len};
	enrollment.serial = e->cert.serial;
	enrollment.corosync_conf = (char *)buf_string(&conf);
	if (rv == 0)
		api_answer_message(call, &enrollment.base);
	else
		api_problem_error(call, -EIO, message);
	if (p12.len > 0)
		mem_wipe(p12.data, p12.len);
	buf_free(&conf);
	buf_free(&der);
	buf_free(&p12);
}

/* False, and the call is over: the certificate of this very call was not recorded. */
static bool enrolment_recorded(struct api_call *call, const struct enrolment *e)
{
	Tb__Certificate *row;

	if (store_certificate_get(api_store(call->api), e->cert.serial, &row) != 0) {
		api_problem(call, 409, "take a new Idempotency-Key",
			    "an earlier request with this Idempotency-Key enrolled the site; the "
			    "certificate was given out then");
		return false;
	}
	tb__certificate__free_unpacked(row, NULL);
	return true;
}

static void enrolled(struct api_call *call, const Tb__CommandResult *result)
{
	struct enrolment *e = call->state;

	(void)result;
	if (enrolment_recorded(call, e))
		enrolment_answer(call, e);
}

static int enrolment_sign(struct api_call *call, struct enrolment *e)
{
	int64_t now_ms = api_now_ms(call->api);
	struct pki_sign how = {.ca_cert = e->secrets->qnet_ca_cert,
			       .ca_key = e->secrets->qnet_ca_key,
			       .request = e->request.data,
			       .request_len = e->request.len,
			       .common_name = e->site->name,
			       .use = PKI_QNET_CLIENT,
			       .now_ms = core_valid_from_ms(now_ms),
			       .not_after_ms = now_ms + SITE_DAYS * 24LL * 3600 * 1000};
	const char *message = "";
	int rv = pki_sign(&how, &e->cert, &message);

	if (rv != 0)
		api_problem_field(call, 422, "csr", message);
	return rv;
}

void api_site_enroll(struct api_call *call)
{
	const Tb__EnrollRequest *request = (const Tb__EnrollRequest *)call->request;
	struct store *s = api_store(call->api);
	struct enrolment *e = mem_zalloc(sizeof(*e));
	Tb__Certificate *row;
	int rv;

	call->state = e;
	call->state_free = enrolment_free;
	rv = store_site_find(s, call->arg, &e->site);
	if (rv == 0 && !api_site_visible(call, e->site))
		rv = -ENOENT;
	if (rv == -ENOENT) {
		api_problem(call, 404, "POST /v1/sites creates one", "there is no site \"%s\"",
			    call->arg);
		return;
	}
	if (rv == 0)
		rv = store_cluster_get(s, &e->cluster);
	if (rv != 0 || store_secrets_get(s, &e->secrets) != 0) {
		api_store_failed(call);
		return;
	}
	if (request->csr[0] == '\0' ? request_make(e) : request_read(request->csr, &e->request)) {
		api_problem_field(call, 422, "csr",
				  "must be a PKCS#10 request: PEM text, or base64 of DER");
		return;
	}
	if (enrolment_sign(call, e) != 0)
		return;
	row = api_certificate_row(call, &e->cert, e->site->name, "site");
	row->ca_generation = e->cluster->site_ca_generation;
	row->site_id = e->site->id;
	api_certificate_propose(call, row, enrolled);
}

/* --- witness-agent --- */

static int board_address_visit(void *arg, const Tb__Node *row)
{
	Tb__AgentEnrollment *e = arg;

	if (e->n_boards < LIMIT_NODES && row->address[0] != '\0')
		e->boards[e->n_boards++] = mem_strdup(row->address);
	return 0;
}

static void agent_enrolled(struct api_call *call, const Tb__CommandResult *result)
{
	const Tb__AgentEnrollRequest *request = (const Tb__AgentEnrollRequest *)call->request;
	Tb__AgentEnrollment enrollment = TB__AGENT_ENROLLMENT__INIT;
	struct enrolment *e = call->state;
	char *boards[LIMIT_NODES];

	(void)result;
	if (!enrolment_recorded(call, e))
		return;
	enrollment.site = e->site->name;
	enrollment.node = request->node;
	enrollment.certificate = e->cert.pem;
	enrollment.ca_certificate = e->secrets->ca_cert;
	enrollment.serial = e->cert.serial;
	enrollment.boards = boards;
	store_nodes(api_store(call->api), board_address_visit, &enrollment);
	api_answer_message(call, &enrollment.base);
	while (enrollment.n_boards > 0)
		free(boards[--enrollment.n_boards]);
}

/* As long as those of boards, if that was set; the agent renews it by itself. */
static int64_t agent_life_ms(struct api_call *call)
{
	uint64_t life_ms = 0;
	Tb__Cluster *cluster;

	if (store_cluster_get(api_store(call->api), &cluster) == 0) {
		life_ms = cluster->certificate_life_ms;
		tb__cluster__free_unpacked(cluster, NULL);
	}
	return (int64_t)(life_ms != 0 ? life_ms : LIMIT_AGENT_CERTIFICATE_LIFE_MS);
}

static int agent_sign(struct api_call *call, struct enrolment *e, uint32_t node)
{
	int64_t now_ms = api_now_ms(call->api);
	char *uri = mem_printf("tiebreak:agent/%s/%u", e->site->name, node);
	struct pki_sign how = {.ca_cert = e->secrets->ca_cert,
			       .ca_key = e->secrets->ca_key,
			       .request = e->request.data,
			       .request_len = e->request.len,
			       .common_name = e->site->name,
			       .uri = uri,
			       .use = PKI_CLIENT,
			       .now_ms = core_valid_from_ms(now_ms),
			       .not_after_ms = now_ms + agent_life_ms(call)};
	const char *message = "";
	int rv = pki_sign(&how, &e->cert, &message);

	if (rv != 0)
		api_problem_field(call, 422, "csr", message);
	free(uri);
	return rv;
}

void api_site_enroll_agent(struct api_call *call)
{
	const Tb__AgentEnrollRequest *request = (const Tb__AgentEnrollRequest *)call->request;
	struct store *s = api_store(call->api);
	struct enrolment *e = mem_zalloc(sizeof(*e));
	int rv;

	call->state = e;
	call->state_free = enrolment_free;
	rv = store_site_find(s, call->arg, &e->site);
	if (rv == 0 && !api_site_visible(call, e->site))
		rv = -ENOENT;
	if (rv == -ENOENT) {
		api_problem(call, 404, "POST /v1/sites creates one", "there is no site \"%s\"",
			    call->arg);
		return;
	}
	if (rv != 0 || store_secrets_get(s, &e->secrets) != 0) {
		api_store_failed(call);
		return;
	}
	if (request->node == 0) {
		api_problem_field(call, 422, "node",
				  "give the node id that the agent has within its site, from 1");
		return;
	}
	if (call->who.agent_node != 0 && call->who.agent_node != request->node) {
		api_problem(call, 403, "enrol the other node with a token",
			    "an agent may renew the certificate of its own node only");
		return;
	}
	if (request->csr[0] == '\0' || request_read(request->csr, &e->request) != 0) {
		api_problem_field(call, 422, "csr",
				  "must be a PKCS#10 request: PEM text, or base64 of DER");
		return;
	}
	if (agent_sign(call, e, request->node) == 0) {
		Tb__Certificate *row = api_certificate_row(call, &e->cert, e->site->name, "agent");

		row->node = request->node;
		row->site_id = e->site->id;
		api_certificate_signed_by(row, e->secrets->ca_cert);
		api_certificate_propose(call, row, agent_enrolled);
	}
}

void api_qnet_ca(struct api_call *call)
{
	struct buf text = {0};
	Tb__Secrets *secrets;

	if (store_secrets_get(api_store(call->api), &secrets) != 0) {
		api_store_failed(call);
		return;
	}
	buf_puts(&text, secrets->qnet_ca_cert);
	api_answer_text(call, &text);
	buf_free(&text);
	store_secrets_free(secrets);
}
