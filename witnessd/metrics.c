#include "witnessd/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/list.h"
#include "lib/mem.h"

static const uint64_t bucket_us[] = {500,    1000,   2500,    5000,    10000,	25000,	 50000,
				     100000, 250000, 1000000, 2500000, 5000000, 10000000};
enum { BUCKETS = sizeof(bucket_us) / sizeof(bucket_us[0]) };

struct metric_histogram {
	_Atomic uint64_t buckets[BUCKETS + 1]; /* the last one: over all bounds */
	_Atomic uint64_t sum_us;
};

struct series {
	struct list link;
	char *labels;
	struct metric metric;
};

struct family {
	struct list link;
	enum metric_kind kind;
	char *name;
	char *help;
	struct list series;
	struct metric_histogram *histogram; /* NULL: series */
};

struct collector {
	struct list link;
	void (*write)(void *arg, bool open, struct buf *out);
	void *arg;
};

struct metrics {
	pthread_mutex_t lock; /* the lists; values are atomic */
	struct list families;
	struct list collectors;
	unsigned series_count;
};

struct metrics *metrics_new(void)
{
	struct metrics *m = mem_zalloc(sizeof(*m));

	pthread_mutex_init(&m->lock, NULL);
	list_init(&m->families);
	list_init(&m->collectors);
	return m;
}

static void family_free(struct family *f)
{
	list_for_each_safe (at, &f->series) {
		struct series *s = list_entry(at, struct series, link);

		free(s->labels);
		free(s);
	}
	free(f->histogram);
	free(f->name);
	free(f->help);
	free(f);
}

void metrics_free(struct metrics *m)
{
	if (m == NULL)
		return;
	list_for_each_safe (at, &m->families)
		family_free(list_entry(at, struct family, link));
	list_for_each_safe (at, &m->collectors)
		free(list_entry(at, struct collector, link));
	pthread_mutex_destroy(&m->lock);
	free(m);
}

void metrics_collect(struct metrics *m, void (*write)(void *arg, bool open, struct buf *out),
		     void *arg)
{
	struct collector *c = mem_zalloc(sizeof(*c));

	c->write = write;
	c->arg = arg;
	pthread_mutex_lock(&m->lock);
	list_append(&m->collectors, &c->link);
	pthread_mutex_unlock(&m->lock);
}

static struct family *family_of(struct metrics *m, enum metric_kind kind, const char *name,
				const char *help)
{
	struct family *f;

	list_for_each (at, &m->families) {
		f = list_entry(at, struct family, link);
		if (strcmp(f->name, name) == 0) {
			assert(f->kind == kind);
			return f;
		}
	}
	f = mem_zalloc(sizeof(*f));
	f->kind = kind;
	f->name = mem_strdup(name);
	f->help = mem_strdup(help);
	list_init(&f->series);
	list_append(&m->families, &f->link);
	return f;
}

static struct series *series_of(struct metrics *m, struct family *f, const char *labels)
{
	struct series *s;

	list_for_each (at, &f->series) {
		s = list_entry(at, struct series, link);
		if (strcmp(s->labels, labels) == 0)
			return s;
	}
	assert(m->series_count < METRIC_SERIES_MAX);
	m->series_count++;
	s = mem_zalloc(sizeof(*s));
	s->labels = mem_strdup(labels);
	list_append(&f->series, &s->link);
	return s;
}

struct metric *metrics_series(struct metrics *m, enum metric_kind kind, const char *name,
			      const char *help, const char *labels)
{
	struct series *s;

	pthread_mutex_lock(&m->lock);
	s = series_of(m, family_of(m, kind, name, help), labels);
	pthread_mutex_unlock(&m->lock);
	return &s->metric;
}

struct metric_histogram *metrics_histogram(struct metrics *m, const char *name, const char *help)
{
	struct family *f;

	pthread_mutex_lock(&m->lock);
	f = family_of(m, METRIC_COUNTER, name, help);
	if (f->histogram == NULL)
		f->histogram = mem_zalloc(sizeof(*f->histogram));
	pthread_mutex_unlock(&m->lock);
	return f->histogram;
}

