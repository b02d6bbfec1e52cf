/* Rows are blobs; columns beside them serve finding and sorting. Every statement is prepared once
 * per handle and kept. A statement that is in use further up the stack (a visitor that lists the
 * same table again) is prepared a second time for that while.
 *
 * In a snapshot a row's blob goes in and out byte for byte, so fields of a later release survive.
 */
#include "cluster/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster/limits.h"
#include "cluster/selector.h"
#include "cluster/snapshot.h"
#include "lib/hex.h"
#include "lib/mem.h"

static const char schema[] =
	"CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK(id = 1), applied INTEGER NOT NULL);"
	"INSERT INTO meta VALUES(1, 0);"
	"CREATE TABLE cluster(id INTEGER PRIMARY KEY CHECK(id = 1), body BLOB NOT NULL);"
	"CREATE TABLE secrets(id INTEGER PRIMARY KEY CHECK(id = 1), body BLOB NOT NULL);"
	"CREATE TABLE node(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, body BLOB NOT NULL);"
	"CREATE TABLE token(id TEXT PRIMARY KEY, created INTEGER NOT NULL, body BLOB NOT NULL)"
	" WITHOUT ROWID;"
	"CREATE INDEX token_created ON token(created, id);"
	"CREATE TABLE site(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
	" revision INTEGER NOT NULL, body BLOB NOT NULL);"
	"CREATE TABLE site_label(site_id INTEGER NOT NULL, label TEXT NOT NULL,"
	" value TEXT NOT NULL, PRIMARY KEY(site_id, label)) WITHOUT ROWID;"
	"CREATE TABLE grant(site_id INTEGER PRIMARY KEY, body BLOB NOT NULL);"
	"CREATE TABLE certificate(serial TEXT PRIMARY KEY, kind TEXT NOT NULL,"
	" subject TEXT NOT NULL, not_after INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE INDEX certificate_subject ON certificate(kind, subject);"
	"CREATE TABLE event(seq INTEGER PRIMARY KEY, body BLOB NOT NULL);"
	"CREATE TABLE request(seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE,"
	" body BLOB NOT NULL);"
	"CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE image(sha256 TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
	" body BLOB NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE vm(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, body BLOB NOT NULL);";

enum sql {
	SQL_BEGIN_WRITE,
	SQL_BEGIN_READ,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_MARK,
	SQL_KEEP,
	SQL_UNDO,
	SQL_APPLIED_SET,
	SQL_APPLIED_GET,
	SQL_CLUSTER_GET,
	SQL_CLUSTER_PUT,
	SQL_SECRETS_GET,
	SQL_SECRETS_PUT,
	SQL_NODE_GET,
	SQL_NODE_FIND,
	SQL_NODE_PUT,
	SQL_NODE_DELETE,
	SQL_NODES,
	SQL_TOKEN_GET,
	SQL_TOKEN_PUT,
	SQL_TOKEN_DELETE,
	SQL_TOKENS,
	SQL_TOKENS_BY_ID,
	SQL_CERTIFICATE_GET,
	SQL_CERTIFICATE_PUT,
	SQL_CERTIFICATES_EXPIRE,
	SQL_CERTIFICATES,
	SQL_CERTIFICATES_OF,
	SQL_SITE_GET,
	SQL_SITE_FIND,
	SQL_SITE_PUT,
	SQL_SITE_DELETE,
	SQL_SITES_BY_ID,
	SQL_LABEL_ADD,
	SQL_LABELS_DELETE,
	SQL_GRANT_GET,
	SQL_GRANT_PUT,
	SQL_GRANT_DELETE,
	SQL_GRANTS,
	SQL_EVENT_LAST,
	SQL_EVENT_RANGE,
	SQL_EVENT_PUT,
	SQL_EVENTS_TRIM,
	SQL_EVENTS,
	SQL_EVENTS_NEWEST,
	SQL_REQUEST_GET,
	SQL_REQUEST_PUT,
	SQL_REQUESTS_TRIM,
	SQL_REQUESTS,
	SQL_COUNTER_GET,
	SQL_COUNTER_RAISE,
	SQL_COUNTERS,
	SQL_TENANTS,
	SQL_IMAGE_GET,
	SQL_IMAGE_FIND,
	SQL_IMAGE_PUT,
	SQL_IMAGE_DELETE,
	SQL_IMAGES,
	SQL_IMAGES_BY_SUM,
	SQL_VM_GET,
	SQL_VM_FIND,
	SQL_VM_PUT,
	SQL_VM_DELETE,
	SQL_VMS,
	SQL_VMS_BY_ID,
	SQL_COUNT,
};

