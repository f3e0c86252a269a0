"""The control plane: what people change.

Every change is one transaction of the change itself, its audit row, the next snapshot version and the notice to all
workers. A rule that is broken is a type of `gateway.errors`. It knows neither HTTP nor SQL.
"""
