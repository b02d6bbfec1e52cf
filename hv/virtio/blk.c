#include "hv/virtio/blk.h"

#include <errno.h>
#include <linux/falloc.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "hv/virtio/blk_host.h"
#include "hv/virtio/patience.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"

enum {
	QUEUE_SIZE = 128,
	SEGMENTS_MAX = QUEUE_SIZE - 2, /* of data: a chain fits the ring without indirect too */
	SECTOR = 512,
	RANGES_MAX = 16,
	/* Of one range, 2 GiB: a request ends before its driver takes the disk for dead. */
	RANGE_SECTORS_MAX = 1 << 22,
	BOUNCE_SIZE = 16 * 1024,
	RETRIES_MAX = 16, /* of an io that the host did not begin (EAGAIN, EINTR) */
	ROUNDS_MAX = 16, /* before other devices have their turn */
	LOOKS = 16, /* at the queue between two at the clock */
	ZEROS_SIZE = 4096,
	STUCK_MS = 2000, /* how long the end of a VM waits for its disk */
};

/* How the host frees blocks or makes zeros without our writing them. */
enum way { WAY_DISCARD, WAY_PUNCH, WAY_ZERO, WAY_NONE };
static const int way_mode[] = {
	/* Of a block device: whatever the blocks read as afterwards. */
	[WAY_DISCARD] = BLK_MODE_DISCARD,
	[WAY_PUNCH] = BLK_MODE_PUNCH,
	[WAY_ZERO] = BLK_MODE_ZERO,
};

/* One chain at work: one io after another until nothing is left. */
struct request {
	struct blk_io io; /* what the host is asked for now */
	struct request *next; /* in the free list */
	uint32_t type; /* VIRTIO_BLK_T_ */
	uint8_t *status; /* the guest's byte */
	uint64_t offset, left; /* of the disk: what is not done yet of the data or the range */
	uint64_t done; /* bytes of data */
	unsigned retries;
	struct iovec *iov; /* the data that is left, in chain.iov */
	unsigned iov_count;
	uint8_t *bounce; /* BOUNCE_SIZE bytes where O_DIRECT cannot take iov, else NULL; owned */
	struct iovec flat; /* of bounce */
	enum way way;
	unsigned range, ranges; /* DISCARD and WRITE_ZEROES */
	struct virtio_blk_discard_write_zeroes range_at[RANGES_MAX];
	struct chain chain;
};

struct counters {
	uint64_t reads, writes, flushes, discards, read_bytes, written_bytes, errors, bounces;
};

struct blk {
	struct virtio virtio; /* first */
	struct blk_host *host;
	struct watch watch; /* of host->fd */
	bool watched; /* the loop hears of it */
	struct patience patience;
	bool read_only, direct;
	bool ending;
	uint64_t size; /* bytes */
	char id[VIRTIO_BLK_ID_BYTES]; /* not terminated if full */
	unsigned missing; /* ways (1 << way) that the host turned out not to have */
	unsigned in_flight;
	bool asked; /* since the last push */
	struct request *request; /* BLK_HOST_DEPTH of them */
	unsigned fresh; /* from here on never used, their memory untouched */
	struct request *free;
	uint64_t logged_ms;
	struct counters counters;
};

static const uint8_t zeros[ZEROS_SIZE] __attribute__((aligned(ZEROS_SIZE)));

static uint64_t bit(unsigned feature)
{
	return UINT64_C(1) << feature;
}

static struct blk *blk_of(struct virtio *v)
{
	return (struct blk *)v;
}

/* The one used last comes first: how deep the driver goes decides how much memory is touched. */
static struct request *request_get(struct blk *b)
{
	struct request *r = b->free;

	if (r != NULL) {
		b->free = r->next;
	} else if (b->fresh < BLK_HOST_DEPTH) {
		r = &b->request[b->fresh++];
	}
	return r;
}

static void request_put(struct blk *b, struct request *r)
{
	free(r->bounce);
	r->bounce = NULL;
	r->next = b->free;
	b->free = r;
}

static bool request_left(const struct blk *b)
{
	return b->free != NULL || b->fresh < BLK_HOST_DEPTH;
}

/* What comes back is of a driver that is gone. */
static bool dropping(const struct blk *b)
{
	return b->ending || b->virtio.resetting;
}

static void request_end(struct blk *b, struct request *r, uint8_t status)
{
	if (!dropping(b)) {
		*r->status = status;
		queue_push(&b->virtio.queue[0], r->chain.head, r->chain.in_len);
	}
	request_put(b, r);
}

