/* Registers and rings of a device that copies what it reads to what it writes, under a driver that
 * does what the bytes say (hv_device.h). */
#include <stddef.h>
#include <stdint.h>

#include "tests/fuzz/hv_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PIECE = 64, PIECES_MAX = 64 };

static struct virtio copier;

static uint32_t copy(const struct chain *c)
{
	uint8_t piece[PIECE];
	size_t done = 0;
	unsigned i;

	for (i = 0; i < PIECES_MAX; i++) {
		size_t len = chain_read(c, done, piece, sizeof(piece));
		size_t put = chain_write(c, done, piece, len);

		hv_fuzz_must(put <= len && len <= sizeof(piece));
		done += put;
		if (put < sizeof(piece)) {
			break;
		}
	}
	hv_fuzz_must(done <= c->in_len && done <= c->out_len);
	return (uint32_t)done;
}

static void must_be_sound(const struct chain *c)
{
	uint64_t sums[2] = {0, 0};
	unsigned i;

	hv_fuzz_must(c->out_count + c->in_count <= QUEUE_CHAIN_MAX);
	for (i = 0; i < (unsigned)c->out_count + c->in_count; i++) {
		uint8_t *at = c->iov[i].iov_base;
		const struct ram *r = copier.ram;

		hv_fuzz_must(c->iov[i].iov_len > 0 && at >= r->host &&
			     at + c->iov[i].iov_len <= r->host + r->size);
		sums[i >= c->out_count] += c->iov[i].iov_len;
	}
	hv_fuzz_must(sums[0] == c->out_len && sums[1] == c->in_len);
}

static void kick(struct virtio *v, unsigned index)
{
	struct queue *q = &v->queue[index];
	struct chain c;
	unsigned left = 64;

	do {
		while (left > 0 && virtio_pop(v, index, &c) == 1) {
			must_be_sound(&c);
			if (c.in_len % 7 == 1) {
				/* As a device without room for it. */
				queue_unpop(q);
				queue_spare_kick(q);
				return;
			}
			queue_push(q, c.head, copy(&c));
			left--;
		}
	} while (left > 0 && queue_want_kick(q));
	virtio_signal(v, index);
}

static void config_written(struct virtio *v, unsigned offset, unsigned len)
{
	hv_fuzz_must(offset + len <= v->config_len);
	if (v->config[0] == 1) {
		virtio_config_changed(v);
	}
}

static const struct virtio_class class = {
	.id = 63,
	.name = "copier",
	.queues = VIRTIO_QUEUES_MAX,
	.queue_size = QUEUE_SIZE_MAX,
	.kick = kick,
	.config_written = config_written,
};

static struct virtio *make(const struct ram *ram, struct loop *loop)
{
	copier.features = 0xf0;
	copier.config_len = VIRTIO_CONFIG_MAX - 3;
	return virtio_init(&copier, &class, ram, loop, "copier") == 0 ? &copier : NULL;
}

static const struct hv_fuzz_device device = {.make = make};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return hv_fuzz_run(&device, data, size);
}
