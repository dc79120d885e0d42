"""Generated protobuf modules: ``make generate`` writes everything here but this file and ``pool``.

The messages are registered in ``epp.gen.pool``, so that Envoy's complete files, should another
package of the process bring them, find their names free in protobuf's default pool.
"""
