/* input_words.c: the word that waits for a person, or a VM monitor, to press the power button. */
#include "guest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEVICES = 8 };

static int devices_open(struct pollfd *devices)
{
	int count = 0;
	DIR *directory = opendir("/dev/input");
	for (struct dirent *entry; directory && count < DEVICES && (entry = readdir(directory));) {
		if (strncmp(entry->d_name, "event", 5) != 0)
			continue;
		int device = openat(dirfd(directory), entry->d_name, O_RDONLY);
		if (device >= 0)
			devices[count++] = (struct pollfd){.fd = device, .events = POLLIN};
	}
	if (directory)
		closedir(directory);
	return count;
}

static bool power_pressed(int device)
{
	struct input_event event;
	return read(device, &event, sizeof event) == sizeof event && event.type == EV_KEY &&
	       event.code == KEY_POWER && event.value == 1;
}

static int button_run(struct call *call)
{
	struct pollfd devices[DEVICES];
	int count = devices_open(devices), limit = (int)call_number(call, 0, 0);
	if (count == 0)
		return call_failed(call, ENODEV, "no input device in /dev/input");
	say("BUTTON awaited");
	bool pressed = false;
	int error = 0;
	while (!pressed && error == 0) {
		int ready = poll(devices, (nfds_t)count, limit ? limit : -1);
		if (ready <= 0)
			error = call_failed(call, ready ? errno : ETIMEDOUT, "power button");
		for (int i = 0; i < count && error == 0; i++)
			pressed |= (devices[i].revents & POLLIN) && power_pressed(devices[i].fd);
	}
	for (int i = 0; i < count; i++)
		close(devices[i].fd);
	return error;
}

const struct word input_words[] = {
	{"button", button_run, "MILLISECONDS (0: for ever)"},
	{NULL, NULL, NULL},
};