static const char *const sql_text[SQL_COUNT] = {
	[SQL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[SQL_BEGIN_READ] = "BEGIN",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_MARK] = "SAVEPOINT part",
	[SQL_KEEP] = "RELEASE part",
	[SQL_UNDO] = "ROLLBACK TO part",
	[SQL_APPLIED_SET] = "UPDATE meta SET applied = ?1",
	[SQL_APPLIED_GET] = "SELECT applied FROM meta",
	[SQL_CLUSTER_GET] = "SELECT body FROM cluster",
	[SQL_CLUSTER_PUT] = "INSERT OR REPLACE INTO cluster VALUES(1, ?1)",
	[SQL_SECRETS_GET] = "SELECT body FROM secrets",
	[SQL_SECRETS_PUT] = "INSERT OR REPLACE INTO secrets VALUES(1, ?1)",
	[SQL_NODE_GET] = "SELECT body FROM node WHERE id = ?1",
	[SQL_NODE_FIND] = "SELECT body FROM node WHERE name = ?1",
	[SQL_NODE_PUT] = "INSERT INTO node VALUES(?1, ?2, ?3) ON CONFLICT(id) DO UPDATE"
			 " SET name = excluded.name, body = excluded.body",
	[SQL_NODE_DELETE] = "DELETE FROM node WHERE id = ?1",
	[SQL_NODES] = "SELECT body FROM node ORDER BY id",
	[SQL_TOKEN_GET] = "SELECT body FROM token WHERE id = ?1",
	[SQL_TOKEN_PUT] = "INSERT INTO token VALUES(?1, ?2, ?3) ON CONFLICT(id) DO UPDATE"
			  " SET created = excluded.created, body = excluded.body",
	[SQL_TOKEN_DELETE] = "DELETE FROM token WHERE id = ?1",
	[SQL_TOKENS] = "SELECT body FROM token ORDER BY created, id",
	[SQL_TOKENS_BY_ID] = "SELECT body FROM token ORDER BY id",
	[SQL_CERTIFICATE_GET] = "SELECT body FROM certificate WHERE serial = ?1",
	[SQL_CERTIFICATE_PUT] =
		"INSERT INTO certificate VALUES(?1, ?2, ?3, ?4, ?5)"
		" ON CONFLICT(serial) DO UPDATE SET kind = excluded.kind,"
		" subject = excluded.subject, not_after = excluded.not_after, body = excluded.body",
	[SQL_CERTIFICATES_EXPIRE] = "DELETE FROM certificate WHERE not_after < ?1",
	[SQL_CERTIFICATES] = "SELECT body FROM certificate WHERE serial > ?1 ORDER BY serial"
			     " LIMIT ?2",
	[SQL_CERTIFICATES_OF] = "SELECT body FROM certificate WHERE kind = ?1 AND subject = ?2"
				" ORDER BY serial",
	[SQL_SITE_GET] = "SELECT body FROM site WHERE id = ?1",
	[SQL_SITE_FIND] = "SELECT body FROM site WHERE name = ?1",
	[SQL_SITE_PUT] = "INSERT INTO site VALUES(?1, ?2, ?3, ?4) ON CONFLICT(id) DO UPDATE"
			 " SET name = excluded.name, revision = excluded.revision,"
			 " body = excluded.body",
	[SQL_SITE_DELETE] = "DELETE FROM site WHERE id = ?1",
	[SQL_SITES_BY_ID] = "SELECT body FROM site ORDER BY id",
	[SQL_LABEL_ADD] = "INSERT INTO site_label VALUES(?1, ?2, ?3)",
	[SQL_LABELS_DELETE] = "DELETE FROM site_label WHERE site_id = ?1",
	[SQL_GRANT_GET] = "SELECT body FROM grant WHERE site_id = ?1",
	[SQL_GRANT_PUT] = "INSERT OR REPLACE INTO grant VALUES(?1, ?2)",
	[SQL_GRANT_DELETE] = "DELETE FROM grant WHERE site_id = ?1",
	[SQL_GRANTS] = "SELECT body FROM grant ORDER BY site_id",
	[SQL_EVENT_LAST] = "SELECT max(seq) FROM event",
	[SQL_EVENT_RANGE] = "SELECT (SELECT min(seq) FROM event), (SELECT max(seq) FROM event)",
	[SQL_EVENT_PUT] = "INSERT INTO event VALUES(?1, ?2)",
	[SQL_EVENTS_TRIM] = "DELETE FROM event WHERE seq <= ?1",
	[SQL_EVENTS] = "SELECT body FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?2",
	[SQL_EVENTS_NEWEST] = "SELECT body FROM event ORDER BY seq DESC LIMIT ?1",
	[SQL_REQUEST_GET] = "SELECT body FROM request WHERE id = ?1",
	[SQL_REQUEST_PUT] = "INSERT INTO request(id, body) VALUES(?1, ?2)",
	[SQL_REQUESTS_TRIM] = "DELETE FROM request WHERE seq <= ?1",
	[SQL_REQUESTS] = "SELECT body FROM request ORDER BY seq",
	[SQL_COUNTER_GET] = "SELECT value FROM counter WHERE name = ?1",
	[SQL_COUNTER_RAISE] = "INSERT INTO counter VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE"
			      " SET value = max(value, excluded.value)",
	[SQL_TENANTS] = "SELECT value, count(*) FROM site_label WHERE label = 'tenant'"
			" GROUP BY value ORDER BY value",
	[SQL_COUNTERS] = "SELECT name, value FROM counter ORDER BY name",
	[SQL_IMAGE_GET] = "SELECT body FROM image WHERE sha256 = ?1",
	[SQL_IMAGE_FIND] = "SELECT body FROM image WHERE name = ?1",
	[SQL_IMAGE_PUT] = "INSERT INTO image VALUES(?1, ?2, ?3) ON CONFLICT(sha256) DO UPDATE"
			  " SET name = excluded.name, body = excluded.body",
	[SQL_IMAGE_DELETE] = "DELETE FROM image WHERE sha256 = ?1",
	[SQL_IMAGES] = "SELECT body FROM image ORDER BY name",
	[SQL_IMAGES_BY_SUM] = "SELECT body FROM image ORDER BY sha256",
	[SQL_VM_GET] = "SELECT body FROM vm WHERE id = ?1",
	[SQL_VM_FIND] = "SELECT body FROM vm WHERE name = ?1",
	[SQL_VM_PUT] = "INSERT INTO vm VALUES(?1, ?2, ?3) ON CONFLICT(id) DO UPDATE"
		       " SET name = excluded.name, body = excluded.body",
	[SQL_VM_DELETE] = "DELETE FROM vm WHERE id = ?1",
	[SQL_VMS] = "SELECT body FROM vm ORDER BY name",
	[SQL_VMS_BY_ID] = "SELECT body FROM vm ORDER BY id",
};

struct store {
	sqlite3 *db;
	bool writer;
	char error[256]; /* of the last call that failed */
	struct buf pack; /* the row being written */
	sqlite3_stmt *kept[SQL_COUNT];
};

/* --- SQLite's codes, and statements ---------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int failed(struct store *s, int error,
							const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(s->error, sizeof(s->error), format, args);
	va_end(args);
	return error;
}

/* Translates the code of a step that did not succeed. */
static int sqlite_failed(struct store *s, int code, const char *text)
{
	int error = (code & 0xff) == SQLITE_CONSTRAINT ? -EEXIST : -EIO;

	return failed(s, error, "%s (SQLite %d): %.100s", sqlite3_errmsg(s->db), code, text);
}

static int execute(struct store *s, const char *text)
{
	int code = sqlite3_exec(s->db, text, NULL, NULL, NULL);

	return code == SQLITE_OK ? 0 : sqlite_failed(s, code, text);
}

static int prepare(struct store *s, const char *text, unsigned flags, sqlite3_stmt **ret)
{
	int code = sqlite3_prepare_v3(s->db, text, -1, flags, ret, NULL);

	return code == SQLITE_OK ? 0 : sqlite_failed(s, code, text);
}

static int statement_take(struct store *s, enum sql id, sqlite3_stmt **ret)
{
	if (s->kept[id] == NULL) {
		int rv = prepare(s, sql_text[id], SQLITE_PREPARE_PERSISTENT, &s->kept[id]);

		if (rv != 0)
			return rv;
	}
	if (sqlite3_stmt_busy(s->kept[id]))
		return prepare(s, sql_text[id], 0, ret);
	*ret = s->kept[id];
	return 0;
}

static void statement_give(struct store *s, enum sql id, sqlite3_stmt *statement)
{
	if (statement == s->kept[id])
		sqlite3_reset(statement);
	else
		sqlite3_finalize(statement);
}

/* Parameters in order: 'i' uint64_t (SQLite keeps the same 64 bits, signed), 't' string,
 * 'b' const void * and size_t. Strings and blobs stay the caller's until the statement is done. */
static int bind(struct store *s, sqlite3_stmt *statement, const char *types, va_list args)
{
	int code = SQLITE_OK;

	for (int i = 0; types[i] != '\0' && code == SQLITE_OK; i++) {
		if (types[i] == 'i') {
			code = sqlite3_bind_int64(statement, i + 1,
						  (sqlite3_int64)va_arg(args, uint64_t));
		} else if (types[i] == 't') {
			code = sqlite3_bind_text(statement, i + 1, va_arg(args, const char *), -1,
						 SQLITE_STATIC);
		} else {
			const void *data = va_arg(args, const void *);
			size_t len = va_arg(args, size_t);

			assert(types[i] == 'b');
			/* A NULL pointer would bind NULL; an empty message is an empty blob. */
			code = sqlite3_bind_blob64(statement, i + 1, data != NULL ? data : "", len,
						   SQLITE_STATIC);
		}
	}
	return code == SQLITE_OK ? 0 : sqlite_failed(s, code, sqlite3_sql(statement));
}

