/* certificate.c: certificates that the cluster has signed: of boards, API clients and sites. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/grid.h"
#include "cli/human.h"
#include "cli/outfile.h"
#include "cli/run.h"
#include "cli/trust.h"
#include "lib/clock.h"
#include "lib/mem.h"
#include "proto/json.h"

enum { CSR_MAX = 65536 };

static int created_write(const char *dir, const char *name, const Tb__CertificateCreated *created,
			 const struct buf *key)
{
	char *file = mem_printf("%s.key", name);
	int rv = 0;

	if (key->len > 0)
		rv = outfile_write(dir, file, key->data, key->len, 0600);
	free(file);
	file = mem_printf("%s.crt", name);
	if (rv == 0)
		rv = outfile_write(dir, file, created->pem, strlen(created->pem), 0644);
	free(file);
	if (rv == 0)
		rv = outfile_write(dir, "ca.crt", created->ca_certificate,
				   strlen(created->ca_certificate), 0644);
	return rv == 0 ? EXIT_OK : EXIT_REFUSED;
}

static void created_print(const char *dir, const char *name, const Tb__CertificateCreated *created,
			  bool with_key)
{
	char expires[64];

	if (created->certificate != NULL) {
		human_relative(created->certificate->not_after_ms, clock_realtime_ms(), expires);
		printf("certificate %s (%s), expires %s\n", created->certificate->serial, name,
		       expires);
	}
	printf("written to %s: %s%s%s%s.crt, ca.crt\n", dir, with_key ? name : "",
	       with_key ? ".key (keep it secret)" : "", with_key ? ", " : "", name);
	if (with_key)
		printf("\nUse it as:\n  witnessctl --server https://BOARD:%d --cert %s/%s.crt "
		       "--key "
		       "%s/%s.key --ca %s/ca.crt status\n",
		       CLIENT_PORT, dir, name, dir, name, dir);
}

int run_cert_create(struct invocation *inv)
{
	Tb__CertificateRequest request = TB__CERTIFICATE_REQUEST__INIT;
	const char *dir = option_given(inv, "out") ? option_text(inv, "out") : ".";
	const char *csr_path = option_text(inv, "csr");
	Tb__CertificateCreated *created;
	struct json_error error;
	struct buf body = {0}, key = {0}, csr = {0};
	char *csr_text = NULL;
	size_t csr_len = 0;
	int role, rv;

	if (option_text(inv, "role") == NULL) {
		complain("--role is missing: viewer, operator or admin");
		return EXIT_USAGE;
	}
	if (strchr(inv->args[0], '/') != NULL || inv->args[0][0] == '.') {
		complain("\"%s\" cannot be the name of a file", inv->args[0]);
		return EXIT_USAGE;
	}
	if (json_enum_parse(&tb__role__descriptor, option_text(inv, "role"), &role, &error) != 0)
		abort(); /* the table allows only words of this enum */
	if (csr_path != NULL && outfile_read(csr_path, CSR_MAX, &csr_text, &csr_len) != 0)
		return EXIT_USAGE;
	if (csr_text == NULL)
		request_new(inv->args[0], &key, &csr);
	request.name = inv->args[0];
	request.role = (Tb__Role)role;
	request.csr = csr_text != NULL ? csr_text : (char *)buf_string(&csr);
	request.ttl_ms = option_duration_ms(inv, "ttl", 0);
	rv = api_send(inv,
		      &(struct api_request){.method = "POST",
					    .path = "/v1/certificates",
					    .message = &request.base,
					    .retry_ms = API_RETRY_MS},
		      &body);
	if (rv == EXIT_OK)
		rv = api_decode(&tb__certificate_created__descriptor, (const char *)body.data,
				body.len, &created);
	if (rv == EXIT_OK) {
		rv = created_write(dir, inv->args[0], created, &key);
		if (rv == EXIT_OK && api_output(inv) == OUTPUT_JSON)
			api_print_json(&body);
		else if (rv == EXIT_OK)
			created_print(dir, inv->args[0], created, key.len > 0);
		tb__certificate_created__free_unpacked(created, NULL);
	}
	if (key.len > 0)
		mem_wipe(key.data, key.len);
	buf_free(&key);
	buf_free(&csr);
	buf_free(&body);
	free(csr_text);
	return rv;
}

struct rows {
	struct grid *grid; /* NULL: serials only */
	uint32_t site_ca; /* generation of the one that signs for sites */
};

static const char *state_of(const struct rows *rows, const Tb__Certificate *c, int64_t now)
{
	if (c->revoked)
		return "revoked";
	if (c->not_after_ms <= now)
		return "expired";
	return strcmp(c->kind, "site") == 0 && c->ca_generation < rows->site_ca ? "old CA" : "good";
}

static int row_take(void *arg, const char *json, size_t len)
{
	const struct rows *rows = arg;
	int64_t now = clock_realtime_ms();
	char role[64], expires[64], issued[32];
	Tb__Certificate *c;
	int rv = api_decode(&tb__certificate__descriptor, json, len, &c);

	if (rv != EXIT_OK)
		return rv;
	human_relative(c->not_after_ms, now, expires);
	human_time(c->issued_ms, issued);
	if (rows->grid == NULL)
		puts(c->serial);
	else
		grid_row(rows->grid,
			 (const char *[]){
				 c->serial, c->kind, c->subject,
				 c->role != TB__ROLE__ROLE_NONE
					 ? json_enum_word(&tb__role__descriptor, (int)c->role, role)
					 : "",
				 state_of(rows, c, now), expires, issued, c->issued_by});
	tb__certificate__free_unpacked(c, NULL);
	return EXIT_OK;
}

int run_cert_list(struct invocation *inv)
{
	static const char *const headers[] = {"SERIAL",	 "KIND",   "SUBJECT",	"ROLE", "STATE",
					      "EXPIRES", "ISSUED", "ISSUED BY", NULL};
	struct rows rows = {0};
	Tb__Cluster *cluster;
	int rv;

	if (api_output(inv) == OUTPUT_JSON)
		return api_list_json(inv, "/v1/certificates");
	if (api_output(inv) == OUTPUT_NAME)
		return api_list(inv, "/v1/certificates", row_take, &rows);
	rv = api_call(inv, &(struct api_request){.path = "/v1/cluster"}, &tb__cluster__descriptor,
		      &cluster);
	if (rv != EXIT_OK)
		return rv;
	rows.site_ca = cluster->site_ca_generation;
	tb__cluster__free_unpacked(cluster, NULL);
	rows.grid = grid_new(headers);
	rv = api_list(inv, "/v1/certificates", row_take, &rows);
	grid_print(rows.grid, rv == EXIT_OK ? "No certificates." : NULL);
	return rv;
}

int run_cert_revoke(struct invocation *inv)
{
	int rv = EXIT_OK;

	for (size_t i = 0; rv == EXIT_OK && i < inv->arg_count; i++) {
		char *path;
		struct buf body = {0};

		rv = api_confirm(inv, "Revoke certificate %s? Whoever uses it is shut out at once.",
				 inv->args[i]);
		if (rv != EXIT_OK)
			break;
		path = api_path("/v1/certificates/", inv->args[i], "");
		rv = api_send(inv,
			      &(struct api_request){
				      .method = "DELETE", .path = path, .retry_ms = API_RETRY_MS},
			      &body);
		if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON)
			printf("certificate %s revoked\n", inv->args[i]);
		buf_free(&body);
		free(path);
	}
	return rv;
}
