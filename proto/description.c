#include "proto/description.h"

#include <stddef.h>
#include <string.h>

const char *description_find(const char *type, const char *field)
{
	for (const struct description *d = descriptions; d->type != NULL; d++)
		if (strcmp(d->type, type) == 0 && strcmp(d->field, field) == 0)
			return d->text;
	return NULL;
}
