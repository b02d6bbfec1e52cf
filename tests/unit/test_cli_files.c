/* CSV, JSON objects, and files of sites: what is accepted, and where what is not is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/csv.h"
#include "cli/objects.h"
#include "cli/site_field.h"
#include "cli/site_file.h"
#include "cluster/limits.h"
#include "lib/buf.h"
#include "lib/mem.h"

/* Records as text: fields in [], quoted ones in {}, records end with ;. */
static int csv_note(void *arg, const struct csv_record *record)
{
	struct buf *out = arg;

	for (size_t i = 0; i < record->count; i++) {
		const struct csv_field *f = &record->fields[i];

		assert_int_equal(strlen(f->text), f->len);
		buf_printf(out, f->quoted ? "{%s}" : "[%s]", f->text);
	}
	buf_putc(out, ';');
	return 0;
}

/* In pieces of `piece` bytes. The error is "line:column: text". */
static void csv_read(const char *text, size_t len, size_t piece, struct buf *out)
{
	struct csv csv;
	int rv = 0;

	csv_init(&csv, csv_note, out);
	for (size_t i = 0; rv == 0 && i < len; i += piece)
		rv = csv_feed(&csv, text + i, len - i < piece ? len - i : piece);
	if (rv == 0)
		rv = csv_end(&csv);
	if (rv != 0)
		buf_printf(out, "!%d:%d: %s", (int)csv.error_line, (int)csv.error_column,
			   csv.error);
	csv_free(&csv);
}

