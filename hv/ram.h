/* ram.h: the guest's memory, and the ONE function that turns a guest address into a pointer.
 *
 * One contiguous range from LAYOUT_RAM. Aligned to 2 MiB on both sides, so that stage 2 can use
 * blocks. Only what the guest touches takes memory of the host. Everything in it is written by the
 * guest at any moment: read a value once, check the copy, use the copy. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/fault.h"

enum ram_backing {
	RAM_AUTO, /* memfd where the host gives it huge pages, anonymous memory where not */
	RAM_ANONYMOUS, /* huge pages by madvise */
	RAM_MEMFD, /* a sealed memfd */
	RAM_SHARED_FILE, /* private copy-on-write mapping of a snapshot's memory file: clones share
			  */
};

struct ram {
	uint8_t *host; /* NULL while not made */
	uint64_t size; /* bytes, a multiple of 2 MiB or of the host's page */
	enum ram_backing backing; /* never RAM_AUTO once made */
	int fd; /* memfd, or -1; owned */
};

/* What RAM_AUTO is on this host; opens a file of /sys, which ram_create cannot in the sandbox. */
enum ram_backing ram_choose(void);
/* Makes `size` bytes of zeros. 0; or a negative errno and *fault, *ret untouched. */
int ram_create(uint64_t size, enum ram_backing backing, struct ram *ret, struct fault *fault);
/* Maps a snapshot's memory file (at least `size` bytes, else -EINVAL) copy-on-write; `fd` stays the
 * caller's and the file must not change while mapped. */
int ram_map_file(int fd, uint64_t size, struct ram *ret, struct fault *fault);
/* A ram of borrowed bytes, for tests and fuzzers. Not to be destroyed. */
struct ram ram_borrow(void *bytes, uint64_t size);
void ram_destroy(struct ram *r);

/* The host's place of `len` bytes at guest address `guest`, or NULL if any of them is outside RAM.
 * len 0 is never inside. */
void *ram_at(const struct ram *r, uint64_t guest, uint64_t len);
/* How many bytes from `guest` to the end of RAM; 0 if outside. */
uint64_t ram_left(const struct ram *r, uint64_t guest);
/* Gives whole host pages inside [guest, guest + len) back to the host; they read as zeros after,
 * or, in a clone, as what the snapshot had. Out of RAM: -ERANGE. Callable while vCPUs run. */
int ram_release(const struct ram *r, uint64_t guest, uint64_t len);
/* All of it reads as zeros again (reset; vCPUs must be parked). */
int ram_clear(struct ram *r);
