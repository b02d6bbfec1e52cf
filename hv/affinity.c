#include "hv/affinity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "board/cores.h"

enum { PATH_SIZE = 512 };

/* False: there is no such core. 0: it is off line, or the kernel does not tell. */
static bool midr_read(const char *root, size_t core, uint32_t *ret)
{
	char path[PATH_SIZE];
	char text[32];
	ssize_t len;
	int at = snprintf(path, sizeof(path), "%.400s/sys/devices/system/cpu/cpu%zu", root, core);
	int fd;

	snprintf(path + at, sizeof(path) - (size_t)at, "/regs/identification/midr_el1");
	*ret = 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		path[at] = '\0';
		return access(path, F_OK) == 0;
	}
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[len > 0 ? len : 0] = '\0';
	*ret = (uint32_t)strtoull(text, NULL, 16);
	return true;
}

void affinity_read(const char *root, struct affinity *ret)
{
	*ret = (struct affinity){0};
	while (ret->count < AFFINITY_CORES_MAX &&
	       midr_read(root, ret->count, &ret->midr[ret->count])) {
		ret->count++;
	}
}

static struct affinity_choice of_kind(const struct affinity *board, const cpu_set_t *allowed,
				      uint32_t midr)
{
	struct affinity_choice c = {.midr = midr, .allowed = CPU_COUNT(allowed)};

	CPU_ZERO(&c.cores);
	for (size_t i = 0; i < board->count; i++) {
		if (CPU_ISSET(i, allowed) && board->midr[i] == midr) {
			CPU_SET(i, &c.cores);
			c.count++;
		}
	}
	return c;
}

static bool is_better(const struct affinity_choice *a, const struct affinity_choice *than)
{
	return a->count != than->count ? a->count > than->count : a->midr > than->midr;
}

bool affinity_choose(const struct affinity *board, const cpu_set_t *allowed,
		     struct affinity_choice *ret)
{
	struct affinity_choice best = {0};

	for (size_t i = 0; i < CPU_SETSIZE; i++) {
		if (CPU_ISSET(i, allowed) && (i >= board->count || board->midr[i] == 0)) {
			return false;
		}
	}
	for (size_t i = 0; i < board->count; i++) {
		if (CPU_ISSET(i, allowed) && board->midr[i] != best.midr) {
			struct affinity_choice c = of_kind(board, allowed, board->midr[i]);

			best = is_better(&c, &best) ? c : best;
		}
	}
	if (best.count == best.allowed) {
		return false;
	}
	*ret = best;
	return true;
}

int affinity_keep(const struct affinity *board, char text[AFFINITY_TEXT], struct fault *fault)
{
	struct affinity_choice choice;
	cpu_set_t allowed;
	const char *name;

	text[0] = '\0';
	/* EINVAL: more cores than our set has, which are alike. */
	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0 ||
	    !affinity_choose(board, &allowed, &choice)) {
		return 0;
	}
	if (sched_setaffinity(0, sizeof(choice.cores), &choice.cores) < 0) {
		return fault_set(
			fault, -errno,
			"cannot keep to the cores of one kind: %s; allow the VM only those "
			"(taskset, a cpuset)",
			strerror(errno));
	}
	name = cores_part(choice.midr);
	if (name != NULL) {
		snprintf(text, AFFINITY_TEXT, "%d of %d, %s", choice.count, choice.allowed, name);
	} else {
		snprintf(text, AFFINITY_TEXT, "%d of %d, MIDR 0x%x", choice.count, choice.allowed,
			 choice.midr);
	}
	return 0;
}
