/* image.c: the guest's memory as the kernel finds it:
 *
 *   RAM + text_offset   kernel, image_size bytes reserved (larger than the file: bss)
 *   next 2 MiB          device tree, in a 2 MiB block of its own
 *   behind it           initrd
 *
 * A kernel file comes from anywhere: every number in it is checked before it is used. */
#include "hv/image.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define ZLIB_CONST
#include <zlib.h>

#include "hv/layout.h"

enum {
	HEAD = 64, /* of an arm64 Image */
	HEAD_MAGIC = 0x644d5241, /* "ARM\x64", at byte 56 */
	FRONT = 1024, /* what is read to tell one kind of file from another */
};
#define BLOCK (UINT64_C(2) << 20)

struct head {
	uint64_t text_offset, image_size, flags;
};

static uint64_t little(const uint8_t *at, unsigned bytes)
{
	uint64_t value = 0;

	while (bytes > 0) {
		value = value << 8 | at[--bytes];
	}
	return value;
}

/* A file, and who has a turn while it is read. */
struct source {
	int fd;
	const struct image_turn *turn;
};

/* Reads exactly `len` bytes unless the file ends. */
static ssize_t read_at(const struct source *file, void *to, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		size_t piece = IMAGE_PIECE - (offset + done) % IMAGE_PIECE;
		ssize_t got;

		/* The small reads of a packed file have one turn together. */
		if (piece == IMAGE_PIECE && !image_turn_take(file->turn)) {
			return -ECANCELED;
		}
		piece = piece < len - done ? piece : len - done;
		got = pread(file->fd, (uint8_t *)to + done, piece, (off_t)(offset + done));

		if (got < 0 && errno == EINTR) {
			continue;
		}
		if (got < 0) {
			return -errno;
		}
		if (got == 0) {
			break;
		}
		done += (size_t)got;
	}
	return (ssize_t)done;
}

/* Who took the turn away says why. */
static int read_failed(struct fault *fault, int error, const char *what)
{
	return error == -ECANCELED
		       ? error
		       : fault_set(fault, error, "cannot read the %s: %s", what, strerror(-error));
}

static int file_size(int fd, const char *what, uint64_t *ret, struct fault *fault)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		return fault_set(fault, -EINVAL, "the %s is not a regular file", what);
	}
	*ret = (uint64_t)st.st_size;
	return 0;
}

/* What else people hand in, so that the sentence can say it. `head` has FRONT bytes. */
static const char *other_kind(const uint8_t *head)
{
	static const uint8_t elf[] = {0x7f, 'E', 'L', 'F'};

	if (memcmp(head, elf, sizeof(elf)) == 0) {
		return little(head + 18, 2) == 183
			       ? "an ELF file (vmlinux): take arch/arm64/boot/Image"
			       : "an ELF file for another architecture";
	}
	if (memcmp(head + 4, "zimg", 4) == 0) {
		return "a self-extracting EFI kernel: unpack it, or build Image or Image.gz";
	}
	if (memcmp(head,
		   "\xfd"
		   "7zXZ",
		   5) == 0 ||
	    memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0) {
		return "compressed, but not with gzip: unpack it first";
	}
	/* An EFI program, or a bzImage (x86 boot protocol). */
	if (memcmp(head, "MZ", 2) == 0 || memcmp(head + 0x202, "HdrS", 4) == 0) {
		return "a kernel for another architecture";
	}
	return "no arm64 Linux kernel";
}

static int head_check(const uint8_t *bytes, size_t len, struct head *ret, struct fault *fault)
{
	if (len < HEAD) {
		return fault_set(fault, -ENOEXEC,
				 "the kernel is cut off: it has %zu bytes, its header alone has %d",
				 len, HEAD);
	}
	if (little(bytes + 56, 4) != HEAD_MAGIC) {
		return fault_set(fault, -ENOEXEC,
				 "the kernel is %s; an arm64 Linux Image (plain or gzip) is needed",
				 other_kind(bytes));
	}
	ret->text_offset = little(bytes + 8, 8);
	ret->image_size = little(bytes + 16, 8);
	ret->flags = little(bytes + 24, 8);
	if (ret->image_size == 0) {
		ret->text_offset = 0x80000; /* booting.rst: kernels before 3.17 */
	}
	if (ret->flags & 1) {
		return fault_set(fault, -ENOEXEC,
				 "the kernel is a big-endian one; build a little-endian one");
	}
	if (ret->text_offset >= BLOCK || ret->text_offset % 4096 != 0) {
		return fault_set(fault, -ENOEXEC,
				 "the kernel's header is damaged: text offset 0x%llx",
				 (unsigned long long)ret->text_offset);
	}
	return 0;
}

