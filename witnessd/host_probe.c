#include "witnessd/host_probe.h"

#include <signal.h>
#include <string.h>

#include "proto/json.h"

enum { TEXT_MAX = 65536, LIMIT_MS = 30000 };

static void probe_over(struct host_probe *p)
{
	struct json_error error;
	ProtobufCMessage *probe = NULL;

	if (p->text.len == 0 || p->text.len > TEXT_MAX ||
	    json_decode(&tb__host_probe__descriptor, (const char *)p->text.data, p->text.len,
			&probe, &error) != 0)
		probe = NULL;
	buf_free(&p->text);
	p->done(p->arg, (const Tb__HostProbe *)probe);
	if (probe != NULL)
		protobuf_c_message_free_unpacked(probe, NULL);
}

static void handle_closed(uv_handle_t *handle)
{
	struct host_probe *p = handle->data;

	if (--p->handles == 0)
		probe_over(p);
}

static void handle_close(uv_handle_t *handle)
{
	if (!uv_is_closing(handle))
		uv_close(handle, handle_closed);
}

/* Once it has ended and all it said is read. */
static void maybe_close(struct host_probe *p)
{
	if (!p->ended || !uv_is_closing((uv_handle_t *)&p->out))
		return;
	handle_close((uv_handle_t *)&p->process);
	handle_close((uv_handle_t *)&p->limit);
}

static void probe_ended(uv_process_t *process, int64_t status, int signal)
{
	struct host_probe *p = process->data;

	(void)status;
	(void)signal;
	p->ended = true;
	maybe_close(p);
}

static void probe_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *bytes)
{
	struct host_probe *p = handle->data;

	(void)suggested;
	*bytes = uv_buf_init((char *)buf_reserve(&p->text, 4096), 4096);
}

static void probe_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *bytes)
{
	struct host_probe *p = stream->data;

	(void)bytes;
	if (got > 0)
		p->text.len += (size_t)got;
	if (got < 0 || p->text.len > TEXT_MAX) {
		handle_close((uv_handle_t *)stream);
		maybe_close(p);
	}
}

void host_probe_stop(struct host_probe *p)
{
	if (p->handles > 0 && !p->ended)
		uv_process_kill(&p->process, SIGKILL);
}

/* Its own children, if it has any, may hold the pipe: nobody waits for them. */
static void probe_late(uv_timer_t *timer)
{
	struct host_probe *p = timer->data;

	host_probe_stop(p);
	handle_close((uv_handle_t *)&p->out);
	maybe_close(p);
}

void host_probe_start(struct host_probe *p, uv_loop_t *loop,
		      void (*done)(void *arg, const Tb__HostProbe *probe), void *arg)
{
	char *words[] = {(char *)"witness-vm", (char *)"probe", (char *)"-o", (char *)"json", NULL};
	uv_stdio_container_t io[3] = {{.flags = UV_IGNORE},
				      {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE},
				      {.flags = UV_IGNORE}};
	const uv_process_options_t options = {
		.exit_cb = probe_ended,
		.file = words[0],
		.args = words,
		.stdio_count = 3,
		.stdio = io,
	};

	memset(p, 0, sizeof(*p));
	p->done = done;
	p->arg = arg;
	p->process.data = p;
	p->out.data = p;
	p->limit.data = p;
	p->handles = 3;
	uv_pipe_init(loop, &p->out, 0);
	uv_timer_init(loop, &p->limit);
	io[1].data.stream = (uv_stream_t *)&p->out;
	if (uv_spawn(loop, &p->process, &options) == 0) {
		uv_timer_start(&p->limit, probe_late, LIMIT_MS, 0);
		uv_read_start((uv_stream_t *)&p->out, probe_alloc, probe_read);
		return;
	}
	/* libuv makes a handle of the process also when there is none. */
	p->ended = true;
	handle_close((uv_handle_t *)&p->out);
	maybe_close(p);
}
