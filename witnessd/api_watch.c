/* api_watch.c: events as they happen (server-sent events; WHATWG HTML, 9.2).
 *
 * The events of the model are the source; their seq is the id of what is sent. Two feeds, one of
 * events and one of sites, turn each new event into text once, for all their streams, and keep the
 * newest in a ring. A stream is only a position in its feed:
 *
 *     behind the ring --(batches of its own)--> in the ring --> at its end, waiting
 *         |                                        |
 *         +-- behind the model's events: too-old --+-- queue full: waits for `drained`
 *
 * so a slow client holds at most STREAM_QUEUE bytes here and loses nothing until the model itself
 * has forgotten what it missed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/mem.h"
#include "lib/text.h"
#include "witnessd/api_call.h"

enum {
	RING = 1024, /* texts kept by a feed */
	BATCH = 256, /* events made into text in one go */
	STREAM_QUEUE = 256 << 10, /* bytes */
	CHECK_MS = 3000, /* of who listens: a revoked certificate is out within 5 s */
	CHECKS_PER_BEAT = 5,
};

/* What is sent for one event. */
struct chunk {
	struct buf text; /* empty: nothing (an event without a site, in the feed of sites) */
	char *site; /* NULL: none */
	int state; /* of the site; -1: it is deleted */
};

struct feed {
	struct api_watch *watch;
	bool sites;
	struct chunk ring[RING]; /* of seq in low+1 .. high, at seq % RING */
	uint64_t low;
	uint64_t high;
	struct batch *batch; /* under way; NULL none */
	bool again; /* the model changed meanwhile */
};

struct api_stream {
	struct list link;
	struct api_call *call;
	struct feed *feed;
	struct api_site_filter filter;
	uint64_t sent; /* seq of the last event looked at */
	struct batch *batch; /* under way; NULL none */
	bool full; /* waits for `drained` */
};

/* Events on their way to text. */
struct batch {
	struct list link;
	struct api_watch *watch;
	struct feed *feed; /* for whom: the feed, */
	struct api_stream *stream; /* or one stream; both NULL: nobody any more */
	bool sites;
	Tb__Event *events[BATCH];
	size_t count;
	struct api_site_set set; /* the sites named, each once, by name */
};

struct api_watch {
	struct api *api;
	struct list streams;
	struct list batches;
	size_t count;
	struct feed events;
	struct feed sites;
	uv_timer_t heartbeat;
	unsigned checks;
	void (*closed)(struct api *a);
};

/* --- text --- */

static void event_head(const Tb__Event *event, struct buf *out)
{
	buf_printf(out, "id: %llu\nevent: %s\ndata: ", (unsigned long long)event->seq, event->type);
}

static int name_order(const void *key, const void *item)
{
	const Tb__Site *const *site = item;

	return strcmp(key, (*site)->name);
}

static const Tb__Site *set_find(const struct api_site_set *set, const char *name)
{
	Tb__Site **found = set->count > 0 ? bsearch(name, set->sites, set->count,
						    sizeof(set->sites[0]), name_order)
					  : NULL;

	return found != NULL ? *found : NULL;
}

static void chunk_site(struct chunk *c, const Tb__Event *event, const struct api_site_set *set)
{
	const Tb__Site *site = set_find(set, event->site);
	Tb__Site gone = TB__SITE__INIT;

	c->site = mem_strdup(event->site);
	c->state = site != NULL ? (int)site->status->state : -1;
	gone.name = c->site;
	event_head(event, &c->text);
	json_encode(site != NULL ? &site->base : &gone.base, &c->text);
	buf_puts(&c->text, "\n\n");
}

static void chunk_make(struct chunk *c, const struct batch *b, const Tb__Event *event)
{
	*c = (struct chunk){0};
	if (b->sites) {
		if (event->site[0] != '\0')
			chunk_site(c, event, &b->set);
		return;
	}
	event_head(event, &c->text);
	json_encode(&event->base, &c->text);
	buf_puts(&c->text, "\n\n");
}

static void chunk_clear(struct chunk *c)
{
	buf_free(&c->text);
	free(c->site);
	*c = (struct chunk){0};
}

/* --- streams --- */

static void stream_end(struct api_stream *s)
{
	struct api_call *call = s->call;
	struct api *a = call->api;
	void *conn = call->conn;

	if (s->batch != NULL)
		s->batch->stream = NULL;
	list_remove(&s->link);
	s->feed->watch->count--;
	free(s);
	call->stream = NULL;
	call->conn = NULL;
	if (call->slot != NULL)
		*call->slot = NULL;
	call->slot = NULL;
	a->config.sink->stream_end(conn);
	api_call_end(call, 200);
}