/* An Image with an EFI stub is a PE file too, whose section table says how long the file must be:
 * the only way to know a plain Image that was cut off. `need` stays as it is if there is no such
 * table. */
static void file_need(const uint8_t *image, uint64_t len, uint64_t *need)
{
	uint64_t pe, sections, table, i;

	if (len < HEAD || memcmp(image, "MZ", 2) != 0) {
		return;
	}
	pe = little(image + 60, 4);
	if (pe > len || len - pe < 24 || memcmp(image + pe, "PE\0\0", 4) != 0) {
		return;
	}
	sections = little(image + pe + 6, 2);
	table = pe + 24 + little(image + pe + 20, 2);
	for (i = 0; i < sections && table + (i + 1) * 40 <= len; i++) {
		const uint8_t *s = image + table + i * 40;
		uint64_t end = little(s + 20, 4) + little(s + 16, 4);

		if (end > *need) {
			*need = end;
		}
	}
}

static int too_large(struct fault *fault, const char *what, uint64_t need)
{
	return fault_set(
		fault, -ENOSPC,
		"the %s does not fit into the guest's memory: give the VM more than %llu MiB", what,
		(unsigned long long)((need + (1 << 20) - 1) >> 20));
}

/* Plain: the file into RAM at `offset` of RAM. */
static int load_plain(const struct source *file, uint64_t size, const struct ram *r,
		      uint64_t offset, uint64_t *ret_len, struct fault *fault)
{
	ssize_t got;

	if (size > r->size - offset) {
		return too_large(fault, "kernel", offset + size);
	}
	got = read_at(file, r->host + offset, size, 0);
	if (got < 0) {
		return read_failed(fault, (int)got, "kernel");
	}
	*ret_len = (uint64_t)got;
	return 0;
}

/* Inflates the file into `to`, at most `room` bytes. 0, 1 when there would be more, negative errno.
 */
static int inflate_file(const struct source *file, uint8_t *to, uint64_t room, uint64_t *ret_len,
			struct fault *fault)
{
	uint8_t chunk[4096];
	z_stream z = {0};
	uint64_t offset = 0;
	int rv = inflateInit2(&z, 15 + 16);

	if (rv != Z_OK) {
		return fault_set(fault, -ENOMEM, "no memory to unpack the kernel");
	}
	z.next_out = to;
	z.avail_out = room > UINT32_MAX ? UINT32_MAX : (uInt)room;
	while (rv == Z_OK && z.avail_out > 0) {
		ssize_t got = read_at(file, chunk, sizeof(chunk), offset);

		if (got < 0) {
			inflateEnd(&z);
			return read_failed(fault, (int)got, "kernel");
		}
		if (got == 0) {
			break;
		}
		offset += (uint64_t)got;
		z.next_in = chunk;
		z.avail_in = (uInt)got;
		do {
			rv = inflate(&z, Z_NO_FLUSH);
		} while (rv == Z_OK && z.avail_in > 0 && z.avail_out > 0);
	}
	*ret_len = (uint64_t)(z.next_out - to);
	inflateEnd(&z);
	if (rv == Z_STREAM_END) {
		return 0;
	}
	if (rv == Z_OK && z.avail_out == 0) {
		return 1;
	}
	return fault_set(fault, -ENOEXEC, "the kernel's gzip data is %s",
			 rv == Z_OK || rv == Z_BUF_ERROR ? "cut off" : "damaged");
}

