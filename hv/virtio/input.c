#include "hv/virtio/input.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_input.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"

enum {
	EVENTQ = 0,
	STATUSQ = 1,
	QUEUE_SIZE = 64,
	BUS_VIRTUAL = 6,
};

#define NAME "Tiebreak power button"

_Static_assert(sizeof(struct virtio_input_config) <= VIRTIO_CONFIG_MAX,
	       "the whole config space fits");

/* What one press tells; SYN ends each report (input event protocol, linux/input-event-codes.h). */
static const struct virtio_input_event press[] = {
	{.type = EV_KEY, .code = KEY_POWER, .value = 1},
	{.type = EV_SYN, .code = SYN_REPORT},
	{.type = EV_KEY, .code = KEY_POWER, .value = 0},
	{.type = EV_SYN, .code = SYN_REPORT},
};
enum { PRESS_EVENTS = sizeof(press) / sizeof(press[0]) };

struct vinput {
	struct virtio v; /* first */
	unsigned left; /* events of the press that were not told yet */
	uint64_t presses;
};

static struct vinput *input_of(struct virtio *v)
{
	return (struct vinput *)(void *)v;
}

static uint8_t select_bits(struct virtio_input_config *config, uint8_t type)
{
	if (type != EV_KEY) {
		return 0;
	}
	config->u.bitmap[KEY_POWER / 8] = 1 << KEY_POWER % 8;
	return KEY_POWER / 8 + 1;
}

static uint8_t select_ids(struct virtio_input_config *config)
{
	config->u.ids = (struct virtio_input_devids){
		.bustype = BUS_VIRTUAL, .vendor = 0, .product = 1, .version = 1};
	return sizeof(config->u.ids);
}

static uint8_t select_name(struct virtio_input_config *config)
{
	memcpy(config->u.string, NAME, sizeof(NAME) - 1);
	return sizeof(NAME) - 1;
}

/* What the driver asked for, in the rest of the config space; size 0: there is no such thing
 * (5.8.4). */
static void config_show(struct virtio *v, uint8_t select, uint8_t subsel)
{
	struct virtio_input_config config = {.select = select, .subsel = subsel};

	switch (select) {
	case VIRTIO_INPUT_CFG_ID_NAME:
		config.size = subsel == 0 ? select_name(&config) : 0;
		break;
	case VIRTIO_INPUT_CFG_ID_DEVIDS:
		config.size = subsel == 0 ? select_ids(&config) : 0;
		break;
	case VIRTIO_INPUT_CFG_EV_BITS:
		config.size = select_bits(&config, subsel);
		break;
	default:
		break;
	}
	memcpy(v->config, &config, sizeof(config));
}

static void config_written(struct virtio *v, unsigned offset, unsigned len)
{
	(void)offset;
	(void)len;
	config_show(v, v->config[0], v->config[1]);
}

/* The next events into as many buffers as there are. */
static void tell(struct vinput *i)
{
	struct queue *q = &i->v.queue[EVENTQ];
	struct chain c;

	while (i->left > 0 && virtio_pop(&i->v, EVENTQ, &c) == 1) {
		const struct virtio_input_event *event = &press[PRESS_EVENTS - i->left];

		if (chain_write(&c, 0, event, sizeof(*event)) < sizeof(*event)) {
			virtio_fail(&i->v, "an event buffer that is too small");
			return;
		}
		queue_push(q, c.head, sizeof(*event));
		i->left--;
	}
}

static void tell_all(struct vinput *i)
{
	do {
		tell(i);
	} while (i->left > 0 && queue_want_kick(&i->v.queue[EVENTQ]));
	virtio_signal(&i->v, EVENTQ);
}

/* A button has no lamps: what the driver sets is taken and forgotten, a queue full at once. */
static void forget_status(struct virtio *v)
{
	struct queue *q = &v->queue[STATUSQ];
	unsigned left = QUEUE_SIZE;
	struct chain c;

	do {
		while (left > 0 && virtio_pop(v, STATUSQ, &c) == 1) {
			queue_push(q, c.head, 0);
			left--;
		}
	} while (queue_want_kick(q) && left > 0);
	virtio_signal(v, STATUSQ);
	if (queue_has_work(q)) {
		virtio_kick(v, STATUSQ);
	}
}

static void kick(struct virtio *v, unsigned index)
{
	if (index == STATUSQ) {
		forget_status(v);
	} else if (input_of(v)->left > 0) {
		tell_all(input_of(v));
	}
}

static void reset(struct virtio *v)
{
	input_of(v)->left = 0;
	config_show(v, VIRTIO_INPUT_CFG_UNSET, 0);
}

static unsigned save(const struct virtio *v, uint64_t words[VIRTIO_STATE_WORDS])
{
	words[0] = ((const struct vinput *)(const void *)v)->left;
	words[1] = v->config[0];
	words[2] = v->config[1];
	return 3;
}

static int load(struct virtio *v, const uint64_t *words, unsigned count)
{
	if (count != 3 || words[0] > PRESS_EVENTS || words[1] > UINT8_MAX || words[2] > UINT8_MAX) {
		return -EINVAL;
	}
	input_of(v)->left = (unsigned)words[0];
	config_show(v, (uint8_t)words[1], (uint8_t)words[2]);
	return 0;
}

static const struct virtio_class class = {
	.id = VIRTIO_ID_INPUT,
	.name = "input",
	.queues = 2,
	.queue_size = QUEUE_SIZE,
	.rare_kicks = UINT32_MAX,
	.kick = kick,
	.reset = reset,
	.config_written = config_written,
	.save = save,
	.load = load,
};

int vinput_press(struct vinput *i)
{
	if (!i->v.active) {
		return -ENOTCONN;
	}
	if (i->left > 0) {
		return 0;
	}
	i->presses++;
	i->left = PRESS_EVENTS;
	/* A paused one tells it when it is resumed. */
	virtio_kicked(&i->v, EVENTQ);
	return 0;
}

int vinput_create(const struct vinput_config *config, const struct ram *ram, struct loop *loop,
		  const char *name, struct vinput **ret, struct fault *fault)
{
	struct vinput *i = mem_zalloc(sizeof(*i));
	int rv;

	(void)config;
	i->v.config_len = sizeof(struct virtio_input_config);
	rv = virtio_init(&i->v, &class, ram, loop, name);
	if (rv < 0) {
		vinput_destroy(i);
		return fault_set(fault, rv, "%s: cannot make its descriptors: %s", name,
				 strerror(-rv));
	}
	*ret = i;
	return 0;
}

struct virtio *vinput_virtio(struct vinput *i)
{
	return &i->v;
}

void vinput_destroy(struct vinput *i)
{
	if (i != NULL) {
		virtio_close(&i->v);
		free(i);
	}
}

void vinput_stats(const struct vinput *i, const struct stats_sink *sink)
{
	virtio_stats(&i->v, sink);
	sink->add(sink->arg, i->v.name, "presses", i->presses, false);
}
