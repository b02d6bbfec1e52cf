/* apply_ca.c: commands about the CA of boards and API clients, about that of the sites, and about
 * how long certificates live. witnessd/certify.c tells how a rotation goes on. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cluster/apply_internal.h"
#include "cluster/check.h"
#include "cluster/limits.h"

int certificate_life_set(struct applier *a, const Tb__ClusterCertificates *op)
{
	Tb__Cluster *row;
	int rv;

	if (op->life_ms != 0 && (op->life_ms < LIMIT_CERTIFICATE_LIFE_MIN_MS ||
				 op->life_ms > LIMIT_CERTIFICATE_LIFE_MAX_MS))
		return refuse(a, TB__REFUSAL__REFUSAL_INVALID, "certificateLifeMs",
			      "a certificate lives from a minute to ten years");
	rv = store_cluster_get(a->s, &row);
	if (rv != 0)
		return rv;
	if (row->certificate_life_ms == op->life_ms) {
		a->result->unchanged = 1;
	} else {
		row->certificate_life_ms = op->life_ms;
		a->result->changed = 1;
		a->out->cluster_changed = true;
		rv = store_cluster_put(a->s, row);
		if (rv == 0)
			rv = audit(a, "cluster.changed", INFO, (struct subject){0},
				   "certificates of boards and API clients live %" PRIu64
				   " s from now on",
				   (op->life_ms != 0 ? op->life_ms : LIMIT_CERTIFICATE_LIFE_MS) /
					   1000);
	}
	tb__cluster__free_unpacked(row, NULL);
	return rv;
}

static int cluster_and_secrets_put(struct applier *a, const Tb__Cluster *cluster,
				   const Tb__Secrets *secrets)
{
	int rv;

	a->result->changed = 1;
	a->out->cluster_changed = true;
	rv = store_cluster_put(a->s, cluster);
	return rv == 0 ? store_secrets_put(a->s, secrets) : rv;
}

/* One step of the rotation: both rows, with the index at which it began. */
static int ca_step(struct applier *a, Tb__Cluster *cluster, const Tb__Secrets *secrets,
		   Tb__CaRotation step)
{
	cluster->ca_rotation = step;
	cluster->ca_rotation_index = a->index;
	return cluster_and_secrets_put(a, cluster, secrets);
}

static int ca_rotate(struct applier *a, const Tb__CaRotate *op, Tb__Cluster *cluster,
		     const Tb__Secrets *secrets)
{
	struct apply_problem problem;
	Tb__Secrets row = *secrets;
	int rv;

	if (cluster->ca_rotation != TB__CA_ROTATION__CA_ROTATION_NONE)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "",
			      "a rotation of the CA is under way; end it first with witnessctl "
			      "cluster rotate-ca --finish");
	row.next_ca_cert = op->next_ca_cert;
	row.next_ca_key = op->next_ca_key;
	row.bridge_cert = op->bridge_cert;
	if (op->next_ca_cert[0] == '\0' || op->next_ca_key[0] == '\0' || op->bridge_cert[0] == '\0')
		return refuse_missing(a, "nextCaCert");
	if (secrets_check(&row, &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = ca_step(a, cluster, &row, TB__CA_ROTATION__CA_ROTATION_TRUST);
	return rv != 0 ? rv
		       : audit(a, "ca.rotation", INFO, (struct subject){0},
			       "a new CA was made: the boards learn to believe it as well");
}

static int ca_advance(struct applier *a, const Tb__CaAdvance *op, Tb__Cluster *cluster,
		      const Tb__Secrets *secrets)
{
	Tb__Secrets row = *secrets;
	Tb__Cluster next = *cluster;
	int rv;

	if (cluster->ca_rotation != TB__CA_ROTATION__CA_ROTATION_TRUST ||
	    cluster->ca_rotation_index != op->rotation_index)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "rotationIndex",
			      "the rotation is at another step by now");
	row.old_ca_cert = secrets->ca_cert;
	row.ca_cert = secrets->next_ca_cert;
	row.ca_key = secrets->next_ca_key;
	row.next_ca_cert = (char *)(uintptr_t)protobuf_c_empty_string;
	row.next_ca_key = (char *)(uintptr_t)protobuf_c_empty_string;
	next.ca_sha256 = op->ca_sha256;
	next.old_ca_sha256 = cluster->ca_sha256;
	rv = ca_step(a, &next, &row, TB__CA_ROTATION__CA_ROTATION_OVERLAP);
	return rv != 0 ? rv
		       : audit(a, "ca.rotation", INFO, (struct subject){0},
			       "every board believes the new CA: it signs from now on, and the "
			       "boards renew their certificates");
}

