#include "hv/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hv/layout.h"

#define RAM_BLOCK (UINT64_C(2) << 20)

/* Reserves `size` bytes of addresses that begin at a multiple of 2 MiB. */
static uint8_t *reserve(uint64_t size)
{
	uint8_t *at = mmap(NULL, size + RAM_BLOCK, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t begin, front;

	if (at == MAP_FAILED) {
		return NULL;
	}
	begin = ((uintptr_t)at + RAM_BLOCK - 1) & ~(uintptr_t)(RAM_BLOCK - 1);
	front = begin - (uintptr_t)at;
	if (front > 0) {
		munmap(at, front);
	}
	munmap((uint8_t *)begin + size, RAM_BLOCK - front);
	return (uint8_t *)begin;
}

/* Are huge pages given to shared memory that asks for them? */
static bool memfd_has_huge_pages(void)
{
	char text[128] = "";
	int fd = open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC);
	ssize_t len;

	if (fd < 0) {
		return false;
	}
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	return len > 0 && (strstr(text, "[advise]") != NULL || strstr(text, "[always]") != NULL ||
			   strstr(text, "[within_size]") != NULL);
}

enum ram_backing ram_choose(void)
{
	return memfd_has_huge_pages() ? RAM_MEMFD : RAM_ANONYMOUS;
}

static int memfd_make(uint64_t size, int *ret_fd)
{
	int fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0) {
		return -errno;
	}
	/* The size is sealed: a mapping can then never lose its pages. */
	if (ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		int error = -errno;

		close(fd);
		return error;
	}
	*ret_fd = fd;
	return 0;
}

/* Puts the mapping in the reserved place; NULL: anywhere. */
static uint8_t *map_at(uint8_t *at, uint64_t size, int flags, int fd)
{
	void *got = mmap(at, size, PROT_READ | PROT_WRITE,
			 flags | MAP_NORESERVE | (at != NULL ? MAP_FIXED : 0), fd, 0);

	return got == MAP_FAILED ? NULL : got;
}

static uint8_t *map_aligned(uint64_t size, int flags, int fd)
{
	uint8_t *place = reserve(size);
	uint8_t *at = place == NULL ? NULL : map_at(place, size, flags, fd);

	if (at == NULL && place != NULL) {
		int error = errno;

		munmap(place, size);
		errno = error;
	}
	return at;
}

static int fault_memory(struct fault *fault, int error, uint64_t size)
{
	return fault_set(fault, error, "cannot map %llu MiB of guest memory: %s; give the VM less",
			 (unsigned long long)(size >> 20), strerror(-error));
}

static int map(enum ram_backing backing, int fd, uint64_t size, struct ram *ret,
	       struct fault *fault)
{
	int flags = backing == RAM_MEMFD       ? MAP_SHARED
		    : backing == RAM_ANONYMOUS ? MAP_PRIVATE | MAP_ANONYMOUS
					       : MAP_PRIVATE;
	uint8_t *at;

	/* A file's pages are small ones, wherever it is. */
	at = backing == RAM_SHARED_FILE ? map_at(NULL, size, flags, fd)
					: map_aligned(size, flags, fd);
	if (at == NULL) {
		return fault_memory(fault, -errno, size);
	}
	/* Best effort: without huge pages the guest runs all the same, slower. A core dump of a VM
	 * process never holds the guest's secrets. */
	if (backing != RAM_SHARED_FILE) {
		(void)madvise(at, size, MADV_HUGEPAGE);
	}
	(void)madvise(at, size, MADV_DONTDUMP);
	/* Nor does a copy of this process (virtio/blk_sync.h). */
	(void)madvise(at, size, MADV_DONTFORK);
	*ret = (struct ram){
		.host = at,
		.size = size,
		.backing = backing,
		.fd = backing == RAM_MEMFD ? fd : -1,
	};
	return 0;
}

int ram_create(uint64_t size, enum ram_backing backing, struct ram *ret, struct fault *fault)
{
	int fd = -1;
	int rv;

	if (backing == RAM_AUTO) {
		backing = ram_choose();
	}
	if (backing == RAM_MEMFD) {
		rv = memfd_make(size, &fd);
		if (rv < 0) {
			return fault_memory(fault, rv, size);
		}
	}
	rv = map(backing, fd, size, ret, fault);
	if (rv < 0 && fd >= 0) {
		close(fd);
	}
	return rv;
}

int ram_map_file(int fd, uint64_t size, struct ram *ret, struct fault *fault)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		return fault_set(fault, -errno, "cannot look at the memory file: %s",
				 strerror(errno));
	}
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < size) {
		return fault_set(fault, -EINVAL,
				 "the memory file is not a file of at least %llu bytes: it is not "
				 "of this snapshot",
				 (unsigned long long)size);
	}
	return map(RAM_SHARED_FILE, fd, size, ret, fault);
}

struct ram ram_borrow(void *bytes, uint64_t size)
{
	return (struct ram){.host = bytes, .size = size, .backing = RAM_ANONYMOUS, .fd = -1};
}

void ram_destroy(struct ram *r)
{
	if (r->host == NULL) {
		return;
	}
	munmap(r->host, r->size);
	if (r->fd >= 0) {
		close(r->fd);
	}
	*r = (struct ram){.fd = -1};
}

uint64_t ram_left(const struct ram *r, uint64_t guest)
{
	if (guest < LAYOUT_RAM || guest - LAYOUT_RAM >= r->size) {
		return 0;
	}
	return r->size - (guest - LAYOUT_RAM);
}

void *ram_at(const struct ram *r, uint64_t guest, uint64_t len)
{
	if (len == 0 || len > ram_left(r, guest)) {
		return NULL;
	}
	return r->host + (guest - LAYOUT_RAM);
}

/* Whole pages of the host inside [begin, end) of `r`. */
static int release(const struct ram *r, uint64_t begin, uint64_t end)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	begin = (begin + page - 1) & ~(page - 1);
	end &= ~(page - 1);
	if (begin >= end) {
		return 0;
	}
	/* MADV_DONTNEED on a shared mapping would keep the file's pages. */
	if (madvise(r->host + begin, end - begin,
		    r->backing == RAM_MEMFD ? MADV_REMOVE : MADV_DONTNEED) < 0) {
		return -errno;
	}
	return 0;
}

int ram_release(const struct ram *r, uint64_t guest, uint64_t len)
{
	uint64_t begin = guest - LAYOUT_RAM;

	if (ram_at(r, guest, len) == NULL) {
		return -ERANGE;
	}
	return release(r, begin, begin + len);
}

int ram_clear(struct ram *r)
{
	/* A clone would get the snapshot's bytes back: there zeros are written. */
	if (r->backing == RAM_SHARED_FILE) {
		void *got = mmap(r->host, r->size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

		if (got == MAP_FAILED) {
			return -errno;
		}
		r->backing = RAM_ANONYMOUS;
		return 0;
	}
	return release(r, 0, r->size);
}
