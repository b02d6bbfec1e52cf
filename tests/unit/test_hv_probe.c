/* What a probe of a host says: device trees as the boards have them, other files below a root, and
 * the judgement of every fact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board/root.h"
#include "hv/probe_judge.h"
#include "lib/mem.h"
#include "proto/json.h"

/* --- a root folder ---------------------------------------------------------------------------- */

static char root[64];

static void root_make(void)
{
	snprintf(root, sizeof(root), "/tmp/probe-XXXXXX");
	assert_non_null(mkdtemp(root));
}

static int entry_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static void root_remove(void)
{
	assert_int_equal(nftw(root, entry_remove, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void folders_make(char *path)
{
	char *at;

	for (at = path + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
		*at = '\0';
		mkdir(path, 0700);
		*at = '/';
	}
}

static void put_bytes(const char *path, const void *data, size_t len)
{
	char *full = mem_printf("%s/%s", root, path);
	int fd;

	folders_make(full);
	fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), (ssize_t)len);
	close(fd);
	free(full);
}

static void put_text(const char *path, const char *text)
{
	put_bytes(path, text, strlen(text));
}

#define TREE "sys/firmware/devicetree/base/"

/* A property of cells. */
static void put_cells(const char *node, const char *name, const uint32_t *values, size_t count)
{
	char *path = mem_printf(TREE "%s%s%s", node, node[0] != '\0' ? "/" : "", name);
	uint8_t data[128];
	size_t i;

	for (i = 0; i < count; i++) {
		data[4 * i] = (uint8_t)(values[i] >> 24);
		data[4 * i + 1] = (uint8_t)(values[i] >> 16);
		data[4 * i + 2] = (uint8_t)(values[i] >> 8);
		data[4 * i + 3] = (uint8_t)values[i];
	}
	put_bytes(path, data, 4 * count);
	free(path);
}

#define PUT_CELLS(node, name, ...)                                                                 \
	put_cells(node, name, (const uint32_t[]){__VA_ARGS__},                                     \
		  sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

static void put_compatible(const char *node, const char *list, size_t len)
{
	char *path = mem_printf(TREE "%s/compatible", node);

	put_bytes(path, list, len);
	free(path);
}

#define PUT_COMPATIBLE(node, list) put_compatible(node, list, sizeof(list))

static void put_cell_counts(const char *node, uint32_t address, uint32_t size)
{
	put_cells(node, "#address-cells", &address, 1);
	put_cells(node, "#size-cells", &size, 1);
}

/* Values of Debian's bcm2711-rpi-4-b.dtb: the old controller is there too, and comes first. */
static void tree_pi4(void)
{
	put_bytes(TREE "model", "Raspberry Pi 4 Model B", 23);
	put_cell_counts("", 2, 1);
	put_cell_counts("soc", 1, 1);
	PUT_COMPATIBLE("soc/local_intc@40000000", "brcm,bcm2836-l1-intc");
	PUT_CELLS("soc/local_intc@40000000", "reg", 0x40000000, 0x100);
	PUT_COMPATIBLE("soc/interrupt-controller@40041000", "arm,gic-400");
	PUT_CELLS("soc/interrupt-controller@40041000", "reg", 0x40041000, 0x1000, 0x40042000,
		  0x2000, 0x40044000, 0x2000, 0x40046000, 0x2000);
	PUT_CELLS("soc/interrupt-controller@40041000", "interrupts", 1, 9, 0xf04);
}

/* bcm2837-rpi-3-b.dtb. */
static void tree_pi3(void)
{
	put_bytes(TREE "model", "Raspberry Pi 3 Model B", 23);
	put_cell_counts("", 1, 1);
	put_cell_counts("soc", 1, 1);
	PUT_COMPATIBLE("soc/interrupt-controller@7e00b200", "brcm,bcm2836-armctrl-ic");
	PUT_CELLS("soc/interrupt-controller@7e00b200", "reg", 0x7e00b200, 0x200);
	PUT_COMPATIBLE("soc/local_intc@40000000", "brcm,bcm2836-l1-intc");
	PUT_CELLS("soc/local_intc@40000000", "reg", 0x40000000, 0x100);
}

/* rk3399-rock-pi-4b.dtb: a GICv3 with what GICv2 guests need. */
static void tree_rk3399(void)
{
	put_cell_counts("", 2, 2);
	PUT_COMPATIBLE("interrupt-controller@fee00000", "arm,gic-v3");
	PUT_CELLS("interrupt-controller@fee00000", "reg", 0, 0xfee00000, 0, 0x10000, 0, 0xfef00000,
		  0, 0xc0000, 0, 0xfff00000, 0, 0x10000, 0, 0xfff10000, 0, 0x10000, 0, 0xfff20000,
		  0, 0x10000);
	PUT_CELLS("interrupt-controller@fee00000", "interrupts", 1, 9, 4, 0);
}

/* The controller of a Pi 4 with `ranges` of its four, with or without its interrupt. */
static void tree_cut(size_t ranges, bool maintenance)
{
	static const uint32_t reg[] = {0x40041000, 0x1000, 0x40042000, 0x2000,
				       0x40044000, 0x2000, 0x40046000, 0x2000};

	put_cell_counts("", 1, 1);
	PUT_COMPATIBLE("interrupt-controller@40041000", "vendor,own\0arm,gic-400");
	put_cells("interrupt-controller@40041000", "reg", reg, 2 * ranges);
	if (maintenance) {
		PUT_CELLS("interrupt-controller@40041000", "interrupts-extended", 1, 1, 9, 0xf04);
	}
}

/* --- reading ---------------------------------------------------------------------------------- */

static struct board_tree tree_of_root(void)
{
	struct board_tree t;
	int fd = root_open(root);

	assert_true(fd >= 0);
	board_tree_read(fd, &t);
	close(fd);
	return t;
}

static void test_tree_pi4(void **state)
{
	struct board_tree t;

	(void)state;
	root_make();
	tree_pi4();
	t = tree_of_root();
	assert_true(t.present);
	assert_string_equal(t.model, "Raspberry Pi 4 Model B");
	assert_int_equal(t.controller, BOARD_CONTROLLER_GICV2);
	assert_string_equal(t.node, "interrupt-controller@40041000");
	assert_int_equal(t.ranges, 4);
	assert_true(t.maintenance);
	assert_int_equal(t.gicv_base, 0x40046000);
	assert_int_equal(t.gicv_size, 0x2000);
	root_remove();
}

static void test_tree_others(void **state)
{
	struct board_tree t;

	(void)state;
	root_make();
	t = tree_of_root();
	assert_false(t.present);
	tree_pi3();
	t = tree_of_root();
	assert_int_equal(t.controller, BOARD_CONTROLLER_BCM2836);
	root_remove();
	root_make();
	tree_rk3399();
	t = tree_of_root();
	assert_int_equal(t.controller, BOARD_CONTROLLER_GICV3);
	assert_int_equal(t.ranges, 5);
	assert_true(t.maintenance);
	root_remove();
	root_make();
	tree_cut(2, false);
	t = tree_of_root();
	assert_int_equal(t.controller, BOARD_CONTROLLER_GICV2);
	assert_int_equal(t.ranges, 2);
	assert_false(t.maintenance);
	assert_int_equal(t.gicv_size, 0);
	root_remove();
}

/* A tree may be anything: cell counts that are none, a property that is a folder, a loop. */
static void test_tree_hostile(void **state)
{
	struct board_tree t;
	char *path;

	(void)state;
	root_make();
	put_cell_counts("", 0xffffffff, 0);
	PUT_COMPATIBLE("gic", "arm,gic-400");
	PUT_CELLS("gic", "reg", 1, 2, 3);
	put_text(TREE "a/compatible/b", "x");
	put_bytes(TREE "c/compatible", "arm,gic-400", 11); /* no zero byte at its end */
	path = mem_printf("%s/" TREE "loop", root);
	assert_int_equal(symlink("..", path), 0);
	free(path);
	t = tree_of_root();
	assert_int_equal(t.controller, BOARD_CONTROLLER_GICV2);
	assert_true(t.ranges <= 4);
	root_remove();
}

static void test_board_files(void **state)
{
	struct probe_board b;

	(void)state;
	root_make();
	probe_board_read(root, &b);
	assert_false(b.tree.present);
	assert_string_equal(b.kernel, "");
	assert_false(b.cgroup2);
	assert_false(b.user_namespaces);
	assert_int_equal(b.core_kinds, 0);
	tree_pi4();
	put_text("proc/sys/kernel/osrelease", "6.12.1-v8+\n");
	put_text("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
	put_text("sys/kernel/mm/transparent_hugepage/shmem_enabled",
		 "always within_size [advise] never deny force\n");
	put_text("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory_not pids\n");
	put_text("proc/cmdline", "console=tty1 cgroup_disable=memory root=/dev/mmcblk0p2\n");
	put_text("proc/self/ns/user", "");
	put_text("proc/sys/user/max_user_namespaces", "63000\n");
	put_text("dev/net/tun", "");
	put_text("sys/devices/system/cpu/cpu0/regs/identification/midr_el1",
		 "0x00000000410fd034\n");
	put_text("sys/devices/system/cpu/cpu1/regs/identification/midr_el1",
		 "0x00000000410fd034\n");
	put_text("sys/devices/system/cpu/cpu4/regs/identification/midr_el1",
		 "0x00000000410fd082\n");
	probe_board_read(root, &b);
	assert_string_equal(b.tree.model, "Raspberry Pi 4 Model B");
	assert_string_equal(b.kernel, "6.12.1-v8+");
	assert_string_equal(b.huge_anonymous, "madvise");
	assert_string_equal(b.huge_memfd, "advise");
	assert_true(b.cgroup2);
	assert_false(b.cgroup_memory);
	assert_true(b.cgroup_memory_disabled);
	assert_true(b.user_namespaces);
	assert_true(b.tap);
	assert_false(b.vhost_vsock);
	assert_int_equal(b.core_kinds, 2);
	put_text("sys/fs/cgroup/cgroup.controllers", "cpuset memory\n");
	put_text("proc/sys/kernel/unprivileged_userns_clone", "0\n");
	probe_board_read(root, &b);
	assert_true(b.cgroup_memory);
	assert_false(b.user_namespaces);
	root_remove();
}

/* --- judging ---------------------------------------------------------------------------------- */

/* A host on which all is well. */
static void facts_good(struct probe_board *b, struct probe_kvm *k)
{
	*b = (struct probe_board){
		.tree = {.present = true,
			 .model = "A Board",
			 .controller = BOARD_CONTROLLER_GICV2,
			 .node = "gic@1",
			 .ranges = 4,
			 .maintenance = true,
			 .gicv_base = 0x40046000,
			 .gicv_size = 0x2000},
		.kernel = "6.1",
		.huge_anonymous = "always",
		.huge_memfd = "advise",
		.cgroup2 = true,
		.cgroup_memory = true,
		.user_namespaces = true,
		.vhost_vsock = true,
		.tap = true,
		.core_kinds = 1,
	};
	*k = (struct probe_kvm){
		.version = 12,
		.gicv3_error = ENODEV,
		.ipa_bits = 44,
		.max_vcpus = 8,
		.pmu = true,
		.steal_time = true,
		.io_uring = true,
		.page_size = 4096,
	};
}

static void test_all_well(void **state)
{
	struct probe_board b;
	struct probe_kvm k;
	Tb__HostProbe *p;
	struct buf text = {0};

	(void)state;
	facts_good(&b, &k);
	p = probe_judge(&b, &k);
	assert_true(p->can_host);
	assert_int_equal(p->n_findings, 0);
	assert_string_equal(p->summary,
			    "this board can host virtual machines: GICv2, up to 8 vCPUs each");
	probe_text(p, &text);
	assert_non_null(strstr(buf_string(&text), "A Board"));
	assert_non_null(strstr(buf_string(&text), "GICv2\n"));
	buf_clear(&text);
	json_encode_full(&p->base, &text);
	assert_non_null(strstr(buf_string(&text), "\"canHost\":true"));
	buf_free(&text);
	tb__host_probe__free_unpacked(p, NULL);
}

static struct probe_board board;
static struct probe_kvm kvm;

static void no_kvm(void)
{
	kvm = (struct probe_kvm){.open_error = ENOENT, .io_uring = true, .page_size = 4096};
}

static void no_permission(void)
{
	no_kvm();
	kvm.open_error = EACCES;
}

static void odd_error(void)
{
	no_kvm();
	kvm.open_error = EIO;
}

static void other_version(void)
{
	kvm.version = 11;
}

static void no_vm(void)
{
	kvm.vm_error = ENOMEM;
}

static void no_gic(void)
{
	kvm.gicv2_error = ENODEV;
}

static void pi3(void)
{
	no_gic();
	board.tree.controller = BOARD_CONTROLLER_BCM2836;
}

static void two_ranges(void)
{
	no_gic();
	board.tree.ranges = 2;
}

static void no_maintenance(void)
{
	no_gic();
	board.tree.maintenance = false;
}

static void pi5(void)
{
	kvm.page_size = 16384;
	board.tree.gicv_base = 0x7fffe000;
}

static void large_pages(void)
{
	kvm.page_size = 65536;
	board.tree.gicv_size = 0;
}

static void no_huge(void)
{
	strcpy(board.huge_anonymous, "never");
}

static void no_huge_memfd(void)
{
	strcpy(board.huge_memfd, "deny");
}

static void cgroup_disabled(void)
{
	board.cgroup_memory = false;
	board.cgroup_memory_disabled = true;
}

static void cgroup_without(void)
{
	board.cgroup_memory = false;
}

static void cgroup_none(void)
{
	board.cgroup_memory = board.cgroup2 = false;
}

static void two_kinds(void)
{
	board.core_kinds = 2;
}

static void no_namespaces(void)
{
	board.user_namespaces = false;
}

static void no_io_uring(void)
{
	kvm.io_uring = false;
}

static void no_tap(void)
{
	board.tap = false;
}

static void no_vsock(void)
{
	board.vhost_vsock = false;
}

static void few_bits(void)
{
	kvm.ipa_bits = 32;
}

static void test_judgements(void **state)
{
	static const struct {
		void (*spoil)(void);
		Tb__ProbeLevel level;
		const char *subject;
		const char *words;
	} cases[] = {
		{no_kvm, 2, "kvm", "there is no /dev/kvm"},
		{no_permission, 2, "kvm", "add it to the group kvm"},
		{odd_error, 2, "kvm", "Input/output error"},
		{other_version, 2, "kvm", "version 11"},
		{no_vm, 2, "kvm", "Cannot allocate memory"},
		{no_gic, 2, "gic", "names no reason"},
		{pi3, 2, "gic", "BCM2837"},
		{two_ranges, 2, "gic", "gic@1 has 2 of 4 register ranges"},
		{no_maintenance, 2, "gic", "maintenance interrupt"},
		{pi5, 1, "pages", "kernel8.img"},
		{large_pages, 0, "pages", "64 KiB"},
		{no_huge, 1, "huge-pages", "madvise"},
		{no_huge_memfd, 0, "huge-pages", "shmem_enabled"},
		{cgroup_disabled, 1, "cgroup", "cgroup_disable=memory"},
		{cgroup_without, 1, "cgroup", "no memory controller"},
		{cgroup_none, 1, "cgroup", "no cgroup v2"},
		{two_kinds, 0, "cores", "2 kinds"},
		{no_namespaces, 0, "sandbox", "user namespaces"},
		{no_io_uring, 0, "disks", "io_uring"},
		{no_tap, 0, "network", "modprobe tun"},
		{no_vsock, 0, "vsock", "vhost_vsock"},
		{few_bits, 0, "memory", "3072 MiB"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		Tb__HostProbe *p;

		facts_good(&board, &kvm);
		cases[i].spoil();
		p = probe_judge(&board, &kvm);
		if (p->n_findings != 1 || p->findings[0]->level != cases[i].level ||
		    strcmp(p->findings[0]->subject, cases[i].subject) != 0 ||
		    strstr(p->findings[0]->text, cases[i].words) == NULL) {
			fail_msg("case %zu: %zu findings, %s", i, p->n_findings,
				 p->n_findings > 0 ? p->findings[0]->text : "");
		}
		assert_int_equal(p->can_host,
				 cases[i].level != TB__PROBE_LEVEL__PROBE_LEVEL_OBSTACLE);
		tb__host_probe__free_unpacked(p, NULL);
	}
}

/* Pages that the virtual interface is aligned to are no reason to worry. */
static void test_aligned(void **state)
{
	Tb__HostProbe *p;

	(void)state;
	facts_good(&board, &kvm);
	kvm.page_size = 65536;
	board.tree.gicv_base = 0x260000;
	board.tree.gicv_size = 0x20000;
	p = probe_judge(&board, &kvm);
	assert_int_equal(p->n_findings, 1);
	assert_int_equal(p->findings[0]->level, TB__PROBE_LEVEL__PROBE_LEVEL_NOTE);
	tb__host_probe__free_unpacked(p, NULL);
}

static void test_worst_first(void **state)
{
	Tb__HostProbe *p;
	struct buf text = {0};
	size_t i;

	(void)state;
	facts_good(&board, &kvm);
	no_tap();
	two_kinds();
	no_huge();
	pi3();
	p = probe_judge(&board, &kvm);
	assert_false(p->can_host);
	assert_int_equal(p->n_findings, 4);
	for (i = 1; i < p->n_findings; i++) {
		assert_true(p->findings[i - 1]->level >= p->findings[i]->level);
	}
	assert_non_null(strstr(p->summary, "can witness but not host virtual machines: its "));
	probe_text(p, &text);
	/* Told once. */
	assert_null(strstr(strstr(buf_string(&text), "BCM2837") + 1, "BCM2837"));
	buf_free(&text);
	tb__host_probe__free_unpacked(p, NULL);
	/* A Pi 3 without /dev/kvm is not sent to look for it. */
	no_kvm();
	p = probe_judge(&board, &kvm);
	assert_int_equal(p->findings[1]->level, TB__PROBE_LEVEL__PROBE_LEVEL_OBSTACLE);
	assert_string_equal(p->findings[1]->subject, "gic");
	tb__host_probe__free_unpacked(p, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tree_pi4),     cmocka_unit_test(test_tree_others),
		cmocka_unit_test(test_tree_hostile), cmocka_unit_test(test_board_files),
		cmocka_unit_test(test_all_well),     cmocka_unit_test(test_judgements),
		cmocka_unit_test(test_aligned),	     cmocka_unit_test(test_worst_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
