"""Small networks at the processor's speed: traced tensor operations as instructions for machine code.

lower, rules, places    a traced graph to instructions
layout                  where their numbers lie
program                 instructions, their memory, and one call that runs them
kernels, products       what an instruction does
scalars, tile           functions of single numbers; products of matrices in registers
memory                  reading and writing at addresses, in numba
"""
