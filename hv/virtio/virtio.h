/* virtio.h: what all virtio devices are (virtio 1.2, chapter 2), whatever carries their registers.
 *
 * A device is a `struct virtio` embedded first in the device's own struct, with a class of
 * functions. The transport (mmio.h) drives it; the loop calls it when the driver kicks. All calls
 * are made with the device lock held (loop.h). No file here knows of KVM: interrupts and kicks are
 * eventfds.
 *
 *   status: 0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK (active) -> reset -> 0
 *                                                                |
 *      virtio_fail -> DEVICE_NEEDS_RESET (queues dead until the driver resets)
 *
 * A device that works on requests elsewhere (a disk's host, which may hang) ends a life in two
 * steps, and the lock is free between them: virtio_rest or a reset begin, virtio_drained is its
 * word that nothing is in flight any more.
 *
 * While paused (snapshot, stop) kicks are kept: virtio_resume looks at every queue once. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/loop.h"
#include "hv/ram.h"
#include "hv/stats.h"
#include "hv/virtio/queue.h"

enum { VIRTIO_QUEUES_MAX = 5, VIRTIO_CONFIG_MAX = 136, VIRTIO_STATE_WORDS = 8 };

enum virtio_status {
	VIRTIO_STATUS_ACKNOWLEDGE = 1,
	VIRTIO_STATUS_DRIVER = 2,
	VIRTIO_STATUS_DRIVER_OK = 4,
	VIRTIO_STATUS_FEATURES_OK = 8,
	VIRTIO_STATUS_NEEDS_RESET = 64,
	VIRTIO_STATUS_FAILED = 128,
};

/* Feature bits that the common code offers for every device (chapter 6). */
#define VIRTIO_F_INDIRECT_DESC_BIT (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX_BIT (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1_BIT (UINT64_C(1) << 32)

struct virtio;

struct virtio_class {
	uint32_t id; /* 5 device types */
	const char *name; /* "blk" */
	unsigned queues;
	uint16_t queue_size; /* largest, a power of two, at most QUEUE_SIZE_MAX */
	/* Bit i: queue i is kicked so seldom that exits cost less than a doorbell in the kernel
	 * (12,000 instructions to make one, 4,300 for an exit): machine.c makes none. */
	uint32_t rare_kicks;
	/* The driver said DRIVER_OK; queues that it enabled are ready. After virtio_load the device
	 * is paused and nothing may move before resume. May be NULL. */
	void (*activate)(struct virtio *v);
	/* The driver kicked queue `index` (ready, active, not paused). NULL: kicks go elsewhere,
	 * to vhost. */
	void (*kick)(struct virtio *v, unsigned index);
	/* Back to the state before the driver came: afterwards nothing of the old life touches
	 * guest memory, but for requests in flight (`drain`). May be NULL. */
	void (*reset)(struct virtio *v);
	/* The driver wrote config[offset .. offset + len) (already stored, within config_len). May
	 * be NULL: then writes are ignored and the bytes are not stored. */
	void (*config_written)(struct virtio *v, unsigned offset, unsigned len);
	/* No request in flight and no input taken after this returns; undone by resume. May be
	 * NULL. */
	void (*pause)(struct virtio *v);
	void (*resume)(struct virtio *v);
	/* Collects what is done; true if nothing is in flight. Waits at most `wait_ms` for it
	 * (negative: as long as it takes). While the device is resetting nothing is told to the
	 * driver. The device calls virtio_drained when the last one came back by itself. NULL:
	 * nothing is ever in flight after reset and pause. */
	bool (*drain)(struct virtio *v, int wait_ms);
	/* Snapshot of what is the device's own (the common part is saved by the caller; paused): at
	 * most VIRTIO_STATE_WORDS words, returns how many. NULL: none. */
	unsigned (*save)(const struct virtio *v, uint64_t words[VIRTIO_STATE_WORDS]);
	/* The counterpart, from a hostile file: after the common part was set and before activate.
	 * 0 or -EINVAL, then the device is as new. */
	int (*load)(struct virtio *v, const uint64_t *words, unsigned count);
};

struct virtio_counters {
	uint64_t kicks, interrupts, chains, failures;
};

/* Kicks are edges: the eventfd's count is never read, each write is one event of the epoll. */
struct virtio_kick_watch {
	struct watch watch;
	struct virtio *virtio;
};