static void stream_write(struct api_stream *s, const void *data, size_t len)
{
	struct api_call *call = s->call;

	if (call->api->config.sink->stream_write(call->conn, data, len) > STREAM_QUEUE)
		s->full = true;
}

static void stream_too_old(struct api_stream *s)
{
	static const char text[] =
		"event: too-old\n"
		"data: {\"type\":\"about:blank\",\"title\":\"Too old\",\"status\":410,"
		"\"detail\":\"the events behind that id are no longer kept\","
		"\"remedy\":\"read the list again, then watch from now on\"}\n\n";

	stream_write(s, text, sizeof(text) - 1);
	stream_end(s);
}

struct label_match {
	const char *name;
	bool found;
};

static int label_visit(void *arg, const Tb__Site *site, const Tb__Grant *grant)
{
	struct label_match *m = arg;

	(void)grant;
	m->found = strcmp(site->name, m->name) == 0;
	return 1;
}

static bool label_matches(struct api *a, const char *selector, const char *name)
{
	/* Of all names that begin with it, the name itself comes first. */
	struct store_site_filter filter = {
		.label_selector = selector, .name_prefix = name, .limit = 1};
	struct label_match match = {.name = name};
	struct store *s = api_store(a);

	if (s != NULL)
		store_sites(s, &filter, label_visit, &match, NULL);
	return match.found;
}

/* That a site is deleted concerns everyone who may have seen it. */
static bool stream_wants(const struct api_stream *s, const struct chunk *c)
{
	const struct api_site_filter *f = &s->filter;

	if (c->text.len == 0)
		return false;
	if (!s->feed->sites)
		return true;
	if (f->prefix != NULL && strncmp(c->site, f->prefix, strlen(f->prefix)) != 0)
		return false;
	if (c->state < 0)
		return true;
	if (f->state >= 0 && c->state != f->state)
		return false;
	return f->label == NULL || label_matches(s->call->api, f->label, c->site);
}

static void stream_chunk(struct api_stream *s, const struct chunk *c)
{
	s->sent++;
	if (stream_wants(s, c))
		stream_write(s, c->text.data, c->text.len);
}

static void batch_start(struct api_watch *w, struct feed *feed, struct api_stream *stream,
			uint64_t after);

/* Sends what there is for it. May end the stream. */
static void stream_pump(struct api_stream *s)
{
	struct feed *feed = s->feed;

	while (!s->full && s->sent >= feed->low && s->sent < feed->high)
		stream_chunk(s, &feed->ring[(s->sent + 1) % RING]);
	if (!s->full && s->batch == NULL && s->sent < feed->low)
		batch_start(feed->watch, NULL, s, s->sent);
}

/* The stream's own batch has come. */
static void stream_batch(struct api_stream *s, const struct batch *b)
{
	s->batch = NULL;
	if (b->count == 0 || b->events[0]->seq != s->sent + 1) {
		stream_too_old(s);
		return;
	}
	for (size_t i = 0; i < b->count && !s->full; i++) {
		struct chunk c;

		chunk_make(&c, b, b->events[i]);
		stream_chunk(s, &c);
		chunk_clear(&c);
	}
	stream_pump(s);
}

/* --- feeds --- */

static void feed_clear(struct feed *feed)
{
	for (unsigned i = 0; i < RING; i++)
		chunk_clear(&feed->ring[i]);
}

static void feed_pump(struct feed *feed)
{
	list_for_each_safe (at, &feed->watch->streams) {
		struct api_stream *s = list_entry(at, struct api_stream, link);

		if (s->feed == feed)
			stream_pump(s);
	}
}

static void feed_too_old(struct feed *feed)
{
	list_for_each_safe (at, &feed->watch->streams) {
		struct api_stream *s = list_entry(at, struct api_stream, link);

		if (s->feed == feed)
			stream_too_old(s);
	}
}

static bool feed_used(const struct feed *feed)
{
	list_for_each (at, &feed->watch->streams)
		if (list_entry(at, struct api_stream, link)->feed == feed)
			return true;
	return false;
}

static int event_range(struct api *a, uint64_t *ret_first, uint64_t *ret_last)
{
	struct store *s = api_store(a);

	return s != NULL ? store_event_range(s, ret_first, ret_last) : -ENOENT;
}

