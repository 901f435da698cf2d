"""The text around a policy in C (rlkit.deploy.c), with places for what differs."""

from __future__ import annotations

OPENING = """\
/* The policy that policy.h describes. The functions greedy_... and sampled_... are made by {generator}. */
#include "policy.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "policy.c looks for NaN and infinity: compile it without -ffast-math and -ffinite-math-only"
#endif
/* sums of four at a time */
#if defined(__clang__)
#pragma clang fp reassociate(on)
#elif defined(__GNUC__) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#pragma GCC optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")
#endif
"""

RESET = """\
void rlkit_policy_reset(rlkit_policy_t *policy) {
    memset(policy, 0, sizeof *policy);
    policy->first = true;
}
"""

NOISE = """\
for (int i = 0; i < {size}; ++i) {{
        if (!(fabsf(noise[i]) <= FLT_MAX)) return RLKIT_NOT_FINITE;
        uniforms[i] = fminf(fmaxf(noise[i], 1e-7f), 1.0f - 1e-7f);
    }}"""

VALUE = "    float value; /* the return that rlkit_policy_act expected in its last call */\n"

HEADER = """\
/* {about}.

   Made by rlkit export --format c. Functions keep nothing but what stands in rlkit_policy_t, so simulations and threads
   each have one of their own. They need no heap, and of libc math.h and string.h alone.

   An action is in the environment's units:
{actions} */
#ifndef RLKIT_POLICY_H
#define RLKIT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define RLKIT_ACTION_SIZE {size}
#define RLKIT_NOISE_SIZE {noise}

/* What is seen in one step. */
{obs}

typedef {dtype} rlkit_action_t; /* [RLKIT_ACTION_SIZE] */

/* The memory of one simulation. */
typedef struct {{
    bool first; /* whether the next step opens an episode */
{memory}}} rlkit_policy_t;

/* What a call says. Where it is not RLKIT_OK, memory and action are as they were. */
enum {{
    RLKIT_OK = 0,
    RLKIT_NOT_FINITE = 1,   /* an observation holds {strange} */
    RLKIT_OUT_OF_RANGE = 2, /* a choice in an observation is none of its space */
    RLKIT_NO_CHOICE = 3     /* a mask allows nothing in one component of the action */
}};

/* Before the first step of every episode. */
void rlkit_policy_reset(rlkit_policy_t *policy);

/* The most likely action. */
int rlkit_policy_act(rlkit_policy_t *policy, const rlkit_obs_t *obs, rlkit_action_t *action);

/* A random action; noise: RLKIT_NOISE_SIZE independent uniform numbers between 0 and 1. */
int rlkit_policy_sample(rlkit_policy_t *policy, const rlkit_obs_t *obs, const float *noise, rlkit_action_t *action);

#ifdef __cplusplus
}}
#endif

#endif
"""

EXAMPLE = """\
/* Three steps of the policy: cc -O2 example.c policy.c -lm -o example */
#include "policy.h"

#include <stdio.h>

static rlkit_policy_t policy;
{obs} /* zeros: put there what your sensors say */

int main(void) {{
    rlkit_action_t action[RLKIT_ACTION_SIZE];
{masks}    rlkit_policy_reset(&policy);
    for (int step = 0; step < 3; ++step) {{
        const int code = rlkit_policy_act(&policy, {given}, action);
        if (code != RLKIT_OK) {{
            printf("step %d: the observation is refused, code %d\\n", step, code);
            return 1;
        }}
        printf("step %d:", step);
        for (int i = 0; i < RLKIT_ACTION_SIZE; ++i) printf(" %g", (double)action[i]);
        printf("\\n");
    }}
    return 0;
}}
"""

CMAKE = """\
# cmake -B build && cmake --build build && build/example
cmake_minimum_required(VERSION 3.13)
project(policy C)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_C_STANDARD 11)
add_library(policy STATIC policy.c)
target_include_directories(policy PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
if(NOT MSVC)
  target_link_libraries(policy PUBLIC m)
endif()
add_executable(example example.c)
target_link_libraries(example policy)
"""

README = """
C (`policy.h` says what stands where; C11, and C++17 as it is):

```c
#include "policy.h"                               /* cc -O2 yours.c policy.c -lm */
rlkit_policy_t policy;
rlkit_obs_t {declared}; rlkit_action_t action[RLKIT_ACTION_SIZE];
rlkit_policy_reset(&policy);                      /* before every episode */
if (rlkit_policy_act(&policy, {given}, action) != RLKIT_OK) {{ /* a sensor failed: memory and action are as before */ }}
```

On the machine that exported it, it takes {sizes}.
For two policies in one program, compile each `policy.c` and the one file that includes its `policy.h` with names of
their own: `-Drlkit_policy_act=walk_act -Drlkit_policy_sample=walk_sample -Drlkit_policy_reset=walk_reset`.
"""

REPLAYER = """\
#include <stdio.h>
#include "policy.h"

static rlkit_policy_t policy;
static {obs};
static float noise[RLKIT_NOISE_SIZE];
static rlkit_action_t action[RLKIT_ACTION_SIZE];

static int get(void *place, size_t size) {{ return fread(place, 1, size, stdin) == size; }}

int main(void) {{
    unsigned char head[2];
    while (get(head, 2) && {reads} && (!head[0] || get(noise, sizeof noise))) {{
        if (head[1] == 2) rlkit_policy_reset(&policy);
        if (head[1]) policy.first = true;
        const int code = head[0] ? rlkit_policy_sample(&policy, {given}, noise, action)
                                 : rlkit_policy_act(&policy, {given}, action);
        {writes}
        fflush(stdout);
    }}
    return 0;
}}
"""
