#include "hv/virtio/queue.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "rings are little-endian, like all hosts");
_Static_assert((QUEUE_SIZE_MAX & (QUEUE_SIZE_MAX - 1)) == 0, "a power of two");

/* virtio 1.2, 2.7.5 to 2.7.8. */
enum {
	DESC_SIZE = 16,
	DESC_NEXT = 1,
	DESC_WRITE = 2,
	DESC_INDIRECT = 4,
	AVAIL_NO_INTERRUPT = 1,
	USED_NO_NOTIFY = 1,
};

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct used_entry {
	uint32_t id, len;
};

/* Guest memory: what is in it changes at any time; indirect tables may lie anywhere. */
typedef volatile uint64_t guest_word __attribute__((aligned(1), may_alias));

/* The driver writes these while we read, and the other way round. */
struct avail_ring {
	uint16_t flags, idx, ring[];
};

struct used_ring {
	uint16_t flags, idx;
	struct used_entry ring[];
};

static uint16_t load(const uint16_t *at)
{
	return __atomic_load_n(at, __ATOMIC_RELAXED);
}

static void store(uint16_t *at, uint16_t value)
{
	__atomic_store_n(at, value, __ATOMIC_RELAXED);
}

static struct avail_ring *avail_of(const struct queue *q)
{
	return q->avail_at;
}

static struct used_ring *used_of(const struct queue *q)
{
	return q->used_at;
}

/* "Interrupt me when this entry was used": behind the available ring. */
static uint16_t used_event(const struct queue *q)
{
	return load(&avail_of(q)->ring[q->size]);
}

/* "Notify me when this entry is available": behind the used ring. */
static uint16_t *avail_event(const struct queue *q)
{
	return (uint16_t *)(void *)&used_of(q)->ring[q->size];
}

static uint16_t avail_idx(const struct queue *q)
{
	return __atomic_load_n(&avail_of(q)->idx, __ATOMIC_ACQUIRE);
}

static void *area(const struct ram *ram, uint64_t guest, uint64_t len, uint64_t align)
{
	return guest % align == 0 ? ram_at(ram, guest, len) : NULL;
}

bool queue_enable(struct queue *q, const struct ram *ram)
{
	uint64_t n = q->size;

	if (n == 0 || n > QUEUE_SIZE_MAX || (n & (n - 1)) != 0) {
		return false;
	}
	q->desc_at = area(ram, q->desc, DESC_SIZE * n, DESC_SIZE);
	q->avail_at = area(ram, q->avail, sizeof(struct avail_ring) + 2 * n + 2, 2);
	q->used_at =
		area(ram, q->used, sizeof(struct used_ring) + sizeof(struct used_entry) * n + 2, 4);
	q->ram = ram;
	q->ready = q->desc_at != NULL && q->avail_at != NULL && q->used_at != NULL;
	return q->ready;
}

void queue_reset(struct queue *q)
{
	*q = (struct queue){0};
}

static struct desc desc_read(const void *table, unsigned index)
{
	const guest_word *at = (const guest_word *)table + (size_t)index * 2;
	uint64_t words[2] = {at[0], at[1]};
	struct desc d;

	memcpy(&d, words, sizeof(d));
	return d;
}

static int chain_add(struct chain *c, const struct ram *ram, const struct desc *d)
{
	unsigned count = c->out_count + c->in_count;
	void *at = ram_at(ram, d->addr, d->len);
	bool in = (d->flags & DESC_WRITE) != 0;
	uint32_t *sum = in ? &c->in_len : &c->out_len;

	/* What the device reads comes before what it writes (2.7.4.2). */
	if (at == NULL || count == QUEUE_CHAIN_MAX || (!in && c->in_count > 0) ||
	    __builtin_add_overflow(*sum, d->len, sum)) {
		return -EBADMSG;
	}
	c->iov[count] = (struct iovec){.iov_base = at, .iov_len = d->len};
	if (in) {
		c->in_count++;
	} else {
		c->out_count++;
	}
	return 0;
}

/* Adds the buffers of `table` from `index` on. 0: that was all; 1: *ret_indirect is the last of
 * them and names a table; -EBADMSG. A chain that comes back to itself ends at the step count. */
static int chain_walk(struct chain *c, const struct ram *ram, const void *table, unsigned entries,
		      unsigned index, struct desc *ret_indirect)
{
	unsigned steps;

	for (steps = 0; steps < entries && index < entries; steps++) {
		struct desc d = desc_read(table, index);

		if ((d.flags & DESC_INDIRECT) != 0) {
			*ret_indirect = d;
			return 1;
		}
		if (chain_add(c, ram, &d) < 0) {
			return -EBADMSG;
		}
		if ((d.flags & DESC_NEXT) == 0) {
			return 0;
		}
		index = d.next;
	}
	return -EBADMSG;
}

