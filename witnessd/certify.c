/* certify.c: this board's own certificate, and which CAs it believes.
 *
 * Every board holds the cluster's keys in its model and signs its own certificate anew, with the
 * key it has: at two thirds of its life, and when another CA signs. The certificate is recorded in
 * the log before it is used, as all are. Nothing ends: links and connections keep the contexts that
 * they were made with.
 *
 * A rotation of the CA (proto/model.proto, CaRotation), without an interruption:
 *   TRUST    each board writes both CAs to its disk and believes both; it says so to the leader
 * with its renewals. When all boards of the model have said it, the leader ends the step. OVERLAP
 * the new CA signs: each board renews its certificate, and says in the log when it is on its disk.
 * A board that cannot write holds the rotation up: it would be shut out later. Who knows only the
 * old CA is led to it by a bridge, the new CA's key signed by the old one, sent with it. (finish)
 * the old CA is believed no more; client certificates that it signed end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/renewal.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "witnessd/admit.h"

enum { CERTIFY_MS = 1000, CERTIFY_RETRY_MS = 10000, CERTIFY_EARLY_MS = 24 * 3600 * 1000 };

/* The CA that signs, then the others that are believed. */
static char *certify_believed(const Tb__Secrets *s)
{
	return mem_printf("%s%s%s", s->ca_cert, s->next_ca_cert, s->old_ca_cert);
}

/* Behind the board's certificate `leaf`: what leads from it to the CA of before. */
static char *certify_chain(const Tb__Secrets *s, const char *leaf)
{
	bool bridged = s->old_ca_cert[0] != '\0';

	return mem_printf("%.*s%s%s", (int)identity_pem_first(leaf), leaf,
			  bridged ? s->bridge_cert : "", bridged ? s->old_ca_cert : "");
}

static void certify_save_failed(struct core *c, int rv)
{
	if (!c->certify_failed)
		log_error("certificate",
			  "cannot write to %s: %s; tried again every second. A rotation of the CA "
			  "waits for it",
			  c->data_dir, strerror(-rv));
	c->certify_failed = true;
}

/* Writes what has changed. A crash between the two files is harmless: each is right by itself. 0
 * only if all of it is on the disk, and then it is used. */
static int certify_save(struct core *c, const Tb__Secrets *s, const char *leaf)
{
	struct identity *id = &c->identity;
	char *believed = certify_believed(s);
	char *chain = certify_chain(s, leaf);
	bool new_ca = strcmp(believed, id->ca_cert) != 0;
	bool new_cert = strcmp(chain, id->cert) != 0;
	int rv = 0;

	if (new_ca)
		rv = identity_file_write(c->data_dir, "ca.crt", 0644, believed, strlen(believed));
	if (rv == 0 && new_cert)
		rv = identity_file_write(c->data_dir, "node.crt", 0644, chain, strlen(chain));
	if (rv != 0) {
		certify_save_failed(c, rv);
	} else if (new_ca || new_cert) {
		free(id->ca_cert);
		free(id->cert);
		id->ca_cert = mem_strdup(believed);
		id->cert = mem_strdup(chain);
		c->listeners.identity_changed(c->listeners.arg);
	}
	c->certify_failed = rv != 0;
	free(believed);
	free(chain);
	return rv;
}

/* The certificate that is recorded but not written yet, if there is one, else the one in use. It is
 * not asked for again each time: every request is a row of the model. */
static int certify_settle(struct core *c, const Tb__Secrets *secrets)
{
	const char *leaf = c->identity.next_cert != NULL ? c->identity.next_cert : c->identity.cert;
	int rv = certify_save(c, secrets, leaf);

	if (rv == 0 && c->identity.next_cert != NULL) {
		free(c->identity.next_cert);
		c->identity.next_cert = NULL;
		log_notice("certificate", "this board has a new certificate");
	}
	return rv;
}

struct renewal {
	struct core *c;
	char *pem;
};

