/* identity_files.h: key, certificate and CA of an enrolled node, as they lie in the state
 * directory. */
#pragma once

struct identity_files {
	char *certificate, *key, *ca; /* PEM texts */
};

/* 0; negative errno and a sentence (valid until the next call) naming the file that cannot be read.
 */
int identity_files_read(const char *dir, struct identity_files *ret, const char **ret_why);
/* Wipes the key. */
void identity_files_free(struct identity_files *files);
