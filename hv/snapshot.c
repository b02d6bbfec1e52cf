#include "hv/snapshot.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/class.h"
#include "hv/device_state.h"
#include "hv/disk_mark.h"
#include "hv/gic_state.h"
#include "hv/guest_clock.h"
#include "hv/host_class.h"
#include "hv/kvm.h"
#include "hv/memory_file.h"
#include "hv/state_file.h"
#include "hv/vcpu_state.h"
#include "hv/vmgenid.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "lib/rng.h"

enum { STOLEN_SIZE = 64 };

static ProtobufCBinaryData bytes_copy(const void *data, size_t len)
{
	return (ProtobufCBinaryData){.len = len, .data = mem_dup(data, len)};
}

static bool has_pmu(const struct machine *m)
{
	return (m->vcpus.init.features[0] & 1U << KVM_ARM_VCPU_PMU_V3) != 0;
}

/* --- saving ----------------------------------------------------------------------------------- */

static void hardware_save(const struct machine *m, Tb__VmSnapshot *s)
{
	s->hardware = mem_alloc(sizeof(*s->hardware));
	tb__vm_hardware__init(s->hardware);
	s->hardware->vcpus = m->vcpus.count;
	s->hardware->memory_bytes = m->ram.size;
	s->hardware->gic = (Tb__GicVersion)m->gic.version;
	s->hardware->pmu = has_pmu(m);
}

/* After the vCPUs, whose list of registers it goes by. */
static int class_save(const struct machine *m, Tb__VmSnapshot *s, struct fault *fault)
{
	struct host_class *class = mem_alloc(sizeof(*class));
	int rv = host_class_read(m->vm, m->vcpus.vcpu[0].fd, &m->gic, s->vcpus[0]->register_ids,
				 s->vcpus[0]->n_register_ids, class);

	if (rv == 0) {
		s->host_class = mem_alloc(sizeof(*s->host_class));
		class_pack(class, s->host_class);
	}
	free(class);
	return rv < 0 ? fault_set(fault, rv, "cannot read the host's class: %s", strerror(-rv)) : 0;
}

/* A guest that was restored and has not run yet is as old as its snapshot. */
static int clock_save(const struct machine *m, Tb__VmSnapshot *s, struct fault *fault)
{
	struct guest_clock clock = m->clock;
	int rv = m->restored ? 0 : vcpus_clock_read(&m->vcpus, &clock, fault);

	s->clock = mem_alloc(sizeof(*s->clock));
	tb__vm_clock__init(s->clock);
	s->clock->counter = clock.counter;
	s->clock->frequency = clock.frequency;
	s->clock->realtime_ns = clock.realtime_ns;
	s->clock->has_physical = clock.has_physical;
	s->clock->physical = clock.physical;
	return rv;
}

static int vcpus_save(const struct machine *m, Tb__VmSnapshot *s, struct fault *fault)
{
	unsigned i;
	int rv = 0;

	s->vcpus = mem_array(m->vcpus.count, sizeof(s->vcpus[0]));
	for (i = 0; i < m->vcpus.count && rv == 0; i++) {
		s->vcpus[i] = mem_alloc(sizeof(*s->vcpus[i]));
		tb__vcpu_state__init(s->vcpus[i]);
		s->n_vcpus++;
		rv = vcpu_state_save(&m->vcpus.vcpu[i], s->vcpus[i], fault);
	}
	return rv;
}

static int interrupts_save(const struct machine *m, Tb__VmSnapshot *s, struct fault *fault)
{
	s->gic = mem_alloc(sizeof(*s->gic));
	tb__vm_gic_state__init(s->gic);
	return gic_state_save(&m->gic, &m->vcpus, s->gic, fault);
}

