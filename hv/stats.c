#include "hv/stats.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/mem.h"

void stats_list_init(struct stats_list *l)
{
	*l = (struct stats_list){.message = TB__VM_STATS__INIT, .sum_from = SIZE_MAX};
}

void stats_list_free(struct stats_list *l)
{
	for (size_t i = 0; i < l->message.n_counters; i++) {
		free(l->message.counters[i]->name);
		free(l->message.counters[i]);
	}
	free(l->message.counters);
	stats_list_init(l);
}

static Tb__VmCounter *find(const struct stats_list *l, const char *name)
{
	for (size_t i = l->sum_from; i < l->message.n_counters; i++) {
		if (strcmp(l->message.counters[i]->name, name) == 0) {
			return l->message.counters[i];
		}
	}
	return NULL;
}

static Tb__VmCounter *append(struct stats_list *l, char *name)
{
	Tb__VmCounter *counter = mem_alloc(sizeof(*counter));

	tb__vm_counter__init(counter);
	counter->name = name;
	if (l->message.n_counters == l->cap) {
		l->cap = l->cap == 0 ? 64 : 2 * l->cap;
		l->message.counters =
			mem_realloc(l->message.counters, l->cap * sizeof(Tb__VmCounter *));
	}
	l->message.counters[l->message.n_counters++] = counter;
	return counter;
}

static void list_add(void *arg, const char *part, const char *what, uint64_t value, bool gauge)
{
	struct stats_list *l = arg;
	char *name = mem_printf("%s.%s", part, what);
	Tb__VmCounter *counter = find(l, name);

	if (counter != NULL) {
		free(name);
	} else {
		counter = append(l, name);
		counter->gauge = gauge;
	}
	counter->value += value;
}

struct stats_sink stats_list_sink(struct stats_list *l)
{
	return (struct stats_sink){.add = list_add, .arg = l};
}

/* KVM */

enum { NAME_MAX_BYTES = 128, DESCRIPTIONS_MAX = 256 };

/* One description and its name. */
union description {
	struct kvm_stats_desc desc;
	char bytes[sizeof(struct kvm_stats_desc) + NAME_MAX_BYTES];
};

static int read_at(int fd, void *data, size_t len, uint64_t offset)
{
	ssize_t got = pread(fd, data, len, (off_t)offset);

	if (got < 0) {
		return -errno;
	}
	return (size_t)got == len ? 0 : -EBADMSG;
}

static int kvm_counter(int fd, const struct kvm_stats_header *head, uint32_t number,
		       const char *part, const struct stats_sink *sink)
{
	size_t size = sizeof(struct kvm_stats_desc) + head->name_size;
	union description d;
	uint64_t value;
	int rv = read_at(fd, &d, size, head->desc_offset + (uint64_t)number * size);

	if (rv < 0) {
		return rv;
	}
	d.bytes[size - 1] = '\0';
	if (d.desc.size != 1) {
		return 0;
	}
	rv = read_at(fd, &value, sizeof(value), (uint64_t)head->data_offset + d.desc.offset);
	if (rv == 0) {
		sink->add(sink->arg, part, d.desc.name, value,
			  (d.desc.flags & KVM_STATS_TYPE_MASK) != KVM_STATS_TYPE_CUMULATIVE);
	}
	return rv;
}

int stats_kvm(int fd, const char *part, const struct stats_sink *sink)
{
	struct kvm_stats_header head;
	int rv = read_at(fd, &head, sizeof(head), 0);

	if (rv == 0 && (head.name_size == 0 || head.name_size > NAME_MAX_BYTES ||
			head.num_desc > DESCRIPTIONS_MAX)) {
		rv = -EBADMSG;
	}
	for (uint32_t i = 0; rv == 0 && i < head.num_desc; i++) {
		rv = kvm_counter(fd, &head, i, part, sink);
	}
	return rv;
}

int stats_memory(int statm, const struct stats_sink *sink)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	unsigned long long resident, shared;
	char text[128];
	ssize_t len = pread(statm, text, sizeof(text) - 1, 0);

	if (len < 0) {
		return -errno;
	}
	text[len] = '\0';
	if (sscanf(text, "%*u %llu %llu", &resident, &shared) != 2) {
		return -EBADMSG;
	}
	sink->add(sink->arg, "memory", "resident-bytes", resident * page, true);
	sink->add(sink->arg, "memory", "shared-bytes", shared * page, true);
	return 0;
}

int stats_run_delay(int schedstat, uint64_t *ret_ns)
{
	unsigned long long delay;
	char text[128];
	ssize_t len = pread(schedstat, text, sizeof(text) - 1, 0);

	if (len < 0) {
		return -errno;
	}
	text[len] = '\0';
	if (sscanf(text, "%*u %llu", &delay) != 1) {
		return -EBADMSG;
	}
	*ret_ns = delay;
	return 0;
}
