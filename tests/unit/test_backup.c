/* Backup files: what is written can be read, and nothing else can. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "cluster/backup.h"
#include "tests/unit/commands.h"

static void model_fill(struct model *m)
{
	model_open(m);
	assert_int_equal(model_init_cluster(m), 0);
	assert_int_equal(model_put_site(m, "a", TB__SITE_PUT__MODE__MODE_CREATE), 0);
	assert_int_equal(model_put_site(m, "b", TB__SITE_PUT__MODE__MODE_CREATE), 0);
}

static void backup_make(struct model *m, struct buf *out)
{
	Tb__BackupHead head = TB__BACKUP_HEAD__INIT;
	struct buf model = {0};

	head.taken_ms = 1234567;
	head.board = TEXT("b1");
	head.version = TEXT("9.9");
	head.sites = 99; /* what the model says counts */
	assert_int_equal(store_snapshot(m->s, &model), 0);
	assert_int_equal(backup_seal(&head, model.data, model.len, out), 0);
	buf_free(&model);
}

static int opens(const struct buf *file, size_t len, const char **ret_problem)
{
	Tb__BackupHead *head = NULL;
	const uint8_t *model;
	size_t model_len;
	int rv = backup_open(file->data, len, &head, &model, &model_len, ret_problem);

	tb__backup_head__free_unpacked(head, NULL);
	return rv;
}

static void test_there_and_back(void **state)
{
	struct model m;
	struct model again;
	struct buf file = {0};
	Tb__BackupHead *head;
	const uint8_t *model;
	const char *problem;
	char one[65];
	char two[65];
	size_t len;

	(void)state;
	model_fill(&m);
	backup_make(&m, &file);
	assert_int_equal(backup_open(file.data, file.len, &head, &model, &len, &problem), 0);
	assert_string_equal(head->cluster_name, "c1");
	assert_string_equal(head->cluster_id, "0123456789abcdef0123456789abcdef");
	assert_string_equal(head->board, "b1");
	assert_int_equal(head->taken_ms, 1234567);
	assert_int_equal(head->nodes, 1);
	assert_int_equal(head->sites, 2);
	assert_int_equal(head->applied_index, m.index);
	tb__backup_head__free_unpacked(head, NULL);
	model_open(&again);
	assert_int_equal(store_restore(again.s, model, len), 0);
	assert_int_equal(store_digest(m.s, one), 0);
	assert_int_equal(store_digest(again.s, two), 0);
	assert_string_equal(one, two);
	store_close(again.s);
	store_close(m.s);
	buf_free(&file);
}

/* Any bit, anywhere; any end. */
static void test_damage(void **state)
{
	struct model m;
	struct buf file = {0};
	const char *problem;

	(void)state;
	model_fill(&m);
	backup_make(&m, &file);
	for (size_t i = 0; i < file.len; i++) {
		file.data[i] ^= (uint8_t)(1u << i % 8);
		problem = NULL;
		assert_int_equal(opens(&file, file.len, &problem), -EBADMSG);
		assert_non_null(problem);
		file.data[i] ^= (uint8_t)(1u << i % 8);
	}
	for (size_t len = 0; len < file.len; len++)
		assert_int_equal(opens(&file, len, &problem), -EBADMSG);
	buf_putc(&file, 'x');
	assert_int_equal(opens(&file, file.len, &problem), -EBADMSG);
	assert_int_equal(opens(&file, file.len - 1, &problem), 0);
	store_close(m.s);
	buf_free(&file);
}

static void test_foreign(void **state)
{
	static const char text[] = "name,label.region\nstore-1,emea\n";
	struct buf file = {0};
	const char *problem = "";

	(void)state;
	buf_puts(&file, text);
	assert_int_equal(opens(&file, file.len, &problem), -EBADMSG);
	assert_string_equal(problem, "this is not a backup of a Tiebreak cluster");
	buf_free(&file);
	/* A model without a cluster makes no backup. */
	struct model m;
	struct buf model = {0};
	Tb__BackupHead head = TB__BACKUP_HEAD__INIT;

	model_open(&m);
	assert_int_equal(store_snapshot(m.s, &model), 0);
	assert_int_equal(backup_seal(&head, model.data, model.len, &file), -EBADMSG);
	store_close(m.s);
	buf_free(&model);
	buf_free(&file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_foreign),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