/* A statement that gives no rows. */
static int run(struct store *s, enum sql id, const char *types, ...)
{
	sqlite3_stmt *statement;
	va_list args;
	int rv = statement_take(s, id, &statement);

	if (rv != 0)
		return rv;
	va_start(args, types);
	rv = bind(s, statement, types, args);
	va_end(args);
	if (rv == 0) {
		int code = sqlite3_step(statement);

		if (code != SQLITE_DONE)
			rv = sqlite_failed(s, code, sql_text[id]);
	}
	statement_give(s, id, statement);
	return rv;
}

/* The message in a column. */
static int column_message(struct store *s, sqlite3_stmt *statement, int column,
			  const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret)
{
	const void *data = sqlite3_column_blob(statement, column);
	size_t len = (size_t)sqlite3_column_bytes(statement, column);

	*ret = protobuf_c_message_unpack(type, NULL, len, data);
	if (*ret == NULL)
		return failed(s, -EIO, "a row of %s does not decode", type->name);
	return 0;
}

/* The first row's message, or -ENOENT. */
static int row_get(struct store *s, enum sql id, const ProtobufCMessageDescriptor *type,
		   ProtobufCMessage **ret, const char *types, ...)
{
	sqlite3_stmt *statement;
	va_list args;
	int rv = statement_take(s, id, &statement);

	if (rv != 0)
		return rv;
	va_start(args, types);
	rv = bind(s, statement, types, args);
	va_end(args);
	if (rv == 0) {
		int code = sqlite3_step(statement);

		if (code == SQLITE_ROW)
			rv = column_message(s, statement, 0, type, ret);
		else
			rv = code == SQLITE_DONE ? -ENOENT : sqlite_failed(s, code, sql_text[id]);
	}
	statement_give(s, id, statement);
	return rv;
}

/* The first row's numbers (NULL counts as 0), or -ENOENT. */
static int numbers_get(struct store *s, enum sql id, uint64_t *values, int count, const char *types,
		       ...)
{
	sqlite3_stmt *statement;
	va_list args;
	int rv = statement_take(s, id, &statement);

	if (rv != 0)
		return rv;
	va_start(args, types);
	rv = bind(s, statement, types, args);
	va_end(args);
	if (rv == 0) {
		int code = sqlite3_step(statement);

		for (int i = 0; i < count && code == SQLITE_ROW; i++)
			values[i] = (uint64_t)sqlite3_column_int64(statement, i);
		if (code != SQLITE_ROW)
			rv = code == SQLITE_DONE ? -ENOENT : sqlite_failed(s, code, sql_text[id]);
	}
	statement_give(s, id, statement);
	return rv;
}

/* Called with each row; 0 to go on, 1 to stop, negative to fail. */
typedef int (*row_visit)(struct store *s, sqlite3_stmt *statement, void *arg);

static int rows_step(struct store *s, sqlite3_stmt *statement, row_visit visit, void *arg)
{
	int code;

	while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
		int rv = visit(s, statement, arg);

		if (rv != 0)
			return rv < 0 ? rv : 0;
	}
	return code == SQLITE_DONE ? 0 : sqlite_failed(s, code, sqlite3_sql(statement));
}

static int rows_visit(struct store *s, enum sql id, row_visit visit, void *arg, const char *types,
		      ...)
{
	sqlite3_stmt *statement;
	va_list args;
	int rv = statement_take(s, id, &statement);

	if (rv != 0)
		return rv;
	va_start(args, types);
	rv = bind(s, statement, types, args);
	va_end(args);
	if (rv == 0)
		rv = rows_step(s, statement, visit, arg);
	statement_give(s, id, statement);
	return rv;
}

/* --- opening --------------------------------------------------------------------------------- */

static int store_handle_new(const char *path, int flags, bool writer, struct store **ret)
{
	struct store *s = mem_zalloc(sizeof(*s));
	int code = sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL);

	s->writer = writer;
	if (code != SQLITE_OK) {
		store_close(s);
		return -EIO;
	}
	sqlite3_extended_result_codes(s->db, 1);
	sqlite3_busy_timeout(s->db, 5000);
	*ret = s;
	return 0;
}

/* Also what SQLite keeps beside a database. */
void store_remove(const char *path)
{
	static const char *const endings[] = {"", "-wal", "-shm", "-journal"};

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		char *name = mem_printf("%s%s", path, endings[i]);

		unlink(name);
		free(name);
	}
}

