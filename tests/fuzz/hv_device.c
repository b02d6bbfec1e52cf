#include "tests/fuzz/hv_device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/log.h"

/* Flags of a descriptor beyond the device's own three. */
enum { DESC_OUTSIDE = 0x80 };

struct world {
	const struct hv_fuzz_device *device;
	struct ram ram;
	struct loop loop;
	struct virtio *v;
	struct mmio mmio;
	uint8_t *page;
};

struct input {
	const uint8_t *data;
	size_t size;
};

void hv_fuzz_must(int ok)
{
	if (!ok) {
		abort();
	}
}

void hv_fuzz_turn(struct loop *loop)
{
	struct epoll_event events[8];
	int count = epoll_wait(loop->epoll, events, 8, 0), i;

	for (i = 0; i < count; i++) {
		struct watch *watch = events[i].data.ptr;

		if (watch != NULL) {
			watch->ready(watch, events[i].events);
		}
	}
}

static void take(struct input *in, void *to, size_t len)
{
	size_t got = len < in->size ? len : in->size;

	memset(to, 0, len);
	if (got > 0) {
		memcpy(to, in->data, got);
		in->data += got;
		in->size -= got;
	}
}

static uint64_t take_number(struct input *in, size_t bytes)
{
	uint64_t value = 0;

	take(in, &value, bytes);
	return value;
}

static uint8_t take_u8(struct input *in)
{
	return (uint8_t)take_number(in, 1);
}

/* Up to `len` bytes, as many as are left. */
static const uint8_t *take_bytes(struct input *in, size_t len, size_t *ret_len)
{
	const uint8_t *at = in->data;

	*ret_len = len < in->size ? len : in->size;
	in->data += *ret_len;
	in->size -= *ret_len;
	return at;
}

static void *memory(struct world *w, uint64_t guest, uint64_t len)
{
	return ram_at(&w->ram, guest, len);
}

static void must_show_the_state(struct world *w)
{
	uint8_t before[MMIO_PAGE_SIZE];

	memcpy(before, w->page, sizeof(before));
	mmio_refresh(&w->mmio);
	hv_fuzz_must(memcmp(before, w->page, sizeof(before)) == 0);
}

static unsigned take_queue(struct world *w, struct input *in)
{
	return take_u8(in) % w->v->class->queues;
}

/* A device without a kick of its own hears of its eventfds. */
static void kick(struct world *w, unsigned queue)
{
	if (w->v->class->kick != NULL) {
		virtio_kicked(w->v, queue);
	} else {
		virtio_kick(w->v, queue);
		hv_fuzz_turn(&w->loop);
	}
}

static void step_register(struct world *w, struct input *in)
{
	uint64_t offset = take_u8(in) * 4u;

	mmio_write(&w->mmio, offset, take_number(in, 4), 4);
}

static void step_config(struct world *w, struct input *in)
{
	uint64_t offset = take_u8(in);
	unsigned len = 1u << (take_u8(in) & 3);

	mmio_write(&w->mmio, 0x100 + offset, take_number(in, 8), len);
	(void)mmio_read(&w->mmio, 0x100 + offset, len);
}

static void step_memory(struct world *w, struct input *in)
{
	uint64_t offset = take_number(in, 2);
	size_t len;
	const uint8_t *bytes;

	bytes = take_bytes(in, take_u8(in), &len);
	if (len > 0 && memory(w, LAYOUT_RAM + offset, len) != NULL) {
		memcpy(memory(w, LAYOUT_RAM + offset, len), bytes, len);
	}
}

