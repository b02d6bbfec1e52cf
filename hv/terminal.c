#include "hv/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lib/mem.h"

enum { CTRL_A = 1, INPUT_SIZE = 4096, OUTPUT_SIZE = 4096, RETRY_MS = 20 };

static const char help[] = "\r\nCtrl-A x  end the VM at once\r\n"
			   "Ctrl-A p  press its power button\r\n"
			   "Ctrl-A a  send Ctrl-A\r\n"
			   "Ctrl-A h  this help\r\n";

struct terminal {
	struct terminal_config config;
	struct terminal_keys keys;
	struct watch in_watch, out_watch, timer_watch;
	int out; /* owned; -1: nobody reads */
	bool out_is_socket;
	bool in_ended;
	bool in_waits; /* a file: never told ready, read by the timer */
	int timer;
	bool timer_runs;
	size_t input_len, output_len;
	/* Typed, not taken by the guest; taken from the guest, not taken by the reader. Last: their
	 * pages cost nothing as long as nobody uses them. */
	uint8_t input[INPUT_SIZE], output[OUTPUT_SIZE];
};

enum terminal_key terminal_filter(struct terminal_keys *k, uint8_t *data, size_t *len, size_t *used)
{
	size_t kept = 0;
	size_t i = 0;
	enum terminal_key key = TERMINAL_KEY_NONE;

	while (i < *len && key == TERMINAL_KEY_NONE) {
		uint8_t c = data[i++];

		if (!k->escaped) {
			k->escaped = c == CTRL_A;
			if (!k->escaped) {
				data[kept++] = c;
			}
			continue;
		}
		k->escaped = false;
		switch (c) {
		case CTRL_A:
		case 'a':
			data[kept++] = CTRL_A;
			break;
		case 'x':
			key = TERMINAL_KEY_LEAVE;
			break;
		case 'p':
			key = TERMINAL_KEY_POWER;
			break;
		default:
			key = TERMINAL_KEY_HELP;
			break;
		}
	}
	*len = kept;
	*used = i;
	return key;
}

/* Output */

/* From here on everything is thrown away. */
static void output_end(struct terminal *t)
{
	loop_remove(&t->out_watch);
	if (t->out >= 0) {
		close(t->out);
	}
	t->out = -1;
}

/* How many bytes the reader took; an error means that nobody reads any more. */
static size_t put(struct terminal *t, const uint8_t *data, size_t len)
{
	ssize_t done;

	if (t->out < 0) {
		return len;
	}
	do {
		done = t->out_is_socket ? send(t->out, data, len, MSG_DONTWAIT | MSG_NOSIGNAL)
					: write(t->out, data, len);
	} while (done < 0 && errno == EINTR);
	if (done >= 0) {
		return (size_t)done;
	}
	if (errno == EAGAIN) {
		return 0;
	}
	output_end(t);
	return len;
}

static void output_wait(struct terminal *t, bool wait)
{
	if (t->out_watch.loop != NULL) {
		(void)loop_modify(&t->out_watch, wait ? EPOLLOUT : 0);
	}
}

/* Some room of our own, so that a UART without flow control loses nothing to a reader that is a bit
 * late. */
size_t terminal_output(struct terminal *t, const uint8_t *data, size_t len)
{
	size_t done = t->output_len == 0 ? put(t, data, len) : 0;
	size_t room = OUTPUT_SIZE - t->output_len;
	size_t kept = len - done < room ? len - done : room;

	if (kept > 0) {
		if (t->output_len == 0) {
			output_wait(t, true);
		}
		memcpy(t->output + t->output_len, data + done, kept);
		t->output_len += kept;
	}
	return done + kept;
}

static void out_ready(struct watch *watch, uint32_t events)
{
	struct terminal *t =
		(struct terminal *)((char *)watch - offsetof(struct terminal, out_watch));
	size_t done;

	/* Told also while nothing is asked for, and for ever. */
	if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
		output_end(t);
	}
	done = put(t, t->output, t->output_len);
	memmove(t->output, t->output + done, t->output_len - done);
	t->output_len -= done;
	if (t->output_len == 0) {
		output_wait(t, false);
		t->config.output_ready(t->config.arg);
	}
}

/* Input */

static void timer_set(struct terminal *t, bool run)
{
	struct itimerspec each = {0};

	if (run == t->timer_runs) {
		return;
	}
	if (run) {
		each.it_interval.tv_nsec = each.it_value.tv_nsec = RETRY_MS * 1000000;
	}
	if (timerfd_settime(t->timer, 0, &each, NULL) == 0) {
		t->timer_runs = run;
	}
}

static void input_update(struct terminal *t)
{
	bool reads = !t->in_ended && t->input_len == 0;

	if (t->in_watch.loop != NULL) {
		(void)loop_modify(&t->in_watch, reads ? EPOLLIN : 0);
	}
	timer_set(t, t->input_len > 0 || (t->in_waits && !t->in_ended));
}

static void offer(struct terminal *t)
{
	size_t taken = t->config.input(t->config.arg, t->input, t->input_len);

	memmove(t->input, t->input + taken, t->input_len - taken);
	t->input_len -= taken;
}

static void key_do(struct terminal *t, enum terminal_key key)
{
	if (key == TERMINAL_KEY_HELP) {
		(void)terminal_output(t, (const uint8_t *)help, sizeof(help) - 1);
	} else {
		t->config.key(t->config.arg, key);
	}
}

