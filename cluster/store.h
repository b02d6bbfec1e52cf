/* store.h: the model in SQLite. The only file that says SELECT.
 *
 * The database is a cache of snapshot + log (DESIGN section 4): it lives on tmpfs and is
 * rebuilt at start. One writer (the core thread); any number of readers, each with a handle
 * and a thread of its own (WAL). Rows keep the whole protobuf message as a blob; columns
 * beside it are only for finding and sorting.
 *
 * Every getter gives a new message that the caller frees (tb__..__free_unpacked).
 * Codes: 0; -ENOENT nothing there; -EIO SQLite failed (store_error says why; the writer must
 * stop the daemon, since the model may no longer equal the log). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"
#include "proto/command.pb-c.h"
#include "proto/model.pb-c.h"

struct store;

/* Makes a fresh, empty database at `path`, readable by its owner only (it holds the cluster's
 * keys; an old one is removed; ":memory:" for tests). Called once, by the writer. Negative errno
 * of the file, or -EIO. */
int store_open(const char *path, struct store **ret);
/* Removes the database at `path`, if there is one. Nobody has it open. */
void store_remove(const char *path);
/* A reader of a database that a writer of this process has opened. */
int store_open_reader(const char *path, struct store **ret);
void store_close(struct store *s); /* NULL is fine */
const char *store_error(const struct store *s);

/* Writer: one transaction per log entry. A reader may call store_begin and store_rollback around
 * several reads that must see one and the same commit; it starts with the first of them. */
int store_begin(struct store *s);
int store_commit(struct store *s, uint64_t applied_index);
int store_rollback(struct store *s);

/* Writer, inside a transaction: a part that can be undone by itself. Not nested. Each store_mark
 * is ended by store_keep or by store_undo. */
int store_mark(struct store *s);
int store_keep(struct store *s);
int store_undo(struct store *s);

/* Index of the last entry applied (in the last commit that this handle sees). */
int store_applied(struct store *s, uint64_t *ret);

int store_cluster_get(struct store *s, Tb__Cluster **ret);
int store_cluster_put(struct store *s, const Tb__Cluster *row);
int store_secrets_get(struct store *s, Tb__Secrets **ret);
int store_secrets_put(struct store *s, const Tb__Secrets *row);
void store_secrets_free(Tb__Secrets *secrets); /* wipes its keys; NULL is fine */

int store_node_get(struct store *s, uint64_t id, Tb__Node **ret);
int store_node_find(struct store *s, const char *name, Tb__Node **ret);
int store_node_put(struct store *s, const Tb__Node *row); /* -EEXIST: its name has another id */
int store_node_delete(struct store *s, uint64_t id);

int store_token_get(struct store *s, const char *id, Tb__Token **ret);
int store_token_put(struct store *s, const Tb__Token *row);
int store_token_delete(struct store *s, const char *id);

int store_certificate_get(struct store *s, const char *serial, Tb__Certificate **ret);
int store_certificate_put(struct store *s, const Tb__Certificate *row);
/* Drops those whose not_after_ms is before `time_ms`; a revoked one that is still valid stays. */
int store_certificates_expire(struct store *s, int64_t time_ms);

int store_site_get(struct store *s, uint64_t id, Tb__Site **ret);
int store_site_find(struct store *s, const char *name, Tb__Site **ret);
int store_site_put(struct store *s, const Tb__Site *row); /* -EEXIST: its name has another id */
int store_site_delete(struct store *s, uint64_t id); /* and its grant */

int store_grant_get(struct store *s, uint64_t site_id, Tb__Grant **ret);
int store_grant_put(struct store *s, const Tb__Grant *row);

int store_image_get(struct store *s, const char *sha256, Tb__Image **ret);
int store_image_find(struct store *s, const char *name, Tb__Image **ret);
int store_image_put(struct store *s, const Tb__Image *row); /* -EEXIST: its name has another sum */
int store_image_delete(struct store *s, const char *sha256);

int store_vm_get(struct store *s, uint64_t id, Tb__Vm **ret);
int store_vm_find(struct store *s, const char *name, Tb__Vm **ret);
int store_vm_put(struct store *s, const Tb__Vm *row); /* -EEXIST: its name has another id */
int store_vm_delete(struct store *s, uint64_t id);

/* Gives it the next seq (also written to row->seq) and drops the oldest beyond LIMIT_EVENTS. */
int store_event_add(struct store *s, Tb__Event *row);