struct ca_holders {
	const char *sha256;
	bool saved; /* only those that are on the board's disk count */
	bool found;
};

static int ca_holders_visit(void *arg, const Tb__Certificate *row)
{
	struct ca_holders *holders = arg;

	holders->found |= !row->revoked && (row->saved || !holders->saved) &&
			  strcmp(row->ca_sha256, holders->sha256) == 0;
	return holders->found;
}

struct ca_boards {
	struct store *s;
	const char *sha256;
	bool saved; /* as of ca_holders */
	char missing[LIMIT_NAME + 1]; /* a board without a certificate of the new CA; "" none */
	int status;
};

static int ca_boards_visit(void *arg, const Tb__Node *row)
{
	struct ca_boards *boards = arg;
	struct ca_holders holders = {.sha256 = boards->sha256, .saved = boards->saved};

	boards->status =
		store_certificates_of(boards->s, "node", row->name, ca_holders_visit, &holders);
	if (boards->status != 0)
		return 1;
	if (!holders.found)
		snprintf(boards->missing, sizeof(boards->missing), "%s", row->name);
	return !holders.found;
}

/* Agents and API clients that are left with nothing but certificates of the CA of before. */
struct ca_left {
	struct store *s;
	const char *sha256;
	int64_t now_ms;
	uint32_t count;
	char first[2 * LIMIT_NAME];
	int status;
};

/* Others of the same client, or of the same node of a site. */
struct ca_same {
	const struct ca_left *left;
	const Tb__Certificate *than;
	bool found; /* one that makes `than` no matter */
};

static bool ca_is_valid(const struct ca_left *left, const Tb__Certificate *row)
{
	return !row->revoked && (row->not_after_ms == 0 || row->not_after_ms > left->now_ms);
}

static int ca_same_visit(void *arg, const Tb__Certificate *row)
{
	struct ca_same *same = arg;

	/* One of the new CA; or an older one that was counted for both. */
	same->found |= row->node == same->than->node && ca_is_valid(same->left, row) &&
		       (strcmp(row->ca_sha256, same->left->sha256) == 0 ||
			strcmp(row->serial, same->than->serial) < 0);
	return same->found;
}

static int ca_left_visit(void *arg, const Tb__Certificate *row)
{
	struct ca_left *left = arg;
	struct ca_same same = {.left = left, .than = row};
	bool agent = strcmp(row->kind, "agent") == 0;

	if ((!agent && strcmp(row->kind, "client") != 0) || !ca_is_valid(left, row) ||
	    strcmp(row->ca_sha256, left->sha256) == 0)
		return 0;
	left->status =
		store_certificates_of(left->s, row->kind, row->subject, ca_same_visit, &same);
	if (same.found || left->status != 0)
		return left->status;
	if (left->count++ > 0)
		return 0;
	if (agent)
		snprintf(left->first, sizeof(left->first),
			 "the agent of node %" PRIu32 " of site %s", row->node, row->subject);
	else
		snprintf(left->first, sizeof(left->first), "client %s", row->subject);
	return 0;
}

static int ca_left_check(struct applier *a, const Tb__Cluster *cluster)
{
	struct ca_left left = {
		.s = a->s, .sha256 = cluster->ca_sha256, .now_ms = a->command->time_ms};
	int rv = store_certificates(a->s, NULL, 0, ca_left_visit, &left);

	if (rv != 0 || left.status != 0)
		return rv != 0 ? rv : left.status;
	if (left.count == 0)
		return 0;
	return refuse(
		a, TB__REFUSAL__REFUSAL_CONFLICT, "",
		"%" PRIu32 " agents and API clients have no certificate of the new CA, the "
		"first is %s; renew theirs (witness-agent renew, witnessctl cert renew) or "
		"revoke them (witnessctl cert revoke), or end the rotation with --force: they "
		"are not let in then",
		left.count, left.first);
}

