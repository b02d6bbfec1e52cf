/* apply_internal.h: what the files that apply commands share. Only for apply*.c. */
#pragma once
#include "cluster/apply.h"

/* What a command's function returns besides 0 and the store's negative error: the result says why,
 * nothing of it stays. */
enum { REFUSED = 1 };

struct applier {
	struct store *s;
	uint64_t index;
	const Tb__Command *command;
	Tb__CommandResult *result;
	struct apply_result *out;
};

/* REFUSED. */
__attribute__((format(printf, 4, 5))) int refuse(struct applier *a, Tb__Refusal why,
						 const char *field, const char *format, ...);
int refuse_invalid(struct applier *a, const struct apply_problem *problem);
int refuse_missing(struct applier *a, const char *field);

/* The audit trail. Names, "" or NULL where there is none. */
struct subject {
	const char *site;
	const char *node;
	const char *vm;
};
__attribute__((format(printf, 5, 6))) int audit(struct applier *a, const char *type,
						Tb__Severity severity, struct subject subject,
						const char *format, ...);

#define INFO TB__SEVERITY__SEVERITY_INFO
#define WARNING TB__SEVERITY__SEVERITY_WARNING

/* Byte for byte as the model would keep them. */
bool message_equal(const ProtobufCMessage *one, const ProtobufCMessage *two);

/* Whoever sent the command may touch the site. */
bool tenant_may(const struct applier *a, const Tb__Site *site);
/* Has the cluster's level reached this one? What a command does may change with a level only:
 * boards of an older release apply the same entries. */
bool level_reached(struct applier *a, unsigned level);

/* Commands about certificates, and what ends with a board, a site or a history. */
int apply_certificate_add(struct applier *a, const Tb__CertificateAdd *op);
int apply_certificate_revoke(struct applier *a, const Tb__CertificateRevoke *op);
int apply_certificate_saved(struct applier *a, const Tb__CertificateSaved *op);
int certificate_add(struct applier *a, const Tb__Certificate *certificate);
int node_certificates_revoke(struct applier *a, const char *name);
int site_certificates_revoke(struct applier *a, const char *name, size_t *ret_count);
int restore_certificates(struct applier *a);

/* Commands about the CAs: rotate, advance, finish. */
int ca_apply(struct applier *a);
int certificate_life_set(struct applier *a, const Tb__ClusterCertificates *op);
/* Commands 70 to 78: images and virtual machines. */
int vm_apply(struct applier *a);
/* May the board go for good? REFUSED while it has the data disks of a VM. */
int vm_home_check(struct applier *a, const Tb__Node *node);
/* All VMs of an older history: nowhere, and in incarnations that it cannot have had. Those whose
 * data disks were on `old_node` (0: none) have them on `node` now. */
int vm_restore(struct applier *a, uint64_t old_node, uint64_t node);
