/* Preloaded into a daemon: once the file that TIEBREAK_CARD_HANGS names is there, what raft writes
 * (io_submit) is taken and never ends, without an error, as with a card that hangs. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

long syscall(long number, ...);

static long forward(long number, const long args[6])
{
	static long (*real)(long, ...);

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "syscall");
	return real(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

static int hangs(void)
{
	const char *path = getenv("TIEBREAK_CARD_HANGS");

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
	if (number == SYS_io_submit && hangs())
		return args[1];
	return forward(number, args);
}