/* `input` is free, `len` bytes were typed into it: keys are done, the rest stays there. */
static void keys_do(struct terminal *t, size_t len)
{
	size_t begin = 0;
	size_t kept = 0;

	while (begin < len) {
		size_t part = len - begin;
		size_t used;
		enum terminal_key key = terminal_filter(&t->keys, t->input + begin, &part, &used);

		memmove(t->input + kept, t->input + begin, part);
		kept += part;
		begin += used;
		if (key != TERMINAL_KEY_NONE) {
			key_do(t, key);
		}
	}
	t->input_len = kept;
}

static void input_read(struct terminal *t)
{
	ssize_t got;

	do {
		got = read(t->config.in, t->input, INPUT_SIZE);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN) {
		return;
	}
	if (got <= 0) {
		loop_remove(&t->in_watch);
		t->in_ended = true;
		return;
	}
	if (t->config.keys) {
		keys_do(t, (size_t)got);
	} else {
		t->input_len = (size_t)got;
	}
	offer(t);
}

static void in_ready(struct watch *watch, uint32_t events)
{
	struct terminal *t =
		(struct terminal *)((char *)watch - offsetof(struct terminal, in_watch));

	/* A hangup is told also while nothing is asked for. */
	if (t->input_len > 0 && (events & (EPOLLHUP | EPOLLERR)) != 0) {
		loop_remove(&t->in_watch);
		t->in_waits = true;
	} else if (t->input_len == 0) {
		input_read(t);
	}
	input_update(t);
}

void terminal_retry(struct terminal *t)
{
	if (t->input_len > 0) {
		offer(t);
	}
	if (t->input_len == 0 && t->in_waits && !t->in_ended) {
		input_read(t);
	}
	input_update(t);
}

static void timer_ready(struct watch *watch, uint32_t events)
{
	struct terminal *t =
		(struct terminal *)((char *)watch - offsetof(struct terminal, timer_watch));
	uint64_t count;

	(void)events;
	(void)!read(watch->fd, &count, sizeof(count));
	terminal_retry(t);
}

/* Life */

void terminal_size(int fd, uint16_t *ret_columns, uint16_t *ret_rows)
{
	struct winsize size = {0};

	(void)ioctl(fd, TIOCGWINSZ, &size);
	*ret_columns = size.ws_col;
	*ret_rows = size.ws_row;
}

int terminal_reopen(int out)
{
	char path[32];
	struct stat st;
	int own = -1;

	if (out < 0 || fstat(out, &st) < 0) {
		return -1;
	}
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", out);
		own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	/* A file never waits, a socket is told not to; a terminal of somebody else can make us wait
	 * while a person has stopped it. */
	return own >= 0 ? own : fcntl(out, F_DUPFD_CLOEXEC, 0);
}

static int output_open(struct terminal *t)
{
	struct stat st;
	int rv;

	t->out = t->config.out;
	if (t->out < 0) {
		return 0;
	}
	if (fstat(t->out, &st) < 0) {
		return -errno;
	}
	t->out_is_socket = S_ISSOCK(st.st_mode);
	if (!t->out_is_socket && !S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode)) {
		return 0;
	}
	rv = loop_add(t->config.loop, &t->out_watch, t->out, 0);
	return rv == -EPERM ? 0 : rv; /* /dev/null is always ready */
}

static int input_open(struct terminal *t)
{
	int rv;

	if (t->config.in < 0) {
		t->in_ended = true;
		return 0;
	}
	rv = loop_add(t->config.loop, &t->in_watch, t->config.in, EPOLLIN);
	if (rv == -EPERM) {
		t->in_waits = true; /* a file */
		rv = 0;
	}
	return rv;
}

int terminal_create(const struct terminal_config *config, struct terminal **ret)
{
	struct terminal *t = mem_alloc(sizeof(*t));
	int rv;

	memset(t, 0, offsetof(struct terminal, input));
	t->config = *config;
	t->in_watch.ready = in_ready;
	t->out_watch.ready = out_ready;
	t->timer_watch.ready = timer_ready;
	t->out = -1;
	t->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	rv = t->timer < 0 ? -errno : loop_add(config->loop, &t->timer_watch, t->timer, EPOLLIN);
	rv = rv < 0 ? rv : output_open(t);
	rv = rv < 0 ? rv : input_open(t);
	if (rv < 0) {
		loop_remove(&t->out_watch);
		t->out = -1; /* stays the caller's */
		terminal_destroy(t);
		return rv;
	}
	input_update(t);
	*ret = t;
	return 0;
}

void terminal_destroy(struct terminal *t)
{
	if (t == NULL) {
		return;
	}
	if (t->output_len > 0) {
		(void)put(t, t->output, t->output_len);
	}
	output_end(t);
	loop_remove(&t->in_watch);
	loop_remove(&t->timer_watch);
	if (t->timer >= 0) {
		close(t->timer);
	}
	free(t);
}

int terminal_raw(int fd, struct termios *ret_old)
{
	struct termios raw;

	if (tcgetattr(fd, ret_old) < 0 || tcgetpgrp(fd) != getpgrp()) {
		return -ENOTTY;
	}
	raw = *ret_old;
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST;
	return tcsetattr(fd, TCSANOW, &raw) < 0 ? -errno : 0;
}

void terminal_restore(int fd, const struct termios *old)
{
	(void)tcsetattr(fd, TCSANOW, old);
}
