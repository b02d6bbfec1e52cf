#include "hv_snapshot_sample.h"

#include <string.h>

#include "hv/class.h"
#include "hv/layout.h"
#include "hv/register_name.h"
#include "lib/mem.h"

#define NEW(type, init)                                                                            \
	({                                                                                         \
		type *message = mem_alloc(sizeof(type));                                           \
		init(message);                                                                     \
		message;                                                                           \
	})

static ProtobufCBinaryData bytes(size_t len, uint8_t fill)
{
	ProtobufCBinaryData b = {.len = len, .data = mem_alloc(len)};

	memset(b.data, fill, len);
	return b;
}

static Tb__VmHardware *hardware(void)
{
	Tb__VmHardware *h = NEW(Tb__VmHardware, tb__vm_hardware__init);

	h->vcpus = 2;
	h->memory_bytes = 64 << 20;
	h->gic = TB__GIC_VERSION__GIC_VERSION_V2;
	h->pmu = 1;
	return h;
}

static Tb__HostClass *host_class(void)
{
	Tb__HostClass *record = NEW(Tb__HostClass, tb__host_class__init);
	struct host_class c = {0};

	class_add(&c, REGISTER_SYSTEM(3, 0, 0, 0, 0), 0x410fd083);
	class_add(&c, CLASS_PAGE_SIZE, 4096);
	class_add(&c, CLASS_COUNTER_HZ, 54000000);
	class_pack(&c, record);
	return record;
}

static Tb__VmClock *vm_clock(void)
{
	Tb__VmClock *c = NEW(Tb__VmClock, tb__vm_clock__init);

	c->counter = 1234567890;
	c->frequency = 54000000;
	c->realtime_ns = 1700000000000000000;
	return c;
}

/* X0, a system register and a vector register: 8, 8 and 16 bytes. */
static Tb__VcpuState *vcpu(uint32_t mp_state)
{
	static const uint64_t ids[] = {0x6030000000100000, REGISTER_SYSTEM(3, 0, 1, 0, 0),
				       0x6040000000100054};
	Tb__VcpuState *v = NEW(Tb__VcpuState, tb__vcpu_state__init);

	v->mp_state = mp_state;
	v->n_register_ids = 3;
	v->register_ids = mem_dup(ids, sizeof(ids));
	v->register_values = bytes(32, 0x5a);
	return v;
}

static Tb__VmGicState *gic(void)
{
	Tb__VmGicState *g = NEW(Tb__VmGicState, tb__vm_gic_state__init);

	g->interrupts = LAYOUT_INTERRUPTS;
	g->n_words = 3;
	g->words = mem_zalloc(3 * sizeof(uint64_t));
	g->words[1] = 0xffff;
	return g;
}

static Tb__VirtioState *device(const char *name, uint32_t id)
{
	Tb__VirtioState *d = NEW(Tb__VirtioState, tb__virtio_state__init);
	Tb__QueueState *q = NEW(Tb__QueueState, tb__queue_state__init);

	d->name = mem_strdup(name);
	d->id = id;
	d->status = 15;
	d->acked = UINT64_C(1) << 32;
	d->config = bytes(60, 7);
	q->ready = 1;
	q->size = 256;
	q->desc = LAYOUT_RAM;
	q->avail = LAYOUT_RAM + 0x1000;
	q->used = LAYOUT_RAM + 0x2000;
	q->next_avail = q->next_used = 65535;
	d->n_queues = 1;
	d->queues = mem_alloc(sizeof(d->queues[0]));
	d->queues[0] = q;
	d->n_words = 1;
	d->words = mem_zalloc(sizeof(uint64_t));
	return d;
}

Tb__VmSnapshot *snapshot_sample(void)
{
	Tb__VmSnapshot *s = NEW(Tb__VmSnapshot, tb__vm_snapshot__init);

	s->program = mem_strdup("a test");
	s->hardware = hardware();
	s->host_class = host_class();
	s->clock = vm_clock();
	s->n_vcpus = 2;
	s->vcpus = mem_array(2, sizeof(s->vcpus[0]));
	s->vcpus[0] = vcpu(0);
	s->vcpus[1] = vcpu(5);
	s->gic = gic();
	s->uart = NEW(Tb__Pl011State, tb__pl011_state__init);
	s->uart->fifo = bytes(5, 'x');
	s->rtc = NEW(Tb__Pl031State, tb__pl031_state__init);
	s->generation_id = bytes(16, 1);
	s->stolen_time = bytes(128, 0);
	s->memory_id = bytes(16, 2);
	s->n_devices = 2;
	s->devices = mem_array(2, sizeof(s->devices[0]));
	s->devices[0] = device("blk0", 2);
	s->devices[0]->disk = NEW(Tb__DiskMark, tb__disk_mark__init);
	s->devices[0]->disk->seconds = 1700000000;
	s->devices[0]->disk->nanoseconds = 999999999;
	s->devices[1] = device("rng0", 4);
	return s;
}
