/* State files of snapshots. The input is the record of a file; its head and a good checksum are put
 * in front, as a forger would. What is taken can be packed and taken again, to the byte; and its
 * first device's state is given to a random-number device with a driver's memory behind it, which
 * then works or refuses. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hv/class.h"
#include "hv/device_state.h"
#include "hv/guest_clock.h"
#include "hv/layout.h"
#include "hv/state_file.h"
#include "hv/virtio/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok) {
		abort();
	}
}

static void forge(struct buf *b, const uint8_t *record, size_t len)
{
	buf_puts(b, "TBVMSTAT");
	buf_put_u32(b, STATE_FILE_VERSION);
	buf_put_u32(b, (uint32_t)len);
	buf_put_u64(b, state_file_sum(b->data, record, len));
	buf_append(b, record, len);
}

static void pack_again(const Tb__VmSnapshot *s)
{
	struct buf once = {0}, twice = {0};
	struct fault fault = {0};
	Tb__VmSnapshot *back;

	state_file_encode(s, &once);
	must(state_file_decode(once.data, once.len, &back, &fault) == 0);
	state_file_encode(back, &twice);
	must(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
	tb__vm_snapshot__free_unpacked(back, NULL);
	buf_free(&once);
	buf_free(&twice);
}

static void compare(const Tb__VmSnapshot *s)
{
	static struct host_class saved, here = {.count = 1, .part = {{CLASS_PAGE_SIZE, 4096}}};
	struct fault fault = {0};
	char text[360];
	struct guest_clock clock = {0};
	uint64_t count;

	must(class_unpack(s->host_class, &saved));
	must((class_difference(&saved, &here, text, sizeof(text)) > 0) == (text[0] != '\0'));
	must(class_difference(&saved, &saved, text, sizeof(text)) == 0);
	clock.counter = s->clock->counter;
	clock.frequency = s->clock->frequency;
	clock.realtime_ns = s->clock->realtime_ns;
	must(guest_clock_count(&clock, true, INT64_C(1800000000000000000), &count, &fault) <= 0);
}

/* The guest's memory holds the record: chains of anything. */
static void device_load(const Tb__VirtioState *saved, const uint8_t *data, size_t size)
{
	enum { MEMORY = 64 << 10, PAGE = 4096 };
	static uint8_t memory[MEMORY] __attribute__((aligned(PAGE)));
	static uint8_t page[PAGE] __attribute__((aligned(PAGE)));
	static struct loop loop;
	struct ram ram = ram_borrow(memory, MEMORY);
	struct fault fault = {0};
	struct mmio m;
	struct vrng *rng;

	if (loop.epoll == 0) {
		must(loop_init(&loop) == 0);
	}
	memset(memory, 0, MEMORY);
	memcpy(memory, data, size < MEMORY ? size : MEMORY);
	must(vrng_create(NULL, &ram, &loop, "rng", &rng, &fault) == 0);
	mmio_init(&m, vrng_virtio(rng), page, LAYOUT_VIRTIO, LAYOUT_SPI_VIRTIO);
	if (device_state_check(saved, m.virtio, 0, &fault) == 0 &&
	    device_state_load(saved, &m, &fault) == 0) {
		virtio_resume(m.virtio);
		virtio_kicked(m.virtio, 0);
		virtio_pause(m.virtio);
		tb__virtio_state__free_unpacked(device_state_save(&m), NULL);
		virtio_resume(m.virtio);
	}
	virtio_set_status(m.virtio, 0);
	vrng_destroy(rng);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf b = {0};
	struct fault fault = {0};
	Tb__VmSnapshot *s;
	int rv;

	forge(&b, data, size);
	rv = state_file_decode(b.data, b.len, &s, &fault);
	must((rv == 0) == (fault.text[0] == '\0'));
	if (rv == 0) {
		pack_again(s);
		compare(s);
		if (s->n_devices > 0) {
			device_load(s->devices[0], data, size);
		}
		tb__vm_snapshot__free_unpacked(s, NULL);
	}
	buf_free(&b);
	/* And as a file that somebody else wrote. */
	memset(&fault, 0, sizeof(fault));
	rv = state_file_decode(data, size, &s, &fault);
	must(rv == 0 || rv == -EBADMSG);
	if (rv == 0) {
		tb__vm_snapshot__free_unpacked(s, NULL);
	}
	return 0;
}
