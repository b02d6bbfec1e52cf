#include "witnessd/vm_net.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "lib/mem.h"

static int is_bridge(const char *name)
{
	char path[64];

	if (name[0] == '\0' || strlen(name) >= IFNAMSIZ || strchr(name, '/') != NULL)
		return 0;
	snprintf(path, sizeof(path), "/sys/class/net/%s/bridge", name);
	return access(path, F_OK) == 0;
}

int vm_net_check(unsigned number, const char *bridge, struct problem *problem)
{
	if (is_bridge(bridge))
		return 0;
	return problem_set(
		problem, -ENODEV,
		"nic %u: this board has no bridge \"%.15s\"; make it (ip link add %.15s type "
		"bridge), or name another",
		number, bridge, bridge);
}

static int tap_make(const char *name, int *ret_fd)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		int rv = -errno;

		close(fd);
		return rv;
	}
	*ret_fd = fd;
	return 0;
}

/* A bridge without an address of its own takes the lowest of its ports: a tap's must be high, or
 * the board's own address would change with every VM. */
static void tap_address(int control, const char *name, const char *mac)
{
	struct ifreq request = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};
	unsigned b[6];

	if (sscanf(mac, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
		return;
	for (unsigned i = 0; i < 6; i++)
		request.ifr_hwaddr.sa_data[i] = (char)b[i];
	request.ifr_hwaddr.sa_data[0] = (char)0xfe;
	memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	(void)ioctl(control, SIOCSIFHWADDR, &request);
}

/* What a guest says is for the bridge, never for this board's own stack by the tap's address. */
static void tap_quiet(const char *name)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, "1", 1);
		close(fd);
	}
}

static int bridge_join(int control, const char *bridge, const char *name)
{
	struct ifreq request = {0};

	memcpy(request.ifr_name, bridge, strnlen(bridge, IFNAMSIZ - 1));
	request.ifr_ifindex = (int)if_nametoindex(name);
	return ioctl(control, SIOCBRADDIF, &request) < 0 ? -errno : 0;
}

static int link_up(int control, const char *name)
{
	struct ifreq request = {0};

	memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	if (ioctl(control, SIOCGIFFLAGS, &request) < 0)
		return -errno;
	request.ifr_flags |= IFF_UP;
	return ioctl(control, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

static const char *tap_remedy(int error)
{
	switch (error) {
	case -ENOENT:
	case -ENODEV:
		return "; load the kernel module tun";
	case -EPERM:
	case -EACCES:
		return "; witnessd needs CAP_NET_ADMIN and /dev/net/tun";
	case -EBUSY:
		return "; another process has it";
	default:
		return "";
	}
}

int vm_net_open(uint64_t vm, unsigned number, const char *bridge, const char *mac, int *ret_fd,
		struct problem *problem)
{
	char name[32];
	int control;
	int fd = -1;
	int rv = vm_net_check(number, bridge, problem);

	if (rv < 0)
		return rv;
	if (snprintf(name, sizeof(name), "vm%" PRIu64 "n%u", vm, number) >= IFNAMSIZ)
		return problem_set(problem, -ENAMETOOLONG,
				   "nic %u: no name is left for a tap of VM %" PRIu64, number, vm);
	rv = tap_make(name, &fd);
	if (rv < 0)
		return problem_set(problem, rv, "nic %u: cannot make the tap %s: %s%s", number,
				   name, strerror(-rv), tap_remedy(rv));
	control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	rv = control < 0 ? -errno : 0;
	if (rv == 0) {
		tap_address(control, name, mac);
		tap_quiet(name);
		rv = bridge_join(control, bridge, name);
	}
	rv = rv < 0 ? rv : link_up(control, name);
	if (control >= 0)
		close(control);
	if (rv < 0) {
		close(fd);
		return problem_set(problem, rv, "nic %u: cannot join %s to the bridge %.15s: %s",
				   number, name, bridge, strerror(-rv));
	}
	*ret_fd = fd;
	return 0;
}

static int name_order(const void *one, const void *two)
{
	return strcmp(*(char *const *)one, *(char *const *)two);
}

unsigned vm_net_bridges(char *names[VM_BRIDGES_MAX])
{
	DIR *dir = opendir("/sys/class/net");
	const struct dirent *entry;
	unsigned count = 0;

	if (dir == NULL)
		return 0;
	while (count < VM_BRIDGES_MAX && (entry = readdir(dir)) != NULL)
		if (is_bridge(entry->d_name))
			names[count++] = mem_strdup(entry->d_name);
	closedir(dir);
	qsort(names, count, sizeof(names[0]), name_order);
	return count;
}
