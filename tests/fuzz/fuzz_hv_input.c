/* The power button of a guest whose driver does what the bytes say (hv_device.h). */
#include <stddef.h>
#include <stdint.h>

#include "hv/virtio/input.h"
#include "tests/fuzz/hv_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vinput *button;

static struct virtio *make(const struct ram *ram, struct loop *loop)
{
	struct fault fault = {0};

	return vinput_create(NULL, ram, loop, "button", &button, &fault) == 0
		       ? vinput_virtio(button)
		       : NULL;
}

static void event(uint8_t what, const uint8_t *data, size_t len)
{
	(void)what;
	(void)data;
	(void)len;
	(void)vinput_press(button);
}

static const struct hv_fuzz_device device = {.make = make, .event = event};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return hv_fuzz_run(&device, data, size);
}
