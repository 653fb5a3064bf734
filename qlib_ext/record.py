"""Where a workflow of version 0.1 stops, with the new names.

Qlib imports the experiment manager that a workflow names before anything of this package could look at the name.
"""

from qlib_ext.config.renamed import MODULES, SINCE

raise ModuleNotFoundError(
    f"`qlib_ext.record` is `{MODULES[__name__]}` since {SINCE}, and `qlib_ext.record.experiment` is "
    f"`{MODULES['qlib_ext.record.experiment']}`: `qlib-ext check WORKFLOW` says the new name of each",
    name=__name__,
)
