/* gic_state.h: the state of the virtual interrupt controller, out of KVM and into it, in the order
 * of gic_words.h. All vCPUs parked or not started. */
#pragma once
#include "hv/fault.h"
#include "hv/gic.h"
#include "hv/vcpu.h"
#include "proto/hv_state.pb-c.h"

/* *ret was initialised by the caller; what is put into it is freed with it. */
int gic_state_save(const struct gic *g, const struct vcpus *v, Tb__VmGicState *ret,
		   struct fault *fault);
/* Into a controller that was initialised and did nothing yet. -EXDEV if it is of another shape;
 * -EBADMSG and names if KVM refuses words. */
int gic_state_load(const struct gic *g, const struct vcpus *v, const Tb__VmGicState *saved,
		   struct fault *fault);