/* The kernel with its header at `offset` of RAM, checked. */
static int load_kernel(const struct source *file, const struct ram *r, struct head *head,
		       uint64_t *ret_offset, struct fault *fault)
{
	uint8_t first[FRONT] = {0};
	uint64_t size = 0, len = 0, need = 0;
	ssize_t got;
	bool packed;
	int rv = file_size(file->fd, "kernel", &size, fault);

	if (rv < 0) {
		return rv;
	}
	got = read_at(file, first, FRONT, 0);
	if (got < 0) {
		return read_failed(fault, (int)got, "kernel");
	}
	packed = got >= 2 && first[0] == 0x1f && first[1] == 0x8b;
	if (packed) {
		memset(first, 0, sizeof(first));
		rv = inflate_file(file, first, FRONT, &len, fault);
		got = (ssize_t)len;
	}
	if (rv >= 0) {
		rv = head_check(first, (size_t)got, head, fault);
	}
	if (rv < 0) {
		return rv;
	}
	if (head->text_offset >= r->size) {
		return too_large(fault, "kernel", head->text_offset + size);
	}
	if (packed) {
		rv = inflate_file(file, r->host + head->text_offset, r->size - head->text_offset,
				  &len, fault);
		if (rv == 1) {
			return too_large(fault, "kernel", r->size + 1);
		}
	} else {
		rv = load_plain(file, size, r, head->text_offset, &len, fault);
	}
	if (rv < 0) {
		return rv;
	}
	file_need(r->host + head->text_offset, len, &need);
	if (need > len) {
		return fault_set(fault, -ENOEXEC,
				 "the kernel is cut off: it has %llu bytes, its header says %llu",
				 (unsigned long long)len, (unsigned long long)need);
	}
	if (head->image_size < len) {
		head->image_size = len;
	}
	*ret_offset = head->text_offset;
	return 0;
}

static int load_initrd(const struct source *file, const struct ram *r, uint64_t offset,
		       struct image_place *place, struct fault *fault)
{
	uint64_t size = 0;
	ssize_t got;
	int rv = file_size(file->fd, "initrd", &size, fault);

	if (rv < 0) {
		return rv;
	}
	if (size == 0) {
		return fault_set(fault, -EINVAL, "the initrd is empty; leave it out of the spec");
	}
	if (offset > r->size || size > r->size - offset) {
		return too_large(fault, "initrd", offset + size);
	}
	got = read_at(file, r->host + offset, size, 0);
	if (got < 0) {
		return read_failed(fault, (int)got, "initrd");
	}
	if ((uint64_t)got != size) {
		return fault_set(fault, -EIO, "cannot read the initrd: it became shorter");
	}
	place->initrd = LAYOUT_RAM + offset;
	place->initrd_size = size;
	return 0;
}

int image_load(int kernel_fd, int initrd_fd, const struct ram *r, const struct image_turn *turn,
	       struct image_place *ret, struct fault *fault)
{
	const struct source kernel = {kernel_fd, turn}, initrd = {initrd_fd, turn};
	struct image_place place = {0};
	struct head head;
	uint64_t offset, end;
	int rv = load_kernel(&kernel, r, &head, &offset, fault);

	if (rv < 0) {
		return rv;
	}
	if (head.image_size > r->size || offset > r->size - head.image_size) {
		return too_large(fault, "kernel", offset + head.image_size);
	}
	end = (offset + head.image_size + BLOCK - 1) & ~(BLOCK - 1);
	if (end > r->size || r->size - end < IMAGE_TREE_MAX) {
		return too_large(fault, "kernel with its device tree", end + IMAGE_TREE_MAX);
	}
	place.entry = LAYOUT_RAM + offset;
	place.kernel_end = LAYOUT_RAM + offset + head.image_size;
	place.tree = LAYOUT_RAM + end;
	place.tree_room = IMAGE_TREE_MAX;
	if (initrd_fd >= 0) {
		rv = load_initrd(&initrd, r, end + IMAGE_TREE_MAX, &place, fault);
		if (rv < 0) {
			return rv;
		}
	}
	*ret = place;
	return 0;
}
