#include "hv/virtio/mmio.h"

#include <assert.h>
#include <string.h>

/* Registers: virtio 1.2, 4.2.2. */
enum {
	REG_MAGIC = 0x00,
	REG_VERSION = 0x04,
	REG_DEVICE_ID = 0x08,
	REG_VENDOR_ID = 0x0c,
	REG_DEVICE_FEATURES = 0x10,
	REG_DEVICE_FEATURES_SEL = 0x14,
	REG_DRIVER_FEATURES = 0x20,
	REG_DRIVER_FEATURES_SEL = 0x24,
	REG_QUEUE_SEL = 0x30,
	REG_QUEUE_SIZE_MAX = 0x34,
	REG_QUEUE_SIZE = 0x38,
	REG_QUEUE_READY = 0x44,
	REG_QUEUE_NOTIFY = MMIO_NOTIFY,
	REG_INTERRUPT_STATUS = 0x60,
	REG_INTERRUPT_ACK = MMIO_ACK,
	REG_STATUS = 0x70,
	REG_QUEUE_DESC_LOW = 0x80,
	REG_QUEUE_DESC_HIGH = 0x84,
	REG_QUEUE_DRIVER_LOW = 0x90,
	REG_QUEUE_DRIVER_HIGH = 0x94,
	REG_QUEUE_DEVICE_LOW = 0xa0,
	REG_QUEUE_DEVICE_HIGH = 0xa4,
	REG_SHM_LEN_LOW = 0xb0,
	REG_SHM_LEN_HIGH = 0xb4,
	REG_SHM_BASE_LOW = 0xb8,
	REG_SHM_BASE_HIGH = 0xbc,
	REG_CONFIG_GENERATION = 0xfc,
	REG_CONFIG = 0x100,
};

#define MAGIC 0x74726976u /* "virt" */
#define VENDOR 0x4b524254u /* "TBRK" */
#define NO_SHARED_MEMORY 0xffffffffu

_Static_assert(REG_CONFIG + VIRTIO_CONFIG_MAX <= MMIO_PAGE_SIZE, "the config space is in the page");
_Static_assert(VIRTIO_CONFIG_MAX % 4 == 0, "whole words");

/* Bytes of the page that were changed and must be written back. */
struct span {
	size_t begin, end;
};

/* Guests map the page as a device's: on cores without FEAT_S2FWB they read memory, not our cache.
 */
static void span_clean(const struct mmio *m, const struct span *s)
{
#ifdef __aarch64__
	uint64_t ctr;
	uintptr_t at, line;

	if (s->begin >= s->end) {
		return;
	}
	__asm__("mrs %0, ctr_el0" : "=r"(ctr));
	line = (uintptr_t)4 << ((ctr >> 16) & 15);
	for (at = (uintptr_t)(m->page + s->begin) & ~(line - 1); at < (uintptr_t)(m->page + s->end);
	     at += line) {
		__asm__ volatile("dc cvac, %0" : : "r"(at) : "memory");
	}
	__asm__ volatile("dsb sy" : : : "memory");
#else
	(void)m;
	(void)s;
#endif
}

/* A word at once: the guest reads while we write. */
static void put(struct mmio *m, struct span *s, size_t offset, uint32_t value)
{
	uint32_t *at = (uint32_t *)(void *)(m->page + offset);

	if (__atomic_load_n(at, __ATOMIC_RELAXED) == value) {
		return;
	}
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
	s->begin = offset < s->begin ? offset : s->begin;
	s->end = offset + 4 > s->end ? offset + 4 : s->end;
}

static struct queue *selected(const struct mmio *m)
{
	return m->queue_select < m->virtio->class->queues ? &m->virtio->queue[m->queue_select]
							  : NULL;
}

static uint32_t bank(uint64_t features, uint32_t select)
{
	return select < 2 ? (uint32_t)(features >> (32 * select)) : 0;
}

static void put_config(struct mmio *m, struct span *s)
{
	size_t len = m->virtio->config_len;
	size_t i;

	if (memcmp(m->page + REG_CONFIG, m->virtio->config, len) == 0) {
		len = 0; /* as nearly always */
	}
	for (i = 0; i < len; i += 4) {
		uint32_t word;

		memcpy(&word, m->virtio->config + i, sizeof(word));
		put(m, s, REG_CONFIG + i, word);
	}
	/* Last: who reads an old number after new bytes reads again at the interrupt that follows.
	 */
	put(m, s, REG_CONFIG_GENERATION, m->virtio->config_generation);
}

