#include "hv/device_state.h"

#include <errno.h>
#include <string.h>

#include "lib/mem.h"

enum { DEVICE_NET = 1, DEVICE_BLOCK = 2, CAPACITY_SIZE = 8, MAC_SIZE = 6 };

static Tb__QueueState *queue_save(const struct virtio_queue_state *q)
{
	Tb__QueueState *ret = mem_alloc(sizeof(*ret));

	tb__queue_state__init(ret);
	ret->ready = q->ready;
	ret->size = q->size;
	ret->desc = q->desc;
	ret->avail = q->avail;
	ret->used = q->used;
	ret->next_avail = q->next_avail;
	ret->next_used = q->next_used;
	return ret;
}

Tb__VirtioState *device_state_save(const struct mmio *m)
{
	const struct virtio *v = m->virtio;
	Tb__VirtioState *ret = mem_alloc(sizeof(*ret));
	struct virtio_state state;
	unsigned i;

	virtio_save(v, &state);
	tb__virtio_state__init(ret);
	ret->name = mem_strdup(v->name);
	ret->id = v->class->id;
	ret->status = state.status;
	ret->acked = state.acked;
	ret->config_generation = state.config_generation;
	ret->config.len = v->config_len;
	ret->config.data = mem_dup(v->config, v->config_len);
	ret->n_queues = v->class->queues;
	ret->queues = mem_array(ret->n_queues, sizeof(ret->queues[0]));
	for (i = 0; i < ret->n_queues; i++) {
		ret->queues[i] = queue_save(&state.queue[i]);
	}
	ret->n_words = state.word_count;
	ret->words = mem_dup(state.words, state.word_count * sizeof(state.words[0]));
	ret->features_select = m->features_select;
	ret->driver_features_select = m->driver_features_select;
	ret->driver_features = m->driver_features;
	ret->queue_select = m->queue_select;
	ret->config_pending = m->config_pending;
	return ret;
}

/* Of two config spaces of one length. */
static bool is_alike(const Tb__VirtioState *saved, const struct virtio *v, size_t len)
{
	return memcmp(saved->config.data, v->config, len < v->config_len ? len : v->config_len) ==
	       0;
}

/* What a driver has read of the config space and relies on. */
static int config_check(const Tb__VirtioState *saved, const struct virtio *v, struct fault *fault)
{
	if (saved->config.len != v->config_len) {
		return fault_set(fault, -EXDEV, "%s has another config space in the snapshot",
				 v->name);
	}
	if (v->class->id == DEVICE_BLOCK && !is_alike(saved, v, CAPACITY_SIZE)) {
		return fault_set(fault, -EXDEV,
				 "the disk of %s is of another size than in the snapshot", v->name);
	}
	if (v->class->id == DEVICE_NET && !is_alike(saved, v, MAC_SIZE)) {
		const uint8_t *mac = saved->config.data;

		return fault_set(fault, -EXDEV,
				 "%s had the MAC address %02x:%02x:%02x:%02x:%02x:%02x in the "
				 "snapshot: give it in the spec",
				 v->name, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	}
	return 0;
}

int device_state_check(const Tb__VirtioState *saved, const struct virtio *v, unsigned slot,
		       struct fault *fault)
{
	uint64_t missing = saved->acked & ~v->features;

	if (saved->id != v->class->id || strcmp(saved->name, v->name) != 0) {
		return fault_set(fault, -EXDEV,
				 "device %u of the snapshot is %s, of this VM it is %s", slot,
				 saved->name, v->name);
	}
	if (saved->n_queues != v->class->queues) {
		return fault_set(fault, -EXDEV, "%s has %zu queues in the snapshot, here %u",
				 v->name, saved->n_queues, v->class->queues);
	}
	if (missing != 0) {
		return fault_set(fault, -EXDEV,
				 "the guest's driver of %s uses feature bit %u, which this host "
				 "does not offer",
				 v->name, (unsigned)__builtin_ctzll(missing));
	}
	return config_check(saved, v, fault);
}

static void state_unpack(const Tb__VirtioState *saved, struct virtio_state *ret)
{
	size_t i;

	*ret = (struct virtio_state){
		.acked = saved->acked,
		.status = saved->status,
		.config_generation = saved->config_generation,
		.word_count = (uint32_t)saved->n_words,
	};
	for (i = 0; i < saved->n_queues; i++) {
		const Tb__QueueState *q = saved->queues[i];

		ret->queue[i] = (struct virtio_queue_state){
			.desc = q->desc,
			.avail = q->avail,
			.used = q->used,
			.size = (uint16_t)q->size,
			.next_avail = (uint16_t)q->next_avail,
			.next_used = (uint16_t)q->next_used,
			.ready = q->ready,
		};
	}
	for (i = 0; i < saved->n_words; i++) {
		ret->words[i] = saved->words[i];
	}
}

int device_state_load(const Tb__VirtioState *saved, struct mmio *m, struct fault *fault)
{
	struct virtio *v = m->virtio;
	struct virtio_state state;

	state_unpack(saved, &state);
	virtio_pause(v);
	if (virtio_load(v, &state) < 0) {
		return fault_set(fault, -EBADMSG, "the snapshot's state of %s cannot be", v->name);
	}
	m->features_select = saved->features_select;
	m->driver_features_select = saved->driver_features_select;
	m->driver_features = saved->driver_features;
	m->queue_select = saved->queue_select;
	m->config_pending = saved->config_pending;
	mmio_refresh(m);
	return 0;
}
