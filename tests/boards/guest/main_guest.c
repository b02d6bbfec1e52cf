/* main_guest.c: as init: says GUEST-INIT before all else, loads the modules its initrd holds, does
 * the words of the command line, then those that come from the console, for ever. */
#include "guest.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>
#include <dirent.h>

enum { LINE_MAX_BYTES = 4096, CONSOLE_TRIES = 250 };

/* Lines as they are: no echo, no carriage returns, so that what a test reads is what was said. */
static void console_plain(void)
{
	struct termios mode;
	if (tcgetattr(STDIN_FILENO, &mode) < 0)
		return;
	mode.c_oflag &= (tcflag_t)~OPOST;
	mode.c_lflag &= (tcflag_t) ~(ECHO | ECHOE | ECHOK | ISIG);
	mode.c_lflag |= ICANON;
	tcsetattr(STDIN_FILENO, TCSANOW, &mode);
}

/* Opens /dev/console again: one that a module brings (hvc0) was not there when the kernel tried. */
static bool console_open(void)
{
	int console = open("/dev/console", O_RDWR | O_NOCTTY);
	if (console < 0)
		return false;
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(console, fd);
	if (console > STDERR_FILENO)
		close(console);
	return true;
}

static void greet(void)
{
	struct utsname kernel;
	uname(&kernel);
	say("GUEST-INIT %s counter=%llu hz=%llu", kernel.release,
	    (unsigned long long)counter_read(), (unsigned long long)counter_hz());
}

static void file_systems_mount(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
}

static void module_load(const char *name)
{
	char path[300];
	snprintf(path, sizeof path, "/modules/%s", name);
	int file = open(path, O_RDONLY);
	if (file < 0 || (syscall(SYS_finit_module, file, "", 0) < 0 && errno != EEXIST))
		say("GUEST-MODULE %s: %s", name, strerror(errno));
	if (file >= 0)
		close(file);
}

/* The names begin with numbers, in the order in which modules need each other. */
static void modules_load(void)
{
	struct dirent **entries;
	int count = scandir("/modules", &entries, NULL, alphasort);
	for (int i = 0; i < count; i++) {
		if (entries[i]->d_name[0] != '.')
			module_load(entries[i]->d_name);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

static void command_line_do(void)
{
	char line[LINE_MAX_BYTES];
	int file = open("/proc/cmdline", O_RDONLY);
	ssize_t length = file < 0 ? 0 : read(file, line, sizeof line - 1);
	close(file);
	line[length > 0 ? length : 0] = '\0';
	char *words = strstr(line, " -- ");
	if (words)
		words_do(words + 4);
}

/* Init must not end: without a console it waits for the power to go. */
static _Noreturn void console_obey(void)
{
	char line[LINE_MAX_BYTES];
	say("GUEST-READY");
	for (;;) {
		ssize_t length = read(STDIN_FILENO, line, sizeof line - 1);
		if (length <= 0) {
			sleep(1);
			continue;
		}
		line[length] = '\0';
		words_do(line);
	}
}

static _Noreturn void init_run(void)
{
	bool greeted = fcntl(STDOUT_FILENO, F_GETFD) >= 0;
	if (greeted)
		greet();
	file_systems_mount();
	modules_load();
	for (int tries = 0; !greeted && tries < CONSOLE_TRIES; tries++) {
		greeted = console_open();
		if (greeted)
			greet();
		else
			usleep(20000);
	}
	console_plain();
	command_line_do();
	console_obey();
}

int main(int argc, char **argv)
{
	if (getpid() == 1)
		init_run();
	for (int i = 1; i < argc; i++)
		if (words_do(argv[i]) != 0)
			return 1;
	return 0;
}
