#include "hv/virtio/console.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

/* virtio 1.2, 5.3. */
enum {
	F_SIZE = 1 << 0,
	RECEIVEQ = 0,
	TRANSMITQ = 1,
	QUEUE_SIZE = 64,
	CONFIG_LEN = 12,
};

enum {
	PIECE = 1024, /* bytes copied out of guest memory at once */
	KICK_MAX = 64 << 10, /* bytes taken from the guest before others have their turn */
	CHAIN_COST = 64, /* bytes that a chain counts besides its own: it is work too */
};

struct vconsole {
	struct virtio v; /* first */
	struct vconsole_config config;
	uint32_t
		taken; /* bytes of the chain at the head of the transmitq that were taken already */
	bool blocked; /* the backlog was full: transmitq waits for vconsole_output_ready */
	bool input_waits; /* the owner has input and waits for input_ready */
	uint64_t bytes_out, bytes_in;
	size_t first, count; /* of the backlog */
	uint8_t backlog[VCONSOLE_BACKLOG];
};

static struct vconsole *console_of(struct virtio *v)
{
	return (struct vconsole *)(void *)v;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t output(struct vconsole *c, const uint8_t *data, size_t len)
{
	return c->config.output != NULL ? c->config.output(c->config.arg, data, len) : len;
}

static size_t backlog_put(struct vconsole *c, const uint8_t *data, size_t len)
{
	size_t at = (c->first + c->count) % VCONSOLE_BACKLOG;
	size_t put = smaller(len, VCONSOLE_BACKLOG - c->count);
	size_t to_end = smaller(put, VCONSOLE_BACKLOG - at);

	memcpy(c->backlog + at, data, to_end);
	memcpy(c->backlog, data + to_end, put - to_end);
	c->count += put;
	return put;
}

/* True if nothing is left. An empty backlog begins at the front again, so that little of it is
 * used. */
static bool backlog_drain(struct vconsole *c)
{
	while (c->count > 0) {
		size_t len = smaller(c->count, VCONSOLE_BACKLOG - c->first);
		size_t sent = output(c, c->backlog + c->first, len);

		c->first = (c->first + sent) % VCONSOLE_BACKLOG;
		c->count -= sent;
		if (sent < len) {
			return false;
		}
	}
	c->first = 0;
	return true;
}

/* To the owner, what it does not take into the backlog. Returns how much had room. */
static size_t send(struct vconsole *c, const uint8_t *data, size_t len)
{
	size_t sent = c->count == 0 ? output(c, data, len) : 0;

	return sent + backlog_put(c, data + sent, len - sent);
}

/* Takes what is left of the chain, at most *budget bytes. True if all of it was taken. */
static bool take(struct vconsole *c, const struct chain *chain, size_t *budget)
{
	uint8_t piece[PIECE];

	for (;;) {
		size_t len = chain_read(chain, c->taken, piece, smaller(PIECE, *budget));
		size_t sent = send(c, piece, len);

		c->taken += (uint32_t)sent;
		c->bytes_out += sent;
		*budget -= sent;
		if (c->taken >= chain->out_len) {
			c->taken = 0;
			return true;
		}
		if (sent < len || *budget == 0) {
			c->blocked = sent < len;
			return false;
		}
	}
}

/* Chains of the transmitq until there are none (true), the backlog is full or it is others' turn.
 */
static bool transmit(struct vconsole *c, size_t *budget)
{
	struct queue *q = &c->v.queue[TRANSMITQ];
	struct chain chain;

	while (*budget > 0 && virtio_pop(&c->v, TRANSMITQ, &chain) == 1) {
		*budget -= smaller(*budget, CHAIN_COST);
		if (!take(c, &chain, budget)) {
			queue_unpop(q);
			return false;
		}
		queue_push(q, chain.head, 0);
	}
	return *budget > 0;
}

static void transmit_kick(struct vconsole *c)
{
	struct queue *q = &c->v.queue[TRANSMITQ];
	size_t budget = KICK_MAX;
	bool all;

	c->blocked = false;
	do {
		all = transmit(c, &budget);
	} while (all && queue_want_kick(q));
	virtio_signal(&c->v, TRANSMITQ);
	if (!all && !c->blocked) {
		virtio_kick(&c->v, TRANSMITQ);
	}
}

static void kick(struct virtio *v, unsigned index)
{
	struct vconsole *c = console_of(v);

	if (index == TRANSMITQ) {
		transmit_kick(c);
	} else if (c->input_waits && c->config.input_ready != NULL) {
		c->input_waits = false;
		c->config.input_ready(c->config.arg);
	}
}

/* Fills buffers of the receiveq. Returns how much they took. */
static size_t receive(struct vconsole *c, const uint8_t *data, size_t len)
{
	struct queue *q = &c->v.queue[RECEIVEQ];
	struct chain chain;
	size_t done = 0;

	while (done < len && virtio_pop(&c->v, RECEIVEQ, &chain) == 1) {
		size_t part = chain_write(&chain, 0, data + done, len - done);

		if (part == 0) {
			virtio_fail(&c->v, "a receive buffer without room");
			break;
		}
		queue_push(q, chain.head, (uint32_t)part);
		done += part;
	}
	return done;
}

size_t vconsole_input(struct vconsole *c, const uint8_t *data, size_t len)
{
	size_t done = 0;

	if (c->v.active && !c->v.paused) {
		do {
			done += receive(c, data + done, len - done);
		} while (done < len && queue_want_kick(&c->v.queue[RECEIVEQ]));
		virtio_signal(&c->v, RECEIVEQ);
		c->bytes_in += done;
	}
	c->input_waits = done < len;
	return done;
}

void vconsole_output_ready(struct vconsole *c)
{
	if (backlog_drain(c) && c->blocked) {
		c->blocked = false;
		virtio_kicked(&c->v, TRANSMITQ);
	}
}

void vconsole_resize(struct vconsole *c, uint16_t columns, uint16_t rows)
{
	c->config.columns = columns;
	c->config.rows = rows;
	memcpy(c->v.config, &columns, sizeof(columns));
	memcpy(c->v.config + 2, &rows, sizeof(rows));
	virtio_config_changed(&c->v);
}

/* Linux looks at the size only when it is told that it changed. */
static void activate(struct virtio *v)
{
	const struct vconsole *c = console_of(v);

	if (c->config.columns != 0 && !v->paused) {
		virtio_config_changed(v);
	}
}

static void reset(struct virtio *v)
{
	/* The backlog was printed by the old driver and still goes out. */
	console_of(v)->taken = 0;
}

static unsigned save(const struct virtio *v, uint64_t words[VIRTIO_STATE_WORDS])
{
	words[0] = ((const struct vconsole *)(const void *)v)->taken;
	return 1;
}

static int load(struct virtio *v, const uint64_t *words, unsigned count)
{
	if (count != 1 || words[0] > UINT32_MAX) {
		return -EINVAL;
	}
	console_of(v)->taken = (uint32_t)words[0];
	return 0;
}

static const struct virtio_class class = {
	.id = VIRTIO_ID_CONSOLE,
	.name = "console",
	.queues = 2,
	.queue_size = QUEUE_SIZE,
	.rare_kicks = UINT32_MAX, /* a line of text is one */
	.activate = activate,
	.kick = kick,
	.reset = reset,
	.save = save,
	.load = load,
};

int vconsole_create(const struct vconsole_config *config, const struct ram *ram, struct loop *loop,
		    const char *name, struct vconsole **ret, struct fault *fault)
{
	struct vconsole *c = mem_zalloc(sizeof(*c));
	uint32_t ports = 1;
	int rv;

	c->config = *config;
	c->v.config_len = CONFIG_LEN;
	memcpy(c->v.config, &config->columns, 2);
	memcpy(c->v.config + 2, &config->rows, 2);
	memcpy(c->v.config + 4, &ports, 4);
	c->v.features = F_SIZE;
	rv = virtio_init(&c->v, &class, ram, loop, name);
	if (rv < 0) {
		vconsole_destroy(c);
		return fault_set(fault, rv, "%s: cannot make its descriptors: %s", name,
				 strerror(-rv));
	}
	*ret = c;
	return 0;
}

struct virtio *vconsole_virtio(struct vconsole *c)
{
	return &c->v;
}

void vconsole_destroy(struct vconsole *c)
{
	if (c != NULL) {
		virtio_close(&c->v);
		free(c);
	}
}

void vconsole_stats(const struct vconsole *c, const struct stats_sink *sink)
{
	virtio_stats(&c->v, sink);
	sink->add(sink->arg, c->v.name, "bytes-out", c->bytes_out, false);
	sink->add(sink->arg, c->v.name, "bytes-in", c->bytes_in, false);
	sink->add(sink->arg, c->v.name, "backlog", c->count, true);
}
