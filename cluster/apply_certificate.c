/* apply_certificate.c: which certificates the model takes, and which of them hold no more. Doors
 * ask it for the serial of whoever comes; apply_ca.c has the CAs that sign them. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/apply_internal.h"
#include "cluster/check.h"
#include "cluster/limits.h"
#include "lib/mem.h"

static bool is_of_site(const Tb__Certificate *row)
{
	return strcmp(row->kind, "site") == 0 || strcmp(row->kind, "agent") == 0;
}

/* Sites and their agents cannot take the place that boards need to renew theirs. */
static int certificate_room(struct applier *a, const Tb__Certificate *row)
{
	uint64_t limit = LIMIT_CERTIFICATES;
	uint64_t count;
	int rv = store_count(a->s, "certificate", &count);

	if (is_of_site(row) && level_reached(a, LEVEL_CERTIFICATES))
		limit -= LIMIT_CERTIFICATES_RESERVED;
	if (rv != 0 || count < limit)
		return rv;
	rv = store_certificates_expire(a->s, a->command->time_ms);
	if (rv == 0)
		rv = store_count(a->s, "certificate", &count);
	if (rv != 0 || count < limit)
		return rv;
	return refuse(
		a, TB__REFUSAL__REFUSAL_LIMIT, "certificate",
		"the cluster remembers at most %" PRIu64
		" certificates of this kind, revoked ones too, and none has expired; wait until "
		"some do",
		limit);
}

/* Valid ones of a site, or of its agents. */
struct holders {
	const struct applier *a;
	const Tb__Certificate *row;
	unsigned same; /* for the site itself, or for the same node */
	unsigned all;
};

static int holders_visit(void *arg, const Tb__Certificate *row)
{
	struct holders *h = arg;

	if (row->revoked || (row->not_after_ms != 0 && row->not_after_ms < h->a->command->time_ms))
		return 0;
	h->all++;
	h->same += row->node == h->row->node;
	return 0;
}

/* A valid one cannot be dropped to make room: who is not in the table is let in, since a board's
 * model may lag, and a restored one be older than the certificate. */
static int certificate_holder_room(struct applier *a, const Tb__Certificate *row)
{
	struct holders h = {.a = a, .row = row};
	int rv = store_certificates_of(a->s, row->kind, row->subject, holders_visit, &h);

	if (rv != 0 || (h.same < LIMIT_HOLDER_CERTIFICATES && h.all < LIMIT_SITE_CERTIFICATES))
		return rv;
	if (h.same < LIMIT_HOLDER_CERTIFICATES)
		return refuse(
			a, TB__REFUSAL__REFUSAL_LIMIT, "certificate",
			"the agents of site %s have %u valid certificates, and %d are allowed; "
			"revoke those that are not in use (witnessctl cert list, witnessctl cert "
			"revoke)",
			row->subject, h.all, LIMIT_SITE_CERTIFICATES);
	return refuse(
		a, TB__REFUSAL__REFUSAL_LIMIT, "certificate",
		"site %s has %u valid certificates for %s, and %d are allowed; revoke those that "
		"are not in use (witnessctl cert list, witnessctl cert revoke)",
		row->subject, h.same, row->node != 0 ? "this node" : "its nodes",
		LIMIT_HOLDER_CERTIFICATES);
}

/* What was signed for a site that is deleted by now must not open another one of its name, which
 * may be another tenant's. */
static int certificate_site(struct applier *a, const Tb__Certificate *row)
{
	Tb__Site *site = NULL;
	bool same;
	int rv;

	if (!is_of_site(row) || !level_reached(a, LEVEL_CERTIFICATES))
		return 0;
	rv = store_site_find(a->s, row->subject, &site);
	if (rv != 0 && rv != -ENOENT)
		return rv;
	same = rv == 0 && (row->site_id == 0 || row->site_id == site->id) && tenant_may(a, site);
	tb__site__free_unpacked(site, NULL);
	if (same)
		return certificate_holder_room(a, row);
	return refuse(
		a, TB__REFUSAL__REFUSAL_NOT_FOUND, "certificate.subject",
		"there is no site %s, or it was deleted and made anew meanwhile; see witnessctl "
		"site list, and enrol again",
		row->subject);
}

int certificate_add(struct applier *a, const Tb__Certificate *certificate)
{
	struct apply_problem problem;
	Tb__Certificate row = *certificate;
	Tb__Certificate *old;
	int rv;

	if (certificate_check(&row, &problem) != 0)
		return refuse_invalid(a, &problem);
	rv = store_certificate_get(a->s, row.serial, &old);
	if (rv == 0) {
		tb__certificate__free_unpacked(old, NULL);
		return refuse(a, TB__REFUSAL__REFUSAL_EXISTS, "certificate.serial",
			      "a certificate with the serial %s exists; sign with another",
			      row.serial);
	}
	if (rv != -ENOENT)
		return rv;
	rv = certificate_site(a, &row);
	if (rv == 0)
		rv = certificate_room(a, &row);
	if (rv != 0)
		return rv;
	if (row.issued_ms == 0)
		row.issued_ms = a->command->time_ms;
	row.issued_by = a->command->actor;
	row.revoked = false;
	row.saved = false;
	a->out->certificates_changed = true;
	return store_certificate_put(a->s, &row);
}

