#include "hv/guest_clock.h"

#include <errno.h>

#define SECOND_NS INT64_C(1000000000)
#define AWAY_MAX_NS (10 * 366 * 86400 * SECOND_NS)

int guest_clock_count(const struct guest_clock *clock, bool advance, int64_t now_ns,
		      uint64_t *ret_count, struct fault *fault)
{
	__int128 away = (__int128)now_ns - clock->realtime_ns;
	unsigned __int128 count = clock->counter;

	if (advance && away > 0) {
		count += (unsigned __int128)away * clock->frequency / SECOND_NS;
	}
	if (advance && (away > AWAY_MAX_NS || count > UINT64_MAX)) {
		return fault_set(fault, -ERANGE,
				 "by this host's clock the snapshot is more than ten years old: "
				 "restore it without advanceClock");
	}
	*ret_count = (uint64_t)count;
	return 0;
}