static void feed_update(struct feed *feed)
{
	uint64_t first;
	uint64_t last;

	if (!feed_used(feed))
		return;
	if (feed->batch != NULL) {
		feed->again = true;
		return;
	}
	feed->again = false;
	if (event_range(feed->watch->api, &first, &last) != 0)
		return;
	/* Another history (a restored model), or more than all that is kept since the last look. */
	if (last < feed->high || first > feed->high + 1) {
		feed->low = feed->high = last;
		feed_too_old(feed);
	} else if (last > feed->high) {
		batch_start(feed->watch, feed, NULL, feed->high);
	}
}

static void feed_batch(struct feed *feed, const struct batch *b)
{
	feed->batch = NULL;
	for (size_t i = 0; i < b->count; i++) {
		struct chunk *c;

		if (b->events[i]->seq != feed->high + 1)
			break; /* feed_update sorts it out */
		c = &feed->ring[++feed->high % RING];
		chunk_clear(c);
		chunk_make(c, b, b->events[i]);
		if (feed->high - feed->low > RING)
			feed->low++;
	}
	feed_pump(feed);
	if (feed->again || b->count == BATCH)
		feed_update(feed);
}

/* --- batches --- */

static void batch_free(struct batch *b)
{
	list_remove(&b->link);
	for (size_t i = 0; i < b->count; i++)
		tb__event__free_unpacked(b->events[i], NULL);
	api_site_set_clear(&b->set);
	free(b);
}

static void batch_done(struct batch *b)
{
	if (b->feed != NULL)
		feed_batch(b->feed, b);
	else if (b->stream != NULL)
		stream_batch(b->stream, b);
	batch_free(b);
}

static void batch_answered(void *arg, int error, const Tb__PeerAnswer *answer)
{
	struct batch *b = arg;

	api_site_set_fill(&b->set, error, answer);
	batch_done(b);
}

static int batch_visit(void *arg, const Tb__Event *row)
{
	struct batch *b = arg;

	b->events[b->count++] = (Tb__Event *)message_copy(&row->base);
	return b->count == BATCH;
}

static int text_order(const void *one, const void *two)
{
	return strcmp(*(const char *const *)one, *(const char *const *)two);
}

static void batch_sites(struct batch *b)
{
	struct store *s = api_store(b->watch->api);
	const char *names[BATCH];
	size_t n = 0;

	for (size_t i = 0; i < b->count; i++)
		if (b->events[i]->site[0] != '\0')
			names[n++] = b->events[i]->site;
	qsort(names, n, sizeof(names[0]), text_order);
	b->set.sites = mem_array(n > 0 ? n : 1, sizeof(b->set.sites[0]));
	b->set.room = n;
	for (size_t i = 0; i < n && s != NULL; i++) {
		if (i > 0 && strcmp(names[i - 1], names[i]) == 0)
			continue;
		if (api_site_read(s, names[i], &b->set.sites[b->set.count]) == 0)
			b->set.count++;
	}
}

static void batch_query(struct batch *b)
{
	const struct api_config *config = &b->watch->api->config;
	Tb__SiteStatusQuery sites;
	Tb__PeerQuery query;

	if (b->set.count == 0 || config->backend->view(config->core)->leader_id == 0) {
		batch_answered(b, -EAGAIN, NULL);
		return;
	}
	api_site_set_query(&b->set, &query, &sites);
	config->backend->query(config->core, config->home, &query, batch_answered, b);
	free(sites.names);
}

static void batch_start(struct api_watch *w, struct feed *feed, struct api_stream *stream,
			uint64_t after)
{
	struct batch *b = mem_zalloc(sizeof(*b));
	struct store *s = api_store(w->api);

	b->watch = w;
	b->feed = feed;
	b->stream = stream;
	b->sites = feed != NULL ? feed->sites : stream->feed->sites;
	list_append(&w->batches, &b->link);
	if (feed != NULL)
		feed->batch = b;
	else
		stream->batch = b;
	if (s != NULL)
		store_events(s, after, BATCH, batch_visit, b);
	if (b->sites)
		batch_sites(b);
	batch_query(b);
}

/* --- a watch begins --- */

/* -EINVAL: the call is over. */
static int start_position(struct api_call *call, uint64_t last, uint64_t *ret)
{
	const struct api_value *after = api_param(call, "after");

	*ret = last;
	if (call->last_event_id != NULL && call->last_event_id[0] != '\0') {
		if (text_to_u64(call->last_event_id, 0, UINT64_MAX - 1, ret) == 0)
			return 0;
		api_problem_field(call, 400, "Last-Event-ID", "must be the id of an event");
		return -EINVAL;
	}
	if (after->set)
		*ret = after->number;
	return 0;
}

