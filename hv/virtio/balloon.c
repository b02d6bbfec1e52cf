#include "hv/virtio/balloon.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "hv/layout.h"
#include "lib/mem.h"

/* Numbers of the queues (5.5.2), and of features (5.5.3). */
enum {
	INFLATEQ = 0,
	DEFLATEQ = 1,
	STATSQ = 2,
	QUEUES = 5,
	QUEUE_SIZE = 64,
	CONFIG_LEN = 8, /* num_pages, actual; the rest belongs to features not offered */
};
#define F_STATS (UINT64_C(1) << VIRTIO_BALLOON_F_STATS_VQ)
#define F_DEFLATE_ON_OOM (UINT64_C(1) << VIRTIO_BALLOON_F_DEFLATE_ON_OOM)
#define F_REPORTING (UINT64_C(1) << VIRTIO_BALLOON_F_REPORTING)

enum {
	PAGES_MAX = 4096, /* numbers in one request; Linux sends 256 */
	PAGES_READ = 256, /* read at once */
	KICK_CHAINS = 16, /* before others have their turn */
	STATS_MAX = 64, /* entries looked at */
};

/* Names of the tags, in their order. */
static const char *const guest_words[] = {
	"guest-swap-in",  "guest-swap-out",    "guest-major-faults", "guest-minor-faults",
	"guest-free",	  "guest-total",       "guest-available",    "guest-caches",
	"guest-huge-got", "guest-huge-failed",
};
enum { GUEST_WORDS = sizeof(guest_words) / sizeof(guest_words[0]) };

struct balloon {
	struct virtio v; /* first */
	uint32_t target, actual; /* pages */
	uint64_t inflated, deflated; /* pages, ever */
	uint64_t reported; /* bytes, ever */
	uint64_t guest[GUEST_WORDS]; /* by tag */
	uint32_t guest_known; /* bit i: guest[i] was told */
};

/* Neighbouring pages of a request, to be released together. */
struct run {
	uint32_t first, end; /* page numbers; empty if equal */
};

enum role { ROLE_NONE, ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_REPORT };

static struct balloon *balloon_of(struct virtio *v)
{
	return (struct balloon *)(void *)v;
}

/* Reporting has number 4; Linux before 6.11 counts only the queues that it uses, and comes to 3, or
 * to 2 without statistics. Nothing else can be meant by these, so all are taken. */
static enum role role_of(const struct virtio *v, unsigned index)
{
	if (index == INFLATEQ) {
		return ROLE_INFLATE;
	}
	if (index == DEFLATEQ) {
		return ROLE_DEFLATE;
	}
	if (index == STATSQ && virtio_has(v, F_STATS)) {
		return ROLE_STATS;
	}
	return virtio_has(v, F_REPORTING) ? ROLE_REPORT : ROLE_NONE;
}

static void run_release(const struct balloon *b, struct run *run)
{
	if (run->first < run->end) {
		/* Best effort: what the host does not take back, the guest still does not use. */
		(void)ram_release(b->v.ram, (uint64_t)run->first * BALLOON_PAGE,
				  (uint64_t)(run->end - run->first) * BALLOON_PAGE);
	}
	*run = (struct run){0};
}

/* Linux takes pages one by one out of larger blocks: they come ascending or descending. */
static void run_add(const struct balloon *b, struct run *run, uint32_t page)
{
	if (run->first < run->end && page == run->end) {
		run->end++;
	} else if (run->first < run->end && page + 1 == run->first) {
		run->first--;
	} else {
		run_release(b, run);
		*run = (struct run){.first = page, .end = page + 1};
	}
}

static bool page_good(const struct balloon *b, uint32_t page)
{
	return ram_at(b->v.ram, (uint64_t)page * BALLOON_PAGE, BALLOON_PAGE) != NULL;
}

/* Numbers [offset, ...) of the chain; returns how many, 0 at the end. */
static unsigned pages_read(const struct chain *c, unsigned offset, uint32_t pages[PAGES_READ])
{
	return (unsigned)(chain_read(c, offset * sizeof(pages[0]), pages,
				     PAGES_READ * sizeof(pages[0])) /
			  sizeof(pages[0]));
}

