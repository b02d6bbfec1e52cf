/* check.h: what a single object of the model must look like, for apply.c. Pure. The two that
 * others use as well (site_check, name_check, service_address_check) are in apply.h.
 *
 * All: 0, or -EINVAL with the field's JSON path and a sentence with the remedy. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/apply.h"

enum {
	CHECK_ACTOR = 128, /* bytes of who did it */
	CHECK_ADDRESS = 271, /* bytes of host:port */
	CHECK_PEM = 16 << 10, /* bytes of a key or certificate */
};

/* At most `max` bytes of UTF-8 without control characters; may be empty. */
int text_check(const char *text, size_t max, const char *field, struct apply_problem *ret);
/* Exactly `digits` lower-case hexadecimal digits. */
int hex_check(const char *text, size_t digits, const char *field, struct apply_problem *ret);
/* host:port without spaces. */
int address_check(const char *text, const char *field, struct apply_problem *ret);

int cluster_check(const Tb__Cluster *row, struct apply_problem *ret);
int secrets_check(const Tb__Secrets *row, struct apply_problem *ret);
int node_check(const Tb__Node *row, struct apply_problem *ret);
int token_check(const Tb__Token *row, struct apply_problem *ret);
int certificate_check(const Tb__Certificate *row, struct apply_problem *ret);
int grant_check(const Tb__Grant *row, struct apply_problem *ret);
int event_check(const Tb__Event *row, struct apply_problem *ret);
int host_check(const Tb__NodeHost *host, struct apply_problem *ret);
int bridge_check(const char *name, const char *field, struct apply_problem *ret);
/* 64 lower-case hexadecimal digits. */
bool image_sum_shaped(const char *text);
bool vm_uses_image(const Tb__Vm *vm, const char *sha256);
/* The value of the VM's label, or NULL. */
const char *vm_label(const Tb__Vm *vm, const char *key);
