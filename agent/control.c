#include "agent/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/file.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/mem.h"
#include "lib/text.h"

enum { ANSWER_MAX = 8192 };

static char *socket_path(const struct settings *s)
{
	return mem_printf("%s/control.sock", s->run_dir);
}

static char *file_path(const struct settings *s)
{
	return mem_printf("%s/status", s->run_dir);
}

static int socket_address(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	strcpy(ret->sun_path, path);
	return 0;
}

static int socket_listen(const char *path)
{
	struct sockaddr_un address;
	int rv = socket_address(path, &address);
	int fd;

	if (rv != 0)
		return rv;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* Another agent that is alive answers. */
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		close(fd);
		return -EADDRINUSE;
	}
	unlink(path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && chmod(path, 0666) == 0 &&
	    listen(fd, CONTROL_CLIENTS) == 0)
		return fd;
	rv = -errno;
	close(fd);
	return rv;
}

int control_open(struct control *c, struct keeper *k, const struct settings *s, char **ret_message)
{
	const char *dir = s->run_dir;

	*c = (struct control){.keeper = k};
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
		c->clients[i].fd = -1;
	c->socket_path = socket_path(s);
	c->file_path = file_path(s);
	if (mkdir(dir, 0755) != 0 && errno != EEXIST) {
		*ret_message = mem_printf("run-dir %s cannot be made: %s", dir, strerror(errno));
		c->fd = -1;
		return -EIO;
	}
	c->fd = socket_listen(c->socket_path);
	if (c->fd >= 0)
		return 0;
	*ret_message = mem_printf(
		"cannot listen on %s: %s", c->socket_path,
		c->fd == -EADDRINUSE ? "another witness-agent runs there" : strerror(-c->fd));
	return c->fd;
}

static void client_close(struct control *c, unsigned i)
{
	close(c->clients[i].fd);
	c->clients[i].fd = -1;
}

void control_close(struct control *c, bool told)
{
	if (told)
		control_file(c);
	if (c->fd >= 0) {
		close(c->fd);
		unlink(c->socket_path);
	}
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
		if (c->clients[i].fd >= 0)
			client_close(c, i);
	free(c->socket_path);
	free(c->file_path);
	buf_free(&c->written);
}

void control_file(struct control *c)
{
	struct buf text = {0};
	int rv;

	keeper_status(c->keeper, &text);
	if (text.len == c->written.len && memcmp(text.data, c->written.data, text.len) == 0) {
		buf_free(&text);
		return;
	}
	rv = file_write(c->file_path, buf_string(&text), 0644);
	if (rv != 0)
		log_error("status-file", "cannot write %s: %s", c->file_path, strerror(-rv));
	buf_free(&c->written);
	c->written = text;
}

unsigned control_poll(struct control *c, struct pollfd *fds, int *timeout_ms)
{
	unsigned count = 0;

	fds[count++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
		if (c->clients[i].fd < 0)
			continue;
		fds[count++] = (struct pollfd){.fd = c->clients[i].fd, .events = POLLIN};
		if (*timeout_ms < 0 || *timeout_ms > CONTROL_PATIENCE_MS)
			*timeout_ms = CONTROL_PATIENCE_MS;
	}
	return count;
}

/* --- requests --- */

static bool client_may_change(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
	       (who.uid == 0 || who.uid == geteuid());
}

static void change_apply(struct control *c, const char *line, struct buf *out)
{
	char why[WITNESS_AGENT_TEXT];
	uint64_t generation;
	int rv;

	if (strcmp(line, "acquire") == 0 || strcmp(line, "release") == 0) {
		keeper_wish(c->keeper, line[0] == 'a');
		buf_puts(out, "ok\n");
	} else if (strcmp(line, "reload") == 0) {
		if (keeper_reload(c->keeper, why) == 0)
			buf_puts(out, "ok\n");
		else
			buf_printf(out, "error: %s\n", why);
	} else if (strncmp(line, "generation ", 11) == 0 &&
		   text_to_u64(line + 11, 0, UINT64_MAX, &generation) == 0) {
		rv = keeper_generation(c->keeper, generation);
		if (rv == 0)
			buf_puts(out, "ok\n");
		else
			buf_printf(out, "error: the generation could not be kept in %s: %s\n",
				   c->keeper->settings->state_dir, strerror(-rv));
	} else {
		buf_puts(out, "error: not understood; known are status, acquire, release, "
			      "generation N and reload\n");
	}
}

