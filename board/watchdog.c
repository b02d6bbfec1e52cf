#include "board/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "board/root.h"

/* The old name of the first watchdog, a device of its own: linux/miscdevice.h. */
enum { MISC_MAJOR = 10, WATCHDOG_MINOR = 130 };

/* --- the kernel's --- */

static int kernel_open(void *arg, const char *path)
{
	(void)arg;
	return open(path, O_WRONLY | O_CLOEXEC);
}

static int kernel_control(void *arg, int fd, unsigned long request, void *value)
{
	(void)arg;
	return ioctl(fd, request, value);
}

static int kernel_write(void *arg, int fd, char byte)
{
	(void)arg;
	return write(fd, &byte, 1) == 1 ? 0 : -1;
}

static int kernel_close(void *arg, int fd)
{
	(void)arg;
	return close(fd);
}

static bool kernel_no_way_out(void *arg, int fd)
{
	struct stat info;
	int64_t value = 0;
	int root = root_open("/");

	(void)arg;
	if (root < 0 || fstat(fd, &info) != 0)
		value = 0;
	else if (major(info.st_rdev) == MISC_MAJOR && minor(info.st_rdev) == WATCHDOG_MINOR)
		root_number(root, &value, "sys/class/watchdog/watchdog0/nowayout");
	else
		root_number(root, &value, "sys/dev/char/%u:%u/nowayout", major(info.st_rdev),
			    minor(info.st_rdev));
	if (root >= 0)
		close(root);
	return value != 0;
}

const struct watchdog_calls watchdog_kernel = {
	.open = kernel_open,
	.control = kernel_control,
	.write = kernel_write,
	.close = kernel_close,
	.no_way_out = kernel_no_way_out,
};

/* --- the rest --- */

static int control(struct watchdog *w, unsigned long request, void *value)
{
	return w->calls->control(w->calls->arg, w->fd, request, value) < 0 ? -errno : 0;
}

static void explain(int error, const char *path, char *why, size_t size)
{
	const char *reason = strerror(error);

	if (error == EBUSY)
		reason = "another process feeds it already; if that is systemd, set "
			 "RuntimeWatchdogSec=off in /etc/systemd/system.conf and restart";
	else if (error == ENOENT || error == ENODEV || error == ENXIO)
		reason = "there is none: load its driver (Raspberry Pi: dtparam=watchdog=on in "
			 "config.txt; without hardware: modprobe softdog)";
	else if (error == EACCES || error == EPERM)
		reason = "no permission; witnessd must run as root, and its unit must have "
			 "DeviceAllow= for it";
	else if (error == ENOTTY || error == EINVAL)
		reason = "this is no watchdog";
	snprintf(why, size, "%s: %s", path, reason);
}

/* What the driver took; 0 it does not say. */
static unsigned timeout_take(struct watchdog *w, unsigned timeout_s)
{
	const unsigned wishes[] = {timeout_s, WATCHDOG_TIMEOUT_DEFAULT};
	int seconds = 0;

	for (unsigned i = 0; i < 2; i++) {
		seconds = (int)wishes[i];
		if (wishes[i] <= timeout_s && control(w, WDIOC_SETTIMEOUT, &seconds) == 0)
			break;
	}
	seconds = 0;
	return control(w, WDIOC_GETTIMEOUT, &seconds) == 0 && seconds > 0 ? (unsigned)seconds : 0;
}

int watchdog_open(const struct watchdog_calls *calls, const char *path, unsigned timeout_s,
		  struct watchdog *ret, char *why, size_t size)
{
	struct watchdog w = {.calls = calls};
	struct watchdog_info info = {0};
	int flags = 0;
	int rv;

	w.fd = calls->open(calls->arg, path);
	if (w.fd < 0) {
		rv = -errno;
		explain(-rv, path, why, size);
		return rv;
	}
	rv = control(&w, WDIOC_GETSUPPORT, &info);
	if (rv != 0) {
		/* Whatever this is, nothing is written to it. */
		explain(-rv, path, why, size);
		calls->close(calls->arg, w.fd);
		return rv;
	}
	/* The magic letter of whoever had it before may still count (Linux 6.1 forgets it at a
	 * close only if that disarms): any other byte ends that, else our death would disarm it. */
	calls->write(calls->arg, w.fd, '\0');
	w.timeout_s = timeout_take(&w, timeout_s);
	if (w.timeout_s == 0) {
		snprintf(why, size, "%s: its driver does not say what its timeout is", path);
		watchdog_close(&w, true);
		return -EINVAL;
	}
	root_clean(info.identity, strnlen((char *)info.identity, sizeof(info.identity)), w.identity,
		   sizeof(w.identity));
	w.no_way_out = calls->no_way_out(calls->arg, w.fd);
	w.reset_before = control(&w, WDIOC_GETBOOTSTATUS, &flags) == 0 && flags > 0 &&
			 (flags & WDIOF_CARDRESET) != 0;
	*ret = w;
	return 0;
}

int watchdog_feed(struct watchdog *w)
{
	int none = 0;
	int rv = control(w, WDIOC_KEEPALIVE, &none);

	/* Some drivers know only the other way; any byte but the magic one does. */
	if (rv != 0)
		rv = w->calls->write(w->calls->arg, w->fd, '\0') == 0 ? 0 : -errno;
	return rv;
}

bool watchdog_close(struct watchdog *w, bool disarm)
{
	int off = WDIOS_DISABLECARD;
	bool disarmed = false;

	if (w->fd < 0)
		return true;
	if (disarm) {
		/* This call says whether it worked, which the magic close does not. */
		int rv = control(w, WDIOC_SETOPTIONS, &off);

		disarmed = rv == 0 || (rv != -EBUSY && !w->no_way_out);
		if (rv != 0)
			w->calls->write(w->calls->arg, w->fd, 'V');
	}
	w->calls->close(w->calls->arg, w->fd);
	w->fd = -1;
	return disarmed;
}
