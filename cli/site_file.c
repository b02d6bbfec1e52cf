#include "cli/site_file.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/csv.h"
#include "cli/human.h"
#include "cli/objects.h"
#include "cli/site_field.h"
#include "cluster/apply.h"
#include "cluster/limits.h"
#include "lib/hash.h"
#include "lib/hex.h"
#include "lib/list.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { PIECE = 65536 };

/* An entry with its place in the table of names. */
struct named_entry {
	struct site_file_entry entry; /* first, so that the array can point at it */
	struct hash_node node;
};

struct reader {
	struct site_file *file;
	const char *name;
	struct hash names;
	size_t cap;
	/* CSV: the header. */
	struct site_field columns[CSV_FIELDS_MAX];
	size_t column_count; /* 0: not read yet */
};

static int error_at(struct reader *r, uint64_t line, uint64_t column, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

static int error_at(struct reader *r, uint64_t line, uint64_t column, const char *format, ...)
{
	char text[500];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	human_safe(text);
	snprintf(r->file->error, sizeof(r->file->error), "%.150s:%" PRIu64 ":%" PRIu64 ": %s",
		 r->name, line, column, text);
	return -EINVAL;
}

static int name_matches(const struct hash_node *node, const void *key)
{
	const struct named_entry *e = list_entry(node, struct named_entry, node);

	return strcmp(e->entry.site->name, key) == 0;
}

/* Takes the checked site over. */
static int entry_add(struct reader *r, Tb__Site *site, uint64_t line, uint64_t column)
{
	uint64_t hash = hash_string(site->name);
	const struct hash_node *known = hash_find(&r->names, hash, name_matches, site->name);
	struct named_entry *e;

	if (known != NULL) {
		e = list_entry(known, struct named_entry, node);
		return error_at(r, line, column,
				"name: \"%s\" is already in line %" PRIu64
				"; a name may stand once",
				site->name, e->entry.line);
	}
	if (r->file->count == LIMIT_SITES)
		return error_at(r, line, column, "more than %d sites; a cluster holds no more",
				LIMIT_SITES);
	if (r->file->count == r->cap) {
		r->cap = r->cap == 0 ? 256 : 2 * r->cap;
		r->file->entries =
			mem_realloc(r->file->entries, r->cap * sizeof(*r->file->entries));
	}
	e = mem_zalloc(sizeof(*e));
	e->entry = (struct site_file_entry){.site = site, .line = line, .column = column};
	hash_insert(&r->names, &e->node, hash);
	r->file->entries[r->file->count++] = &e->entry;
	return 0;
}

/* CSV */

/* A key that the cluster would refuse is told once, at the header. */
static int label_key_check(struct reader *r, const struct csv_field *f, const char *key)
{
	struct apply_problem problem;
	Tb__Site *site = site_new();
	int rv;

	site->name = mem_strdup("x");
	site_label_set(site, key, "");
	rv = site_check(site, &problem);
	tb__site__free_unpacked(site, NULL);
	if (rv != 0)
		return error_at(r, f->line, f->column, "%s: %s", problem.field, problem.message);
	return 0;
}

static int header_take(struct reader *r, const struct csv_record *record)
{
	char message[SITE_FIELD_MESSAGE];
	bool named = false;

	for (size_t i = 0; i < record->count; i++) {
		const struct csv_field *f = &record->fields[i];

		if (site_field_find(f->text, &r->columns[i], message) != 0) {
			if (record->count == 1 && strpbrk(f->text, ";\t") != NULL)
				return error_at(
					r, f->line, f->column,
					"columns are separated by commas, not by semicolons "
					"or tabs");
			return error_at(r, f->line, f->column, "%s", message);
		}
		for (size_t k = 0; k < i; k++) {
			if (site_field_equal(&r->columns[i], &r->columns[k]))
				return error_at(r, f->line, f->column, "column \"%s\" stands twice",
						f->text);
		}
		if (r->columns[i].spec == NULL && label_key_check(r, f, r->columns[i].label) != 0)
			return -EINVAL;
		named = named || (r->columns[i].spec != NULL && strcmp(f->text, "name") == 0);
	}
	if (!named)
		return error_at(r, record->line, 1,
				"the first line names the columns, and \"name\" is not among them");
	r->column_count = record->count;
	return 0;
}

/* The column that a problem's field ("policy.algorithm") came from, else the first. */
static const struct csv_field *field_of(const struct reader *r, const struct csv_record *record,
					const char *problem_field)
{
	for (size_t i = 0; i < record->count; i++) {
		char path[96];

		site_field_path(&r->columns[i], path);
		if (strcmp(path, problem_field) == 0)
			return &record->fields[i];
	}
	return &record->fields[0];
}

static int record_fill(struct reader *r, const struct csv_record *record, Tb__Site *site)
{
	struct apply_problem problem;

	for (size_t i = 0; i < record->count; i++) {
		const struct csv_field *f = &record->fields[i];
		char message[SITE_FIELD_MESSAGE], path[96];

		if (f->len == 0 && !(f->quoted && r->columns[i].spec == NULL))
			continue; /* empty: not set; a label may be "" */
		if (site_field_set(site, &r->columns[i], f->text, message) == 0)
			continue;
		site_field_path(&r->columns[i], path);
		return error_at(r, f->line, f->column, "%s: %s", path, message);
	}
	if (site_check(site, &problem) != 0) {
		const struct csv_field *f = field_of(r, record, problem.field);

		return error_at(r, f->line, f->column, "%s: %s", problem.field, problem.message);
	}
	return 0;
}

static int record_take(void *arg, const struct csv_record *record)
{
	struct reader *r = arg;
	Tb__Site *site;
	int rv;

	if (r->column_count == 0)
		return header_take(r, record);
	if (record->count != r->column_count)
		return error_at(r, record->line, 1,
				"%zu field%s, but the first line names %zu columns", record->count,
				record->count == 1 ? "" : "s", r->column_count);
	site = site_new();
	rv = record_fill(r, record, site);
	if (rv == 0)
		rv = entry_add(r, site, record->line, field_of(r, record, "name")->column);
	if (rv != 0)
		tb__site__free_unpacked(site, NULL);
	return rv;
}

/* JSON */

static int object_error(struct reader *r, const struct object *object, const struct json_error *e)
{
	uint64_t line = object->line, column = object->column;

	if (e->line > 1) {
		line += (uint64_t)e->line - 1;
		column = e->column > 0 ? (uint64_t)e->column : 1;
	} else if (e->line == 1 && e->column > 0) {
		column += (uint64_t)e->column - 1;
	}
	return error_at(r, line, column, "%s%s%s", e->field, e->field[0] != '\0' ? ": " : "",
			e->message);
}

static void given_drop(Tb__Site *site)
{
	tb__site_status__free_unpacked(site->status, NULL);
	site->status = NULL;
	site->id = 0;
	site->revision = 0;
	site->created_ms = 0;
}

static int object_take(void *arg, const struct object *object)
{
	struct reader *r = arg;
	struct apply_problem problem;
	struct json_error error;
	Tb__Site *site;
	int rv;

	if (json_decode(&tb__site__descriptor, object->text, object->len,
			(ProtobufCMessage **)&site, &error) != 0)
		return object_error(r, object, &error);
	given_drop(site);
	if (site_check(site, &problem) != 0)
		rv = error_at(r, object->line, object->column, "%s: %s", problem.field,
			      problem.message);
	else
		rv = entry_add(r, site, object->line, object->column);
	if (rv != 0)
		tb__site__free_unpacked(site, NULL);
	return rv;
}

/* Both */

static bool name_ends(const char *name, const char *ending)
{
	size_t len = strlen(name), ending_len = strlen(ending);

	return len >= ending_len && strcmp(name + len - ending_len, ending) == 0;
}

static enum site_file_format format_guess(const char *name, const char *data, size_t len)
{
	size_t i = 0;

	if (name_ends(name, ".csv"))
		return SITE_FILE_CSV;
	if (name_ends(name, ".json") || name_ends(name, ".jsonl") || name_ends(name, ".ndjson"))
		return SITE_FILE_JSON;
	if (len >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0)
		i = 3;
	while (i < len && strchr(" \t\r\n", data[i]) != NULL && data[i] != '\0')
		i++;
	return i < len && (data[i] == '{' || data[i] == '[') ? SITE_FILE_JSON : SITE_FILE_CSV;
}

static int too_large(struct reader *r)
{
	snprintf(r->file->error, sizeof(r->file->error),
		 "%.150s: larger than %d MiB; the %d sites that a cluster holds need less: is it "
		 "the right file?",
		 r->name, SITE_FILE_MAX_BYTES >> 20, LIMIT_SITES);
	return -EINVAL;
}

static int pieces_read(FILE *in, struct reader *r, enum site_file_format format, EVP_MD_CTX *digest)
{
	char *piece = mem_alloc(PIECE);
	struct csv *csv = mem_alloc(sizeof(*csv));
	struct objects objects;
	size_t len;
	int rv = 0;

	csv_init(csv, record_take, r);
	objects_init(&objects, object_take, r);
	while (rv == 0 && (len = fread(piece, 1, PIECE, in)) > 0) {
		r->file->bytes += len;
		if (r->file->bytes > SITE_FILE_MAX_BYTES) {
			rv = too_large(r);
			break;
		}
		EVP_DigestUpdate(digest, piece, len);
		if (format == SITE_FILE_AUTO)
			format = format_guess(r->name, piece, len);
		rv = format == SITE_FILE_CSV ? csv_feed(csv, piece, len)
					     : objects_feed(&objects, piece, len);
	}
	if (rv == 0 && ferror(in)) {
		rv = -EIO;
		snprintf(r->file->error, sizeof(r->file->error), "cannot read %.150s: %s", r->name,
			 strerror(errno));
	}
	if (rv == 0 && format == SITE_FILE_CSV)
		rv = csv_end(csv);
	else if (rv == 0)
		rv = objects_end(&objects);
	/* A visit that refuses has written the error itself. */
	if (rv == -EINVAL && r->file->error[0] == '\0') {
		if (format == SITE_FILE_CSV)
			error_at(r, csv->error_line, csv->error_column, "%s", csv->error);
		else
			error_at(r, objects.error_line, objects.error_column, "%s", objects.error);
	}
	csv_free(csv);
	objects_free(&objects);
	free(csv);
	free(piece);
	return rv;
}

int site_file_read(FILE *in, const char *name, enum site_file_format format, struct site_file *ret)
{
	struct reader *r = mem_zalloc(sizeof(*r));
	EVP_MD_CTX *digest = EVP_MD_CTX_new();
	unsigned char bytes[EVP_MAX_MD_SIZE];
	struct stat stat;
	int rv;

	memset(ret, 0, sizeof(*ret));
	r->file = ret;
	r->name = name;
	if (digest == NULL || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
		abort();
	rv = fstat(fileno(in), &stat) == 0 && S_ISREG(stat.st_mode) &&
			     stat.st_size > SITE_FILE_MAX_BYTES
		     ? too_large(r)
		     : pieces_read(in, r, format, digest);
	EVP_DigestFinal_ex(digest, bytes, NULL);
	EVP_MD_CTX_free(digest);
	hex_encode(bytes, 32, ret->sha256);
	if (rv == 0 && ret->count == 0) {
		snprintf(ret->error, sizeof(ret->error), "%.150s: no site in it", name);
		rv = -EINVAL;
	}
	hash_free(&r->names);
	free(r);
	return rv;
}

void site_file_free(struct site_file *f)
{
	for (size_t i = 0; i < f->count; i++) {
		tb__site__free_unpacked(f->entries[i]->site, NULL);
		free(f->entries[i]); /* the first member of its named_entry */
	}
	free(f->entries);
	memset(f, 0, sizeof(*f));
}
