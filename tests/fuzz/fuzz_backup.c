/* Backup files of any bytes: as they are, and with a checksum that fits them, so that the fuzzer
 * gets past it. What opens has a head and a model within the file. */
#include <errno.h>
#include <openssl/sha.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "cluster/backup.h"
#include "lib/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort();
}

static void backup(const uint8_t *data, size_t size)
{
	Tb__BackupHead *head = NULL;
	const uint8_t *model = NULL;
	const char *problem = NULL;
	size_t len = 0;
	int rv = backup_open(data, size, &head, &model, &len, &problem);

	must(rv == 0 || (rv == -EBADMSG && problem != NULL && head == NULL));
	if (rv == 0) {
		must(head != NULL && model >= data && model + len <= data + size);
		tb__backup_head__free_unpacked(head, NULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf sealed = {0};
	uint8_t sum[SHA256_DIGEST_LENGTH];

	backup(data, size);
	SHA256(data, size, sum);
	buf_append(&sealed, data, size);
	buf_append(&sealed, sum, sizeof(sum));
	backup(sealed.data, sealed.len);
	buf_free(&sealed);
	return 0;
}
