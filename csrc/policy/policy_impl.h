// The policy, written once; each instruction set compiles it with its own options.
#include "policy/policy_forward_impl.h"
#include "policy/policy_gradient_impl.h"