static void board_devices_save(const struct machine *m, Tb__VmSnapshot *s)
{
	const struct pl011 *p = &m->pl011;
	Tb__Pl011State *uart = s->uart = mem_alloc(sizeof(*uart));
	unsigned i;

	tb__pl011_state__init(uart);
	uart->cr = p->cr;
	uart->lcr = p->lcr;
	uart->ibrd = p->ibrd;
	uart->fbrd = p->fbrd;
	uart->ifls = p->ifls;
	uart->imsc = p->imsc;
	uart->ris = p->ris;
	uart->fifo = (ProtobufCBinaryData){.len = p->count, .data = mem_alloc(p->count)};
	for (i = 0; i < p->count; i++) {
		uart->fifo.data[i] = p->fifo[(p->head + i) % PL011_FIFO];
	}
	s->rtc = mem_alloc(sizeof(*s->rtc));
	tb__pl031_state__init(s->rtc);
	s->rtc->offset_s = m->pl031.offset_s;
	s->rtc->match = m->pl031.match;
	s->rtc->mask = m->pl031.mask;
}

static void devices_save(struct machine *m, Tb__VmSnapshot *s)
{
	s->devices = mem_array(m->slots, sizeof(s->devices[0]));
	loop_lock(&m->loop);
	for (s->n_devices = 0; s->n_devices < m->slots; s->n_devices++) {
		s->devices[s->n_devices] = device_state_save(&m->slot[s->n_devices].mmio);
	}
	loop_unlock(&m->loop);
}

/* All but the memory. The clock comes first, so that it is the moment of the pause. */
static int record_save(struct machine *m, Tb__VmSnapshot *s, struct fault *fault)
{
	uint8_t memory_id[MEMORY_FILE_ID];
	int rv = clock_save(m, s, fault);

	rng_fill(memory_id, sizeof(memory_id));
	s->program = mem_strdup("witness-vm " TIEBREAK_VERSION);
	s->memory_id = bytes_copy(memory_id, sizeof(memory_id));
	s->generation_id = bytes_copy(m->vmgenid, VMGENID_SIZE);
	if (m->stolen != NULL) {
		s->stolen_time = bytes_copy(m->stolen, (size_t)STOLEN_SIZE * m->vcpus.count);
	}
	hardware_save(m, s);
	board_devices_save(m, s);
	devices_save(m, s);
	rv = rv < 0 ? rv : vcpus_save(m, s, fault);
	rv = rv < 0 ? rv : class_save(m, s, fault);
	return rv < 0 ? rv : interrupts_save(m, s, fault);
}

