/* ability.h: can this board host virtual machines, as far as its files tell? Pure. `witness-vm
 * probe` (hv/probe.h) asks KVM itself, with the same sentences. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "board/board.h"

/* Why KVM has no virtual interrupt controller to offer, as the device tree tells: the sentence in
 * `why`, true; or false: it names no reason. */
bool ability_tree_obstacle(const struct board_tree *tree, char *why, size_t size);
/* The sentence for a board without KVM. */
const char *ability_no_kvm(void);

/* Fills facts->hosting and facts->hosting_why from the other facts, and `tree` and `madt`. */
void ability_judge(struct board_facts *facts, const struct board_tree *tree,
		   const struct board_madt *madt);
