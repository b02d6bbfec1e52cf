/* Random numbers for a guest whose driver does what the bytes say (hv_device.h). */
#include <stddef.h>
#include <stdint.h>

#include "hv/virtio/rng.h"
#include "tests/fuzz/hv_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct virtio *make(const struct ram *ram, struct loop *loop)
{
	const struct vrng_config config = {.bytes_per_second = 2 << 20};
	struct fault fault = {0};
	struct vrng *r;

	return vrng_create(&config, ram, loop, "rng", &r, &fault) == 0 ? vrng_virtio(r) : NULL;
}

static const struct hv_fuzz_device device = {.make = make};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return hv_fuzz_run(&device, data, size);
}