static int ca_finish(struct applier *a, const Tb__CaFinish *op, Tb__Cluster *cluster,
		     const Tb__Secrets *secrets)
{
	struct ca_boards boards = {.s = a->s,
				   .sha256 = cluster->ca_sha256,
				   .saved = cluster->level >= LEVEL_CERTIFICATES};
	Tb__Secrets row = *secrets;
	Tb__Cluster next = *cluster;
	int rv;

	if (cluster->ca_rotation == TB__CA_ROTATION__CA_ROTATION_NONE) {
		a->result->unchanged = 1;
		return 0;
	}
	if (cluster->ca_rotation == TB__CA_ROTATION__CA_ROTATION_OVERLAP) {
		rv = store_nodes(a->s, ca_boards_visit, &boards);
		if (rv != 0 || boards.status != 0)
			return rv != 0 ? rv : boards.status;
		if (boards.missing[0] != '\0')
			return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "",
				      "board %s has no certificate of the new CA on its disk yet; "
				      "wait until it is back and has one (its log says what it "
				      "cannot write), or remove or replace it",
				      boards.missing);
	}
	if (cluster->ca_rotation == TB__CA_ROTATION__CA_ROTATION_OVERLAP && !op->force &&
	    cluster->level >= LEVEL_CERTIFICATES) {
		rv = ca_left_check(a, cluster);
		if (rv != 0)
			return rv;
	}
	/* In the first step nothing was signed by the new one yet: it is given up. */
	row.next_ca_cert = (char *)(uintptr_t)protobuf_c_empty_string;
	row.next_ca_key = (char *)(uintptr_t)protobuf_c_empty_string;
	row.bridge_cert = (char *)(uintptr_t)protobuf_c_empty_string;
	row.old_ca_cert = (char *)(uintptr_t)protobuf_c_empty_string;
	next.old_ca_sha256 = (char *)(uintptr_t)protobuf_c_empty_string;
	rv = ca_step(a, &next, &row, TB__CA_ROTATION__CA_ROTATION_NONE);
	return rv != 0 ? rv
		       : audit(a, "ca.rotated", WARNING, (struct subject){0},
			       "only the CA with the SHA-256 %s is believed from now on",
			       cluster->ca_sha256);
}

/* The sites' CA needs no step in which the boards learn to believe it: it is in the model, which
 * every board serves from. */
static int site_ca_rotate(struct applier *a, const Tb__SiteCaRotate *op, Tb__Cluster *cluster,
			  const Tb__Secrets *secrets)
{
	struct apply_problem problem;
	Tb__Secrets row = *secrets;
	int rv;

	if (cluster->site_ca_rotation != TB__CA_ROTATION__CA_ROTATION_NONE)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "",
			      "a rotation of the sites' CA is under way; end it first with "
			      "witnessctl cluster rotate-ca --sites --finish");
	if (op->ca_cert[0] == '\0' || op->ca_key[0] == '\0' || op->bridge_cert[0] == '\0' ||
	    op->server_cert[0] == '\0' || op->server_key[0] == '\0')
		return refuse_missing(a, "caCert");
	row.old_qnet_ca_cert = secrets->qnet_ca_cert;
	row.qnet_ca_cert = op->ca_cert;
	row.qnet_ca_key = op->ca_key;
	row.qnet_bridge_cert = op->bridge_cert;
	row.qnet_cert = op->server_cert;
	row.qnet_key = op->server_key;
	if (secrets_check(&row, &problem) != 0)
		return refuse_invalid(a, &problem);
	cluster->site_ca_generation++;
	cluster->site_ca_rotation = TB__CA_ROTATION__CA_ROTATION_OVERLAP;
	rv = cluster_and_secrets_put(a, cluster, &row);
	return rv != 0 ? rv
		       : audit(a, "site-ca.rotation", INFO, (struct subject){0},
			       "a new CA signs for the sites from now on; the old one is believed "
			       "until the end of the rotation");
}

