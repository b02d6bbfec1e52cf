/* watchdog.h: the board's watchdog: hardware that resets the board when nobody feeds it any more.
 * Source: Linux Documentation/watchdog/watchdog-api.rst.
 *
 *   closed --open--> armed --close--> closed (disarmed by the "magic close"; not if the driver has
 *                      |               nowayout, and not if it is told to stay)
 *                   feed
 *
 * A process that ends in any other way leaves it armed: who comes after it has one timeout to open
 * it again. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum {
	/* Seconds. A mere crash of the daemon is not to reset the board: it was fed up to a second
	 * before, the service manager waits two (RestartSec of packaging/witnessd.service), and the
	 * rest is for the start up to the first turn of the loop, on a slow card. */
	WATCHDOG_TIMEOUT_MIN = 10,
	WATCHDOG_TIMEOUT_MAX = 300,
	WATCHDOG_TIMEOUT_DEFAULT = 15, /* all that a Raspberry Pi's can do */
};

/* The system calls, so that tests can stand in for a driver. All return -1 and set errno. */
struct watchdog_calls {
	void *arg;
	int (*open)(void *arg, const char *path);
	int (*control)(void *arg, int fd, unsigned long request, void *value);
	int (*write)(void *arg, int fd, char byte);
	int (*close)(void *arg, int fd);
	/* Cannot be disarmed once it is armed, as sysfs says. */
	bool (*no_way_out)(void *arg, int fd);
};
extern const struct watchdog_calls watchdog_kernel;

struct watchdog {
	const struct watchdog_calls *calls;
	int fd; /* -1: closed */
	unsigned timeout_s; /* in force: what the driver took */
	bool no_way_out;
	bool reset_before; /* the board's last start was its doing */
	char identity[33]; /* of the driver; may be empty */
};

/* Opens it, which arms it, and asks for a timeout; a driver that cannot do so much gives the most
 * it can. 0, or a negative errno and a sentence with the remedy in `why`: it is not armed then. */
int watchdog_open(const struct watchdog_calls *calls, const char *path, unsigned timeout_s,
		  struct watchdog *ret, char *why, size_t size);
/* 0 or a negative errno. */
int watchdog_feed(struct watchdog *w);
/* `disarm`: as far as the driver lets; false: it stays armed and resets the board one timeout from
 * now. Returns whether it is disarmed. */
bool watchdog_close(struct watchdog *w, bool disarm);
