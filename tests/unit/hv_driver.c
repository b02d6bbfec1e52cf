#include "tests/unit/hv_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "hv/layout.h"

enum { WAIT_S = 10 };

#define must(condition) ((condition) ? (void)0 : must_not(__FILE__, __LINE__, #condition))

static void must_not(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
	abort();
}

void hv_driver_open(struct hv_driver *d, uint64_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	*d = (struct hv_driver){0};
	size = (size + page - 1) / page * page;
	d->map_size = (size_t)size + 2 * page;
	d->map = mmap(NULL, d->map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(d->map != MAP_FAILED);
	must(mprotect((uint8_t *)d->map + page, size, PROT_READ | PROT_WRITE) == 0);
	d->ram = ram_borrow((uint8_t *)d->map + page, size);
	d->page = aligned_alloc(MMIO_PAGE_SIZE, MMIO_PAGE_SIZE);
	must(d->page != NULL);
	must(loop_init(&d->loop) == 0);
	d->heap = LAYOUT_RAM;
}

void hv_driver_close(struct hv_driver *d)
{
	loop_close(&d->loop);
	free(d->page);
	munmap(d->map, d->map_size);
}

void hv_driver_attach(struct hv_driver *d, struct virtio *v)
{
	d->v = v;
	mmio_init(&d->mmio, v, d->page, LAYOUT_VIRTIO, LAYOUT_SPI_VIRTIO);
}

uint32_t hv_driver_read(struct hv_driver *d, uint32_t offset)
{
	uint32_t word;

	/* What is trapped and what is read from the page are the same. */
	memcpy(&word, d->page + offset, sizeof(word));
	must(mmio_read(&d->mmio, offset, 4) == word);
	return word;
}

void hv_driver_write(struct hv_driver *d, uint32_t offset, uint32_t value)
{
	mmio_write(&d->mmio, offset, value, 4);
}

uint64_t hv_driver_config(struct hv_driver *d, uint32_t offset, unsigned len)
{
	return mmio_read(&d->mmio, 0x100 + offset, len);
}

void hv_driver_config_write(struct hv_driver *d, uint32_t offset, uint64_t value, unsigned len)
{
	mmio_write(&d->mmio, 0x100 + offset, value, len);
}

void hv_driver_negotiate(struct hv_driver *d, uint64_t wanted)
{
	uint64_t offered;

	hv_driver_reset(d);
	must(hv_driver_read(d, 0x00) == 0x74726976 && hv_driver_read(d, 0x04) == 2);
	hv_driver_write(d, 0x70, VIRTIO_STATUS_ACKNOWLEDGE);
	hv_driver_write(d, 0x70, hv_driver_read(d, 0x70) | VIRTIO_STATUS_DRIVER);
	hv_driver_write(d, 0x14, 1);
	offered = (uint64_t)hv_driver_read(d, 0x10) << 32;
	hv_driver_write(d, 0x14, 0);
	offered |= hv_driver_read(d, 0x10);
	d->features = offered & (wanted | VIRTIO_F_VERSION_1_BIT);
	hv_driver_write(d, 0x24, 1);
	hv_driver_write(d, 0x20, (uint32_t)(d->features >> 32));
	hv_driver_write(d, 0x24, 0);
	hv_driver_write(d, 0x20, (uint32_t)d->features);
	hv_driver_write(d, 0x70, hv_driver_read(d, 0x70) | VIRTIO_STATUS_FEATURES_OK);
	must((hv_driver_read(d, 0x70) & VIRTIO_STATUS_FEATURES_OK) != 0);
}

static void write_address(struct hv_driver *d, uint32_t offset, uint64_t address)
{
	hv_driver_write(d, offset, (uint32_t)address);
	hv_driver_write(d, offset + 4, (uint32_t)(address >> 32));
}

void hv_driver_queue(struct hv_driver *d, unsigned queue, uint16_t size)
{
	struct hv_ring *r = &d->ring[queue];

	*r = (struct hv_ring){.size = size};
	r->desc = hv_driver_alloc(d, 16 * (size_t)size);
	r->avail = hv_driver_alloc(d, 6 + 2 * (size_t)size);
	r->used = hv_driver_alloc(d, 6 + 8 * (size_t)size);
	hv_driver_write(d, 0x30, queue);
	must(hv_driver_read(d, 0x44) == 0);
	must(hv_driver_read(d, 0x34) >= size);
	hv_driver_write(d, 0x38, size);
	write_address(d, 0x80, r->desc);
	write_address(d, 0x90, r->avail);
	write_address(d, 0xa0, r->used);
	hv_driver_write(d, 0x44, 1);
	must(hv_driver_read(d, 0x44) == 1);
}

void hv_driver_start_sized(struct hv_driver *d, uint64_t wanted, uint16_t size)
{
	unsigned i;

	hv_driver_negotiate(d, wanted);
	for (i = 0; i < d->v->class->queues; i++) {
		hv_driver_queue(d, i, size != 0 ? size : d->v->class->queue_size);
	}
	hv_driver_write(d, 0x70, hv_driver_read(d, 0x70) | VIRTIO_STATUS_DRIVER_OK);
	must((hv_driver_read(d, 0x70) & VIRTIO_STATUS_DRIVER_OK) != 0);
}

void hv_driver_start(struct hv_driver *d, uint64_t wanted)
{
	hv_driver_start_sized(d, wanted, 0);
}

void hv_driver_reset(struct hv_driver *d)
{
	hv_driver_write(d, 0x70, 0);
	/* As a vCPU does. */
	if (mmio_busy(&d->mmio)) {
		must(d->v->class->drain(d->v, -1));
		virtio_drained(d->v);
	}
	must(hv_driver_read(d, 0x70) == 0);
	d->heap = LAYOUT_RAM;
}

bool hv_driver_failed(struct hv_driver *d)
{
	return (hv_driver_read(d, 0x70) & VIRTIO_STATUS_NEEDS_RESET) != 0;
}

uint64_t hv_driver_alloc(struct hv_driver *d, size_t len)
{
	uint64_t at = d->heap;

	must(ram_at(&d->ram, at, len) != NULL);
	memset(hv_driver_at(d, at), 0, len);
	d->heap += (len + 63) & ~(size_t)63;
	return at;
}

uint64_t hv_driver_put(struct hv_driver *d, const void *data, size_t len)
{
	uint64_t at = hv_driver_alloc(d, len);

	memcpy(hv_driver_at(d, at), data, len);
	return at;
}

void *hv_driver_at(struct hv_driver *d, uint64_t guest)
{
	void *at = ram_at(&d->ram, guest, 1);

	must(at != NULL);
	return at;
}

static void put16(struct hv_driver *d, uint64_t guest, uint16_t value)
{
	__atomic_store_n((uint16_t *)hv_driver_at(d, guest), value, __ATOMIC_RELEASE);
}

static uint16_t get16(struct hv_driver *d, uint64_t guest)
{
	return __atomic_load_n((uint16_t *)hv_driver_at(d, guest), __ATOMIC_ACQUIRE);
}

static void desc_put(void *table, unsigned index, uint64_t addr, uint32_t len, uint16_t flags,
		     uint16_t next)
{
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} desc = {addr, len, flags, next};

	memcpy((uint8_t *)table + 16 * (size_t)index, &desc, sizeof(desc));
}

