/* The first frame of a VM's parent: any bytes are a start with a spec, or an error with a sentence.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/spec.h"
#include "hv/start.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct resources resources = {0};
	struct fault fault = {0};
	Tb__VmStart *start;
	int pair[2];
	int rv;

	if (size > 4096 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
		return 0;
	}
	if (send(pair[1], data, size, 0) != (ssize_t)size) {
		abort();
	}
	close(pair[1]);
	rv = start_receive(pair[0], &start, &resources, &fault);
	if ((rv == 0) != (fault.text[0] == '\0')) {
		abort();
	}
	if (rv == 0) {
		/* No descriptor came along. */
		if (start->spec == NULL || start->n_descriptors != 0 || resources.count != 0) {
			abort();
		}
		(void)spec_finish(start->spec, false, &fault);
		tb__vm_start__free_unpacked(start, NULL);
	}
	close(pair[0]);
	return 0;
}
