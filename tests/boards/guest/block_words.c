/* block_words.c: words about disks: that what was synced is there, that what was thrown away is
 * gone, and how fast it goes.
 *
 * The pattern: block n (4 KiB) of a disk holds the number n, the salt of the writer, and numbers
 * that follow from both, so that a block that is old, torn or in the wrong place is known as such.
 */
#include "guest.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BLOCK = 4096, MIB = 1 << 20, DEPTH_MAX = 64 };

static int disk_open(struct call *call, int flags, uint64_t *ret_blocks)
{
	const char *path = call_text(call, 0, "/dev/vda");
	int disk = open(path, flags | O_CLOEXEC);
	if (disk < 0)
		return call_failed(call, errno, "open %s", path);
	uint64_t bytes = 0;
	struct stat about;
	if (ioctl(disk, BLKGETSIZE64, &bytes) < 0 && fstat(disk, &about) == 0)
		bytes = (uint64_t)about.st_size;
	*ret_blocks = bytes / BLOCK;
	return disk;
}

static void pattern_make(uint64_t *block, uint64_t n, uint64_t salt)
{
	uint64_t state = n * 2654435761u ^ salt;
	block[0] = n;
	block[1] = salt;
	for (int i = 2; i < BLOCK / 8; i++)
		block[i] = mixed_next(&state);
}

/* Writes blocks first .. first + count - 1, each synced by itself before it is said to be:
 * what was said to be SYNCED must be there after any failure. */
static int write_run(struct call *call)
{
	uint64_t count = call_number(call, 1, 16), first = call_number(call, 2, 0);
	uint64_t salt = call_number(call, 3, 1), blocks;
	uint64_t block[BLOCK / 8];
	int disk = disk_open(call, O_WRONLY, &blocks);
	if (disk < 0)
		return disk;
	int error = 0;
	for (uint64_t n = first; error == 0 && n < first + count; n++) {
		pattern_make(block, n, salt);
		if (pwrite(disk, block, BLOCK, (off_t)(n * BLOCK)) != BLOCK)
			error = call_failed(call, errno, "write of block %llu",
					    (unsigned long long)n);
		else if (fdatasync(disk) < 0)
			error = call_failed(call, errno, "sync of block %llu",
					    (unsigned long long)n);
		else
			say("SYNCED %llu", (unsigned long long)n);
	}
	close(disk);
	call_result(call, "blocks=%llu", (unsigned long long)count);
	return error;
}

static int verify_run(struct call *call)
{
	uint64_t count = call_number(call, 1, 16), first = call_number(call, 2, 0);
	uint64_t salt = call_number(call, 3, 1), blocks;
	uint64_t block[BLOCK / 8], expected[BLOCK / 8];
	int disk = disk_open(call, O_RDONLY, &blocks);
	if (disk < 0)
		return disk;
	int error = 0;
	for (uint64_t n = first; error == 0 && n < first + count; n++) {
		pattern_make(expected, n, salt);
		if (pread(disk, block, BLOCK, (off_t)(n * BLOCK)) != BLOCK)
			error = call_failed(call, errno, "read of block %llu",
					    (unsigned long long)n);
		else if (memcmp(block, expected, BLOCK) != 0)
			error = call_failed(call, EBADMSG,
					    "block %llu, which says it is %llu of %llu",
					    (unsigned long long)n, (unsigned long long)block[0],
					    (unsigned long long)block[1]);
	}
	close(disk);
	call_result(call, "blocks=%llu", (unsigned long long)count);
	return error;
}

/* An ioctl with a range of blocks. */
static int range_do(struct call *call, unsigned long request, const char *name)
{
	uint64_t range[2] = {call_number(call, 1, 0) * BLOCK, call_number(call, 2, 16) * BLOCK};
	uint64_t blocks;
	int disk = disk_open(call, O_WRONLY, &blocks);
	if (disk < 0)
		return disk;
	int error = 0;
	if (ioctl(disk, request, range) < 0)
		error = call_failed(call, errno, "%s", name);
	close(disk);
	return error;
}

static int discard_run(struct call *call)
{
	return range_do(call, BLKDISCARD, "BLKDISCARD");
}

/* Makes them zeros without sending any, where the disk can. The blocks are kept. */
static int clear_run(struct call *call)
{
	return range_do(call, BLKZEROOUT, "BLKZEROOUT");
}