/* SQLite gives its other files the mode of this one. */
static int store_create_private(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int store_open(const char *path, struct store **ret)
{
	bool file = strcmp(path, ":memory:") != 0;
	struct store *s;
	int rv = 0;

	if (file) {
		store_remove(path);
		rv = store_create_private(path);
	}
	if (rv == 0)
		rv = store_handle_new(path, SQLITE_OPEN_READWRITE, true, &s);
	if (rv != 0)
		return rv;
	/* Losing the file with the power is fine: it is rebuilt from snapshot and log.
	 * temp_store: what store_undo needs stays in memory. */
	rv = execute(s, "PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY;"
			" PRAGMA cache_size=-8192; PRAGMA journal_size_limit=16777216;");
	if (rv == 0 && file)
		rv = execute(s, "PRAGMA journal_mode=WAL");
	if (rv == 0)
		rv = execute(s, schema);
	if (rv != 0) {
		store_close(s);
		return rv;
	}
	*ret = s;
	return 0;
}

int store_open_reader(const char *path, struct store **ret)
{
	struct store *s;
	int rv = store_handle_new(path, SQLITE_OPEN_READWRITE, false, &s);

	if (rv == 0) {
		rv = execute(s, "PRAGMA query_only=ON; PRAGMA temp_store=MEMORY;"
				" PRAGMA cache_size=-4096;");
		if (rv == 0)
			*ret = s;
		else
			store_close(s);
	}
	return rv;
}

void store_close(struct store *s)
{
	if (s == NULL)
		return;
	for (int i = 0; i < SQL_COUNT; i++)
		sqlite3_finalize(s->kept[i]);
	sqlite3_close(s->db);
	buf_free(&s->pack);
	free(s);
}

const char *store_error(const struct store *s)
{
	return s->error;
}

/* --- transactions ---------------------------------------------------------------------------- */

int store_begin(struct store *s)
{
	return run(s, s->writer ? SQL_BEGIN_WRITE : SQL_BEGIN_READ, "");
}

int store_commit(struct store *s, uint64_t applied_index)
{
	int rv = run(s, SQL_APPLIED_SET, "i", applied_index);

	return rv != 0 ? rv : run(s, SQL_COMMIT, "");
}

int store_rollback(struct store *s)
{
	return run(s, SQL_ROLLBACK, "");
}

int store_mark(struct store *s)
{
	return run(s, SQL_MARK, "");
}

int store_keep(struct store *s)
{
	return run(s, SQL_KEEP, "");
}

int store_undo(struct store *s)
{
	int rv = run(s, SQL_UNDO, "");

	return rv != 0 ? rv : run(s, SQL_KEEP, "");
}

int store_applied(struct store *s, uint64_t *ret)
{
	return numbers_get(s, SQL_APPLIED_GET, ret, 1, "");
}

/* --- rows: *_insert writes a row whose packed form is given, *_put packs it first ------------- */

/* Packs into the handle's buffer. */
static void row_pack(struct store *s, const ProtobufCMessage *row)
{
	size_t len = protobuf_c_message_get_packed_size(row);

	buf_clear(&s->pack);
	s->pack.len = protobuf_c_message_pack(row, buf_reserve(&s->pack, len));
}

int store_cluster_get(struct store *s, Tb__Cluster **ret)
{
	return row_get(s, SQL_CLUSTER_GET, &tb__cluster__descriptor, (ProtobufCMessage **)ret, "");
}

int store_cluster_put(struct store *s, const Tb__Cluster *row)
{
	Tb__Cluster bare = *row;

	bare.status = NULL;
	row_pack(s, &bare.base);
	return run(s, SQL_CLUSTER_PUT, "b", s->pack.data, s->pack.len);
}

int store_secrets_get(struct store *s, Tb__Secrets **ret)
{
	return row_get(s, SQL_SECRETS_GET, &tb__secrets__descriptor, (ProtobufCMessage **)ret, "");
}

void store_secrets_free(Tb__Secrets *secrets)
{
	if (secrets == NULL)
		return;
	mem_wipe(secrets->ca_key, strlen(secrets->ca_key));
	mem_wipe(secrets->next_ca_key, strlen(secrets->next_ca_key));
	mem_wipe(secrets->qnet_ca_key, strlen(secrets->qnet_ca_key));
	mem_wipe(secrets->qnet_key, strlen(secrets->qnet_key));
	tb__secrets__free_unpacked(secrets, NULL);
}

int store_secrets_put(struct store *s, const Tb__Secrets *row)
{
	int rv;

	row_pack(s, &row->base);
	rv = run(s, SQL_SECRETS_PUT, "b", s->pack.data, s->pack.len);
	mem_wipe(s->pack.data, s->pack.len);
	return rv;
}

int store_node_get(struct store *s, uint64_t id, Tb__Node **ret)
{
	return row_get(s, SQL_NODE_GET, &tb__node__descriptor, (ProtobufCMessage **)ret, "i", id);
}

int store_node_find(struct store *s, const char *name, Tb__Node **ret)
{
	return row_get(s, SQL_NODE_FIND, &tb__node__descriptor, (ProtobufCMessage **)ret, "t",
		       name);
}

static int node_insert(struct store *s, const Tb__Node *row, const void *body, size_t len)
{
	return run(s, SQL_NODE_PUT, "itb", row->id, row->name, body, len);
}

int store_node_put(struct store *s, const Tb__Node *row)
{
	Tb__Node bare = *row;

	bare.status = NULL;
	row_pack(s, &bare.base);
	return node_insert(s, row, s->pack.data, s->pack.len);
}

int store_node_delete(struct store *s, uint64_t id)
{
	return run(s, SQL_NODE_DELETE, "i", id);
}

int store_token_get(struct store *s, const char *id, Tb__Token **ret)
{
	return row_get(s, SQL_TOKEN_GET, &tb__token__descriptor, (ProtobufCMessage **)ret, "t", id);
}

static int token_insert(struct store *s, const Tb__Token *row, const void *body, size_t len)
{
	return run(s, SQL_TOKEN_PUT, "tib", row->id, (uint64_t)row->created_ms, body, len);
}

int store_token_put(struct store *s, const Tb__Token *row)
{
	row_pack(s, &row->base);
	return token_insert(s, row, s->pack.data, s->pack.len);
}

int store_token_delete(struct store *s, const char *id)
{
	return run(s, SQL_TOKEN_DELETE, "t", id);
}

int store_certificate_get(struct store *s, const char *serial, Tb__Certificate **ret)
{
	return row_get(s, SQL_CERTIFICATE_GET, &tb__certificate__descriptor,
		       (ProtobufCMessage **)ret, "t", serial);
}

static int certificate_insert(struct store *s, const Tb__Certificate *row, const void *body,
			      size_t len)
{
	return run(s, SQL_CERTIFICATE_PUT, "tttib", row->serial, row->kind, row->subject,
		   (uint64_t)row->not_after_ms, body, len);
}

int store_certificate_put(struct store *s, const Tb__Certificate *row)
{
	row_pack(s, &row->base);
	return certificate_insert(s, row, s->pack.data, s->pack.len);
}

int store_certificates_expire(struct store *s, int64_t time_ms)
{
	return run(s, SQL_CERTIFICATES_EXPIRE, "i", (uint64_t)time_ms);
}

int store_site_get(struct store *s, uint64_t id, Tb__Site **ret)
{
	return row_get(s, SQL_SITE_GET, &tb__site__descriptor, (ProtobufCMessage **)ret, "i", id);
}

int store_site_find(struct store *s, const char *name, Tb__Site **ret)
{
	return row_get(s, SQL_SITE_FIND, &tb__site__descriptor, (ProtobufCMessage **)ret, "t",
		       name);
}

static int site_insert(struct store *s, const Tb__Site *row, const void *body, size_t len)
{
	int rv = run(s, SQL_SITE_PUT, "itib", row->id, row->name, row->revision, body, len);

	if (rv == 0)
		rv = run(s, SQL_LABELS_DELETE, "i", row->id);
	for (size_t i = 0; i < row->n_labels && rv == 0; i++)
		rv = run(s, SQL_LABEL_ADD, "itt", row->id, row->labels[i]->key,
			 row->labels[i]->value);
	return rv;
}

int store_site_put(struct store *s, const Tb__Site *row)
{
	Tb__Site bare = *row;

	bare.status = NULL;
	row_pack(s, &bare.base);
	return site_insert(s, row, s->pack.data, s->pack.len);
}

int store_site_delete(struct store *s, uint64_t id)
{
	int rv = run(s, SQL_SITE_DELETE, "i", id);

	if (rv == 0)
		rv = run(s, SQL_LABELS_DELETE, "i", id);
	if (rv == 0)
		rv = run(s, SQL_GRANT_DELETE, "i", id);
	return rv;
}

int store_grant_get(struct store *s, uint64_t site_id, Tb__Grant **ret)
{
	return row_get(s, SQL_GRANT_GET, &tb__grant__descriptor, (ProtobufCMessage **)ret, "i",
		       site_id);
}

static int grant_insert(struct store *s, const Tb__Grant *row, const void *body, size_t len)
{
	return run(s, SQL_GRANT_PUT, "ib", row->site_id, body, len);
}

int store_grant_put(struct store *s, const Tb__Grant *row)
{
	row_pack(s, &row->base);
	return grant_insert(s, row, s->pack.data, s->pack.len);
}

int store_image_get(struct store *s, const char *sha256, Tb__Image **ret)
{
	return row_get(s, SQL_IMAGE_GET, &tb__image__descriptor, (ProtobufCMessage **)ret, "t",
		       sha256);
}

int store_image_find(struct store *s, const char *name, Tb__Image **ret)
{
	return row_get(s, SQL_IMAGE_FIND, &tb__image__descriptor, (ProtobufCMessage **)ret, "t",
		       name);
}

static int image_insert(struct store *s, const Tb__Image *row, const void *body, size_t len)
{
	return run(s, SQL_IMAGE_PUT, "ttb", row->sha256, row->name, body, len);
}

int store_image_put(struct store *s, const Tb__Image *row)
{
	Tb__Image bare = *row;

	bare.status = NULL;
	row_pack(s, &bare.base);
	return image_insert(s, row, s->pack.data, s->pack.len);
}

int store_image_delete(struct store *s, const char *sha256)
{
	return run(s, SQL_IMAGE_DELETE, "t", sha256);
}

int store_vm_get(struct store *s, uint64_t id, Tb__Vm **ret)
{
	return row_get(s, SQL_VM_GET, &tb__vm__descriptor, (ProtobufCMessage **)ret, "i", id);
}

int store_vm_find(struct store *s, const char *name, Tb__Vm **ret)
{
	return row_get(s, SQL_VM_FIND, &tb__vm__descriptor, (ProtobufCMessage **)ret, "t", name);
}

static int vm_insert(struct store *s, const Tb__Vm *row, const void *body, size_t len)
{
	return run(s, SQL_VM_PUT, "itb", row->id, row->name, body, len);
}

int store_vm_put(struct store *s, const Tb__Vm *row)
{
	Tb__Vm bare = *row;

	bare.status = NULL;
	row_pack(s, &bare.base);
	return vm_insert(s, row, s->pack.data, s->pack.len);
}

int store_vm_delete(struct store *s, uint64_t id)
{
	return run(s, SQL_VM_DELETE, "i", id);
}

static int event_insert(struct store *s, const Tb__Event *row, const void *body, size_t len)
{
	return run(s, SQL_EVENT_PUT, "ib", row->seq, body, len);
}

int store_event_add(struct store *s, Tb__Event *row)
{
	uint64_t last = 0;
	int rv = numbers_get(s, SQL_EVENT_LAST, &last, 1, "");

	if (rv != 0)
		return rv;
	row->seq = last + 1;
	row_pack(s, &row->base);
	rv = event_insert(s, row, s->pack.data, s->pack.len);
	if (rv == 0 && row->seq > LIMIT_EVENTS)
		rv = run(s, SQL_EVENTS_TRIM, "i", row->seq - LIMIT_EVENTS);
	return rv;
}

int store_request_get(struct store *s, const uint8_t *id, size_t len, Tb__CommandResult **ret)
{
	Tb__Snapshot__Request *row;
	int rv = row_get(s, SQL_REQUEST_GET, &tb__snapshot__request__descriptor,
			 (ProtobufCMessage **)&row, "b", (const void *)id, len);

	if (rv != 0)
		return rv;
	if (row->result == NULL)
		rv = failed(s, -EIO, "a remembered request has no result");
	else
		*ret = row->result;
	row->result = NULL;
	protobuf_c_message_free_unpacked(&row->base, NULL);
	return rv;
}

/* Numbers of rows are dense (only the oldest are ever removed), so the newest tells the oldest
 * to keep. They are not part of the model: after a restore they start again. */
static int request_insert(struct store *s, const Tb__Snapshot__Request *row, const void *body,
			  size_t len)
{
	int rv = run(s, SQL_REQUEST_PUT, "bb", (const void *)row->id.data, row->id.len, body, len);
	uint64_t newest = (uint64_t)sqlite3_last_insert_rowid(s->db);

	if (rv == 0 && newest > LIMIT_REQUESTS)
		rv = run(s, SQL_REQUESTS_TRIM, "i", newest - LIMIT_REQUESTS);
	return rv;
}

int store_request_put(struct store *s, const uint8_t *id, size_t len,
		      const Tb__CommandResult *result)
{
	Tb__Snapshot__Request row = TB__SNAPSHOT__REQUEST__INIT;

	row.id = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)id, .len = len};
	row.index = result->index;
	row.result = (Tb__CommandResult *)(uintptr_t)result;
	row_pack(s, &row.base);
	return request_insert(s, &row, s->pack.data, s->pack.len);
}

