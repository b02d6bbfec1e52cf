#include "hv/refusals.h"

#include <stdio.h>
#include <string.h>

enum { SHOWN = 3 };

void refusals_add(struct refusals *r, const char *name, int error)
{
	size_t len = strlen(r->text);

	if (r->count < SHOWN) {
		snprintf(r->text + len, sizeof(r->text) - len, "%s%s (%s)",
			 r->count > 0 ? ", " : "", name, strerror(-error));
	} else if (r->count == SHOWN) {
		snprintf(r->text + len, sizeof(r->text) - len, ", ...");
	}
	r->count++;
}
