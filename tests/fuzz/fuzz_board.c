/* A board's files: a small tree is made of the input, and whatever it holds the board has facts
 * that are fit for people, or none. The input is pieces: a byte for the place in the tree, one for
 * what is put there (a file's part, or a link), one for the length, then the bytes. The same for
 * the firmware's table alone, which comes in one piece. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "board/board.h"
#include "board/root.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TREE "sys/firmware/devicetree/base/"

static const char *const places[] = {
	TREE "model",
	TREE "compatible",
	TREE "serial-number",
	TREE "#address-cells",
	TREE "#size-cells",
	TREE "gic/compatible",
	TREE "gic/reg",
	TREE "gic/interrupts",
	TREE "gic/#address-cells",
	TREE "gic/below/compatible",
	"proc/cpuinfo",
	"proc/meminfo",
	"proc/self/mountinfo",
	"sys/firmware/acpi/tables/APIC",
	"sys/devices/system/cpu/cpu0/regs/identification/midr_el1",
	"sys/devices/soc0/soc_id",
	"sys/devices/soc0/family",
	"sys/class/dmi/id/sys_vendor",
	"sys/class/dmi/id/product_name",
	"sys/dev/block/8:1/partition",
	"sys/dev/block/uevent",
	"sys/dev/block/device/type",
	"sys/dev/block/device/life_time",
	"sys/dev/block/device/pre_eol_info",
	"sys/dev/block/size",
	"sys/class/block/sda",
	"sys/class/net/eth0/device",
	"sys/class/net/eth0/speed",
	"sys/class/net/eth0/operstate",
	"sys/class/thermal/thermal_zone0/type",
	"sys/class/thermal/thermal_zone0/temp",
	"sys/class/thermal/thermal_zone0/trip_point_0_type",
	"sys/class/thermal/thermal_zone0/trip_point_0_temp",
	"sys/class/thermal/cooling_device0/type",
	"sys/class/thermal/cooling_device0/cur_state",
	"sys/class/hwmon/hwmon0/name",
	"sys/class/hwmon/hwmon0/temp1_input",
	"sys/class/hwmon/hwmon0/in0_lcrit_alarm",
	"sys/class/watchdog/watchdog0/identity",
	"sys/bus/platform/drivers/raspberrypi-firmware/x/get_throttled",
};

enum { PLACES = sizeof(places) / sizeof(places[0]), PATH_SIZE = 256 };

static char root[] = "/dev/shm/fuzz_board.XXXXXX";
static int root_fd;

static void root_end(void)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -r %s", root);
	if (system(command) != 0)
		abort();
}

/* The folders stay from one input to the next; what lies in them does not. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (mkdtemp(root) == NULL)
		abort();
	atexit(root_end);
	for (size_t i = 0; i < PLACES; i++) {
		char path[PATH_SIZE];

		snprintf(path, sizeof(path), "%s/%s", root, places[i]);
		for (char *at = strchr(path + strlen(root) + 1, '/'); at != NULL;
		     at = strchr(at + 1, '/')) {
			*at = '\0';
			mkdir(path, 0700);
			*at = '/';
		}
	}
	root_fd = root_open(root);
	return 0;
}

static void piece_put(const char *place, bool is_link, const uint8_t *data, size_t len)
{
	char target[PATH_SIZE];
	int fd;

	if (is_link) {
		snprintf(target, sizeof(target), "%.*s", (int)len, (const char *)data);
		if (symlinkat(target, root_fd, place) != 0)
			return; /* something is there already */
		return;
	}
	fd = openat(root_fd, place, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (write(fd, data, len) != (ssize_t)len)
		abort();
	close(fd);
}

static void check_text(const char *text, size_t size)
{
	size_t len = strnlen(text, size);

	if (len == size)
		abort();
	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			abort();
}

#define CHECK(text) check_text(text, sizeof(text))

static void check(const struct board_facts *f)
{
	CHECK(f->model);
	CHECK(f->soc);
	CHECK(f->serial);
	CHECK(f->kernel);
	CHECK(f->hosting_why);
	CHECK(f->storage.kind);
	CHECK(f->storage.device);
	CHECK(f->storage.model);
	CHECK(f->watchdog.identity);
	if (f->compatible_count > TREE_COMPATIBLE_MAX || f->cores.kind_count > CORE_KINDS_MAX ||
	    f->condition.link_count > LINKS_MAX || f->storage.wear_percent > 110)
		abort();
	for (unsigned i = 0; i < f->compatible_count; i++)
		CHECK(f->compatible[i]);
	for (unsigned i = 0; i < f->cores.kind_count; i++)
		CHECK(f->cores.kinds[i].name);
	for (unsigned i = 0; i < f->condition.link_count; i++)
		CHECK(f->condition.links[i].name);
	if ((f->hosting == BOARD_HOSTING_NO) != (f->hosting_why[0] != '\0'))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct board_facts facts;
	struct board_madt madt;

	madt_parse(data, size, &madt);
	while (size >= 3) {
		size_t len = data[2] < size - 3 ? data[2] : size - 3;

		piece_put(places[data[0] % PLACES], data[1] % 4 == 3, data + 3, len);
		data += 3 + len;
		size -= 3 + len;
	}
	board_read(root_fd, "/data/x", &facts);
	check(&facts);
	for (size_t i = 0; i < PLACES; i++)
		unlinkat(root_fd, places[i], 0);
	return 0;
}
