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

/* Makes a fresh, empty database at `path` (an old one is removed; ":memory:" for tests).
 * Called once, by the writer. */
int store_open(const char *path, struct store **ret);
/* A reader of a database that a writer of this process has opened. */
int store_open_reader(const char *path, struct store **ret);
void store_close(struct store *s); /* NULL is fine */
const char *store_error(const struct store *s);

/* Writer only: one transaction per log entry. */
int store_begin(struct store *s);
int store_commit(struct store *s, uint64_t applied_index);
int store_rollback(struct store *s);

/* Index of the last entry applied (in the last commit that this handle sees). */
int store_applied(struct store *s, uint64_t *ret);

int store_cluster_get(struct store *s, Tb__Cluster **ret);
int store_cluster_put(struct store *s, const Tb__Cluster *row);
int store_secrets_get(struct store *s, Tb__Secrets **ret);
int store_secrets_put(struct store *s, const Tb__Secrets *row);

int store_node_get(struct store *s, uint64_t id, Tb__Node **ret);
int store_node_find(struct store *s, const char *name, Tb__Node **ret);
int store_node_put(struct store *s, const Tb__Node *row);
int store_node_delete(struct store *s, uint64_t id);

int store_token_get(struct store *s, const char *id, Tb__Token **ret);
int store_token_put(struct store *s, const Tb__Token *row);

int store_certificate_get(struct store *s, const char *serial, Tb__Certificate **ret);
int store_certificate_put(struct store *s, const Tb__Certificate *row);

int store_site_get(struct store *s, uint64_t id, Tb__Site **ret);
int store_site_find(struct store *s, const char *name, Tb__Site **ret);
int store_site_put(struct store *s, const Tb__Site *row);
int store_site_delete(struct store *s, uint64_t id); /* and its grant */

int store_grant_get(struct store *s, uint64_t site_id, Tb__Grant **ret);
int store_grant_put(struct store *s, const Tb__Grant *row);

/* Gives it the next seq (also written to row->seq) and drops the oldest beyond LIMIT_EVENTS. */
int store_event_add(struct store *s, Tb__Event *row);

/* Results of commands by id; oldest dropped beyond LIMIT_REQUESTS. */
int store_request_get(struct store *s, const uint8_t *id, size_t len, Tb__CommandResult **ret);
int store_request_put(struct store *s, const uint8_t *id, size_t len,
		      const Tb__CommandResult *result);

/* Counters that never go back ("site", "node"): returns the next value and keeps it. */
int store_counter_next(struct store *s, const char *name, uint64_t *ret);

int store_count(struct store *s, const char *table, uint64_t *ret); /* "site", "node", "token", ... */

/* Lists, in the order given. `visit` returns 0 to go on, 1 to stop; the row is freed after it. */
typedef int (*store_visit_node)(void *arg, const Tb__Node *row);
typedef int (*store_visit_token)(void *arg, const Tb__Token *row);
typedef int (*store_visit_site)(void *arg, const Tb__Site *row, const Tb__Grant *grant_or_null);
typedef int (*store_visit_event)(void *arg, const Tb__Event *row);
typedef int (*store_visit_certificate)(void *arg, const Tb__Certificate *row);
int store_nodes(struct store *s, store_visit_node visit, void *arg);    /* by id */
int store_tokens(struct store *s, store_visit_token visit, void *arg);  /* by created, id */

struct store_site_filter {
	const char *after_name;    /* NULL or the last name of the page before; rows are by name */
	const char *label_selector; /* NULL or "region=emea,tier!=lab,owner" (all must hold) */
	const char *name_prefix;   /* NULL */
	uint32_t limit;            /* 0: none */
};
/* -EINVAL and *ret_problem (static text, if not NULL) for a malformed selector. */
int store_sites(struct store *s, const struct store_site_filter *filter, store_visit_site visit,
		void *arg, const char **ret_problem);
int store_sites_count(struct store *s, const struct store_site_filter *filter, uint64_t *ret);
int store_events(struct store *s, uint64_t after_seq, uint32_t limit, store_visit_event visit,
		 void *arg); /* by seq, rising */
int store_events_newest(struct store *s, uint32_t limit, store_visit_event visit,
			void *arg); /* by seq, falling */
int store_event_range(struct store *s, uint64_t *ret_first, uint64_t *ret_last); /* 0, 0: none */
int store_certificates(struct store *s, const char *after_serial, uint32_t limit,
		       store_visit_certificate visit, void *arg);

/* The whole model as one packed Tb__Snapshot behind a head with layout version and SHA-256,
 * and back. Equal models give equal bytes. store_restore replaces everything in one
 * transaction; -EBADMSG for bytes that are damaged, and the model is unchanged then. */
int store_snapshot(struct store *s, struct buf *out);
int store_restore(struct store *s, const uint8_t *data, size_t len);
/* SHA-256 over the model's rows without the applied index: equal on boards that applied the
 * same entries. Lower-case hex. */
int store_digest(struct store *s, char hex[65]);
