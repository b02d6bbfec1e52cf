/* memory_words.c: words that use the guest's memory and give it back, for the balloon and for what
 * a VM costs its host. */
#include "guest.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

static struct {
	uint64_t *start;
	uint64_t bytes;
} held;

static void held_fill(void)
{
	uint64_t state = 7;
	for (uint64_t i = 0; i < held.bytes / 8; i++)
		held.start[i] = mixed_next(&state);
}

static int touch_run(struct call *call)
{
	uint64_t mib = call_number(call, 0, 16);
	if (held.start)
		return call_failed(call, EBUSY, "memory.free comes first");
	void *start = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return call_failed(call, errno, "mmap of %llu MiB", (unsigned long long)mib);
	held.start = start;
	held.bytes = mib * MIB;
	held_fill();
	call_result(call, "mib=%llu", (unsigned long long)mib);
	return 0;
}

static int verify_run(struct call *call)
{
	uint64_t state = 7, wrong = 0;
	for (uint64_t i = 0; i < held.bytes / 8; i++)
		wrong += held.start[i] != mixed_next(&state);
	call_result(call, "mib=%llu", (unsigned long long)(held.bytes / MIB));
	return wrong ? call_failed(call, EIO, "%llu words changed", (unsigned long long)wrong) : 0;
}

/* Writes all of it again and again, for ever: what a live copy of memory has to keep up with. */
static int dirty_run(struct call *call)
{
	int error = touch_run(call);
	for (uint64_t round = 1; error == 0; round++)
		for (uint64_t i = 0; i < held.bytes / 8; i += 512)
			held.start[i] = round;
	return error;
}

static int free_run(struct call *call)
{
	if (!held.start)
		return call_failed(call, ENOENT, "nothing was touched");
	munmap(held.start, held.bytes);
	held.start = NULL;
	held.bytes = 0;
	/* What the kernel only keeps for later goes too, and neighbours are put together. */
	static const char *const orders[] = {"/proc/sys/vm/drop_caches",
					     "/proc/sys/vm/compact_memory"};
	for (int i = 0; i < 2; i++) {
		int file = open(orders[i], O_WRONLY);
		if (file >= 0 && write(file, "1", 1) != 1)
			say("%s: %s", orders[i], strerror(errno));
		close(file);
	}
	return 0;
}

static int info_run(struct call *call)
{
	struct sysinfo info;
	sysinfo(&info);
	call_result(call, "total_kib=%llu free_kib=%llu",
		    (unsigned long long)info.totalram * info.mem_unit / 1024,
		    (unsigned long long)info.freeram * info.mem_unit / 1024);
	return 0;
}

const struct word memory_words[] = {
	{"memory.touch", touch_run, "MIB"}, {"memory.verify", verify_run, ""},
	{"memory.dirty", dirty_run, "MIB"}, {"memory.free", free_run, ""},
	{"memory.info", info_run, ""},	    {NULL, NULL, NULL},
};
