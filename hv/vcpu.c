#include "hv/vcpu.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "hv/kvm.h"

enum {
	KICK_SIGNAL = SIGUSR1,
	STACK_SIZE = 128 * 1024,
	PMU_PPI = 7,
	PSTATE_EL1H_MASKED = 0x3c5,
	BUSY_NS = 1000000, /* between two looks at a device that is not done */
};

#define CORE_REG(name)                                                                             \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(name))
#define MPIDR_EL1 ARM64_SYS_REG(3, 0, 0, 0, 5)
#define MPIDR_AFFINITY UINT64_C(0xff00ffffff)

/* Only interrupts KVM_RUN. */
static void kicked(int signal)
{
	(void)signal;
}

static int catch_kicks(void)
{
	struct sigaction action = {.sa_handler = kicked};

	sigemptyset(&action.sa_mask);
	return sigaction(KICK_SIGNAL, &action, NULL) < 0 ? -errno : 0;
}

static int vcpu_open(struct vcpus *v, int vm, unsigned index)
{
	struct vcpu *c = &v->vcpu[index];
	int rv = kvm_vcpu_create(vm, index, &c->fd);

	if (rv < 0) {
		return rv;
	}
	c->run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->run == MAP_FAILED) {
		c->run = NULL;
		return -errno;
	}
	/* A copy of this process (virtio/blk_sync.h) must not keep the VM. */
	(void)madvise(c->run, v->run_size, MADV_DONTFORK);
	return 0;
}

int vcpus_create(int kvm, int vm, unsigned count, bool pmu, const struct bus *bus,
		 struct loop *loop, struct vcpus *ret, struct fault *fault)
{
	int limit = kvm_capability(vm, KVM_CAP_MAX_VCPUS);
	unsigned i;
	int rv;

	if ((int)count > limit) {
		return fault_set(fault, -ERANGE,
				 "%u vCPUs are more than this host's KVM allows (%d)", count,
				 limit);
	}
	*ret = (struct vcpus){
		.count = count, .bus = bus, .loop = loop, .event_fd = -1, .park = true};
	pthread_mutex_init(&ret->gate_lock, NULL);
	pthread_cond_init(&ret->gate_changed, NULL);
	for (i = 0; i < count; i++) {
		ret->vcpu[i] = (struct vcpu){.index = i, .fd = -1, .all = ret};
	}
	ret->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rv = ret->event_fd < 0 ? -errno : catch_kicks();
	if (rv == 0) {
		rv = kvm_vcpu_map_size(kvm);
		ret->run_size = (size_t)rv;
	}
	if (rv >= 0) {
		rv = kvm_vcpu_target(vm, &ret->init);
	}
	for (i = 0; rv >= 0 && i < count; i++) {
		rv = vcpu_open(ret, vm, i);
	}
	if (rv < 0) {
		vcpus_close(ret);
		return fault_set(fault, rv, "cannot make the vCPUs: %s", strerror(-rv));
	}
	ret->init.features[0] |= 1U << KVM_ARM_VCPU_PSCI_0_2;
	if (pmu && kvm_capability(vm, KVM_CAP_ARM_PMU_V3) > 0) {
		ret->init.features[0] |= 1U << KVM_ARM_VCPU_PMU_V3;
	}
	return 0;
}

int vcpus_init(struct vcpus *v, bool restoring, struct fault *fault)
{
	unsigned i;

	for (i = 0; i < v->count; i++) {
		struct kvm_vcpu_init init = v->init;
		int rv;

		if (i > 0 && !restoring) {
			init.features[0] |= 1U << KVM_ARM_VCPU_POWER_OFF;
		}
		rv = kvm_vcpu_init(v->vcpu[i].fd, &init);
		if (rv < 0) {
			return fault_set(fault, rv, "cannot initialise vCPU %u: %s", i,
					 strerror(-rv));
		}
	}
	return 0;
}

static bool has_pmu(const struct vcpus *v)
{
	return (v->init.features[0] & 1U << KVM_ARM_VCPU_PMU_V3) != 0;
}

bool vcpus_have_stolen_time(const struct vcpus *v)
{
	return kvm_attr_has(v->vcpu[0].fd, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA) == 0;
}

