/* What a board says of itself: whole boards as they were captured, then what the readers make of
 * trees that mean no good. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board/board.h"
#include "board/ability.h"
#include "board/root.h"
#include "captured.h"
#include "lib/buf.h"
#include "lib/mem.h"

static char root[64];
static int fd;

static void finish(void)
{
	close(fd);
	captured_remove(root);
}

/* --- whole boards ----------------------------------------------------------------------------- */

#define HOSTS_WITH_GIC(version)                                                                    \
	.gic_version = (version), .gic_virtual = true, .kvm = true, .hosting = BOARD_HOSTING_YES
/* By QEMU, with Debian's cloud kernel. */
#define EMULATED                                                                                   \
	.kernel = "6.1.0-56-cloud-arm64", .storage = "virtual disk vdb", .storage_mib = 32,        \
	.links = "lan0 up 0", .temperature = ""

static const struct expected {
	const char *name;
	const char *model, *soc, *serial, *cores, *kernel;
	uint64_t memory_mib;
	unsigned gic_version;
	bool gic_virtual, kvm;
	enum board_hosting hosting;
	const char *why; /* part of it */
	const char *storage, *storage_model; /* "eMMC mmcblk0" */
	uint64_t storage_mib;
	unsigned wear;
	const char *links;
	const char *temperature; /* "52350/110000", "" not known */
	bool under_voltage, throttled;
	const char *watchdog;
	bool no_way_out;
} boards[] = {
	{
		.name = "rpi-3b-plus",
		.model = "Raspberry Pi 3 Model B+",
		.soc = "Broadcom BCM2837",
		.cores = "4 x Cortex-A53 r0p4",
		.kernel = "6.1.0-56-arm64",
		.memory_mib = 914,
		.kvm = true, /* of the kernel; that is not all */
		.hosting = BOARD_HOSTING_NO,
		.why = "has no Arm interrupt controller (GIC)",
		.storage = "memory",
		.links = "",
		.temperature = "25178/90000",
		.watchdog = "Broadcom BCM2835 Watchdog timer",
	},
	{
		.name = "rpi-4b",
		.model = "Raspberry Pi 4 Model B Rev 1.4",
		.soc = "Broadcom BCM2711",
		.serial = "10000000c0ffee01",
		.cores = "4 x Cortex-A72 r0p3",
		.kernel = "6.6.51+rpt-rpi-v8",
		.memory_mib = 3794,
		HOSTS_WITH_GIC(2),
		.storage = "SD card mmcblk0",
		.storage_model = "SC32G",
		.storage_mib = 30436,
		.links = "eth0 up 1000, wlan0 down 0",
		.temperature = "71088/110000",
		.under_voltage = true,
		.throttled = true,
		.watchdog = "Broadcom BCM2835 Watchdog timer",
	},
	{
		.name = "rpi-5",
		.model = "Raspberry Pi 5 Model B Rev 1.0",
		.soc = "Broadcom BCM2712",
		.serial = "c0ffee0000000005",
		.cores = "4 x Cortex-A76 r4p1",
		.kernel = "6.12.47+rpt-rpi-2712",
		.memory_mib = 8062,
		HOSTS_WITH_GIC(2),
		.storage = "NVMe nvme0n1",
		.storage_model = "RPI SSD 256GB",
		.storage_mib = 244198,
		.links = "eth0 up 1000",
		.temperature = "52350/110000",
		/* Its fan turns: that is no throttling. */
		.watchdog = "Broadcom BCM2835 Watchdog timer",
	},
	{
		.name = "rpi-cm4",
		.model = "Raspberry Pi Compute Module 4 Rev 1.1",
		.soc = "Broadcom BCM2711",
		.serial = "10000000c0ffee04",
		.cores = "4 x Cortex-A72 r0p3",
		.kernel = "6.1.0-28-arm64",
		.memory_mib = 3793,
		HOSTS_WITH_GIC(2),
		.storage = "eMMC mmcblk0",
		.storage_model = "BJTD4R",
		.storage_mib = 29824,
		.wear = 90,
		.links = "eth0 down 0",
		.temperature = "82251/90000",
		.throttled = true,
		.watchdog = "Broadcom BCM2835 Watchdog timer",
		.no_way_out = true,
	},
	{
		.name = "jetson-xavier",
		.model = "Jetson-AGX",
		.soc = "NVIDIA Xavier",
		.serial = "1420000000001",
		.cores = "8 x Carmel r0p0",
		.kernel = "5.10.104-tegra",
		.memory_mib = 31924,
		HOSTS_WITH_GIC(2),
		.storage = "eMMC mmcblk0",
		.storage_model = "032G02",
		.storage_mib = 29820,
		.wear = 10,
		.links = "eth0 up 1000",
		/* Not the 100 degrees that its power chip always says. */
		.temperature = "31500/96500",
	},
	{
		.name = "macchiatobin",
		.model = "Marvell 8040 MACCHIATOBin Double-shot",
		.soc = "Marvell Armada 8040",
		.cores = "4 x Cortex-A72 r0p1",
		.kernel = "6.1.0-28-arm64",
		.memory_mib = 16002,
		HOSTS_WITH_GIC(2),
		.storage = "SSD sda",
		.storage_model = "SATA SSD",
		.storage_mib = 114473,
		.links = "eth0 up 10000, eth1 down 0, eth2 up 1000",
		.temperature = "60960/100000",
	},
	{
		.name = "ampere-altra",
		.model = "ADLINK Ampere Altra Developer Platform",
		.soc = "Ampere Altra",
		.cores = "80 x Neoverse-N1 r3p1",
		.kernel = "6.1.0-28-arm64",
		.memory_mib = 96093,
		HOSTS_WITH_GIC(3),
		.storage = "NVMe nvme0n1",
		.storage_model = "NVMe SSD 512GB",
		.storage_mib = 488386,
		.links = "enP4p4s0 up 1000",
		.temperature = "47000/0", /* not that of its disk */
		.watchdog = "SBSA Generic Watchdog",
	},
	{
		.name = "emulated",
		.model = "linux,dummy-virt",
		.cores = "2 x Cortex-A72 r0p3",
		.memory_mib = 981,
		HOSTS_WITH_GIC(2),
		EMULATED,
		.watchdog = "Software Watchdog",
	},
	{
		.name = "emulated-no-kvm",
		.model = "linux,dummy-virt",
		.cores = "2 x Cortex-A76 r4p1",
		.memory_mib = 981,
		.gic_version = 3,
		.hosting = BOARD_HOSTING_NO,
		/* The tree has no interrupt of the controller either: QEMU leaves it out when there
		 * is nobody who would use it. The first cause is told. */
		.why = "there is no /dev/kvm",
		EMULATED,
	},
	{
		.name = "emulated-acpi-gicv3",
		.model = "QEMU QEMU Virtual Machine",
		.cores = "2 x Cortex-A76 r4p1",
		.memory_mib = 971,
		HOSTS_WITH_GIC(3),
		EMULATED,
	},
	{
		.name = "emulated-acpi-gicv2",
		.model = "QEMU QEMU Virtual Machine",
		.cores = "2 x Cortex-A76 r4p1",
		.memory_mib = 971,
		HOSTS_WITH_GIC(2),
		EMULATED,
	},
};

