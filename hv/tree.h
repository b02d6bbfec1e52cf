/* tree.h: the device tree that the guest's kernel is given (devicetree specification 0.4), written
 * in order by whoever has something to say in it: each device writes its own node. The only file
 * that names libfdt. An overflow or a bad order is kept and told by tree_finish. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum tree_trigger { TREE_EDGE = 1, TREE_LEVEL = 4 };

struct tree {
	void *blob; /* owned by the caller of tree_begin */
	size_t size;
	int error; /* first libfdt error, 0 */
	uint32_t phandle_gic; /* phandle of the interrupt controller, 1 */
};

/* Starts a tree in `blob` with the root node open. */
void tree_begin(struct tree *t, void *blob, size_t size);
/* Closes the root; *ret_size is the size of the blob. 0 or -ENOSPC. */
int tree_finish(struct tree *t, size_t *ret_size);
void tree_open(struct tree *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tree_close(struct tree *t);
void tree_empty(struct tree *t, const char *name);
void tree_u32(struct tree *t, const char *name, uint32_t value);
void tree_u64(struct tree *t, const char *name, uint64_t value);
void tree_cells(struct tree *t, const char *name, const uint32_t *cells, size_t count);
void tree_text(struct tree *t, const char *name, const char *text);
/* Several strings, each with its zero byte: "a\0b" with its sizeof. */
void tree_bytes(struct tree *t, const char *name, const void *data, size_t len);
/* reg of one range, or of `count` (base, size) pairs: two cells each. */
void tree_reg(struct tree *t, uint64_t base, uint64_t size);
void tree_regs(struct tree *t, const uint64_t (*pairs)[2], size_t count);
/* interrupts = <SPI spi trigger> */
void tree_spi(struct tree *t, uint32_t spi, enum tree_trigger trigger);