static void test_csv(void **state)
{
	static const struct {
		const char *text;
		const char *result; /* up to here it must be the same */
	} cases[] = {
		{"", ""},
		{"\n\n\r\n", ""},
		{"a,b\nc,d\n", "[a][b];[c][d];"},
		{"a,b\r\nc,d", "[a][b];[c][d];"},
		{"a,\n,\n", "[a][];[][];"},
		{"a,", "[a][];"},
		{"\"\"\n", "{};"},
		{"\"a,b\",\"c\"\"d\"\n", "{a,b}{c\"d};"},
		{"\"a\nb\",c\nd,\"e", "{a\nb}[c];!3:3: a quote that is never closed"},
		{"\xef\xbb\xbf"
		 "a\n",
		 "[a];"},
		{"\xef\xbb", "!1:1: text that is not UTF-8"},
		{"\xef\xbb"
		 "a\n",
		 "!1:1: text that is not UTF-8"},
		{"a\n\xc3\xa4,x\"y\n", "[a];!2:4: a quote inside a field"},
		{"\"a\"b\n", "!1:4: text behind a closing quote"},
		{"a\rb\n", "!1:3: a carriage return"},
		{"a\r", "!1:3: a carriage return"},
		{"a,\xff\n", "!1:3: text that is not UTF-8"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (size_t piece = 1; piece <= 3; piece++) {
			struct buf out = {0};

			csv_read(cases[i].text, strlen(cases[i].text), piece, &out);
			buf_string(&out);
			if (strncmp((char *)out.data, cases[i].result, strlen(cases[i].result)) !=
				    0 ||
			    (strchr(cases[i].result, '!') == NULL &&
			     out.len != strlen(cases[i].result)))
				fail_msg("case %zu, pieces of %zu: %s", i, piece, buf_string(&out));
			buf_free(&out);
		}
	}
}

static void test_csv_limits(void **state)
{
	static char text[4 * CSV_RECORD_MAX];
	struct buf out = {0};

	(void)state;
	memset(text, 'x', sizeof(text));
	csv_read(text, CSV_FIELD_MAX, 4096, &out);
	assert_null(strchr(buf_string(&out), '!'));
	buf_clear(&out);
	csv_read(text, CSV_FIELD_MAX + 1, 4096, &out);
	assert_string_equal(buf_string(&out), "!1:1: a field of more than 4096 bytes");
	buf_clear(&out);
	memset(text, ',', sizeof(text));
	csv_read(text, CSV_FIELDS_MAX - 1, 4096, &out);
	assert_null(strchr(buf_string(&out), '!'));
	buf_clear(&out);
	csv_read(text, CSV_FIELDS_MAX, 4096, &out);
	assert_string_equal(buf_string(&out), "!1:257: more than 256 fields in one line");
	buf_clear(&out);
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = i % 4000 == 3999 ? ',' : 'x';
	csv_read(text, sizeof(text), 4096, &out);
	assert_non_null(strstr(buf_string(&out), "a line of more than 65536 bytes"));
	buf_clear(&out);
	csv_read("a\0b", 3, 4096, &out);
	assert_non_null(strstr(buf_string(&out), "!1:2: a zero byte"));
	buf_free(&out);
}

static void test_csv_write(void **state)
{
	static const char *const texts[] = {"", "a", "a,b", "\"", "a\nb", "x\r"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct buf text = {0}, out = {0};

		csv_write_field(&text, texts[i]);
		buf_puts(&text, ",z\n");
		csv_read((char *)text.data, text.len, 100, &out);
		assert_non_null(strstr(buf_string(&out), "[z];"));
		assert_memory_equal(out.data + 1, texts[i], strlen(texts[i]));
		assert_int_equal(out.len, strlen(texts[i]) + 6);
		buf_free(&text);
		buf_free(&out);
	}
}

static int object_note(void *arg, const struct object *object)
{
	buf_printf(arg, "%d:%d%s;", (int)object->line, (int)object->column, object->text);
	return 0;
}

static void test_objects(void **state)
{
	static const struct {
		const char *text, *result, *next_page;
	} cases[] = {
		{"", "", ""},
		{" \n", "", ""},
		{"{\"sites\":[]}", "", ""},
		{"[]", "", ""},
		{"{}", "1:1{};", ""},
		{"[{\"a\":1}, {\"b\":[{}]}]", "1:2{\"a\":1};1:11{\"b\":[{}]};", ""},
		{"{\"a\":1}\n{\"b\":\"}\\\"{\"}\n", "1:1{\"a\":1};2:1{\"b\":\"}\\\"{\"};", ""},
		{"{ \"items\" : [ {} ] , \"nextPage\" : \"x-1\", \"total\": 12 }\n", "1:15{};",
		 "x-1"},
		{"{\"total\":3,\"items\":[{}]}", "1:21{};", ""},
		{"\xef\xbb\xbf{}", "1:1{};", ""},
		/* A key with an escape is no wrapper's. */
		{"{\"\\u0061\":1}", "1:1{\"\\u0061\":1};", ""},
		{"[{},]", "1:2{};!1:5: expected '{', found ']'", ""},
		{"[{}", "1:2{};!1:4: the text ends in the middle", ""},
		{"[1]", "!1:2: expected '{', found '1'", ""},
		{"x", "!1:1: expected '{' or '[', found 'x'", ""},
		{"{}x", "1:1{};!1:3: expected '{', found 'x'", ""},
		{"{}[", "1:1{};!1:3: expected '{', found '['", ""},
		{"[] []", "!1:4: text behind the end", ""},
		{"{\"sites\":[{}],\"more\":1}", "1:11{};!1:20: \"more\" has no place beside", ""},
		{"{\"sites\":{}}", "!1:10: expected '[', found '{'", ""},
		{"{\"a\":\"", "!1:7: the text ends in the middle", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct objects o;
		struct buf out = {0};
		int rv = 0;

		objects_init(&o, object_note, &out);
		for (const char *c = cases[i].text; rv == 0 && *c != '\0'; c++)
			rv = objects_feed(&o, c, 1);
		if (rv == 0)
			rv = objects_end(&o);
		if (rv != 0)
			buf_printf(&out, "!%d:%d: %s", (int)o.error_line, (int)o.error_column,
				   o.error);
		buf_string(&out);
		if (strncmp((char *)out.data, cases[i].result, strlen(cases[i].result)) != 0)
			fail_msg("case %zu: %s", i, (char *)out.data);
		assert_string_equal(o.next_page, cases[i].next_page);
		buf_free(&out);
		objects_free(&o);
	}
}

static int file_read(const char *name, const char *text, size_t len, struct site_file *file)
{
	FILE *in = fmemopen((void *)text, len, "r");
	int rv;

	assert_non_null(in);
	rv = site_file_read(in, name, SITE_FILE_AUTO, file);
	fclose(in);
	return rv;
}

static void test_file_errors(void **state)
{
	static const struct {
		const char *name, *text, *error;
	} cases[] = {
		{"s.csv", "name,policy.algorithm\na,lms\nb,ffsplt\n",
		 "s.csv:3:3: policy.algorithm: \"ffsplt\" is not an algorithm; did you mean "
		 "\"ffsplit\"?"},
		{"s.csv", "name\na\nb\na\n",
		 "s.csv:4:1: name: \"a\" is already in line 2; a name may stand once"},
		{"s.csv", "name,algoritm\n",
		 "s.csv:1:6: unknown column \"algoritm\"; did you mean \"algorithm\"?"},
		{"s.csv", "name,tls,policy.tls\n",
		 "s.csv:1:10: column \"policy.tls\" stands twice"},
		{"s.csv", "tls\n",
		 "s.csv:1:1: the first line names the columns, and \"name\" is not"},
		{"s.csv", "name;tls\n", "s.csv:1:1: columns are separated by commas"},
		{"s.csv", "name,tls\na\n",
		 "s.csv:2:1: 1 field, but the first line names 2 columns"},
		{"s.csv", "name\n", "s.csv: no site in it"},
		{"s.csv", "", "s.csv: no site in it"},
		{"s.csv", "name\na b\n", "s.csv:2:1: name: "},
		{"s.csv", "tls,name\n,\"a\nb\"\n", "s.csv:2:2: name: "},
		{"s.csv", "name,tie-breaker\na,highst\n",
		 "s.csv:2:3: policy.tieBreaker: \"highst\" is not a tie-breaker; did you mean"},
		{"s.csv", "name,heartbeat-min\na,soon\n",
		 "s.csv:2:3: policy.heartbeatMinMs: \"soon\" is"},
		{"s.csv", "name,heartbeat-min\na,1ms\n", "s.csv:2:3: policy.heartbeatMinMs: "},
		{"s.csv", "name,label.a b\na,x\n", "s.csv:1:6: labels: "},
		{"s.json", "{\"sites\":[{\"name\":\"a\"},\n {\"name\":\"b\",\"polcy\":{}}]}",
		 "s.json:2:2: polcy: "},
		{"s.json", "[{\"name\":\"a\"},\n {\"name\":\"b\",\"x\" 1}]", "s.json:2:18: "},
		{"s.json", "{\"name\":\"a\"}\n{\"name\":\"a\"}",
		 "s.json:2:1: name: \"a\" is already"},
		{"s.json", "{\"name\":\"a\",\"policy\":{\"algorithm\":\"ffsplt\"}}",
		 "s.json:1:1: policy.algorithm: \"ffsplt\""},
		{"s.json", "{\"name\":5}", "s.json:1:1: name: "},
		{"s.json", "name\n", "s.json:1:1: expected '{' or '[', found 'n'"},
		{"s.json", "{}", "s.json:1:1: name: "},
		{"stdin",
		 "\x7f"
		 "ELF\x02\x01\n",
		 "stdin:1:1: unknown column \"?ELF??\""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct site_file file;
		int rv = file_read(cases[i].name, cases[i].text, strlen(cases[i].text) + (i == 8),
				   &file);

		if (i == 8) { /* fmemopen takes no empty text; a zero byte is as good */
			assert_non_null(strstr(file.error, "a zero byte"));
			rv = -EINVAL;
		} else if (strncmp(file.error, cases[i].error, strlen(cases[i].error)) != 0) {
			fail_msg("case %zu: %s", i, file.error);
		}
		assert_int_equal(rv, -EINVAL);
		site_file_free(&file);
	}
}

static void test_file_good(void **state)
{
	static const char csv[] =
		"\xef\xbb\xbfname,label.region,tie-breaker,heartbeat-max,label.note,tls\r\n"
		"a,emea,7,8s,\"\",required\r\n"
		"b,,highest,9000,,\r\n";
	static const char json[] =
		"{\"items\":[{\"id\":\"7\",\"name\":\"a\",\"labels\":{\"x\":\"y\"},"
		"\"revision\":\"3\",\"status\":{\"state\":\"whole\"}}],\"total\":1}";
	struct site_file file;
	const Tb__Site *a;

	(void)state;
	assert_int_equal(file_read("x", csv, strlen(csv), &file), 0);
	assert_int_equal(file.count, 2);
	a = file.entries[0]->site;
	assert_string_equal(a->name, "a");
	assert_string_equal(site_label(a, "region"), "emea");
	assert_string_equal(site_label(a, "note"), "");
	assert_int_equal(a->policy->tie_breaker, TB__TIE_BREAKER__TIE_BREAKER_NODE);
	assert_int_equal(a->policy->tie_breaker_node, 7);
	assert_int_equal(a->policy->heartbeat_max_ms, 8000);
	assert_int_equal(a->policy->tls, TB__TLS__TLS_REQUIRED);
	a = file.entries[1]->site;
	assert_null(site_label(a, "region"));
	assert_null(site_label(a, "note"));
	assert_int_equal(a->policy->tie_breaker, TB__TIE_BREAKER__TIE_BREAKER_HIGHEST);
	assert_int_equal(a->policy->heartbeat_max_ms, 9000);
	site_file_free(&file);

	assert_int_equal(file_read("x", json, strlen(json), &file), 0);
	assert_int_equal(file.count, 1);
	a = file.entries[0]->site;
	assert_int_equal(a->id, 0);
	assert_int_equal(a->revision, 0);
	assert_null(a->status);
	assert_string_equal(site_label(a, "x"), "y");
	site_file_free(&file);
}

static void test_file_too_many(void **state)
{
	struct buf text = {0};
	struct site_file file;

	(void)state;
	buf_puts(&text, "name\n");
	for (int i = 0; i <= LIMIT_SITES; i++)
		buf_printf(&text, "site-%d\n", i);
	assert_int_equal(file_read("s.csv", (char *)text.data, text.len, &file), -EINVAL);
	assert_string_equal(file.error,
			    "s.csv:20002:1: more than 20000 sites; a cluster holds no more");
	site_file_free(&file);
	buf_free(&text);
}

/* What site_field_get gives, site_field_set reads as the same. */
static void test_field_round_trip(void **state)
{
	static const struct {
		const char *name, *value, *again;
	} cases[] = {
		{"algorithm", "2nodelms", "2nodelms"},
		{"algorithm", "any", ""},
		{"tie-breaker", "lowest", "lowest"},
		{"tie-breaker", "4294967295", "4294967295"},
		{"tls", "on", "on"},
		{"keep-active-partition", "off", "off"},
		{"handover", "fast", "fast"},
		{"handover", "safe", ""},
		{"heartbeat-min", "1500", "1500ms"},
		{"heartbeat-min", "2m", "2m"},
		{"labels.a.b/c", "x=y", "x=y"},
		{"policy.heartbeatMaxMs", "8000", "8s"},
		{"lease", "preferred:2", "preferred:2"},
		{"lease", "generation", "generation"},
		{"lease", "any", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char message[SITE_FIELD_MESSAGE], text[256];
		struct site_field field;
		Tb__Site *site = site_new();

		assert_int_equal(site_field_find(cases[i].name, &field, message), 0);
		assert_int_equal(site_field_set(site, &field, cases[i].value, message), 0);
		assert_true(site_field_get(site, &field, text));
		assert_string_equal(text, cases[i].again);
		tb__site__free_unpacked(site, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_csv),	      cmocka_unit_test(test_csv_limits),
		cmocka_unit_test(test_csv_write),     cmocka_unit_test(test_objects),
		cmocka_unit_test(test_file_errors),   cmocka_unit_test(test_file_good),
		cmocka_unit_test(test_file_too_many), cmocka_unit_test(test_field_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
