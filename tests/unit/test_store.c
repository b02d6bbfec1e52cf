/* The model in SQLite: rows, lists, filters, snapshots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cluster/limits.h"
#include "cluster/store.h"
#include "lib/rng.h"
#include "tests/unit/commands.h"

static int setup(void **state)
{
	struct store *s;

	if (store_open(":memory:", &s) != 0)
		return -1;
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	store_close(*state);
	return 0;
}

/* --- rows ------------------------------------------------------------------------------------ */

struct label {
	const char *key;
	const char *value;
};

/* Labels end with a NULL key. */
static void site_put(struct store *s, uint64_t id, const char *name, const struct label *labels)
{
	Tb__Site row = TB__SITE__INIT;
	Tb__Site__LabelsEntry entries[4];
	Tb__Site__LabelsEntry *list[4];

	row.id = id;
	row.name = TEXT(name);
	row.labels = list;
	for (; labels != NULL && labels->key != NULL; labels++) {
		Tb__Site__LabelsEntry *entry = &entries[row.n_labels];

		tb__site__labels_entry__init(entry);
		entry->key = TEXT(labels->key);
		entry->value = TEXT(labels->value);
		list[row.n_labels++] = entry;
	}
	assert_int_equal(store_site_put(s, &row), 0);
}

static void test_site_rows(void **state)
{
	struct store *s = *state;
	Tb__SiteStatus status = TB__SITE_STATUS__INIT;
	Tb__Site row = TB__SITE__INIT;
	Tb__Site *got;
	uint64_t count;

	row.id = 7;
	row.name = TEXT("london-1");
	row.revision = 12;
	row.status = &status;
	assert_int_equal(store_site_find(s, "london-1", &got), -ENOENT);
	assert_int_equal(store_site_put(s, &row), 0);
	assert_int_equal(store_site_find(s, "london-1", &got), 0);
	assert_int_equal(got->id, 7);
	assert_int_equal(got->revision, 12);
	assert_null(got->status); /* soft state is not stored */
	tb__site__free_unpacked(got, NULL);

	row.name = TEXT("london-2"); /* a put with the same id renames */
	assert_int_equal(store_site_put(s, &row), 0);
	assert_int_equal(store_site_find(s, "london-1", &got), -ENOENT);
	row.id = 8; /* and with another id it must not steal the name */
	assert_int_equal(store_site_put(s, &row), -EEXIST);
	assert_int_equal(store_count(s, "site", &count), 0);
	assert_int_equal(count, 1);
}

static void test_site_delete_takes_grant_and_labels(void **state)
{
	struct store *s = *state;
	struct store_site_filter filter = {.label_selector = "region=emea"};
	Tb__Grant grant = TB__GRANT__INIT;
	Tb__Grant *got;
	uint64_t count;

	site_put(s, 1, "a", (struct label[]){{"region", "emea"}, {0}});
	grant.site_id = 1;
	grant.epoch = 4;
	assert_int_equal(store_grant_put(s, &grant), 0);
	assert_int_equal(store_grant_get(s, 1, &got), 0);
	assert_int_equal(got->epoch, 4);
	tb__grant__free_unpacked(got, NULL);
	assert_int_equal(store_site_delete(s, 1), 0);
	assert_int_equal(store_grant_get(s, 1, &got), -ENOENT);
	site_put(s, 1, "b", NULL);
	assert_int_equal(store_sites_count(s, &filter, &count), 0);
	assert_int_equal(count, 0);
}

static void image_put(struct store *s, char digit, const char *name, int expected)
{
	Tb__ImageStatus status = TB__IMAGE_STATUS__INIT;
	Tb__Image row = TB__IMAGE__INIT;
	char sum[65];

	memset(sum, digit, 64);
	sum[64] = '\0';
	row.sha256 = sum;
	row.name = TEXT(name);
	row.status = &status;
	assert_int_equal(store_image_put(s, &row), expected);
}

static int names_visit_image(void *arg, const Tb__Image *row)
{
	buf_printf(arg, "%s ", row->name);
	return 0;
}