/* -EBADMSG: one of the numbers is no page of the guest's RAM. */
static int inflate(struct balloon *b, const struct chain *c)
{
	uint32_t pages[PAGES_READ];
	struct run run = {0};
	unsigned done, count, i;
	int rv = 0;

	for (done = 0; rv == 0 && (count = pages_read(c, done, pages)) > 0; done += count) {
		for (i = 0; i < count && rv == 0; i++) {
			if (page_good(b, pages[i])) {
				run_add(b, &run, pages[i]);
				b->inflated++;
			} else {
				rv = -EBADMSG;
			}
		}
	}
	run_release(b, &run);
	return rv;
}

/* Free blocks of the guest: their content is not needed any more. */
static void report(struct balloon *b, const struct chain *c)
{
	unsigned i;

	for (i = c->out_count; i < (unsigned)c->out_count + c->in_count; i++) {
		uint64_t offset = (uint64_t)((uint8_t *)c->iov[i].iov_base - b->v.ram->host);

		(void)ram_release(b->v.ram, LAYOUT_RAM + offset, c->iov[i].iov_len);
		b->reported += c->iov[i].iov_len;
	}
}

static int handle(struct balloon *b, enum role role, const struct chain *c)
{
	switch (role) {
	case ROLE_INFLATE:
	case ROLE_DEFLATE:
		if (c->out_len > PAGES_MAX * sizeof(uint32_t) ||
		    c->out_len % sizeof(uint32_t) != 0) {
			return -EBADMSG;
		}
		if (role == ROLE_INFLATE) {
			return inflate(b, c);
		}
		b->deflated += c->out_len / sizeof(uint32_t);
		return 0;
	case ROLE_REPORT:
		report(b, c);
		return 0;
	default:
		return -EBADMSG;
	}
}

/* At most KICK_CHAINS chains of a queue whose chains are given back at once. */
static void serve(struct balloon *b, unsigned index, enum role role)
{
	struct queue *q = &b->v.queue[index];
	unsigned left = KICK_CHAINS;
	struct chain c;

	do {
		while (left > 0 && virtio_pop(&b->v, index, &c) == 1) {
			if (handle(b, role, &c) < 0) {
				virtio_fail(&b->v, "a request about pages that it does not have");
				return;
			}
			queue_push(q, c.head, 0);
			left--;
		}
	} while (queue_want_kick(q) && left > 0);
	virtio_signal(&b->v, index);
	if (queue_has_work(q)) {
		virtio_kick(&b->v, index);
	}
}

static void stats_read(struct balloon *b, const struct chain *c)
{
	struct virtio_balloon_stat stat;
	unsigned i;

	for (i = 0;
	     i < STATS_MAX && chain_read(c, i * sizeof(stat), &stat, sizeof(stat)) == sizeof(stat);
	     i++) {
		if (stat.tag < GUEST_WORDS) {
			b->guest[stat.tag] = stat.val;
			b->guest_known |= UINT32_C(1) << stat.tag;
		}
	}
}

/* The driver's numbers came. The chain stays in the ring until balloon_poll wants new ones: so
 * there is nothing to remember, and nothing to save. */
static void stats_kick(struct balloon *b)
{
	struct chain c;

	if (virtio_pop(&b->v, STATSQ, &c) == 1) {
		stats_read(b, &c);
		queue_unpop(&b->v.queue[STATSQ]);
	}
}

void balloon_poll(struct balloon *b)
{
	struct queue *q = &b->v.queue[STATSQ];
	struct chain c;

	if (!b->v.active || b->v.paused || role_of(&b->v, STATSQ) != ROLE_STATS ||
	    virtio_pop(&b->v, STATSQ, &c) != 1) {
		return;
	}
	queue_push(q, c.head, 0);
	if (queue_want_kick(q)) {
		stats_kick(b);
	}
	virtio_signal(&b->v, STATSQ);
}

