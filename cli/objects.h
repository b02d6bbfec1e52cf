/* objects.h: cuts a JSON text into its objects, piece by piece in bounded memory, and hands each
 * one over whole. It checks only as much as it needs to find the ends; proto/json.h reads the
 * objects.
 *
 * Three shapes: {"sites":[{..},..]} or {"items":[..]} (also as the API's list pages, with
 * "nextPage" and "total" beside), a bare array [{..},..], and objects one after the other
 * (one a line, usually). */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

enum { OBJECTS_SIZE_MAX = 65536 }; /* bytes of one object; the API's own are smaller */

struct object {
	const char
		*text; /* the object with its braces, a zero byte behind; valid during the call */
	size_t len;
	uint64_t line, column; /* of its opening brace, 1.. */
};
/* Returns 0 to go on; anything else stops and is returned by objects_feed. */
typedef int (*objects_visit)(void *arg, const struct object *object);

struct objects {
	objects_visit visit;
	void *arg;
	size_t size_max; /* OBJECTS_SIZE_MAX; may be raised after objects_init */
	int state, after; /* `after`: what follows the object */
	int depth;
	int wrapped; /* 0: nothing read yet; 1: inside {"sites":..}; -1: one of the other shapes */
	int in_string, escaped;
	unsigned bom;
	uint64_t line, column;
	uint64_t object_line, object_column;
	struct buf text; /* the object so far */
	struct buf key; /* of the wrapper, so far */
	struct buf value; /* of a wrapper's scalar, so far */
	char next_page[512]; /* the wrapper's "nextPage", raw between its quotes; "" if none */
	char total[24]; /* the wrapper's "total"; "" if none */
	uint64_t error_line, error_column;
	char error[200];
};

void objects_init(struct objects *o, objects_visit visit, void *arg);
/* 0; -EINVAL with error_line, error_column, error; or what `visit` returned. Not to be called
 * again after anything but 0. */
int objects_feed(struct objects *o, const void *data, size_t len);
int objects_end(struct objects *o);
void objects_free(struct objects *o);
