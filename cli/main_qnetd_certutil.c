/* corosync-qnetd-certutil: the commands that corosync-qdevice-net-certutil -Q and `pvecm qdevice
 * setup` run on a witness, done by the board's API. There is no NSS database: the cluster keeps
 * the QNet CA. The files appear where these callers fetch them. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/enroll.h"
#include "cli/outfile.h"
#include "cluster/apply.h"
#include "lib/mem.h"

#define DB_DIR "/etc/corosync/qnetd/nssdb"
#define CA_FILE "qnetd-cacert.crt"

/* As the original's. */
enum { CODE_OK = 0, CODE_FAILED = 1, CODE_ARGUMENT = 2 };

struct arguments {
	int operation; /* 'i', 's' or 0 */
	const char *certificate;
	const char *cluster;
	mode_t group_write; /* bit for new files */
};

static const struct command self = {.path = "corosync-qnetd-certutil", .args = "", .local = true};

static void usage(const char *program)
{
	printf("%s: [-i|-s] [-c certificate] [-G] [-n cluster_name]\n\n"
	       " -i                  Initialize QNetd CA and generate server certificate\n"
	       " -s                  Sign cluster certificate (needs cluster certificate)\n"
	       " -c certificate      CRQ certificate file name\n"
	       " -G                  Do not set group write bit for new files\n"
	       " -n cluster_name     Name of cluster (for -s operation)\n",
	       program);
}

/* For tests: elsewhere than in /etc. */
static const char *db_dir(void)
{
	const char *dir = getenv("TIEBREAK_QNETD_NSSDB");

	return dir != NULL && dir[0] != '\0' ? dir : DB_DIR;
}

static void directories_make(const char *dir, mode_t mode)
{
	char *path = mem_strdup(dir);

	/* What fails here is told when the file in it cannot be written. */
	for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(path, 0755);
		*slash = '/';
	}
	(void)mkdir(path, mode);
	free(path);
}

static int file_write(const struct arguments *a, const char *name, const void *data, size_t len)
{
	directories_make(db_dir(), 0750 | a->group_write);
	return outfile_write(db_dir(), name, data, len, 0644 | a->group_write) == 0 ? CODE_OK
										    : CODE_FAILED;
}

static int ca_export(struct invocation *inv, const struct arguments *a)
{
	struct buf pem = {0};
	int rv = api_send(inv, &(struct api_request){.path = "/v1/qnet-ca"}, &pem);

	rv = rv == EXIT_OK ? file_write(a, CA_FILE, pem.data, pem.len) : CODE_FAILED;
	if (rv == CODE_OK)
		printf("QNetd CA certificate is exported as %s/%s\n", db_dir(), CA_FILE);
	buf_free(&pem);
	return rv;
}

/* The callers know of no step that makes a site, so signing makes it. */
static int site_ensure(struct invocation *inv, const char *name)
{
	char *path = api_path("/v1/sites/", name, "");
	struct client_request request = {.method = "GET", .path = path, .retry_ms = API_RETRY_MS};
	struct client_response response = {0};
	struct client *client = api_client(inv);
	Tb__Site site = TB__SITE__INIT;
	struct buf body = {0};
	int rv = client != NULL ? client_send(client, &request, &response) : -EINVAL;

	free(path);
	if (client == NULL) {
		rv = EXIT_USAGE;
	} else if (rv != 0) {
		rv = api_failure(client, rv);
	} else if (response.status == 404) {
		site.name = (char *)name;
		rv = api_send(inv,
			      &(struct api_request){.method = "POST",
						    .path = "/v1/sites",
						    .message = &site.base,
						    .retry_ms = API_RETRY_MS},
			      &body);
		if (rv == EXIT_OK)
			printf("Site %s created\n", name);
	} else if (response.status != 200) {
		rv = api_refusal(&response, NULL);
	}
	buf_free(&body);
	client_response_clear(&response);
	return rv;
}

static int certificate_sign(struct invocation *inv, const struct arguments *a)
{
	struct apply_problem problem;
	Tb__Enrollment *e;
	char *csr, *name;
	int rv;

	if (a->certificate == NULL || access(a->certificate, F_OK) != 0) {
		fprintf(stderr, "Can't open certificate file %s\n",
			a->certificate != NULL ? a->certificate : "");
		return CODE_ARGUMENT;
	}
	if (a->cluster == NULL || a->cluster[0] == '\0') {
		fprintf(stderr, "You have to specify cluster name\n");
		return CODE_ARGUMENT;
	}
	if (name_check(a->cluster, "name", &problem) != 0) { /* it becomes part of a path */
		complain("%s: %s", problem.field, problem.message);
		return CODE_ARGUMENT;
	}
	csr = enroll_request_read(a->certificate);
	if (csr == NULL)
		return CODE_ARGUMENT;
	rv = site_ensure(inv, a->cluster);
	if (rv == EXIT_OK) {
		printf("Signing cluster certificate\n");
		rv = enroll_call(inv, a->cluster, csr, &e, NULL);
	}
	free(csr);
	if (rv != EXIT_OK)
		return CODE_FAILED;
	name = mem_printf("cluster-%s.crt", a->cluster);
	rv = file_write(a, name, e->certificate_der.data, e->certificate_der.len);
	if (rv == CODE_OK)
		printf("Certificate stored in %s/%s\n", db_dir(), name);
	free(name);
	tb__enrollment__free_unpacked(e, NULL);
	return rv;
}

int main(int argc, char **argv)
{
	static struct invocation inv = {.command = &self};
	struct arguments a = {.group_write = 0020};
	int letter, rv;

	signal(SIGPIPE, SIG_IGN);
	opterr = 0;
	while ((letter = getopt(argc, argv, ":Ghisc:n:")) != -1) {
		switch (letter) {
		case 'i':
		case 's':
			a.operation = letter;
			break;
		case 'c':
			a.certificate = optarg;
			break;
		case 'n':
			a.cluster = optarg;
			break;
		case 'G':
			a.group_write = 0;
			break;
		case 'h':
			usage(argv[0]);
			return CODE_OK;
		case ':':
			fprintf(stderr, "Option -%c requires an argument.\n", optopt);
			return CODE_FAILED;
		default:
			fprintf(stderr, "Invalid option: -%c\n", optopt);
			return CODE_FAILED;
		}
	}
	if (a.operation == 0) {
		usage(argv[0]);
		return CODE_OK;
	}
	rv = a.operation == 'i' ? ca_export(&inv, &a) : certificate_sign(&inv, &a);
	client_free(inv.client);
	return rv;
}
