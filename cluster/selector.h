/* selector.h: which labels a site must have, as a person writes it:
 * "region=emea,tier!=lab,owner,!old". All parts must hold; != also holds where the label is not
 * set. A comma cannot be part of a value. Pure. */
#pragma once
#include <stddef.h>

#include "cluster/limits.h"

enum selector_kind { SELECTOR_EQUAL, SELECTOR_DIFFERENT, SELECTOR_SET, SELECTOR_UNSET };

struct selector_part {
	enum selector_kind kind;
	char key[LIMIT_LABEL_KEY + 1];
	char value[LIMIT_LABEL_VALUE + 1]; /* "" for SET and UNSET */
};

struct selector {
	size_t count; /* 0: every site */
	struct selector_part parts[LIMIT_SITE_LABELS];
};

/* NULL or "" selects every site. NULL and *ret filled, or what is wrong (static text). */
const char *selector_parse(const char *text, struct selector *ret);
