/* machine.h: one virtual machine put together: memory, processors, interrupt controller, devices.
 *
 * Start-up reads as a list in machine_create; machine_destroy is the same list backwards. Nothing
 * here opens a path: all descriptors come with the resources. Runs on the loop's thread. */
#pragma once
#include <stdbool.h>

#include "hv/bus.h"
#include "hv/gic.h"
#include "hv/guest_clock.h"
#include "hv/image.h"
#include "hv/loop.h"
#include "hv/pl011.h"
#include "hv/pl031.h"
#include "hv/ram.h"
#include "hv/resources.h"
#include "hv/vcpu.h"
#include "hv/virtio/mmio.h"
#include "hv/virtio/virtio.h"

struct blk;
struct net;
struct balloon;
struct vsock;
struct vconsole;
struct vinput;
struct vrng;

/* STARTING -> RUNNING -> PAUSING -> PAUSED -> RUNNING ...; ENDED. PAUSING: no vCPU runs, and
 * requests are still with a disk's host, which may hang. */
enum machine_state {
	MACHINE_STARTING,
	MACHINE_RUNNING,
	MACHINE_PAUSING,
	MACHINE_PAUSED,
	MACHINE_ENDED
};

/* Why it ended; the exit status of the process follows from it (machine_end_status). */
enum machine_end {
	MACHINE_END_NONE,
	MACHINE_END_POWEROFF,
	MACHINE_END_RESET, /* on_reset: exit */
	MACHINE_END_STOPPED, /* by request */
	MACHINE_END_CRASH, /* the guest's fault */
	MACHINE_END_ERROR, /* the host's or ours */
};

/* Where the guest's console goes: takes what it can of `len` bytes now and returns how many; when
 * it can take more, machine_console_ready is called. With the device lock. */
struct machine_console {
	size_t (*output)(void *arg, const uint8_t *data, size_t len);
	void *arg;
	uint16_t columns, rows; /* 0, 0: unknown */
};

/* A virtio device and what carries its registers. */
struct machine_slot {
	struct virtio *virtio;
	struct mmio mmio;
};

struct machine {
	const Tb__VmSpec
		*spec; /* the caller's, outlives the machine; checked, defaults filled in */
	struct resources *resources; /* likewise */
	enum machine_state state;
	enum machine_end end;
	char end_text[512];
	uint64_t started_ms; /* boot time at which the guest began */
	uint64_t resets;
	/* The guest's past is played again and it was not told yet: the next resume does. */
	bool restored, advance_clock;
	void (*rested)(void *arg); /* while PAUSING: who is told of the end of it */
	void *rested_arg;
	struct guest_clock clock; /* while `restored`: from where its counter goes on */

	struct loop loop;
	int kvm, vm;
	struct ram ram;
	struct bus bus;
	struct vcpus vcpus;
	struct gic gic;
	uint8_t *registers; /* of the virtio devices, as they lie at LAYOUT_VIRTIO; owned */
	size_t page_size; /* the host's */
	int ack_fd; /* eventfd, owned; takes acknowledges that nobody reads (mmio.h) */
	uint8_t *own; /* as it lies at LAYOUT_VMGENID; owned */
	size_t own_size;
	uint8_t *vmgenid; /* page of the generation id, in `own` */
	uint8_t *stolen; /* page of stolen time, in `own`; NULL where the host has none */

	struct pl011 pl011;
	struct pl031 pl031;
	struct machine_slot slot[LAYOUT_VIRTIO_MAX];
	unsigned slots;
	/* By kind; NULL or fewer where the spec has none. Owned. */
	struct blk *blk[8];
	struct net *net[4];
	struct vconsole *console;
	struct vinput *button;
	struct vrng *rng;
	struct balloon *balloon;
	struct vsock *vsock;

	/* Who has one while a kernel or a snapshot's memory is read; may be set after create. */
	struct image_turn turn;
	struct machine_console output;
	bool uart_spoke; /* the guest's last output came through the UART */
	struct watch event_watch; /* vcpus.event_fd */
};

/* All of it but a guest in memory: then machine_load_kernel or snapshot_load (snapshot.h), then
 * machine_start. 0; or negative errno and one sentence. *ret owned by the caller. */
int machine_create(const Tb__VmSpec *spec, struct resources *resources,
		   struct machine_console output, struct machine **ret, struct fault *fault);
/* Kernel, initrd and device tree into memory; registers of the boot protocol. */
int machine_load_kernel(struct machine *m, struct fault *fault);
/* The vCPUs run; after snapshot_load the devices too as soon as the loop runs, which the caller
 * does next. */
void machine_start(struct machine *m);
/* vCPUs parked, then devices quiet, in this order. No vCPU runs when this returns; `rested` (may be
 * NULL) is called with the lock when the machine is PAUSED: before this returns, or later in the
 * loop, since a disk may take its time. Not while it is PAUSING. Without the lock. */
void machine_rest(struct machine *m, void (*rested)(void *arg), void *arg);
/* Harmless unless it is PAUSED. Without the lock. */
void machine_resume(struct machine *m);
/* False and a sentence: it was made from a snapshot and has no kernel to boot. */
bool machine_can_reset(const struct machine *m, struct fault *fault);
/* As if the power was cycled: devices reset, memory cleared, kernel loaded again. PAUSED; it runs
 * after. Without the lock. */
int machine_reset(struct machine *m, struct fault *fault);
/* Typed by a person: to where the guest spoke last, the virtio console or the PL011, since a guest
 * may have drivers for both and listen at one. Returns how many bytes were taken; the rest is
 * offered again later. With the device lock. */
size_t machine_input(struct machine *m, const uint8_t *data, size_t len);
/* The output can take more. With the device lock. */
void machine_console_ready(struct machine *m);
/* The output has this size now. With the device lock. */
void machine_console_resize(struct machine *m, uint16_t columns, uint16_t rows);
/* Asks the guest to shut down; -ENODEV without a button, -ENOTCONN if the guest has no driver for
 * it. With the device lock. */
int machine_press_button(struct machine *m);
/* Ends the loop. Any time, any reason; the first one counts. */
void machine_stop(struct machine *m, enum machine_end end, const char *text);
void machine_destroy(struct machine *m);
/* Exit status for scripts: 0 power-off or stopped, 1 error, 2 bad spec, 3 crash, 4 reset. */
int machine_end_status(enum machine_end end);
