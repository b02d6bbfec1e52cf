/* Readers on handles and threads of their own, while the writer applies entries and now and then
 * replaces the whole model from a snapshot: a reader sees whole transactions only.
 *
 * Every entry puts all sites, so each committed model has one revision, equal to its applied
 * index. A model with two of them, or with sites missing, is one that was never committed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/commands.h"

enum { SITES = 40, READERS = 2, ENOUGH = 30, ENTRIES_MAX = 50000, RESTORE_EVERY = 25 };

struct reader {
	pthread_t thread;
	const char *path;
	atomic_bool *stop;
	atomic_uint views; /* different commits seen */
	const char *problem; /* NULL: every view was whole */
};

struct view {
	uint64_t revision;
	unsigned sites;
	bool mixed;
};

static int view_visit(void *arg, const Tb__Site *row, const Tb__Grant *grant)
{
	struct view *view = arg;

	(void)grant;
	view->mixed = view->mixed || (view->sites > 0 && row->revision != view->revision);
	view->revision = row->revision;
	view->sites++;
	return 0;
}

/* One view over several reads. */
static const char *view_check(struct store *s, uint64_t *last)
{
	struct store_site_filter all = {0};
	struct view view = {0};
	uint64_t applied;
	uint64_t labelled;

	if (store_begin(s) != 0 || store_applied(s, &applied) != 0 ||
	    store_sites(s, &all, view_visit, &view, NULL) != 0)
		return store_error(s);
	all.label_selector = "kind=store";
	if (store_sites_count(s, &all, &labelled) != 0 || store_rollback(s) != 0)
		return store_error(s);
	if (view.sites != SITES || labelled != SITES)
		return "sites are missing";
	if (view.mixed)
		return "rows of two commits";
	if (view.revision != applied)
		return "the applied index is not that of the rows";
	if (applied < *last)
		return "the model went back";
	*last = applied;
	return NULL;
}

static void *reader_run(void *arg)
{
	struct reader *r = arg;
	struct store *s;
	uint64_t last = 0;

	if (store_open_reader(r->path, &s) != 0) {
		r->problem = "no reader";
		return NULL;
	}
	while (!atomic_load(r->stop) && r->problem == NULL) {
		uint64_t before = last;

		r->problem = view_check(s, &last);
		if (last != before)
			atomic_fetch_add(&r->views, 1);
	}
	if (r->problem != NULL)
		fprintf(stderr, "reader: %s\n", r->problem);
	store_close(s);
	return NULL;
}

static void put_all(struct model *m)
{
	static Tb__Site site[SITES];
	static char names[SITES][8];
	Tb__Site__LabelsEntry kind = TB__SITE__LABELS_ENTRY__INIT;
	Tb__Site__LabelsEntry turn = TB__SITE__LABELS_ENTRY__INIT;
	Tb__Site__LabelsEntry *labels[] = {&kind, &turn};
	Tb__Site *sites[SITES];
	Tb__SitePut op = TB__SITE_PUT__INIT;
	struct command c;
	char text[24];

	snprintf(text, sizeof(text), "%u", (unsigned)m->index);
	kind.key = TEXT("kind");
	kind.value = TEXT("store");
	turn.key = TEXT("turn");
	turn.value = text;
	for (int i = 0; i < SITES; i++) {
		tb__site__init(&site[i]);
		snprintf(names[i], sizeof(names[i]), "s%d", i);
		site[i].name = names[i];
		site[i].labels = labels;
		site[i].n_labels = 2;
		sites[i] = &site[i];
	}
	op.sites = sites;
	op.n_sites = SITES;
	op.mode = TB__SITE_PUT__MODE__MODE_UPSERT;
	command_start(m, &c);
	c.c.op_case = TB__COMMAND__OP_SITE_PUT;
	c.c.site_put = &op;
	assert_int_equal(command_refusal(m, &c), TB__REFUSAL__REFUSAL_NONE);
}

static void restore_itself(struct model *m)
{
	struct buf snapshot = {0};

	assert_int_equal(store_snapshot(m->s, &snapshot), 0);
	assert_int_equal(store_restore(m->s, snapshot.data, snapshot.len), 0);
	buf_free(&snapshot);
}

static bool seen_enough(const struct reader *readers)
{
	for (int i = 0; i < READERS; i++) {
		if (atomic_load(&readers[i].views) < ENOUGH)
			return false;
	}
	return true;
}

static void test_whole_transactions(void **state)
{
	char dir[] = "/tmp/test_readers.XXXXXX";
	struct reader readers[READERS] = {0};
	struct model m = {0};
	atomic_bool stop = false;
	char *path;
	int entries = 0;

	(void)state;
	assert_non_null(mkdtemp(dir));
	path = mem_printf("%s/model.db", dir);
	assert_int_equal(store_open(path, &m.s), 0);
	assert_int_equal(model_init_cluster(&m), 0);
	put_all(&m);
	for (int i = 0; i < READERS; i++) {
		readers[i].path = path;
		readers[i].stop = &stop;
		assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_run, &readers[i]),
				 0);
	}
	for (; entries < ENTRIES_MAX && !seen_enough(readers); entries++) {
		put_all(&m);
		if (entries % RESTORE_EVERY == 0)
			restore_itself(&m);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i].thread, NULL);
	for (int i = 0; i < READERS; i++) {
		assert_null(readers[i].problem);
		assert_true(readers[i].views >= ENOUGH);
	}
	print_message("%d entries while %d readers saw %u and %u of them\n", entries, READERS,
		      readers[0].views, readers[1].views);
	store_close(m.s);
	unlink(path);
	rmdir(dir);
	free(path);
}

/* Without a view of its own each read stands alone, but is whole too. */
static void test_reader_sees_commits_only(void **state)
{
	char dir[] = "/tmp/test_readers.XXXXXX";
	struct model m = {0};
	struct store *reader;
	uint64_t count;
	uint64_t applied;
	char *path;

	(void)state;
	assert_non_null(mkdtemp(dir));
	path = mem_printf("%s/model.db", dir);
	assert_int_equal(store_open(path, &m.s), 0);
	assert_int_equal(model_init_cluster(&m), 0);
	assert_int_equal(store_open_reader(path, &reader), 0);
	put_all(&m);
	assert_int_equal(store_begin(reader), 0);
	assert_int_equal(store_count(reader, "site", &count), 0);
	assert_int_equal(model_delete_site(&m, "s0"), 0);
	assert_int_equal(store_count(reader, "site", &count), 0);
	assert_int_equal(count, SITES); /* its view stays as it was */
	assert_int_equal(store_applied(reader, &applied), 0);
	assert_int_equal(applied, m.index - 1);
	assert_int_equal(store_rollback(reader), 0);
	assert_int_equal(store_count(reader, "site", &count), 0);
	assert_int_equal(count, SITES - 1);
	assert_int_equal(store_applied(reader, &applied), 0);
	assert_int_equal(applied, m.index);
	store_close(reader);
	store_close(m.s);
	unlink(path);
	rmdir(dir);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reader_sees_commits_only),
		cmocka_unit_test(test_whole_transactions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
