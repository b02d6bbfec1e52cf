/* console.c: the console of a VM on this terminal, and what it has printed.
 *
 * What the VM prints is a stream, what is typed are requests: two processes, since a client of the
 * API does one thing at a time. This one has the keys, its child the stream. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/run.h"

enum { KEYS_MAX = 4096, ESCAPE = 1 /* Ctrl-A */, REPLAY = 8192 };

static int bytes_take(void *arg, const char *data, size_t len)
{
	(void)arg;
	while (len > 0) {
		ssize_t put = write(STDOUT_FILENO, data, len);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return 1;
		data += put;
		len -= (size_t)put;
	}
	return 0;
}

static int stream(struct invocation *inv, const char *query)
{
	struct client *client = api_client(inv);
	char *path = api_path("/v1/vms/", inv->args[0], query);
	const struct client_request request = {.method = "GET", .path = path, .quiet = true};
	struct client_response response = {0};
	int rv = EXIT_USAGE;

	if (client != NULL) {
		rv = client_stream(client, &request, bytes_take, NULL, &response);
		if (rv != 0)
			rv = api_failure(client, rv);
		else
			rv = response.status == 200 ? EXIT_OK : api_refusal(&response, NULL);
	}
	client_response_clear(&response);
	free(path);
	return rv;
}

int run_vm_logs(struct invocation *inv)
{
	return stream(inv, option_given(inv, "follow") ? "/console" : "/console?follow=0");
}

/* --- keys --- */

struct keys {
	struct invocation *inv;
	char *path;
	bool terminal;
	bool escaped; /* Ctrl-A was the last one */
	bool leave;
	struct termios before;
};

static void keys_help(void)
{
	static const char text[] = "\r\n[Ctrl-A x: leave; Ctrl-A a: send Ctrl-A]\r\n";

	(void)!write(STDERR_FILENO, text, sizeof(text) - 1);
}

/* Takes the escapes of a person out, in place. Returns what is left for the guest. */
static size_t keys_filter(struct keys *k, char *data, size_t len)
{
	size_t kept = 0;

	for (size_t i = 0; i < len && !k->leave; i++) {
		if (!k->escaped && data[i] == ESCAPE) {
			k->escaped = true;
		} else if (!k->escaped || data[i] == 'a') {
			data[kept++] = k->escaped ? ESCAPE : data[i];
			k->escaped = false;
		} else {
			k->escaped = false;
			if (data[i] == 'x')
				k->leave = true;
			else
				keys_help();
		}
	}
	return kept;
}

/* EXIT_OK, or told on stderr. */
static int keys_send(struct keys *k, const char *data, size_t len)
{
	const struct client_request request = {.method = "POST",
					       .path = k->path,
					       .content_type = "application/octet-stream",
					       .body = data,
					       .body_len = len};
	struct client_response response = {0};
	struct client *client = api_client(k->inv);
	int rv = client != NULL ? client_send(client, &request, &response) : -EINVAL;

	if (rv != 0)
		rv = client != NULL ? api_failure(client, rv) : EXIT_USAGE;
	else if (response.status != 200)
		rv = api_refusal(&response, NULL);
	client_response_clear(&response);
	return rv;
}

/* Whole letters come at once, escapes come out as the board's keys do; what is printed stays as it
 * is for the messages of this program. */
static void terminal_take(struct keys *k)
{
	struct termios raw;

	k->terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &k->before) == 0;
	if (!k->terminal)
		return;
	raw = k->before;
	cfmakeraw(&raw);
	raw.c_oflag = k->before.c_oflag;
	tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

static void terminal_give_back(const struct keys *k)
{
	if (k->terminal)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &k->before);
}

/* false: nobody types any more. */
static bool keys_read(struct keys *k, int *ret_rv)
{
	char data[KEYS_MAX];
	ssize_t got = read(STDIN_FILENO, data, sizeof(data));
	size_t len;

	if (got <= 0)
		return got < 0 && errno == EINTR;
	len = k->terminal ? keys_filter(k, data, (size_t)got) : (size_t)got;
	if (len > 0)
		*ret_rv = keys_send(k, data, len);
	return true;
}

/* Until the stream has ended (its exit code), or the person leaves. */
static int keys_run(struct keys *k, pid_t child)
{
	int ended = pidfd_open(child, 0);
	struct pollfd at[2] = {{.fd = ended, .events = POLLIN},
			       {.fd = STDIN_FILENO, .events = POLLIN}};
	int status = 0;
	int rv = EXIT_OK;

	while (!k->leave && rv == EXIT_OK) {
		if (poll(at, 2, -1) < 0 && errno != EINTR)
			break;
		if (at[0].revents != 0)
			break;
		if (at[1].revents != 0 && !keys_read(k, &rv))
			at[1].fd = -1;
	}
	if (k->leave || rv != EXIT_OK)
		kill(child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	close(ended);
	return rv == EXIT_OK && WIFEXITED(status) ? WEXITSTATUS(status) : rv;
}

int run_vm_console(struct invocation *inv)
{
	struct keys k = {.inv = inv};
	char query[48];
	pid_t child;
	int rv;

	snprintf(query, sizeof(query), "/console?replay=%d", REPLAY);
	fflush(NULL);
	child = fork();
	if (child < 0) {
		complain("cannot make a process: %s", strerror(errno));
		return EXIT_REFUSED;
	}
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(stream(inv, query));
	}
	k.path = api_path("/v1/vms/", inv->args[0], "/console");
	terminal_take(&k);
	if (k.terminal)
		keys_help();
	rv = keys_run(&k, child);
	terminal_give_back(&k);
	if (k.terminal)
		fputc('\n', stderr);
	free(k.path);
	return rv;
}
