#include "board/board.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "board/ability.h"
#include "board/root.h"
#include "lib/mem.h"

/* --- what it is called --- */

/* What makers leave in the firmware's tables when they forget to fill them in. */
static bool is_filler(const char *text)
{
	static const char *const fillers[] = {
		"To be filled by O.E.M.",
		"To Be Filled By O.E.M.",
		"Default string",
		"Not Specified",
		"Not Applicable",
		"None",
		"System Product Name",
		"System manufacturer",
		"Unknown",
		"0123456789",
		"0000000000000000",
	};

	for (size_t i = 0; i < sizeof(fillers) / sizeof(fillers[0]); i++)
		if (strcmp(text, fillers[i]) == 0)
			return true;
	return text[0] == '\0';
}

static bool dmi_line(int root, const char *name, char *ret, size_t size)
{
	root_line(root, ret, size, "sys/class/dmi/id/%s", name);
	if (is_filler(ret))
		ret[0] = '\0';
	return ret[0] != '\0';
}

static void name_read(int root, const struct board_tree *tree, struct board_facts *f)
{
	char vendor[40], product[48];
	char *text;

	snprintf(f->model, sizeof(f->model), "%s", tree->model);
	snprintf(f->serial, sizeof(f->serial), "%s", tree->serial);
	memcpy(f->compatible, tree->compatible, sizeof(f->compatible));
	f->compatible_count = tree->compatible_count;
	if (f->model[0] == '\0') {
		bool made = dmi_line(root, "sys_vendor", vendor, sizeof(vendor));
		bool named = dmi_line(root, "product_name", product, sizeof(product));

		snprintf(f->model, sizeof(f->model), "%s%s%s", vendor, made && named ? " " : "",
			 product);
	}
	if (f->serial[0] == '\0')
		dmi_line(root, "product_serial", f->serial, sizeof(f->serial));
	text = f->serial[0] == '\0' ? root_text(root, "proc/cpuinfo") : NULL;
	if (text != NULL) {
		const char *serial = strstr(text, "\nSerial\t\t: ");

		if (serial != NULL)
			root_clean(serial + 11, strlen(serial + 11), f->serial, sizeof(f->serial));
		free(text);
	}
	if (is_filler(f->serial))
		f->serial[0] = '\0';
}

static const struct {
	char compatible[24];
	char name[32];
} socs[] = {
	{"brcm,bcm2837", "Broadcom BCM2837"},
	{"brcm,bcm2711", "Broadcom BCM2711"},
	{"brcm,bcm2712", "Broadcom BCM2712"},
	{"nvidia,tegra210", "NVIDIA Tegra X1"},
	{"nvidia,tegra186", "NVIDIA Tegra X2"},
	{"nvidia,tegra194", "NVIDIA Xavier"},
	{"nvidia,tegra234", "NVIDIA Orin"},
	{"marvell,armada8040", "Marvell Armada 8040"},
	{"marvell,armada7040", "Marvell Armada 7040"},
	{"rockchip,rk3399", "Rockchip RK3399"},
	{"rockchip,rk3568", "Rockchip RK3568"},
	{"rockchip,rk3588", "Rockchip RK3588"},
	{"amlogic,g12b", "Amlogic G12B"},
	{"amlogic,sm1", "Amlogic SM1"},
	{"allwinner,sun50i-h6", "Allwinner H6"},
	{"allwinner,sun50i-h5", "Allwinner H5"},
	{"fsl,imx8mq", "NXP i.MX 8M"},
	{"fsl,imx8mm", "NXP i.MX 8M Mini"},
	{"fsl,lx2160a", "NXP LX2160A"},
};

static const char *soc_known(const char *compatible)
{
	for (size_t i = 0; i < sizeof(socs) / sizeof(socs[0]); i++)
		if (strcmp(socs[i].compatible, compatible) == 0)
			return socs[i].name;
	return NULL;
}

