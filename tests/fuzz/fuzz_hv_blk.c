/* The disk of a guest whose driver does what the bytes say (hv_device.h), on a host that is slow,
 * short and failing as they say.
 *
 *   event  0 results of the next ios, one byte each    2 ios come back (no longer held)
 *          1 ios are held                              others: as 2 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/virtio/blk_host.h"
#include "tests/fuzz/hv_device.h"

enum { DISK_SIZE = 64 * 512, SCRIPT_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t disk[DISK_SIZE];
static uint8_t script[SCRIPT_MAX];
static size_t script_len, script_next;
static bool hold;
static unsigned with_host;
static struct blk_io *first, **last = &first;
static struct loop *loop;
static struct blk *blk;
static int file; /* what it takes for its disk */
static bool unsupported; /* it was told that the host cannot do something */

static void set_readable(int fd, bool on)
{
	uint64_t count = 1;

	if (on) {
		hv_fuzz_must(write(fd, &count, sizeof(count)) == (ssize_t)sizeof(count));
	} else {
		(void)!read(fd, &count, sizeof(count));
	}
}

/* Nothing may reach the host that is not within the disk and its own buffers. */
static void queue(struct blk_host *h, struct blk_io *io)
{
	uint64_t sum = 0;
	unsigned i;

	(void)h;
	hv_fuzz_must(++with_host <= BLK_HOST_DEPTH);
	if (io->op != BLK_FLUSH) {
		hv_fuzz_must(io->len > 0 && io->offset < DISK_SIZE &&
			     io->len <= DISK_SIZE - io->offset);
	}
	if (io->op == BLK_READ || io->op == BLK_WRITE) {
		for (i = 0; i < io->count; i++) {
			hv_fuzz_must(io->iov[i].iov_len > 0);
			sum += io->iov[i].iov_len;
		}
		hv_fuzz_must(sum == io->len);
	}
	io->next = NULL;
	*last = io;
	last = &io->next;
}

static void push(struct blk_host *h)
{
	(void)h;
}

static int64_t transfer(const struct blk_io *io, size_t limit)
{
	uint64_t at = io->offset;
	unsigned i;

	for (i = 0; i < io->count && limit > 0; i++) {
		size_t part = io->iov[i].iov_len < limit ? io->iov[i].iov_len : limit;

		if (io->op == BLK_READ) {
			memcpy(io->iov[i].iov_base, disk + at, part);
		} else {
			memcpy(disk + at, io->iov[i].iov_base, part);
		}
		at += part;
		limit -= part;
	}
	return (int64_t)(at - io->offset);
}

static int64_t perform(const struct blk_io *io)
{
	static const int errors[] = {0, EAGAIN, EINTR, EIO, ENOSPC, EOPNOTSUPP};
	uint8_t rule = script_next < script_len ? script[script_next++] : 0;
	bool data = io->op == BLK_READ || io->op == BLK_WRITE;

	if (rule > 0 && rule < sizeof(errors) / sizeof(errors[0])) {
		unsupported = unsupported || errors[rule] == EOPNOTSUPP;
		return -errors[rule];
	}
	if (!data) {
		return 0;
	}
	return rule == 0 ? transfer(io, io->len) : transfer(io, (size_t)(rule - 6) * 100);
}

static struct blk_io *take(struct blk_host *h)
{
	struct blk_io *io = hold ? NULL : first;

	(void)h;
	if (io == NULL) {
		return NULL;
	}
	first = io->next;
	if (first == NULL) {
		last = &first;
	}
	with_host--;
	io->result = perform(io);
	return io;
}

static void wait_for(struct blk_host *h, int timeout_ms)
{
	(void)h;
	(void)timeout_ms;
	hold = false;
}

static void close_host(struct blk_host *h)
{
	close(h->fd);
}

static const struct blk_host_class class = {
	.name = "fuzz",
	.queue = queue,
	.push = push,
	.take = take,
	.wait = wait_for,
	.close = close_host,
};

static struct blk_host host = {.class = &class};

static struct virtio *make(const struct ram *ram, struct loop *with)
{
	struct blk_config config = {.direct = true};
	struct fault fault = {0};

	loop = with;
	unsupported = false;
	file = config.fd = memfd_create("disk", MFD_CLOEXEC);
	host.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	hv_fuzz_must(ftruncate(config.fd, DISK_SIZE) == 0);
	if (blk_disk_examine(&config, "blk0", &(struct blk_disk){0}, &fault) < 0) {
		config.direct = false; /* then nothing is bounced */
	}
	return blk_create_on(&host, &config, ram, loop, "blk0", &blk, &fault) == 0 ? blk_virtio(blk)
										   : NULL;
}

static void event(uint8_t what, const uint8_t *data, size_t len)
{
	switch (what % 4) {
	case 0:
		script_len = len < SCRIPT_MAX ? len : SCRIPT_MAX;
		script_next = 0;
		memcpy(script, data, script_len);
		break;
	case 1:
		hold = true;
		break;
	default:
		hold = false;
		set_readable(host.fd, true);
		hv_fuzz_turn(loop);
		set_readable(host.fd, false);
		break;
	}
}

static void check(void)
{
	hold = false;
	script_len = script_next = 0;
	set_readable(host.fd, true);
	hv_fuzz_turn(loop);
	set_readable(host.fd, false);
	hv_fuzz_must(with_host == 0);
}

/* It does not try again. */
static bool worn(void)
{
	if (unsupported) {
		blk_destroy(blk);
		close(file);
	}
	return unsupported;
}

static const struct hv_fuzz_device device = {
	.make = make, .event = event, .check = check, .worn = worn};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	hold = false;
	script_len = script_next = 0;
	return hv_fuzz_run(&device, data, size);
}