void metric_observe_us(struct metric_histogram *h, uint64_t microseconds)
{
	unsigned i = 0;

	while (i < BUCKETS && microseconds > bucket_us[i])
		i++;
	atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum_us, microseconds, memory_order_relaxed);
}

/* The two formats differ in where "_total" belongs: OpenMetrics names the family without it. */
void metrics_head(struct buf *out, bool open, enum metric_kind kind, const char *name,
		  const char *help)
{
	const char *suffix = kind == METRIC_COUNTER && !open ? "_total" : "";

	buf_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, suffix, help, name, suffix,
		   kind == METRIC_COUNTER ? "counter" : "gauge");
}

void metrics_sample(struct buf *out, bool open, enum metric_kind kind, const char *name,
		    const char *labels, double value)
{
	(void)open;
	buf_printf(out, "%s%s%s%s%s %.17g\n", name, kind == METRIC_COUNTER ? "_total" : "",
		   *labels != '\0' ? "{" : "", labels, *labels != '\0' ? "}" : "", value);
}

static void histogram_write(const struct family *f, struct buf *out)
{
	uint64_t count = 0;

	buf_printf(out, "# HELP %s %s\n# TYPE %s histogram\n", f->name, f->help, f->name);
	for (unsigned i = 0; i <= BUCKETS; i++) {
		count += f->histogram->buckets[i];
		if (i < BUCKETS)
			buf_printf(out, "%s_bucket{le=\"%g\"} %llu\n", f->name,
				   (double)bucket_us[i] / 1e6, (unsigned long long)count);
	}
	buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", f->name,
		   (unsigned long long)count, f->name, (double)f->histogram->sum_us / 1e6, f->name,
		   (unsigned long long)count);
}

static void family_write(const struct family *f, bool open, struct buf *out)
{
	if (f->histogram != NULL) {
		histogram_write(f, out);
		return;
	}
	metrics_head(out, open, f->kind, f->name, f->help);
	list_for_each (at, &f->series) {
		const struct series *s = list_entry(at, struct series, link);

		metrics_sample(out, open, f->kind, f->name, s->labels, (double)s->metric.value);
	}
}

void metrics_write(struct metrics *m, bool open, struct buf *out)
{
	pthread_mutex_lock(&m->lock);
	list_for_each (at, &m->families)
		family_write(list_entry(at, struct family, link), open, out);
	list_for_each (at, &m->collectors) {
		const struct collector *c = list_entry(at, struct collector, link);

		c->write(c->arg, open, out);
	}
	pthread_mutex_unlock(&m->lock);
}

static void one(struct buf *out, bool open, enum metric_kind kind, const char *name,
		const char *help, double value)
{
	metrics_head(out, open, kind, name, help);
	metrics_sample(out, open, kind, name, "", value);
}

static double resident_bytes(void)
{
	unsigned long size;
	unsigned long resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file == NULL)
		return 0;
	if (fscanf(file, "%lu %lu", &size, &resident) != 2)
		resident = 0;
	fclose(file);
	return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static double open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	if (dir == NULL)
		return 0;
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count - 3; /* ".", ".." and the directory itself */
}

void metrics_process(struct buf *out, bool open)
{
	struct mallinfo2 heap;
	struct rusage usage;
	struct rlimit limit;

	getrusage(RUSAGE_SELF, &usage);
	getrlimit(RLIMIT_NOFILE, &limit);
	one(out, open, METRIC_COUNTER, "process_cpu_seconds",
	    "User and system processor time in seconds.",
	    (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
		    (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	one(out, open, METRIC_GAUGE, "process_resident_memory_bytes", "Resident memory in bytes.",
	    resident_bytes());
	/* What resident memory has beyond it is what the allocator has not given back. */
	heap = mallinfo2();
	one(out, open, METRIC_GAUGE, "process_allocated_memory_bytes",
	    "Memory that is allocated and not freed.", (double)(heap.uordblks + heap.hblkhd));
	one(out, open, METRIC_GAUGE, "process_open_fds", "Open file descriptors.",
	    open_descriptors());
	one(out, open, METRIC_GAUGE, "process_max_fds", "Most file descriptors allowed.",
	    (double)limit.rlim_cur);
}

void metrics_end(struct buf *out, bool open)
{
	if (open)
		buf_puts(out, "# EOF\n");
}
