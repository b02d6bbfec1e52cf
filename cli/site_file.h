/* site_file.h: a file of sites, CSV or JSON, read and checked whole before anything is done.
 *
 * CSV: the first line names the columns (site_field.h). JSON: the shapes of objects.h; what the
 * cluster gives (id, revision, createdMs, status) is dropped, so that a listing can be read back.
 * The file may be of any size and content: one of more than SITE_FILE_MAX_BYTES is refused, and
 * memory is bounded by the number of sites a cluster can hold and the size one site can have. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/model.pb-c.h"

enum { SITE_FILE_MAX_BYTES = 128 << 20 };

enum site_file_format { SITE_FILE_AUTO, SITE_FILE_CSV, SITE_FILE_JSON };

struct site_file_entry {
	Tb__Site *site;
	uint64_t line, column;
};

struct site_file {
	struct site_file_entry **entries; /* in the file's order */
	size_t count;
	uint64_t bytes;
	char sha256[65]; /* of the file's bytes */
	char error[700]; /* after -EINVAL: "sites.csv:17:5: ..." */
};

/* Reads `in` to its end. `name` is for messages and, with SITE_FILE_AUTO, tells the format by its
 * ending; else the first byte does. 0; -EINVAL: the file is wrong; -EIO: it cannot be read. Either
 * way free with site_file_free. */
int site_file_read(FILE *in, const char *name, enum site_file_format format, struct site_file *ret);
void site_file_free(struct site_file *f);