static void expect_text(const char *board, const char *what, const char *got, const char *wanted)
{
	if (wanted == NULL)
		wanted = "";
	if (strcmp(got, wanted) != 0)
		fail_msg("%s: %s is \"%s\", not \"%s\"", board, what, got, wanted);
}

static void expect_number(const char *board, const char *what, uint64_t got, uint64_t wanted)
{
	if (got != wanted)
		fail_msg("%s: %s is %llu, not %llu", board, what, (unsigned long long)got,
			 (unsigned long long)wanted);
}

static void check_condition(const struct expected *e, const struct board_condition *c)
{
	char temperature[32] = "";
	struct buf links = {0};

	if (c->temperature_known)
		snprintf(temperature, sizeof(temperature), "%d/%d", c->temperature_mc,
			 c->critical_mc);
	expect_text(e->name, "temperature", temperature, e->temperature);
	for (unsigned i = 0; i < c->link_count; i++)
		buf_printf(&links, "%s%s %s %u", i > 0 ? ", " : "", c->links[i].name,
			   c->links[i].up ? "up" : "down", c->links[i].mbits);
	expect_text(e->name, "links", buf_string(&links), e->links);
	buf_free(&links);
	expect_number(e->name, "under-voltage", c->under_voltage, e->under_voltage);
	expect_number(e->name, "throttled", c->throttled, e->throttled);
}

