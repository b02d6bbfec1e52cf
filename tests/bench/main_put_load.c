/* put_load: durable writes over HTTPS, a given number of them outstanding at any time; the same
 * client for both sides of tests/bench/etcd.py.
 *
 *   put_load --url URL --method METHOD --body TEXT --count N --outstanding N
 *            [--cacert FILE] [--header TEXT]...
 *
 * "%n" in the URL and in the body is the number of the write, "%w" that of its worker (0 ..
 * outstanding - 1). Prints one JSON object: seconds of it all, writes that were answered 2xx, and
 * percentiles of their times. A worker keeps its connection. */
#include <curl/curl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/buf.h"
#include "lib/mem.h"

enum { SOURCE_SHARE = 32, OUTSTANDING_MAX = 250 * SOURCE_SHARE };

struct worker {
	CURL *easy;
	unsigned number;
	uint64_t began_us;
	struct buf url, body;
};

static struct {
	const char *url, *method, *body, *cacert;
	struct curl_slist *headers;
	unsigned long count, outstanding;
} given = {.method = "PUT", .body = "", .count = 1000, .outstanding = 1};

static unsigned long begun, answered, failed;
static uint64_t *times_us;
static char first_failure[256];

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static size_t nowhere(char *bytes, size_t size, size_t count, void *arg)
{
	(void)bytes;
	(void)arg;
	return size * count;
}

static void expand(const char *template, unsigned long number, unsigned long worker,
		   struct buf *out)
{
	buf_clear(out);
	for (const char *at = template; *at != '\0'; at++) {
		if (at[0] == '%' && (at[1] == 'n' || at[1] == 'w')) {
			buf_printf(out, at[1] == 'n' ? "%lu" : "%04lu",
				   at[1] == 'n' ? number : worker);
			at++;
		} else {
			buf_putc(out, *at);
		}
	}
}

static void worker_begin(struct worker *w, CURLM *multi)
{
	expand(given.url, begun, w->number, &w->url);
	expand(given.body, begun, w->number, &w->body);
	begun++;
	curl_easy_setopt(w->easy, CURLOPT_URL, buf_string(&w->url));
	curl_easy_setopt(w->easy, CURLOPT_POSTFIELDSIZE, (long)w->body.len);
	curl_easy_setopt(w->easy, CURLOPT_POSTFIELDS, buf_string(&w->body));
	w->began_us = now_us();
	curl_multi_add_handle(multi, w->easy);
}

static void worker_ended(struct worker *w, CURLM *multi, CURLcode code)
{
	long status = 0;

	curl_easy_getinfo(w->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_multi_remove_handle(multi, w->easy);
	if (code == CURLE_OK && status / 100 == 2) {
		times_us[answered++] = now_us() - w->began_us;
		return;
	}
	if (failed++ == 0)
		snprintf(first_failure, sizeof(first_failure), "%s, status %ld",
			 curl_easy_strerror(code), status);
}

static void worker_make(struct worker *w, unsigned number)
{
	char source[32];

	w->number = number;
	w->easy = curl_easy_init();
	curl_easy_setopt(w->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(w->easy, CURLOPT_CUSTOMREQUEST, given.method);
	curl_easy_setopt(w->easy, CURLOPT_HTTPHEADER, given.headers);
	curl_easy_setopt(w->easy, CURLOPT_WRITEFUNCTION, nowhere);
	curl_easy_setopt(w->easy, CURLOPT_PRIVATE, w);
	curl_easy_setopt(w->easy, CURLOPT_TIMEOUT, 60L);
	/* A server may limit the connections of one address, as ours does. */
	snprintf(source, sizeof(source), "127.0.1.%u", number / SOURCE_SHARE + 1);
	curl_easy_setopt(w->easy, CURLOPT_INTERFACE, source);
	if (given.cacert != NULL)
		curl_easy_setopt(w->easy, CURLOPT_CAINFO, given.cacert);
	/* A board is known by the cluster's CA, not by an address. */
	curl_easy_setopt(w->easy, CURLOPT_SSL_VERIFYHOST, 0L);
}

static int by_size(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static uint64_t percentile(unsigned percent)
{
	return answered > 0 ? times_us[(answered - 1) * percent / 100] : 0;
}

static int put_all(void)
{
	CURLM *multi = curl_multi_init();
	struct worker *workers = mem_zalloc(given.outstanding * sizeof(*workers));
	uint64_t began = now_us();
	int running = 1;

	times_us = mem_array(given.count, sizeof(*times_us));
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)given.outstanding + 1);
	for (unsigned i = 0; i < given.outstanding; i++) {
		worker_make(&workers[i], i);
		if (begun < given.count)
			worker_begin(&workers[i], multi);
	}
	while (answered + failed < given.count) {
		CURLMsg *message;
		int left;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &left)) != NULL) {
			struct worker *w;

			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&w);
			worker_ended(w, multi, message->data.result);
			if (begun < given.count)
				worker_begin(w, multi);
		}
		curl_multi_poll(multi, NULL, 0, 100, NULL);
	}
	began = now_us() - began;
	qsort(times_us, answered, sizeof(*times_us), by_size);
	printf("{\"seconds\": %.6f, \"answered\": %lu, \"failed\": %lu, \"p50_us\": %llu, "
	       "\"p99_us\": %llu, "
	       "\"max_us\": %llu}\n",
	       (double)began / 1e6, answered, failed, (unsigned long long)percentile(50),
	       (unsigned long long)percentile(99), (unsigned long long)percentile(100));
	for (unsigned i = 0; i < given.outstanding; i++) {
		curl_easy_cleanup(workers[i].easy);
		buf_free(&workers[i].url);
		buf_free(&workers[i].body);
	}
	curl_multi_cleanup(multi);
	free(workers);
	free(times_us);
	if (failed > 0)
		fprintf(stderr, "put_load: %lu writes failed, the first one: %s\n", failed,
			first_failure);
	return failed > 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"url", required_argument, NULL, 'u'},
						{"method", required_argument, NULL, 'm'},
						{"body", required_argument, NULL, 'b'},
						{"count", required_argument, NULL, 'c'},
						{"outstanding", required_argument, NULL, 'o'},
						{"cacert", required_argument, NULL, 'a'},
						{"header", required_argument, NULL, 'h'},
						{0}};
	int option, rv;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'u':
			given.url = optarg;
			break;
		case 'm':
			given.method = optarg;
			break;
		case 'b':
			given.body = optarg;
			break;
		case 'c':
			given.count = strtoul(optarg, NULL, 10);
			break;
		case 'o':
			given.outstanding = strtoul(optarg, NULL, 10);
			break;
		case 'a':
			given.cacert = optarg;
			break;
		case 'h':
			given.headers = curl_slist_append(given.headers, optarg);
			break;
		default:
			return 2;
		}
	}
	if (given.url == NULL || given.outstanding == 0 || given.outstanding > OUTSTANDING_MAX) {
		fprintf(stderr,
			"usage: put_load --url URL [--method METHOD] [--body TEXT] [--count N] "
			"[--outstanding 1..8000] [--cacert FILE] [--header TEXT]...\n");
		return 2;
	}
	rv = put_all();
	curl_slist_free_all(given.headers);
	curl_global_cleanup();
	return rv;
}