void hv_driver_desc(struct hv_driver *d, unsigned queue, uint16_t index, uint64_t addr,
		    uint32_t len, uint16_t flags, uint16_t next)
{
	desc_put(hv_driver_at(d, d->ring[queue].desc), index, addr, len, flags, next);
}

void hv_driver_avail_idx(struct hv_driver *d, unsigned queue, uint16_t idx)
{
	d->ring[queue].avail_idx = idx;
	put16(d, d->ring[queue].avail + 2, idx);
}

void hv_driver_avail(struct hv_driver *d, unsigned queue, uint16_t head)
{
	struct hv_ring *r = &d->ring[queue];

	put16(d, r->avail + 4 + 2u * (r->avail_idx & (r->size - 1u)), head);
	hv_driver_avail_idx(d, queue, (uint16_t)(r->avail_idx + 1));
}

uint16_t hv_driver_add(struct hv_driver *d, unsigned queue, const struct hv_buffer *buffers,
		       unsigned count)
{
	struct hv_ring *r = &d->ring[queue];
	uint16_t head = r->next_desc;
	unsigned i;

	for (i = 0; i < count; i++) {
		uint16_t next = (uint16_t)((r->next_desc + 1u) & (r->size - 1u));
		uint16_t flags = (uint16_t)(buffers[i].flags | (i + 1 < count ? HV_NEXT : 0));

		hv_driver_desc(d, queue, r->next_desc, buffers[i].addr, buffers[i].len, flags,
			       next);
		r->next_desc = next;
	}
	hv_driver_avail(d, queue, head);
	return head;
}

