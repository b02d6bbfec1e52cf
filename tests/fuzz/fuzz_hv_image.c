/* Kernel files: any bytes are refused with a sentence or put inside the guest's memory. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/image.h"
#include "hv/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_fd(const uint8_t *data, size_t size)
{
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("kernel", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t *bytes;
	enum { MEMORY = 8 << 20 };
	const struct image_turn turn = {0};
	struct image_place place;
	struct fault fault = {0};
	struct ram r;

	if (bytes == NULL)
		bytes = malloc(MEMORY);
	r = ram_borrow(bytes, MEMORY);
	if (image_load(file_fd(data, size), -1, &r, &turn, &place, &fault) < 0) {
		if (fault.text[0] == '\0')
			abort();
		return 0;
	}
	if (ram_at(&r, place.entry, place.kernel_end - place.entry) == NULL ||
	    ram_at(&r, place.tree, place.tree_room) == NULL || place.tree < place.kernel_end)
		abort();
	return 0;
}