int vcpus_attach(struct vcpus *v, uint64_t stolen, struct fault *fault)
{
	uint32_t interrupt = 16 + PMU_PPI;
	unsigned i;

	for (i = 0; i < v->count; i++) {
		int fd = v->vcpu[i].fd;
		uint64_t at = stolen + 64 * i;
		int rv = 0;

		if (has_pmu(v)) {
			rv = kvm_attr_set(fd, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_IRQ,
					  &interrupt);
			rv = rv < 0 ? rv
				    : kvm_attr_set(fd, KVM_ARM_VCPU_PMU_V3_CTRL,
						   KVM_ARM_VCPU_PMU_V3_INIT, NULL);
		}
		if (rv == 0 && stolen != 0) {
			rv = kvm_attr_set(fd, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA,
					  &at);
		}
		if (rv < 0) {
			return fault_set(fault, rv, "cannot give vCPU %u its counters: %s", i,
					 strerror(-rv));
		}
	}
	return 0;
}

int vcpus_set_entry(struct vcpus *v, uint64_t pc, uint64_t x0)
{
	const uint64_t pstate = PSTATE_EL1H_MASKED;
	int fd = v->vcpu[0].fd;
	int rv = kvm_reg_set(fd, CORE_REG(regs.pstate), &pstate);

	rv = rv < 0 ? rv : kvm_reg_set(fd, CORE_REG(regs.pc), &pc);
	return rv < 0 ? rv : kvm_reg_set(fd, CORE_REG(regs.regs[0]), &x0);
}

/* Told once until taken; the vCPU then waits at the gate. */
static void tell(struct vcpus *v, enum vcpu_event event, const char *text)
{
	uint64_t one = 1;

	pthread_mutex_lock(&v->gate_lock);
	if (v->event == VCPU_EVENT_NONE) {
		v->event = event;
		snprintf(v->event_text, sizeof(v->event_text), "%s", text);
		if (write(v->event_fd, &one, sizeof(one)) < 0) {
			assert(errno == EAGAIN); /* told already */
		}
	}
	pthread_mutex_unlock(&v->gate_lock);
}

enum vcpu_event vcpus_take_event(struct vcpus *v, const char **text)
{
	enum vcpu_event event;
	uint64_t count;

	pthread_mutex_lock(&v->gate_lock);
	if (read(v->event_fd, &count, sizeof(count)) < 0) {
		assert(errno == EAGAIN);
	}
	event = v->event;
	v->event = VCPU_EVENT_NONE;
	*text = v->event_text;
	pthread_mutex_unlock(&v->gate_lock);
	return event;
}

static uint64_t program_counter(const struct vcpu *c)
{
	uint64_t pc = 0;

	(void)kvm_reg_get(c->fd, CORE_REG(regs.pc), &pc);
	return pc;
}

static void access_registers(struct vcpu *c)
{
	struct kvm_run *run = c->run;
	uint64_t value = 0;
	unsigned len = run->mmio.len;
	const struct bus_slot *slot;

	c->counters.mmio++;
	if (len > sizeof(value)) {
		return;
	}
	slot = bus_find(c->all->bus, run->mmio.phys_addr, len);
	if (slot == NULL) {
		c->counters.unclaimed++;
	} else {
		uint64_t offset = run->mmio.phys_addr - slot->base;

		loop_lock(c->all->loop);
		if (run->mmio.is_write) {
			memcpy(&value, run->mmio.data, len);
			slot->device.write(slot->device.device, offset, value, len);
			if (slot->device.busy != NULL && slot->device.busy(slot->device.device)) {
				c->busy = &slot->device;
			}
		} else {
			value = slot->device.read(slot->device.device, offset, len);
		}
		loop_unlock(c->all->loop);
	}
	if (!run->mmio.is_write) {
		memcpy(run->mmio.data, &value, len);
	}
}

static void system_event(struct vcpu *c)
{
	char text[128];

	c->counters.system++;
	switch (c->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		tell(c->all, VCPU_EVENT_POWEROFF, "the guest powered off");
		break;
	case KVM_SYSTEM_EVENT_RESET:
		tell(c->all, VCPU_EVENT_RESET, "the guest reboots");
		break;
	default:
		snprintf(text, sizeof(text), "the guest crashed (system event %u)",
			 c->run->system_event.type);
		tell(c->all, VCPU_EVENT_CRASH, text);
		break;
	}
}

/* False: something was told, the vCPU must not run until it was dealt with. */
static bool exit_handle(struct vcpu *c)
{
	char text[128];

	switch (c->run->exit_reason) {
	case KVM_EXIT_MMIO:
		access_registers(c);
		return true;
	case KVM_EXIT_INTR:
		return true;
	case KVM_EXIT_SYSTEM_EVENT:
		system_event(c);
		return false;
	case KVM_EXIT_ARM_NISV:
		snprintf(text, sizeof(text),
			 "the guest used an instruction that cannot be emulated on a device "
			 "register, pc 0x%llx",
			 (unsigned long long)program_counter(c));
		tell(c->all, VCPU_EVENT_CRASH, text);
		return false;
	default:
		snprintf(text, sizeof(text), "KVM gave up on vCPU %u: exit reason %u, pc 0x%llx",
			 c->index, c->run->exit_reason, (unsigned long long)program_counter(c));
		tell(c->all, VCPU_EVENT_ERROR, text);
		return false;
	}
}