static const char *type_name(uint32_t type)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
		return "read";
	case VIRTIO_BLK_T_OUT:
		return "write";
	case VIRTIO_BLK_T_FLUSH:
		return "flush";
	case VIRTIO_BLK_T_DISCARD:
		return "discard";
	default:
		return "write of zeros";
	}
}

/* The host failed, not the guest. */
static void request_fail(struct blk *b, struct request *r, int error)
{
	uint64_t now = clock_boottime_ms();

	b->counters.errors++;
	if (b->logged_ms == 0 || now - b->logged_ms >= 1000) {
		b->logged_ms = now;
		log_warning("disk-error", "%s: %s at byte %llu, %llu to do: %s", b->virtio.name,
			    type_name(r->type), (unsigned long long)r->offset,
			    (unsigned long long)r->left, strerror(error));
	}
	request_end(b, r, VIRTIO_BLK_S_IOERR);
}

static void ask(struct blk *b, struct request *r)
{
	b->in_flight++;
	b->asked = true;
	b->host->class->queue(b->host, &r->io);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Bytes of the chain in front of the data: buffers of the header. What was taken off a buffer that
 * it shares with the data is no part of it any more (advance). */
static size_t data_front(const struct request *r)
{
	const struct iovec *iov;
	size_t front = 0;

	for (iov = r->chain.iov; iov < r->iov; iov++) {
		front += iov->iov_len;
	}
	return front;
}

static void ask_data(struct blk *b, struct request *r)
{
	r->io.offset = r->offset;
	r->io.len = r->left;
	r->io.iov = r->iov;
	r->io.count = r->iov_count;
	if (r->bounce != NULL) {
		r->io.len = smaller(r->left, BOUNCE_SIZE);
		r->flat = (struct iovec){.iov_base = r->bounce, .iov_len = r->io.len};
		r->io.iov = &r->flat;
		r->io.count = 1;
		if (r->type == VIRTIO_BLK_T_OUT && chain_read(&r->chain, data_front(r) + r->done,
							      r->bounce, r->io.len) < r->io.len) {
			request_fail(b, r, EIO);
			return;
		}
	}
	ask(b, r);
}

/* Zeros by writing them: one page, as often as one io may name it. */
static void ask_zeros(struct blk *b, struct request *r)
{
	uint64_t len = smaller(r->left, (uint64_t)QUEUE_CHAIN_MAX * ZEROS_SIZE);
	unsigned i;

	r->io.op = BLK_WRITE;
	r->io.offset = r->offset;
	r->io.len = len;
	for (i = 0; len > 0; i++) {
		r->chain.iov[i] = (struct iovec){
			.iov_base = (void *)(uintptr_t)zeros,
			.iov_len = smaller(len, ZEROS_SIZE),
		};
		len -= r->chain.iov[i].iov_len;
	}
	r->io.iov = r->chain.iov;
	r->io.count = i;
	ask(b, r);
}

static enum way range_way(const struct blk *b, const struct request *r)
{
	bool discard = r->type == VIRTIO_BLK_T_DISCARD;
	bool may_free =
		discard || (r->range_at[r->range].flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	unsigned ways = ~b->missing;

	if (discard && (ways & 1U << WAY_DISCARD)) {
		return WAY_DISCARD;
	}
	if (may_free && (ways & 1U << WAY_PUNCH)) {
		return WAY_PUNCH;
	}
	return !discard && (ways & 1U << WAY_ZERO) ? WAY_ZERO : WAY_NONE;
}

static void ask_range(struct blk *b, struct request *r)
{
	r->way = range_way(b, r);
	if (r->way != WAY_NONE) {
		r->io.op = BLK_ALLOCATE;
		r->io.mode = way_mode[r->way];
		r->io.offset = r->offset;
		r->io.len = r->left;
		ask(b, r);
	} else if (r->type == VIRTIO_BLK_T_DISCARD) {
		/* A hint, and this host has no use for it. */
		request_end(b, r, VIRTIO_BLK_S_OK);
	} else {
		ask_zeros(b, r);
	}
}

static void begin_range(struct blk *b, struct request *r)
{
	r->offset = r->range_at[r->range].sector * SECTOR;
	r->left = (uint64_t)r->range_at[r->range].num_sectors * SECTOR;
	ask_range(b, r);
}

static void end_range(struct blk *b, struct request *r)
{
	if (++r->range < r->ranges) {
		begin_range(b, r);
	} else if (r->io.stable) {
		r->io.op = BLK_FLUSH;
		ask(b, r);
	} else {
		request_end(b, r, VIRTIO_BLK_S_OK);
	}
}

/* Drops `len` bytes from the front of the data. */
static void advance(struct request *r, size_t len)
{
	while (r->iov_count > 0 && len >= r->iov->iov_len) {
		len -= r->iov->iov_len;
		r->iov++;
		r->iov_count--;
	}
	if (r->iov_count > 0) {
		r->iov->iov_base = (uint8_t *)r->iov->iov_base + len;
		r->iov->iov_len -= len;
	}
}

/* Of data or of zeros, `len` bytes were moved; a short one goes on. */
static void moved(struct blk *b, struct request *r, uint64_t len)
{
	bool data = r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_OUT;

	if (data && r->bounce != NULL && r->type == VIRTIO_BLK_T_IN && !dropping(b)) {
		(void)chain_write(&r->chain, r->done, r->bounce, len);
	}
	r->retries = 0;
	r->offset += len;
	r->left -= len;
	r->done += len;
	if (!data) {
		if (r->left > 0) {
			ask_zeros(b, r);
		} else {
			end_range(b, r);
		}
	} else if (r->left == 0) {
		request_end(b, r, VIRTIO_BLK_S_OK);
	} else {
		if (r->bounce == NULL) {
			advance(r, len);
		}
		ask_data(b, r);
	}
}

static bool unsupported(int error)
{
	return error == EOPNOTSUPP || error == ENODEV || error == ENOSYS;
}

/* Forward, again, or to the end: what the host said of r->io. */
static void request_step(struct blk *b, struct request *r)
{
	int64_t result = r->io.result;

	if (dropping(b)) {
		request_end(b, r, VIRTIO_BLK_S_IOERR);
	} else if ((result == -EAGAIN || result == -EINTR) && r->retries < RETRIES_MAX) {
		r->retries++;
		ask(b, r);
	} else if (r->io.op == BLK_ALLOCATE && unsupported((int)-result)) {
		b->missing |= 1U << r->way;
		ask_range(b, r);
	} else if (result < 0) {
		request_fail(b, r, (int)-result);
	} else if (r->io.op == BLK_ALLOCATE) {
		end_range(b, r);
	} else if (r->io.op == BLK_FLUSH) {
		request_end(b, r, VIRTIO_BLK_S_OK);
	} else if (result == 0 || (uint64_t)result > r->io.len) {
		/* The file is shorter than it was. */
		request_fail(b, r, EIO);
	} else {
		moved(b, r, (uint64_t)result);
	}
}

static bool in_disk(const struct blk *b, uint64_t sector, uint64_t len)
{
	uint64_t sectors = b->size / SECTOR;

	return len > 0 && len % SECTOR == 0 && sector < sectors && len / SECTOR <= sectors - sector;
}

static bool aligned(const struct iovec *iov, unsigned count)
{
	uintptr_t bits = 0;
	unsigned i;

	for (i = 0; i < count; i++) {
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	}
	return bits % SECTOR == 0;
}

static void begin_data(struct blk *b, struct request *r, uint64_t sector)
{
	struct chain *c = &r->chain;
	bool write = r->type == VIRTIO_BLK_T_OUT;

	r->done = 0;
	r->left = write ? c->out_len - sizeof(struct virtio_blk_outhdr) : c->in_len - 1;
	if (!in_disk(b, sector, r->left) || (write && b->read_only)) {
		request_end(b, r, VIRTIO_BLK_S_IOERR);
		return;
	}
	r->offset = sector * SECTOR;
	r->iov = write ? c->iov : c->iov + c->out_count;
	r->iov_count = write ? c->out_count : c->in_count;
	r->io.op = write ? BLK_WRITE : BLK_READ;
	if (write) {
		b->counters.writes++;
		b->counters.written_bytes += r->left;
		advance(r, sizeof(struct virtio_blk_outhdr));
	} else {
		b->counters.reads++;
		b->counters.read_bytes += r->left;
		if (--r->iov[r->iov_count - 1].iov_len == 0) {
			r->iov_count--;
		}
	}
	if (b->direct && !aligned(r->iov, r->iov_count)) {
		b->counters.bounces++;
		r->bounce = aligned_alloc(ZEROS_SIZE, BOUNCE_SIZE);
		if (r->bounce == NULL) {
			request_fail(b, r, ENOMEM);
			return;
		}
	}
	ask_data(b, r);
}

/* Status of a set of ranges before any is begun. */
static uint8_t check_ranges(const struct blk *b, const struct request *r)
{
	uint32_t flags = r->type == VIRTIO_BLK_T_DISCARD ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	unsigned i;

	for (i = 0; i < r->ranges; i++) {
		const struct virtio_blk_discard_write_zeroes *range = &r->range_at[i];

		if (range->flags & ~flags) {
			return VIRTIO_BLK_S_UNSUPP;
		}
		if (range->num_sectors > RANGE_SECTORS_MAX ||
		    !in_disk(b, range->sector, (uint64_t)range->num_sectors * SECTOR)) {
			return VIRTIO_BLK_S_IOERR;
		}
	}
	return VIRTIO_BLK_S_OK;
}

static void begin_ranges(struct blk *b, struct request *r)
{
	uint64_t feature = r->type == VIRTIO_BLK_T_DISCARD ? bit(VIRTIO_BLK_F_DISCARD)
							   : bit(VIRTIO_BLK_F_WRITE_ZEROES);
	size_t len = r->chain.out_len - sizeof(struct virtio_blk_outhdr);
	uint8_t status;

	/* Not offered for a read-only disk, and then an error like any write. */
	if (b->read_only || len == 0 || len % sizeof(r->range_at[0]) != 0 ||
	    len > sizeof(r->range_at)) {
		request_end(b, r, VIRTIO_BLK_S_IOERR);
		return;
	}
	(void)chain_read(&r->chain, sizeof(struct virtio_blk_outhdr), r->range_at, len);
	r->range = 0;
	r->ranges = (unsigned)(len / sizeof(r->range_at[0]));
	status = virtio_has(&b->virtio, feature) ? check_ranges(b, r) : VIRTIO_BLK_S_UNSUPP;
	if (status != VIRTIO_BLK_S_OK) {
		request_end(b, r, status);
		return;
	}
	b->counters.discards++;
	begin_range(b, r);
}

static void begin_flush(struct blk *b, struct request *r)
{
	b->counters.flushes++;
	if (b->read_only) {
		/* Not offered, and nothing was written. */
		request_end(b, r, VIRTIO_BLK_S_OK);
		return;
	}
	r->offset = r->left = 0;
	r->io.op = BLK_FLUSH;
	ask(b, r);
}

static void tell_id(struct blk *b, struct request *r)
{
	(void)chain_write(&r->chain, 0, b->id, smaller(sizeof(b->id), r->chain.in_len - 1));
	request_end(b, r, VIRTIO_BLK_S_OK);
}

static void request_begin(struct blk *b, struct request *r, const struct virtio_blk_outhdr *header)
{
	r->type = header->type;
	r->retries = 0;
	/* Who does not know of flushes relies on every write (5.2.6.2). */
	r->io.stable = !virtio_has(&b->virtio, bit(VIRTIO_BLK_F_FLUSH));
	switch (r->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		begin_data(b, r, header->sector);
		break;
	case VIRTIO_BLK_T_FLUSH:
		begin_flush(b, r);
		break;
	case VIRTIO_BLK_T_GET_ID:
		tell_id(b, r);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		begin_ranges(b, r);
		break;
	default:
		request_end(b, r, VIRTIO_BLK_S_UNSUPP);
	}
}

/* The last byte that the device writes (5.2.6). */
static uint8_t *status_of(const struct chain *c)
{
	unsigned last = c->out_count + c->in_count - 1U;

	return (uint8_t *)c->iov[last].iov_base + c->iov[last].iov_len - 1;
}

/* Chains without room for header and status are no requests at all. */
static bool accept_one(struct blk *b, struct request *r)
{
	struct virtio_blk_outhdr header;

	if (r->chain.in_len == 0 ||
	    chain_read(&r->chain, 0, &header, sizeof(header)) < sizeof(header)) {
		virtio_fail(&b->virtio, "a disk request without header or status");
		request_put(b, r);
		return false;
	}
	r->status = status_of(&r->chain);
	request_begin(b, r, &header);
	return true;
}

/* What the driver has put up, as far as there are requests. False if it broke the rules. */
static bool accept_all(struct blk *b)
{
	struct request *r;

	while ((r = request_get(b)) != NULL) {
		if (virtio_pop(&b->virtio, 0, &r->chain) == 0) {
			request_put(b, r);
			return b->virtio.active;
		}
		if (!accept_one(b, r)) {
			return false;
		}
	}
	return true;
}

/* All that is done by now, and what follows from it. */
static void collect(struct blk *b)
{
	const struct blk_host_class *class = b->host->class;
	struct blk_io *io;

	do {
		if (b->asked) {
			b->asked = false;
			class->push(b->host);
		}
		while ((io = class->take(b->host)) != NULL) {
			b->in_flight--;
			request_step(b, (struct request *)io);
		}
	} while (b->asked);
}

/* A disk that answers on the spot need not wake the loop with what was taken already: that is a
 * tenth of a small read. The last state is kept, so that a slow disk costs no call for each
 * request. */
static void watch_host(struct blk *b, bool wanted)
{
	if (wanted != b->watched && loop_modify(&b->watch, wanted ? EPOLLIN : 0) == 0) {
		b->watched = wanted;
	}
}

static uint64_t now_us(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Lets another thread of this processor go first, where there is such a hint. */
static void relax(void)
{
#ifdef __aarch64__
	__asm__ volatile("yield");
#endif
}

/* All is answered: does the driver's next request come at once? */
static bool look_out(struct blk *b)
{
	uint64_t until;
	bool came = false;

	if (b->in_flight > 0 || !patience_pays(&b->patience)) {
		return false;
	}
	until = now_us() + PATIENCE_WINDOW_US;
	while (!came && now_us() < until) {
		unsigned i;

		for (i = 0; i < LOOKS && !came; i++) {
			relax();
			came = queue_has_work(&b->virtio.queue[0]);
		}
	}
	patience_looked(&b->patience, came);
	return came;
}

/* New requests to the host in one go; what it does on the spot (page cache, RAM disk) goes back
 * with one interrupt and without a turn of the loop. */
static void work(struct blk *b)
{
	struct queue *q = &b->virtio.queue[0];
	unsigned round;

	queue_spare_kick(q);
	for (round = 0; round < ROUNDS_MAX; round++) {
		bool ok = accept_all(b), all = request_left(b);

		collect(b);
		watch_host(b, b->in_flight > 0);
		virtio_signal(&b->virtio, 0);
		if (ok && all && look_out(b)) {
			continue;
		}
		/* With no request left, what comes back from the host brings us here again. */
		if (!ok || !request_left(b) || (all && !queue_want_kick(q))) {
			return;
		}
	}
	virtio_kick(&b->virtio, 0);
}

static void blk_kick(struct virtio *v, unsigned index)
{
	struct blk *b = blk_of(v);

	(void)index;
	patience_kicked(&b->patience, now_us());
	work(b);
	patience_left(&b->patience, now_us());
}

static void host_ready(struct watch *watch, uint32_t events)
{
	struct blk *b = (struct blk *)((char *)watch - offsetof(struct blk, watch));
	bool waited_for = !request_left(b);

	(void)events;
	collect(b);
	virtio_signal(&b->virtio, 0);
	if (waited_for && b->virtio.active && !b->virtio.paused) {
		work(b);
	}
	if (b->in_flight == 0) {
		virtio_drained(&b->virtio);
	}
}

/* Until nothing is with the host, at most `wait_ms` (negative: as long as it takes). True if
 * nothing is. */
static bool drain(struct blk *b, int wait_ms)
{
	uint64_t until = wait_ms > 0 ? clock_boottime_ms() + (uint64_t)wait_ms : 0;

	collect(b);
	while (b->in_flight > 0) {
		uint64_t now = wait_ms > 0 ? clock_boottime_ms() : 0;

		if (wait_ms >= 0 && now >= until) {
			return false;
		}
		b->host->class->wait(b->host, wait_ms < 0 ? -1 : (int)(until - now));
		collect(b);
	}
	return true;
}

static bool blk_drain(struct virtio *v, int wait_ms)
{
	struct blk *b = blk_of(v);
	bool worked = b->in_flight > 0, drained = drain(b, wait_ms);

	/* A ring that was restored and not moved since is told nothing. */
	if (worked) {
		virtio_signal(v, 0);
	}
	return drained;
}

static const struct virtio_class blk_class = {
	.id = VIRTIO_ID_BLOCK,
	.name = "blk",
	.queues = 1,
	.queue_size = QUEUE_SIZE,
	.kick = blk_kick,
	.drain = blk_drain,
};

/* Configuration (5.2.4) and features. */
static void describe(struct blk *b, const struct blk_disk *disk)
{
	const struct virtio_blk_config config = {
		.capacity = disk->size / SECTOR,
		.seg_max = SEGMENTS_MAX,
		.blk_size = disk->sector,
		.max_discard_sectors = RANGE_SECTORS_MAX,
		.max_discard_seg = RANGES_MAX,
		.discard_sector_alignment = disk->block / SECTOR,
		.max_write_zeroes_sectors = RANGE_SECTORS_MAX,
		.max_write_zeroes_seg = RANGES_MAX,
		.write_zeroes_may_unmap = 1,
	};

	_Static_assert(sizeof(config) <= VIRTIO_CONFIG_MAX, "room for the configuration");
	b->size = disk->size;
	b->missing = disk->file ? 1U << WAY_DISCARD : 0;
	memcpy(b->virtio.config, &config, sizeof(config));
	b->virtio.config_len = sizeof(config);
	b->virtio.features = bit(VIRTIO_BLK_F_SEG_MAX) | bit(VIRTIO_BLK_F_BLK_SIZE);
	b->virtio.features |= b->read_only ? bit(VIRTIO_BLK_F_RO)
					   : bit(VIRTIO_BLK_F_FLUSH) | bit(VIRTIO_BLK_F_DISCARD) |
						     bit(VIRTIO_BLK_F_WRITE_ZEROES);
}

static int host_create(const struct blk_config *c, struct blk_host **ret)
{
	if (!c->force_threads && blk_uring_create(c->fd, c->read_only, ret) == 0) {
		return 0;
	}
	return blk_threads_create(c->fd, c->read_only, ret);
}

int blk_create_on(struct blk_host *host, const struct blk_config *c, const struct ram *ram,
		  struct loop *loop, const char *name, struct blk **ret, struct fault *f)
{
	const char *id = c->id != NULL && c->id[0] != '\0' ? c->id : name;
	struct blk *b = mem_zalloc(sizeof(*b));
	struct blk_disk disk;
	int rv;

	b->host = host;
	b->read_only = c->read_only;
	b->direct = c->direct;
	b->request = mem_zalloc(BLK_HOST_DEPTH * sizeof(*b->request));
	b->watch.ready = host_ready;
	memcpy(b->id, id, strnlen(id, sizeof(b->id)));
	rv = blk_disk_examine(c, name, &disk, f);
	if (rv == 0) {
		describe(b, &disk);
		rv = host != NULL ? 0 : host_create(c, &b->host);
		rv = rv < 0 ? rv : virtio_init(&b->virtio, &blk_class, ram, loop, name);
		rv = rv < 0 ? rv : loop_add(loop, &b->watch, b->host->fd, EPOLLIN);
		b->watched = rv == 0;
		if (rv < 0) {
			(void)fault_set(f, rv, "%s: cannot make the disk's queue: %s", name,
					strerror(-rv));
		}
	}
	if (rv < 0) {
		blk_destroy(b);
		return rv;
	}
	*ret = b;
	return 0;
}

int blk_create(const struct blk_config *c, const struct ram *ram, struct loop *loop,
	       const char *name, struct blk **ret, struct fault *f)
{
	return blk_create_on(NULL, c, ram, loop, name, ret, f);
}

void blk_destroy(struct blk *b)
{
	if (b == NULL) {
		return;
	}
	loop_remove(&b->watch);
	virtio_close(&b->virtio);
	b->ending = true;
	if (b->host != NULL) {
		if (!drain(b, STUCK_MS)) {
			/* The host may still write into our memory: all of it stays. */
			log_warning("disk-stuck", "%s: %u requests do not come back from the host",
				    b->virtio.name, b->in_flight);
			return;
		}
		b->host->class->close(b->host);
	}
	free(b->request);
	free(b);
}

struct virtio *blk_virtio(struct blk *b)
{
	return &b->virtio;
}

const char *blk_engine(const struct blk *b)
{
	return b->host->class->name;
}

void blk_stats(const struct blk *b, const struct stats_sink *s)
{
	const struct counters *c = &b->counters;
	const char *part = b->virtio.name;

	virtio_stats(&b->virtio, s);
	s->add(s->arg, part, "reads", c->reads, false);
	s->add(s->arg, part, "read-bytes", c->read_bytes, false);
	s->add(s->arg, part, "writes", c->writes, false);
	s->add(s->arg, part, "write-bytes", c->written_bytes, false);
	s->add(s->arg, part, "flushes", c->flushes, false);
	s->add(s->arg, part, "discards", c->discards, false);
	s->add(s->arg, part, "errors", c->errors, false);
	s->add(s->arg, part, "bounced", c->bounces, false);
	s->add(s->arg, part, "in-flight", b->in_flight, true);
}