/* The table of an indirect descriptor (2.7.5.3); there is no other in it. */
static int chain_walk_indirect(struct chain *c, const struct queue *q, const struct desc *d)
{
	const void *table = ram_at(q->ram, d->addr, d->len);
	struct desc nested;

	if (!q->indirect || (d->flags & DESC_NEXT) != 0 || table == NULL ||
	    d->len % DESC_SIZE != 0) {
		return -EBADMSG;
	}
	return chain_walk(c, q->ram, table, d->len / DESC_SIZE, 0, &nested) == 0 ? 0 : -EBADMSG;
}

int queue_pop(struct queue *q, struct chain *ret)
{
	struct desc indirect;
	uint16_t ahead;
	int rv;

	if (!q->ready) {
		return 0;
	}
	ahead = (uint16_t)(avail_idx(q) - q->next_avail);
	if (ahead == 0) {
		return 0;
	}
	if (ahead > q->size) {
		return -EBADMSG;
	}
	ret->head = load(&avail_of(q)->ring[q->next_avail & (q->size - 1)]);
	ret->out_count = ret->in_count = 0;
	ret->out_len = ret->in_len = 0;
	rv = chain_walk(ret, q->ram, q->desc_at, q->size, ret->head, &indirect);
	if (rv == 1) {
		rv = chain_walk_indirect(ret, q, &indirect);
	}
	if (rv < 0) {
		return rv;
	}
	q->next_avail++;
	return 1;
}

void queue_unpop(struct queue *q)
{
	if (q->ready) {
		q->next_avail--;
	}
}

void queue_put(struct queue *q, uint16_t head, uint32_t written)
{
	if (!q->ready) {
		return;
	}
	assert(head < q->size);
	used_of(q)->ring[q->next_used & (q->size - 1)] =
		(struct used_entry){.id = head, .len = written};
	q->next_used++;
}

void queue_push(struct queue *q, uint16_t head, uint32_t written)
{
	queue_put(q, head, written);
	if (q->ready) {
		__atomic_store_n(&used_of(q)->idx, q->next_used, __ATOMIC_RELEASE);
	}
}

bool queue_must_signal(struct queue *q)
{
	uint16_t old = q->signalled;
	bool known = q->signalled_valid;

	if (!q->ready || old == q->next_used) {
		return false;
	}
	q->signalled = q->next_used;
	q->signalled_valid = true;
	/* The driver sets its wish, then looks at the index; we have set the index and look at the
	 * wish. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx) {
		return (load(&avail_of(q)->flags) & AVAIL_NO_INTERRUPT) == 0;
	}
	/* Is the entry that it waits for among those added since (2.7.7.2)? */
	return !known ||
	       (uint16_t)(q->next_used - used_event(q) - 1) < (uint16_t)(q->next_used - old);
}

bool queue_want_kick(struct queue *q)
{
	if (!q->ready) {
		return false;
	}
	if (q->event_idx) {
		store(avail_event(q), q->next_avail);
	} else {
		store(&used_of(q)->flags, 0);
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return queue_has_work(q);
}

bool queue_kick_wanted(const struct queue *q)
{
	if (!q->ready) {
		return false;
	}
	return q->event_idx ? load(avail_event(q)) == q->next_avail
			    : (load(&used_of(q)->flags) & USED_NO_NOTIFY) == 0;
}

void queue_spare_kick(struct queue *q)
{
	/* With event indices an old one is wish enough: nothing comes until the ring has wrapped.
	 */
	if (q->ready && !q->event_idx) {
		store(&used_of(q)->flags, USED_NO_NOTIFY);
	}
}

bool queue_has_work(const struct queue *q)
{
	return q->ready && avail_idx(q) != q->next_avail;
}

uint16_t queue_used_idx(const struct queue *q)
{
	return load(&used_of(q)->idx);
}

/* The iovec among iov[0 .. count) in which byte *offset lies, *offset made relative to it. */
static unsigned iov_seek(const struct iovec *iov, unsigned count, size_t *offset)
{
	unsigned i;

	for (i = 0; i < count && *offset >= iov[i].iov_len; i++) {
		*offset -= iov[i].iov_len;
	}
	return i;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t chain_read(const struct chain *c, size_t offset, void *to, size_t len)
{
	size_t done = 0;
	unsigned i;

	for (i = iov_seek(c->iov, c->out_count, &offset); i < c->out_count && done < len; i++) {
		size_t part = smaller(c->iov[i].iov_len - offset, len - done);

		memcpy((uint8_t *)to + done, (const uint8_t *)c->iov[i].iov_base + offset, part);
		done += part;
		offset = 0;
	}
	return done;
}

size_t chain_write(const struct chain *c, size_t offset, const void *from, size_t len)
{
	const struct iovec *iov = c->iov + c->out_count;
	size_t done = 0;
	unsigned i;

	for (i = iov_seek(iov, c->in_count, &offset); i < c->in_count && done < len; i++) {
		size_t part = smaller(iov[i].iov_len - offset, len - done);

		memcpy((uint8_t *)iov[i].iov_base + offset, (const uint8_t *)from + done, part);
		done += part;
		offset = 0;
	}
	return done;
}