static void certify_recorded(void *arg, int error, Tb__CommandResult *const *results, size_t count)
{
	struct renewal *r = arg;
	struct core *c = r->c;
	Tb__Secrets *secrets;

	c->certifying = false;
	if (error != 0 || count != 1 || results[0]->refusal != 0) {
		log_warning("certificate",
			    "this board's new certificate could not be recorded: %s; trying again",
			    error != 0 ? strerror(-error) : results[0]->message);
		c->certify_again_ms = clock_boottime_ms() + CERTIFY_RETRY_MS;
	} else if (!c->stopping && !c->retiring && store_secrets_get(c->store, &secrets) == 0) {
		free(c->identity.next_cert);
		c->identity.next_cert = r->pem;
		r->pem = NULL;
		certify_settle(c, secrets);
		store_secrets_free(secrets);
	}
	free(r->pem);
	free(r);
}

static void certify_renew(struct core *c, const Tb__Cluster *cluster, const Tb__Secrets *secrets)
{
	struct pki_signed made = {0};
	const char *message = "";
	Tb__Command *command;
	struct renewal *r;
	char *csr = NULL;
	int rv = pki_request_new(c->identity.node_name, c->identity.key, &csr);

	if (rv == 0)
		rv = admit_certificate(&(struct admit_signer){secrets->ca_cert, secrets->ca_key,
							      admit_life_ms(cluster)},
				       csr, c->identity.node_id, c->identity.node_name,
				       core_now_ms(c), &made, &message);
	free(csr);
	if (rv != 0) {
		log_error("certificate", "this board's certificate cannot be renewed: %s", message);
		c->certify_again_ms = clock_boottime_ms() + CERTIFY_RETRY_MS;
		return;
	}
	r = mem_zalloc(sizeof(*r));
	r->c = c;
	r->pem = made.pem;
	command = proposal_command(mem_printf("node:%s", c->identity.node_name));
	command->op_case = TB__COMMAND__OP_CERTIFICATE_ADD;
	command->certificate_add = mem_alloc(sizeof(Tb__CertificateAdd));
	tb__certificate_add__init(command->certificate_add);
	command->certificate_add->certificate = mem_alloc(sizeof(Tb__Certificate));
	admit_certificate_row(command->certificate_add->certificate, &made, secrets->ca_cert,
			      c->identity.node_name, "renewal", core_now_ms(c));
	made.pem = NULL;
	pki_signed_free(&made);
	c->certifying = true;
	proposal_one(c, command, certify_recorded, r);
}

/* Tells the cluster that the own certificate, of the CA that signs, is on the disk. */
static void certify_tell(struct core *c, const char *serial)
{
	Tb__Command *command = proposal_command(mem_printf("node:%s", c->identity.node_name));

	command->op_case = TB__COMMAND__OP_CERTIFICATE_SAVED;
	command->certificate_saved = mem_alloc(sizeof(Tb__CertificateSaved));
	tb__certificate_saved__init(command->certificate_saved);
	command->certificate_saved->serial = mem_strdup(serial);
	c->certify_again_ms = clock_boottime_ms() + CERTIFY_RETRY_MS;
	proposal_one(c, command, NULL, NULL);
}

/* It was signed while the time of the log was ahead: who goes by a right clock cannot use it yet.
 */
static bool certify_early(const char *cert)
{
	int64_t begin_ms;

	return core_clock_plausible() && pki_not_before_ms(cert, &begin_ms) == 0 &&
	       begin_ms > clock_realtime_ms() + CERTIFY_EARLY_MS;
}

enum certify_step { CERTIFY_NOTHING, CERTIFY_RENEW, CERTIFY_TELL };

/* What is on the disk is compared with the model. */
static enum certify_step certify_next(struct core *c, const Tb__Cluster *cluster,
				      const Tb__Secrets *secrets, char serial[64])
{
	enum certify_step step = CERTIFY_NOTHING;
	Tb__Certificate *own;
	char sha256[65];
	bool overlap = cluster->ca_rotation == TB__CA_ROTATION__CA_ROTATION_OVERLAP;

	if (pki_serial(c->identity.cert, serial) != 0 || pki_sha256(secrets->ca_cert, sha256) != 0)
		return CERTIFY_RENEW;
	/* One that the model has forgotten has expired. */
	if (store_certificate_get(c->store, serial, &own) != 0)
		return CERTIFY_RENEW;
	if (renewal_is_due(own->issued_ms, own->not_after_ms, core_now_ms(c)) ||
	    certify_early(c->identity.cert) || (overlap && strcmp(own->ca_sha256, sha256) != 0))
		step = CERTIFY_RENEW;
	else if (overlap && !own->saved && core_level(c) >= LEVEL_CERTIFICATES)
		step = CERTIFY_TELL;
	/* Who was shut out does not let itself in again. */
	if (own->revoked)
		step = CERTIFY_NOTHING;
	tb__certificate__free_unpacked(own, NULL);
	return step;
}

