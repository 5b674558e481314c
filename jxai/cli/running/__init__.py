"""What all commands share: the command line, processes, threads, compiled programs, and files that survive a kill.

Of these modules none needs a package beyond JAX and NumPy until it is called, so that they serve where little else
is installed. Not part of the functional interface of `jxai`.
"""