static void client_answer(struct control *c, unsigned i)
{
	const char *line = c->clients[i].line;
	struct buf out = {0};

	if (strcmp(line, "status") == 0)
		keeper_status(c->keeper, &out);
	else if (!client_may_change(c->clients[i].fd))
		buf_puts(&out, "error: only root may change what the agent does\n");
	else
		change_apply(c, line, &out);
	/* It fits into the socket's buffer; whoever does not read loses the answer, not we time. */
	(void)!send(c->clients[i].fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	buf_free(&out);
	client_close(c, i);
}

static void client_read(struct control *c, unsigned i)
{
	size_t room = CONTROL_LINE - 1 - c->clients[i].len;
	ssize_t got =
		recv(c->clients[i].fd, c->clients[i].line + c->clients[i].len, room, MSG_DONTWAIT);
	char *end;

	if (got < 0 && errno == EAGAIN && clock_boottime_ms() < c->clients[i].deadline_ms)
		return;
	if (got <= 0) {
		client_close(c, i);
		return;
	}
	c->clients[i].len += (size_t)got;
	c->clients[i].line[c->clients[i].len] = '\0';
	end = strchr(c->clients[i].line, '\n');
	if (end != NULL) {
		*end = '\0';
		client_answer(c, i);
	} else if (c->clients[i].len == CONTROL_LINE - 1) {
		client_close(c, i);
	}
}

static void client_accept(struct control *c)
{
	int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned i = 0; fd >= 0 && i < CONTROL_CLIENTS; i++) {
		if (c->clients[i].fd >= 0)
			continue;
		c->clients[i].fd = fd;
		c->clients[i].len = 0;
		c->clients[i].deadline_ms = clock_boottime_ms() + CONTROL_PATIENCE_MS;
		return;
	}
	if (fd >= 0)
		close(fd); /* too many at once */
}

void control_turn(struct control *c)
{
	client_accept(c);
	for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
		if (c->clients[i].fd >= 0)
			client_read(c, i);
}

/* --- the client's side --- */

int control_ask(const struct settings *s, const char *line, char **ret_answer)
{
	const struct timeval patience = {.tv_sec = 5};
	char *path = socket_path(s);
	struct sockaddr_un address;
	char request[CONTROL_LINE];
	char *answer;
	size_t len = 0;
	ssize_t got = 1;
	int rv = socket_address(path, &address);
	int fd;

	free(path);
	fd = rv == 0 ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
	if (fd < 0)
		return rv != 0 ? rv : -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	snprintf(request, sizeof(request), "%.60s\n", line);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    send(fd, request, strlen(request), MSG_NOSIGNAL) < 0) {
		rv = -errno;
		close(fd);
		return rv;
	}
	answer = mem_alloc(ANSWER_MAX + 1);
	while (len < ANSWER_MAX && got > 0) {
		got = recv(fd, answer + len, ANSWER_MAX - len, 0);
		len += got > 0 ? (size_t)got : 0;
	}
	close(fd);
	answer[len] = '\0';
	if (len == 0) {
		free(answer);
		return -ETIMEDOUT;
	}
	*ret_answer = answer;
	return 0;
}

bool control_status_held(const char *status, uint64_t now_ms)
{
	static const char until[] = "\nuntil_boot_ms=";
	const char *at = strstr(status, until);
	char digits[24] = "";
	uint64_t until_ms;

	if (strncmp(status, "state=\"held\"\n", 13) != 0 || at == NULL)
		return false;
	at += sizeof(until) - 1;
	if (strcspn(at, "\n") >= sizeof(digits))
		return false;
	memcpy(digits, at, strcspn(at, "\n"));
	return text_to_u64(digits, 1, UINT64_MAX, &until_ms) == 0 && now_ms < until_ms;
}

bool control_status_left(const char *status)
{
	static const char held[] = "state=\"held\"\n";
	static const char stopping[] = "state=\"stopping\"\n";

	return strncmp(status, held, sizeof(held) - 1) == 0 ||
	       strncmp(status, stopping, sizeof(stopping) - 1) == 0;
}

bool control_left(const struct settings *s)
{
	char *path = file_path(s);
	char *text = NULL;
	bool left = file_read(path, ANSWER_MAX, &text) == 0 && control_status_left(text);

	free(text);
	free(path);
	return left;
}

void control_forget(const struct settings *s)
{
	char *path = file_path(s);

	unlink(path);
	free(path);
}
