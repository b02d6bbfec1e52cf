/* description.h: what the comments of the schema say about types and fields; the table is made
 * from them when the program is built (cmake/descriptions.awk). */
#pragma once

struct description {
	const char *type; /* "tb.Site" */
	const char *field; /* "tie_breaker", or a value of an enum; "" describes the type itself */
	const char *text;
};

/* Ends with a zeroed item. */
extern const struct description descriptions[];

/* NULL if nothing is said. */
const char *description_find(const char *type, const char *field);
