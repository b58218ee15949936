"""The library's face: one function for the work of each command, on models and data as users have them.

The functions take models as paths, bytes, protos or loaded, data as paths, arrays or data sets, and a
`Workbench` in the place of both. Without data they make synthetic inputs, on which similarities say little
about real ones.
"""
