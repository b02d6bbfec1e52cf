/* CSV: the same records or the same error, however the bytes are split; nothing beyond the limits;
 * and what is read and written again is read the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/csv.h"
#include "lib/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static int record_note(void *arg, const struct csv_record *record)
{
	struct buf *out = arg;

	must(record->count >= 1 && record->count <= CSV_FIELDS_MAX);
	for (size_t i = 0; i < record->count; i++) {
		must(record->fields[i].len <= CSV_FIELD_MAX);
		must(strlen(record->fields[i].text) == record->fields[i].len);
		buf_puts(out, i > 0 ? "," : "");
		csv_write_field(out, record->fields[i].text);
	}
	buf_putc(out, '\n');
	return 0;
}

static int read_all(const uint8_t *data, size_t size, size_t piece, struct buf *out)
{
	struct csv csv;
	int rv = 0;

	csv_init(&csv, record_note, out);
	for (size_t i = 0; rv == 0 && i < size; i += piece)
		rv = csv_feed(&csv, data + i, size - i < piece ? size - i : piece);
	if (rv == 0)
		rv = csv_end(&csv);
	if (rv != 0) {
		must(csv.error[0] != '\0' && csv.error_line > 0 && csv.error_column > 0);
		buf_printf(out, "!%llu:%llu %s", (unsigned long long)csv.error_line,
			   (unsigned long long)csv.error_column, csv.error);
	}
	csv_free(&csv);
	return rv;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole = {0}, split = {0}, again = {0};
	int rv = read_all(data, size, size + 1, &whole);

	must(read_all(data, size, 1, &split) == rv);
	must(whole.len == split.len &&
	     (whole.len == 0 || memcmp(whole.data, split.data, whole.len) == 0));
	if (rv == 0) {
		/* Written fields are all quoted if empty, so they are all read back. */
		must(read_all(whole.data, whole.len, 64, &again) == 0);
		must(again.len == whole.len &&
		     (again.len == 0 || memcmp(whole.data, again.data, again.len) == 0));
	}
	buf_free(&whole);
	buf_free(&split);
	buf_free(&again);
	return 0;
}
