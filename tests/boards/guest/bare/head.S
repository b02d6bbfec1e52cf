/* head.S: the Image header and the first instructions of the bare guest (Linux's
 * Documentation/arm64/booting.rst): it may be loaded at any 2 MiB boundary, x0 is the device tree. */
	.section .head, "ax"
	.globl _start
_start:
	b	1f
	.long	0
	.quad	0			/* text offset */
	.quad	_end - _start		/* size in memory */
	.quad	0xa			/* flags: little-endian, 4 KiB pages, anywhere */
	.quad	0, 0, 0
	.long	0x644d5241		/* "ARM\x64" */
	.long	0
1:	adrp	x1, _stack_top
	add	x1, x1, :lo12:_stack_top
	mov	sp, x1
	mrs	x1, cntvct_el0
	bl	bare_main
2:	wfi
	b	2b