static void work(struct vcpus *v)
{
	void (*todo)(void *arg) = v->work;

	v->work = NULL;
	pthread_mutex_unlock(&v->gate_lock);
	todo(v->work_arg);
	pthread_mutex_lock(&v->gate_lock);
}

/* Waits while the gate is closed. False: the thread ends. */
static bool gate_pass(struct vcpus *v)
{
	bool go;

	pthread_mutex_lock(&v->gate_lock);
	v->parked++;
	pthread_cond_broadcast(&v->gate_changed);
	while (v->park && !v->ending) {
		if (v->work != NULL) {
			work(v);
		} else {
			pthread_cond_wait(&v->gate_changed, &v->gate_lock);
		}
	}
	v->parked--;
	go = !v->ending;
	pthread_mutex_unlock(&v->gate_lock);
	return go;
}

/* Waits until the gate is closed: the loop does so when it hears what was told. */
static void gate_await(struct vcpus *v)
{
	pthread_mutex_lock(&v->gate_lock);
	while (!v->park && !v->ending) {
		pthread_cond_wait(&v->gate_changed, &v->gate_lock);
	}
	pthread_mutex_unlock(&v->gate_lock);
}

/* Until the device that was written to is done, or the gate closes: then KVM_RUN ends at once, and
 * the waiting goes on after the release. */