static void step_desc(struct world *w, struct input *in)
{
	unsigned queue = take_queue(w, in);
	uint8_t index = take_u8(in) % HV_FUZZ_QUEUE;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} desc = {.addr = LAYOUT_RAM + take_number(in, 2), .len = (uint32_t)take_number(in, 2)};

	desc.flags = take_u8(in);
	desc.next = take_u8(in) % HV_FUZZ_QUEUE;
	if ((desc.flags & DESC_OUTSIDE) != 0) {
		desc.addr += UINT64_C(0x8000000000000000) + ((uint64_t)desc.len << 40);
		desc.next |= 0x8000;
	}
	memcpy(memory(w, HV_FUZZ_RING(queue) + 16u * index, sizeof(desc)), &desc, sizeof(desc));
}

static void step_avail(struct world *w, struct input *in)
{
	uint64_t ring = HV_FUZZ_RING(take_queue(w, in)) + 0x100;
	uint16_t *words = memory(w, ring, 6 + 2 * HV_FUZZ_QUEUE);

	words[2 + words[1] % HV_FUZZ_QUEUE] = take_u8(in);
	words[1]++;
}

static void step_used_event(struct world *w, struct input *in)
{
	uint64_t ring = HV_FUZZ_RING(take_queue(w, in)) + 0x100;
	uint16_t *words = memory(w, ring, 6 + 2 * HV_FUZZ_QUEUE);

	words[2 + HV_FUZZ_QUEUE] = (uint16_t)take_number(in, 2);
}

static void step_event(struct world *w, struct input *in)
{
	uint8_t what = take_u8(in);
	size_t len;
	const uint8_t *bytes;

	bytes = take_bytes(in, take_u8(in), &len);
	if (w->device->event != NULL) {
		w->device->event(what, bytes, len);
	}
}

static void step_pause(struct world *w)
{
	if (w->v->paused) {
		virtio_resume(w->v);
	} else {
		virtio_pause(w->v);
	}
}

/* What was saved can be loaded, and saves the same again. */
static void step_save(struct world *w)
{
	struct virtio_state before, after;
	bool was_paused = w->v->paused;

	memset(&before, 0, sizeof(before));
	memset(&after, 0, sizeof(after));
	virtio_pause(w->v);
	virtio_save(w->v, &before);
	virtio_set_status(w->v, 0);
	hv_fuzz_must(virtio_load(w->v, &before) == 0);
	mmio_refresh(&w->mmio);
	virtio_save(w->v, &after);
	hv_fuzz_must(memcmp(&before, &after, sizeof(before)) == 0);
	if (!was_paused) {
		virtio_resume(w->v);
	}
}

/* From a file of somebody who means harm. */
static void step_load(struct world *w, struct input *in)
{
	struct virtio_state state;
	bool was_paused = w->v->paused;
	unsigned i;
	size_t len;
	const uint8_t *bytes;

	memset(&state, 0, sizeof(state));
	bytes = take_bytes(in, take_u8(in), &len);
	memcpy(&state, bytes, len < sizeof(state) ? len : sizeof(state));
	for (i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		uint8_t ready;

		memcpy(&ready, &state.queue[i].ready, 1);
		ready &= 1;
		memcpy(&state.queue[i].ready, &ready, 1);
	}
	virtio_pause(w->v);
	virtio_set_status(w->v, 0);
	(void)virtio_load(w->v, &state);
	mmio_refresh(&w->mmio);
	if (!was_paused) {
		virtio_resume(w->v);
	}
}

static void step(struct world *w, struct input *in)
{
	switch (take_u8(in) % 11) {
	case 0:
		step_register(w, in);
		break;
	case 1:
		step_config(w, in);
		break;
	case 2:
		step_memory(w, in);
		break;
	case 3:
		step_desc(w, in);
		break;
	case 4:
		step_avail(w, in);
		break;
	case 5:
		kick(w, take_queue(w, in));
		break;
	case 6:
		step_event(w, in);
		break;
	case 7:
		step_pause(w);
		break;
	case 8:
		step_save(w);
		break;
	case 9:
		step_load(w, in);
		break;
	default:
		step_used_event(w, in);
		break;
	}
}

static void reg(struct world *w, uint64_t offset, uint64_t value)
{
	mmio_write(&w->mmio, offset, value, 4);
}

