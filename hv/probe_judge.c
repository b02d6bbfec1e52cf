#include "hv/probe_judge.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board/ability.h"
#include "lib/mem.h"

enum { KVM_VERSION = 12, PAGE = 4096, IPA_ENOUGH = 36 };

#define OBSTACLE TB__PROBE_LEVEL__PROBE_LEVEL_OBSTACLE
#define WARNING TB__PROBE_LEVEL__PROBE_LEVEL_WARNING
#define NOTE TB__PROBE_LEVEL__PROBE_LEVEL_NOTE

static void find(Tb__HostProbe *p, Tb__ProbeLevel level, const char *subject, const char *format,
		 ...) __attribute__((format(printf, 4, 5)));

static void find(Tb__HostProbe *p, Tb__ProbeLevel level, const char *subject, const char *format,
		 ...)
{
	Tb__ProbeFinding *f = mem_alloc(sizeof(*f));
	char text[512];
	va_list args;
	size_t at = p->n_findings;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	tb__probe_finding__init(f);
	f->level = level;
	f->subject = mem_strdup(subject);
	f->text = mem_strdup(text);
	p->findings = mem_realloc(p->findings, (at + 1) * sizeof(p->findings[0]));
	/* Worst first. */
	for (; at > 0 && p->findings[at - 1]->level < level; at--) {
		p->findings[at] = p->findings[at - 1];
	}
	p->findings[at] = f;
	p->n_findings++;
}

/* --- obstacles -------------------------------------------------------------------------------- */

static void judge_kvm(Tb__HostProbe *p, const struct probe_kvm *kvm)
{
	switch (kvm->open_error) {
	case 0:
		break;
	case ENOENT:
		find(p, OBSTACLE, "kvm", "%s", ability_no_kvm());
		return;
	case EACCES:
	case EPERM:
		find(p, OBSTACLE, "kvm",
		     "this user may not open /dev/kvm: add it to the group kvm (usermod -aG kvm "
		     "USER) and log in anew");
		return;
	default:
		find(p, OBSTACLE, "kvm", "/dev/kvm cannot be opened: %s",
		     strerror(kvm->open_error));
		return;
	}
	if (kvm->version != KVM_VERSION) {
		find(p, OBSTACLE, "kvm", "/dev/kvm speaks API version %d, %d is needed",
		     kvm->version, KVM_VERSION);
	} else if (kvm->vm_error != 0) {
		find(p, OBSTACLE, "kvm", "KVM does not make a virtual machine: %s",
		     strerror(kvm->vm_error));
	}
}

/* Why KVM makes no virtual GIC, as far as the device tree tells. */
static void judge_no_gic(Tb__HostProbe *p, const struct board_tree *t, const struct probe_kvm *kvm)
{
	char why[320];

	if (ability_tree_obstacle(t, why, sizeof(why))) {
		find(p, OBSTACLE, "gic", "%s", why);
	} else {
		find(p, OBSTACLE, "gic",
		     "KVM makes no virtual interrupt controller (GICv2: %s; GICv3: %s), though "
		     "the device tree names no reason: look for vgic in the kernel's log",
		     strerror(kvm->gicv2_error), strerror(kvm->gicv3_error));
	}
}

/* --- what works, but less well than it could -------------------------------------------------- */

static void judge_pages(Tb__HostProbe *p, const struct probe_board *board,
			const struct probe_kvm *kvm)
{
	const struct board_tree *t = &board->tree;
	uint64_t page = kvm->page_size;

	if (page <= PAGE) {
		return;
	}
	if (t->gicv_size > 0 && (t->gicv_base % page != 0 || t->gicv_size % page != 0)) {
		find(p, WARNING, "pages",
		     "pages of this kernel are %u KiB, and the GIC's virtual interface is not "
		     "aligned to them: every interrupt that a guest takes traps. Use a kernel "
		     "with 4 KiB pages (Raspberry Pi 5: kernel=kernel8.img in config.txt)",
		     kvm->page_size / 1024);
	} else {
		find(p, NOTE, "pages",
		     "pages of this kernel are %u KiB: a VM takes a little more memory, and its "
		     "snapshots only go to hosts with such pages",
		     kvm->page_size / 1024);
	}
}