struct virtio {
	const struct virtio_class *class;
	char name[24]; /* "blk0": for logs and errors */
	const struct ram *ram;
	struct loop *loop;
	uint64_t features; /* offered; the device sets its own, virtio_init adds the common ones */
	uint64_t acked; /* accepted by the driver; the transport keeps it a subset of features */
	uint32_t status;
	bool active; /* DRIVER_OK seen, not failed: queues may be used */
	bool paused;
	/* The driver wrote 0 and requests are still in flight: the status reads as it was, and all
	 * that the driver writes is ignored, until they are back. */
	bool resetting;
	uint8_t config[VIRTIO_CONFIG_MAX];
	unsigned config_len;
	uint32_t config_generation;
	struct queue queue[VIRTIO_QUEUES_MAX];
	int kick_fd[VIRTIO_QUEUES_MAX]; /* eventfds, owned; signalled by KVM or by the transport */
	struct virtio_kick_watch kick_watch[VIRTIO_QUEUES_MAX];
	int irq_fd; /* eventfd, owned; a written 1 interrupts the driver: "look at rings" */
	/* Tells the transport that config, its generation or the status changed. */
	void (*changed)(struct virtio *v, void *arg);
	void *changed_arg;
	/* Nothing is in flight any more, while paused. NULL: nobody waits for it. */
	void (*rested)(void *arg);
	void *rested_arg;
	struct virtio_counters counters;
	uint64_t fail_logged_ms; /* boot time of the last failure log line, at most one a second */
};

/* Makes the eventfds and watches the kicks. The class, features and config are set by the device
 * before. 0 or negative errno. */
int virtio_init(struct virtio *v, const struct virtio_class *class, const struct ram *ram,
		struct loop *loop, const char *name);
/* The device was reset or never ran. Harmless on a zeroed struct. */
void virtio_close(struct virtio *v);

/* For devices. */

/* queue_pop that counts, and declares the device failed when the driver broke the rules: 1 and
 * *ret, or 0: nothing to do. */
int virtio_pop(struct virtio *v, unsigned index, struct chain *ret);
/* Interrupts the driver if the queue's rules say so. After each batch of queue_push. */
void virtio_signal(struct virtio *v, unsigned index);
/* The config space changed (already stored): generation + 1, interrupt once the driver runs. */
void virtio_config_changed(struct virtio *v);
/* The driver broke the rules: DEVICE_NEEDS_RESET, queues dead (not ready), one log line a second at
 * most. */
void virtio_fail(struct virtio *v, const char *why);
/* Was this feature bit accepted? `bit` is the mask. */
bool virtio_has(const struct virtio *v, uint64_t bit);
/* Nothing is in flight any more (class->drain says so): ends a reset, tells who waits for a rest.
 * The last thing that the device does before it returns to the loop. */
void virtio_drained(struct virtio *v);

/* For the transport. */

/* What the driver writes into the status register; 0 resets, and while that is not done
 * (`resetting`) the driver must not go on. A step that skips another or goes back is ignored;
 * FEATURES_OK is refused (stays clear) without VERSION_1. */
void virtio_set_status(struct virtio *v, uint32_t status);
/* Takes the queue into use as the driver described it, or fails the device. */
void virtio_enable_queue(struct virtio *v, unsigned index);
/* Signals the kick eventfd, so that the loop (or vhost) looks at the queue. */
void virtio_kick(struct virtio *v, unsigned index);
/* What the loop does for a kick; for tests and fuzzers, which have no loop running. */
void virtio_kicked(struct virtio *v, unsigned index);

/* For snapshot and reset. */

/* Afterwards no kick is looked at. True: and nothing is in flight, nor a reset under way. False:
 * `rested` is called when it is so, or ask again. */
bool virtio_rest(struct virtio *v);
/* The same, and waits. */
void virtio_pause(struct virtio *v);
/* Every queue is looked at once, since kicks may have come. */
void virtio_resume(struct virtio *v);

/* All that a driver can tell of a device, but the transport's selectors (mmio.h) and the offered
 * features and config, which follow from the spec and the device's words. */
struct virtio_queue_state {
	uint64_t desc, avail, used;
	uint16_t size, next_avail, next_used;
	bool ready;
};

struct virtio_state {
	uint64_t acked;
	uint32_t status, config_generation;
	struct virtio_queue_state queue[VIRTIO_QUEUES_MAX];
	uint64_t words[VIRTIO_STATE_WORDS]; /* the class's */
	uint32_t word_count;
};

/* The device is paused. */
void virtio_save(const struct virtio *v, struct virtio_state *ret);
/* From a hostile file into a new device that is paused, with the guest's memory in place. 0; or
 * -EINVAL for a state that cannot be, then it is as new and still paused. Interrupts under way are
 * not in it: write 1 to irq_fd once after resume. */
int virtio_load(struct virtio *v, const struct virtio_state *state);
/* kicks, interrupts, chains, failures. */
void virtio_stats(const struct virtio *v, const struct stats_sink *sink);