int store_counter_get(struct store *s, const char *name, uint64_t *ret)
{
	uint64_t value = 0;
	int rv = numbers_get(s, SQL_COUNTER_GET, &value, 1, "t", name);

	if (rv != 0 && rv != -ENOENT)
		return rv;
	*ret = value;
	return 0;
}

int store_counter_raise(struct store *s, const char *name, uint64_t value)
{
	assert(value <= INT64_MAX); /* compared by SQLite */
	return run(s, SQL_COUNTER_RAISE, "ti", name, value);
}

int store_counter_next(struct store *s, const char *name, uint64_t *ret)
{
	uint64_t value;
	int rv = store_counter_get(s, name, &value);

	if (rv == 0 && value >= INT64_MAX)
		rv = failed(s, -EIO, "the counter %s is at its end", name);
	if (rv == 0)
		rv = store_counter_raise(s, name, value + 1);
	if (rv == 0)
		*ret = value + 1;
	return rv;
}

int store_count(struct store *s, const char *table, uint64_t *ret)
{
	static const char *const tables[] = {"node",  "token",	 "site",  "grant", "certificate",
					     "event", "request", "image", "vm",	   NULL};
	sqlite3_stmt *statement;
	char text[64];
	size_t i = 0;
	int code;
	int rv;

	while (tables[i] != NULL && strcmp(tables[i], table) != 0)
		i++;
	assert(tables[i] != NULL);
	snprintf(text, sizeof(text), "SELECT count(*) FROM %s", tables[i]);
	rv = prepare(s, text, 0, &statement);
	if (rv != 0)
		return rv;
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		*ret = (uint64_t)sqlite3_column_int64(statement, 0);
	else
		rv = sqlite_failed(s, code, text);
	sqlite3_finalize(statement);
	return rv;
}

/* --- lists ----------------------------------------------------------------------------------- */

struct node_visit {
	store_visit_node visit;
	void *arg;
};

static int visit_node(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct node_visit *v = arg;
	Tb__Node *row;
	int rv = column_message(s, statement, 0, &tb__node__descriptor, (ProtobufCMessage **)&row);

	if (rv == 0) {
		rv = v->visit(v->arg, row) != 0;
		tb__node__free_unpacked(row, NULL);
	}
	return rv;
}

