/* Segment files of the log: any bytes give a verdict, and what is called sound stays so when it is
 * cut off where the verdict says. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "cluster/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t first = segment_first(data, size);
	struct segment s, again;

	segment_scan(data, size, first == 0 ? 1 : first, 3, &s);
	if (s.used > size || (s.end == SEGMENT_DAMAGED) != (s.fault != NULL))
		abort();
	if (s.entries > 0 && s.end != SEGMENT_DAMAGED) {
		segment_scan(data, s.used, first == 0 ? 1 : first, 3, &again);
		if (again.end != SEGMENT_CLEAN || again.entries != s.entries ||
		    again.used != s.used)
			abort();
	}
	return 0;
}
