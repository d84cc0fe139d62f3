"""The command line: one module a verb, named in `group.VERBS` and imported when it is called.

A verb parses, calls `lab/`, `topology/` or `checks/`, and renders. `entry.run` is the one place where exceptions
become exit statuses (`status.py`).
"""