int store_nodes(struct store *s, store_visit_node visit, void *arg)
{
	return rows_visit(s, SQL_NODES, visit_node, &(struct node_visit){visit, arg}, "");
}

struct token_visit {
	store_visit_token visit;
	void *arg;
};

static int visit_token(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct token_visit *v = arg;
	Tb__Token *row;
	int rv = column_message(s, statement, 0, &tb__token__descriptor, (ProtobufCMessage **)&row);

	if (rv == 0) {
		rv = v->visit(v->arg, row) != 0;
		tb__token__free_unpacked(row, NULL);
	}
	return rv;
}

int store_tokens(struct store *s, store_visit_token visit, void *arg)
{
	return rows_visit(s, SQL_TOKENS, visit_token, &(struct token_visit){visit, arg}, "");
}

struct event_visit {
	store_visit_event visit;
	void *arg;
};

static int visit_event(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct event_visit *v = arg;
	Tb__Event *row;
	int rv = column_message(s, statement, 0, &tb__event__descriptor, (ProtobufCMessage **)&row);

	if (rv == 0) {
		rv = v->visit(v->arg, row) != 0;
		tb__event__free_unpacked(row, NULL);
	}
	return rv;
}

/* For LIMIT, where SQLite takes a negative number as "none". */
static uint64_t limit_value(uint32_t limit)
{
	return limit != 0 ? limit : (uint64_t)-1;
}

int store_events(struct store *s, uint64_t after_seq, uint32_t limit, store_visit_event visit,
		 void *arg)
{
	if (after_seq > INT64_MAX)
		return 0;
	return rows_visit(s, SQL_EVENTS, visit_event, &(struct event_visit){visit, arg}, "ii",
			  after_seq, limit_value(limit));
}

int store_events_newest(struct store *s, uint32_t limit, store_visit_event visit, void *arg)
{
	return rows_visit(s, SQL_EVENTS_NEWEST, visit_event, &(struct event_visit){visit, arg}, "i",
			  limit_value(limit));
}

int store_event_range(struct store *s, uint64_t *ret_first, uint64_t *ret_last)
{
	uint64_t range[2];
	int rv = numbers_get(s, SQL_EVENT_RANGE, range, 2, "");

	if (rv == 0) {
		*ret_first = range[0];
		*ret_last = range[1];
	}
	return rv;
}

struct certificate_visit {
	store_visit_certificate visit;
	void *arg;
};

static int visit_certificate(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct certificate_visit *v = arg;
	Tb__Certificate *row;
	int rv = column_message(s, statement, 0, &tb__certificate__descriptor,
				(ProtobufCMessage **)&row);

	if (rv == 0) {
		rv = v->visit(v->arg, row) != 0;
		tb__certificate__free_unpacked(row, NULL);
	}
	return rv;
}

int store_certificates(struct store *s, const char *after_serial, uint32_t limit,
		       store_visit_certificate visit, void *arg)
{
	return rows_visit(s, SQL_CERTIFICATES, visit_certificate,
			  &(struct certificate_visit){visit, arg}, "ti",
			  after_serial != NULL ? after_serial : "", limit_value(limit));
}

int store_certificates_of(struct store *s, const char *kind, const char *subject,
			  store_visit_certificate visit, void *arg)
{
	return rows_visit(s, SQL_CERTIFICATES_OF, visit_certificate,
			  &(struct certificate_visit){visit, arg}, "tt", kind, subject);
}

struct tenant_visit {
	store_visit_tenant visit;
	void *arg;
};

static int visit_tenant(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct tenant_visit *v = arg;

	(void)s;
	return v->visit(v->arg, (const char *)sqlite3_column_text(statement, 0),
			(uint64_t)sqlite3_column_int64(statement, 1)) != 0;
}

int store_tenant_sites(struct store *s, const char *tenant, uint64_t *ret)
{
	char *selector = mem_printf("tenant=%s", tenant);
	const struct store_site_filter filter = {.label_selector = selector};
	int rv = store_sites_count(s, &filter, ret);

	free(selector);
	return rv;
}

int store_tenants(struct store *s, store_visit_tenant visit, void *arg)
{
	return rows_visit(s, SQL_TENANTS, visit_tenant, &(struct tenant_visit){visit, arg}, "");
}

struct image_visit {
	store_visit_image visit;
	void *arg;
};

static int visit_image(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct image_visit *v = arg;
	Tb__Image *row;
	int rv = column_message(s, statement, 0, &tb__image__descriptor, (ProtobufCMessage **)&row);

	if (rv == 0) {
		rv = v->visit(v->arg, row) != 0;
		tb__image__free_unpacked(row, NULL);
	}
	return rv;
}

int store_images(struct store *s, store_visit_image visit, void *arg)
{
	return rows_visit(s, SQL_IMAGES, visit_image, &(struct image_visit){visit, arg}, "");
}

struct vm_visit {
	store_visit_vm visit;
	void *arg;
};

static int visit_vm(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct vm_visit *v = arg;
	Tb__Vm *row;
	int rv = column_message(s, statement, 0, &tb__vm__descriptor, (ProtobufCMessage **)&row);

	if (rv == 0) {
		rv = v->visit(v->arg, row) != 0;
		tb__vm__free_unpacked(row, NULL);
	}
	return rv;
}

int store_vms(struct store *s, store_visit_vm visit, void *arg)
{
	return rows_visit(s, SQL_VMS, visit_vm, &(struct vm_visit){visit, arg}, "");
}

/* --- sites by filter ------------------------------------------------------------------------- */

/* The least string above every string that begins with `prefix`, or NULL if there is none. */
static char *prefix_end(const char *prefix)
{
	size_t len = strlen(prefix);
	char *end;

	while (len > 0 && (unsigned char)prefix[len - 1] == 0xff)
		len--;
	if (len == 0)
		return NULL;
	end = mem_strndup(prefix, len);
	end[len - 1] = (char)((unsigned char)end[len - 1] + 1);
	return end;
}

static void filter_where(const struct store_site_filter *f, const struct selector *selector,
			 bool bounded, struct buf *out)
{
	buf_puts(out, " WHERE 1");
	if (f->after_name != NULL)
		buf_puts(out, " AND s.name > :after");
	if (f->name_prefix != NULL && f->name_prefix[0] != '\0')
		buf_puts(out, " AND s.name >= :prefix");
	if (bounded)
		buf_puts(out, " AND s.name < :end");
	for (size_t i = 0; i < selector->count; i++) {
		enum selector_kind kind = selector->parts[i].kind;

		/* A look-up per row by the table's own key: cheap for each row of a page,
		 * however many sites carry the label. */
		buf_printf(out,
			   " AND %sEXISTS(SELECT 1 FROM site_label WHERE site_id = s.id"
			   " AND label = :k%zu%s",
			   kind == SELECTOR_DIFFERENT || kind == SELECTOR_UNSET ? "NOT " : "", i,
			   kind == SELECTOR_EQUAL || kind == SELECTOR_DIFFERENT ? " AND value = :v"
										: "");
		if (kind == SELECTOR_EQUAL || kind == SELECTOR_DIFFERENT)
			buf_printf(out, "%zu", i);
		buf_putc(out, ')');
	}
}

