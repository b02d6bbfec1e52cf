/* Files of sites, CSV and JSON (the first byte chooses), as `site import` reads them: an error with
 * a sentence, or sites that the cluster would take. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/site_file.h"
#include "cluster/apply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct site_file file;
	FILE *in;
	int rv;

	if (size < 2)
		return 0;
	in = fmemopen((void *)(data + 1), size - 1, "r");
	if (in == NULL)
		return 0;
	rv = site_file_read(in, "f", data[0] % 2 == 0 ? SITE_FILE_CSV : SITE_FILE_JSON, &file);
	fclose(in);
	if (rv != 0 && file.error[0] == '\0')
		abort();
	for (size_t i = 0; rv == 0 && i < file.count; i++) {
		struct apply_problem problem;

		if (site_check(file.entries[i]->site, &problem) != 0)
			abort();
	}
	site_file_free(&file);
	return 0;
}