int apply_certificate_add(struct applier *a, const Tb__CertificateAdd *op)
{
	const Tb__Certificate *row = op->certificate;
	struct subject subject = {0};
	int rv;

	if (row == NULL)
		return refuse_missing(a, "certificate");
	rv = certificate_add(a, row);
	if (rv != 0)
		return rv;
	if (is_of_site(row))
		subject.site = row->subject;
	if (strcmp(row->kind, "node") == 0)
		subject.node = row->subject;
	return audit(a, "certificate.issued", INFO, subject, "%s certificate %s issued to %s",
		     row->kind, row->serial, row->subject);
}

static int certificate_void(struct applier *a, const Tb__Certificate *old)
{
	Tb__Certificate row = *old;

	row.revoked = true;
	a->out->certificates_changed = true;
	return store_certificate_put(a->s, &row);
}

static int certificate_revoke(struct applier *a, const Tb__Certificate *row)
{
	int rv = certificate_void(a, row);

	if (rv != 0)
		return rv;
	return audit(a, "certificate.revoked", WARNING, (struct subject){0},
		     "%s certificate %s of %s revoked", row->kind, row->serial, row->subject);
}

static int certificate_get(struct applier *a, const char *serial, Tb__Certificate **ret)
{
	int rv = store_certificate_get(a->s, serial, ret);

	if (rv != -ENOENT)
		return rv;
	return refuse(a, TB__REFUSAL__REFUSAL_NOT_FOUND, "serial",
		      "no certificate of this cluster has that serial; see witnessctl cert list");
}

int apply_certificate_revoke(struct applier *a, const Tb__CertificateRevoke *op)
{
	Tb__Certificate *row;
	int rv = certificate_get(a, op->serial, &row);

	if (rv != 0)
		return rv;
	if (row->revoked)
		a->result->unchanged = 1;
	else
		rv = certificate_revoke(a, row);
	if (rv == 0 && a->result->unchanged == 0)
		a->result->changed = 1;
	tb__certificate__free_unpacked(row, NULL);
	return rv;
}

int apply_certificate_saved(struct applier *a, const Tb__CertificateSaved *op)
{
	Tb__Certificate *row;
	int rv = certificate_get(a, op->serial, &row);

	if (rv != 0)
		return rv;
	if (strcmp(row->kind, "node") != 0) {
		rv = refuse(a, TB__REFUSAL__REFUSAL_INVALID, "serial",
			    "only boards say of their certificates that they are saved");
	} else if (row->saved) {
		a->result->unchanged = 1;
	} else {
		row->saved = true;
		a->result->changed = 1;
		rv = store_certificate_put(a->s, row);
	}
	tb__certificate__free_unpacked(row, NULL);
	return rv;
}

struct serials {
	size_t count;
	char **items;
};

static int serials_visit(void *arg, const Tb__Certificate *row)
{
	struct serials *serials = arg;

	if (row->revoked)
		return 0;
	serials->items =
		mem_realloc(serials->items, (serials->count + 1) * sizeof(serials->items[0]));
	serials->items[serials->count++] = mem_strdup(row->serial);
	return 0;
}

/* Frees them, also if `rv` is not 0 already. */
static int serials_revoke(struct applier *a, struct serials *serials, int rv,
			  int (*revoke)(struct applier *a, const Tb__Certificate *row))
{
	for (size_t i = 0; i < serials->count; i++) {
		Tb__Certificate *row;

		if (rv == 0)
			rv = store_certificate_get(a->s, serials->items[i], &row);
		if (rv == 0) {
			rv = revoke(a, row);
			tb__certificate__free_unpacked(row, NULL);
		}
		free(serials->items[i]);
	}
	free(serials->items);
	return rv;
}

int node_certificates_revoke(struct applier *a, const char *name)
{
	struct serials serials = {0};
	int rv = store_certificates_of(a->s, "node", name, serials_visit, &serials);

	return serials_revoke(a, &serials, rv, certificate_revoke);
}

/* Without an event for each: the one that tells of the deletion counts them. */
int site_certificates_revoke(struct applier *a, const char *name, size_t *ret_count)
{
	struct serials serials = {0};
	int rv = store_certificates_of(a->s, "site", name, serials_visit, &serials);

	if (rv == 0)
		rv = store_certificates_of(a->s, "agent", name, serials_visit, &serials);
	*ret_count = serials.count;
	return serials_revoke(a, &serials, rv, certificate_void);
}

static int restore_serials_visit(void *arg, const Tb__Certificate *row)
{
	return strcmp(row->kind, "node") == 0 ? serials_visit(arg, row) : 0;
}

/* The boards of the old history are not of this one, whenever they come back. */
int restore_certificates(struct applier *a)
{
	struct serials serials = {0};
	int rv = store_certificates(a->s, NULL, 0, restore_serials_visit, &serials);

	return serials_revoke(a, &serials, rv, certificate_revoke);
}