static void soc_read(int root, struct board_facts *f)
{
	char family[24], id[32];

	for (unsigned i = 0; i < f->compatible_count; i++) {
		const char *name = soc_known(f->compatible[i]);

		if (name != NULL) {
			snprintf(f->soc, sizeof(f->soc), "%s", name);
			return;
		}
	}
	/* The firmware's word (SMCCC 1.2, SOC_ID): "jep106:0a16:0001". */
	root_line(root, id, sizeof(id), "sys/devices/soc0/soc_id");
	root_line(root, family, sizeof(family), "sys/devices/soc0/family");
	if (strncmp(id, "jep106:0a16:", 12) == 0)
		snprintf(f->soc, sizeof(f->soc), "%s",
			 strcmp(id + 12, "0001") == 0 ? "Ampere Altra" : "Ampere");
	else if (id[0] != '\0' && family[0] != '\0' && strstr(id, family) == NULL)
		snprintf(f->soc, sizeof(f->soc), "%s %s", family, id);
	else if (id[0] != '\0')
		snprintf(f->soc, sizeof(f->soc), "%s", id);
	else if (f->compatible_count > 1)
		snprintf(f->soc, sizeof(f->soc), "%s", f->compatible[f->compatible_count - 1]);
}

/* --- what it has --- */

static uint64_t memory_read(int root)
{
	char *text = root_text(root, "proc/meminfo");
	const char *line = text != NULL ? strstr(text, "MemTotal:") : NULL;
	unsigned long long kib = 0;

	if (line != NULL)
		kib = strtoull(line + 9, NULL, 10);
	free(text);
	return kib < UINT64_MAX / 1024 ? kib * 1024 : 0;
}

static void madt_read(int root, struct board_madt *ret)
{
	uint8_t *table = mem_alloc(ROOT_TEXT_MAX);
	ssize_t len = root_bytes(root, "sys/firmware/acpi/tables/APIC", table, ROOT_TEXT_MAX);

	madt_parse(table, len > 0 ? (size_t)len : 0, ret);
	free(table);
}

static void gic_note(const struct board_tree *tree, const struct board_madt *madt,
		     struct board_facts *f)
{
	char why[sizeof(f->hosting_why)];

	if (tree->controller == BOARD_CONTROLLER_GICV2 ||
	    tree->controller == BOARD_CONTROLLER_GICV3) {
		f->gic_version = tree->controller == BOARD_CONTROLLER_GICV2 ? 2 : 3;
		f->gic_virtual = !ability_tree_obstacle(tree, why, sizeof(why));
	} else if (madt->present) {
		f->gic_version = madt->version;
		f->gic_virtual =
			madt->maintenance && (madt->version >= 3 || madt->virtual_interface);
	}
}

/* Another process may have it open: what its driver says is enough. */
static void watchdog_read(int root, struct board_watchdog *ret)
{
	int64_t way_out = 0;

	*ret = (struct board_watchdog){0};
	ret->present = root_has(root, "sys/class/watchdog/watchdog0");
	root_line(root, ret->identity, sizeof(ret->identity),
		  "sys/class/watchdog/watchdog0/identity");
	root_number(root, &way_out, "sys/class/watchdog/watchdog0/nowayout");
	ret->no_way_out = way_out != 0;
}

void board_update(int root, const char *data_dir, struct board_facts *f)
{
	condition_read(root, &f->condition);
	storage_read(root, data_dir, &f->storage);
}

void board_read(int root, const char *data_dir, struct board_facts *f)
{
	struct board_tree tree;
	struct board_madt madt;

	*f = (struct board_facts){0};
	board_tree_read(root, &tree);
	madt_read(root, &madt);
	cores_read(root, &f->cores);
	name_read(root, &tree, f);
	soc_read(root, f);
	root_line(root, f->kernel, sizeof(f->kernel), "proc/sys/kernel/osrelease");
	f->memory_bytes = memory_read(root);
	gic_note(&tree, &madt, f);
	/* A service may not see the device, sysfs it does. */
	f->kvm = root_has(root, "sys/class/misc/kvm") || root_has(root, "dev/kvm");
	ability_judge(f, &tree, &madt);
	watchdog_read(root, &f->watchdog);
	board_update(root, data_dir, f);
}