static int zeroes_run(struct call *call)
{
	uint64_t first = call_number(call, 1, 0), count = call_number(call, 2, 16), blocks, bad = 0;
	uint64_t block[BLOCK / 8];
	int disk = disk_open(call, O_RDONLY, &blocks);
	if (disk < 0)
		return disk;
	for (uint64_t n = first; n < first + count; n++) {
		if (pread(disk, block, BLOCK, (off_t)(n * BLOCK)) != BLOCK) {
			int error = errno;
			close(disk);
			return call_failed(call, error, "read of block %llu",
					   (unsigned long long)n);
		}
		uint64_t all = 0;
		for (int i = 0; i < BLOCK / 8; i++)
			all |= block[i];
		bad += all != 0;
	}
	close(disk);
	call_result(call, "blocks=%llu other=%llu", (unsigned long long)count,
		    (unsigned long long)bad);
	return 0;
}

static void attribute_read(const char *device, const char *name, char *text, size_t size)
{
	char path[CALL_TEXT];
	snprintf(path, sizeof path, "/sys/class/block/%s/%s", strrchr(device, '/') + 1, name);
	int file = open(path, O_RDONLY);
	ssize_t length = file < 0 ? 0 : read(file, text, size - 1);
	close(file);
	text[length > 0 ? length : 0] = '\0';
	text[strcspn(text, "\n ")] = '\0';
}

static int info_run(struct call *call)
{
	static const char *const names[] = {"ro",
					    "serial",
					    "queue/write_cache",
					    "queue/discard_max_bytes",
					    "queue/logical_block_size",
					    "queue/write_zeroes_max_bytes"};
	const char *device = call_text(call, 0, "/dev/vda");
	uint64_t blocks;
	if (device[0] != '/')
		return call_failed(call, EINVAL, "%s: a path is wanted", device);
	int disk = disk_open(call, O_RDONLY, &blocks);
	if (disk < 0)
		return disk;
	close(disk);
	char values[6][32];
	for (int i = 0; i < 6; i++)
		attribute_read(device, names[i], values[i], sizeof values[i]);
	call_result(call,
		    "blocks=%llu ro=%s serial=%s cache=%s discard_max=%s sector=%s zeroes_max=%s",
		    (unsigned long long)blocks, values[0], values[1], values[2], values[3],
		    values[4], values[5]);
	return 0;
}

/* --- speed ------------------------------------------------------------------------------------ */

struct bench {
	int disk;
	bool writes;
	uint64_t blocks; /* of the disk */
	uint64_t count; /* of operations */
	unsigned depth;
	uint64_t state; /* of the sequence of blocks */
	unsigned char *buffers;
	aio_context_t context;
	struct iocb requests[DEPTH_MAX];
};

static int bench_submit(struct bench *bench, unsigned slot)
{
	struct iocb *request = &bench->requests[slot];
	*request = (struct iocb){
		.aio_data = slot,
		.aio_lio_opcode = bench->writes ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)bench->disk,
		.aio_buf = (uint64_t)(bench->buffers + (size_t)slot * BLOCK),
		.aio_nbytes = BLOCK,
		.aio_offset = (int64_t)(mixed_next(&bench->state) % bench->blocks * BLOCK),
	};
	return syscall(SYS_io_submit, bench->context, 1, &request) == 1 ? 0 : -errno;
}

/* Native asynchronous I/O keeps `depth` requests under way. */
static int bench_queued(struct bench *bench)
{
	uint64_t sent = 0, done = 0;
	int error = 0;
	if (syscall(SYS_io_setup, DEPTH_MAX, &bench->context) < 0)
		return -errno;
	for (unsigned slot = 0; error == 0 && slot < bench->depth && sent < bench->count;
	     slot++, sent++)
		error = bench_submit(bench, slot);
	while (error == 0 && done < sent) {
		struct io_event events[DEPTH_MAX];
		long count = syscall(SYS_io_getevents, bench->context, 1, DEPTH_MAX, events, NULL);
		for (long i = 0; i < count && error == 0; i++, done++) {
			if (events[i].res != BLOCK)
				error = events[i].res < 0 ? (int)events[i].res : -EIO;
			else if (sent < bench->count) {
				error = bench_submit(bench, (unsigned)events[i].data);
				sent++;
			}
		}
	}
	syscall(SYS_io_destroy, bench->context);
	return error;
}

static int bench_single(struct bench *bench)
{
	for (uint64_t i = 0; i < bench->count; i++) {
		off_t at = (off_t)(mixed_next(&bench->state) % bench->blocks * BLOCK);
		ssize_t length = bench->writes ? pwrite(bench->disk, bench->buffers, BLOCK, at)
					       : pread(bench->disk, bench->buffers, BLOCK, at);
		if (length != BLOCK)
			return length < 0 ? -errno : -EIO;
	}
	return 0;
}

