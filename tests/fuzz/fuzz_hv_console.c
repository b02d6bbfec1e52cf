/* The console of a guest whose driver does what the bytes say (hv_device.h), with a terminal that
 * takes as much as it likes and types at any time. */
#include <stddef.h>
#include <stdint.h>

#include "hv/virtio/console.h"
#include "tests/fuzz/hv_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vconsole *console;
static size_t room; /* what the terminal still takes */
static unsigned waits; /* bytes of input that wait for input_ready */

static size_t output(void *arg, const uint8_t *data, size_t len)
{
	size_t taken = len < room ? len : room;
	size_t i;
	unsigned sum = 0;

	(void)arg;
	for (i = 0; i < taken; i++) {
		sum += data[i];
	}
	hv_fuzz_must(sum <= taken * 255);
	room -= taken;
	return taken;
}

static void type(const uint8_t *data, size_t len)
{
	size_t taken = vconsole_input(console, data, len);

	hv_fuzz_must(taken <= len);
	waits = taken < len;
}

static void input_ready(void *arg)
{
	(void)arg;
	hv_fuzz_must(waits > 0);
	type((const uint8_t *)"w", 1);
}

static struct virtio *make(const struct ram *ram, struct loop *loop)
{
	const struct vconsole_config config = {
		.output = output, .input_ready = input_ready, .columns = 80, .rows = 25};
	struct fault fault = {0};

	return vconsole_create(&config, ram, loop, "console", &console, &fault) == 0
		       ? vconsole_virtio(console)
		       : NULL;
}

static void event(uint8_t what, const uint8_t *data, size_t len)
{
	switch (what % 3) {
	case 0:
		type(data, len);
		break;
	case 1:
		room += len * (what / 3u);
		vconsole_output_ready(console);
		break;
	default:
		vconsole_resize(console, what, (uint16_t)len);
		break;
	}
}

static void check(void)
{
	room = SIZE_MAX;
	vconsole_output_ready(console);
	room = 0;
}

static const struct hv_fuzz_device device = {.make = make, .event = event, .check = check};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return hv_fuzz_run(&device, data, size);
}
