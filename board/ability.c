#include "board/ability.h"

#include <stdio.h>
#include <string.h>

bool ability_tree_obstacle(const struct board_tree *t, char *why, size_t size)
{
	if (t->controller == BOARD_CONTROLLER_BCM2836)
		snprintf(why, size,
			 "its processor (BCM2836/BCM2837: Raspberry Pi 2, 3, Zero 2) has no Arm "
			 "interrupt controller (GIC), so KVM has no virtual one to offer");
	else if (t->controller == BOARD_CONTROLLER_GICV2 && t->ranges < 4)
		snprintf(why, size,
			 "the device tree's %s has %u of 4 register ranges: without the "
			 "hypervisor's (GICH, GICV) KVM cannot make a virtual GICv2; use a newer "
			 "device tree or kernel",
			 t->node, t->ranges);
	else if (t->controller != BOARD_CONTROLLER_NONE && !t->maintenance)
		snprintf(
			why, size,
			"the device tree's %s has no interrupt of its own (the maintenance "
			"interrupt, PPI 9): KVM cannot make a virtual GIC; use a newer device tree "
			"or kernel",
			t->node);
	else
		return false;
	return true;
}

const char *ability_no_kvm(void)
{
	return "there is no /dev/kvm: the kernel was built without KVM, or the firmware did "
	       "not start the processor in EL2 (Raspberry Pi: use the 64-bit kernel; in a "
	       "virtual machine: its host must offer nested virtualization)";
}

static bool madt_obstacle(const struct board_madt *m, char *why, size_t size)
{
	const char *lack = !m->maintenance ? "maintenance interrupt"
			   : m->version < 3 && !m->virtual_interface
				   ? "virtual interface (GICH, GICV)"
				   : NULL;

	if (!m->present || lack == NULL)
		return false;
	snprintf(why, size,
		 "the firmware's table of interrupt controllers (ACPI MADT) names no %s for every "
		 "core: KVM cannot make a virtual GIC; use newer firmware",
		 lack);
	return true;
}

void ability_judge(struct board_facts *f, const struct board_tree *tree,
		   const struct board_madt *madt)
{
	char why[sizeof(f->hosting_why)] = "";
	bool obstacle = true;

	if (f->cores.count > 0 && !f->cores.arm)
		snprintf(why, sizeof(why), "its processor is no 64-bit Arm");
	else if (!f->kvm && tree->controller != BOARD_CONTROLLER_BCM2836)
		snprintf(why, sizeof(why), "%s", ability_no_kvm());
	else
		/* On a Raspberry Pi 3 it would be in vain to mend /dev/kvm. */
		obstacle = ability_tree_obstacle(tree, why, sizeof(why)) ||
			   madt_obstacle(madt, why, sizeof(why));
	snprintf(f->hosting_why, sizeof(f->hosting_why), "%s", why);
	if (obstacle)
		f->hosting = BOARD_HOSTING_NO;
	else if (f->gic_version != 0)
		f->hosting = BOARD_HOSTING_YES;
	else
		f->hosting = BOARD_HOSTING_UNKNOWN;
}
