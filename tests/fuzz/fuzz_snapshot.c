/* Snapshots of any bytes: as they are, and behind a head that fits them, so that the fuzzer gets
 * past the checksum. What is refused changes nothing; what is taken comes out again as it was. */
#include <errno.h>
#include <openssl/sha.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/store.h"
#include "lib/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static void restore(struct store *s, const uint8_t *data, size_t size)
{
	struct buf again = {0};
	char before[65];
	char after[65];
	int rv;

	must(store_digest(s, before) == 0);
	rv = store_restore(s, data, size);
	must(rv == 0 || rv == -EBADMSG);
	if (rv == 0) {
		must(store_snapshot(s, &again) == 0);
		must(again.len == size && memcmp(again.data, data, size) == 0);
	} else {
		must(store_digest(s, after) == 0);
		must(strcmp(before, after) == 0);
	}
	buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct store *s;
	struct buf framed = {0};
	uint8_t sum[SHA256_DIGEST_LENGTH];

	if (s == NULL)
		must(store_open(":memory:", &s) == 0);
	restore(s, data, size);
	SHA256(data, size, sum);
	buf_append(&framed, "TBSNAPSH", 8);
	buf_put_u32(&framed, 1);
	buf_put_u64(&framed, size);
	buf_append(&framed, sum, sizeof(sum));
	buf_append(&framed, data, size);
	restore(s, framed.data, framed.len);
	buf_free(&framed);
	return 0;
}
