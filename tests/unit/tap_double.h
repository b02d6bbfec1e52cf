/* tap_double.h: a tap interface for tests: one end of a pair of datagram sockets, with the few tap
 * ioctls answered here (this file's ioctl, readv and writev stand in front of the C library's). */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tap_double {
	int tap; /* what the device is given */
	int wire; /* what goes in there comes out of the tap, and the other way round */
	int flags; /* that TUNGETIFF tells */
	unsigned long offload; /* last TUNSETOFFLOAD */
	int header; /* last TUNSETVNETHDRSZ */
	/* errno of the next calls on the tap; 0: they work. */
	int read_error, write_error;
	unsigned reads; /* readv calls */
	int read_buffers; /* of the last one */
};

/* One at a time. */
void tap_double_open(struct tap_double *t);
void tap_double_close(struct tap_double *t);
/* A frame of `len` bytes with its header into the tap; false if it is full. */
int tap_double_send(struct tap_double *t, const void *frame, size_t len);
/* The next frame that the device sent; -EAGAIN. */
ssize_t tap_double_receive(struct tap_double *t, void *frame, size_t size);
