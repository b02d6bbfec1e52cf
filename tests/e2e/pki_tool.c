/* pki_tool: drives witnessd/pki.h from certutil.sh, in the working directory.
 *   pki_tool ca              ca.crt, ca.key, server.crt, server.key
 *   pki_tool sign REQ NAME   cluster-NAME.crt (DER) for a request of corosync-qdevice-net-certutil
 *   pki_tool pkcs12 NAME     NAME.p12, with a key of our own */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "witnessd/pki.h"

static void check(int rv, const char *what, const char *message)
{
	if (rv == 0)
		return;
	fprintf(stderr, "%s: %d: %s\n", what, rv, message ? message : "");
	exit(1);
}

static void file_write(const char *name, const void *data, size_t len)
{
	FILE *file = fopen(name, "wb");

	check(file == NULL || fwrite(data, 1, len, file) != len || fclose(file) != 0, name,
	      "write");
}

static void file_read(const char *name, struct buf *content)
{
	FILE *file = fopen(name, "rb");
	size_t len;

	check(file == NULL, name, "open");
	do {
		len = fread(buf_reserve(content, 4096), 1, 4096, file);
		content->len += len;
	} while (len > 0);
	fclose(file);
}

static struct pki_signed sign(const void *request, size_t len, const char *name, enum pki_use use)
{
	struct buf ca = {0};
	struct buf key = {0};
	struct pki_signed made;
	const char *message = NULL;

	file_read("ca.crt", &ca);
	file_read("ca.key", &key);
	check(pki_sign(&(struct pki_sign){.ca_cert = buf_string(&ca),
					  .ca_key = buf_string(&key),
					  .request = request,
					  .request_len = len,
					  .common_name = name,
					  .use = use,
					  .now_ms = clock_realtime_ms(),
					  .not_after_ms = clock_realtime_ms() + 90 * 86400000LL},
		       &made, &message),
	      "sign", message);
	buf_free(&ca);
	buf_free(&key);
	return made;
}

/* Signs a key of our own. */
static struct pki_signed sign_new(const char *name, enum pki_use use, char **ret_key)
{
	struct pki_signed made;
	char *request;

	check(pki_key_new(ret_key), "key", NULL);
	check(pki_request_new(name, *ret_key, &request), "request", NULL);
	made = sign(request, strlen(request), name, use);
	free(request);
	return made;
}

static void make_ca(void)
{
	struct pki_signed made;
	char *key;

	check(pki_key_new(&key), "key", NULL);
	check(pki_ca_new("QNet CA", key, clock_realtime_ms(), 36500, &made), "ca", NULL);
	file_write("ca.crt", made.pem, strlen(made.pem));
	file_write("ca.key", key, strlen(key));
	pki_signed_free(&made);
	free(key);
	made = sign_new("Qnetd Server", PKI_QNET_SERVER, &key);
	file_write("server.crt", made.pem, strlen(made.pem));
	file_write("server.key", key, strlen(key));
	pki_signed_free(&made);
	free(key);
}

static void sign_request(const char *request_file, const char *name)
{
	char *file = mem_printf("cluster-%s.crt", name);
	struct buf request = {0};
	struct buf der = {0};
	struct pki_signed made;

	file_read(request_file, &request);
	made = sign(request.data, request.len, name, PKI_QNET_CLIENT);
	check(pki_der(made.pem, &der), "der", NULL);
	file_write(file, der.data, der.len);
	pki_signed_free(&made);
	buf_free(&request);
	buf_free(&der);
	free(file);
}

static void make_pkcs12(const char *name)
{
	char *file = mem_printf("%s.p12", name);
	struct buf ca = {0};
	struct buf out = {0};
	const char *message = NULL;
	struct pki_signed made;
	char *key;

	made = sign_new(name, PKI_QNET_CLIENT, &key);
	file_read("ca.crt", &ca);
	check(pki_pkcs12(made.pem, key, buf_string(&ca), "Cluster Cert", &out, &message), "pkcs12",
	      message);
	file_write(file, out.data, out.len);
	pki_signed_free(&made);
	buf_free(&ca);
	buf_free(&out);
	free(key);
	free(file);
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "ca") == 0)
		make_ca();
	else if (argc == 4 && strcmp(argv[1], "sign") == 0)
		sign_request(argv[2], argv[3]);
	else if (argc == 3 && strcmp(argv[1], "pkcs12") == 0)
		make_pkcs12(argv[2]);
	else
		return 2;
	return 0;
}
