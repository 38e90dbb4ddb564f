"""Pages on which a person who is logged in answers: approves, declines, waives, rolls back, adopts a policy.

request_page.py    a request to promote a version
proposal_page.py   a proposed policy
waiver_page.py     a failed check
roll_back_page.py  the version that a target serves
people.py          who answered, and who is awaited

Each answer is the record that the command writes, by the same job. `plugins/pages/forms.py` says what a form must have.
"""

from prefect_stagegate.doors import Page, Plugin

_ADDRESSES = {
    "approve": ("/datasets/{dataset}/requests/{target}/{request}", "request"),
    "agree": ("/datasets/{dataset}/proposals/{policy}", "proposal"),
    "waive": ("/datasets/{dataset}/versions/{version}/waive/{target}/{check}", "waiver"),
    "roll back": ("/datasets/{dataset}/targets/{target}/roll-back", "roll_back"),
}

PLUGIN = Plugin(
    pages=tuple(
        Page(
            path,
            f"{__name__}.{name}_page:{name}_page",
            "Datasets",
            f"{name}_form.html",
            act=f"{__name__}.{name}_page:act",
        )
        for path, name in _ADDRESSES.values()
    ),
    answers={action: path for action, (path, _) in _ADDRESSES.items()},
)