static void test_image_rows(void **state)
{
	static const char b[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
	struct store *s = *state;
	struct buf names = {0};
	Tb__Image *got;
	uint64_t count;

	assert_int_equal(store_image_get(s, b, &got), -ENOENT);
	image_put(s, 'b', "a-linux", 0);
	image_put(s, 'a', "z-initrd", 0);
	image_put(s, 'c', "a-linux", -EEXIST); /* a name is one image's */
	image_put(s, 'a', "m-initrd", 0); /* renamed */
	assert_int_equal(store_image_get(s, b, &got), 0);
	assert_string_equal(got->name, "a-linux");
	assert_null(got->status); /* soft state is not stored */
	tb__image__free_unpacked(got, NULL);
	assert_int_equal(store_image_find(s, "z-initrd", &got), -ENOENT);
	assert_int_equal(store_image_find(s, "m-initrd", &got), 0);
	tb__image__free_unpacked(got, NULL);
	assert_int_equal(store_images(s, names_visit_image, &names), 0);
	assert_string_equal(buf_string(&names), "a-linux m-initrd ");
	assert_int_equal(store_image_delete(s, b), 0);
	assert_int_equal(store_count(s, "image", &count), 0);
	assert_int_equal(count, 1);
	buf_free(&names);
}

static void vm_put(struct store *s, uint64_t id, const char *name, int expected)
{
	Tb__VmPlacement placement = TB__VM_PLACEMENT__INIT;
	Tb__VmConfig config = TB__VM_CONFIG__INIT;
	Tb__VmView view = TB__VM_VIEW__INIT;
	Tb__Vm row = TB__VM__INIT;

	placement.incarnation = id + 10;
	row.id = id;
	row.name = TEXT(name);
	row.config = &config;
	row.placement = &placement;
	row.status = &view;
	assert_int_equal(store_vm_put(s, &row), expected);
}

static int names_visit_vm(void *arg, const Tb__Vm *row)
{
	buf_printf(arg, "%s ", row->name);
	return 0;
}

static void test_vm_rows(void **state)
{
	struct store *s = *state;
	struct buf snapshot = {0};
	struct buf names = {0};
	char before[65];
	char after[65];
	Tb__Vm *got;
	uint64_t count;

	assert_int_equal(store_vm_find(s, "web", &got), -ENOENT);
	vm_put(s, 7, "web", 0);
	vm_put(s, 3, "zebra", 0);
	vm_put(s, 8, "web", -EEXIST);
	assert_int_equal(store_vm_get(s, 7, &got), 0);
	assert_int_equal(got->placement->incarnation, 17);
	assert_null(got->status);
	tb__vm__free_unpacked(got, NULL);
	assert_int_equal(store_vms(s, names_visit_vm, &names), 0);
	assert_string_equal(buf_string(&names), "web zebra ");
	/* Through a snapshot and back, with images beside them. */
	image_put(s, 'b', "linux", 0);
	image_put(s, 'a', "zz", 0);
	assert_int_equal(store_digest(s, before), 0);
	assert_int_equal(store_snapshot(s, &snapshot), 0);
	assert_int_equal(store_vm_delete(s, 7), 0);
	assert_int_equal(store_count(s, "vm", &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(store_restore(s, snapshot.data, snapshot.len), 0);
	assert_int_equal(store_digest(s, after), 0);
	assert_string_equal(before, after);
	assert_int_equal(store_vm_find(s, "web", &got), 0);
	tb__vm__free_unpacked(got, NULL);
	assert_int_equal(store_clear(s), 0);
	assert_int_equal(store_count(s, "vm", &count), 0);
	assert_int_equal(count, 0);
	assert_int_equal(store_count(s, "image", &count), 0);
	assert_int_equal(count, 0);
	buf_free(&names);
	buf_free(&snapshot);
}

/* Whoever reads a VM relies on its parts. */
static void test_vm_without_parts(void **state)
{
	static const uint8_t bare[] = {0x08, 1, 0x12, 1, 'a'};
	struct store *s = *state;

	assert_int_equal(store_begin(s), 0);
	assert_int_equal(store_record_put(s, TB__SNAPSHOT__RECORD__ROW_VM, bare, sizeof(bare)),
			 -EBADMSG);
	assert_int_equal(store_rollback(s), 0);
}

static void test_counters(void **state)
{
	struct store *s = *state;
	uint64_t value;

	assert_int_equal(store_counter_get(s, "node", &value), 0);
	assert_int_equal(value, 0);
	assert_int_equal(store_counter_next(s, "node", &value), 0);
	assert_int_equal(value, 1);
	assert_int_equal(store_counter_raise(s, "node", 9), 0);
	assert_int_equal(store_counter_raise(s, "node", 4), 0); /* never back */
	assert_int_equal(store_counter_next(s, "node", &value), 0);
	assert_int_equal(value, 10);
}

static void test_mark(void **state)
{
	struct store *s = *state;
	Tb__Site *got;
	uint64_t applied;

	assert_int_equal(store_begin(s), 0);
	site_put(s, 1, "kept", NULL);
	assert_int_equal(store_mark(s), 0);
	site_put(s, 2, "undone", NULL);
	assert_int_equal(store_undo(s), 0);
	assert_int_equal(store_mark(s), 0);
	site_put(s, 3, "kept-too", NULL);
	assert_int_equal(store_keep(s), 0);
	assert_int_equal(store_commit(s, 41), 0);
	assert_int_equal(store_site_find(s, "undone", &got), -ENOENT);
	assert_int_equal(store_site_find(s, "kept-too", &got), 0);
	tb__site__free_unpacked(got, NULL);
	assert_int_equal(store_begin(s), 0);
	site_put(s, 4, "rolled-back", NULL);
	assert_int_equal(store_rollback(s), 0);
	assert_int_equal(store_site_find(s, "rolled-back", &got), -ENOENT);
	assert_int_equal(store_applied(s, &applied), 0);
	assert_int_equal(applied, 41);
}

/* --- the ring of events, remembered requests -------------------------------------------------- */

struct seqs {
	size_t count;
	uint64_t first;
	uint64_t last;
};

static int seqs_visit(void *arg, const Tb__Event *row)
{
	struct seqs *seqs = arg;

	if (seqs->count++ == 0)
		seqs->first = row->seq;
	seqs->last = row->seq;
	return 0;
}

static void test_event_ring(void **state)
{
	struct store *s = *state;
	struct seqs seqs = {0};
	uint64_t first;
	uint64_t last;

	assert_int_equal(store_event_range(s, &first, &last), 0);
	assert_int_equal(first, 0);
	assert_int_equal(last, 0);
	assert_int_equal(store_begin(s), 0);
	for (uint64_t i = 1; i <= LIMIT_EVENTS + 5; i++) {
		Tb__Event event = TB__EVENT__INIT;

		assert_int_equal(store_event_add(s, &event), 0);
		assert_int_equal(event.seq, i);
	}
	assert_int_equal(store_commit(s, 1), 0);
	assert_int_equal(store_event_range(s, &first, &last), 0);
	assert_int_equal(first, 6);
	assert_int_equal(last, LIMIT_EVENTS + 5);
	assert_int_equal(store_events(s, 10, 20, seqs_visit, &seqs), 0);
	assert_int_equal(seqs.count, 20);
	assert_int_equal(seqs.first, 11);
	assert_int_equal(seqs.last, 30);
	seqs.count = 0;
	assert_int_equal(store_events_newest(s, 3, seqs_visit, &seqs), 0);
	assert_int_equal(seqs.first, LIMIT_EVENTS + 5);
	assert_int_equal(seqs.last, LIMIT_EVENTS + 3);
	seqs.count = 0;
	assert_int_equal(store_events(s, UINT64_MAX, 0, seqs_visit, &seqs), 0);
	assert_int_equal(seqs.count, 0);
}

static void test_request_ring(void **state)
{
	struct store *s = *state;
	Tb__CommandResult result = TB__COMMAND_RESULT__INIT;
	Tb__CommandResult *got;
	uint64_t count;

	assert_int_equal(store_begin(s), 0);
	for (uint64_t i = 1; i <= LIMIT_REQUESTS + 2; i++) {
		result.index = i;
		assert_int_equal(store_request_put(s, (const uint8_t *)&i, sizeof(i), &result), 0);
	}
	assert_int_equal(store_commit(s, 1), 0);
	assert_int_equal(store_count(s, "request", &count), 0);
	assert_int_equal(count, LIMIT_REQUESTS);
	for (uint64_t i = 2; i <= 3; i++) {
		int rv = store_request_get(s, (const uint8_t *)&i, sizeof(i), &got);

		assert_int_equal(rv, i == 2 ? -ENOENT : 0);
		if (rv == 0) {
			assert_int_equal(got->index, i);
			tb__command_result__free_unpacked(got, NULL);
		}
	}
}

/* --- lists ----------------------------------------------------------------------------------- */

static int names_visit(void *arg, const Tb__Site *row, const Tb__Grant *grant)
{
	struct buf *names = arg;

	buf_printf(names, "%s%s", names->len > 0 ? " " : "", row->name);
	if (grant != NULL)
		buf_printf(names, "=%u", (unsigned)grant->epoch);
	return 0;
}

static void test_filters(void **state)
{
	static const struct {
		struct store_site_filter filter;
		const char *names;
		uint64_t count;
	} cases[] = {
		{{0}, "a b=5 c d e.1", 5},
		{{.limit = 2}, "a b=5", 5},
		{{.after_name = "b", .limit = 2}, "c d", 3},
		{{.after_name = "e.1"}, "", 0},
		{{.name_prefix = "e"}, "e.1", 1},
		{{.name_prefix = ""}, "a b=5 c d e.1", 5},
		{{.name_prefix = "\xff"}, "", 0},
		{{.name_prefix = "%"}, "", 0},
		{{.label_selector = ""}, "a b=5 c d e.1", 5},
		{{.label_selector = "region=emea"}, "a b=5", 2},
		{{.label_selector = "region=emea,tier!=lab"}, "b=5", 1},
		{{.label_selector = " region = emea , tier != lab "}, "b=5", 1},
		{{.label_selector = "tier!=lab"}, "b=5 c d e.1", 4},
		{{.label_selector = "region"}, "a b=5 c", 3},
		{{.label_selector = "!region"}, "d e.1", 2},
		{{.label_selector = "owner="}, "d", 1},
		{{.label_selector = "region,!tier", .limit = 1}, "b=5", 2},
		{{.label_selector = "region='emea' OR 1"}, "", 0},
	};
	struct store *s = *state;
	Tb__Grant grant = TB__GRANT__INIT;

	site_put(s, 5, "a", (struct label[]){{"region", "emea"}, {"tier", "lab"}, {0}});
	site_put(s, 4, "b", (struct label[]){{"region", "emea"}, {0}});
	site_put(s, 3, "c", (struct label[]){{"region", "apac"}, {0}});
	site_put(s, 2, "d", (struct label[]){{"owner", ""}, {0}});
	site_put(s, 1, "e.1", NULL);
	grant.site_id = 4;
	grant.epoch = 5;
	assert_int_equal(store_grant_put(s, &grant), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct buf names = {0};
		uint64_t count;

		assert_int_equal(store_sites(s, &cases[i].filter, names_visit, &names, NULL), 0);
		assert_string_equal(buf_string(&names), cases[i].names);
		assert_int_equal(store_sites_count(s, &cases[i].filter, &count), 0);
		assert_int_equal(count, cases[i].count);
		buf_free(&names);
	}
}

static void test_bad_selectors(void **state)
{
	static const char *const cases[] = {
		"=emea",
		"region=emea,",
		",",
		"!",
		"!=x",
		"a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"a=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	};
	struct store *s = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct store_site_filter filter = {.label_selector = cases[i]};
		const char *problem = NULL;
		uint64_t count;

		assert_int_equal(store_sites(s, &filter, names_visit, NULL, &problem), -EINVAL);
		assert_non_null(problem);
		assert_int_equal(store_sites_count(s, &filter, &count), -EINVAL);
	}
}

static int stop_visit(void *arg, const Tb__Node *row)
{
	(void)row;
	++*(int *)arg;
	return 1;
}

struct nested {
	struct store *s;
	int inner;
	int outer;
};

static int count_visit(void *arg, const Tb__Node *row)
{
	(void)row;
	++*(int *)arg;
	return 0;
}

/* A visitor that lists the same table must not disturb the list that called it. */
static int nested_visit(void *arg, const Tb__Node *row)
{
	struct nested *n = arg;

	(void)row;
	n->outer++;
	assert_int_equal(store_nodes(n->s, count_visit, &n->inner), 0);
	return 0;
}

static void test_visits(void **state)
{
	struct nested nested = {.s = *state};
	int seen = 0;

	for (uint64_t id = 1; id <= 3; id++) {
		Tb__Node row = TB__NODE__INIT;
		char name[8];

		snprintf(name, sizeof(name), "b%d", (int)id);
		row.id = id;
		row.name = name;
		assert_int_equal(store_node_put(*state, &row), 0);
	}
	assert_int_equal(store_nodes(*state, stop_visit, &seen), 0);
	assert_int_equal(seen, 1);
	assert_int_equal(store_nodes(*state, nested_visit, &nested), 0);
	assert_int_equal(nested.outer, 3);
	assert_int_equal(nested.inner, 9);
}

/* --- snapshots ------------------------------------------------------------------------------- */

/* A random text of up to 20 bytes; with `id`, one that no other id gives. */
static char *random_text(struct prng *p, uint64_t id)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789.-_";
	char text[24];
	size_t len = prng_below(p, 20);

	for (size_t i = 0; i < len; i++)
		text[i] = letters[prng_below(p, sizeof(letters) - 1)];
	text[len] = '\0';
	return mem_printf("%s%u", text, (unsigned)id);
}

static void random_site(struct prng *p, struct store *s, uint64_t id)
{
	char *name = random_text(p, id);
	struct label labels[4] = {0};
	size_t count = prng_below(p, 4);

	for (size_t i = 0; i < count; i++) {
		labels[i].key = random_text(p, i);
		labels[i].value = random_text(p, 0);
	}
	site_put(s, id, name, labels);
	for (size_t i = 0; i < count; i++) {
		free(TEXT(labels[i].key));
		free(TEXT(labels[i].value));
	}
	free(name);
	if (prng_chance(p, 50)) {
		Tb__Grant grant = TB__GRANT__INIT;

		grant.site_id = id;
		grant.epoch = prng_u64(p);
		assert_int_equal(store_grant_put(s, &grant), 0);
	}
}

static void random_others(struct prng *p, struct store *s, uint64_t i)
{
	Tb__Token token = TB__TOKEN__INIT;
	Tb__Certificate certificate = TB__CERTIFICATE__INIT;
	Tb__Event event = TB__EVENT__INIT;
	Tb__CommandResult result = TB__COMMAND_RESULT__INIT;
	uint64_t id = prng_u64(p);
	char *text = random_text(p, i);

	token.id = certificate.serial = event.message = result.message = text;
	token.created_ms = (int64_t)prng_u64(p);
	certificate.not_after_ms = (int64_t)prng_u64(p);
	result.index = prng_u64(p);
	assert_int_equal(store_token_put(s, &token), 0);
	assert_int_equal(store_certificate_put(s, &certificate), 0);
	assert_int_equal(store_event_add(s, &event), 0);
	assert_int_equal(store_request_put(s, (uint8_t *)&id, sizeof(id), &result), 0);
	assert_int_equal(store_counter_raise(s, text, prng_u64(p) >> 1), 0);
	free(text);
}

static struct store *random_model(uint64_t seed)
{
	struct prng p = {seed};
	struct store *s;
	uint64_t sites = prng_below(&p, 50);
	uint64_t others = prng_below(&p, 20);

	assert_int_equal(store_open(":memory:", &s), 0);
	assert_int_equal(store_begin(s), 0);
	if (prng_chance(&p, 80)) {
		Tb__Cluster cluster = TB__CLUSTER__INIT;
		Tb__Secrets secrets = TB__SECRETS__INIT;
		Tb__Node node = TB__NODE__INIT;

		secrets.ca_key = TEXT("secret");
		node.id = prng_u64(&p) >> 1;
		node.name = TEXT("b1");
		assert_int_equal(store_cluster_put(s, &cluster), 0); /* an empty blob */
		assert_int_equal(store_secrets_put(s, &secrets), 0);
		assert_int_equal(store_node_put(s, &node), 0);
	}
	for (uint64_t i = 0; i < sites; i++)
		random_site(&p, s, i);
	for (uint64_t i = 0; i < others; i++)
		random_others(&p, s, i);
	assert_int_equal(store_commit(s, prng_u64(&p) >> 1), 0);
	return s;
}

static void test_snapshot_round_trip(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct store *one = random_model(seed);
		struct store *two = random_model(seed + 1000); /* is replaced */
		struct buf before = {0};
		struct buf after = {0};
		char digests[2][65];
		uint64_t applied[2];
		Tb__Snapshot *message;

		print_message("seed %u\n", (unsigned)seed);
		assert_int_equal(store_snapshot(one, &before), 0);
		assert_int_equal(store_restore(two, before.data, before.len), 0);
		assert_int_equal(store_snapshot(two, &after), 0);
		assert_int_equal(before.len, after.len);
		assert_memory_equal(before.data, after.data, after.len);
		assert_int_equal(store_digest(one, digests[0]), 0);
		assert_int_equal(store_digest(two, digests[1]), 0);
		assert_string_equal(digests[0], digests[1]);
		assert_int_equal(store_applied(one, &applied[0]), 0);
		assert_int_equal(store_applied(two, &applied[1]), 0);
		assert_int_equal(applied[0], applied[1]);

		/* What is written by hand is what protobuf reads and would write. */
		message = tb__snapshot__unpack(NULL, after.len - 52, after.data + 52);
		assert_non_null(message);
		assert_int_equal(message->version, 1);
		assert_int_equal(message->applied_index, applied[0]);
		buf_clear(&before);
		before.len = tb__snapshot__pack(message, buf_reserve(&before, after.len));
		assert_int_equal(before.len, after.len - 52);
		assert_memory_equal(before.data, after.data + 52, before.len);
		tb__snapshot__free_unpacked(message, NULL);
		buf_free(&before);
		buf_free(&after);
		store_close(one);
		store_close(two);
	}
}

