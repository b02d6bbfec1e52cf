/* register_name.h: what a register of KVM_GET_REG_LIST is called, for people who read a refusal.
 * Source: KVM API, KVM_GET_ONE_REG (arm64 ids); Arm ARM DDI 0487, D17 and C5.3. */
#pragma once
#include <stdint.h>

enum { REGISTER_NAME = 32 };

/* An arm64 system register's id by its encoding. */
#define REGISTER_SYSTEM(op0, op1, crn, crm, op2)                                                   \
	(UINT64_C(0x6030000000130000) | (uint64_t)(op0) << 14 | (uint64_t)(op1) << 11 |            \
	 (uint64_t)(crn) << 7 | (uint64_t)(crm) << 3 | (uint64_t)(op2))

/* "MIDR_EL1", "X19", "PSCI_VERSION"; one without a name here is "S3_0_C5_C1_0", or its id in hex.
 */
void register_name(uint64_t id, char ret_name[REGISTER_NAME]);
/* Bytes of its value: a power of two up to 256; 0 for an id that is none of arm64. */
unsigned register_size(uint64_t id);