static void busy_await(struct vcpu *c)
{
	static const struct timespec pause = {.tv_nsec = BUSY_NS};

	while (c->busy != NULL) {
		bool busy;

		loop_lock(c->all->loop);
		busy = c->busy->busy(c->busy->device);
		loop_unlock(c->all->loop);
		if (!busy) {
			c->busy = NULL;
		} else if (__atomic_load_n(&c->run->immediate_exit, __ATOMIC_ACQUIRE) != 0) {
			return;
		} else {
			(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		}
	}
}

/* Runs until kicked: true. False: something was told. immediate_exit stays set until the release,
 * so that the beginning of the next KVM_RUN completes a trapped access and ends at once. */
static bool run(struct vcpu *c)
{
	char text[128];
	int rv;

	for (;;) {
		busy_await(c);
		rv = kvm_vcpu_run(c->fd);
		if (rv == -EINTR) {
			c->counters.kicks++;
			return true;
		}
		if (rv == 0 && !exit_handle(c)) {
			return false;
		}
		if (rv < 0 && rv != -EAGAIN) {
			snprintf(text, sizeof(text), "KVM cannot run vCPU %u: %s, pc 0x%llx",
				 c->index, strerror(-rv), (unsigned long long)program_counter(c));
			tell(c->all, VCPU_EVENT_ERROR, text);
			return false;
		}
	}
}

static void *vcpu_main(void *arg)
{
	struct vcpu *c = arg;

	c->task = gettid();
	while (gate_pass(c->all)) {
		if (!run(c)) {
			gate_await(c->all);
		}
	}
	return NULL;
}

int vcpus_start(struct vcpus *v, struct fault *fault)
{
	pthread_attr_t attr;
	unsigned i;
	int rv = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	for (i = 0; i < v->count && rv == 0; i++) {
		rv = pthread_create(&v->vcpu[i].thread, &attr, vcpu_main, &v->vcpu[i]);
		v->threads += rv == 0;
	}
	pthread_attr_destroy(&attr);
	if (rv != 0) {
		return fault_set(fault, -rv, "cannot make a thread for each vCPU: %s",
				 strerror(rv));
	}
	pthread_mutex_lock(&v->gate_lock);
	while (v->parked < v->threads) {
		pthread_cond_wait(&v->gate_changed, &v->gate_lock);
	}
	pthread_mutex_unlock(&v->gate_lock);
	return 0;
}

/* Gate closed, everybody on the way to it. */
static void kick_all(struct vcpus *v)
{
	unsigned i;

	for (i = 0; i < v->threads; i++) {
		__atomic_store_n(&v->vcpu[i].run->immediate_exit, 1, __ATOMIC_RELEASE);
		pthread_kill(v->vcpu[i].thread, KICK_SIGNAL);
	}
}

void vcpus_park(struct vcpus *v)
{
	pthread_mutex_lock(&v->gate_lock);
	v->park = true;
	pthread_cond_broadcast(&v->gate_changed);
	kick_all(v);
	while (v->parked < v->threads) {
		pthread_cond_wait(&v->gate_changed, &v->gate_lock);
	}
	pthread_mutex_unlock(&v->gate_lock);
}

void vcpus_release(struct vcpus *v)
{
	unsigned i;

	pthread_mutex_lock(&v->gate_lock);
	for (i = 0; i < v->count; i++) {
		__atomic_store_n(&v->vcpu[i].run->immediate_exit, 0, __ATOMIC_RELEASE);
	}
	v->park = false;
	pthread_cond_broadcast(&v->gate_changed);
	pthread_mutex_unlock(&v->gate_lock);
}

void vcpus_work(struct vcpus *v, void (*todo)(void *arg), void *arg)
{
	pthread_mutex_lock(&v->gate_lock);
	assert(v->park && v->parked == v->threads && v->threads > 0 && v->work == NULL);
	v->work = todo;
	v->work_arg = arg;
	pthread_cond_broadcast(&v->gate_changed);
	pthread_mutex_unlock(&v->gate_lock);
}

static void threads_end(struct vcpus *v)
{
	unsigned i;

	pthread_mutex_lock(&v->gate_lock);
	v->ending = true;
	v->park = true;
	pthread_cond_broadcast(&v->gate_changed);
	kick_all(v);
	pthread_mutex_unlock(&v->gate_lock);
	for (i = 0; i < v->threads; i++) {
		pthread_join(v->vcpu[i].thread, NULL);
	}
	v->threads = 0;
}

void vcpus_close(struct vcpus *v)
{
	unsigned i;

	threads_end(v);
	for (i = 0; i < v->count; i++) {
		if (v->vcpu[i].run != NULL) {
			munmap(v->vcpu[i].run, v->run_size);
		}
		if (v->vcpu[i].fd >= 0) {
			close(v->vcpu[i].fd);
		}
	}
	if (v->event_fd >= 0) {
		close(v->event_fd);
	}
	pthread_cond_destroy(&v->gate_changed);
	pthread_mutex_destroy(&v->gate_lock);
	*v = (struct vcpus){.event_fd = -1};
}

static void cpus_tree(const struct vcpus *v, struct tree *t)
{
	unsigned i;

	tree_open(t, "cpus");
	tree_u32(t, "#address-cells", 1);
	tree_u32(t, "#size-cells", 0);
	for (i = 0; i < v->count; i++) {
		uint64_t mpidr = i;

		(void)kvm_reg_get(v->vcpu[i].fd, MPIDR_EL1, &mpidr);
		mpidr &= MPIDR_AFFINITY;
		tree_open(t, "cpu@%llx", (unsigned long long)mpidr);
		tree_text(t, "device_type", "cpu");
		tree_text(t, "compatible", "arm,armv8");
		tree_u32(t, "reg", (uint32_t)mpidr);
		tree_text(t, "enable-method", "psci");
		tree_close(t);
	}
	tree_close(t);
}

void vcpus_tree(const struct vcpus *v, unsigned gic_version, struct tree *t)
{
	/* PPIs of the generic timer: secure, non-secure, virtual, hypervisor. GICv2 wants the mask
	 * of the processors in the third cell. */
	static const uint32_t timers[] = {13, 14, 11, 10};
	uint32_t flags = TREE_LEVEL | (gic_version == 2 ? ((1U << v->count) - 1) << 8 : 0);
	uint32_t cells[12];
	unsigned i;

	cpus_tree(v, t);
	tree_open(t, "psci");
	tree_bytes(t, "compatible", "arm,psci-1.0\0arm,psci-0.2",
		   sizeof("arm,psci-1.0\0arm,psci-0.2"));
	tree_text(t, "method", "hvc");
	tree_close(t);
	tree_open(t, "timer");
	tree_text(t, "compatible", "arm,armv8-timer");
	tree_empty(t, "always-on");
	for (i = 0; i < 4; i++) {
		cells[3 * i] = 1;
		cells[3 * i + 1] = timers[i];
		cells[3 * i + 2] = flags;
	}
	tree_cells(t, "interrupts", cells, 12);
	tree_close(t);
	if (has_pmu(v)) {
		const uint32_t pmu[] = {1, PMU_PPI, flags};

		tree_open(t, "pmu");
		tree_text(t, "compatible", "arm,armv8-pmuv3");
		tree_cells(t, "interrupts", pmu, 3);
		tree_close(t);
	}
}
