#include "cli/enroll.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/outfile.h"
#include "cli/run.h"
#include "cluster/apply.h"
#include "lib/mem.h"
#include "proto/json.h"

char *enroll_request_read(const char *path)
{
	char *data, *text;
	size_t len;

	if (outfile_read(path, ENROLL_CSR_MAX, &data, &len) != 0)
		return NULL;
	if (len == 0) {
		complain("%s is empty", path);
		free(data);
		return NULL;
	}
	if (strlen(data) == len && strstr(data, "-----BEGIN") != NULL)
		return data;
	text = mem_alloc(4 * ((len + 2) / 3) + 1);
	EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)data, (int)len);
	free(data);
	return text;
}

int enroll_call(struct invocation *inv, const char *site, const char *csr, Tb__Enrollment **ret,
		struct buf *raw)
{
	Tb__EnrollRequest request = TB__ENROLL_REQUEST__INIT;
	char *path = api_path("/v1/sites/", site, ":enroll");
	struct buf body = {0};
	int rv;

	request.csr = (char *)(csr != NULL ? csr : "");
	rv = api_send(inv,
		      &(struct api_request){.method = "POST",
					    .path = path,
					    .message = &request.base,
					    .retry_ms = API_RETRY_MS},
		      &body);
	free(path);
	if (rv == EXIT_OK)
		rv = api_decode(&tb__enrollment__descriptor, (const char *)body.data, body.len,
				ret);
	if (rv == EXIT_OK && strcmp((*ret)->site, site) != 0) {
		complain("the server enrolled another site than \"%s\"", site);
		tb__enrollment__free_unpacked(*ret, NULL);
		rv = EXIT_REFUSED;
	}
	if (rv == EXIT_OK && raw != NULL)
		buf_append(raw, body.data, body.len);
	if (body.len > 0)
		mem_wipe(body.data, body.len); /* it may hold a key */
	buf_free(&body);
	return rv;
}

static int files_write(const char *dir, const Tb__Enrollment *e)
{
	char *certificate = mem_printf("cluster-%s.crt", e->site);
	int rv = outfile_write(dir, "qnetd-cacert.crt", e->ca_certificate,
			       strlen(e->ca_certificate), 0644);

	if (rv == 0)
		rv = outfile_write(dir, certificate, e->certificate_der.data,
				   e->certificate_der.len, 0644);
	if (rv == 0 && e->pkcs12.len > 0) /* with the key inside */
		rv = outfile_write(dir, "qdevice-net-node.p12", e->pkcs12.data, e->pkcs12.len,
				   0600);
	if (rv == 0)
		rv = outfile_write(dir, "corosync.conf.fragment", e->corosync_conf,
				   strlen(e->corosync_conf), 0644);
	free(certificate);
	return rv == 0 ? EXIT_OK : EXIT_REFUSED;
}

static void next_steps_print(const char *dir, const Tb__Enrollment *e)
{
	bool with_key = e->pkcs12.len > 0;

	printf("site %s enrolled (certificate %s). Written to %s:\n", e->site, e->serial, dir);
	printf("  qnetd-cacert.crt        whom the nodes believe\n");
	printf("  cluster-%s.crt  the site's certificate\n", e->site);
	if (with_key)
		printf("  qdevice-net-node.p12    certificate and key, for every node (keep it "
		       "secret)\n");
	printf("  corosync.conf.fragment  goes into the quorum section of corosync.conf\n");
	printf("\nNext, for each node of the site (here NODE):\n");
	if (with_key) {
		printf("  scp %s/qnetd-cacert.crt %s/qdevice-net-node.p12 NODE:/root/\n", dir, dir);
		printf("  ssh NODE corosync-qdevice-net-certutil -i -c /root/qnetd-cacert.crt\n");
		printf("  ssh NODE corosync-qdevice-net-certutil -m -c "
		       "/root/qdevice-net-node.p12\n");
	} else {
		/* The key is in the node that made the request. */
		printf("  scp %s/cluster-%s.crt NODE:/root/\n", dir, e->site);
		printf("  ssh NODE corosync-qdevice-net-certutil -M -c /root/cluster-%s.crt   # "
		       "where "
		       "the request was made;\n"
		       "      # the others import the qdevice-net-node.p12 that this leaves "
		       "there\n",
		       e->site);
	}
	printf("\nThen put the fragment into /etc/corosync/corosync.conf of every node, raise "
	       "config_version, and:\n");
	printf("  ssh NODE corosync-cfgtool -R     # on one node\n");
	printf("  ssh NODE systemctl enable --now corosync-qdevice   # on every node\n");
	printf("\nSee it arrive: witnessctl site show %s\n", e->site);
}

int run_site_enroll(struct invocation *inv)
{
	const char *dir = option_given(inv, "out") ? option_text(inv, "out") : NULL;
	const char *csr_path = option_text(inv, "csr");
	char *csr = NULL, *own_dir = NULL;
	Tb__Enrollment *e;
	struct buf raw = {0};
	struct apply_problem problem;
	int rv;

	/* It becomes part of file names. */
	if (name_check(inv->args[0], "name", &problem) != 0) {
		complain("%s: %s", problem.field, problem.message);
		return EXIT_USAGE;
	}
	if (option_given(inv, "agent")) {
		if (csr_path != NULL || dir != NULL) {
			complain("--agent makes a token for the nodes, no files; leave --csr and "
				 "--out out");
			return EXIT_USAGE;
		}
		return token_make_agent(inv, inv->args[0]);
	}
	if (csr_path != NULL) {
		csr = enroll_request_read(csr_path);
		if (csr == NULL)
			return EXIT_USAGE;
	}
	rv = enroll_call(inv, inv->args[0], csr, &e, &raw);
	free(csr);
	if (rv == EXIT_OK) {
		if (api_output(inv) == OUTPUT_JSON) {
			api_print_json(&raw);
		} else {
			own_dir = mem_strdup(e->site);
			dir = dir != NULL ? dir : own_dir;
		}
		if (dir != NULL)
			rv = files_write(dir, e);
		if (rv == EXIT_OK && api_output(inv) != OUTPUT_JSON)
			next_steps_print(dir, e);
		tb__enrollment__free_unpacked(e, NULL);
	}
	if (raw.len > 0)
		mem_wipe(raw.data, raw.len);
	buf_free(&raw);
	free(own_dir);
	return rv;
}