static void judge_memory(Tb__HostProbe *p, const struct probe_board *b)
{
	if (b->huge_anonymous[0] == '\0' || strcmp(b->huge_anonymous, "never") == 0) {
		find(p, WARNING, "huge-pages",
		     "this kernel gives no huge pages: guests boot a quarter slower. Write "
		     "madvise to /sys/kernel/mm/transparent_hugepage/enabled");
	}
	if (b->huge_memfd[0] == '\0' || strcmp(b->huge_memfd, "never") == 0 ||
	    strcmp(b->huge_memfd, "deny") == 0) {
		find(p, NOTE, "huge-pages",
		     "no huge pages for shared memory: guests get anonymous memory instead "
		     "(advise in /sys/kernel/mm/transparent_hugepage/shmem_enabled changes it)");
	}
	if (b->cgroup_memory) {
		return;
	}
	find(p, WARNING, "cgroup",
	     b->cgroup_memory_disabled
		     ? "the kernel's command line has cgroup_disable=memory: a VM's memory cannot "
		       "be limited. Add cgroup_enable=memory (Raspberry Pi: cmdline.txt)"
	     : b->cgroup2 ? "cgroup v2 has no memory controller here: a VM's memory cannot be "
			    "limited. Add cgroup_enable=memory to the kernel's command line "
			    "(Raspberry Pi: cmdline.txt)"
			  : "no cgroup v2 at /sys/fs/cgroup: a VM's memory and time cannot be "
			    "limited");
}

static void judge_extras(Tb__HostProbe *p, const struct probe_board *b, const struct probe_kvm *kvm)
{
	if (b->core_kinds > 1) {
		find(p, NOTE, "cores",
		     "the cores are of %u kinds: a VM stays on those of one kind, of which it is "
		     "allowed most (taskset or a cpuset chooses), and its snapshots go on only "
		     "there; the class is that of the cores that a VM started here would get",
		     b->core_kinds);
	}
	if (!b->user_namespaces) {
		find(p, NOTE, "sandbox",
		     "no user namespaces for ordinary users: VMs started by one keep their view "
		     "of the files; started by root with sandbox.uid they lose it");
	}
	if (!kvm->io_uring) {
		find(p, NOTE, "disks", "no io_uring: disks use a thread each, and more time");
	}
	if (!b->tap) {
		find(p, NOTE, "network", "no /dev/net/tun: no NICs; modprobe tun");
	}
	if (!b->vhost_vsock) {
		find(p, NOTE, "vsock",
		     "no /dev/vhost-vsock: no sockets between guest and host; modprobe "
		     "vhost_vsock");
	}
	if (kvm->ipa_bits > 0 && kvm->ipa_bits < IPA_ENOUGH) {
		find(p, NOTE, "memory", "guest addresses have %u bits: a VM has at most %llu MiB",
		     kvm->ipa_bits, (1ULL << (kvm->ipa_bits - 20)) - 1024);
	}
}

/* --- the whole -------------------------------------------------------------------------------- */

static void facts_copy(Tb__HostProbe *p, const struct probe_board *b, const struct probe_kvm *kvm)
{
	bool asked = kvm->open_error == 0 && kvm->vm_error == 0 && kvm->version == KVM_VERSION;

	p->board = mem_strdup(b->tree.model);
	p->kernel = mem_strdup(b->kernel);
	p->kvm_api_version = (uint32_t)kvm->version;
	p->gicv2 = asked && kvm->gicv2_error == 0;
	p->gicv3 = asked && kvm->gicv3_error == 0;
	p->its = kvm->its;
	p->page_size = kvm->page_size;
	p->ipa_bits = kvm->ipa_bits;
	p->max_vcpus = kvm->max_vcpus;
	p->pmu = kvm->pmu;
	p->steal_time = kvm->steal_time;
	p->counter_offset = kvm->counter_offset;
	p->io_uring = kvm->io_uring;
	p->vhost_vsock = b->vhost_vsock;
	p->tap = b->tap;
	p->huge_pages_anonymous = mem_strdup(b->huge_anonymous);
	p->huge_pages_memfd = mem_strdup(b->huge_memfd);
	p->cgroup_memory = b->cgroup_memory;
	p->user_namespaces = b->user_namespaces;
}

