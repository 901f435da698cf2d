"""Small networks at the processor's speed: traced tensor operations as instructions for kernels in machine code.

lower     a traced graph to instructions
program   instructions, their memory, and one call that runs them
kernels   what an instruction does
tile      matrix products
memory    reading and writing at addresses, in numba
"""