static void bind_named(sqlite3_stmt *statement, const char *name, const char *value)
{
	int at = sqlite3_bind_parameter_index(statement, name);

	if (at != 0)
		sqlite3_bind_text(statement, at, value, -1, SQLITE_TRANSIENT);
}

/* Prepares "SELECT <columns> FROM site s <join> WHERE <filter> <tail>". */
static int filter_prepare(struct store *s, const struct store_site_filter *f, const char *head,
			  const char *tail, sqlite3_stmt **ret, const char **ret_problem)
{
	struct buf text = {0};
	struct selector selector;
	const char *problem = selector_parse(f->label_selector, &selector);
	char *end;
	int rv;

	if (problem != NULL) {
		if (ret_problem != NULL)
			*ret_problem = problem;
		return failed(s, -EINVAL, "%s", problem);
	}
	end = f->name_prefix != NULL ? prefix_end(f->name_prefix) : NULL;
	buf_puts(&text, head);
	filter_where(f, &selector, end != NULL, &text);
	buf_puts(&text, tail);
	rv = prepare(s, buf_string(&text), 0, ret);
	if (rv == 0) {
		bind_named(*ret, ":after", f->after_name);
		bind_named(*ret, ":prefix", f->name_prefix);
		bind_named(*ret, ":end", end);
		for (size_t i = 0; i < selector.count; i++) {
			char name[24];

			snprintf(name, sizeof(name), ":k%zu", i);
			bind_named(*ret, name, selector.parts[i].key);
			snprintf(name, sizeof(name), ":v%zu", i);
			bind_named(*ret, name, selector.parts[i].value);
		}
		if (strstr(tail, ":limit") != NULL)
			sqlite3_bind_int64(*ret, sqlite3_bind_parameter_index(*ret, ":limit"),
					   (sqlite3_int64)limit_value(f->limit));
	}
	free(end);
	buf_free(&text);
	return rv;
}

struct site_visit {
	store_visit_site visit;
	void *arg;
};

static int visit_site(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct site_visit *v = arg;
	Tb__Site *site;
	Tb__Grant *grant = NULL;
	int rv = column_message(s, statement, 0, &tb__site__descriptor, (ProtobufCMessage **)&site);

	if (rv != 0)
		return rv;
	if (sqlite3_column_type(statement, 1) != SQLITE_NULL)
		rv = column_message(s, statement, 1, &tb__grant__descriptor,
				    (ProtobufCMessage **)&grant);
	if (rv == 0)
		rv = v->visit(v->arg, site, grant) != 0;
	tb__grant__free_unpacked(grant, NULL);
	tb__site__free_unpacked(site, NULL);
	return rv;
}

int store_sites(struct store *s, const struct store_site_filter *filter, store_visit_site visit,
		void *arg, const char **ret_problem)
{
	sqlite3_stmt *statement;
	int rv = filter_prepare(s, filter,
				"SELECT s.body, g.body FROM site s"
				" LEFT JOIN grant g ON g.site_id = s.id",
				" ORDER BY s.name LIMIT :limit", &statement, ret_problem);

	if (rv != 0)
		return rv;
	rv = rows_step(s, statement, visit_site, &(struct site_visit){visit, arg});
	sqlite3_finalize(statement);
	return rv;
}

int store_sites_count(struct store *s, const struct store_site_filter *filter, uint64_t *ret)
{
	sqlite3_stmt *statement;
	int code;
	int rv = filter_prepare(s, filter, "SELECT count(*) FROM site s", "", &statement, NULL);

	if (rv != 0)
		return rv;
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		*ret = (uint64_t)sqlite3_column_int64(statement, 0);
	else
		rv = sqlite_failed(s, code, "count of sites");
	sqlite3_finalize(statement);
	return rv;
}

/* --- snapshots ------------------------------------------------------------------------------- */

struct record_writer {
	struct buf *out;
	unsigned row;
};

static int write_body(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct record_writer *w = arg;
	const void *body = sqlite3_column_blob(statement, 0);

	(void)s;
	snapshot_put_record(w->out, w->row, body, (size_t)sqlite3_column_bytes(statement, 0));
	return 0;
}

static int write_counter(struct store *s, sqlite3_stmt *statement, void *arg)
{
	struct record_writer *w = arg;
	Tb__Snapshot__Counter row = TB__SNAPSHOT__COUNTER__INIT;

	row.name = (char *)(uintptr_t)sqlite3_column_text(statement, 0);
	row.value = (uint64_t)sqlite3_column_int64(statement, 1);
	row_pack(s, &row.base);
	snapshot_put_record(w->out, w->row, s->pack.data, s->pack.len);
	return 0;
}

static int write_rows(struct store *s, enum sql id, unsigned row, struct buf *out)
{
	return rows_visit(s, id, write_body, &(struct record_writer){out, row}, "");
}

/* Every row, in the order of the tables and of their keys. The caller holds a transaction. */
static int write_records(struct store *s, struct buf *out)
{
	static const struct {
		enum sql id;
		unsigned row;
	} plain[] = {
		{SQL_CLUSTER_GET, TB__SNAPSHOT__RECORD__ROW_CLUSTER},
		{SQL_SECRETS_GET, TB__SNAPSHOT__RECORD__ROW_SECRETS},
		{SQL_NODES, TB__SNAPSHOT__RECORD__ROW_NODE},
		{SQL_TOKENS_BY_ID, TB__SNAPSHOT__RECORD__ROW_TOKEN},
		{SQL_SITES_BY_ID, TB__SNAPSHOT__RECORD__ROW_SITE},
		{SQL_GRANTS, TB__SNAPSHOT__RECORD__ROW_GRANT},
	};
	int rv = 0;

	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]) && rv == 0; i++)
		rv = write_rows(s, plain[i].id, plain[i].row, out);
	if (rv == 0)
		rv = rows_visit(s, SQL_CERTIFICATES, write_body,
				&(struct record_writer){out, TB__SNAPSHOT__RECORD__ROW_CERTIFICATE},
				"ti", "", limit_value(0));
	if (rv == 0)
		rv = rows_visit(s, SQL_EVENTS, write_body,
				&(struct record_writer){out, TB__SNAPSHOT__RECORD__ROW_EVENT}, "ii",
				(uint64_t)0, limit_value(0));
	if (rv == 0)
		rv = write_rows(s, SQL_REQUESTS, TB__SNAPSHOT__RECORD__ROW_REQUEST, out);
	if (rv == 0)
		rv = rows_visit(s, SQL_COUNTERS, write_counter,
				&(struct record_writer){out, TB__SNAPSHOT__RECORD__ROW_COUNTER},
				"");
	if (rv == 0)
		rv = write_rows(s, SQL_IMAGES_BY_SUM, TB__SNAPSHOT__RECORD__ROW_IMAGE, out);
	if (rv == 0)
		rv = write_rows(s, SQL_VMS_BY_ID, TB__SNAPSHOT__RECORD__ROW_VM, out);
	return rv;
}

