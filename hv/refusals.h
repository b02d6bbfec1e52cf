/* refusals.h: what a kernel did not take of a saved state: counted, the first few told by name. */
#pragma once

struct refusals {
	unsigned count;
	char text[240]; /* "SCTLR_EL1 (Invalid argument), GICC_PMR (...)" */
};

/* `error` is a negative errno. */
void refusals_add(struct refusals *r, const char *name, int error);