static char *summary(const Tb__HostProbe *p)
{
	if (!p->can_host) {
		return mem_printf("this board can witness but not host virtual machines: %s",
				  p->findings[0]->text);
	}
	return mem_printf("this board can host virtual machines: %s, up to %u vCPUs each",
			  p->gicv2 && p->gicv3 ? "GICv2 and GICv3"
			  : p->gicv3	       ? "GICv3"
					       : "GICv2",
			  p->max_vcpus);
}

Tb__HostProbe *probe_judge(const struct probe_board *board, const struct probe_kvm *kvm)
{
	Tb__HostProbe *p = mem_alloc(sizeof(*p));

	tb__host_probe__init(p);
	facts_copy(p, board, kvm);
	judge_kvm(p, kvm);
	if (p->n_findings == 0 && !p->gicv2 && !p->gicv3) {
		judge_no_gic(p, &board->tree, kvm);
	} else if (p->n_findings > 0 && board->tree.controller == BOARD_CONTROLLER_BCM2836) {
		/* Mending /dev/kvm would be in vain. */
		judge_no_gic(p, &board->tree, kvm);
	}
	p->can_host = p->n_findings == 0;
	judge_pages(p, board, kvm);
	judge_memory(p, board);
	judge_extras(p, board, kvm);
	p->summary = summary(p);
	return p;
}

static void put_fact(struct buf *out, const char *name, const char *value)
{
	buf_printf(out, "  %-22s %s\n", name, value[0] != '\0' ? value : "none");
}

static void put_number(struct buf *out, const char *name, uint32_t value, const char *unit)
{
	if (value != 0) {
		buf_printf(out, "  %-22s %u%s\n", name, value, unit);
	}
}

static const char *yes(int value)
{
	return value ? "yes" : "no";
}

void probe_text(const Tb__HostProbe *p, struct buf *out)
{
	static const char levels[][9] = {"note", "warning", "obstacle"};
	size_t i;

	buf_printf(out, "%s\n", p->summary);
	/* The first obstacle is in the summary. */
	for (i = p->can_host ? 0 : 1; i < p->n_findings; i++) {
		buf_printf(out, "%s: %s: %s\n", levels[p->findings[i]->level],
			   p->findings[i]->subject, p->findings[i]->text);
	}
	put_fact(out, "board", p->board);
	put_fact(out, "kernel", p->kernel);
	put_fact(out, "virtual GIC",
		 p->gicv2 && p->gicv3 ? "GICv2, GICv3"
		 : p->gicv2	      ? "GICv2"
		 : p->gicv3	      ? "GICv3"
				      : "");
	put_number(out, "vCPUs of one VM", p->max_vcpus, "");
	put_number(out, "guest address bits", p->ipa_bits, "");
	put_number(out, "page size", p->page_size / 1024, " KiB");
	put_fact(out, "performance counters", yes(p->pmu));
	put_fact(out, "steal time", yes(p->steal_time));
	put_fact(out, "io_uring", yes(p->io_uring));
	put_fact(out, "taps", yes(p->tap));
	put_fact(out, "vhost-vsock", yes(p->vhost_vsock));
	put_fact(out, "huge pages", p->huge_pages_anonymous);
	put_fact(out, "huge pages of memfd", p->huge_pages_memfd);
	put_fact(out, "cgroup memory limit", yes(p->cgroup_memory));
	put_fact(out, "user namespaces", yes(p->user_namespaces));
	if (p->host_class != NULL) {
		buf_printf(out, "  %-22s %s (%zu parts: -o json)\n", "compatibility class",
			   p->host_class->id, p->host_class->n_parts);
	}
}
