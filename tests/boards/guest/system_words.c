/* system_words.c: words about the whole guest: its power, its console, its clocks, its random
 * numbers. */
#include "guest.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int power(struct call *call, int command)
{
	say("GUEST-%s", call->name);
	sync();
	reboot(command);
	return call_failed(call, errno, "reboot system call");
}

static int poweroff_run(struct call *call)
{
	return power(call, RB_POWER_OFF);
}

static int reboot_run(struct call *call)
{
	return power(call, RB_AUTOBOOT);
}

static int panic_run(struct call *call)
{
	int file = open("/proc/sysrq-trigger", O_WRONLY);
	if (file < 0 || write(file, "c", 1) < 0)
		return call_failed(call, errno, "/proc/sysrq-trigger");
	return 0;
}

static int echo_run(struct call *call)
{
	call_result(call, "text=%s", call_text(call, 0, ""));
	return 0;
}

static int wait_run(struct call *call)
{
	uint64_t ms = call_number(call, 0, 1000);
	struct timespec time = {.tv_sec = (time_t)(ms / 1000),
				.tv_nsec = (long)(ms % 1000) * 1000000};
	nanosleep(&time, NULL);
	return 0;
}

/* What the terminal that the words come from says of its size. */
static int size_run(struct call *call)
{
	struct winsize size = {0};
	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
		return call_failed(call, errno, "TIOCGWINSZ");
	call_result(call, "columns=%u rows=%u", size.ws_col, size.ws_row);
	return 0;
}

static uint64_t real_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A line every so often: that a guest lives, how long it was frozen, whether a number is said
 * twice. */
static int tick_run(struct call *call)
{
	uint64_t count = call_number(call, 0, 0), every_ms = call_number(call, 1, 200);
	uint64_t next = now_ns();
	for (uint64_t n = 1; count == 0 || n <= count; n++) {
		next += every_ms * 1000000;
		struct timespec until = {.tv_sec = (time_t)(next / 1000000000),
					 .tv_nsec = (long)(next % 1000000000)};
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		say("TICK %llu counter=%llu mono_ms=%llu real_ms=%llu", (unsigned long long)n,
		    (unsigned long long)counter_read(), (unsigned long long)(now_ns() / 1000000),
		    (unsigned long long)real_ms());
	}
	return 0;
}

static int file_text(const char *path, char *text, size_t size)
{
	int file = open(path, O_RDONLY);
	if (file < 0)
		return -errno;
	ssize_t length = read(file, text, size - 1);
	int error = length < 0 ? -errno : 0;
	close(file);
	text[length > 0 ? length : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return error;
}

static int clock_run(struct call *call)
{
	char rtc[64] = "none";
	file_text("/sys/class/rtc/rtc0/since_epoch", rtc, sizeof rtc);
	call_result(call, "counter=%llu hz=%llu mono_ms=%llu real_ms=%llu rtc_s=%s",
		    (unsigned long long)counter_read(), (unsigned long long)counter_hz(),
		    (unsigned long long)(now_ns() / 1000000), (unsigned long long)real_ms(), rtc);
	return 0;
}

/* Two clones that say the same number here share their secrets. */
static int random_run(struct call *call)
{
	unsigned long long number;
	if (getrandom(&number, sizeof number, 0) != sizeof number)
		return call_failed(call, errno, "getrandom");
	call_result(call, "number=%016llx", number);
	return 0;
}

static int hwrng_run(struct call *call)
{
	char device[64] = "none";
	unsigned char bytes[16];
	uint64_t wanted = call_number(call, 0, 16), zeroes = 0;
	file_text("/sys/class/misc/hw_random/rng_current", device, sizeof device);
	int file = open("/dev/hwrng", O_RDONLY);
	if (file < 0)
		return call_failed(call, errno, "/dev/hwrng");
	for (uint64_t got = 0; got < wanted;) {
		ssize_t length = read(file, bytes, sizeof bytes);
		if (length <= 0) {
			int error = length < 0 ? errno : ENODATA;
			close(file);
			return call_failed(call, error, "read of /dev/hwrng");
		}
		for (ssize_t i = 0; i < length; i++)
			zeroes += bytes[i] == 0;
		got += (uint64_t)length;
	}
	close(file);
	call_result(call, "device=%s bytes=%llu zeroes=%llu", device, (unsigned long long)wanted,
		    (unsigned long long)zeroes);
	return 0;
}

/* The words that follow come and their results go elsewhere: console=/dev/hvc0. */
static int console_run(struct call *call)
{
	const char *path = call_text(call, 0, "/dev/hvc0");
	int file = open(path, O_RDWR | O_NOCTTY);
	if (file < 0)
		return call_failed(call, errno, "%s", path);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(file, fd);
	if (file > STDERR_FILENO)
		close(file);
	return 0;
}

static int show_run(struct call *call)
{
	const char *path = call_text(call, 0, "/proc/cmdline");
	char text[CALL_TEXT - 16];
	int error = file_text(path, text, sizeof text);
	if (error < 0)
		return call_failed(call, -error, "%s", path);
	call_result(call, "text=%s", text);
	return 0;
}

/* Back to what a person, or a login, expects of a terminal. */
static void console_sane(void)
{
	struct termios mode;
	if (tcgetattr(STDIN_FILENO, &mode) < 0)
		return;
	mode.c_oflag |= OPOST | ONLCR;
	mode.c_lflag |= ECHO | ECHOE | ECHOK | ISIG;
	tcsetattr(STDIN_FILENO, TCSANOW, &mode);
}

/* Gives the guest to the init of a file system on a disk; comes back only if that fails. */
static int root_run(struct call *call)
{
	const char *device = call_text(call, 0, "/dev/vda"),
		   *init = call_text(call, 1, "/sbin/init");
	if (mkdir("/root", 0755) < 0 && errno != EEXIST)
		return call_failed(call, errno, "mkdir /root");
	if (mount(device, "/root", "ext4", 0, NULL) < 0)
		return call_failed(call, errno, "mount %s", device);
	mount("/dev", "/root/dev", NULL, MS_MOVE, NULL);
	mount("/proc", "/root/proc", NULL, MS_MOVE, NULL);
	mount("/sys", "/root/sys", NULL, MS_MOVE, NULL);
	if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return call_failed(call, errno, "change of root to %s", device);
	console_sane();
	execl(init, init, (char *)NULL);
	return call_failed(call, errno, "%s of %s", init, device);
}

static int shell_run(struct call *call)
{
	console_sane();
	execl("/bin/sh", "-sh", (char *)NULL);
	return call_failed(call, errno, "/bin/sh");
}

const struct word system_words[] = {
	{"poweroff", poweroff_run, ""},
	{"reboot", reboot_run, ""},
	{"panic", panic_run, ""},
	{"echo", echo_run, "TEXT"},
	{"size", size_run, ""},
	{"wait", wait_run, "MILLISECONDS"},
	{"tick", tick_run, "COUNT (0: for ever),EVERY_MS"},
	{"clock", clock_run, ""},
	{"random", random_run, ""},
	{"hwrng", hwrng_run, "BYTES"},
	{"console", console_run, "TTY"},
	{"show", show_run, "FILE"},
	{"root", root_run, "DEVICE,INIT"},
	{"shell", shell_run, ""},
	{NULL, NULL, NULL},
};