static int bench_run(struct call *call)
{
	const char *way = call_text(call, 1, "read");
	struct bench bench = {
		.writes = strcmp(way, "write") == 0,
		.depth = (unsigned)call_number(call, 2, 1),
		.count = call_number(call, 3, 1000),
		.state = 4,
	};
	if (bench.depth < 1 || bench.depth > DEPTH_MAX)
		return call_failed(call, EINVAL, "depth 1 to %d", DEPTH_MAX);
	bench.disk = disk_open(call, (bench.writes ? O_RDWR : O_RDONLY) | O_DIRECT, &bench.blocks);
	if (bench.disk < 0)
		return bench.disk;
	if (bench.blocks == 0 ||
	    posix_memalign((void **)&bench.buffers, BLOCK, DEPTH_MAX * BLOCK) != 0) {
		close(bench.disk);
		return call_failed(call, ENOMEM, "buffers for a disk of %llu blocks",
				   (unsigned long long)bench.blocks);
	}
	memset(bench.buffers, 'b', DEPTH_MAX * BLOCK);
	uint64_t began = now_ns();
	int error = bench.depth == 1 ? bench_single(&bench) : bench_queued(&bench);
	uint64_t ns = now_ns() - began;
	free(bench.buffers);
	close(bench.disk);
	if (error != 0)
		return call_failed(call, -error, "%s of 4 KiB", way);
	call_result(call, "way=%s depth=%u ops=%llu ns=%llu ops_per_1e9=%llu", way, bench.depth,
		    (unsigned long long)bench.count, (unsigned long long)ns,
		    (unsigned long long)(bench.count * 1000000000 / (ns ? ns : 1)));
	return 0;
}

static int sequential_run(struct call *call)
{
	const char *way = call_text(call, 1, "read");
	bool writes = strcmp(way, "write") == 0;
	uint64_t count = call_number(call, 2, 16), blocks;
	void *buffer;
	int disk = disk_open(call, (writes ? O_RDWR : O_RDONLY) | O_DIRECT, &blocks);
	if (disk < 0)
		return disk;
	if (blocks < MIB / BLOCK || posix_memalign(&buffer, BLOCK, MIB) != 0) {
		close(disk);
		return call_failed(call, ENOMEM, "a disk and a buffer of 1 MiB or more");
	}
	memset(buffer, 's', MIB);
	int error = 0;
	uint64_t began = now_ns();
	for (uint64_t i = 0; error == 0 && i < count; i++) {
		off_t at = (off_t)(i % (blocks * BLOCK / MIB) * MIB);
		ssize_t length =
			writes ? pwrite(disk, buffer, MIB, at) : pread(disk, buffer, MIB, at);
		if (length != MIB)
			error = call_failed(call, length < 0 ? errno : EIO, "%s of 1 MiB", way);
	}
	uint64_t ns = now_ns() - began;
	free(buffer);
	close(disk);
	call_result(call, "way=%s mib=%llu ns=%llu mb_per_1e9=%llu", way, (unsigned long long)count,
		    (unsigned long long)ns,
		    (unsigned long long)(count * MIB * 1000 / (ns ? ns : 1)));
	return error;
}

static int flush_run(struct call *call)
{
	uint64_t count = call_number(call, 1, 100), blocks;
	static const char block[BLOCK];
	int disk = disk_open(call, O_WRONLY, &blocks);
	if (disk < 0)
		return disk;
	int error = 0;
	uint64_t began = now_ns();
	for (uint64_t i = 0; error == 0 && i < count; i++)
		if (pwrite(disk, block, BLOCK, 0) != BLOCK || fdatasync(disk) < 0)
			error = call_failed(call, errno, "write and sync");
	uint64_t ns = now_ns() - began;
	close(disk);
	call_result(call, "ops=%llu ns=%llu ops_per_1e9=%llu", (unsigned long long)count,
		    (unsigned long long)ns,
		    (unsigned long long)(count * 1000000000 / (ns ? ns : 1)));
	return error;
}

const struct word block_words[] = {
	{"blk.info", info_run, "DEVICE"},
	{"blk.write", write_run, "DEVICE,BLOCKS,FIRST,SALT"},
	{"blk.verify", verify_run, "DEVICE,BLOCKS,FIRST,SALT"},
	{"blk.discard", discard_run, "DEVICE,FIRST,BLOCKS"},
	{"blk.clear", clear_run, "DEVICE,FIRST,BLOCKS"},
	{"blk.zeroes", zeroes_run, "DEVICE,FIRST,BLOCKS"},
	{"blk.bench", bench_run, "DEVICE,read or write,DEPTH,COUNT"},
	{"blk.sequential", sequential_run, "DEVICE,read or write,MIB"},
	{"blk.flush", flush_run, "DEVICE,COUNT"},
	{NULL, NULL, NULL},
};