static void check_storage(const struct expected *e, const struct board_storage *s)
{
	char text[64];

	snprintf(text, sizeof(text), "%s%s%s", s->kind, s->device[0] != '\0' ? " " : "", s->device);
	expect_text(e->name, "storage", text, e->storage);
	expect_text(e->name, "storage's model", s->model, e->storage_model);
	expect_number(e->name, "storage's size", s->bytes >> 20, e->storage_mib);
	expect_number(e->name, "wear", s->wear_percent, e->wear);
}

static void check_board(const struct expected *e, const struct board_facts *f)
{
	struct buf cores = {0};

	expect_text(e->name, "model", f->model, e->model);
	expect_text(e->name, "SoC", f->soc, e->soc);
	expect_text(e->name, "serial", f->serial, e->serial);
	expect_text(e->name, "kernel", f->kernel, e->kernel);
	for (unsigned i = 0; i < f->cores.kind_count; i++)
		buf_printf(&cores, "%s%u x %s", i > 0 ? ", " : "", f->cores.kinds[i].count,
			   f->cores.kinds[i].name);
	expect_text(e->name, "cores", buf_string(&cores), e->cores);
	buf_free(&cores);
	expect_number(e->name, "memory", f->memory_bytes >> 20, e->memory_mib);
	expect_number(e->name, "GIC version", f->gic_version, e->gic_version);
	expect_number(e->name, "virtual GIC", f->gic_virtual, e->gic_virtual);
	expect_number(e->name, "KVM", f->kvm, e->kvm);
	expect_number(e->name, "hosting", f->hosting, e->hosting);
	if (e->why == NULL ? f->hosting_why[0] != '\0' : strstr(f->hosting_why, e->why) == NULL)
		fail_msg("%s: it cannot host: %s", e->name, f->hosting_why);
	check_storage(e, &f->storage);
	check_condition(e, &f->condition);
	expect_text(e->name, "watchdog", f->watchdog.identity, e->watchdog);
	expect_number(e->name, "watchdog's presence", f->watchdog.present, e->watchdog != NULL);
	expect_number(e->name, "nowayout", f->watchdog.no_way_out, e->no_way_out);
}

static void test_boards(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(boards) / sizeof(boards[0]); i++) {
		struct board_facts facts;

		fd = captured_unpack(boards[i].name, root);
		board_read(fd, "/var/lib/tiebreak", &facts);
		finish();
		check_board(&boards[i], &facts);
	}
}

/* What changes while it runs, and what does not. */
static void test_update(void **state)
{
	struct board_facts facts;

	(void)state;
	fd = captured_unpack("rpi-4b", root);
	board_read(fd, "/var/lib/tiebreak", &facts);
	captured_put(root, "sys/devices/virtual/thermal/thermal_zone0/temp", "-12400\n");
	captured_put(root, "sys/devices/platform/soc/soc:firmware/get_throttled", "80008\n");
	captured_put(root,
		     "sys/devices/platform/soc/soc:firmware/raspberrypi-hwmon/hwmon/hwmon1/"
		     "in0_lcrit_alarm",
		     "0\n");
	captured_put(root, "sys/devices/platform/scb/fd580000.ethernet/net/eth0/operstate",
		     "down\n");
	board_update(fd, "/run", &facts);
	assert_int_equal(facts.condition.temperature_mc, -12400);
	/* The soft limit of temperature alone is a matter of course. */
	assert_false(facts.condition.throttled);
	assert_false(facts.condition.under_voltage);
	assert_false(facts.condition.links[0].up);
	assert_int_equal(facts.condition.links[0].mbits, 0);
	assert_string_equal(facts.storage.kind, "memory");
	assert_string_equal(facts.model, "Raspberry Pi 4 Model B Rev 1.4");
	finish();
}

