#include "hv/machine.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/kvm.h"
#include "hv/spec.h"
#include "hv/vcpu_state.h"
#include "hv/virtio/balloon.h"
#include "hv/virtio/blk.h"
#include "hv/virtio/console.h"
#include "hv/virtio/input.h"
#include "hv/virtio/net.h"
#include "hv/virtio/rng.h"
#include "hv/virtio/vsock.h"
#include "hv/vmgenid.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/rng.h"

/* Memory slots. */
enum { SLOT_RAM, SLOT_OWN, SLOT_REGISTERS };

static int fault_kvm(struct fault *fault, int error, const char *what)
{
	return fault_set(fault, error, "KVM refuses %s: %s; see `witness-vm probe`", what,
			 strerror(-error));
}

/* Pages of the host, zeroed; NULL if there are none. */
static uint8_t *pages_map(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

/* Bits of a guest physical address that reaches the end of RAM; KVM wants 32 at least. */
static unsigned address_bits(uint64_t memory)
{
	uint64_t top = LAYOUT_RAM + memory - 1;
	unsigned bits = 64 - (unsigned)__builtin_clzll(top);

	return bits < 32 ? 32 : bits;
}

static int make_vm(struct machine *m, uint64_t memory, struct fault *fault)
{
	unsigned bits = address_bits(memory);
	int limit, rv;

	m->kvm = resource_find(m->resources, "kvm");
	if (m->kvm < 0) {
		return fault_set(fault, -ENOENT, "no descriptor named kvm was handed over");
	}
	limit = kvm_capability(m->kvm, KVM_CAP_ARM_VM_IPA_SIZE);
	if (limit > 0 && (int)bits > limit) {
		return fault_set(fault, -ERANGE,
				 "%llu MiB of memory need %u address bits, this host has %d: give "
				 "the VM less",
				 (unsigned long long)(memory >> 20), bits, limit);
	}
	rv = kvm_vm_create(m->kvm, bits, &m->vm);
	if (rv < 0) {
		return fault_kvm(fault, rv, "a virtual machine");
	}
	/* Older kernels have no such word; then the guest's odd accesses end in -ENOSYS of KVM_RUN.
	 */
	(void)kvm_enable(m->vm, KVM_CAP_ARM_NISV_TO_USER, 0);
	return 0;
}

static int make_ram(struct machine *m, uint64_t memory, struct fault *fault)
{
	static const enum ram_backing backings[] = {
		[TB__MEMORY_BACKING__MEMORY_BACKING_AUTO] = RAM_AUTO,
		[TB__MEMORY_BACKING__MEMORY_BACKING_ANONYMOUS] = RAM_ANONYMOUS,
		[TB__MEMORY_BACKING__MEMORY_BACKING_MEMFD] = RAM_MEMFD,
		[TB__MEMORY_BACKING__MEMORY_BACKING_SHARED] = RAM_SHARED_FILE,
	};
	enum ram_backing backing = backings[m->spec->backing];
	int rv;

	if (backing == RAM_SHARED_FILE) {
		rv = ram_map_file(resource_find(m->resources, "memory"), memory, &m->ram, fault);
	} else {
		rv = ram_create(memory, backing, &m->ram, fault);
	}
	if (rv < 0) {
		return rv;
	}
	rv = kvm_slot_set(m->vm, SLOT_RAM, 0, LAYOUT_RAM, memory, m->ram.host);
	return rv < 0 ? fault_kvm(fault, rv, "the guest's memory") : 0;
}

/* Pages outside of RAM that the guest can read and write: the generation id, and the stolen time
 * where the host has it. One memory slot for both (12,000 instructions each); a guest that writes
 * between them has those few pages more. */
static int make_pages(struct machine *m, bool stolen, struct fault *fault)
{
	const size_t distance = LAYOUT_STOLEN - LAYOUT_VMGENID;
	int rv;

	m->own_size = (stolen ? distance : 0) + m->page_size;
	m->own = pages_map(m->own_size);
	if (m->own == NULL) {
		return fault_set(fault, -ENOMEM, "no memory for the VM's own pages");
	}
	rv = kvm_slot_set(m->vm, SLOT_OWN, 0, LAYOUT_VMGENID, m->own_size, m->own);
	if (rv < 0) {
		return fault_kvm(fault, rv, "a page of the guest");
	}
	m->vmgenid = m->own;
	m->stolen = stolen ? m->own + distance : NULL;
	return 0;
}

static int choose_generation(struct machine *m, struct fault *fault)
{
	uint8_t id[VMGENID_SIZE];
	int rv = vmgenid_choose(m->spec->generation_id, id, fault);

	if (rv == 0) {
		vmgenid_write(m->vmgenid, id);
	}
	return rv;
}

/* The order is KVM's: all vCPUs before the interrupt controller, their extras after it. */
static int make_processors(struct machine *m, struct fault *fault)
{
	unsigned count = m->spec->vcpus > 0 ? m->spec->vcpus : 1;
	bool restoring = m->spec->restore != NULL;
	int rv = vcpus_create(m->kvm, m->vm, count, !m->spec->no_pmu, &m->bus, &m->loop, &m->vcpus,
			      fault);

	rv = rv < 0 ? rv : vcpus_init(&m->vcpus, restoring, fault);
	rv = rv < 0 ? rv : gic_create(m->vm, (unsigned)m->spec->gic, count, &m->gic, fault);
	rv = rv < 0 ? rv : gic_init(&m->gic, fault);
	rv = rv < 0 ? rv : make_pages(m, vcpus_have_stolen_time(&m->vcpus), fault);
	rv = rv < 0 ? rv : choose_generation(m, fault);
	return rv < 0 ? rv : vcpus_attach(&m->vcpus, m->stolen != NULL ? LAYOUT_STOLEN : 0, fault);
}

static void uart_output(void *arg, uint8_t data)
{
	struct machine *m = arg;

	m->uart_spoke = true;
	/* What the terminal cannot take now is lost, as on a wire without flow control. */
	(void)m->output.output(m->output.arg, &data, 1);
}

static size_t virtio_output(void *arg, const uint8_t *data, size_t len)
{
	struct machine *m = arg;

	m->uart_spoke = false;
	return m->output.output(m->output.arg, data, len);
}

static void uart_irq(void *arg, int level)
{
	struct machine *m = arg;

	(void)kvm_irq_line(m->vm, LAYOUT_SPI_PL011, level != 0);
}

static void make_board_devices(struct machine *m)
{
	pl011_init(&m->pl011, uart_output, uart_irq, m);
	bus_add(&m->bus, LAYOUT_PL011, 0x1000, pl011_device(&m->pl011));
	bus_add(&m->bus, LAYOUT_PL031, 0x1000, pl031_device(&m->pl031));
}

/* Called for whatever may have been the last thing in flight. With the lock. */
static void rest_look(void *arg)
{
	struct machine *m = arg;
	bool rests = true;
	unsigned i;

	if (m->state != MACHINE_PAUSING) {
		return;
	}
	for (i = 0; i < m->slots; i++) {
		rests = virtio_rest(m->slot[i].virtio) && rests;
	}
	if (rests) {
		void (*rested)(void *arg) = m->rested;

		m->state = MACHINE_PAUSED;
		m->rested = NULL;
		if (rested != NULL) {
			rested(m->rested_arg);
		}
	}
}

static void slot_take(struct machine *m, struct virtio *v)
{
	v->rested = rest_look;
	v->rested_arg = m;
	m->slot[m->slots++].virtio = v;
}

static int make_disk(struct machine *m, unsigned i, struct fault *fault)
{
	const Tb__DiskSpec *disk = m->spec->disks[i];
	const struct blk_config config = {
		.fd = resource_find_nth(m->resources, "disk", i),
		.read_only = disk->read_only,
		.direct = disk->direct,
		.id = disk->id,
	};
	char name[16];
	int rv;

	snprintf(name, sizeof(name), "blk%u", i);
	rv = blk_create(&config, &m->ram, &m->loop, name, &m->blk[i], fault);
	if (rv == 0) {
		slot_take(m, blk_virtio(m->blk[i]));
	}
	return rv;
}

static int make_nic(struct machine *m, unsigned i, struct fault *fault)
{
	struct net_config config = {.fd = resource_find_nth(m->resources, "nic", i)};
	char name[16];
	int rv = spec_mac_parse(m->spec->nics[i]->mac, config.mac);

	snprintf(name, sizeof(name), "net%u", i);
	if (rv < 0) {
		return fault_set(fault, rv, "nics[%u].mac is no MAC address", i);
	}
	rv = net_create(&config, &m->ram, &m->loop, name, &m->net[i], fault);
	if (rv == 0) {
		slot_take(m, net_virtio(m->net[i]));
	}
	return rv;
}

static int make_small_devices(struct machine *m, struct fault *fault)
{
	const Tb__VmSpec *spec = m->spec;
	int rv = 0;

	if (!spec->no_console) {
		const struct vconsole_config config = {
			.output = virtio_output,
			.arg = m,
			.columns = m->output.columns,
			.rows = m->output.rows,
		};

		rv = vconsole_create(&config, &m->ram, &m->loop, "console", &m->console, fault);
		if (rv == 0) {
			slot_take(m, vconsole_virtio(m->console));
		}
	}
	if (rv == 0 && !spec->no_rng) {
		rv = vrng_create(NULL, &m->ram, &m->loop, "rng", &m->rng, fault);
		if (rv == 0) {
			slot_take(m, vrng_virtio(m->rng));
		}
	}
	if (rv == 0 && !spec->no_balloon) {
		rv = balloon_create(NULL, &m->ram, &m->loop, "balloon", &m->balloon, fault);
		if (rv == 0) {
			slot_take(m, balloon_virtio(m->balloon));
		}
	}
	if (rv == 0 && !spec->no_power_button) {
		rv = vinput_create(NULL, &m->ram, &m->loop, "button", &m->button, fault);
		if (rv == 0) {
			slot_take(m, vinput_virtio(m->button));
		}
	}
	if (rv == 0 && spec->vsock_cid != 0) {
		const struct vsock_config config = {
			.fd = resource_find(m->resources, "vsock"),
			.cid = spec->vsock_cid,
		};

		rv = vsock_create(&config, &m->ram, &m->loop, "vsock", &m->vsock, fault);
		if (rv == 0) {
			slot_take(m, vsock_virtio(m->vsock));
		}
	}
	return rv;
}

static int make_virtio_devices(struct machine *m, struct fault *fault)
{
	unsigned i;
	int rv = 0;

	for (i = 0; i < m->spec->n_disks && rv == 0; i++) {
		rv = make_disk(m, i, fault);
	}
	for (i = 0; i < m->spec->n_nics && rv == 0; i++) {
		rv = make_nic(m, i, fault);
	}
	return rv < 0 ? rv : make_small_devices(m, fault);
}

/* Doorbells in the kernel: kicks of the busy queues, and the acknowledges of a device with such. */
static int connect_doorbells(struct machine *m, const struct machine_slot *s, uint64_t base)
{
	bool busy = false;
	unsigned q;
	int rv = 0;

	for (q = 0; q < s->virtio->class->queues && rv == 0; q++) {
		if ((s->virtio->class->rare_kicks & 1u << q) == 0) {
			rv = kvm_ioeventfd(m->vm, base + MMIO_NOTIFY, 4, q, s->virtio->kick_fd[q],
					   true);
			busy = true;
		}
	}
	if (rv < 0 || !busy) {
		return rv;
	}
	return kvm_ioeventfd(m->vm, base + MMIO_ACK, 4, MMIO_ACK_RINGS, m->ack_fd, true);
}

/* Registers of slot i: readable without an exit, kicks and acknowledges as eventfds, the interrupt
 * straight into the GIC. */
static int connect_slot(struct machine *m, unsigned i)
{
	struct machine_slot *s = &m->slot[i];
	uint64_t base = LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_STEP;
	int rv;

	mmio_init(&s->mmio, s->virtio, m->registers + i * LAYOUT_VIRTIO_STEP, base,
		  LAYOUT_SPI_VIRTIO + i);
	bus_add(&m->bus, base, MMIO_PAGE_SIZE,
		(struct bus_device){
			.name = s->virtio->name,
			.read = mmio_read,
			.write = mmio_write,
			.busy = mmio_busy,
			.device = &s->mmio,
		});
	rv = connect_doorbells(m, s, base);
	return rv < 0 ? rv : kvm_irqfd(m->vm, LAYOUT_SPI_VIRTIO + i, s->virtio->irq_fd, true);
}

static int connect_slots(struct machine *m, struct fault *fault)
{
	unsigned i;
	int rv = 0;

	if (m->slots > 0) {
		/* One memory slot for all: each costs 12,000 instructions. What lies between the
		 * pages of two devices is never touched. */
		m->registers = pages_map(m->slots * LAYOUT_VIRTIO_STEP);
		m->ack_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (m->registers == NULL || m->ack_fd < 0) {
			return fault_set(fault, -ENOMEM, "no memory for the devices' registers");
		}
		rv = kvm_slot_set(m->vm, SLOT_REGISTERS, KVM_MEM_READONLY, LAYOUT_VIRTIO,
				  m->slots * LAYOUT_VIRTIO_STEP, m->registers);
	}
	for (i = 0; i < m->slots && rv == 0; i++) {
		rv = connect_slot(m, i);
	}
	return rv < 0 ? fault_kvm(fault, rv, "a device's doorbells") : 0;
}

/* The guest wanted it, and nothing of its old life is under way. With the lock. */
static void reboot(void *arg)
{
	struct machine *m = arg;
	struct fault fault = {0};

	loop_unlock(&m->loop);
	if (machine_reset(m, &fault) < 0) {
		machine_stop(m, MACHINE_END_ERROR, fault.text);
	}
	loop_lock(&m->loop);
}

/* What a vCPU told: the guest powered off, reboots, or is broken. With the lock, which is given up
 * for the parking. */
static void event_ready(struct watch *watch, uint32_t events)
{
	struct machine *m =
		(struct machine *)((char *)watch - offsetof(struct machine, event_watch));
	const char *text;
	enum vcpu_event event;
	struct fault fault = {0};

	(void)events;
	/* A machine at rest stays at rest: resume listens again. */
	if (m->state == MACHINE_PAUSED || m->state == MACHINE_PAUSING) {
		loop_remove(watch);
		return;
	}
	loop_unlock(&m->loop);
	vcpus_park(&m->vcpus);
	event = vcpus_take_event(&m->vcpus, &text);
	switch (event) {
	case VCPU_EVENT_NONE:
		/* A reset that came just before has taken it, and the guest is to run. */
		vcpus_release(&m->vcpus);
		break;
	case VCPU_EVENT_POWEROFF:
		machine_stop(m, MACHINE_END_POWEROFF, text);
		break;
	case VCPU_EVENT_RESET:
		if (m->spec->on_reset == TB__ON_RESET__ON_RESET_EXIT) {
			machine_stop(m, MACHINE_END_RESET, text);
		} else if (!machine_can_reset(m, &fault)) {
			machine_stop(m, MACHINE_END_ERROR, fault.text);
		} else {
			machine_rest(m, reboot, m);
		}
		break;
	case VCPU_EVENT_CRASH:
		machine_stop(m, MACHINE_END_CRASH, text);
		break;
	case VCPU_EVENT_ERROR:
		machine_stop(m, MACHINE_END_ERROR, text);
		break;
	}
	loop_lock(&m->loop);
}

static int watch_events(struct machine *m, struct fault *fault)
{
	int rv;

	m->event_watch.ready = event_ready;
	rv = loop_add(&m->loop, &m->event_watch, m->vcpus.event_fd, EPOLLIN);
	return rv < 0 ? fault_set(fault, rv, "cannot watch the vCPUs: %s", strerror(-rv)) : 0;
}

int machine_create(const Tb__VmSpec *spec, struct resources *resources,
		   struct machine_console output, struct machine **ret, struct fault *fault)
{
	struct machine *m = mem_zalloc(sizeof(*m));
	uint64_t memory = (uint64_t)spec->memory_mib << 20;
	int rv;

	m->spec = spec;
	m->resources = resources;
	m->output = output;
	m->vm = m->gic.fd = m->ram.fd = m->vcpus.event_fd = m->ack_fd = -1;
	m->page_size = (size_t)sysconf(_SC_PAGESIZE);
	rv = loop_init(&m->loop);
	if (rv < 0) {
		free(m);
		return fault_set(fault, rv, "cannot make the event loop: %s", strerror(-rv));
	}
	rv = make_vm(m, memory, fault);
	rv = rv < 0 ? rv : make_ram(m, memory, fault);
	rv = rv < 0 ? rv : make_processors(m, fault);
	if (rv == 0) {
		make_board_devices(m);
		rv = make_virtio_devices(m, fault);
	}
	rv = rv < 0 ? rv : connect_slots(m, fault);
	rv = rv < 0 ? rv : watch_events(m, fault);
	if (rv < 0) {
		machine_destroy(m);
		return rv;
	}
	*ret = m;
	return 0;
}

static void chosen_tree(const struct machine *m, const struct image_place *place, struct tree *t)
{
	uint8_t seed[64];
	uint64_t kaslr = rng_u64();

	rng_fill(seed, sizeof(seed));
	tree_open(t, "chosen");
	tree_text(t, "bootargs", m->spec->command_line);
	tree_text(t, "stdout-path", "/pl011@9000000");
	tree_bytes(t, "rng-seed", seed, sizeof(seed));
	tree_u64(t, "kaslr-seed", kaslr);
	if (place->initrd_size > 0) {
		tree_u64(t, "linux,initrd-start", place->initrd);
		tree_u64(t, "linux,initrd-end", place->initrd + place->initrd_size);
	}
	tree_close(t);
	mem_wipe(seed, sizeof(seed));
}

static int tree_write(const struct machine *m, const struct image_place *place)
{
	struct tree t;
	size_t size;
	unsigned i;

	tree_begin(&t, ram_at(&m->ram, place->tree, place->tree_room), place->tree_room);
	tree_text(&t, "compatible", "linux,dummy-virt");
	tree_text(&t, "model", "tiebreak,witness-vm");
	tree_u32(&t, "#address-cells", 2);
	tree_u32(&t, "#size-cells", 2);
	tree_u32(&t, "interrupt-parent", t.phandle_gic);
	chosen_tree(m, place, &t);
	tree_open(&t, "memory@%llx", (unsigned long long)LAYOUT_RAM);
	tree_text(&t, "device_type", "memory");
	tree_reg(&t, LAYOUT_RAM, m->ram.size);
	tree_close(&t);
	vcpus_tree(&m->vcpus, m->gic.version, &t);
	gic_tree(&m->gic, &t);
	pl011_tree(&m->pl011, &t);
	pl031_tree(&m->pl031, &t);
	vmgenid_tree(&t);
	for (i = 0; i < m->slots; i++) {
		mmio_tree(&m->slot[i].mmio, &t);
	}
	return tree_finish(&t, &size);
}

int machine_load_kernel(struct machine *m, struct fault *fault)
{
	struct image_place place;
	int rv =
		image_load(resource_find(m->resources, "kernel"),
			   resource_find(m->resources, "initrd"), &m->ram, &m->turn, &place, fault);

	if (rv < 0) {
		return rv;
	}
	rv = tree_write(m, &place);
	if (rv < 0) {
		return fault_set(fault, rv, "the device tree does not fit; shorten commandLine");
	}
	rv = vcpus_set_entry(&m->vcpus, place.entry, place.tree);
	return rv < 0 ? fault_kvm(fault, rv, "the first instruction's address") : 0;
}

void machine_rest(struct machine *m, void (*rested)(void *arg), void *arg)
{
	assert(m->state != MACHINE_PAUSING);
	vcpus_park(&m->vcpus);
	loop_lock(&m->loop);
	m->state = MACHINE_PAUSING;
	m->rested = rested;
	m->rested_arg = arg;
	rest_look(m);
	loop_unlock(&m->loop);
}

/* What the guest told in the moment of a pause is heard now. */
static void events_listen(struct machine *m)
{
	if (m->event_watch.loop == NULL) {
		(void)loop_add(&m->loop, &m->event_watch, m->vcpus.event_fd, EPOLLIN);
	}
}

/* After a restore: the counter goes on, random numbers begin anew. */
static void guest_restored(struct machine *m)
{
	struct fault ignored = {0};
	uint64_t count;

	/* snapshot_load has seen both calls to work. */
	if (guest_clock_count(&m->clock, m->advance_clock, clock_realtime_ms() * 1000000, &count,
			      &ignored) == 0) {
		(void)vcpus_clock_set(&m->vcpus, &m->clock, count, &ignored);
	}
	(void)kvm_irq_line(m->vm, LAYOUT_SPI_VMGENID, true);
	(void)kvm_irq_line(m->vm, LAYOUT_SPI_VMGENID, false);
}

/* After a restore: interrupts that were under way are no state that anybody saved, so drivers are
 * told once to look at their rings; the network is told where the guest is; connections of its
 * former life are over. */
static void devices_restored(struct machine *m)
{
	uint64_t one = 1;
	unsigned i;

	for (i = 0; i < m->slots; i++) {
		struct virtio *v = m->slot[i].virtio;

		if ((v->status & VIRTIO_STATUS_DRIVER_OK) != 0 &&
		    write(v->irq_fd, &one, sizeof(one)) < 0) {
			continue; /* full is as good as told */
		}
	}
	for (i = 0; i < sizeof(m->net) / sizeof(m->net[0]) && m->net[i] != NULL; i++) {
		net_announce(m->net[i]);
	}
	if (m->vsock != NULL) {
		vsock_reset_event(m->vsock);
	}
	if (m->output.columns != 0) {
		machine_console_resize(m, m->output.columns, m->output.rows);
	}
}

/* With the lock. */
static void guest_resume(struct machine *m)
{
	if (m->restored) {
		guest_restored(m);
	}
	if (m->started_ms == 0) {
		m->started_ms = clock_boottime_ms(); /* restored, and paused until now */
	}
	m->state = MACHINE_RUNNING;
	events_listen(m);
	vcpus_release(&m->vcpus);
}

/* With the lock. Until then kicks are kept. */
static void devices_resume(void *arg)
{
	struct machine *m = arg;
	unsigned i;

	for (i = 0; i < m->slots; i++) {
		virtio_resume(m->slot[i].virtio);
	}
	if (m->restored) {
		devices_restored(m);
	}
	m->restored = false;
}

void machine_start(struct machine *m)
{
	m->started_ms = clock_boottime_ms();
	/* After snapshot_load the devices stand still. */
	m->state = MACHINE_PAUSED;
	if (!m->restored) {
		machine_resume(m);
		return;
	}
	/* The guest first: looking at rings costs a clone more than all the rest of this, and what
	 * the guest itself has touched by then costs nothing. */
	loop_lock(&m->loop);
	guest_resume(m);
	loop_unlock(&m->loop);
	loop_first(&m->loop, devices_resume, m);
}

void machine_resume(struct machine *m)
{
	if (m->state != MACHINE_PAUSED) {
		return;
	}
	loop_lock(&m->loop);
	guest_resume(m);
	devices_resume(m);
	loop_unlock(&m->loop);
}

bool machine_can_reset(const struct machine *m, struct fault *fault)
{
	if (m->spec->restore != NULL) {
		(void)fault_set(
			fault, -ENOTSUP,
			"the guest cannot boot again: a VM made from a snapshot has no kernel "
			"to boot from");
		return false;
	}
	return true;
}

int machine_reset(struct machine *m, struct fault *fault)
{
	const char *text;
	unsigned i;
	int rv;

	assert(m->state == MACHINE_PAUSED);
	(void)vcpus_take_event(&m->vcpus, &text); /* of the life that is over */
	loop_lock(&m->loop);
	for (i = 0; i < m->slots; i++) {
		mmio_reset(&m->slot[i].mmio);
		virtio_resume(m->slot[i].virtio);
	}
	events_listen(m);
	pl011_init(&m->pl011, uart_output, uart_irq, m);
	(void)kvm_irq_line(m->vm, LAYOUT_SPI_PL011, false);
	m->resets++;
	loop_unlock(&m->loop);
	gic_reset(&m->gic);
	rv = ram_clear(&m->ram);
	if (rv < 0) {
		return fault_set(fault, rv, "cannot clear the guest's memory: %s", strerror(-rv));
	}
	rv = vcpus_init(&m->vcpus, false, fault);
	rv = rv < 0 ? rv : machine_load_kernel(m, fault);
	if (rv == 0) {
		machine_start(m);
	}
	return rv;
}

size_t machine_input(struct machine *m, const uint8_t *data, size_t len)
{
	if (m->console != NULL && vconsole_virtio(m->console)->active && !m->uart_spoke) {
		return vconsole_input(m->console, data, len);
	}
	return pl011_input(&m->pl011, data, (unsigned)(len < PL011_FIFO ? len : PL011_FIFO));
}

void machine_console_ready(struct machine *m)
{
	if (m->console != NULL) {
		vconsole_output_ready(m->console);
	}
}

void machine_console_resize(struct machine *m, uint16_t columns, uint16_t rows)
{
	if (m->console != NULL) {
		vconsole_resize(m->console, columns, rows);
	}
}

int machine_press_button(struct machine *m)
{
	if (m->button == NULL) {
		return -ENODEV;
	}
	return vinput_press(m->button);
}

void machine_stop(struct machine *m, enum machine_end end, const char *text)
{
	if (m->end == MACHINE_END_NONE) {
		m->end = end;
		snprintf(m->end_text, sizeof(m->end_text), "%s", text);
	}
	loop_stop(&m->loop);
}

static void pages_unmap(uint8_t *pages, size_t size)
{
	if (pages != NULL) {
		munmap(pages, size);
	}
}

void machine_destroy(struct machine *m)
{
	unsigned i;

	if (m == NULL) {
		return;
	}
	m->state = MACHINE_ENDED;
	loop_remove(&m->event_watch);
	vcpus_close(&m->vcpus);
	vsock_destroy(m->vsock);
	vinput_destroy(m->button);
	balloon_destroy(m->balloon);
	vrng_destroy(m->rng);
	vconsole_destroy(m->console);
	for (i = 0; i < sizeof(m->net) / sizeof(m->net[0]); i++) {
		net_destroy(m->net[i]);
	}
	for (i = 0; i < sizeof(m->blk) / sizeof(m->blk[0]); i++) {
		blk_destroy(m->blk[i]);
	}
	gic_close(&m->gic);
	if (m->vm >= 0) {
		close(m->vm);
	}
	if (m->ack_fd >= 0) {
		close(m->ack_fd);
	}
	pages_unmap(m->registers, m->slots * LAYOUT_VIRTIO_STEP);
	pages_unmap(m->own, m->own_size);
	ram_destroy(&m->ram);
	loop_close(&m->loop);
	free(m);
}

int machine_end_status(enum machine_end end)
{
	switch (end) {
	case MACHINE_END_POWEROFF:
	case MACHINE_END_STOPPED:
		return 0;
	case MACHINE_END_CRASH:
		return 3;
	case MACHINE_END_RESET:
		return 4;
	case MACHINE_END_NONE:
	case MACHINE_END_ERROR:
		break;
	}
	return 1;
}