static void certify_look(struct core *c, const Tb__Cluster *cluster, const Tb__Secrets *secrets)
{
	char serial[64];

	/* It counts as believing, and as certified, only by what is on its disk. */
	if (certify_settle(c, secrets) != 0)
		return;
	c->certified_index = cluster->ca_rotation_index;
	if (c->certifying || clock_boottime_ms() < c->certify_again_ms || !core_clock_known(c))
		return;
	switch (certify_next(c, cluster, secrets, serial)) {
	case CERTIFY_RENEW:
		certify_renew(c, cluster, secrets);
		break;
	case CERTIFY_TELL:
		certify_tell(c, serial);
		break;
	case CERTIFY_NOTHING:
		break;
	}
}

void certify_tick(struct core *c, uint64_t now_ms)
{
	Tb__Cluster *cluster;
	Tb__Secrets *secrets;

	if (now_ms < c->certify_ms || !c->secrets_seen || c->init != NULL ||
	    c->restoration != NULL || c->join != NULL || !c->self_seen)
		return;
	c->certify_ms = now_ms + CERTIFY_MS;
	if (store_cluster_get(c->store, &cluster) != 0)
		return;
	if (store_secrets_get(c->store, &secrets) == 0) {
		certify_look(c, cluster, secrets);
		store_secrets_free(secrets);
	}
	tb__cluster__free_unpacked(cluster, NULL);
}

/* --- the leader: from TRUST to OVERLAP --- */

struct believers {
	struct core *c;
	uint64_t index;
	bool missing;
};

static int believers_visit(void *arg, const Tb__Node *node)
{
	struct believers *b = arg;
	struct core *c = b->c;
	uint64_t index = 0;

	if (node->id == c->identity.node_id)
		index = c->certified_index;
	for (unsigned i = 0; i < LIMIT_NODES; i++)
		if (c->boards[i].node == node->id && node->id != c->identity.node_id)
			index = c->boards[i].certified_index;
	b->missing |= index < b->index;
	return 0;
}

void certify_lead(struct core *c, uint64_t now_ms)
{
	Tb__Command *command;
	Tb__Cluster *cluster;
	Tb__Secrets *secrets;
	struct believers b = {.c = c};

	if (now_ms < c->rotate_ms || store_cluster_get(c->store, &cluster) != 0)
		return;
	c->rotate_ms = now_ms + CERTIFY_MS;
	b.index = cluster->ca_rotation_index;
	b.missing = cluster->ca_rotation != TB__CA_ROTATION__CA_ROTATION_TRUST;
	tb__cluster__free_unpacked(cluster, NULL);
	if (store_nodes(c->store, believers_visit, &b) != 0 || b.missing ||
	    store_secrets_get(c->store, &secrets) != 0)
		return;
	command = proposal_command(mem_strdup("rotation"));
	command->op_case = TB__COMMAND__OP_CA_ADVANCE;
	command->ca_advance = mem_alloc(sizeof(Tb__CaAdvance));
	tb__ca_advance__init(command->ca_advance);
	command->ca_advance->ca_sha256 = mem_alloc(65);
	command->ca_advance->rotation_index = b.index;
	if (pki_sha256(secrets->next_ca_cert, command->ca_advance->ca_sha256) == 0) {
		c->rotate_ms = now_ms + CERTIFY_RETRY_MS;
		proposal_one(c, command, NULL, NULL);
	} else {
		tb__command__free_unpacked(command, NULL);
	}
	store_secrets_free(secrets);
}
