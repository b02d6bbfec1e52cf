/* metrics.h: the numbers of this daemon, in the Prometheus text format.
 *
 * A registry holds families; a family holds series told apart by labels. Anyone may add to a
 * series from any thread; a series lives as long as its registry. Nothing here grows with the
 * number of sites: labels are for closed sets of words (routes, states, codes). */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/buf.h"

struct metrics;
struct metric_histogram;

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE };

struct metric {
	_Atomic int64_t value;
};

enum { METRIC_SERIES_MAX = 4096 }; /* of a registry; more is our own mistake */

struct metrics *metrics_new(void);
void metrics_free(struct metrics *m); /* NULL is fine */

/* The series with this name and these labels, made at the first call; any thread. `name` without
 * "_total" ("tiebreak_http_requests"); `labels` is "" or what stands in the braces:
 * "route=\"/v1/sites\",code=\"200\"" (words of ours that need no escaping). All series of a name
 * have the same kind and help. */
struct metric *metrics_series(struct metrics *m, enum metric_kind kind, const char *name,
			      const char *help, const char *labels);
static inline void metric_add(struct metric *s, int64_t n)
{
	atomic_fetch_add_explicit(&s->value, n, memory_order_relaxed);
}
static inline void metric_set(struct metric *s, int64_t n)
{
	atomic_store_explicit(&s->value, n, memory_order_relaxed);
}

/* Numbers that their owner keeps elsewhere: `write` is called at each scrape, in its thread, and
 * appends samples by metrics_head and metrics_sample. */
void metrics_collect(struct metrics *m, void (*write)(void *arg, bool open, struct buf *out),
		     void *arg);

/* Seconds in fixed buckets from 0.5 ms to 10 s. */
struct metric_histogram *metrics_histogram(struct metrics *m, const char *name, const char *help);
void metric_observe_us(struct metric_histogram *h, uint64_t microseconds);

/* All that is registered. `open` chooses OpenMetrics 1.0 over the text format 0.0.4; the caller
 * ends with metrics_end. */
void metrics_write(struct metrics *m, bool open, struct buf *out);
/* One family with one sample that is known only now. */
void metrics_head(struct buf *out, bool open, enum metric_kind kind, const char *name,
		  const char *help);
void metrics_sample(struct buf *out, bool open, enum metric_kind kind, const char *name,
		    const char *labels, double value);
/* Memory, processor time, descriptors and age of this process. */
void metrics_process(struct buf *out, bool open);
void metrics_end(struct buf *out, bool open);