/* The message behind the head. The caller holds a transaction. */
static int write_model(struct store *s, struct buf *out)
{
	uint64_t applied;
	int rv = store_applied(s, &applied);

	if (rv != 0)
		return rv;
	snapshot_put_start(out, applied);
	return write_records(s, out);
}

/* Runs `write` in a transaction, so that a reader too sees one commit only. */
static int written(struct store *s, int (*write)(struct store *s, struct buf *out), struct buf *out)
{
	int rv = run(s, SQL_BEGIN_READ, "");
	int end;

	if (rv != 0)
		return rv;
	rv = write(s, out);
	end = store_rollback(s);
	return rv != 0 ? rv : end;
}

int store_snapshot(struct store *s, struct buf *out)
{
	struct buf message = {0};
	int rv = written(s, write_model, &message);

	if (rv == 0)
		snapshot_seal(&message, out);
	mem_wipe(message.data, message.len);
	buf_free(&message);
	return rv;
}

int store_digest(struct store *s, char hex[65])
{
	struct buf records = {0};
	uint8_t sum[SNAPSHOT_SUM];
	int rv = written(s, write_records, &records);

	if (rv == 0) {
		snapshot_sum(records.data, records.len, sum);
		hex_encode(sum, sizeof(sum), hex);
	}
	mem_wipe(records.data, records.len);
	buf_free(&records);
	return rv;
}

/* The bytes are decoded for the columns, and kept as they are. */
static int restore_row(struct store *s, const struct snapshot_record *record)
{
	static const struct {
		const ProtobufCMessageDescriptor *type;
	} types[] = {
		[TB__SNAPSHOT__RECORD__ROW_CLUSTER] = {&tb__cluster__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_SECRETS] = {&tb__secrets__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_NODE] = {&tb__node__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_TOKEN] = {&tb__token__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_SITE] = {&tb__site__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_GRANT] = {&tb__grant__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_CERTIFICATE] = {&tb__certificate__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_EVENT] = {&tb__event__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_REQUEST] = {&tb__snapshot__request__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_COUNTER] = {&tb__snapshot__counter__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_IMAGE] = {&tb__image__descriptor},
		[TB__SNAPSHOT__RECORD__ROW_VM] = {&tb__vm__descriptor},
	};
	ProtobufCMessage *message;
	const void *data = record->body;
	size_t len = record->len;
	unsigned row = record->row;
	int rv;

	if (row >= sizeof(types) / sizeof(types[0]) || types[row].type == NULL)
		return -EBADMSG;
	message = protobuf_c_message_unpack(types[row].type, NULL, len, data);
	if (message == NULL)
		return -EBADMSG;
	switch (row) {
	case TB__SNAPSHOT__RECORD__ROW_CLUSTER:
		rv = run(s, SQL_CLUSTER_PUT, "b", data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_SECRETS:
		rv = run(s, SQL_SECRETS_PUT, "b", data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_NODE:
		rv = node_insert(s, (Tb__Node *)message, data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_TOKEN:
		rv = token_insert(s, (Tb__Token *)message, data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_SITE:
		rv = site_insert(s, (Tb__Site *)message, data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_GRANT:
		rv = grant_insert(s, (Tb__Grant *)message, data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_CERTIFICATE:
		rv = certificate_insert(s, (Tb__Certificate *)message, data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_EVENT:
		rv = event_insert(s, (Tb__Event *)message, data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_REQUEST:
		rv = ((Tb__Snapshot__Request *)message)->result == NULL
			     ? -EBADMSG
			     : request_insert(s, (Tb__Snapshot__Request *)message, data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_IMAGE:
		rv = image_insert(s, (Tb__Image *)message, data, len);
		break;
	case TB__SNAPSHOT__RECORD__ROW_VM:
		/* Whoever reads one relies on both. */
		rv = ((Tb__Vm *)message)->config == NULL || ((Tb__Vm *)message)->placement == NULL
			     ? -EBADMSG
			     : vm_insert(s, (Tb__Vm *)message, data, len);
		break;
	default: {
		const Tb__Snapshot__Counter *counter = (Tb__Snapshot__Counter *)message;

		rv = counter->value > INT64_MAX
			     ? -EBADMSG
			     : store_counter_raise(s, counter->name, counter->value);
		break;
	}
	}
	protobuf_c_message_free_unpacked(message, NULL);
	return rv == -EEXIST ? -EBADMSG : rv;
}

int store_record_put(struct store *s, unsigned row, const void *body, size_t len)
{
	const struct snapshot_record record = {row, body, len};

	return restore_row(s, &record);
}

static int rows_delete(struct store *s)
{
	return execute(s, "DELETE FROM cluster; DELETE FROM secrets; DELETE FROM node;"
			  " DELETE FROM token; DELETE FROM site; DELETE FROM site_label;"
			  " DELETE FROM grant; DELETE FROM certificate; DELETE FROM event;"
			  " DELETE FROM request; DELETE FROM counter; DELETE FROM image;"
			  " DELETE FROM vm;");
}

int store_clear(struct store *s)
{
	int rv = store_begin(s);

	if (rv != 0)
		return rv;
	rv = rows_delete(s);
	if (rv == 0)
		return store_commit(s, 0);
	store_rollback(s);
	return rv;
}

static int restore_records(struct store *s, struct snapshot_reader *r)
{
	struct snapshot_record record;
	int rv;

	while ((rv = snapshot_next(r, &record)) > 0) {
		rv = restore_row(s, &record);
		if (rv != 0)
			return rv;
	}
	return rv;
}

/* Replaces every row. What was read must come out again byte for byte: that finds records that
 * are twice there or out of order. */
static int restore_model(struct store *s, struct snapshot_reader model)
{
	struct snapshot_reader rest = model;
	struct buf again = {0};
	int rv = rows_delete(s);

	if (rv == 0)
		rv = restore_records(s, &rest);
	if (rv == 0)
		rv = run(s, SQL_APPLIED_SET, "i", rest.applied_index);
	if (rv == 0)
		rv = write_model(s, &again);
	if (rv == 0 && (again.len != model.len || memcmp(again.data, model.data, model.len) != 0))
		rv = -EBADMSG;
	mem_wipe(again.data, again.len);
	buf_free(&again);
	if (rv == -EBADMSG)
		failed(s, rv,
		       "the snapshot holds records that this release does not know, or that "
		       "are out of order");
	return rv;
}

int store_restore(struct store *s, const uint8_t *data, size_t len)
{
	struct snapshot_reader model;
	const char *problem;
	int rv = snapshot_open(data, len, &model, &problem);

	if (rv != 0)
		return failed(s, rv, "%s", problem);
	rv = store_begin(s);
	if (rv != 0)
		return rv;
	rv = restore_model(s, model);
	if (rv == 0)
		return run(s, SQL_COMMIT, "");
	/* A failed roll-back is worse than what was wrong with the snapshot. */
	return store_rollback(s) != 0 ? -EIO : rv;
}
