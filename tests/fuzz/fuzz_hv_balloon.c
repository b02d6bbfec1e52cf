/* The balloon of a guest whose driver does what the bytes say (hv_device.h). */
#include <stddef.h>
#include <stdint.h>

#include "hv/virtio/balloon.h"
#include "tests/fuzz/hv_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct balloon *balloon;

static struct virtio *make(const struct ram *ram, struct loop *loop)
{
	struct fault fault = {0};

	return balloon_create(NULL, ram, loop, "balloon", &balloon, &fault) == 0
		       ? balloon_virtio(balloon)
		       : NULL;
}

static void event(uint8_t what, const uint8_t *data, size_t len)
{
	(void)data;
	if ((what & 1) != 0) {
		balloon_poll(balloon);
	} else {
		balloon_set_target(balloon, (uint32_t)len);
	}
}

static void sink_add(void *arg, const char *part, const char *what, uint64_t value, bool gauge)
{
	(void)arg;
	(void)value;
	(void)gauge;
	hv_fuzz_must(part != NULL && what != NULL);
}

static void check(void)
{
	const struct stats_sink sink = {.add = sink_add};

	balloon_stats(balloon, &sink);
}

static const struct hv_fuzz_device device = {.make = make, .event = event, .check = check};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return hv_fuzz_run(&device, data, size);
}