static void begin_queue(struct world *w, unsigned queue)
{
	uint64_t at = HV_FUZZ_RING(queue);

	reg(w, 0x30, queue);
	reg(w, 0x38, HV_FUZZ_QUEUE);
	reg(w, 0x80, (uint32_t)at);
	reg(w, 0x90, (uint32_t)at + 0x100);
	reg(w, 0xa0, (uint32_t)at + 0x200);
	reg(w, 0x44, 1);
}

static void begin(struct world *w, uint8_t how)
{
	const uint64_t common =
		VIRTIO_F_EVENT_IDX_BIT | VIRTIO_F_INDIRECT_DESC_BIT | VIRTIO_F_VERSION_1_BIT;
	uint64_t features = VIRTIO_F_VERSION_1_BIT | ((how & 2) != 0 ? VIRTIO_F_EVENT_IDX_BIT : 0) |
			    ((how & 4) != 0 ? VIRTIO_F_INDIRECT_DESC_BIT : 0) |
			    ((how & 8) != 0 ? w->v->features & ~common : 0);
	unsigned i;

	reg(w, 0x70, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	reg(w, 0x24, 1);
	reg(w, 0x20, features >> 32);
	reg(w, 0x24, 0);
	reg(w, 0x20, features);
	reg(w, 0x70, 11);
	for (i = 0; i < w->v->class->queues; i++) {
		begin_queue(w, i);
	}
	reg(w, 0x70, 15);
	hv_fuzz_must(w->v->active);
}

static void end(struct world *w)
{
	unsigned i;

	virtio_resume(w->v);
	for (i = 0; i < w->v->class->queues; i++) {
		kick(w, i);
	}
	if (w->device->check != NULL) {
		w->device->check();
	}
	must_show_the_state(w);
	hv_fuzz_must((w->v->acked & ~w->v->features) == 0);
	hv_fuzz_must(!w->v->active || (w->v->status & VIRTIO_STATUS_NEEDS_RESET) == 0);
	reg(w, 0x70, 0);
	hv_fuzz_must(w->v->status == 0 && w->v->acked == 0 && !w->v->active);
	must_show_the_state(w);
}

/* Guest memory between pages that nobody may touch. */
static struct ram memory_make(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *at =
		mmap(NULL, HV_FUZZ_RAM + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	hv_fuzz_must(at != MAP_FAILED);
	hv_fuzz_must(mprotect(at + page, HV_FUZZ_RAM, PROT_READ | PROT_WRITE) == 0);
	return ram_borrow(at + page, HV_FUZZ_RAM);
}

static void make_device(struct world *w)
{
	w->v = w->device->make(&w->ram, &w->loop);
	hv_fuzz_must(w->v != NULL);
	mmio_init(&w->mmio, w->v, w->page, LAYOUT_VIRTIO, LAYOUT_SPI_VIRTIO);
}

static void make(struct world *w, const struct hv_fuzz_device *device)
{
	log_set_level(0);
	w->device = device;
	w->ram = memory_make();
	hv_fuzz_must(loop_init(&w->loop) == 0);
	w->page = aligned_alloc(MMIO_PAGE_SIZE, MMIO_PAGE_SIZE);
	hv_fuzz_must(w->page != NULL);
	make_device(w);
}

int hv_fuzz_run(const struct hv_fuzz_device *device, const uint8_t *data, size_t size)
{
	static struct world w;
	struct input in = {.data = data, .size = size};
	uint8_t how;

	if (w.v == NULL) {
		make(&w, device);
	}
	memset(w.ram.host, 0, w.ram.size);
	how = take_u8(&in);
	if ((how & 1) != 0) {
		begin(&w, how);
	}
	while (in.size > 0) {
		step(&w, &in);
	}
	end(&w);
	if (device->worn != NULL && device->worn()) {
		make_device(&w);
	}
	return 0;
}
