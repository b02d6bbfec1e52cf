/* run.h: what the commands of the table do. Each returns an exit code and has told everything. */
#pragma once
#include "cli/command.h"

int run_help(struct invocation *inv);
int run_manual(struct invocation *inv);
int run_complete(struct invocation *inv);
int run_completion(struct invocation *inv);

int run_cluster_init(struct invocation *inv);
int run_cluster_join(struct invocation *inv);
int run_cluster_status(struct invocation *inv);
int run_cluster_remove(struct invocation *inv);
int run_cluster_transfer(struct invocation *inv);
int run_cluster_set(struct invocation *inv);
int run_cluster_rotate_ca(struct invocation *inv);
int run_cluster_backup(struct invocation *inv);
int run_cluster_restore(struct invocation *inv);
int run_cluster_recover(struct invocation *inv);

int run_node_list(struct invocation *inv);
int run_node_show(struct invocation *inv);
int run_node_set(struct invocation *inv);
int run_node_drain(struct invocation *inv);
int run_node_undrain(struct invocation *inv);
int run_node_replace(struct invocation *inv);

int run_token_create(struct invocation *inv);
int run_token_list(struct invocation *inv);
int run_token_revoke(struct invocation *inv);

int run_site_import(struct invocation *inv);
int run_site_create(struct invocation *inv);
int run_site_list(struct invocation *inv);
int run_site_show(struct invocation *inv);
int run_site_set(struct invocation *inv);
int run_site_delete(struct invocation *inv);
int run_site_export(struct invocation *inv);
int run_site_enroll(struct invocation *inv);

int run_tenant_list(struct invocation *inv);
int run_tenant_set(struct invocation *inv);

int run_address_add(struct invocation *inv);
int run_address_list(struct invocation *inv);
int run_address_remove(struct invocation *inv);

int run_event_list(struct invocation *inv);

int run_cert_create(struct invocation *inv);
int run_cert_list(struct invocation *inv);
int run_cert_revoke(struct invocation *inv);
int run_cert_renew(struct invocation *inv);

int run_image_push(struct invocation *inv);
int run_image_list(struct invocation *inv);
int run_image_show(struct invocation *inv);
int run_image_rm(struct invocation *inv);

int run_vm_create(struct invocation *inv);
int run_vm_list(struct invocation *inv);
int run_vm_show(struct invocation *inv);
int run_vm_set(struct invocation *inv);
int run_vm_start(struct invocation *inv);
int run_vm_stop(struct invocation *inv);
int run_vm_restart(struct invocation *inv);
int run_vm_move(struct invocation *inv);
int run_vm_delete(struct invocation *inv);
int run_vm_console(struct invocation *inv);
int run_vm_logs(struct invocation *inv);
