/* site_field.h: the fields of a site that people set, by the names they have in CSV headers, in
 * options and in JSON paths. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "cli/command.h"
#include "lib/buf.h"
#include "proto/model.pb-c.h"

enum { SITE_FIELD_MESSAGE = 400, SITE_LABEL_KEY_MAX = 63 };

struct site_field {
	const struct site_field_spec *spec; /* NULL for a label */
	char label[SITE_LABEL_KEY_MAX + 1]; /* the label's key */
};

/* The field that a CSV column names: "algorithm", "policy.algorithm", "label.region". 0; -EINVAL
 * and a sentence ("unknown column ...; did you mean ...?"). */
int site_field_find(const char *name, struct site_field *ret, char message[SITE_FIELD_MESSAGE]);
/* The JSON path: "policy.algorithm", "labels.region". */
void site_field_path(const struct site_field *f, char path[96]);
bool site_field_equal(const struct site_field *a, const struct site_field *b);

/* Sets it from text as a person types it. 0; -EINVAL and a sentence, the site is then as it was. */
int site_field_set(Tb__Site *site, const struct site_field *f, const char *value,
		   char message[SITE_FIELD_MESSAGE]);
/* Text that site_field_set reads back as the same; "" for a default. False if a label is not
 * there at all. */
bool site_field_get(const Tb__Site *site, const struct site_field *f, char text[256]);

/* A new, empty site; free with tb__site__free_unpacked(site, NULL). */
Tb__Site *site_new(void);
/* The label's value, NULL if there is none. */
const char *site_label(const Tb__Site *site, const char *key);
/* Adds or replaces a label. */
void site_label_set(Tb__Site *site, const char *key, const char *value);

/* The options of `site create` and `site set` (all but --label), in their order; NULL ends it. */
extern const char *const site_field_options[];
/* Applies the options given: `site` gets the values, `patch` (may be NULL) the same as members of
 * a JSON merge patch. 0 or EXIT_USAGE, told. "-l key-" removes a label if `patch` is not NULL. */
int site_options_apply(const struct invocation *inv, Tb__Site *site, struct buf *patch);
