/* renew.c: the client certificate of --cert, renewed: on demand, and by itself when it is used at
 * two thirds of its life. The key stays what it is, so that one file changes, in one step. */
#include "cli/renew.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/human.h"
#include "cli/outfile.h"
#include "cli/run.h"
#include "cli/trust.h"
#include "lib/renewal.h"
#include "lib/clock.h"
#include "lib/mem.h"

enum { PEM_MAX = 65536 };

static int renew_request(const char *key_path, struct buf *ret_csr)
{
	size_t len;
	char *key;
	int rv;

	if (outfile_read(key_path, PEM_MAX, &key, &len) != 0)
		return EXIT_USAGE;
	rv = request_of_key(key, ret_csr);
	mem_wipe(key, len);
	free(key);
	if (rv == 0)
		return EXIT_OK;
	complain("%s holds no usable key (PEM)", key_path);
	return EXIT_USAGE;
}

static int renew(struct invocation *inv, const char *cert_path, const char *key_path,
		 Tb__CertificateCreated **ret, struct buf *body)
{
	Tb__CertificateRenewRequest request = TB__CERTIFICATE_RENEW_REQUEST__INIT;
	struct buf csr = {0};
	int rv = renew_request(key_path, &csr);

	if (rv == EXIT_OK) {
		request.csr = (char *)buf_string(&csr);
		rv = api_send(inv,
			      &(struct api_request){.method = "POST",
						    .path = "/v1/certificates:renew",
						    .message = &request.base,
						    .retry_ms = API_RETRY_MS},
			      body);
	}
	buf_free(&csr);
	if (rv == EXIT_OK)
		rv = api_decode(&tb__certificate_created__descriptor, (const char *)body->data,
				body->len, ret);
	if (rv != EXIT_OK)
		return rv;
	if (outfile_replace(cert_path, (*ret)->pem, strlen((*ret)->pem), 0644) == 0)
		return EXIT_OK;
	tb__certificate_created__free_unpacked(*ret, NULL);
	*ret = NULL;
	return EXIT_REFUSED;
}

int run_cert_renew(struct invocation *inv)
{
	const char *cert = option_text(inv, "cert");
	const char *key = option_text(inv, "key");
	Tb__CertificateCreated *created;
	struct buf body = {0};
	char expires[64];
	int rv;

	if (cert == NULL || key == NULL || !option_given(inv, "server")) {
		complain("a certificate renews itself: give --server, --cert, --key and --ca");
		return EXIT_USAGE;
	}
	rv = renew(inv, cert, key, &created, &body);
	if (rv == EXIT_OK) {
		human_relative(created->certificate->not_after_ms, clock_realtime_ms(), expires);
		if (api_output(inv) == OUTPUT_JSON)
			api_print_json(&body);
		else
			printf("%s is renewed, serial %s, expires %s\n", cert,
			       created->certificate->serial, expires);
		tb__certificate_created__free_unpacked(created, NULL);
	}
	buf_free(&body);
	return rv;
}

/* One that somebody else has made, within the hour, begins when it was made. */
static int64_t issued_ms(int64_t from_ms, int64_t now_ms)
{
	int64_t issued = from_ms + RENEWAL_BACKDATE_MS;

	return issued > now_ms && from_ms <= now_ms ? from_ms : issued;
}

void renew_if_due(struct invocation *inv)
{
	const char *cert = option_text(inv, "cert");
	const char *key = option_text(inv, "key");
	Tb__CertificateCreated *created;
	struct buf body = {0};
	int64_t now_ms = clock_realtime_ms();
	int64_t from_ms, until_ms;
	size_t len;
	char *pem;

	if (cert == NULL || key == NULL || inv->client == NULL || !option_given(inv, "server") ||
	    inv->command->run == run_cert_renew || access(cert, W_OK) != 0 ||
	    outfile_read(cert, PEM_MAX, &pem, &len) != 0)
		return;
	if (certificate_life(pem, &from_ms, &until_ms) == 0 &&
	    renewal_is_due(issued_ms(from_ms, now_ms), until_ms, now_ms) &&
	    renew(inv, cert, key, &created, &body) == EXIT_OK)
		tb__certificate_created__free_unpacked(created, NULL);
	buf_free(&body);
	free(pem);
}
