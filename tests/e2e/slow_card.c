/* Preloaded into a daemon. While the file that TIEBREAK_CARD_HANGS names is there, what raft writes
 * (io_submit) is taken and never ends, without an error, as with a card that hangs; while the one
 * of TIEBREAK_CARD_LATE is, each write begins late. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LATE_US = 700 * 1000 }; /* more than ALARM_DISK_MS */

long syscall(long number, ...);

static long forward(long number, const long args[6])
{
	static long (*real)(long, ...);

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "syscall");
	return real(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

static int is_there(const char *variable)
{
	const char *path = getenv(variable);

	return path != NULL && access(path, F_OK) == 0;
}

long syscall(long number, ...)
{
	long args[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		args[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_io_submit && is_there("TIEBREAK_CARD_HANGS"))
		return args[1];
	if (number == SYS_io_submit && is_there("TIEBREAK_CARD_LATE"))
		usleep(LATE_US);
	return forward(number, args);
}