/* Labels must be found again after a restore, and rings must go on where they were. */
static void test_restored_model_works(void **state)
{
	struct store *s = *state;
	struct store *other;
	struct store_site_filter filter = {.label_selector = "region=emea"};
	Tb__Event event = TB__EVENT__INIT;
	struct buf snapshot = {0};
	uint64_t count;

	site_put(s, 1, "a", (struct label[]){{"region", "emea"}, {0}});
	for (int i = 0; i < 3; i++)
		assert_int_equal(store_event_add(s, &event), 0);
	assert_int_equal(store_snapshot(s, &snapshot), 0);
	assert_int_equal(store_open(":memory:", &other), 0);
	assert_int_equal(store_restore(other, snapshot.data, snapshot.len), 0);
	assert_int_equal(store_sites_count(other, &filter, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(store_event_add(other, &event), 0);
	assert_int_equal(event.seq, 4);
	buf_free(&snapshot);
	store_close(other);
}

static void test_damaged_snapshots(void **state)
{
	struct store *s = random_model(99);
	struct store *target = *state;
	struct prng p = {7};
	struct buf good = {0};
	char before[65];
	char after[65];

	site_put(target, 1, "stays", NULL);
	assert_int_equal(store_digest(target, before), 0);
	assert_int_equal(store_snapshot(s, &good), 0);
	for (int i = 0; i < 300; i++) {
		uint8_t *bytes = mem_dup(good.data, good.len);
		size_t len = good.len;

		if (i % 3 == 0)
			len = prng_below(&p, len);
		else
			bytes[prng_below(&p, i % 3 == 1 ? 52 : len)] ^=
				(uint8_t)(1 << prng_below(&p, 8));
		assert_int_equal(store_restore(target, bytes, len), -EBADMSG);
		assert_true(store_error(target)[0] != '\0');
		free(bytes);
	}
	assert_int_equal(store_digest(target, after), 0);
	assert_string_equal(before, after);
	buf_free(&good);
	store_close(s);
}

/* A snapshot with a head that fits, whatever the message says. */
static int restore_message(struct store *s, const char *message, size_t len)
{
	struct buf framed = {0};
	uint8_t sum[SHA256_DIGEST_LENGTH];
	int rv;

	SHA256((const uint8_t *)message, len, sum);
	buf_append(&framed, "TBSNAPSH", 8);
	buf_put_u32(&framed, 1);
	buf_put_u64(&framed, len);
	buf_append(&framed, sum, sizeof(sum));
	buf_append(&framed, message, len);
	rv = store_restore(s, framed.data, framed.len);
	buf_free(&framed);
	return rv;
}

/* Whole, but not what store_snapshot writes: taking it would make boards differ. */
static void test_disordered_snapshots(void **state)
{
#define COUNTER_A "\x1a\x07\x52\x05\x0a\x01\x61\x10\x01"
#define COUNTER_B "\x1a\x07\x52\x05\x0a\x01\x62\x10\x01"
	static const struct {
		const char *message;
		size_t len;
		int rv;
	} cases[] = {
#define CASE(text, rv) {text, sizeof(text) - 1, rv}
		CASE("\x08\x01" COUNTER_A COUNTER_B, 0),
		CASE("\x08\x01\x10\x07", 0),
		CASE("\x08\x01" COUNTER_B COUNTER_A, -EBADMSG), /* order */
		CASE("\x08\x01" COUNTER_A COUNTER_A, -EBADMSG), /* twice */
		CASE(COUNTER_A, -EBADMSG), /* no version */
		CASE("\x08\x02" COUNTER_A, -EBADMSG), /* another version */
		CASE("\x08\x01\x1a\x02\x5a\x00", -EBADMSG), /* unknown kind of row */
		CASE("\x08\x01\x1a\x00", -EBADMSG), /* no row */
		CASE("\x08\x01\x20\x01", -EBADMSG), /* unknown field */
		CASE("\x08\x01\x1a\x7f", -EBADMSG), /* beyond the end */
		CASE("\x08\x81\x00", -EBADMSG), /* a varint longer than needed */
		CASE("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", -EBADMSG),
#undef CASE
	};
	struct store *s = *state;
	uint64_t value;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(restore_message(s, cases[i].message, cases[i].len), cases[i].rv);
	assert_int_equal(store_applied(s, &value), 0);
	assert_int_equal(value, 7); /* of the last good one */
}

/* --- files ----------------------------------------------------------------------------------- */

static void test_file(void **state)
{
	char dir[] = "/tmp/test_store.XXXXXX";
	char *path;
	struct store *s;
	struct store *reader;
	struct stat st;
	uint64_t count;

	(void)state;
	assert_non_null(mkdtemp(dir));
	path = mem_printf("%s/model.db", dir);
	assert_int_equal(store_open(path, &s), 0);
	site_put(s, 1, "a", NULL);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600); /* keys are in it */
	assert_int_equal(store_open_reader(path, &reader), 0);
	assert_int_equal(store_count(reader, "site", &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(store_site_delete(reader, 1), -EIO);
	store_close(reader);
	store_close(s);
	assert_int_equal(store_open(path, &s), 0); /* always fresh */
	assert_int_equal(store_count(s, "site", &count), 0);
	assert_int_equal(count, 0);
	store_close(s);
	unlink(path);
	assert_int_equal(rmdir(dir), 0); /* nothing else was left */
	assert_int_equal(store_open("/nonexistent/model.db", &s), -ENOENT);
	free(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_site_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_site_delete_takes_grant_and_labels, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_image_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vm_rows, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vm_without_parts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_counters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mark, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_request_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_filters, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_selectors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_visits, setup, teardown),
		cmocka_unit_test(test_snapshot_round_trip),
		cmocka_unit_test_setup_teardown(test_restored_model_works, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_snapshots, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disordered_snapshots, setup, teardown),
		cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