/* Everything that can change, by whatever just happened. */
static void put_state(struct mmio *m, struct span *s)
{
	const struct queue *q = selected(m);

	put(m, s, REG_DEVICE_FEATURES, bank(m->virtio->features, m->features_select));
	put(m, s, REG_QUEUE_SIZE_MAX, q != NULL ? m->virtio->class->queue_size : 0);
	put(m, s, REG_QUEUE_READY, q != NULL && q->ready);
	put(m, s, REG_INTERRUPT_STATUS, MMIO_ACK_RINGS | (m->config_pending ? MMIO_ACK_CONFIG : 0));
	put(m, s, REG_STATUS, m->virtio->status);
	put_config(m, s);
}

static void sync(struct mmio *m)
{
	struct span s = {.begin = MMIO_PAGE_SIZE};

	put_state(m, &s);
	span_clean(m, &s);
}

static void changed(struct virtio *v, void *arg)
{
	struct mmio *m = arg;

	if ((v->status & VIRTIO_STATUS_DRIVER_OK) != 0) {
		m->config_pending = true;
	}
	sync(m);
}

void mmio_init(struct mmio *m, struct virtio *v, uint8_t *page, uint64_t base, uint32_t spi)
{
	*m = (struct mmio){.virtio = v, .page = page, .base = base, .spi = spi};
	v->changed = changed;
	v->changed_arg = m;
	mmio_refresh(m);
}

void mmio_refresh(struct mmio *m)
{
	struct span all = {.begin = 0, .end = MMIO_PAGE_SIZE};

	m->driver_features = (m->driver_features & ~m->virtio->features) | m->virtio->acked;
	memset(m->page, 0, MMIO_PAGE_SIZE);
	put(m, &all, REG_MAGIC, MAGIC);
	put(m, &all, REG_VERSION, 2);
	put(m, &all, REG_DEVICE_ID, m->virtio->class->id);
	put(m, &all, REG_VENDOR_ID, VENDOR);
	put(m, &all, REG_SHM_LEN_LOW, NO_SHARED_MEMORY);
	put(m, &all, REG_SHM_LEN_HIGH, NO_SHARED_MEMORY);
	put(m, &all, REG_SHM_BASE_LOW, NO_SHARED_MEMORY);
	put(m, &all, REG_SHM_BASE_HIGH, NO_SHARED_MEMORY);
	put_state(m, &all);
	span_clean(m, &all);
}

uint64_t mmio_read(void *arg, uint64_t offset, unsigned len)
{
	const struct mmio *m = arg;
	uint64_t value = 0;

	if (offset < MMIO_PAGE_SIZE && len <= MMIO_PAGE_SIZE - offset) {
		memcpy(&value, m->page + offset, len);
	}
	return value;
}

/* Steps of the driver's initialisation (3.1.1) in which it may speak of features and of queues. */
static bool may_negotiate(const struct virtio *v)
{
	return (v->status & VIRTIO_STATUS_DRIVER) != 0 &&
	       (v->status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_NEEDS_RESET)) == 0;
}

static bool may_set_queues(const struct virtio *v)
{
	return (v->status & (VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK |
			     VIRTIO_STATUS_NEEDS_RESET)) == VIRTIO_STATUS_FEATURES_OK;
}

static void write_features(struct mmio *m, uint32_t value)
{
	unsigned shift = 32 * m->driver_features_select;

	if (!may_negotiate(m->virtio) || m->driver_features_select > 1) {
		return;
	}
	m->driver_features &= ~((uint64_t)UINT32_MAX << shift);
	m->driver_features |= (uint64_t)value << shift;
	m->virtio->acked = m->driver_features & m->virtio->features;
}

static void reset(struct mmio *m)
{
	virtio_set_status(m->virtio, 0);
	m->features_select = m->driver_features_select = m->queue_select = 0;
	m->driver_features = 0;
	m->config_pending = false;
}

static void write_status(struct mmio *m, uint32_t value)
{
	if (value == 0) {
		reset(m);
		return;
	}
	/* Who wants what was not offered is told no (2.2.2). */
	if ((m->driver_features & ~m->virtio->features) != 0) {
		value &= ~(uint32_t)VIRTIO_STATUS_FEATURES_OK;
	}
	virtio_set_status(m->virtio, value);
}