uint16_t hv_driver_add_indirect(struct hv_driver *d, unsigned queue,
				const struct hv_buffer *buffers, unsigned count)
{
	uint64_t table = hv_driver_alloc(d, 16 * (size_t)count);
	struct hv_buffer one = {.addr = table, .len = 16 * count, .flags = HV_INDIRECT};
	unsigned i;

	for (i = 0; i < count; i++) {
		desc_put(hv_driver_at(d, table), i, buffers[i].addr, buffers[i].len,
			 (uint16_t)(buffers[i].flags | (i + 1 < count ? HV_NEXT : 0)),
			 (uint16_t)(i + 1));
	}
	return hv_driver_add(d, queue, &one, 1);
}

void hv_driver_set_used_event(struct hv_driver *d, unsigned queue, uint16_t event)
{
	put16(d, d->ring[queue].avail + 4 + 2u * d->ring[queue].size, event);
}

uint16_t hv_driver_avail_event(struct hv_driver *d, unsigned queue)
{
	return get16(d, d->ring[queue].used + 4 + 8u * d->ring[queue].size);
}

void hv_driver_kick(struct hv_driver *d, unsigned queue)
{
	loop_lock(&d->loop);
	virtio_kicked(d->v, queue);
	loop_unlock(&d->loop);
}

bool hv_driver_used(struct hv_driver *d, unsigned queue, uint32_t *ret_head, uint32_t *ret_len)
{
	struct hv_ring *r = &d->ring[queue];
	uint32_t entry[2];

	if (get16(d, r->used + 2) == r->used_seen) {
		return false;
	}
	memcpy(entry, hv_driver_at(d, r->used + 4 + 8u * (r->used_seen & (r->size - 1u))),
	       sizeof(entry));
	r->used_seen++;
	/* As Linux does: the next one interrupts again. */
	if ((d->features & VIRTIO_F_EVENT_IDX_BIT) != 0) {
		hv_driver_set_used_event(d, queue, r->used_seen);
	}
	if (ret_head != NULL) {
		*ret_head = entry[0];
	}
	if (ret_len != NULL) {
		*ret_len = entry[1];
	}
	return true;
}

/* Ends loop_run when the device interrupts. */
static void interrupted(struct watch *watch, uint32_t events)
{
	(void)events;
	loop_stop(watch->loop);
}

static void too_late(struct watch *watch, uint32_t events)
{
	(void)watch;
	(void)events;
	must(!"the device answered in time");
}

bool hv_driver_turn(struct hv_driver *d)
{
	struct epoll_event events[16];
	int count = epoll_wait(d->loop.epoll, events, 16, 0), i;

	loop_lock(&d->loop);
	for (i = 0; i < count; i++) {
		struct watch *watch = events[i].data.ptr;

		if (watch != NULL) {
			watch->ready(watch, events[i].events);
		}
	}
	loop_unlock(&d->loop);
	return count > 0;
}

void hv_driver_wait(struct hv_driver *d, unsigned queue)
{
	struct hv_ring *r = &d->ring[queue];
	struct watch irq = {.ready = interrupted};
	struct watch late = {.ready = too_late};
	struct itimerspec limit = {.it_value.tv_sec = WAIT_S};
	uint64_t woken;
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	must(timer >= 0 && timerfd_settime(timer, 0, &limit, NULL) == 0);
	must(loop_add(&d->loop, &late, timer, EPOLLIN) == 0);
	must(loop_add(&d->loop, &irq, d->v->irq_fd, EPOLLIN | EPOLLET) == 0);
	while (get16(d, r->used + 2) == r->used_seen) {
		__atomic_store_n(&d->loop.stop, false, __ATOMIC_RELEASE);
		loop_run(&d->loop);
		must(read(d->loop.wake, &woken, sizeof(woken)) == (ssize_t)sizeof(woken));
	}
	loop_remove(&irq);
	loop_remove(&late);
	close(timer);
}

uint64_t hv_driver_interrupts(struct hv_driver *d)
{
	uint64_t count = 0;

	return read(d->v->irq_fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}