/* Results of commands by id; oldest dropped beyond LIMIT_REQUESTS. */
int store_request_get(struct store *s, const uint8_t *id, size_t len, Tb__CommandResult **ret);
int store_request_put(struct store *s, const uint8_t *id, size_t len,
		      const Tb__CommandResult *result);

/* Counters that never go back ("site", "node", "epoch", "vm"): returns the next value and keeps it.
 */
int store_counter_next(struct store *s, const char *name, uint64_t *ret);
int store_counter_get(struct store *s, const char *name, uint64_t *ret); /* 0 if never used */
/* Makes it at least `value`. */
int store_counter_raise(struct store *s, const char *name, uint64_t value);

/* Rows of a table: "node", "token", "site", "grant", "certificate", "event", "request", "image",
 * "vm". Another name is our own mistake. */
int store_count(struct store *s, const char *table, uint64_t *ret);

/* Lists, in the order given. `visit` returns 0 to go on, 1 to stop; the row is freed after it. It
 * may read from the store; it must not write to it. */
typedef int (*store_visit_node)(void *arg, const Tb__Node *row);
typedef int (*store_visit_token)(void *arg, const Tb__Token *row);
typedef int (*store_visit_site)(void *arg, const Tb__Site *row, const Tb__Grant *grant_or_null);
typedef int (*store_visit_event)(void *arg, const Tb__Event *row);
typedef int (*store_visit_certificate)(void *arg, const Tb__Certificate *row);
typedef int (*store_visit_image)(void *arg, const Tb__Image *row);
typedef int (*store_visit_vm)(void *arg, const Tb__Vm *row);
int store_nodes(struct store *s, store_visit_node visit, void *arg); /* by id */
int store_tokens(struct store *s, store_visit_token visit, void *arg); /* by created, id */
int store_images(struct store *s, store_visit_image visit, void *arg); /* by name */
int store_vms(struct store *s, store_visit_vm visit, void *arg); /* by name */

struct store_site_filter {
	const char *after_name; /* NULL or the last name of the page before; rows are by name */
	const char *label_selector; /* NULL or "region=emea,tier!=lab,owner,!old": all must hold;
				     * != also holds where the label is not set */
	const char *name_prefix; /* NULL */
	uint32_t limit; /* 0: none; store_sites_count ignores it */
};
/* -EINVAL and *ret_problem (static text, if not NULL) for a malformed selector. */
int store_sites(struct store *s, const struct store_site_filter *filter, store_visit_site visit,
		void *arg, const char **ret_problem);
int store_sites_count(struct store *s, const struct store_site_filter *filter, uint64_t *ret);
int store_tenant_sites(struct store *s, const char *tenant, uint64_t *ret); /* how many it has */
/* Values of the label "tenant" with the number of sites, by name. */
typedef int (*store_visit_tenant)(void *arg, const char *tenant, uint64_t sites);
int store_tenants(struct store *s, store_visit_tenant visit, void *arg);
int store_events(struct store *s, uint64_t after_seq, uint32_t limit, store_visit_event visit,
		 void *arg); /* by seq, rising */
int store_events_newest(struct store *s, uint32_t limit, store_visit_event visit,
			void *arg); /* by seq, falling */
int store_event_range(struct store *s, uint64_t *ret_first, uint64_t *ret_last); /* 0, 0: none */
int store_certificates(struct store *s, const char *after_serial, uint32_t limit,
		       store_visit_certificate visit, void *arg); /* by serial; limit 0: none */
/* Those of one kind and subject, by serial. */
int store_certificates_of(struct store *s, const char *kind, const char *subject,
			  store_visit_certificate visit, void *arg);

/* The whole model as one packed Tb__Snapshot behind a head with layout version and SHA-256,
 * and back. Equal models give equal bytes. store_restore replaces everything in one
 * transaction; -EBADMSG for bytes that are damaged or of a later layout (store_error says
 * which), and the model is unchanged then. Never inside a transaction. */
int store_snapshot(struct store *s, struct buf *out);
int store_restore(struct store *s, const uint8_t *data, size_t len);
/* Writer, inside a transaction: one row of another model's snapshot, by the numbers of
 * Tb__Snapshot__Record. -EBADMSG: it is none. */
int store_record_put(struct store *s, unsigned row, const void *body, size_t len);
/* Writer, outside: everything goes, as if it had just been opened. */
int store_clear(struct store *s);
/* SHA-256 over the model's rows without the applied index: equal on boards that applied the
 * same entries. Lower-case hex. */
int store_digest(struct store *s, char hex[65]);