static void test_firmware_bits(void **state)
{
	static const struct {
		const char *bits;
		bool under_voltage, throttled;
	} cases[] = {
		{"0", false, false},
		{"1", true, false},
		{"2", false, true},
		{"4", false, true},
		{"8", false, false},
		{"10000", true, false},
		{"20000", false, true},
		{"40000", false, true},
		{"80000", false, false},
		{"50005", true, true},
		{"", false, false},
		{"rubbish", false, false},
		{"fffffffffffffffffffff", true, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct board_condition c;

		fd = captured_empty(root);
		captured_put(root,
			     "sys/bus/platform/drivers/raspberrypi-firmware/soc:firmware/"
			     "get_throttled",
			     cases[i].bits);
		condition_read(fd, &c);
		finish();
		expect_number(cases[i].bits, "under-voltage", c.under_voltage,
			      cases[i].under_voltage);
		expect_number(cases[i].bits, "throttled", c.throttled, cases[i].throttled);
	}
}

/* --- can it host? ----------------------------------------------------------------------------- */

static void spoil(const char *what, const char *text, const char *why)
{
	struct board_facts facts;
	char path[128];

	fd = captured_unpack("rpi-4b", root);
	snprintf(path, sizeof(path), "%s/%s", root, what);
	if (text != NULL)
		captured_put(root, what, text);
	else
		assert_int_equal(remove(path), 0);
	board_read(fd, "/var/lib/tiebreak", &facts);
	finish();
	assert_int_equal(facts.hosting, BOARD_HOSTING_NO);
	if (strstr(facts.hosting_why, why) == NULL)
		fail_msg("%s: %s", what, facts.hosting_why);
}

#define PI4_GIC "sys/firmware/devicetree/base/soc/interrupt-controller@40041000/"

static void test_hosting(void **state)
{
	struct board_facts facts;

	(void)state;
	spoil("sys/class/misc/kvm", NULL, "there is no /dev/kvm");
	spoil(PI4_GIC "interrupts", NULL, "maintenance interrupt");
	spoil(PI4_GIC "reg", "12345678", "has 1 of 4 register ranges");
	/* To mend /dev/kvm on a Raspberry Pi 3 would be in vain. */
	fd = captured_unpack("rpi-3b-plus", root);
	assert_int_equal(unlinkat(fd, "sys/class/misc/kvm", AT_REMOVEDIR), 0);
	board_read(fd, "/var/lib/tiebreak", &facts);
	assert_false(facts.kvm);
	assert_non_null(strstr(facts.hosting_why, "no Arm interrupt controller"));
	finish();
	/* Neither tree nor table: nobody knows. */
	fd = captured_empty(root);
	captured_put(root, "sys/class/misc/kvm/dev", "10:232\n");
	board_read(fd, "/var/lib/tiebreak", &facts);
	assert_int_equal(facts.hosting, BOARD_HOSTING_UNKNOWN);
	/* A PC. */
	captured_put(
		root, "proc/cpuinfo",
		"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A Processor @ 2 GHz\n"
		"\nprocessor\t: 1\nmodel name\t: A Processor @ 2 GHz\n");
	board_read(fd, "/var/lib/tiebreak", &facts);
	assert_int_equal(facts.hosting, BOARD_HOSTING_NO);
	assert_non_null(strstr(facts.hosting_why, "no 64-bit Arm"));
	assert_int_equal(facts.cores.count, 2);
	assert_string_equal(facts.cores.kinds[0].name, "A Processor @ 2 GHz");
	finish();
}

/* --- what it is called ------------------------------------------------------------------------ */

static void expect_names(const char *model, const char *soc, const char *serial)
{
	struct board_facts facts;

	board_read(fd, "/", &facts);
	expect_text("names", "model", facts.model, model);
	expect_text("names", "SoC", facts.soc, soc);
	expect_text("names", "serial", facts.serial, serial);
}

static void test_names(void **state)
{
	(void)state;
	fd = captured_empty(root);
	expect_names("", "", "");
	/* What makers forget to fill in is nothing. */
	captured_put(root, "sys/class/dmi/id/sys_vendor", "To Be Filled By O.E.M.\n");
	captured_put(root, "sys/class/dmi/id/product_name", "Default string\n");
	captured_put(root, "sys/class/dmi/id/product_serial", "None\n");
	expect_names("", "", "");
	captured_put(root, "sys/class/dmi/id/product_name", "Thing\n");
	captured_put(root, "sys/class/dmi/id/product_serial", "S1\n");
	captured_put(root, "sys/devices/soc0/soc_id", "jep106:0426:0220\n");
	captured_put(root, "sys/devices/soc0/family", "jep106:0426\n");
	expect_names("Thing", "jep106:0426:0220", "S1");
	captured_put(root, "sys/devices/soc0/soc_id", "RK3399\n");
	captured_put(root, "sys/devices/soc0/family", "Rockchip\n");
	captured_put(root, "sys/class/dmi/id/sys_vendor", "Maker\n");
	expect_names("Maker Thing", "Rockchip RK3399", "S1");
	finish();
	/* A kernel without the tree's serial number. */
	fd = captured_empty(root);
	captured_put(root, "proc/cpuinfo",
		     "Hardware\t: BCM2835\nRevision\t: c03115\nSerial\t\t: 10000000c0ffee09\n");
	expect_names("", "", "10000000c0ffee09");
	captured_put(root, "proc/cpuinfo", "Hardware\t: X\nSerial\t\t: 0000000000000000\n");
	expect_names("", "", "");
	/* A tree goes before all else; a SoC that is not in our table is what the tree calls it. */
	captured_put(root, "sys/class/dmi/id/product_name", "Thing\n");
	captured_put(root, "sys/firmware/devicetree/base/model", "A Board");
	captured_put(root, "sys/firmware/devicetree/base/compatible", "maker,board");
	expect_names("A Board", "", "");
	finish();
}

/* --- the firmware's table --------------------------------------------------------------------- */

struct table {
	uint8_t bytes[512];
	size_t len;
};

static void table_number(uint8_t *at, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static void table_begin(struct table *t)
{
	memset(t, 0, sizeof(*t));
	memcpy(t->bytes, "APIC", 4);
	t->len = 44;
}

static uint8_t *table_entry(struct table *t, uint8_t type, uint8_t size)
{
	uint8_t *entry = t->bytes + t->len;

	entry[0] = type;
	entry[1] = size;
	t->len += size;
	table_number(t->bytes + 4, t->len, 4);
	return entry;
}

static void table_core(struct table *t, bool maintenance, bool virtual, bool redistributor)
{
	uint8_t *core = table_entry(t, 0x0b, 80);

	table_number(core + 56, maintenance ? 25 : 0, 4);
	table_number(core + 40, virtual ? 0x8040000 : 0, 8);
	table_number(core + 48, virtual ? 0x8030000 : 0, 8);
	table_number(core + 60, redistributor ? 0x80a0000 : 0, 8);
}

static void expect_madt(const struct table *t, bool present, unsigned version, bool maintenance,
			bool virtual)
{
	struct board_madt m;

	madt_parse(t->bytes, t->len, &m);
	assert_int_equal(m.present, present);
	assert_int_equal(m.version, version);
	assert_int_equal(m.maintenance, maintenance);
	assert_int_equal(m.virtual_interface, virtual);
}

static void test_madt(void **state)
{
	struct table t;
	size_t whole;

	(void)state;
	table_begin(&t);
	expect_madt(&t, false, 0, false, false);
	table_core(&t, true, true, false);
	table_core(&t, true, true, false);
	expect_madt(&t, true, 2, true, true); /* it does not say; no redistributors */
	table_entry(&t, 0x0c, 24)[20] = 2;
	expect_madt(&t, true, 2, true, true);
	/* One core that lacks something is enough. */
	table_core(&t, true, false, false);
	expect_madt(&t, true, 2, true, false);
	table_core(&t, false, false, false);
	expect_madt(&t, true, 2, false, false);
	/* A PC's: local APICs. */
	table_begin(&t);
	table_entry(&t, 0, 8);
	expect_madt(&t, false, 0, false, false);
	/* GICv3, from its redistributors and from its word. */
	table_begin(&t);
	table_core(&t, true, false, true);
	expect_madt(&t, true, 3, true, false);
	table_entry(&t, 0x0c, 24)[20] = 4;
	expect_madt(&t, true, 4, true, false);
	table_begin(&t);
	table_core(&t, true, false, false);
	table_entry(&t, 0x0e, 16);
	expect_madt(&t, true, 3, true, false);
	/* Cut off anywhere it is read to there; an entry without a size ends it. */
	whole = t.len;
	for (t.len = 0; t.len < whole; t.len++) {
		struct board_madt m;

		madt_parse(t.bytes, t.len, &m);
		assert_int_equal(m.present, t.len >= 44 + 80);
	}
	t.bytes[44 + 1] = 0;
	expect_madt(&t, false, 0, false, false);
	memcpy(t.bytes, "CIPA", 4);
	expect_madt(&t, false, 0, false, false);
}

/* The same, of a whole board. */
static void test_madt_hosting(void **state)
{
	static const struct {
		bool maintenance, virtual;
		unsigned version;
		enum board_hosting hosting;
		const char *why;
	} cases[] = {
		{true, true, 2, BOARD_HOSTING_YES, ""},
		{true, false, 2, BOARD_HOSTING_NO, "virtual interface (GICH, GICV)"},
		{true, false, 3, BOARD_HOSTING_YES, ""},
		{false, true, 2, BOARD_HOSTING_NO, "maintenance interrupt"},
		{false, false, 3, BOARD_HOSTING_NO, "maintenance interrupt"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct board_facts facts = {.kvm = true, .gic_version = cases[i].version};
		struct board_madt m = {true, cases[i].version, cases[i].maintenance,
				       cases[i].virtual};
		struct board_tree none = {0};

		ability_judge(&facts, &none, &m);
		assert_int_equal(facts.hosting, cases[i].hosting);
		assert_non_null(strstr(facts.hosting_why, cases[i].why));
	}
}

/* --- storage ---------------------------------------------------------------------------------- */

#define DISK "sys/devices/mmc/block/mmcblk0/"

static unsigned wear_now(void)
{
	struct board_storage s;

	storage_read(fd, "/data/x", &s);
	return s.wear_percent;
}

static void test_wear(void **state)
{
	(void)state;
	fd = captured_empty(root);
	captured_put(root, "proc/self/mountinfo", "1 1 179:2 / /data rw - ext4 /dev/x rw\n");
	captured_link(root, "sys/dev/block/179:2", "../../devices/mmc/block/mmcblk0/mmcblk0p2");
	captured_put(root, DISK "mmcblk0p2/partition", "2\n");
	assert_int_equal(wear_now(), 0); /* it does not say */
	captured_put(root, DISK "device/life_time", "0x02 0x07\n");
	assert_int_equal(wear_now(), 70); /* the worse of two */
	captured_put(root, DISK "device/pre_eol_info", "0x01\n");
	assert_int_equal(wear_now(), 70);
	captured_put(root, DISK "device/pre_eol_info", "0x02\n");
	assert_int_equal(wear_now(), 90);
	captured_put(root, DISK "device/pre_eol_info", "0x03\n");
	assert_int_equal(wear_now(), 100);
	captured_put(root, DISK "device/life_time", "0x0b 0x01\n");
	assert_int_equal(wear_now(), 110);
	captured_put(root, DISK "device/life_time", "0xffffffff 0x01\n");
	assert_int_equal(wear_now(), 110);
	captured_put(root, DISK "device/life_time", "nonsense\n");
	captured_put(root, DISK "device/pre_eol_info", "");
	assert_int_equal(wear_now(), 0);
	finish();
	/* UFS has it in the controller's folder. */
	fd = captured_empty(root);
	captured_put(root, "proc/self/mountinfo", "1 1 8:3 / / ro - ext4 /dev/sda3 ro\n");
	captured_link(root, "sys/dev/block/8:3", "../../devices/1d84000.ufshc/host0/0:0/block/sda");
	captured_link(root, "sys/class/block/sda",
		      "../../devices/1d84000.ufshc/host0/0:0/block/sda");
	captured_put(root, "sys/devices/1d84000.ufshc/host0/0:0/block/sda/uevent", "DEVNAME=sda\n");
	captured_link(root, "sys/devices/1d84000.ufshc/host0/0:0/block/sda/device", "../../../0:0");
	captured_put(root, "sys/devices/1d84000.ufshc/health_descriptor/life_time_estimation_a",
		     "0x03\n");
	captured_put(root, "sys/devices/1d84000.ufshc/health_descriptor/life_time_estimation_b",
		     "0x05\n");
	captured_put(root, "sys/devices/1d84000.ufshc/health_descriptor/eol_info", "0x01\n");
	assert_int_equal(wear_now(), 50);
	finish();
}

/* Which mount holds a path. */
static void test_mounts(void **state)
{
	static const char text[] = "1 1 0:1 / / ro,x - overlay overlay rw\n"
				   "2 1 0:2 / /a rw - tmpfs t rw\n"
				   "3 1 0:3 / /a/b\\040c rw shared:1 - nfs4 server:/x rw\n"
				   "nonsense\n"
				   "4 1 0:4 / /late rw - ramfs r rw\n"
				   "5 1 0:5 / /late rw - 9p r rw\n";
	static const struct {
		const char *path, *kind;
		bool read_only;
	} cases[] = {
		{"/x", "overlay", true},      {"/ab", "overlay", true},
		{"/a", "memory", false},      {"/a/b", "memory", false},
		{"/a/b c", "nfs4", false},    {"/a/b c/d", "nfs4", false},
		{"/a/b cd", "memory", false}, {"/late/x", "9p", false},
	};
	struct board_storage s;

	(void)state;
	fd = captured_empty(root);
	storage_read(fd, "/x", &s);
	assert_string_equal(s.kind, "");
	captured_put(root, "proc/self/mountinfo", text);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		storage_read(fd, cases[i].path, &s);
		expect_text(cases[i].path, "kind", s.kind, cases[i].kind);
		expect_number(cases[i].path, "read only", s.read_only, cases[i].read_only);
	}
	finish();
}

/* --- files below a root ----------------------------------------------------------------------- */

static void expect_line(const char *path, const char *wanted)
{
	char line[ROOT_LINE_MAX];

	root_line(fd, line, sizeof(line), "%s", path);
	expect_text(path, "line", line, wanted);
}

/* Links go no further than the root, whatever they say. */
static void test_root_links(void **state)
{
	char link[64];

	(void)state;
	fd = captured_empty(root);
	captured_put(root, "secret", "ours\n");
	captured_put(root, "a/b/file", "here\n");
	captured_link(root, "a/up", "../../../../../../secret");
	captured_link(root, "a/absolute", "/secret");
	captured_link(root, "a/out", "/etc/passwd");
	captured_link(root, "a/loop", "loop");
	captured_link(root, "a/ping", "pong");
	captured_link(root, "a/pong", "ping");
	captured_link(root, "a/folder", "b");
	captured_link(root, "a/longer", "./b/../folder//file");
	captured_link(root, "a/through", "b/file/..");
	expect_line("a/b/file", "here");
	expect_line("/a/../a/./b/file", "here");
	expect_line("../../secret", "ours");
	expect_line("a/up", "ours");
	expect_line("a/absolute", "ours");
	expect_line("a/out", "");
	expect_line("a/loop", "");
	expect_line("a/ping", "");
	expect_line("a/folder/file", "here");
	expect_line("a/longer", "here");
	expect_line("a/b", ""); /* a folder */
	assert_int_equal(root_at(fd, "a/loop"), -ELOOP);
	assert_int_equal(root_at(fd, "a/out"), -ENOENT);
	assert_true(root_has(fd, "a/folder"));
	assert_false(root_has(fd, "a/out"));
	assert_true(root_link(fd, link, sizeof(link), "a/out"));
	assert_string_equal(link, "/etc/passwd");
	assert_false(root_link(fd, link, sizeof(link), "a/b"));
	assert_false(root_link(fd, link, sizeof(link), "."));
	finish();
}

/* What is no file is not opened: a FIFO would hang, a device might do something. */
static void test_root_kinds(void **state)
{
	char *path;
	int64_t number;
	char text[40];

	(void)state;
	fd = captured_empty(root);
	path = mem_printf("%s/fifo", root);
	assert_int_equal(mkfifo(path, 0600), 0);
	free(path);
	assert_int_equal(root_at(fd, "fifo"), -EINVAL);
	assert_int_equal(folder_bytes(fd, "fifo", text, sizeof(text)), -EINVAL);
	assert_true(root_has(fd, "fifo"));
	captured_link(root, "link", "fifo");
	assert_int_equal(folder_bytes(fd, "link", text, sizeof(text)), -EINVAL);
	captured_put(root, "dirty", "  a\x01\xff\x1b[31mb\tc  \nnext\n");
	expect_line("dirty", "a???[31mb c");
	captured_put(root, "hex", "0x00000000410fd083\n");
	assert_true(root_number(fd, &number, "hex"));
	assert_int_equal(number, 0x410fd083);
	captured_put(root, "below", "-5\n");
	assert_true(root_number(fd, &number, "below"));
	assert_int_equal(number, -5);
	captured_put(root, "huge", "99999999999999999999999999\n");
	assert_false(root_number(fd, &number, "huge"));
	captured_put(root, "word", "max\n");
	assert_false(root_number(fd, &number, "word"));
	captured_put(root, "long",
		     "0123456789012345678901234567890123456789012345678901234567890\n");
	root_line(fd, text, sizeof(text), "long");
	assert_int_equal(strlen(text), sizeof(text) - 1);
	finish();
}

static bool name_count(void *arg, const char *name)
{
	(void)name;
	return ++*(unsigned *)arg < 3;
}

static void test_root_names(void **state)
{
	unsigned count = 0;

	(void)state;
	fd = captured_empty(root);
	captured_put(root, "d/n1", "");
	captured_put(root, "d/n2", "");
	captured_put(root, "d/m", "");
	captured_put(root, "d/.n", "");
	root_names(fd, "d", "n", name_count, &count);
	assert_int_equal(count, 2);
	root_names(fd, "d", "", name_count, &count);
	assert_int_equal(count, 3); /* it was enough */
	root_names(fd, "d/n1", "", name_count, &count);
	root_names(fd, "none", "", name_count, &count);
	assert_int_equal(count, 3);
	finish();
}

static void test_cores(void **state)
{
	struct board_cores cores;

	(void)state;
	fd = captured_empty(root);
	cores_read(fd, &cores);
	assert_int_equal(cores.count, 0);
	/* big.LITTLE, and a part that nobody has told us of. */
	captured_put(root, "proc/cpuinfo",
		     "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
		     "CPU variant\t: 0x0\nCPU part\t: 0xd03\nCPU revision\t: 4\n\n"
		     "processor\t: 4\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
		     "CPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 2\n\n"
		     "processor\t: 5\nCPU implementer\t: 0x99\nCPU architecture: 8\n"
		     "CPU variant\t: 0x1\nCPU part\t: 0x123\nCPU revision\t: 5\n\n");
	cores_read(fd, &cores);
	assert_int_equal(cores.count, 3);
	assert_int_equal(cores.kind_count, 3);
	assert_true(cores.arm);
	assert_string_equal(cores.kinds[0].name, "Cortex-A53 r0p4");
	assert_int_equal(cores.kinds[0].midr, 0x410fd034); /* as sysfs has it */
	assert_string_equal(cores.kinds[1].name, "Cortex-A72 r0p2");
	assert_string_equal(cores.kinds[2].name, "0x99/0x123 r1p5");
	/* More kinds than anybody builds are counted, not told. */
	for (unsigned i = 0; i < 2 * CORE_KINDS_MAX; i++) {
		char path[96], midr[24];

		snprintf(path, sizeof(path),
			 "sys/devices/system/cpu/cpu%u/regs/identification/midr_el1", i);
		snprintf(midr, sizeof(midr), "0x%08x\n", 0x410f0000 + 16 * i);
		captured_put(root, path, midr);
	}
	cores_read(fd, &cores);
	assert_int_equal(cores.count, 2 * CORE_KINDS_MAX);
	assert_int_equal(cores.kind_count, CORE_KINDS_MAX);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_boards),	      cmocka_unit_test(test_update),
		cmocka_unit_test(test_firmware_bits), cmocka_unit_test(test_hosting),
		cmocka_unit_test(test_names),	      cmocka_unit_test(test_madt),
		cmocka_unit_test(test_madt_hosting),  cmocka_unit_test(test_wear),
		cmocka_unit_test(test_mounts),	      cmocka_unit_test(test_root_links),
		cmocka_unit_test(test_root_kinds),    cmocka_unit_test(test_root_names),
		cmocka_unit_test(test_cores),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