static void kick(struct virtio *v, unsigned index)
{
	enum role role = role_of(v, index);

	if (role == ROLE_STATS) {
		stats_kick(balloon_of(v));
	} else {
		serve(balloon_of(v), index, role);
	}
}

/* num_pages is ours, actual is the driver's. */
static void config_put(struct balloon *b)
{
	memcpy(b->v.config, &b->target, sizeof(b->target));
	memcpy(b->v.config + 4, &b->actual, sizeof(b->actual));
}

static void config_written(struct virtio *v, unsigned offset, unsigned len)
{
	struct balloon *b = balloon_of(v);

	(void)offset;
	(void)len;
	memcpy(&b->actual, v->config + 4, sizeof(b->actual));
	config_put(b);
}

void balloon_set_target(struct balloon *b, uint32_t pages)
{
	uint64_t most = b->v.ram->size / BALLOON_PAGE;

	pages = pages < most ? pages : (uint32_t)most;
	if (pages != b->target) {
		b->target = pages;
		config_put(b);
		virtio_config_changed(&b->v);
	}
}

uint32_t balloon_actual(const struct balloon *b)
{
	return b->actual;
}

static void reset(struct virtio *v)
{
	struct balloon *b = balloon_of(v);

	/* A guest that begins anew has all its pages; what is wanted of it stays. */
	b->actual = 0;
	b->guest_known = 0;
	config_put(b);
}

static unsigned save(const struct virtio *v, uint64_t words[VIRTIO_STATE_WORDS])
{
	const struct balloon *b = (const struct balloon *)(const void *)v;

	words[0] = b->target;
	words[1] = b->actual;
	return 2;
}

static int load(struct virtio *v, const uint64_t *words, unsigned count)
{
	struct balloon *b = balloon_of(v);

	if (count != 2 || words[0] > v->ram->size / BALLOON_PAGE || words[1] > UINT32_MAX) {
		return -EINVAL;
	}
	b->target = (uint32_t)words[0];
	b->actual = (uint32_t)words[1];
	config_put(b);
	return 0;
}

static const struct virtio_class class = {
	.id = VIRTIO_ID_BALLOON,
	.name = "balloon",
	.queues = QUEUES,
	.queue_size = QUEUE_SIZE,
	.rare_kicks = UINT32_MAX,
	.kick = kick,
	.reset = reset,
	.config_written = config_written,
	.save = save,
	.load = load,
};

int balloon_create(const struct balloon_config *config, const struct ram *ram, struct loop *loop,
		   const char *name, struct balloon **ret, struct fault *fault)
{
	struct balloon *b = mem_zalloc(sizeof(*b));
	int rv;

	b->v.features = F_STATS | F_DEFLATE_ON_OOM | F_REPORTING;
	b->v.config_len = CONFIG_LEN;
	rv = virtio_init(&b->v, &class, ram, loop, name);
	if (rv < 0) {
		balloon_destroy(b);
		return fault_set(fault, rv, "%s: cannot make its descriptors: %s", name,
				 strerror(-rv));
	}
	if (config != NULL) {
		balloon_set_target(b, config->target);
	}
	*ret = b;
	return 0;
}

struct virtio *balloon_virtio(struct balloon *b)
{
	return &b->v;
}

void balloon_destroy(struct balloon *b)
{
	if (b != NULL) {
		virtio_close(&b->v);
		free(b);
	}
}

void balloon_stats(const struct balloon *b, const struct stats_sink *sink)
{
	unsigned i;

	virtio_stats(&b->v, sink);
	sink->add(sink->arg, b->v.name, "target-pages", b->target, true);
	sink->add(sink->arg, b->v.name, "actual-pages", b->actual, true);
	sink->add(sink->arg, b->v.name, "inflated-pages", b->inflated, false);
	sink->add(sink->arg, b->v.name, "deflated-pages", b->deflated, false);
	sink->add(sink->arg, b->v.name, "reported-bytes", b->reported, false);
	for (i = 0; i < GUEST_WORDS; i++) {
		if ((b->guest_known & UINT32_C(1) << i) != 0) {
			sink->add(sink->arg, b->v.name, guest_words[i], b->guest[i], true);
		}
	}
}