static void write_ready(struct mmio *m, uint32_t value)
{
	struct queue *q = selected(m);

	if (value == 1 && q != NULL && !q->ready && may_set_queues(m->virtio)) {
		virtio_enable_queue(m->virtio, m->queue_select);
	} else if (value == 0 && q != NULL && q->ready && m->virtio->active) {
		/* Only a reset takes a queue from a running device: requests may be in flight. */
		virtio_fail(m->virtio, "no queue any more while it runs");
	} else if (value == 0 && q != NULL && q->ready) {
		q->ready = false;
	}
}

static uint16_t size_checked(const struct virtio *v, uint32_t value)
{
	bool good = value <= v->class->queue_size && (value & (value - 1)) == 0;

	return good ? (uint16_t)value : 0;
}

static void half_set(uint64_t *address, bool high, uint32_t value)
{
	*address = high ? (*address & UINT32_MAX) | (uint64_t)value << 32
			: (*address & ~(uint64_t)UINT32_MAX) | value;
}

/* Size and place of the selected queue, as long as it is not in use. */
static void write_queue(struct mmio *m, uint64_t offset, uint32_t value)
{
	struct queue *q = selected(m);

	if (q == NULL || q->ready || !may_set_queues(m->virtio)) {
		return;
	}
	switch (offset) {
	case REG_QUEUE_SIZE:
		q->size = size_checked(m->virtio, value);
		break;
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
		half_set(&q->desc, offset == REG_QUEUE_DESC_HIGH, value);
		break;
	case REG_QUEUE_DRIVER_LOW:
	case REG_QUEUE_DRIVER_HIGH:
		half_set(&q->avail, offset == REG_QUEUE_DRIVER_HIGH, value);
		break;
	default:
		half_set(&q->used, offset == REG_QUEUE_DEVICE_HIGH, value);
		break;
	}
}

static void write_register(struct mmio *m, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case REG_DEVICE_FEATURES_SEL:
		m->features_select = value;
		break;
	case REG_DRIVER_FEATURES:
		write_features(m, value);
		break;
	case REG_DRIVER_FEATURES_SEL:
		m->driver_features_select = value;
		break;
	case REG_QUEUE_SEL:
		m->queue_select = value;
		break;
	case REG_QUEUE_READY:
		write_ready(m, value);
		break;
	case REG_QUEUE_NOTIFY:
		if (value < m->virtio->class->queues) {
			virtio_kick(m->virtio, value);
		}
		break;
	case REG_INTERRUPT_ACK:
		m->config_pending = m->config_pending && (value & MMIO_ACK_CONFIG) == 0;
		break;
	case REG_STATUS:
		write_status(m, value);
		break;
	case REG_QUEUE_SIZE:
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
	case REG_QUEUE_DRIVER_LOW:
	case REG_QUEUE_DRIVER_HIGH:
	case REG_QUEUE_DEVICE_LOW:
	case REG_QUEUE_DEVICE_HIGH:
		write_queue(m, offset, value);
		break;
	default: /* read-only, or nothing at all */
		break;
	}
}

static void write_config(struct virtio *v, uint64_t offset, uint64_t value, unsigned len)
{
	if (v->class->config_written == NULL || offset >= v->config_len ||
	    len > v->config_len - offset) {
		return;
	}
	memcpy(v->config + offset, &value, len);
	v->class->config_written(v, (unsigned)offset, len);
}

void mmio_write(void *arg, uint64_t offset, uint64_t value, unsigned len)
{
	struct mmio *m = arg;

	if (offset >= REG_CONFIG) {
		write_config(m->virtio, offset - REG_CONFIG, value, len);
	} else if (len == 4) {
		write_register(m, offset, (uint32_t)value);
	}
	sync(m);
}

bool mmio_busy(void *arg)
{
	const struct mmio *m = arg;

	return m->virtio->resetting;
}

void mmio_reset(struct mmio *m)
{
	reset(m);
	sync(m);
}

void mmio_tree(const struct mmio *m, struct tree *t)
{
	tree_open(t, "virtio_mmio@%llx", (unsigned long long)m->base);
	tree_text(t, "compatible", "virtio,mmio");
	tree_reg(t, m->base, MMIO_PAGE_SIZE);
	tree_spi(t, m->spi, TREE_EDGE);
	tree_empty(t, "dma-coherent");
	tree_close(t);
}