static bool is_same_file(int a, int b)
{
	struct stat sa, sb;

	return a >= 0 && b >= 0 && fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
	       sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static int files_check(const struct machine *m, int state_fd, int memory_fd, struct fault *fault)
{
	if (is_same_file(state_fd, memory_fd)) {
		return fault_set(fault, -EINVAL, "state and memory cannot be one file");
	}
	if (m->ram.backing == RAM_SHARED_FILE) {
		int mapped = resource_find(m->resources, "memory");

		if (is_same_file(memory_fd, mapped) || is_same_file(state_fd, mapped)) {
			return fault_set(
				fault, -EINVAL,
				"the VM runs on this memory file: save it into another one");
		}
	}
	return 0;
}

int snapshot_save(struct machine *m, int state_fd, int memory_fd, struct fault *fault)
{
	Tb__VmSnapshot *s;
	int rv = files_check(m, state_fd, memory_fd, fault);

	if (rv < 0) {
		return rv;
	}
	assert(m->state == MACHINE_PAUSED);
	/* KVM has switched its vCPUs off: a copy of it would never run. */
	if (m->vcpus.event != VCPU_EVENT_NONE) {
		return fault_set(fault, -EBUSY,
				 "the guest is just rebooting or powering off; try again");
	}
	s = mem_alloc(sizeof(*s));
	tb__vm_snapshot__init(s);
	rv = record_save(m, s, fault);
	/* The state file last: where it is whole, so is the other. */
	rv = rv < 0 ? rv : memory_file_write(memory_fd, &m->ram, s->memory_id.data, fault);
	rv = rv < 0 ? rv : disk_marks_take(m->spec, m->resources, s, fault);
	rv = rv < 0 ? rv : state_file_write(state_fd, s, fault);
	tb__vm_snapshot__free_unpacked(s, NULL);
	return rv;
}

/* --- does the file fit this machine? ---------------------------------------------------------- */

static int hardware_check(const struct machine *m, const Tb__VmSnapshot *s, struct fault *fault)
{
	const Tb__VmHardware *h = s->hardware;

	if (h->vcpus != m->vcpus.count) {
		return fault_set(fault, -EXDEV, "the snapshot has %u vCPUs, this VM has %u",
				 h->vcpus, m->vcpus.count);
	}
	if (h->memory_bytes != m->ram.size) {
		return fault_set(fault, -EXDEV,
				 "the snapshot has %llu MiB of memory, this VM has %llu MiB",
				 (unsigned long long)(h->memory_bytes >> 20),
				 (unsigned long long)(m->ram.size >> 20));
	}
	if ((unsigned)h->gic != m->gic.version) {
		return fault_set(fault, -EXDEV, "the snapshot has a GICv%u, this VM has a GICv%u",
				 (unsigned)h->gic, m->gic.version);
	}
	if ((h->pmu != 0) != has_pmu(m)) {
		return fault_set(fault, -EXDEV,
				 "the snapshot has %s performance counters, this VM has %s (noPmu)",
				 h->pmu ? "got" : "no", has_pmu(m) ? "some" : "none");
	}
	if ((s->stolen_time.len != 0) != (m->stolen != NULL)) {
		return fault_set(
			fault, -EXDEV, "the snapshot has %s stolen time, this host's kernel has %s",
			s->stolen_time.len != 0 ? "got" : "no", m->stolen != NULL ? "it" : "none");
	}
	return 0;
}

static int devices_check(const struct machine *m, const Tb__VmSnapshot *s, struct fault *fault)
{
	unsigned i;
	int rv = 0;

	for (i = 0; i < m->slots && i < s->n_devices && rv == 0; i++) {
		rv = device_state_check(s->devices[i], m->slot[i].virtio, i, fault);
	}
	if (rv == 0 && m->slots != s->n_devices) {
		rv = fault_set(fault, -EXDEV,
			       "the snapshot has %zu virtio devices, this VM has %u: %s is one too "
			       "many",
			       s->n_devices, m->slots,
			       m->slots > s->n_devices ? m->slot[s->n_devices].virtio->name
						       : s->devices[m->slots]->name);
	}
	return rv;
}

static int class_check(const struct machine *m, const struct host_class *saved, const uint64_t *ids,
		       size_t count, struct fault *fault)
{
	struct host_class *here = mem_alloc(sizeof(*here));
	char text[360] = "";
	int rv = host_class_read(m->vm, m->vcpus.vcpu[0].fd, &m->gic, ids, count, here);

	if (rv < 0) {
		fault_set(fault, rv, "cannot read the host's class: %s", strerror(-rv));
	} else if (class_difference(saved, here, text, sizeof(text)) > 0) {
		rv = fault_set(fault, -EXDEV,
			       "the snapshot is of another compatibility class than this host: %s",
			       text);
	}
	free(here);
	return rv;
}

/* What of the host the guest knows: the class, and which registers there are. */
static int host_check(const struct machine *m, const Tb__VmSnapshot *s,
		      const struct host_class *class, struct fault *fault)
{
	uint64_t *ids;
	size_t count;
	unsigned i;
	int rv = kvm_reg_list(m->vcpus.vcpu[0].fd, &ids, &count);

	if (rv < 0) {
		return fault_set(fault, rv, "cannot list the registers of vCPU 0: %s",
				 strerror(-rv));
	}
	rv = class_check(m, class, ids, count, fault);
	for (i = 0; i < m->vcpus.count && rv == 0; i++) {
		rv = vcpu_state_check(s->vcpus[i], ids, count, fault);
	}
	free(ids);
	return rv;
}

/* --- loading ---------------------------------------------------------------------------------- */

static int memory_load(struct machine *m, const Tb__VmSnapshot *s, int fd, struct fault *fault)
{
	int rv = memory_file_check(fd, m->ram.size, s->memory_id.data, fault);

	if (rv < 0 || m->ram.backing == RAM_SHARED_FILE) {
		return rv;
	}
	return memory_file_read(fd, &m->ram, &m->turn, fault);
}

static int vcpus_load(const struct machine *m, const Tb__VmSnapshot *s,
		      const struct host_class *class, struct fault *fault)
{
	unsigned i;
	int rv = 0;

	for (i = 0; i < m->vcpus.count && rv == 0; i++) {
		rv = vcpu_state_load(&m->vcpus.vcpu[i], s->vcpus[i], class, fault);
	}
	return rv;
}

static void board_devices_load(struct machine *m, const Tb__VmSnapshot *s)
{
	struct pl011 *p = &m->pl011;

	p->cr = s->uart->cr;
	p->lcr = s->uart->lcr;
	p->ibrd = s->uart->ibrd;
	p->fbrd = s->uart->fbrd;
	p->ifls = s->uart->ifls;
	p->imsc = s->uart->imsc;
	p->ris = s->uart->ris;
	p->head = 0;
	p->count = (unsigned)s->uart->fifo.len;
	if (p->count > 0) {
		memcpy(p->fifo, s->uart->fifo.data, p->count);
	}
	/* A raised level is no state of the interrupt controller: it is said again. */
	p->level = (p->ris & p->imsc) != 0;
	p->irq(p->arg, p->level);
	m->pl031.offset_s = s->rtc->offset_s;
	m->pl031.match = s->rtc->match;
	m->pl031.mask = s->rtc->mask & 1;
	if (m->stolen != NULL) {
		memcpy(m->stolen, s->stolen_time.data, s->stolen_time.len);
	}
}

/* Stays paused: the queues are looked at when the machine runs. */
static int devices_load(struct machine *m, const Tb__VmSnapshot *s, struct fault *fault)
{
	unsigned i;
	int rv = 0;

	loop_lock(&m->loop);
	for (i = 0; i < m->slots && rv == 0; i++) {
		rv = device_state_load(s->devices[i], &m->slot[i].mmio, fault);
	}
	loop_unlock(&m->loop);
	return rv;
}

/* Set now, to see that KVM takes it, and once more when the guest runs (machine_resume). */
static int clock_load(struct machine *m, const Tb__VmSnapshot *s, struct fault *fault)
{
	uint64_t count;
	int rv;

	m->clock = (struct guest_clock){
		.counter = s->clock->counter,
		.frequency = s->clock->frequency,
		.realtime_ns = s->clock->realtime_ns,
		.has_physical = s->clock->has_physical,
		.physical = s->clock->physical,
	};
	m->advance_clock = m->spec->restore != NULL && m->spec->restore->advance_clock;
	rv = guest_clock_count(&m->clock, m->advance_clock, clock_realtime_ms() * 1000000, &count,
			       fault);
	return rv < 0 ? rv : vcpus_clock_set(&m->vcpus, &m->clock, count, fault);
}

static int machine_check(const struct machine *m, const Tb__VmSnapshot *s,
			 const struct host_class *class, struct fault *fault)
{
	int rv = hardware_check(m, s, fault);

	rv = rv < 0 ? rv : devices_check(m, s, fault);
	rv = rv < 0 ? rv : disk_marks_check(m->spec, m->resources, s, fault);
	/* machine_create chose the id. */
	rv = rv < 0 ? rv : vmgenid_check(m->vmgenid, s->generation_id.data, fault);
	return rv < 0 ? rv : host_check(m, s, class, fault);
}

static int record_load(struct machine *m, const Tb__VmSnapshot *s, int memory_fd,
		       struct fault *fault)
{
	struct host_class *class = mem_alloc(sizeof(*class));
	int rv = class_unpack(s->host_class, class) ? machine_check(m, s, class, fault) : -EBADMSG;

	rv = rv < 0 ? rv : memory_load(m, s, memory_fd, fault);
	rv = rv < 0 ? rv : vcpus_load(m, s, class, fault);
	free(class);
	rv = rv < 0 ? rv : gic_state_load(&m->gic, &m->vcpus, s->gic, fault);
	if (rv < 0) {
		return rv;
	}
	board_devices_load(m, s);
	rv = devices_load(m, s, fault);
	return rv < 0 ? rv : clock_load(m, s, fault);
}

int snapshot_load(struct machine *m, int state_fd, int memory_fd, struct fault *fault)
{
	Tb__VmSnapshot *s;
	int rv = state_file_read(state_fd, &s, fault);

	if (rv < 0) {
		return rv;
	}
	rv = record_load(m, s, memory_fd, fault);
	if (rv == 0) {
		m->state = MACHINE_PAUSED;
		m->restored = true;
	}
	tb__vm_snapshot__free_unpacked(s, NULL);
	return rv;
}