/* Sites that have nothing but certificates of an older CA. */
struct ca_sites {
	struct store *s;
	uint32_t generation;
	uint32_t left;
	char first[LIMIT_NAME + 1];
	bool older, newer; /* what the one that is looked at has */
	int status;
};

static int ca_site_visit(void *arg, const Tb__Certificate *row)
{
	struct ca_sites *sites = arg;

	if (!row->revoked)
		*(row->ca_generation == sites->generation ? &sites->newer : &sites->older) = true;
	return 0;
}

static int ca_sites_visit(void *arg, const Tb__Site *row, const Tb__Grant *grant)
{
	struct ca_sites *sites = arg;

	(void)grant;
	sites->older = sites->newer = false;
	sites->status = store_certificates_of(sites->s, "site", row->name, ca_site_visit, sites);
	if (sites->older && !sites->newer && sites->left++ == 0)
		snprintf(sites->first, sizeof(sites->first), "%s", row->name);
	return sites->status;
}

static int site_ca_finish(struct applier *a, const Tb__SiteCaFinish *op, Tb__Cluster *cluster,
			  const Tb__Secrets *secrets)
{
	struct ca_sites sites = {.s = a->s, .generation = cluster->site_ca_generation};
	Tb__Secrets row = *secrets;
	int rv;

	if (cluster->site_ca_rotation == TB__CA_ROTATION__CA_ROTATION_NONE) {
		a->result->unchanged = 1;
		return 0;
	}
	rv = op->force ? 0
		       : store_sites(a->s, &(struct store_site_filter){0}, ca_sites_visit, &sites,
				     NULL);
	if (rv != 0 || sites.status != 0)
		return rv != 0 ? rv : sites.status;
	if (sites.left > 0)
		return refuse(a, TB__REFUSAL__REFUSAL_CONFLICT, "",
			      "%" PRIu32 " sites have no certificate of the new CA, the first is "
			      "%s; enrol them (witnessctl site enroll), or end the rotation with "
			      "--force: they are not let in then",
			      sites.left, sites.first);
	row.qnet_bridge_cert = (char *)(uintptr_t)protobuf_c_empty_string;
	row.old_qnet_ca_cert = (char *)(uintptr_t)protobuf_c_empty_string;
	cluster->site_ca_rotation = TB__CA_ROTATION__CA_ROTATION_NONE;
	rv = cluster_and_secrets_put(a, cluster, &row);
	return rv != 0 ? rv
		       : audit(a, "site-ca.rotated", WARNING, (struct subject){0},
			       "the old CA of the sites is believed no more");
}

int ca_apply(struct applier *a)
{
	const Tb__Command *c = a->command;
	Tb__Cluster *cluster;
	Tb__Secrets *secrets;
	int rv = store_cluster_get(a->s, &cluster);

	if (rv != 0)
		return rv;
	rv = store_secrets_get(a->s, &secrets);
	if (rv == 0) {
		if (c->op_case == TB__COMMAND__OP_CA_ROTATE)
			rv = ca_rotate(a, c->ca_rotate, cluster, secrets);
		else if (c->op_case == TB__COMMAND__OP_CA_ADVANCE)
			rv = ca_advance(a, c->ca_advance, cluster, secrets);
		else if (c->op_case == TB__COMMAND__OP_SITE_CA_ROTATE)
			rv = site_ca_rotate(a, c->site_ca_rotate, cluster, secrets);
		else if (c->op_case == TB__COMMAND__OP_SITE_CA_FINISH)
			rv = site_ca_finish(a, c->site_ca_finish, cluster, secrets);
		else
			rv = ca_finish(a, c->ca_finish, cluster, secrets);
		store_secrets_free(secrets);
	}
	tb__cluster__free_unpacked(cluster, NULL);
	return rv;
}
