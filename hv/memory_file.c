#include "hv/memory_file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = {'T', 'B', 'V', 'M', 'M', 'E', 'M', 'O'};

/* PAGE: of zeros or not; of the file, whatever the host's pages are. */
enum { PAGE = 4096, RUN_MAX = 1 << 20, TURN_STRETCHES = 16 };

/* Four times 16 bytes a step: the compiler makes two LDP of it. */
typedef uint64_t wide __attribute__((vector_size(16), may_alias));

static bool is_zero(const uint8_t *page)
{
	const wide *at = (const wide *)(const void *)page;
	size_t i;

	for (i = 0; i < PAGE / sizeof(wide); i += 8) {
		wide a = at[i] | at[i + 1] | at[i + 2] | at[i + 3];
		wide b = at[i + 4] | at[i + 5] | at[i + 6] | at[i + 7];

		a |= b;
		if ((a[0] | a[1]) != 0) {
			return false;
		}
	}
	return true;
}

static int write_run(int fd, const uint8_t *data, uint64_t offset, uint64_t len)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, data, len, (off_t)offset);

		if (n < 0 && errno != EINTR) {
			return -errno;
		}
		if (n > 0) {
			data += n;
			offset += (uint64_t)n;
			len -= (uint64_t)n;
		}
	}
	return 0;
}

/* Pages begin..end, those of zeros left out. */
static int write_pages(int fd, const uint8_t *memory, uint64_t begin, uint64_t end)
{
	uint64_t run = begin, at;
	int rv = 0;

	for (at = begin; at < end && rv == 0; at += PAGE) {
		bool zero = is_zero(memory + at);

		if (zero || at - run >= RUN_MAX) {
			rv = write_run(fd, memory + run, run, at - run);
			run = zero ? at + PAGE : at;
		}
	}
	return rv < 0 || run >= end ? rv : write_run(fd, memory + run, run, end - run);
}

/* The next stretch of `fd` from *begin that is no hole, up to `end`; false: none. */
static bool data_next(int fd, uint64_t *begin, uint64_t end, uint64_t *ret_end)
{
	off_t data = lseek(fd, (off_t)*begin, SEEK_DATA), hole;

	if (data < 0 && errno == ENXIO) {
		return false;
	}
	/* A file system that cannot say has data everywhere. */
	data = data < 0 ? (off_t)*begin : data;
	hole = lseek(fd, data, SEEK_HOLE);
	*begin = (uint64_t)data;
	*ret_end = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
	return *begin < *ret_end;
}

static int write_memory(int fd, const struct ram *r)
{
	uint64_t begin = 0, end = 0;
	int rv = 0;

	/* Memory of a memfd that the guest never touched is a hole there too: looking at it would
	 * give it pages. */
	if (r->fd < 0) {
		return write_pages(fd, r->host, 0, r->size);
	}
	while (rv == 0 && begin < r->size && data_next(r->fd, &begin, r->size, &end)) {
		rv = write_pages(fd, r->host, begin & ~(uint64_t)(PAGE - 1),
				 (end + PAGE - 1) & ~(uint64_t)(PAGE - 1));
		begin = end;
	}
	return rv;
}

static void tail_make(uint64_t size, const uint8_t id[MEMORY_FILE_ID],
		      uint8_t ret_tail[MEMORY_FILE_TAIL])
{
	unsigned i;

	memset(ret_tail, 0, MEMORY_FILE_TAIL);
	memcpy(ret_tail, magic, sizeof(magic));
	for (i = 0; i < 8; i++) {
		ret_tail[8 + i] = (uint8_t)(size >> (56 - 8 * i));
	}
	memcpy(ret_tail + 16, id, MEMORY_FILE_ID);
}

int memory_file_write(int fd, const struct ram *r, const uint8_t id[MEMORY_FILE_ID],
		      struct fault *fault)
{
	uint8_t tail[MEMORY_FILE_TAIL];
	int rv = ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)(r->size + MEMORY_FILE_TAIL)) < 0
			 ? -errno
			 : write_memory(fd, r);

	tail_make(r->size, id, tail);
	rv = rv < 0 ? rv : write_run(fd, tail, r->size, sizeof(tail));
	if (rv < 0) {
		return fault_set(fault, rv, "cannot write the memory file: %s", strerror(-rv));
	}
	return 0;
}

static int read_run(int fd, uint8_t *data, uint64_t offset, uint64_t len)
{
	while (len > 0) {
		ssize_t n = pread(fd, data, len, (off_t)offset);

		if (n == 0 || (n < 0 && errno != EINTR)) {
			return n == 0 ? -EIO : -errno;
		}
		if (n > 0) {
			data += n;
			offset += (uint64_t)n;
			len -= (uint64_t)n;
		}
	}
	return 0;
}

static int check(int fd, uint64_t size, const uint8_t id[MEMORY_FILE_ID], const char **ret_problem)
{
	uint8_t tail[MEMORY_FILE_TAIL], good[MEMORY_FILE_TAIL];
	struct stat st;
	int rv;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size + MEMORY_FILE_TAIL) {
		*ret_problem = "it is cut off, or of a VM with another size of memory";
		return -EBADMSG;
	}
	rv = read_run(fd, tail, size, sizeof(tail));
	if (rv < 0) {
		return rv;
	}
	tail_make(size, id, good);
	if (memcmp(tail, good, 16) != 0) {
		*ret_problem = "it was never finished, or is none";
		return -EBADMSG;
	}
	if (memcmp(tail, good, sizeof(good)) != 0) {
		*ret_problem = "it belongs to another state file";
		return -EBADMSG;
	}
	return 0;
}

int memory_file_check(int fd, uint64_t size, const uint8_t id[MEMORY_FILE_ID], struct fault *fault)
{
	const char *problem = NULL;
	int rv = check(fd, size, id, &problem);

	if (rv < 0) {
		return fault_set(fault, rv, "the memory file cannot be used: %s",
				 problem != NULL ? problem : strerror(-rv));
	}
	return 0;
}

int memory_file_read(int fd, struct ram *r, const struct image_turn *turn, struct fault *fault)
{
	uint64_t begin = 0, end = 0, due = 0;
	unsigned stretches = 0;
	int rv = 0;

	while (rv == 0 && begin < r->size && data_next(fd, &begin, r->size, &end)) {
		/* Stretches that lie apart have one turn together, but a few: the card may be
		 * waited for at each. */
		if (begin >= due || stretches == TURN_STRETCHES) {
			if (!image_turn_take(turn)) {
				return -ECANCELED;
			}
			due = begin + IMAGE_PIECE;
			stretches = 0;
		}
		stretches++;
		end = end < due ? end : due;
		rv = read_run(fd, r->host + begin, begin, end - begin);
		begin = end;
	}
	if (rv < 0) {
		return fault_set(fault, rv, "cannot read the memory file: %s", strerror(-rv));
	}
	return 0;
}