static int start_filter(struct api_call *call, struct api_site_filter *ret)
{
	struct store_site_filter filter = {.limit = 1};
	struct label_match match = {.name = ""};
	const char *problem = NULL;

	*ret = api_site_filter_of(call);
	filter.label_selector = ret->label;
	if (store_sites(api_store(call->api), &filter, label_visit, &match, &problem) != -EINVAL)
		return 0;
	api_problem_field(call, 400, "label", problem);
	return -EINVAL;
}

static void stream_begin(struct api_call *call, struct feed *feed, uint64_t after,
			 const struct api_site_filter *filter)
{
	struct api_watch *w = feed->watch;
	struct api_stream *s = mem_zalloc(sizeof(*s));
	struct buf hello = {0};

	s->call = call;
	s->feed = feed;
	s->filter = *filter;
	s->sent = after;
	call->stream = s;
	list_append(&w->streams, &s->link);
	w->count++;
	api_answer_stream(call, "text/event-stream");
	/* The id alone is no event; it says where to resume before the first one has come. */
	buf_printf(&hello, "retry: 2000\nid: %llu\n\n", (unsigned long long)after);
	stream_write(s, hello.data, hello.len);
	buf_free(&hello);
}

void api_watch_start(struct api_call *call, bool sites)
{
	struct api_watch *w = call->api->watch;
	struct feed *feed = sites ? &w->sites : &w->events;
	struct api_site_filter filter = {.state = -1};
	uint64_t first = 0;
	uint64_t last = 0;
	uint64_t after;

	if (event_range(call->api, &first, &last) != 0) {
		api_store_failed(call);
		return;
	}
	if (start_position(call, last, &after) != 0 || (sites && start_filter(call, &filter) != 0))
		return;
	if (w->count >= API_STREAMS_MAX) {
		api_problem(call, 503, "ask another board, or end other watches",
			    "this board serves at most %d watches at once", API_STREAMS_MAX);
		return;
	}
	if (!feed_used(feed) && feed->batch == NULL) {
		feed_clear(feed);
		feed->low = feed->high = last;
	}
	stream_begin(call, feed, after, &filter);
	if (after + 1 < first || after > last)
		stream_too_old(call->stream);
	else
		stream_pump(call->stream);
}

/* --- from outside --- */

void api_watch_changed(struct api_watch *w)
{
	feed_update(&w->events);
	feed_update(&w->sites);
}

void api_watch_drained(struct api_call *call)
{
	call->stream->full = false;
	stream_pump(call->stream);
}

void api_watch_gone(struct api_call *call)
{
	stream_end(call->stream);
}

size_t api_watch_count(const struct api_watch *w)
{
	return w->count;
}

void api_watch_beat(struct api_watch *w)
{
	list_for_each_safe (at, &w->streams) {
		struct api_stream *s = list_entry(at, struct api_stream, link);

		if (!api_principal_holds(w->api, &s->call->who))
			stream_end(s);
		else if (!s->full)
			stream_write(s, ":\n\n", 3);
	}
}

void api_watch_check(struct api_watch *w)
{
	list_for_each_safe (at, &w->streams) {
		struct api_stream *s = list_entry(at, struct api_stream, link);

		if (!api_principal_holds(w->api, &s->call->who))
			stream_end(s);
	}
}

static void heartbeat(uv_timer_t *timer)
{
	struct api_watch *w = timer->data;

	api_consoles_check(w->api);
	if (++w->checks % CHECKS_PER_BEAT == 0)
		api_watch_beat(w);
	else
		api_watch_check(w);
}

struct api_watch *api_watch_new(struct api *a)
{
	struct api_watch *w = mem_zalloc(sizeof(*w));

	w->api = a;
	list_init(&w->streams);
	list_init(&w->batches);
	w->events.watch = w;
	w->sites.watch = w;
	w->sites.sites = true;
	uv_timer_init(a->config.loop, &w->heartbeat);
	w->heartbeat.data = w;
	uv_timer_start(&w->heartbeat, heartbeat, CHECK_MS, CHECK_MS);
	return w;
}

static void heartbeat_closed(uv_handle_t *handle)
{
	struct api_watch *w = handle->data;

	w->closed(w->api);
}

void api_watch_close(struct api_watch *w, void (*closed)(struct api *a))
{
	w->closed = closed;
	list_for_each_safe (at, &w->streams)
		stream_end(list_entry(at, struct api_stream, link));
	uv_close((uv_handle_t *)&w->heartbeat, heartbeat_closed);
}

void api_watch_free(struct api_watch *w)
{
	if (w == NULL)
		return;
	list_for_each_safe (at, &w->batches)
		batch_free(list_entry(at, struct batch, link));
	feed_clear(&w->events);
	feed_clear(&w->sites);
	free(w);
}
