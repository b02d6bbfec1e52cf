#include "hv/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/if_tun.h>

static int fault_attach(struct fault *fault, int error, const char *field, const char *name)
{
	switch (error) {
	case EBUSY:
		return fault_set(fault, -error, "%s: tap \"%s\" is in use by another program",
				 field, name);
	case EPERM:
	case EACCES:
		return fault_set(fault, -error,
				 "%s: no permission for tap \"%s\"; make it for this user: `ip "
				 "tuntap add %s mode tap user USER`",
				 field, name, name);
	case EINVAL:
		return fault_set(fault, -error,
				 "%s: \"%s\" is not a tap interface, or one with many queues",
				 field, name);
	default:
		return fault_set(fault, -error, "%s: cannot attach to tap \"%s\": %s", field, name,
				 strerror(error));
	}
}

static int fault_missing(struct fault *fault, const char *field, const char *name)
{
	return fault_set(fault, -ENODEV,
			 "%s: there is no tap \"%s\"; make it: `ip tuntap add %s mode tap`", field,
			 name, name);
}

static int attach(int fd, const char *name, const char *field, struct fault *fault)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	struct ifreq got = {0};

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, TUNSETIFF, &request) < 0) {
		return fault_attach(fault, errno, field, name);
	}
	/* One that does not persist exists since this call: it vanished after we had looked. */
	if (ioctl(fd, TUNGETIFF, &got) == 0 && (got.ifr_flags & IFF_PERSIST) == 0) {
		return fault_missing(fault, field, name);
	}
	return 0;
}

int tap_open(const char *name, const char *field, int *ret_fd, struct fault *fault)
{
	int fd;
	int rv;

	if (if_nametoindex(name) == 0) {
		return fault_missing(fault, field, name);
	}
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		return fault_set(fault, -errno,
				 "%s: cannot open /dev/net/tun: %s; load the kernel module tun",
				 field, strerror(errno));
	}
	rv = attach(fd, name, field, fault);
	if (rv < 0) {
		close(fd);
		return rv;
	}
	*ret_fd = fd;
	return 0;
}
